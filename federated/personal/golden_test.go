package personal_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedavg"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/federated/personal"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/gomlx/core/graph"
)

// near compares to a reference value given with 12 digits after the point.
func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if !(math.Abs(got-want) < 6e-13) {
		t.Errorf("%s = %.12f, want %.12f", what, got, want)
	}
}

// golden runs a method for two rounds on the quadratic objectives of fedtest.
func golden(t *testing.T, method func(*federated.Problem) federated.Algorithm) *fedtest.Trace {
	t.Helper()
	w, p := fedtest.Quadratics(fedtest.Engine(t, "go"), 2)
	r := fedtest.Run{World: w, Algorithm: method(p), Config: federated.Config{Rounds: 2}}
	return r.Must(t)
}

// keeps compares a tensor that the three members keep after a round, counted from 1.
func keeps(t *testing.T, l *fedtest.Trace, round int, tensor string, want ...float64) {
	t.Helper()
	for k, v := range want {
		x, ok := l.Kept[round-1][k].Get(tensor)
		if !ok {
			t.Fatalf("member %d keeps no %q", k, tensor)
		}
		near(t, fmt.Sprintf("%s of member %d after round %d", tensor, k, round), x.At(0), v)
	}
}

// global compares the global model after the rounds.
func global(t *testing.T, l *fedtest.Trace, want ...float64) {
	t.Helper()
	for i, v := range want {
		near(t, fmt.Sprintf("w after round %d", i+1), l.Numbers("w")[i], v)
	}
}

// The values of this file were computed in float64 from the update rules alone, with F_k(w) = ½a_k(w−c_k)², a = (1, 2, 4),
// c = (1, −2, 3), n = (10, 30, 60), w = 0, η = 0.1, 5 full-batch steps and all clients.
func TestDittoGolden(t *testing.T) {
	l := golden(t, func(p *federated.Problem) federated.Algorithm { return personal.NewDitto(p, 1) })
	global(t, l, 1.297591000000, 1.562311242319) // FedAvg's
	keeps(t, l, 1, "w", .336160, -1.109240, 2.325000)
	keeps(t, l, 2, "w", .882511099360, -.935835006590, 2.649064506250)
}

