package semifl

import (
	"context"
	"math"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// labels are what a member's examples were taken for, by position in its view.
type labels struct {
	class []int32
	sure  []int // positions that the model was sure about, ascending
	tally
}

// tally counts labels.
type tally struct {
	all, kept                          int
	known, right, keptKnown, keptRight int // of those with a true label
}

// The scalars that tell a tally.
const (
	labelled  = "pseudo.examples"
	kept      = "pseudo.kept"
	known     = "pseudo.known"
	right     = "pseudo.right"
	keptKnown = "pseudo.kept.known"
	keptRight = "pseudo.kept.right"
)

func (n *tally) scalars(to map[string]float64) map[string]float64 {
	for name, v := range map[string]int{labelled: n.all, kept: n.kept, known: n.known, right: n.right, keptKnown: n.keptKnown, keptRight: n.keptRight} {
		to[name] = float64(v)
	}
	return to
}

// count notes a label and whether it was kept. The true label, −1 if there is none, has no other use.
func (n *tally) count(class, truth int32, keep bool) {
	n.all++
	if keep {
		n.kept++
	}
	if truth < 0 {
		return
	}
	n.known++
	if keep {
		n.keptKnown++
	}
	if class == truth {
		n.right++
		if keep {
			n.keptRight++
		}
	}
}

func truth(v dataset.View, position int) int32 {
	if v.Data.Labels == nil {
		return -1
	}
	return v.Data.Labels[v.Rows[position]]
}

// labelBatch is how many examples are labelled at a time; no result depends on it.
const labelBatch = 250

// label labels all examples of a member with the weights and statistics that it received, and keeps those with max p ≥ τ.
func (c client) label(ctx context.Context, at federated.Local, round int, rate float64, w, stats weights.Set) (*labels, error) {
	spec, err := c.Spec("label", rate, nil)
	if err != nil {
		return nil, err
	}
	s, err := at.Engine.Begin(spec, w, train.Options{Stats: stats})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	v, out, random := at.Train, &labels{}, at.Rand(round, "label")
	weak := c.weak(at)
	if c.Clean {
		weak = dataset.Augment{Skew: at.Skew}
	}
	size := v.Data.Size()
	x := make([]float32, min(labelBatch, v.Len())*size)
	for from := 0; from < v.Len(); from += labelBatch {
		rows := v.Rows[from:min(from+labelBatch, v.Len())]
		seen := x[:len(rows)*size]
		v.Data.Fill(seen, rows, weak, random)
		z, err := s.Predict(ctx, seenAs(v.Data, seen), train.EvalOptions{Batch: min(labelBatch, v.Len())})
		if err != nil {
			return nil, err
		}
		for i := range rows {
			class, p := surest(z, i)
			out.class = append(out.class, class)
			keep := p >= c.Threshold
			if keep {
				out.sure = append(out.sure, from+i)
			}
			out.count(class, truth(v, from+i), keep)
		}
	}
	return out, nil
}

// weak is the weak augmentation of a member.
func (c client) weak(at federated.Local) dataset.Augment {
	aug := c.Training.Augment
	aug.Skew = at.Skew
	return aug
}

// seenAs is a data set of inputs as a model is to see them.
func seenAs(like *dataset.Examples, x []float32) dataset.View {
	e := &dataset.Examples{Name: like.Name, Shape: like.Shape, F32: x}
	return e.All()
}

// surest returns the first class with the greatest output of an example and its probability, exp z_c / Σ exp z.
func surest(z weights.Tensor, example int) (class int32, p float64) {
	n := z.Shape[len(z.Shape)-1]
	best := math.Inf(-1)
	for k := range n {
		if v := z.At(example*n + k); v > best {
			best, class = v, int32(k)
		}
	}
	sum := 0.0
	for k := range n {
		sum += math.Exp(z.At(example*n+k) - best)
	}
	return class, 1 / sum
}

// mixed draws, for every kept example, one of all with replacement.
func (l *labels) mixed(r *rng.Stream) []int {
	out := make([]int, len(l.sure))
	for i := range out {
		out[i] = r.IntN(len(l.class))
	}
	return out
}
