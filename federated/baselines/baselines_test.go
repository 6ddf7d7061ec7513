package baselines_test

import (
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/baselines"
	"github.com/cohort-learning/cohort/federated/fedavg"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

func world(t *testing.T) *fedtest.World {
	return fedtest.Blobs(fedtest.Engine(t, "go"), 6, 3, 8, 6, 12, 10, 7)
}

func run(t *testing.T, w *fedtest.World, a federated.Algorithm) *fedtest.Trace {
	t.Helper()
	r := fedtest.Run{World: w, Algorithm: a, Config: federated.Config{Rounds: 3}}
	return r.Must(t)
}

func build(t *testing.T, norm nn.NormKind) nn.Builder {
	t.Helper()
	b, err := nn.New("mlp", nn.Config{Input: []int{6}, Classes: 3, Hidden: []int{8}, Norm: norm})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Sharing everything is FedAvg, bit for bit: also FedBN of a model without batch norm.
func TestSharedWhole(t *testing.T) {
	w, p := world(t), fedtest.Problem(t, 6, 3)
	p.Build = build(t, nn.LayerNorm)
	want := run(t, w, fedavg.New(p))
	for what, shared := range map[string]func(nn.Param) bool{
		"everything": func(nn.Param) bool { return true }, "all but batch norm": baselines.AllButBatchNorm,
	} {
		got := run(t, w, baselines.NewPartial(p, shared))
		for i := range want.Snapshots {
			if !got.Snapshots[i].State.Sets["w"].Equal(want.Snapshots[i].State.Sets["w"]) {
				t.Errorf("%s shared: weights differ from FedAvg's after round %d", what, i)
			}
		}
		if len(got.Members.Kept()) != 0 {
			t.Errorf("%s shared: members keep something", what)
		}
	}
}

// Members of FedBN keep their norm layers, share the rest and send nothing of what they keep.
func TestFedBN(t *testing.T) {
	for _, norm := range []nn.NormKind{nn.StaticBatchNorm, nn.BatchNorm} {
		w, p := world(t), fedtest.Problem(t, 6, 3)
		p.Build = build(t, norm)
		l := run(t, w, baselines.NewPartial(p, baselines.AllButBatchNorm))
		shared := strings.Join(l.Final.Sets["w"].Names(), " ")
		if shared != "linear1.weight linear1.bias linear.weight linear.bias" {
			t.Errorf("%s: %s are shared", norm, shared)
		}
		kept := l.Members.Kept()
		if len(kept) < 4 {
			t.Fatalf("%s: %d members keep something, want at least 4", norm, len(kept))
		}
		var first *weights.Set
		for _, s := range kept {
			for _, n := range s.Names() {
				if !strings.HasPrefix(n, "norm1.") {
					t.Errorf("%s: members keep %s", norm, n)
				}
			}
			if first != nil && s.Equal(*first) {
				t.Errorf("%s: two members keep the same", norm)
			}
			first = s
		}
		traffic := l.Phase("train")[0].Traffic[0]
		if want := int64(traffic.Members) * l.Final.Sets["w"].Bytes(); traffic.Down != want || traffic.Up != want {
			t.Errorf("%s: %d bytes down, %d up; want %d, the shared part for each member", norm, traffic.Down, traffic.Up, want)
		}
	}
}

// Members of local-only never see each other: one that is alone learns the same.
func TestLocalOnly(t *testing.T) {
	w, p := world(t), fedtest.Problem(t, 6, 3)
	p.Select = federated.Selection{Everyone: true}
	together := run(t, w, baselines.NewPartial(p, baselines.Nothing))
	for k := range w.Members {
		alone := &fedtest.World{Engine: w.Engine, Seed: w.Seed, Members: w.Members[k : k+1]}
		if got := run(t, alone, baselines.NewPartial(p, baselines.Nothing)); !got.Members.Kept()[0].Equal(*together.Members.Kept()[k]) {
			t.Errorf("member %d learns something else with others around", k)
		}
	}
	if n := together.Phase("train")[0].Traffic[0]; n.Down != 0 || n.Up != 0 {
		t.Errorf("%d bytes down and %d up, want none", n.Down, n.Up)
	}
	if got := together.Metric("accuracy.personal", ""); len(got) != 3 || got[2] < 0.6 {
		t.Errorf("local accuracy %v, want three values and more than 0.6 at last", got)
	}
}

// LG-FedAvg shares the last layer.
func TestLastLayer(t *testing.T) {
	w, p := world(t), fedtest.Problem(t, 6, 3)
	l := run(t, w, baselines.NewPartial(p, baselines.LastLayer))
	if got := strings.Join(l.Final.Sets["w"].Names(), " "); got != "linear.weight linear.bias" {
		t.Errorf("%s are shared", got)
	}
}

// A round of centralised learning is a pass over the pooled data in the training loop itself.
func TestCentralised(t *testing.T) {
	w, p := world(t), fedtest.Problem(t, 6, 3)
	p.Measuring.Members = false
	a := baselines.NewCentralised(p)
	l := run(t, w, a)
	if p.Measuring.Pooled {
		t.Error("centralised learning changes a problem that it shares with other methods")
	}
	for _, q := range l.Phases {
		if q.Asked != 0 {
			t.Errorf("%s asks %d members", q.Phase, q.Asked)
		}
	}
	start, err := p.Initial(w.Seed, 1)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := a.Spec("train", 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := w.Engine.Begin(spec, start, train.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	at := federated.Local{Seed: w.Seed, Train: w.Pooled}
	if _, err := s.Fit(t.Context(), p.Fit(at, 0)); err != nil {
		t.Fatal(err)
	}
	want, err := s.Params()
	if err != nil {
		t.Fatal(err)
	}
	if !l.Snapshots[0].State.Sets["w"].Equal(want) {
		t.Error("the first round is not the training loop on the pooled data")
	}
	w.Pooled.Rows = nil
	if err := baselines.NewCentralised(p).Check(w.Server()); err == nil {
		t.Error("no pooled data, and no error")
	}
}
