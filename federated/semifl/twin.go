package semifl

import (
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/train"
	"github.com/gomlx/gomlx/core/graph"
)

// twin is a model of two passes: for inputs [batch, 2, …] it gives the outputs of both, [batch, 2, classes], each pass with batch
// statistics of its own.
func twin(m *nn.Model) *nn.Model {
	t := *m
	t.Name = m.Name + " twice"
	t.Input = append([]int{2}, m.Input...)
	t.Forward = func(p *nn.Pass, x *graph.Node) *graph.Node {
		var z []*graph.Node
		for i := range 2 {
			one := graph.Squeeze(graph.SliceAxis(x, 1, graph.AxisElem(i)), 1)
			z = append(z, graph.ExpandAxes(m.Forward(p, one), 1))
		}
		return graph.Concatenate(z, 1)
	}
	return &t
}

// softCrossEntropy returns log Σ_c exp z_c − Σ_c y_c·z_c over the last axis, for targets y_c that sum to 1: of two labels with parts
// λ and 1−λ it is λ·CE(z, first) + (1−λ)·CE(z, second).
func softCrossEntropy(z, y *graph.Node) *graph.Node {
	s := graph.Sub(z, graph.StopGradient(graph.ReduceAndKeep(z, graph.ReduceMax, -1)))
	return graph.Sub(graph.Log(graph.ReduceSum(graph.Exp(s), -1)), graph.ReduceSum(graph.Mul(y, s), -1))
}

// fixAndMix returns L_fix + λ·L_mix of every example, of outputs and targets [batch, 2, classes]: first fix, then mix.
func fixAndMix(lambda float64) func(z, y *graph.Node) *graph.Node {
	return func(z, y *graph.Node) *graph.Node {
		each := softCrossEntropy(z, y) // [batch, 2]
		part := func(i int) *graph.Node { return graph.Squeeze(graph.SliceAxis(each, 1, graph.AxisElem(i)), 1) }
		return graph.Add(part(0), graph.MulScalar(part(1), lambda))
	}
}

// scaled sets the Scaler of a level in training.
func (a *Algorithm) scaled(s *train.Spec, rate float64) {
	if a.Mode != nil {
		s.Scale = rate / a.Rate
	}
}

// step is the training step of members of a level, on one pass: of kept or labelled examples.
func (a *Algorithm) step(rate float64) (*train.Spec, error) {
	return a.Spec("fix", rate, func(s *train.Spec) {
		a.scaled(s, rate)
		a.decompose(s)
	})
}

// twinStep is the training step with the mix loss.
func (a *Algorithm) twinStep(rate float64) (*train.Spec, error) {
	return a.Spec("fix and mix", rate, func(s *train.Spec) {
		s.Model = twin(s.Model)
		s.Loss, s.Custom = train.MeanSquares, fixAndMix(a.Lambda)
		a.scaled(s, rate)
	})
}

// askStep answers for batches in evaluation mode with the statistics of the batch itself, where there are no others: as
// FixMatch's labels are made. It trains the same parameters as step, so that a session can switch between the two.
func (a *Algorithm) askStep(rate float64) (*train.Spec, error) {
	return a.Spec("ask", rate, func(s *train.Spec) {
		m := *s.Model
		m.Norms = nil
		s.Model = &m
		a.decompose(s)
	})
}
