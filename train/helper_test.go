package train_test

import (
	"slices"
	"testing"

	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/gomlx/core/graph"
	"pgregory.net/rapid"
)

// engines runs a test on every engine of this binary that can be opened.
func engines(t *testing.T, f func(t *testing.T, e *train.Engine)) {
	for _, name := range backend.Names() {
		t.Run(name, func(t *testing.T) {
			b, err := backend.New(name, backend.Options{})
			if err != nil {
				t.Skip(err)
			}
			e := train.NewEngine(b)
			defer e.Close()
			f(t, e)
		})
	}
}

// goEngine returns the reference engine.
func goEngine(t testing.TB) *train.Engine {
	t.Helper()
	b, err := backend.New("go", backend.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e := train.NewEngine(b)
	t.Cleanup(e.Close)
	return e
}

// linear is z = Wx + b for x of in features.
func linear(in, out int) *nn.Model {
	o, i := nn.Dim{Name: "out", Size: out}, nn.Dim{Name: "in", Size: in}
	return &nn.Model{
		Name: "linear", Rate: 1, Input: []int{in}, Classes: out,
		Params: []nn.Param{
			{Name: "weight", Dims: []nn.Dim{o, i}, Init: nn.Init{Kind: nn.Uniform, FanIn: true}},
			{Name: "bias", Dims: []nn.Dim{o}, Role: nn.Bias},
		},
		Forward: func(p *nn.Pass, x *graph.Node) *graph.Node {
			z := graph.Dot(x, graph.Transpose(p.Params["weight"], 0, 1)).Product()
			return graph.Add(z, graph.ExpandLeftToRank(p.Params["bias"], 2))
		},
	}
}

// blobs are n points around one centre a class, in the order of the rows 0, 1, … of classes 0, 1, ….
func blobs(n, features, classes int, seed uint64) dataset.View {
	r := rng.New(seed, 0, "", "blobs")
	e := &dataset.Examples{Name: "blobs", Shape: []int{features}, Classes: make([]string, classes)}
	for i := range n {
		c := i % classes
		for j := range features {
			x := r.NormFloat64() * 0.5
			if j%classes == c {
				x += 1
			}
			e.F32 = append(e.F32, float32(x))
		}
		e.Labels = append(e.Labels, int32(c))
		e.Targets = append(e.Targets, float32(c))
	}
	return e.All()
}

func must[T any](t rapid.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func near(t rapid.TB, what string, got, want []float64, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s = %v, want %v", what, got, want)
		return
	}
	for i := range got {
		if d := got[i] - want[i]; !(d <= tolerance && d >= -tolerance) {
			t.Errorf("%s = %v, want %v within %g", what, got, want, tolerance)
			return
		}
	}
}

func values(x weights.Tensor) []float64 {
	var v []float64
	for i := range x.Len() {
		v = append(v, x.At(i))
	}
	return v
}

func set64(names []string, vs ...[]float64) weights.Set {
	s := weights.NewSet(len(names))
	for i, n := range names {
		s.Put(n, weights.Of64(slices.Clone(vs[i]), len(vs[i])))
	}
	return s
}
