package train

import (
	"context"
	"errors"
	"fmt"
	"math/bits"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/weights"
)

// EvalOptions says how a model is evaluated. The zero value is good for most.
type EvalOptions struct {
	Batch int // examples at a time; 0: the least power of two that holds all, at most 128
	// LabelMask masks absent classes as the spec says; nil masks none, whatever the spec says.
	LabelMask []float32
	Confusion bool         // whether to count the confusion matrix
	Skew      dataset.Skew // how the rows are seen, see [dataset.Skew]
	Random    *rng.Stream  // hides tokens; needed if the spec hides any
}

// maxConfusion bounds the classes of a confusion matrix (4096 take 128 MiB).
const maxConfusion = 4096

// Evaluate measures the model in evaluation mode (no dropout, no Scaler, given statistics) on all rows of v. The last
// batch is filled up, so that one program serves every row, and what fills it is not counted. Losses are added in
// float64 in the order of the rows: the result does not depend on threads.
func (s *Session) Evaluate(ctx context.Context, v dataset.View, o EvalOptions) (Metrics, error) {
	var t tally
	spec := s.l.spec
	if o.Confusion && spec.Loss == CrossEntropy {
		n := spec.Model.Classes
		if n > maxConfusion {
			return Metrics{}, fmt.Errorf("evaluating %s: a confusion matrix of %d classes is larger than %d×%d",
				s.l.held.Name, n, maxConfusion, maxConfusion)
		}
		cells := make([]int, n*n)
		t.m.Confusion = make([][]int, n)
		for i := range t.m.Confusion {
			t.m.Confusion[i] = cells[i*n : (i+1)*n : (i+1)*n]
		}
	}
	var losses, values reader
	var predicted []int32
	err := s.sweep(ctx, evaluateKind, v, o, func(l *lane, n int) error {
		if err := l.checkLabels(); err != nil {
			return err
		}
		results, err := s.run(l)
		if err != nil {
			return err
		}
		defer release(results)
		shape, err := results[0].Shape()
		if err != nil {
			return err
		}
		if shape.Rank() == 0 || shape.Dimensions[0] != l.batch {
			return fmt.Errorf("its loss has shape %v; evaluation needs one number an example", shape)
		}
		if err := losses.read(results[0], s.l.spec.DType, shape.Size()); err != nil {
			return err
		}
		each := shape.Size() / l.batch
		if spec.Loss == CrossEntropy {
			if predicted == nil {
				predicted = make([]int32, len(l.labels))
			}
			if err := results[1].ToFlatData(predicted); err != nil {
				return err
			}
			if len(predicted) != shape.Size() {
				return fmt.Errorf("its loss has shape %v for %d predictions", shape, len(predicted))
			}
			for i := range n * each {
				t.class(losses.at(i), l.labels[i], predicted[i])
			}
			return nil
		}
		if err := values.read(results[1], s.l.spec.DType, len(l.values)); err != nil {
			return err
		}
		for i := range n * each {
			t.m.N++
			t.loss += losses.at(i)
		}
		for i := range n * (len(l.values) / l.batch) {
			t.value(values.at(i), float64(l.values[i]))
		}
		return nil
	})
	if err != nil {
		return Metrics{}, fmt.Errorf("evaluating %s: %w", s.l.held.Name, err)
	}
	return t.metrics(spec.Loss), nil
}

// Predict returns the outputs of the model in evaluation mode for all rows of v, [rows, …, classes]. With a label mask
// absent classes are masked as the spec says.
func (s *Session) Predict(ctx context.Context, v dataset.View, o EvalOptions) (weights.Tensor, error) {
	var out weights.Tensor
	var r reader
	done := 0
	err := s.sweep(ctx, predictKind, v, o, func(l *lane, n int) error {
		results, err := s.run(l)
		if err != nil {
			return err
		}
		defer release(results)
		size := l.p.output.Size()
		if out.Shape == nil {
			dims := append([]int{v.Len()}, l.p.output.Dimensions[1:]...)
			out = weights.NewTensor(s.l.spec.DType, dims...)
		}
		if err := r.read(results[0], s.l.spec.DType, size); err != nil {
			return err
		}
		each := size / l.batch
		for i := range n * each {
			out.SetAt(done*each+i, r.at(i))
		}
		done += n
		return nil
	})
	if err != nil {
		return weights.Tensor{}, fmt.Errorf("predicting with %s: %w", s.l.held.Name, err)
	}
	return out, nil
}

