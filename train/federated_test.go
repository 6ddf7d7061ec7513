package train_test

import (
	"testing"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/gomlx/core/graph"
)

// The golden problem of federated methods: client k minimises ½a_k(w − c_k)² from the common w, with a = (1, 2, 4),
// c = (1, −2, 3) and n = (10, 30, 60) samples, in five full-batch steps at rate 0.1, in float64.
type quadratic struct{ a, c, share float64 }

var quadratics = []quadratic{{1, 1, 0.1}, {2, -2, 0.3}, {4, 3, 0.6}}

// parabola is the loss ½a(w − c)² of an example (a, c).
func parabola() *train.Spec {
	m := &nn.Model{Name: "parabola", Rate: 1, Input: []int{2}, Classes: 1, Params: []nn.Param{{Name: "w", Dims: []nn.Dim{{Name: "w", Size: 1}}}}}
	m.Forward = func(p *nn.Pass, x *graph.Node) *graph.Node {
		a, c := graph.Slice(x, graph.AxisRange(), graph.AxisElem(0)), graph.Slice(x, graph.AxisRange(), graph.AxisElem(1))
		d := graph.Sub(graph.ExpandLeftToRank(p.Params["w"], 2), c)
		return graph.MulScalar(graph.Mul(a, graph.Mul(d, d)), 0.5)
	}
	return &train.Spec{Model: m, DType: weights.Float64, Loss: train.MeanSquares, Target: train.FromData,
		Custom: func(output, _ *graph.Node) *graph.Node { return graph.Reshape(output, -1) }}
}

func (q quadratic) view() dataset.View {
	e := &dataset.Examples{Name: "parabola", Shape: []int{2}, F32: []float32{float32(q.a), float32(q.c)}, Targets: []float32{0}}
	return e.All()
}

func one(w float64) weights.Set { return set64([]string{"w"}, []float64{w}) }

// local trains client q from w and returns its weight, and with a gradient sum the mean gradient of its path.
func local(t *testing.T, e *train.Engine, spec *train.Spec, q quadratic, w float64, o train.Options) (end, mean float64) {
	t.Helper()
	s := must[*train.Session](t)(e.Begin(spec, one(w), o))
	defer s.Close()
	must[train.Report](t)(s.Fit(t.Context(), train.Fit{Data: q.view(), Epochs: 5, Rate: train.Constant(0.1)}))
	if spec.GradientSum {
		sum, n, err := s.GradientSum()
		if err != nil {
			t.Fatal(err)
		}
		mean = sum.Must("w").At(0) / float64(n)
	}
	return must[weights.Set](t)(s.Params()).Must("w").At(0), mean
}

func TestGoldenFedAvg(t *testing.T) {
	engines(t, func(t *testing.T, e *train.Engine) {
		spec := parabola()
		var locals []float64
		w := 0.0
		for round, want := range []float64{1.297591000000, 1.562311242319, 1.616316554234} {
			next := 0.0
			for _, q := range quadratics {
				end, _ := local(t, e, spec, q, w, train.Options{})
				next += q.share * end
				if round == 0 {
					locals = append(locals, end)
				}
			}
			w = next
			near(t, "w", []float64{w}, []float64{want}, 1e-11)
		}
		near(t, "locals of round 1", locals, []float64{0.409510, -1.344640, 2.766720}, 1e-12)
	})
}

// TestGoldenFedProx: the gradient of ½μ(w − w^t)² is added to each step.
func TestGoldenFedProx(t *testing.T) {
	engines(t, func(t *testing.T, e *train.Engine) {
		spec := parabola()
		spec.Extras, spec.Scalars = []string{"anchor"}, []string{"mu"}
		spec.Adjust = func(a *train.Adjust) {
			for _, n := range a.Names {
				pull := graph.Mul(graph.Sub(a.Params[n], a.Extras["anchor"][n]), a.Scalars["mu"])
				a.Grads[n] = graph.Add(a.Grads[n], pull)
			}
		}
		w := 0.0
		for _, want := range []float64{1.095844000000, 1.462949548312} {
			next := 0.0
			for _, q := range quadratics {
				end, _ := local(t, e, spec, q, w, train.Options{Extras: map[string]weights.Set{"anchor": one(w)},
					Scalars: map[string]float64{"mu": 1}})
				next += q.share * end
			}
			w = next
			near(t, "w", []float64{w}, []float64{want}, 1e-11)
		}
	})
}

// TestGoldenScaffold: y −= η(g − c_k + c); c_k becomes the full gradient at w^t (option I) or the mean raw gradient of
// the path (option II); plain means.
func TestGoldenScaffold(t *testing.T) {
	for option, want := range map[int][2][2]float64{
		1: {{0.610530000000, -3}, {1.178911714300, -1.575430}},
		2: {{0.610530000000, -1.221060}, {0.974837368300, -0.728614736600}},
	} {
		engines(t, func(t *testing.T, e *train.Engine) {
			spec := parabola()
			spec.Extras, spec.GradientSum = []string{"correction"}, true
			spec.Adjust = func(a *train.Adjust) {
				for _, n := range a.Names {
					a.Grads[n] = graph.Add(a.Grads[n], a.Extras["correction"][n])
				}
			}
			w, c := 0.0, 0.0
			own := make([]float64, 3)
			for _, want := range want {
				var dw, dc float64
				for k, q := range quadratics {
					o := train.Options{Extras: map[string]weights.Set{"correction": one(c - own[k])}}
					end, kept := local(t, e, spec, q, w, o)
					if option == 1 {
						s := must[*train.Session](t)(e.Begin(spec, one(w), o))
						loss, g, err := s.Gradient(t.Context(), q.view(), train.Pass{})
						s.Close()
						if err != nil {
							t.Fatal(err)
						}
						near(t, "loss", []float64{loss}, []float64{q.a * (w - q.c) * (w - q.c) / 2}, 1e-12)
						kept = g.Must("w").At(0)
					}
					dw += (end - w) / 3
					dc += (kept - own[k]) / 3
					own[k] = kept
				}
				w, c = w+dw, c+dc
				near(t, "w and c", []float64{w, c}, want[:], 1e-11)
			}
		})
	}
}
