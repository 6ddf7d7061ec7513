package learner

import (
	"math"
	"testing"

	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// The gradients of every architecture are those of finite differences, for parameters and for inputs.
func TestGradients(t *testing.T) {
	for _, a := range []architecture{
		{"mlp", []int{5}, []int{4, 3}, 2},
		{"cnn", []int{5, 4, 2}, []int{3, 4}, 2},
		{"lstm", []int{3, 2}, []int{4}, 2},
	} {
		t.Run(a.kind, func(t *testing.T) {
			r := rng.New(1, 0, "", a.kind)
			values, stats := a.sizes()
			p, g := make([]float64, int(values)), make([]float64, int(values))
			s := &slab{p, g, make([]float64, int(stats))}
			layers := a.build(s)
			if len(s.values)+len(s.grads)+len(s.stats) > 0 {
				t.Fatalf("%v parameters and %v statistics are not all used", values, stats)
			}
			for _, l := range layers {
				l.start(r)
			}
			const n = 6
			x, y := mat.NewDense(n, a.columns(), nil), mat.NewDense(n, a.outputs, nil)
			for i := range n {
				for j := range x.RawRowView(i) {
					x.Set(i, j, r.NormFloat64())
				}
				for j := range y.RawRowView(i) {
					y.Set(i, j, r.NormFloat64())
				}
			}
			if a.kind == "lstm" { // one step is not there
				copy(x.RawRowView(2)[2:4], []float64{math.NaN(), math.NaN()})
			}
			loss := func() float64 {
				var d mat.Dense
				d.Sub(run(layers, mat.DenseCopyOf(x), true), y)
				return math.Pow(mat.Norm(&d, 2), 2) / 2
			}
			out := run(layers, mat.DenseCopyOf(x), true)
			out.Sub(out, y)
			for j := len(layers) - 1; j >= 0; j-- {
				out = layers[j].backward(out)
			}
			check := func(what string, i int, at *float64, got float64) {
				const h = 1e-5
				before := *at
				*at = before + h
				up := loss()
				*at = before - h
				down := loss()
				*at = before
				if want := (up - down) / (2 * h); math.Abs(got-want) > 1e-6*(1+math.Abs(want)) {
					t.Errorf("%s %d: gradient %v, differences say %v", what, i, got, want)
				}
			}
			kept, inputs := append([]float64(nil), g...), mat.DenseCopyOf(out)
			for i := range p {
				check("parameter", i, &p[i], kept[i])
			}
			for i := range x.RawMatrix().Data {
				if !math.IsNaN(x.RawMatrix().Data[i]) {
					check("input", i, &x.RawMatrix().Data[i], inputs.RawMatrix().Data[i])
				}
			}
		})
	}
}

// Adam's first step is rate·sign of the gradient; with momentum the second is (1+momentum) times the first.
func TestSteps(t *testing.T) {
	adam := stepper{networks: networks{rate: 0.01, adam: true}, first: make([]float64, 2), second: make([]float64, 2)}
	p := []float64{1, 1}
	adam.update(p, []float64{0.3, -0.001})
	if math.Abs(p[0]-0.99) > 1e-9 || math.Abs(p[1]-1.01) > 1e-6 {
		t.Errorf("Adam: %v", p)
	}
	sgd := stepper{networks: networks{rate: 0.1, momentum: 0.9, decay: 0.5}, first: make([]float64, 1), second: make([]float64, 1)}
	p = []float64{0}
	sgd.update(p, []float64{1e6}) // clipped to 1
	sgd.update(p, []float64{0})
	if want := -0.1 - 0.1*(0.9-0.05); math.Abs(p[0]-want) > 1e-9 {
		t.Errorf("momentum: %v, want %v", p[0], want)
	}
}