// sweep runs a program of evaluation mode over all rows of v in order; do is told how many rows of the batch count.
func (s *Session) sweep(ctx context.Context, k kind, v dataset.View, o EvalOptions, do func(l *lane, n int) error) error {
	spec, m := s.l.spec, s.l.spec.Model
	switch {
	case s.broken != nil:
		return s.broken
	case v.Data == nil || v.Len() == 0:
		return errors.New("no examples")
	case o.Batch < 0:
		return fmt.Errorf("batches of %d", o.Batch)
	case len(m.Norms) > 0 && len(s.buffers[statTable]) == 0:
		return errors.New("static batch norm needs evaluation statistics, and none are given")
	case o.LabelMask != nil && spec.Mask == NoMask:
		return errors.New("a label mask is given, and the spec does not say how to mask")
	}
	if err := s.checkData(v.Data, k == evaluateKind); err != nil {
		return err
	}
	if err := s.checkRandom(dataset.Augment{}, o.Random, false); err != nil {
		return err
	}
	batch := o.Batch
	if batch == 0 {
		// Powers of two, so that clients with a few rows each share a few programs.
		batch = min(128, 1<<bits.Len(uint(v.Len()-1)))
	}
	at := shape{kind: k, batch: batch, tokens: s.rowTokens(v.Data), masked: o.LabelMask != nil, stats: len(m.Norms) > 0}
	l, err := s.lane(at)
	if err != nil {
		return err
	}
	if k == evaluateKind {
		if err := l.checkTargets(spec, v.Data); err != nil {
			return err
		}
	}
	if o.LabelMask != nil {
		present, err := classes(o.LabelMask, m.Classes)
		if err != nil {
			return err
		}
		copy(l.mask, present)
	}
	s.writeScalars(l)
	rows := make([]int32, batch)
	for from := 0; from < v.Len(); from += batch {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := copy(rows, v.Rows[from:])
		for i := n; i < batch; i++ {
			rows[i] = rows[n-1]
		}
		l.fill(spec, v.Data, rows, dataset.Augment{Skew: o.Skew}, o.Random)
		if err := do(l, n); err != nil {
			return err
		}
	}
	return nil
}

// reader reads numbers of either type.
type reader struct {
	f32 []float32
	f64 []float64
}

func (r *reader) read(b interface{ ToFlatData(any) error }, d weights.DType, n int) error {
	if d == weights.Float64 {
		if len(r.f64) != n {
			r.f64 = make([]float64, n)
		}
		return b.ToFlatData(r.f64)
	}
	if len(r.f32) != n {
		r.f32 = make([]float32, n)
	}
	return b.ToFlatData(r.f32)
}

func (r *reader) at(i int) float64 {
	if r.f64 != nil {
		return r.f64[i]
	}
	return float64(r.f32[i])
}

// Evaluate measures the weights w on v: [Session.Evaluate] in a session of its own. Stats are the statistics of static
// batch norm layers, empty for models without. A spec with Derive that uses extras or scalars needs [Engine.Begin].
func (e *Engine) Evaluate(ctx context.Context, spec *Spec, w, stats weights.Set, v dataset.View, o EvalOptions) (Metrics, error) {
	s, err := e.asking(spec, w, stats)
	if err != nil {
		return Metrics{}, err
	}
	defer s.Close()
	return s.Evaluate(ctx, v, o)
}

// Predict returns the outputs for the weights w on v: [Session.Predict] in a session of its own.
func (e *Engine) Predict(ctx context.Context, spec *Spec, w, stats weights.Set, v dataset.View, o EvalOptions) (weights.Tensor, error) {
	s, err := e.asking(spec, w, stats)
	if err != nil {
		return weights.Tensor{}, err
	}
	defer s.Close()
	return s.Predict(ctx, v, o)
}

// asking begins a session that is not trained: extras and scalars, which then matter only to Derive, are not needed.
func (e *Engine) asking(spec *Spec, w, stats weights.Set) (*Session, error) {
	return e.Begin(spec, w, Options{Stats: stats, untrained: true})
}
