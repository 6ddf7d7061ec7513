package semifl

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/gomlx/core/graph"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedavg"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/federated/heterofl"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// The identities of SemiFL's specification, section 6a.

// J1: a threshold above 1 leaves nobody active, and the model is the one that the server trains alone.
func TestNobodyIsSure(t *testing.T) {
	w, p := bars(t, 4, 12), problem(t)
	c := small(func(c *Config) { c.Threshold = 1.01 })
	l := run(t, w, p, c, nil)
	srv := w.Server()

	m, err := p.Build(1)
	if err != nil {
		t.Fatal(err)
	}
	spec := &train.Spec{Model: m, Clip: p.Training.Clip, Optimizer: p.Training.Optimizer}
	params, err := p.Initial(srv.Seed, 1)
	if err != nil {
		t.Fatal(err)
	}
	var state weights.Set
	for round := range p.Rounds {
		s, err := w.Engine.Begin(spec, params, train.Options{OptimizerState: state})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Fit(context.Background(), train.Fit{Data: srv.Train, Epochs: 40, Batch: 10, Augment: p.Training.Augment,
			Rate: train.Constant(p.Training.Rate.At(round)), Random: rng.New(srv.Seed, round, "", "server")})
		if err != nil {
			t.Fatal(err)
		}
		if params, err = s.Params(); err != nil {
			t.Fatal(err)
		}
		if state, err = s.OptimizerState(); err != nil {
			t.Fatal(err)
		}
		s.Close()
		if got := l.Snapshots[round].State.Sets["w"]; !got.Equal(params) {
			t.Fatalf("after round %d the model differs by %g from one that the server trained alone", round, got.Sub(params).Norm())
		}
	}
	for _, v := range l.Metric("pseudo.accepted", "") {
		if v != 0 {
			t.Errorf("accepted %g of the labels", v)
		}
	}
	if up := traffic(l, "train"); up.Up != 0 || up.Down == 0 {
		t.Errorf("members sent %d bytes and were sent %d", up.Up, up.Down)
	}
}

// traffic adds up that of a phase.
func traffic(l *fedtest.Trace, phase string) (sum federated.Traffic) {
	for _, p := range l.Phase(phase) {
		for _, m := range p.Traffic {
			sum.Members, sum.Down, sum.Up = sum.Members+m.Members, sum.Down+m.Down, sum.Up+m.Up
		}
	}
	return sum
}

// J2: supervised, without momentum of the server and without training there, it is FedAvg with members that weigh alike, and
// HeteroFL of one level without its mask, bit for bit, if optimisers start afresh.
func TestSupervised(t *testing.T) {
	w, p := bars(t, 4, 12), problem(t)
	supervised := small(func(c *Config) { c.Loss, c.Momentum, c.ServerEpochs, c.Forget = Labelled, 0, 0, true })
	got := run(t, w, p, supervised, nil)

	avg := fedavg.New(p)
	avg.Uniform = true
	levels, err := heterofl.ParseMode("a1", nil)
	if err != nil {
		t.Fatal(err)
	}
	hetero, err := heterofl.New(p, heterofl.Config{Mode: levels, Unmasked: true})
	if err != nil {
		t.Fatal(err)
	}
	for what, a := range map[string]federated.Algorithm{"FedAvg": avg, "HeteroFL": hetero} {
		r := &fedtest.Run{World: w, Algorithm: a, Config: federated.Config{Rounds: p.Rounds}}
		want := r.Must(t)
		for i := range want.Snapshots {
			if x := got.Snapshots[i].State.Sets["w"]; !x.Equal(want.Snapshots[i].State.Sets["w"]) {
				t.Fatalf("after round %d the model is not that of %s", i, what)
			}
		}
	}

	// With optimisers that go on, it is FedAvg whose members do so: here written out.
	supervised.Forget = false
	got = run(t, w, p, supervised, nil)
	m, err := p.Build(1)
	if err != nil {
		t.Fatal(err)
	}
	spec := &train.Spec{Model: m, Clip: p.Training.Clip, Optimizer: p.Training.Optimizer}
	global, err := p.Initial(w.Seed, 1)
	if err != nil {
		t.Fatal(err)
	}
	states := map[int]weights.Set{}
	for round := range p.Rounds {
		sum := weights.NewAcc(global, false)
		for _, o := range got.Opened {
			if o.Round != round || o.Phase != "train" {
				continue
			}
			for _, k := range o.Selected {
				at := w.Local(w.Member(k))
				s, err := w.Engine.Begin(spec, global, train.Options{OptimizerState: states[k]})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.Fit(context.Background(), p.Fit(at, round)); err != nil {
					t.Fatal(err)
				}
				trained, err1 := s.Params()
				state, err2 := s.OptimizerState()
				if err1 != nil || err2 != nil {
					t.Fatal(err1, err2)
				}
				states[k] = state
				sum.MustAdd(trained.Sub(global), nil, nil, 1)
				s.Close()
			}
		}
		global = sum.AddMean(global)
		if x := got.Snapshots[round].State.Sets["w"]; !x.Equal(global) {
			t.Fatalf("after round %d the model is not that of FedAvg with optimisers that go on", round)
		}
	}
}

