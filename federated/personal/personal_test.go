package personal_test

import (
	"context"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/baselines"
	"github.com/cohort-learning/cohort/federated/fedavg"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/federated/personal"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/gomlx/core/graph"
)

func world(t *testing.T) *fedtest.World {
	return fedtest.Blobs(fedtest.Engine(t, "go"), 6, 3, 8, 6, 12, 10, 7)
}

// run runs a method in a world on fedtest's problem, after change.
func run(t *testing.T, w *fedtest.World, change func(*federated.Problem), method func(*federated.Problem) federated.Algorithm) *fedtest.Trace {
	t.Helper()
	p := fedtest.Problem(t, 6, 3)
	if change != nil {
		change(p)
	}
	r := fedtest.Run{World: w, Algorithm: method(p), Config: federated.Config{Rounds: p.Rounds}}
	return r.Must(t)
}

func everyone(p *federated.Problem) { p.Select = federated.Selection{Everyone: true} }

func average(p *federated.Problem) federated.Algorithm { return fedavg.New(p) }

// sameGlobal fails the test unless the global models of two runs are the same to the bit.
func sameGlobal(t *testing.T, what string, got, want *fedtest.Trace) {
	t.Helper()
	for i := range want.Snapshots {
		if !got.Snapshots[i].State.Sets["w"].Equal(want.Snapshots[i].State.Sets["w"]) {
			t.Errorf("%s: the global model differs after round %d", what, i)
		}
	}
}

// What these methods send is what FedAvg sends, whatever members do for themselves.
func TestGlobalIsFedAvg(t *testing.T) {
	w := world(t)
	want := run(t, w, nil, average)
	for what, method := range map[string]func(*federated.Problem) federated.Algorithm{
		"ditto": func(p *federated.Problem) federated.Algorithm { return personal.NewDitto(p, 1) },
		"apfl":  func(p *federated.Problem) federated.Algorithm { return personal.NewAPFL(p, 0.3) },
		"adaptive apfl": func(p *federated.Problem) federated.Algorithm {
			a := personal.NewAPFL(p, 0.5)
			a.Adaptive = true
			return a
		},
		"fine-tuning": func(p *federated.Problem) federated.Algorithm { return personal.NewFineTune(p, 2) },
		"fedper without a head": func(p *federated.Problem) federated.Algorithm {
			a := personal.NewFedPer(p)
			a.Heads = []string{}
			return a
		},
		"fedrep without a head": func(p *federated.Problem) federated.Algorithm {
			a := personal.NewFedRep(p)
			a.Heads = []string{}
			return a
		},
	} {
		got := run(t, w, nil, method)
		sameGlobal(t, what, got, want)
		for _, m := range []string{"accuracy.local", "accuracy.local.mean", "accuracy.local.worst", "loss.local"} {
			if strings.HasPrefix(what, "fed") { // there is no global model that members test
				continue
			}
			if g, w := got.Metric(m, ""), want.Metric(m, ""); !slices.Equal(g, w) || len(g) != 3 {
				t.Errorf("%s: %s is %v, of FedAvg %v", what, m, g, w)
			}
		}
		for _, m := range []string{"accuracy.personal", "accuracy.personal.mean", "accuracy.personal.worst", "loss.personal"} {
			if g := got.Metric(m, ""); len(g) != 3 {
				t.Errorf("%s: %s is %v, want three values", what, m, g)
			}
		}
	}
	if got := want.Metric("accuracy.personal", ""); got != nil {
		t.Errorf("FedAvg has personal models of accuracy %v", got)
	}
}

// Members that are pulled nowhere, or mix nothing in, learn as if they were alone.
func TestAlone(t *testing.T) {
	w := world(t)
	alone := run(t, w, everyone, func(p *federated.Problem) federated.Algorithm {
		return baselines.NewPartial(p, baselines.Nothing)
	})
	for what, method := range map[string]func(*federated.Problem) federated.Algorithm{
		"ditto, λ = 0": func(p *federated.Problem) federated.Algorithm { return personal.NewDitto(p, 0) },
		"apfl, α = 1":  func(p *federated.Problem) federated.Algorithm { return personal.NewAPFL(p, 1) },
	} {
		got := run(t, w, everyone, method)
		for k, want := range alone.Members.Kept() {
			v := got.Members.Kept()[k].Filter(func(n string) bool { return n != "apfl/alpha" })
			if !v.Equal(*want) {
				t.Errorf("%s: member %d learns something else than alone: differs by %g", what, k, v.Sub(*want).Norm())
			}
		}
		for _, m := range []string{"accuracy.personal", "loss.personal"} {
			if g, w := got.Metric(m, ""), alone.Metric(m, ""); !slices.Equal(g, w) {
				t.Errorf("%s: %s is %v, alone %v", what, m, g, w)
			}
		}
	}
}