func TestPerFedAvgGolden(t *testing.T) {
	for c, want := range map[personal.Curvature][]float64{
		personal.Exact: {.709696372835, 1.059261943962}, personal.Difference: {.709696372835, 1.059261943962},
		personal.FirstOrder: {1.032129383250, 1.383051639361},
	} {
		t.Run(string(c), func(t *testing.T) {
			global(t, golden(t, func(p *federated.Problem) federated.Algorithm { return personal.NewPerFedAvg(p, 0.1, c) }), want...)
		})
	}
	// What members use after the second round.
	w, p := fedtest.Quadratics(fedtest.Engine(t, "go"), 2)
	a := personal.NewPerFedAvg(p, 0.1, personal.Exact)
	start := weights.NewSet(1)
	start.Put("w", weights.Of64([]float64{1.059261943962}, 1))
	for k, want := range []float64{1.053335749566, .447409555170, 1.835557166377} {
		own, err := a.Average().Personal(t.Context(), w.Local(w.Member(k)), federated.Task{Round: 1, Sets: map[string]weights.Set{"w": start}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		near(t, fmt.Sprintf("model of member %d", k), own.Weights.Must("w").At(0), want)
	}
}

func TestPFedMeGolden(t *testing.T) {
	authors := func(p *federated.Problem, inner int) *personal.PFedMe {
		p.Training.Rate = train.Constant(0.005)
		a := personal.NewPFedMe(p)
		a.Inner = inner
		return a
	}
	// The exact inner minimum: so many steps that nothing changes any more.
	l := golden(t, func(p *federated.Problem) federated.Algorithm { return authors(p, 200) })
	global(t, l, .114002343046, .221025272165)
	keeps(t, l, 2, "w", .184842210038, -.199671580010, .862108529407)
	l = golden(t, func(p *federated.Problem) federated.Algorithm { return authors(p, 5) })
	global(t, l, .114002635528, .221025889172)
	// β takes the server further along the same way.
	l = golden(t, func(p *federated.Problem) federated.Algorithm {
		a := authors(p, 5)
		a.Average = 2
		return a
	})
	global(t, l, 2*.114002635528)
}

func TestAPFLGolden(t *testing.T) {
	l := golden(t, func(p *federated.Problem) federated.Algorithm { return personal.NewAPFL(p, 0.5) })
	global(t, l, 1.297591000000, 1.562311242319) // FedAvg's
	keeps(t, l, 1, "w", .215772871094, -.749838750000, 1.741260000000)
	keeps(t, l, 2, "w", .280193641141, -1.523001868146, 2.547685339590)
	l = golden(t, func(p *federated.Problem) federated.Algorithm {
		a := personal.NewAPFL(p, 0.5)
		a.Adaptive = true
		return a
	})
	keeps(t, l, 1, "apfl/alpha", .5, .5, .5) // v = w
	keeps(t, l, 2, "apfl/alpha", .473677410678, 1, .762754003136)
}

// splitting is a model of a body r and a head h with the output ½(h·r − c)² for the input (a, c).
func splitting(rate float64) (*nn.Model, error) {
	one := []nn.Dim{{Name: "one", Size: 1}}
	return &nn.Model{
		Name: "split", Rate: rate, Input: []int{2}, Classes: 1, MinBatch: 1,
		Params: []nn.Param{{Name: "r", Dims: one, Role: nn.Kernel}, {Name: "h", Dims: one, Role: nn.Kernel, Head: true}},
		Forward: func(p *nn.Pass, x *graph.Node) *graph.Node {
			c := graph.SliceAxis(x, 1, graph.AxisRange(1, 2))
			z := graph.Reshape(graph.Mul(p.Params["r"], p.Params["h"]), 1, 1)
			d := graph.Sub(graph.BroadcastToDims(z, x.Shape().Dimensions[0], 1), c)
			return graph.MulScalar(graph.Mul(d, d), 0.5)
		},
	}, nil
}

func TestSplitGolden(t *testing.T) {
	start := weights.NewSet(2)
	start.Put("r", weights.Of64([]float64{1}, 1))
	start.Put("h", weights.Of64([]float64{0.5}, 1))
	l := golden(t, func(p *federated.Problem) federated.Algorithm {
		p.Build, p.Start = splitting, &start
		a := personal.NewFedRep(p)
		a.HeadEpochs, a.BodyEpochs = 5, 1
		return a
	})
	global(t, l, 1.160243131343, 1.258353097635)
	keeps(t, l, 2, "h", .785625727172, -1.141371614879, 2.070290621872)
	l = golden(t, func(p *federated.Problem) federated.Algorithm {
		p.Build, p.Start = splitting, &start
		return personal.NewFedPer(p)
	})
	global(t, l, 1.401843685179, 1.652614371939)
	keeps(t, l, 2, "h", .707287987478, -1.051093969904, 1.775229540270)
}

// With α = 0 a step of Per-FedAvg is a step of gradient descent with rate β: FedAvg to the bit, where batches are all there is.
func TestPerFedAvgIsFedAvg(t *testing.T) {
	want := golden(t, func(p *federated.Problem) federated.Algorithm { return fedavg.New(p) })
	for _, c := range []personal.Curvature{personal.FirstOrder, personal.Difference, personal.Exact} {
		got := golden(t, func(p *federated.Problem) federated.Algorithm { return personal.NewPerFedAvg(p, 0, c) })
		for i := range want.Snapshots {
			if !got.Snapshots[i].State.Sets["w"].Equal(want.Snapshots[i].State.Sets["w"]) {
				t.Errorf("%s: w differs after round %d: %v, want %v", c, i+1, got.Numbers("w"), want.Numbers("w"))
			}
		}
	}
}
