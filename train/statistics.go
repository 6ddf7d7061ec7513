package train

import (
	"context"
	"fmt"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/weights"
)

// Statistics is a sum of batch statistics of static batch norm layers (HeteroFL, arXiv 2010.01264, section 3): by the
// names of [nn.Model.StatNames], the sums over batches of each batch's mean and unbiased variance, in float64. Sums of
// several clients add up, and the mean over all batches is what evaluation uses; every batch counts 1, whatever its size.
type Statistics struct {
	Sum     weights.Set
	Batches int
}

// Add adds the batches of o to t.
func (t *Statistics) Add(o Statistics) {
	if t.Batches == 0 && t.Sum.Len() == 0 {
		t.Sum = o.Sum.Zeros()
	}
	t.Sum.AddScaled(1, o.Sum)
	t.Batches += o.Batches
}

// Mean returns the statistics for evaluation, Sum/Batches. It panics if there were no batches.
func (t Statistics) Mean() weights.Set {
	if t.Batches < 1 {
		panic("train: mean of no batch statistics")
	}
	m := t.Sum.Zeros()
	for name, x := range t.Sum.All() {
		y := m.Must(name)
		for i := range x.Len() {
			y.SetAt(i, x.At(i)/float64(t.Batches))
		}
	}
	return m
}

// Pass is a way through a view in training mode, for [Session.Statistics] and [Session.Gradient].
type Pass struct {
	Batch     int // examples at a time; 0: all of them
	Augment   dataset.Augment
	Random    *rng.Stream // shuffles, augments and drops; nil: in order, and refused if anything else is random
	SkipSmall bool        // leave out a last batch that is too small for batch norm, instead of an error
}

// walk calls do for every batch of v with its lane filled.
func (s *Session) walk(ctx context.Context, k kind, v dataset.View, p Pass, do func(l *lane, n int) error) error {
	if p.Batch < 0 {
		return fmt.Errorf("batches of %d", p.Batch)
	}
	labelled := k == gradientKind || k == curvatureKind
	if err := s.checkView(v, p.Batch, p.SkipSmall, labelled); err != nil {
		return err
	}
	if err := s.checkRandom(p.Augment, p.Random, true); err != nil {
		return err
	}
	t := turn{rows: append([]int32(nil), v.Rows...)}
	draws := p.Random
	if p.Random != nil {
		t.random, draws = p.Random.Fork("batches"), p.Random.Fork("draws")
	}
	t.shuffle()
	at := shape{kind: k, group: everyGroup, tokens: s.rowTokens(v.Data)}
	at.masked = labelled && s.l.spec.Mask != NoMask
	for t.next < len(t.rows) {
		rows := t.take(p.Batch)
		if len(rows) < max(1, s.l.spec.Model.MinBatch) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		at.batch = len(rows)
		l, err := s.trainingLane(at)
		if err != nil {
			return err
		}
		if labelled {
			if err := l.checkTargets(s.l.spec, v.Data); err != nil {
				return err
			}
		}
		s.writeScalars(l)
		l.fill(s.l.spec, v.Data, rows, p.Augment, draws)
		if err := do(l, len(rows)); err != nil {
			return err
		}
	}
	return nil
}

// Statistics runs the model over v in training mode, without Scaler, and returns the batch statistics of its static
// batch norm layers. Deeper layers see inputs that were normalised with statistics of the batch.
func (s *Session) Statistics(ctx context.Context, v dataset.View, p Pass) (Statistics, error) {
	m := s.l.spec.Model
	t := Statistics{Sum: weights.NewSet(2 * len(m.Norms))}
	names := m.StatNames()
	for i, name := range names {
		t.Sum.Put(name, weights.NewTensor(weights.Float64, m.Norms[i/2].Dim.At(m.Rate)))
	}
	if len(names) == 0 {
		return t, fmt.Errorf("statistics of %s: it has no static batch norm", m.Name)
	}
	var r reader
	err := s.walk(ctx, statsKind, v, p, func(l *lane, _ int) error {
		results, err := s.run(l)
		if err != nil {
			return err
		}
		defer release(results)
		for i, name := range names {
			sum := t.Sum.Must(name).F64
			if err := r.read(results[i], s.l.spec.DType, len(sum)); err != nil {
				return err
			}
			for j := range sum {
				sum[j] += r.at(j)
			}
		}
		t.Batches++
		return nil
	})
	if err != nil {
		return Statistics{}, fmt.Errorf("statistics of %s: %w", m.Name, err)
	}
	return t, nil
}

// Statistics collects batch statistics for the weights w: [Session.Statistics] in a session of its own.
func (e *Engine) Statistics(ctx context.Context, spec *Spec, w weights.Set, v dataset.View, p Pass) (Statistics, error) {
	s, err := e.asking(spec, w, weights.Set{})
	if err != nil {
		return Statistics{}, err
	}
	defer s.Close()
	return s.Statistics(ctx, v, p)
}