// With α = 0 members of APFL use the global model.
func TestAPFLWithoutOwn(t *testing.T) {
	for _, outputs := range []bool{false, true} {
		l := run(t, world(t), func(p *federated.Problem) { p.Build = perceptron(t, nn.LayerNorm) }, func(p *federated.Problem) federated.Algorithm {
			a := personal.NewAPFL(p, 0)
			a.Outputs = outputs
			return a
		})
		if own, global := l.Metric("loss.personal", ""), l.Metric("loss.local", ""); !slices.Equal(own, global) {
			t.Errorf("outputs %t: loss of the mixtures %v, of the global model %v", outputs, own, global)
		}
	}
}

// A mixture of outputs says what its two networks say, in parts of α and 1 − α.
func TestMixedOutputs(t *testing.T) {
	w := world(t)
	p := fedtest.Problem(t, 6, 3)
	p.Build = perceptron(t, nn.LayerNorm)
	a := personal.NewAPFL(p, 0.25)
	a.Outputs = true
	r := fedtest.Run{World: w, Algorithm: a, Config: federated.Config{Rounds: 3}}
	l := r.Must(t)
	global := l.Final.Sets["w"]
	spec, err := a.Average().Spec("test", 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, keep := range l.Members.Kept() {
		own, err := a.Average().Personal(t.Context(), w.Local(w.Member(k)), federated.Task{Sets: map[string]weights.Set{"w": global}}, keep)
		if err != nil {
			t.Fatal(err)
		}
		s, err := w.Engine.Begin(own.Spec, own.Weights, own.Options)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Predict(t.Context(), w.Test, train.EvalOptions{})
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		var z [2]weights.Tensor
		for i, x := range []weights.Set{own.Weights, global} {
			if z[i], err = w.Engine.Predict(t.Context(), spec, x, weights.Set{}, w.Test, train.EvalOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range got.Len() {
			if want := 0.25*z[0].At(i) + 0.75*z[1].At(i); math.Abs(got.At(i)-want) > 1e-5 {
				t.Fatalf("member %d: output %d is %g, want %g", k, i, got.At(i), want)
			}
		}
	}
}

// With All everybody has a model near the w of the round's beginning, also those that were not drawn, and the global model does not
// change for it.
func TestPFedMeAll(t *testing.T) {
	w := world(t)
	method := func(all bool) func(p *federated.Problem) federated.Algorithm {
		return func(p *federated.Problem) federated.Algorithm {
			p.Select.Fraction, p.Training.Rate, p.Training.Clip = 0.4, train.Constant(0.05), 0
			a := personal.NewPFedMe(p)
			a.Lambda, a.Rate, a.All = 2, 0.1, all
			return a
		}
	}
	some, all := run(t, w, nil, method(false)), run(t, w, nil, method(true))
	sameGlobal(t, "all", all, some)
	if n := len(some.Kept[0]); n != 2 {
		t.Errorf("%d members keep something after a round of two", n)
	}
	if n := len(all.Kept[0]); n != 5 {
		t.Errorf("%d members keep something after a round of everybody", n)
	}
	for k, v := range some.Kept[0] { // those that were drawn trained once
		if !v.Equal(*all.Kept[0][k]) {
			t.Errorf("member %d, which was drawn, has another model", k)
		}
	}
	phases := all.Phase("personal")
	if len(phases) != 3 || len(phases[0].Failed) != 0 {
		t.Errorf("phases %+v", phases)
	}
	if got := all.Metric("personal.begun", ""); !slices.Equal(got[:2], []float64{2, 3}) {
		t.Errorf("models of their own are begun by %v members, want 2 and 3 in the first round", got)
	}
}

// FedRep moves the head alone and then the body alone; both of a member that has never trained are tested with a head of its own.
func TestFedRepParts(t *testing.T) {
	w := world(t)
	l := run(t, w, func(p *federated.Problem) { p.Select.Fraction = 0.4 }, func(p *federated.Problem) federated.Algorithm {
		a := personal.NewFedRep(p)
		a.HeadEpochs = 3
		return a
	})
	for k, keep := range l.Members.Kept() {
		if names := keep.Names(); !slices.Equal(names, []string{"linear.weight", "linear.bias"}) {
			t.Errorf("member %d keeps %v, want the last layer", k, names)
		}
	}
	for _, name := range l.Final.Sets["w"].Names() {
		if strings.HasPrefix(name, "linear.") {
			t.Errorf("%s of the head is shared", name)
		}
	}
	traffic := l.Phase("train")[0].Traffic[0]
	if want := int64(traffic.Members) * l.Final.Sets["w"].Bytes(); traffic.Up != want || traffic.Down != want {
		t.Errorf("%d bytes up and %d down, want %d: the body for each member", traffic.Up, traffic.Down, want)
	}
	steps := l.Metric("train.steps", "")
	p := l.Phase("train")[0]
	want := 0.0
	for _, m := range p.Folded[0].Members {
		want += 5 * float64((w.Members[m].Train.Len()+3)/4) // three epochs on the head, two on the body, batches of 4
	}
	if steps[0] != want {
		t.Errorf("%g steps in the first round, want %g", steps[0], want)
	}
	if acc := l.Metric("accuracy.personal", ""); !(acc[0] > 0.5) {
		t.Errorf("accuracy %v after the first round, in which two of five trained", acc)
	}
}

// A member whose memory is lost begins again from what it is sent, and that is told.
func TestLostMemory(t *testing.T) {
	w := world(t)
	p := fedtest.Problem(t, 6, 3)
	everyone(p)
	whole := run(t, w, everyone, func(p *federated.Problem) federated.Algorithm { return personal.NewDitto(p, 1) })
	kept := maps.Clone(whole.Kept[0])
	delete(kept, 2)
	r := fedtest.Run{World: w, Algorithm: personal.NewDitto(p, 1), Config: federated.Config{Rounds: 3}, From: &whole.Snapshots[0], Kept: kept}
	l := r.Must(t)
	sameGlobal(t, "a lost memory", &fedtest.Trace{Snapshots: append(whole.Snapshots[:1:1], l.Snapshots...)}, whole)
	if got := whole.Metric("personal.begun", ""); !slices.Equal(got, []float64{5, 0, 0}) {
		t.Errorf("models of their own are begun by %v members", got)
	}
	if got := l.Metric("personal.begun", ""); !slices.Equal(got, []float64{1, 0}) {
		t.Errorf("models of their own are begun by %v members, where one has lost its own", got)
	}
	if l.Kept[0][2].Equal(*whole.Kept[1][2]) || !l.Kept[0][1].Equal(*whole.Kept[1][1]) {
		t.Error("the member that lost its model has the same again, or another has not")
	}
}

// Dropout, whose masks are drawn, gives the same bits again.
func TestNoise(t *testing.T) {
	w := world(t)
	for what, method := range map[string]func(*federated.Problem) federated.Algorithm{
		"per-fedavg": func(p *federated.Problem) federated.Algorithm {
			return personal.NewPerFedAvg(p, 0.05, personal.Difference)
		},
		"apfl": func(p *federated.Problem) federated.Algorithm { return personal.NewAPFL(p, 0.5) },
	} {
		noisy := func(p *federated.Problem) {
			clean := perceptron(t, nn.LayerNorm)
			p.Build = func(rate float64) (*nn.Model, error) {
				m, err := clean(rate)
				if err != nil {
					return nil, err
				}
				m.Noise = []nn.Noise{{Name: "input", Dims: []int{6}, Drop: 0.3}}
				forward := m.Forward
				m.Forward = func(pass *nn.Pass, x *graph.Node) *graph.Node {
					if mask := pass.Noise["input"]; mask != nil {
						x = graph.Mul(x, mask)
					}
					return forward(pass, x)
				}
				return m, nil
			}
		}
		a, b := run(t, w, noisy, method), run(t, w, noisy, method)
		sameGlobal(t, what, a, b)
	}
}

func TestCheck(t *testing.T) {
	w := world(t)
	for want, method := range map[string]func(*federated.Problem) federated.Algorithm{
		"lambda -1": func(p *federated.Problem) federated.Algorithm { return personal.NewDitto(p, -1) },
		"give one of them": func(p *federated.Problem) federated.Algorithm {
			a := personal.NewDitto(p, 1)
			a.Work = personal.Work{Epochs: 1, Steps: 1}
			return a
		},
		"alpha -0.1":        func(p *federated.Problem) federated.Algorithm { return personal.NewPerFedAvg(p, -0.1, personal.Exact) },
		`curvature "third"`: func(p *federated.Problem) federated.Algorithm { return personal.NewPerFedAvg(p, 0.1, "third") },
		"per-fedavg: its steps are those of plain SGD": func(p *federated.Problem) federated.Algorithm {
			p.Training.Optimizer = train.SGD{Momentum: 0.9}
			return personal.NewPerFedAvg(p, 0.1, personal.Exact)
		},
		"running statistics": func(p *federated.Problem) federated.Algorithm {
			p.Build = perceptron(t, nn.BatchNorm)
			return personal.NewPerFedAvg(p, 0.1, personal.FirstOrder)
		},
		"pfedme: its steps are those of plain SGD": func(p *federated.Problem) federated.Algorithm {
			p.Training.Optimizer, p.Training.Rate = train.Adam{}, train.Constant(0.005)
			return personal.NewPFedMe(p)
		},
		"need less than 1": func(p *federated.Problem) federated.Algorithm { return personal.NewPFedMe(p) }, // η = 0.1
		"need less than 2": func(p *federated.Problem) federated.Algorithm {
			a := personal.NewPFedMe(p)
			a.Rate = 0.2
			return a
		},
		"alpha 1.5": func(p *federated.Problem) federated.Algorithm { return personal.NewAPFL(p, 1.5) },
		"no common statistics of batch norm": func(p *federated.Problem) federated.Algorithm {
			a := personal.NewAPFL(p, 0.5)
			a.Outputs = true
			return a
		},
		`no parameter "top"`: func(p *federated.Problem) federated.Algorithm {
			a := personal.NewFedRep(p)
			a.Heads = []string{"top"}
			return a
		},
		"nothing is shared": func(p *federated.Problem) federated.Algorithm {
			a := personal.NewFedPer(p)
			m, err := p.Build(1)
			if err != nil {
				t.Fatal(err)
			}
			for _, q := range m.Params {
				a.Heads = append(a.Heads, q.Name)
			}
			return a
		},
		"neither may be negative": func(p *federated.Problem) federated.Algorithm { return personal.NewFineTune(p, -1) },
	} {
		if err := method(fedtest.Problem(t, 6, 3)).Check(w.Server()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that says %q", err, want)
		}
	}
}

// A trainer that a member brings along would leave its own model as it is: none is taken.
func TestNotExternal(t *testing.T) {
	p := fedtest.Problem(t, 6, 3)
	for _, a := range []federated.Algorithm{
		personal.NewDitto(p, 1), personal.NewPerFedAvg(p, 0.1, personal.Exact), personal.NewPFedMe(p), personal.NewAPFL(p, 0.5),
		personal.NewFedRep(p), personal.NewFineTune(p, 1),
	} {
		if _, ok := a.(federated.External); ok {
			t.Errorf("%T takes trainers that members bring along", a)
		}
	}
}

// Training that diverges is told of the member, and does not reach the model.
func TestDivergence(t *testing.T) {
	w := world(t)
	p := fedtest.Problem(t, 6, 3)
	p.Training.Clip, p.Training.Rate = 0, train.Constant(1e30)
	r := fedtest.Run{World: w, Algorithm: personal.NewPerFedAvg(p, 1e30, personal.FirstOrder), Config: federated.Config{Rounds: 1}}
	l, err := r.Do(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	failed := l.Phase("train")[0].Failed
	if len(failed) == 0 {
		t.Fatal("nobody failed")
	}
	for _, f := range failed {
		if !strings.Contains(f.Reason, "lower the learning rate") && !strings.Contains(f.Reason, "NaN") && !strings.Contains(f.Reason, "Inf") {
			t.Errorf("%s: %s", f.Member, f.Reason)
		}
	}
}
