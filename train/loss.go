package train

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
)

// maskClasses applies m to the outputs z [batch, …, classes]; present is [classes] and tells the classes that are there.
func maskClasses(m Mask, z, present *graph.Node) *graph.Node {
	absent := graph.ScalarZero(z.Graph(), z.DType())
	if m == InfMask {
		absent = graph.Infinity(z.Graph(), z.DType(), -1)
	}
	return graph.Where(graph.BroadcastToShape(graph.ExpandLeftToRank(present, z.Rank()), z.Shape()), z,
		graph.BroadcastToShape(absent, z.Shape()))
}

// crossEntropy returns log Σ_c exp z_c − z_y for z [batch, …, classes] and labels y [batch, …], without overflow.
// Outputs of −∞ give neither loss nor gradient unless they are the label's.
func crossEntropy(z, y *graph.Node) *graph.Node {
	s := graph.Sub(z, graph.StopGradient(graph.ReduceAndKeep(z, graph.ReduceMax, -1)))
	logSum := graph.Log(graph.ReduceSum(graph.Exp(s), -1))
	class := graph.Iota(z.Graph(), shapes.Make(dtypes.Int32, z.Shape().Dimensions...), -1)
	hit := graph.Equal(class, graph.BroadcastToShape(graph.ExpandAxes(y, -1), class.Shape()))
	return graph.Sub(logSum, graph.ReduceSum(graph.Where(hit, s, graph.ZerosLike(s)), -1))
}

// meanSquares returns the mean of (z − y)² over all axes but the first.
func meanSquares(z, y *graph.Node) *graph.Node {
	d := graph.Sub(z, y)
	d = graph.Mul(d, d)
	if d.Rank() == 1 {
		return d
	}
	axes := make([]int, d.Rank()-1)
	for i := range axes {
		axes[i] = i + 1
	}
	return graph.ReduceMean(d, axes...)
}

// each returns the loss of every example or position.
func (s *Spec) each(custom func(output, target *graph.Node) *graph.Node, z, y *graph.Node) *graph.Node {
	switch {
	case custom != nil:
		return custom(z, y)
	case s.Custom != nil:
		return s.Custom(z, y)
	case s.Loss == MeanSquares:
		return meanSquares(z, y)
	case s.Loss == CrossEntropy:
		return crossEntropy(z, y)
	}
	panic(fmt.Sprintf("train: unknown loss %d", s.Loss))
}

// mean averages over whatever axes are left.
func mean(x *graph.Node) *graph.Node {
	if x.IsScalar() {
		return x
	}
	return graph.ReduceAllMean(x)
}

// clip scales the gradients so that their common Euclidean norm is at most bound, as torch.nn.utils.clip_grad_norm_
// does: g ← g·min(1, bound/(‖g‖+1e-6)).
func clip(grads []*graph.Node, bound float64) {
	if bound == 0 || len(grads) == 0 {
		return
	}
	var sum *graph.Node
	for _, g := range grads {
		q := graph.ReduceAllSum(graph.Mul(g, g))
		if sum == nil {
			sum = q
		} else {
			sum = graph.Add(sum, q)
		}
	}
	norm := graph.AddScalar(graph.Sqrt(sum), 1e-6)
	factor := graph.MinScalar(graph.Div(graph.ConstAs(norm, bound), norm), 1)
	for i, g := range grads {
		grads[i] = graph.Mul(g, factor)
	}
}
