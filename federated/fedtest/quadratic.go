package fedtest

import (
	"fmt"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/gomlx/core/graph"
)

// Quadratics is a federation of three members with objectives F_k(w) = ½·a_k·(w − c_k)² of one number w, in float64:
// a = (1, 2, 4), c = (1, −2, 3), with n = (10, 30, 60) equal examples each. Its methods' trajectories can be computed by
// hand. The problem starts at w = 0, makes 5 full-batch steps of rate 0.1 a round and asks everybody.
func Quadratics(e *train.Engine, rounds int) (*World, *federated.Problem) {
	w := &World{Engine: e}
	for k, q := range []struct {
		a, c float32
		n    int
	}{{1, 1, 10}, {2, -2, 30}, {4, 3, 60}} {
		data := &dataset.Examples{Name: "quadratic", Shape: []int{2}}
		for range q.n {
			data.F32 = append(data.F32, q.a, q.c)
			data.Targets = append(data.Targets, 0)
		}
		w.Members = append(w.Members, Holder{Name: fmt.Sprintf("member-%d", k), Train: data.All()})
	}
	return w, &federated.Problem{
		Build: func(rate float64) (*nn.Model, error) { return quadratic(rate), nil }, DType: weights.Float64,
		Loss: train.MeanSquares, Custom: func(output, _ *graph.Node) *graph.Node { return graph.Reshape(output, output.Shape().Dimensions[0]) },
		Rounds: rounds, Select: federated.Selection{Everyone: true},
		Training: federated.Training{Epochs: 5, Rate: train.Constant(0.1)}, Measuring: federated.Measuring{Every: rounds},
	}
}

// quadratic is the model whose output for the input (a, c) is ½·a·(w − c)².
func quadratic(rate float64) *nn.Model {
	return &nn.Model{
		Name: "quadratic", Rate: rate, Input: []int{2}, Classes: 1, MinBatch: 1,
		Params: []nn.Param{{Name: "w", Dims: []nn.Dim{{Name: "w", Size: 1}}, Role: nn.Kernel, Head: true}},
		Forward: func(p *nn.Pass, x *graph.Node) *graph.Node {
			a := graph.SliceAxis(x, 1, graph.AxisRange(0, 1))
			c := graph.SliceAxis(x, 1, graph.AxisRange(1, 2))
			d := graph.Sub(graph.BroadcastToDims(graph.Reshape(p.Params["w"], 1, 1), x.Shape().Dimensions[0], 1), c)
			return graph.MulScalar(graph.Mul(a, graph.Mul(d, d)), 0.5)
		},
	}
}

// Pool gives the server the data of all members.
func (w *World) Pool() {
	data := &dataset.Examples{Name: "pooled", Shape: w.Members[0].Train.Data.Shape, Classes: w.Members[0].Train.Data.Classes}
	size := data.Size()
	for _, m := range w.Members {
		from := m.Train.Data
		for _, r := range m.Train.Rows {
			data.F32 = append(data.F32, from.F32[int(r)*size:(int(r)+1)*size]...)
			if from.Labels != nil {
				data.Labels = append(data.Labels, from.Labels[r])
			}
			if from.Targets != nil {
				data.Targets = append(data.Targets, from.Targets[r])
			}
		}
	}
	w.Pooled = data.All()
}

// Numbers returns the values of a set of the state after each round, at its first coordinate.
func (l *Trace) Numbers(set string) []float64 {
	var v []float64
	for _, s := range l.Snapshots {
		x := s.State.Sets[set]
		v = append(v, x.Must(x.Names()[0]).At(0))
	}
	return v
}
