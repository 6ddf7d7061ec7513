package nn

import (
	"math"

	"github.com/gomlx/gomlx/core/graph"
)

// activations by name.
var activations = map[string]layer{
	"relu":    func(_ *Pass, x *graph.Node) *graph.Node { return ReLU(x) },
	"gelu":    func(_ *Pass, x *graph.Node) *graph.Node { return GELU(x) },
	"tanh":    func(_ *Pass, x *graph.Node) *graph.Node { return graph.Tanh(x) },
	"sigmoid": func(_ *Pass, x *graph.Node) *graph.Node { return graph.Logistic(x) },
}

// ReLU returns max(x, 0) with derivative 0 at 0.
func ReLU(x *graph.Node) *graph.Node {
	zero := graph.ScalarZero(x.Graph(), x.DType())
	return graph.Where(graph.GreaterThan(x, zero), x, zero)
}

// GELU returns x·Φ(x) = x·(1 + erf(x/√2))/2, the exact form.
func GELU(x *graph.Node) *graph.Node {
	phi := graph.MulScalar(graph.AddScalar(graph.Erf(graph.MulScalar(x, 1/math.Sqrt2)), 1), 0.5)
	return graph.Mul(x, phi)
}

// softmax returns exp(x)/Σexp(x) over the last axis.
func softmax(x *graph.Node) *graph.Node {
	top := graph.StopGradient(graph.ReduceAndKeep(x, graph.ReduceMax, -1))
	e := graph.Exp(graph.Sub(x, top))
	return graph.Div(e, graph.ReduceAndKeep(e, graph.ReduceSum, -1))
}