// losses builds L_fix and λ·L_mix for outputs and targets, as the training step does, and runs them.
func losses(z, y [][2][]float64, lambda float64) float64 {
	g := graph.NewGraph(gobackend.GetBackend(), "losses")
	flat := func(x [][2][]float64) *graph.Node {
		var rows [][][]float64
		for _, r := range x {
			rows = append(rows, [][]float64{r[0], r[1]})
		}
		return graph.Const(g, rows)
	}
	loss := graph.ReduceAllMean(fixAndMix(lambda)(flat(z), flat(y)))
	if err := g.Compile(loss); err != nil {
		panic(err)
	}
	return g.Run()[0].Value().(float64)
}

// mixedTarget is what the mix loss compares with.
func mixedTarget(fix, mix int, lam float64) []float64 {
	y := make([]float64, 3)
	y[fix] += lam
	y[mix] += 1 - lam
	return y
}

func oneHot(class int) []float64 { return mixedTarget(class, class, 1) }

// J3: the losses of a worked example, and J8: with λ' = 1 the mix loss is the cross-entropy of the weak view.
func TestLosses(t *testing.T) {
	strong := [][]float64{{2, 0.5, -1}, {0.1, 1.2, 0.3}}
	mixed := [][]float64{{1, 1, 0}, {-0.5, 0.7, 0.2}}
	fix, mix, lam := []int{0, 1}, []int{1, 2}, 0.3
	var z, y, sure [][2][]float64
	for i := range strong {
		z = append(z, [2][]float64{strong[i], mixed[i]})
		y = append(y, [2][]float64{oneHot(fix[i]), mixedTarget(fix[i], mix[i], lam)})
		sure = append(sure, [2][]float64{oneHot(fix[i]), oneHot(fix[i])})
	}
	lfix, all := losses(z, y, 0), losses(z, y, 1)
	for what, v := range map[string][2]float64{"L_fix": {lfix, 0.3974375}, "L_mix": {all - lfix, 0.9289531}, "together": {all, 1.3263905}} {
		if math.Abs(v[0]-v[1]) > 6e-8 {
			t.Errorf("%s = %.8f, want %.7f", what, v[0], v[1])
		}
	}
	ce := 0.0
	for i, m := range mixed {
		sum := 0.0
		for _, v := range m {
			sum += math.Exp(v)
		}
		ce += (math.Log(sum) - m[fix[i]]) / 2
	}
	if got := losses(z, sure, 1) - lfix; math.Abs(got-ce) > 1e-12 {
		t.Errorf("mix loss at λ' = 1 is %.15f, the cross-entropy %.15f", got, ce)
	}
}

// one is a set of a single number.
func one(v float64) weights.Set {
	s := weights.NewSet(1)
	s.Put("w", weights.Of64([]float64{v}, 1))
	return s
}

// J4: W = 1, means .6, .7, .5, β = .5 give .6, .5, .45.
func TestMomentum(t *testing.T) {
	a := &Algorithm{Config: Config{Momentum: 0.5}}
	s := federated.State{Sets: map[string]weights.Set{"w": one(1), "v": one(0)}}
	for i, c := range []struct{ mean, want float64 }{{0.6, 0.6}, {0.7, 0.5}, {0.5, 0.45}} {
		sum := weights.NewAcc(one(0), false)
		now := s.Sets["w"].Must("w").At(0)
		sum.MustAdd(one(c.mean-now+0.25), nil, nil, 1)
		sum.MustAdd(one(c.mean-now-0.25), nil, nil, 1)
		s = a.momentum(s, sum)
		if got := s.Sets["w"].Must("w").At(0); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("round %d: W = %.12f, want %g", i, got, c.want)
		}
	}
}

// The worked example of section 5: with members that do not move and a server that moves by 1 a round, the reference stops and
// the corrected step does not.
func TestParallelMomentum(t *testing.T) {
	for server, want := range map[Teaching][]float64{
		ParallelReference: {0.5, 0.75, 0.875, 0.9375},
		Parallel:          {0.5, 1.25, 2.125, 3.0625},
	} {
		a := &Algorithm{Config: Config{Momentum: 0.5, Server: server}}
		s := federated.State{Sets: map[string]weights.Set{"w": one(0), "v": one(0), "cohort": one(0)}}
		for i, x := range want {
			s = a.meet(s, one(s.Sets["w"].Must("w").At(0)+1), 0.5)
			if got := s.Sets["w"].Must("w").At(0); math.Abs(got-x) > 1e-12 {
				t.Errorf("%s, round %d: W = %.12f, want %g", server, i, got, x)
			}
		}
	}
}

