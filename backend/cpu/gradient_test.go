package cpu_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/cohort-learning/cohort/backend/cpu"
)

// differentiable are the operations on the training path, each as a function of
// float arrays of the given shapes.
var differentiable = []struct {
	name string
	dims [][]int
	fn   func(x []*Node) *Node
}{
	{"add", [][]int{{3, 4}, {1, 4}}, func(x []*Node) *Node { return Add(x[0], x[1]) }},
	{"mul", [][]int{{3, 4}, {3, 1}}, func(x []*Node) *Node { return Mul(x[0], x[1]) }},
	{"div", [][]int{{3, 4}, {4}}, func(x []*Node) *Node { return Div(x[0], ExpandLeftToRank(AddScalar(Square(x[1]), 1), 2)) }},
	{"exp", [][]int{{7}}, func(x []*Node) *Node { return Exp(x[0]) }},
	{"log", [][]int{{7}}, func(x []*Node) *Node { return Log(AddScalar(Square(x[0]), 0.5)) }},
	{"sqrt", [][]int{{7}}, func(x []*Node) *Node { return Sqrt(AddScalar(Square(x[0]), 0.5)) }},
	{"tanh", [][]int{{2, 33}}, func(x []*Node) *Node { return Tanh(x[0]) }},
	{"sigmoid", [][]int{{2, 33}}, func(x []*Node) *Node { return Sigmoid(x[0]) }},
	{"erf", [][]int{{2, 33}}, func(x []*Node) *Node { return Erf(x[0]) }},
	{"sin", [][]int{{7}}, func(x []*Node) *Node { return Sin(x[0]) }},
	{"where", [][]int{{5, 5}}, func(x []*Node) *Node { return relu(x[0]) }},
	{"max", [][]int{{5, 5}, {5, 5}}, func(x []*Node) *Node { return Max(x[0], x[1]) }},
	{"transpose", [][]int{{2, 3, 4}}, func(x []*Node) *Node { return Mul(TransposeAllAxes(x[0], 2, 0, 1), TransposeAllAxes(x[0], 2, 0, 1)) }},
	{"slice and concatenate", [][]int{{4, 6}}, func(x []*Node) *Node {
		return Concatenate([]*Node{Slice(x[0], AxisRange(), AxisRange(3, 6)), Square(Slice(x[0], AxisRange(), AxisRange(0, 3)))}, 1)
	}},
	{"gather", [][]int{{5, 3}}, func(x []*Node) *Node {
		return Square(Gather(x[0], Const(x[0].Graph(), [][]int32{{4}, {1}, {1}})))
	}},
	{"reduce", [][]int{{3, 4, 5}}, func(x []*Node) *Node { return Square(ReduceSum(x[0], 1)) }},
	{"maximum", [][]int{{3, 4}}, func(x []*Node) *Node { return ReduceMax(x[0], 1) }},
	{"softmax", [][]int{{3, 6}}, func(x []*Node) *Node { return Softmax(x[0], -1) }},
	{"log-softmax", [][]int{{3, 6}}, func(x []*Node) *Node { return LogSoftmax(x[0]) }},
	{"dot", [][]int{{3, 4}, {4, 5}}, func(x []*Node) *Node { return Dot(x[0], x[1]).Product() }},
	{"batched dot", [][]int{{2, 3, 4}, {2, 5, 4}}, func(x []*Node) *Node { return Einsum("bqd,bkd->bqk", x[0], x[1]) }},
	{"heads", [][]int{{2, 3, 2, 4}, {2, 5, 2, 4}}, func(x []*Node) *Node { return Einsum("bqhd,bkhd->bhqk", x[0], x[1]) }},
	{"shared weights", [][]int{{3, 2, 4}, {4, 4}}, func(x []*Node) *Node {
		h := Squeeze(Slice(x[0], AxisElem(0)), 0)
		for t := 1; t < 3; t++ {
			h = Tanh(Add(Dot(h, x[1]).Product(), Squeeze(Slice(x[0], AxisElem(t)), 0)))
		}
		return h
	}},
	{"convolution", [][]int{{2, 5, 6, 3}, {4, 3, 3, 3}}, func(x []*Node) *Node { return conv(x[0], x[1], 1) }},
	{"strided convolution", [][]int{{2, 7, 6, 3}, {4, 3, 3, 3}}, func(x []*Node) *Node { return conv(x[0], x[1], 2) }},
	{"1×1 convolution", [][]int{{2, 4, 4, 3}, {5, 3, 1, 1}}, func(x []*Node) *Node { return conv(x[0], x[1], 1) }},
	{"dilated convolution", [][]int{{1, 8, 8, 2}, {3, 2, 3, 3}}, func(x []*Node) *Node {
		return ConvGeneral(x[0], x[1], oihw, []int{1, 1}, [][2]int{{2, 2}, {2, 2}}, nil, []int{2, 2}, 1, 1)
	}},
	{"grouped convolution", [][]int{{2, 5, 5, 4}, {6, 2, 3, 3}}, func(x []*Node) *Node {
		return ConvGeneral(x[0], x[1], oihw, []int{1, 1}, [][2]int{{1, 1}, {1, 1}}, nil, nil, 2, 1)
	}},
	{"one channel", [][]int{{3, 6, 6, 1}, {4, 1, 3, 3}}, func(x []*Node) *Node { return conv(x[0], x[1], 1) }},
	{"line", [][]int{{2, 9, 3}, {3, 3, 4}}, func(x []*Node) *Node { return Convolve(x[0], x[1]).PadSame().Done() }},
	{"max pool", [][]int{{2, 5, 4, 3}}, func(x []*Node) *Node { return MaxPool(x[0]).Window(2).Strides(2).NoPadding().Done() }},
	{"overlapping max pool", [][]int{{2, 6, 6, 3}}, func(x []*Node) *Node { return MaxPool(x[0]).Window(3).Strides(2).PadSame().Done() }},
	{"mean pool", [][]int{{2, 4, 4, 3}}, func(x []*Node) *Node { return MeanPool(x[0]).Window(2).Strides(2).NoPadding().Done() }},
	{"batch norm", [][]int{{3, 2, 2, 4}, {4}, {4}}, func(x []*Node) *Node { return batchNorm(x[0], x[1], x[2]) }},
	{"backend batch norm", [][]int{{3, 2, 2, 4}, {4}, {4}}, func(x []*Node) *Node {
		y, _, _ := InternalBatchNormForTraining(x[0], x[1], x[2], 1e-5, 3)
		return y
	}},
	{"cross entropy", [][]int{{4, 5}}, func(x []*Node) *Node {
		return Square(crossEntropyOf(x[0], Const(x[0].Graph(), []int32{0, 3, 4, 1})))
	}},
}

