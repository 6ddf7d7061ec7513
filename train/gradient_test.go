package train_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/gomlx/core/graph"
)

// model64 builds an architecture and draws its weights in float64.
func model64(t *testing.T, name string, c nn.Config) (*train.Spec, weights.Set) {
	t.Helper()
	build := must[nn.Builder](t)(nn.New(name, c))
	m := must[*nn.Model](t)(build(1))
	return &train.Spec{Model: m, DType: weights.Float64}, m.Initial(weights.Float64, rng.New(3, 0, "", "weights"))
}

// The product of the Hessian and a direction is what the difference of two gradients tends to.
func TestCurvature(t *testing.T) {
	for _, c := range []struct {
		name   string
		config nn.Config
		size   int
		exact  bool // whether the engines can differentiate twice
	}{
		{"linear", nn.Config{Input: []int{6}, Classes: 3}, 6, true},
		{"mlp", nn.Config{Input: []int{6}, Classes: 3, Hidden: []int{8}, Norm: nn.NoNorm}, 6, true},
		{"mlp", nn.Config{Input: []int{6}, Classes: 3, Hidden: []int{8}, Norm: nn.LayerNorm}, 6, true},
		{"cnn", nn.Config{Input: []int{8, 8, 1}, Classes: 3, Widths: []int{4}, Norm: nn.NoNorm}, 64, false},
	} {
		t.Run(c.name+" "+string(c.config.Norm), func(t *testing.T) {
			engines(t, func(t *testing.T, e *train.Engine) {
				spec, w := model64(t, c.name, c.config)
				data := blobs(9, c.size, 3, 1)
				data.Data.Shape = c.config.Input
				s := must[*train.Session](t)(e.Begin(spec, w, train.Options{}))
				defer s.Close()
				gradient := func(at weights.Set) weights.Set {
					if err := s.SetParams(at); err != nil {
						t.Fatal(err)
					}
					_, g, err := s.Gradient(t.Context(), data, train.Pass{})
					return must[weights.Set](t)(g, err)
				}
				d := spec.Model.Initial(weights.Float64, rng.New(5, 0, "", "direction"))
				const delta = 1e-5
				near := func(sign float64) weights.Set {
					at := w.Clone()
					at.AddScaled(sign*delta, d)
					return gradient(at)
				}
				want := near(1).Sub(near(-1))
				want.Scale(1 / (2 * delta))
				if err := s.SetParams(w); err != nil {
					t.Fatal(err)
				}
				got, err := s.Curvature(t.Context(), data, train.Pass{}, d)
				if !c.exact {
					if err == nil || !strings.Contains(err.Error(), "differentiated twice") {
						t.Errorf("error %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if far := got.Sub(want).Norm() / want.Norm(); !(far < 1e-7) {
					t.Errorf("differs by %g of its norm %g from the difference of two gradients", far, want.Norm())
				}
			})
		})
	}
}

// A step along the gradient of a batch is a step on the batch, to the last bit, with whatever optimiser, clipping and adjusting.
func TestDescend(t *testing.T) {
	build := must[nn.Builder](t)(nn.New("mlp", nn.Config{Input: []int{6}, Classes: 3, Hidden: []int{8}}))
	m := must[*nn.Model](t)(build(1))
	w := m.Initial(weights.Float32, rng.New(3, 0, "", "weights"))
	data := blobs(12, 6, 3, 1)
	engines(t, func(t *testing.T, e *train.Engine) {
		for _, spec := range []*train.Spec{
			{Model: m},
			{Model: m, Clip: 0.1, Optimizer: train.SGD{Momentum: 0.9, Dampening: 0.5, Decay: 0.1}},
			{Model: m, Optimizer: train.Adam{}},
		} {
			steps := must[*train.Session](t)(e.Begin(spec, w, train.Options{}))
			defer steps.Close()
			along := must[*train.Session](t)(e.Begin(spec, w, train.Options{}))
			defer along.Close()
			for i := range 3 {
				must[train.Report](t)(steps.Fit(t.Context(), train.Fit{Data: data, Steps: 1, Rate: train.Constant(0.1)}))
				_, g, err := along.Gradient(t.Context(), data, train.Pass{})
				if err != nil {
					t.Fatal(err)
				}
				if err := along.Descend(g, 0.1); err != nil {
					t.Fatal(err)
				}
				got, want := must[weights.Set](t)(along.Params()), must[weights.Set](t)(steps.Params())
				if !got.Equal(want) {
					t.Errorf("%#v: step %d differs by %g", spec.Optimizer, i, got.Sub(want).Norm())
				}
			}
			if along.Steps() != 3 {
				t.Errorf("%d steps are counted, want 3", along.Steps())
			}
		}
		s := must[*train.Session](t)(e.Begin(&train.Spec{Model: m}, w, train.Options{}))
		defer s.Close()
		for what, g := range map[string]weights.Set{
			"is missing":      w.Filter(func(n string) bool { return n != "linear.bias" }),
			"the model needs": w.Convert(weights.Float64),
		} {
			if err := s.Descend(g, 0.1); err == nil || !strings.Contains(err.Error(), what) {
				t.Errorf("error %v, want one that says %q", err, what)
			}
		}
	})
}

// Batches come in the order of a fit.
func TestBatches(t *testing.T) {
	data := blobs(10, 4, 2, 1)
	for _, size := range []int{0, 3, 5, 20} {
		var want [][]int32
		e := goEngine(t)
		m := linear(4, 2)
		s := must[*train.Session](t)(e.Begin(&train.Spec{Model: m}, m.Initial(weights.Float32, rng.New(1, 0, "", "")), train.Options{}))
		defer s.Close()
		random := func() *rng.Stream { return rng.New(7, 2, "someone", "batches") }
		fit := train.Fit{Data: data, Batch: size, Epochs: 3, Random: random(), Rate: train.Constant(0)}
		fit.Before = func(step int, batch dataset.View) error {
			if step != len(want) {
				t.Errorf("step %d is called %d", len(want), step)
			}
			want = append(want, slices.Clone(batch.Rows))
			return nil
		}
		must[train.Report](t)(s.Fit(t.Context(), fit))
		b := train.NewBatches(data, size, random())
		if b.Steps(3) != len(want) {
			t.Errorf("batches of %d: 3 passes are %d steps, a fit makes %d", size, b.Steps(3), len(want))
		}
		for i := range want {
			if got := b.Next().Rows; !slices.Equal(got, want[i]) {
				t.Errorf("batches of %d: batch %d holds rows %v, of a fit %v", size, i, got, want[i])
			}
		}
	}
}

// An extra set that follows another session is that session's weights at every step, without having been told.
func TestFollow(t *testing.T) {
	spec, w := model64(t, "mlp", nn.Config{Input: []int{6}, Classes: 3, Hidden: []int{8}})
	pulled := &train.Spec{Model: spec.Model, DType: weights.Float64, Extras: []string{"anchor"}, Adjust: func(a *train.Adjust) {
		for _, n := range a.Names {
			a.Grads[n] = graph.Add(a.Grads[n], graph.Sub(a.Params[n], a.Extras["anchor"][n]))
		}
	}}
	data := blobs(12, 6, 3, 1)
	fit := train.Fit{Data: data, Steps: 1, Rate: train.Constant(0.1)}
	engines(t, func(t *testing.T, e *train.Engine) {
		anchor := must[*train.Session](t)(e.Begin(spec, w, train.Options{}))
		defer anchor.Close()
		follower := must[*train.Session](t)(e.Begin(pulled, w, train.Options{Follows: map[string]*train.Session{"anchor": anchor}}))
		defer follower.Close()
		told := must[*train.Session](t)(e.Begin(pulled, w, train.Options{Extras: map[string]weights.Set{"anchor": w}}))
		defer told.Close()
		for i := range 4 {
			must[train.Report](t)(follower.Fit(t.Context(), fit))
			must[train.Report](t)(told.Fit(t.Context(), fit))
			if got, want := must[weights.Set](t)(follower.Params()), must[weights.Set](t)(told.Params()); !got.Equal(want) {
				t.Fatalf("step %d differs by %g", i, got.Sub(want).Norm())
			}
			must[train.Report](t)(anchor.Fit(t.Context(), fit))
			if err := told.SetExtra("anchor", must[weights.Set](t)(anchor.Params())); err != nil {
				t.Fatal(err)
			}
		}
		if err := follower.SetExtra("anchor", w); err != nil { // it is its own again
			t.Fatal(err)
		}
		must[train.Report](t)(follower.Fit(t.Context(), fit))
		other := must[*train.Session](t)(e.Begin(&train.Spec{Model: linear(6, 3), DType: weights.Float64},
			linear(6, 3).Initial(weights.Float64, rng.New(1, 0, "", "")), train.Options{}))
		defer other.Close()
		if err := follower.Follow("anchor", other); err == nil {
			t.Error("a session of another model is followed")
		}
		if err := follower.Follow("nobody", anchor); err == nil {
			t.Error("an extra set that is not there follows")
		}
	})
}