// J6: the learning rate.
func TestRate(t *testing.T) {
	rate := train.Cosine{Rate: 0.03, Period: 800}
	for round, want := range map[int]float64{0: 0.03, 1: 0.029999884, 200: 0.025606602, 400: 0.015, 600: 0.004393398} {
		if got := rate.At(round); math.Abs(got-want) > 6e-10 {
			t.Errorf("rate of round %d is %.9f, want %.9f", round, got, want)
		}
	}
	if got := rate.At(799); math.Abs(got-1.16e-7) > 6e-10 {
		t.Errorf("rate of round 799 is %g, want 1.16e-7", got)
	}
}

// J7: labels are those of the received model, however long members train with them.
func TestLabelsAreMadeOnce(t *testing.T) {
	w := bars(t, 4, 12)
	var short, long *fedtest.Trace
	for _, epochs := range []int{1, 10} {
		p := problem(t)
		p.Rounds, p.Training.Epochs = 1, epochs
		l := run(t, w, p, small(func(c *Config) { c.First = true }), nil)
		if short, long = long, l; short == nil {
			continue
		}
		for _, m := range []string{"pseudo.accepted", "pseudo.accuracy", "pseudo.accepted.accuracy"} {
			if a, b := short.Metric(m, ""), long.Metric(m, ""); len(a) != 1 || !slices.Equal(a, b) {
				t.Errorf("%s after 1 and 10 epochs: %v and %v", m, a, b)
			}
		}
		if v := long.Metric("pseudo.accepted", "")[0]; v == 0 || v == 1 {
			t.Errorf("%g of the labels are accepted: the test tests nothing", v)
		}
		if short.Final.Sets["w"].Equal(long.Final.Sets["w"]) {
			t.Error("1 and 10 epochs give the same model")
		}
	}

	// And the very labels of one member, before and after it has trained.
	p := problem(t)
	a, err := New(p, small(nil))
	if err != nil {
		t.Fatal(err)
	}
	s, err := a.Init(context.Background(), w.Server())
	if err != nil {
		t.Fatal(err)
	}
	if s, _, err = a.gather(context.Background(), w.Server(), s, nil); err != nil {
		t.Fatal(err)
	}
	c, at := client{a}, w.Local(w.Member(1))
	label := func() *labels {
		l, err := c.label(context.Background(), at, 2, 1, s.Sets["w"], s.Sets["stats"])
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	first := label()
	if again := label(); !slices.Equal(first.class, again.class) || !slices.Equal(first.sure, again.sure) {
		t.Error("the same member labels otherwise the second time")
	}
}

// J8: λ = 0 is the fix mode, to the bit.
func TestNoMix(t *testing.T) {
	w, p := bars(t, 4, 12), problem(t)
	a := run(t, w, p, small(func(c *Config) { c.Lambda = 0 }), nil)
	b := run(t, w, p, small(func(c *Config) { c.Loss = Fix }), nil)
	if !slices.Equal(a.Digests(), b.Digests()) {
		t.Error("λ = 0 differs from the fix loss")
	}
	if c := run(t, w, p, small(nil), nil); slices.Equal(a.Digests(), c.Digests()) {
		t.Error("the mix loss makes no difference")
	}
}

// J9: the parts of the mean in parallel training sum to 1.
func TestParts(t *testing.T) {
	sum := func(n int, v float64) *federated.Sum {
		s := &federated.Sum{Total: map[string]*weights.Acc{"w": weights.NewAcc(one(0), false)}, N: n, Unit: 1}
		for range n {
			s.Total["w"].MustAdd(one(v), nil, nil, 1)
		}
		return s
	}
	for what, c := range map[string]struct {
		groups       bool
		sums         map[string]*federated.Sum
		part, change float64 // of the server, and with members that all move by 1
	}{
		"four":           {false, map[string]*federated.Sum{"": sum(4, 1)}, 0.5, 4 * 0.125},
		"nobody":         {false, nil, 1, 0},
		"groups of two":  {true, map[string]*federated.Sum{"0": sum(2, 1), "1": sum(2, 1)}, 1. / 3, 4. / 6},
		"uneven groups":  {true, map[string]*federated.Sum{"0": sum(1, 1), "1": sum(3, 1)}, 0.5*0.5 + 0.5*0.25, 0.5*0.5 + 0.5*0.75},
		"one group only": {true, map[string]*federated.Sum{"1": sum(2, 1)}, 0.5 + 0.5/3, 0.5 * 2 / 3},
	} {
		a := &Algorithm{Config: Config{Groups: c.groups, Server: Parallel}}
		part, change := a.cohort(federated.State{Sets: map[string]weights.Set{"w": one(0)}}, c.sums)
		if got := change.Must("w").At(0); math.Abs(part-c.part) > 1e-15 || math.Abs(got-c.change) > 1e-15 {
			t.Errorf("%s: the server's part is %g and the members move by %g, want %g and %g", what, part, got, c.part, c.change)
		}
		if math.Abs(part+change.Must("w").At(0)-1) > 1e-15 {
			t.Errorf("%s: the parts sum to %g", what, part+change.Must("w").At(0))
		}
	}
}

// J10: who is not active sends nothing and keeps what it had.
func TestInactive(t *testing.T) {
	w, p := bars(t, 6, 12), problem(t)
	p.Rounds, p.Select.Fraction = 6, 0.7
	for i := range w.Members { // half of the members see nothing but noise, which nobody is sure about
		if i%2 == 1 {
			w.Members[i].Train = noise(w.Members[i].Train)
		}
	}
	l := run(t, w, p, small(func(c *Config) { c.Threshold = 0.75 }), nil)
	model, err := p.Build(1)
	if err != nil {
		t.Fatal(err)
	}
	bytes := model.Cost().Bytes
	idle := 0
	for i, phase := range l.Phase("train") {
		asked, active := int64(phase.Asked), int64(0)
		for _, f := range phase.Folded {
			active += int64(len(f.Members))
		}
		var down, up int64
		for _, m := range phase.Traffic {
			down, up = down+m.Down, up+m.Up
		}
		if stats := 2 * 8 * int64(4+8); up != active*bytes || down != asked*(bytes+stats) {
			t.Errorf("round %d: %d bytes up and %d down for %d active of %d, with %d bytes of model and %d of statistics",
				i, up, down, active, asked, bytes, stats)
		}
		if i == 0 {
			continue
		}
		for _, k := range phase.Abstained {
			before, had := l.Kept[i-1][k]
			after, has := l.Kept[i][k]
			if had != has || had && !before.Equal(*after) {
				t.Errorf("round %d: member %d was not active, and what it keeps has changed", i, k)
			}
			idle++
		}
	}
	if idle == 0 || len(l.Kept[len(l.Kept)-1]) == 0 {
		t.Errorf("%d members abstained, %d keep something: the test tests nothing", idle, len(l.Kept[len(l.Kept)-1]))
	}
}

// noise returns as many images without any bar.
func noise(v dataset.View) dataset.View {
	r := rng.New(1, 0, "", "noise")
	d := v.Data.Subset(v.Rows)
	for i := range d.U8 {
		d.U8[i] = uint8(60 + r.IntN(100))
	}
	return d.All()
}

// J12: members' labels change what is measured and nothing else.
func TestLabelsOfMembersAreNotLearned(t *testing.T) {
	w, p := bars(t, 4, 12), problem(t)
	for what, change := range map[string]func(*Config){
		"semifl": nil, "fixmatch": func(c *Config) { c.Loss, c.Server, c.Threshold = FixBatch, Parallel, 0.5 },
	} {
		plain := run(t, w, p, small(change), nil)
		for how, relabel := range map[string]func(*dataset.Examples){
			"random": func(d *dataset.Examples) {
				r := rng.New(9, 0, "", "labels")
				for i := range d.Labels {
					d.Labels[i] = int32(r.IntN(3))
				}
			},
			"none": func(d *dataset.Examples) { d.Labels = nil },
		} {
			other := &fedtest.World{Engine: w.Engine, Seed: w.Seed, Members: slices.Clone(w.Members), Pooled: w.Pooled, Test: w.Test}
			for i, m := range w.Members {
				d := m.Train.Data.Subset(m.Train.Rows)
				relabel(d)
				other.Members[i].Train = d.All()
			}
			l := run(t, other, p, small(change), nil)
			for i := range plain.Snapshots { // what is kept of the metrics differs
				if !l.Snapshots[i].State.Sets["w"].Equal(plain.Snapshots[i].State.Sets["w"]) {
					t.Errorf("%s: with %s labels of members the model of round %d is another one", what, how, i)
				}
			}
			if n := len(l.Metric("pseudo.accuracy", "")); how == "none" && n != 0 {
				t.Errorf("%s: accuracy of pseudo-labels is measured %d times without labels", what, n)
			}
		}
	}
}