// crossEntropyOf is crossEntropy in the dtype of the logits.
func crossEntropyOf(logits, labels *Node) *Node {
	hot := OneHot(labels, logits.Shape().Dimensions[1], logits.DType())
	return Neg(ReduceAllMean(ReduceSum(Mul(LogSoftmax(logits), hot), 1)))
}

// TestGradients compares gradients in float32, which run on the vector kernels,
// with central differences of the same function in float64, which runs on the
// portable loops.
func TestGradients(t *testing.T) {
	b := newBackend(t, cpu.Options{})
	for _, c := range differentiable {
		t.Run(c.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(3, uint64(len(c.name))))
			var at [][]float64
			for _, d := range c.dims {
				v := make([]float64, shapes.Make(dtypes.Float64, d...).Size())
				for i := range v {
					v[i] = float64(float32(r.NormFloat64()))
				}
				at = append(at, v)
			}
			// The scalar that is differentiated weighs the elements unevenly.
			scalar := func(g *Graph, dt dtypes.DType) (x []*Node, y *Node) {
				for i, d := range c.dims {
					x = append(x, Parameter(g, string(rune('a'+i)), shapes.Make(dt, d...)))
				}
				y = c.fn(x)
				flat := Reshape(y, y.Shape().Size())
				weight := Sin(AddScalar(MulScalar(Iota(g, flat.Shape(), 0), 0.7), 0.3))
				return x, ReduceAllSum(Mul(flat, weight))
			}
			s := &spy{Backend: b}
			g32 := NewGraph(s, "gradient")
			x, y := scalar(g32, dtypes.Float32)
			if err := g32.Compile(Gradient(y, x...)...); err != nil {
				t.Fatal(err)
			}
			gradient := s.last
			g64 := NewGraph(s, "function")
			_, y = scalar(g64, dtypes.Float64)
			if err := g64.Compile(y); err != nil {
				t.Fatal(err)
			}
			function := s.last

			buffer := func(flat any, dt dtypes.DType, dims []int) compute.Buffer {
				buf, err := b.BufferFromFlatData(0, flat, shapes.Make(dt, dims...))
				if err != nil {
					t.Fatal(err)
				}
				return buf
			}
			execute := func(e compute.Executable, in []compute.Buffer) []compute.Buffer {
				out, err := e.Execute(in, nil, 0)
				if err != nil {
					t.Fatal(err)
				}
				return out
			}
			value := func() float64 {
				var in []compute.Buffer
				for i, v := range at {
					in = append(in, buffer(v, dtypes.Float64, c.dims[i]))
				}
				flat := make([]float64, 1)
				if err := execute(function, in)[0].ToFlatData(flat); err != nil {
					t.Fatal(err)
				}
				return flat[0]
			}
			var in []compute.Buffer
			for i, v := range at {
				v32 := make([]float32, len(v))
				for j := range v {
					v32[j] = float32(v[j])
				}
				in = append(in, buffer(v32, dtypes.Float32, c.dims[i]))
			}
			for i, out := range execute(gradient, in) {
				got := floatsOf(t, out)
				for range min(len(got), 25) {
					j := r.IntN(len(got))
					const h = 1e-5
					x0 := at[i][j]
					at[i][j] = x0 + h
					up := value()
					at[i][j] = x0 - h
					down := value()
					at[i][j] = x0
					want := (up - down) / (2 * h)
					if d := math.Abs(float64(got[j]) - want); !(d <= 2e-4*(1+math.Abs(want))) {
						t.Fatalf("derivative %d of operand %d is %g, differences give %g", j, i, got[j], want)
					}
				}
			}
		})
	}
}
