package heterofl_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedavg"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/federated/heterofl"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

func world(t *testing.T, classes int) *fedtest.World {
	return fedtest.Blobs(fedtest.Engine(t, "go"), 6, classes, 8, 6, 12, 10, 7)
}

func algorithm(t *testing.T, p *federated.Problem, c heterofl.Config) *heterofl.Algorithm {
	t.Helper()
	a, err := heterofl.New(p, c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func run(t *testing.T, w *fedtest.World, a federated.Algorithm) *fedtest.Trace {
	t.Helper()
	r := fedtest.Run{World: w, Algorithm: a, Config: federated.Config{Rounds: 3}}
	return r.Must(t)
}

// I1: with everybody at the global level and all labels present it is unweighted FedAvg, bit for bit.
func TestIsFedAvg(t *testing.T) {
	w, p := world(t, 2), fedtest.Problem(t, 6, 2) // with two classes every member has both
	avg := fedavg.New(p)
	avg.Uniform = true
	want := run(t, w, avg)
	for _, s := range heterofl.Schemes() {
		for _, levels := range []string{"a1", "a3"} {
			got := run(t, w, algorithm(t, p, heterofl.Config{Mode: mode(t, levels), Scheme: s}))
			for i := range want.Snapshots {
				if !got.Snapshots[i].State.Sets["w"].Equal(want.Snapshots[i].State.Sets["w"]) {
					t.Errorf("%s, %s: weights differ from FedAvg's after round %d", levels, s, i)
				}
			}
		}
	}
}

// I2: what is dealt out and comes back untrained is what it was, in any mixture.
func TestUntrained(t *testing.T) {
	w, p := world(t, 3), fedtest.Problem(t, 6, 3)
	p.Training.Rate = train.Constant(0)
	for _, s := range heterofl.Schemes() {
		for _, levels := range []string{"a1-b1-c1-d1-e1", "b1-e1", "a2-c3"} {
			l := run(t, w, algorithm(t, p, heterofl.Config{Mode: mode(t, levels), Scheme: s, Dynamic: true}))
			start, err := p.Initial(w.Seed, mode(t, levels).Global().Rate)
			if err != nil {
				t.Fatal(err)
			}
			if !l.Final.Sets["w"].Equal(start) {
				t.Errorf("%s, %s: weights have changed", levels, s)
			}
		}
	}
}

// I3: if only the thinnest members are active, nothing outside of their slice changes.
func TestThinOnly(t *testing.T) {
	w, p := world(t, 3), fedtest.Problem(t, 6, 3)
	p.Select.Eligible = func(m federated.Member) bool { return m.Index > 0 } // member 0 has level a
	l := run(t, w, algorithm(t, p, heterofl.Config{Mode: mode(t, "a1-e4")}))
	start, err := p.Initial(w.Seed, 1)
	if err != nil {
		t.Fatal(err)
	}
	wide, err := p.Build(1)
	if err != nil {
		t.Fatal(err)
	}
	ix := nn.Index(wide, 1.0/16, nn.Leading)
	got := l.Final.Sets["w"]
	changed := ix.Slice(got).Sub(ix.Slice(start)).Norm()
	ix.Scatter(got, ix.Slice(start))
	if !got.Equal(start) {
		t.Error("coordinates outside of the slice have changed")
	}
	if changed == 0 {
		t.Error("the slice has not changed")
	}
}

// I5: what was averaged adds up: Σ_i count_i·W_new,i = Σ_m Σ_i W_m,i over the coordinates that count.
func TestConservation(t *testing.T) {
	w, p := world(t, 3), fedtest.Problem(t, 6, 3)
	a := algorithm(t, p, heterofl.Config{Mode: mode(t, "a1-b2-c2")})
	start, err := p.Initial(w.Seed, 1)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var want float64
	count := weights.NewAcc(start, true)
	r := fedtest.Run{World: w, Algorithm: a, Config: federated.Config{Rounds: 1}}
	r.Members.Tamper = func(x *federated.Answer) {
		if x.Order.Barrier {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		own := weights.NewAcc(start, true) // the member's weights, over what counts of them
		whole := x.Task.Sets["w"].Clone()
		whole.AddScaled(1, x.Result.Addends["w"])
		own.MustAdd(whole, x.Task.Index, x.Result.Cover, 1)
		count.MustAdd(whole.Zeros(), x.Task.Index, x.Result.Cover, 1)
		for _, name := range own.Names() {
			for i := range start.Must(name).Len() {
				want += own.Total(name, i)
			}
		}
	}
	l := r.Must(t)
	var got float64
	for name, x := range l.Final.Sets["w"].All() {
		for i := range x.Len() {
			got += float64(count.Count(name, i)) * x.At(i)
		}
	}
	if !(math.Abs(got-want) <= 1e-6*math.Abs(want)) {
		t.Errorf("Σ count·W = %g, Σ W_m = %g", got, want)
	}
}

// table is a model of one 4×4 tensor, of which level b holds 2×2 and level c 1×1.
func table(rate float64) (*nn.Model, error) {
	return &nn.Model{
		Name: "table", Rate: rate, Input: []int{1}, Classes: 2,
		Params: []nn.Param{{Name: "w", Dims: []nn.Dim{{Name: "out", Size: 4, Scaled: true}, {Name: "in", Size: 4, Scaled: true}}}},
	}, nil
}

// I8: the worked example of aggregation. Members send tensors filled with 1 (4×4), 2 and 4 (2×2) and 9 (1×1).
func TestAggregation(t *testing.T) {
	base := weights.NewSet(1)
	values := make([]float32, 16)
	for i := range values {
		values[i] = float32(i)
	}
	base.Put("w", weights.Of32(values, 4, 4))
	w := fedtest.Blobs(nil, 1, 2, 4, 4, 4, 4)
	for without, want := range map[int][]float64{
		-1: {4, 7. / 3, 1, 1, 7. / 3, 7. / 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
		0:  {5, 3, 2, 3, 3, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
	} {
		p := fedtest.Problem(t, 1, 2)
		p.Build, p.Start, p.Rounds = table, &base, 99
		p.Select = federated.Selection{Everyone: true, Eligible: func(m federated.Member) bool { return m.Index != without }}
		p.Measuring = federated.Measuring{Every: 99}
		r := fedtest.Run{World: w, Algorithm: algorithm(t, p, heterofl.Config{Mode: mode(t, "a1-b2-c1")}), Config: federated.Config{Rounds: 1}}
		r.Members.Client = client(func(at federated.Local, task federated.Task) federated.Result {
			got := task.Sets["w"]
			sent := got.Map(got, func(float64, float64) float64 { return []float64{1, 2, 4, 9}[at.Member.Index] })
			return federated.Result{Addends: map[string]weights.Set{"w": sent.Sub(got)}}
		})
		l := r.Must(t)
		for i, v := range want {
			if got := l.Final.Sets["w"].Must("w").At(i); math.Abs(got-v) > 1e-6 {
				t.Errorf("without member %d: W[%d,%d] = %v, want %v", without, i/4, i%4, got, v)
			}
		}
	}
}

type client func(federated.Local, federated.Task) federated.Result

func (f client) Run(_ context.Context, at federated.Local, t federated.Task, _ *weights.Set) (federated.Result, error) {
	return f(at, t), nil
}

// I10: evaluation statistics are means over batches, whatever their size, collected from one member after the other; and
// of one member alone they are those that the server collects itself.
func TestStatistics(t *testing.T) {
	build, err := nn.New("mlp", nn.Config{Input: []int{1}, Classes: 2, Hidden: []int{1}, Norm: nn.StaticBatchNorm})
	if err != nil {
		t.Fatal(err)
	}
	start := weights.NewSet(6)
	for _, x := range []struct {
		name  string
		value float32
		shape []int
	}{{"linear1.weight", 1, []int{1, 1}}, {"linear1.bias", 0, []int{1}}, {"norm1.weight", 1, []int{1}}, {"norm1.bias", 0, []int{1}},
		{"linear.weight", 0, []int{2, 1}}, {"linear.bias", 0, []int{2}}} {
		n := 1
		for _, d := range x.shape {
			n *= d
		}
		v := make([]float32, n)
		for i := range v {
			v[i] = x.value
		}
		start.Put(x.name, weights.Of32(v, x.shape...))
	}
	e := fedtest.Engine(t, "go")
	data := &dataset.Examples{Name: "numbers", Shape: []int{1}, F32: []float32{1, 2, 3, 4, 10, 20}, Labels: make([]int32, 6), Classes: []string{"0", "1"}}
	w := &fedtest.World{Engine: e, Members: []fedtest.Holder{
		{Name: "first", Train: dataset.View{Data: data, Rows: []int32{0, 1, 2, 3}}},
		{Name: "second", Train: dataset.View{Data: data, Rows: []int32{4, 5}}},
	}}
	p := fedtest.Problem(t, 1, 2)
	p.Build, p.Start = build, &start
	p.Training.Rate = train.Constant(0)
	l := run(t, w, algorithm(t, p, heterofl.Config{Mode: mode(t, "a1")}))
	stats := l.Final.Sets["stats"]
	mean, variance := stats.Must("norm1.running_mean").At(0), stats.Must("norm1.running_var").At(0)
	if math.Abs(mean-8.75) > 1e-6 || math.Abs(variance-25.833333333333) > 1e-6 {
		t.Errorf("mean %v, variance %v; want 8.75 and 25.8333", mean, variance)
	}

	w.Members = []fedtest.Holder{{Name: "", Train: data.All(), Test: data.All()}} // the server's streams have no name
	w.Pooled, w.Test = data.All(), data.All()
	want := run(t, w, algorithm(t, p, heterofl.Config{Mode: mode(t, "a1")}))
	p.Measuring.Pooled = true
	got := run(t, w, algorithm(t, p, heterofl.Config{Mode: mode(t, "a1")}))
	if !got.Final.Sets["stats"].Equal(want.Final.Sets["stats"]) {
		t.Error("statistics of pooled data differ from those of the member that holds them all")
	}
	if len(got.Phase("stats")) != 0 {
		t.Error("members are asked for statistics that the server computes itself")
	}
}

// I12: the bytes of a round are those of the active members' slices, both ways, by level.
func TestBytes(t *testing.T) {
	w, p := world(t, 3), fedtest.Problem(t, 6, 3)
	a := algorithm(t, p, heterofl.Config{Mode: mode(t, "a1-b1-c1-d1-e1"), Dynamic: true})
	l := run(t, w, a)
	sizes, err := a.Sizes()
	if err != nil {
		t.Fatal(err)
	}
	for _, phase := range l.Phase("train") {
		members := 0
		for _, m := range phase.Traffic {
			members += m.Members
			for _, s := range sizes {
				if want := int64(m.Members) * 4 * s.Cost.Params; s.Level == m.Tag && (m.Down != want || m.Up != want) {
					t.Errorf("round %d, level %s: %d bytes down, %d up, want %d", phase.Round, m.Tag, m.Down, m.Up, want)
				}
			}
		}
		if members != phase.Asked {
			t.Errorf("round %d: traffic of %d members, %d were asked", phase.Round, members, phase.Asked)
		}
	}
}

// Every gradient is clipped by the thin network's own norm: one step moves nobody further than the rate.
func TestClip(t *testing.T) {
	w, p := world(t, 3), fedtest.Problem(t, 6, 3)
	p.Training = federated.Training{Steps: 1, Rate: train.Constant(0.5), Clip: 0.125}
	p.Select = federated.Selection{Everyone: true}
	var mu sync.Mutex
	norms := map[string]float64{}
	r := fedtest.Run{World: w, Algorithm: algorithm(t, p, heterofl.Config{Mode: mode(t, "a1-b1-c1-d1-e1")}), Config: federated.Config{Rounds: 1}}
	r.Members.Tamper = func(a *federated.Answer) {
		if !a.Order.Barrier {
			mu.Lock()
			defer mu.Unlock()
			norms[a.Task.Tag] = a.Result.Addends["w"].Norm()
		}
	}
	r.Must(t)
	for level, n := range norms {
		if !(math.Abs(n-0.5*0.125) < 1e-6) {
			t.Errorf("level %s moved by %v, want 0.0625", level, n)
		}
	}
	if len(norms) != 5 {
		t.Errorf("levels %v took part", norms)
	}
}

// The Scaler divides by a level's width relative to the global one: at the global level it does nothing, at thinner ones it
// makes a difference.
func TestScaler(t *testing.T) {
	w, p := world(t, 3), fedtest.Problem(t, 6, 3)
	build, err := nn.New("mlp", nn.Config{Input: []int{6}, Classes: 3, Hidden: []int{16}})
	if err != nil {
		t.Fatal(err)
	}
	p.Build = build
	sent := func(levels string, unscaled bool, member int) weights.Set {
		p.Select = federated.Selection{Everyone: true, Eligible: func(m federated.Member) bool { return m.Index == member }}
		r := fedtest.Run{World: w, Algorithm: algorithm(t, p, heterofl.Config{Mode: mode(t, levels), Unscaled: unscaled}), Config: federated.Config{Rounds: 1}}
		var s weights.Set
		r.Members.Tamper = func(a *federated.Answer) {
			if !a.Order.Barrier {
				s = a.Result.Addends["w"]
			}
		}
		r.Must(t)
		return s
	}
	if !sent("a1-c4", false, 0).Equal(sent("a1-c4", true, 0)) || !sent("c1", false, 1).Equal(sent("c1", true, 1)) {
		t.Error("the Scaler changes the global level")
	}
	scaled := sent("a1-c4", false, 1)
	if scaled.Equal(sent("a1-c4", true, 1)) {
		t.Error("the Scaler does nothing at a thinner level")
	}
	// A step of plain gradient descent by hand, with the Scaler of the training loop.
	a := algorithm(t, p, heterofl.Config{Mode: mode(t, "a1-c4")})
	thin, err := p.Build(0.25)
	if err != nil {
		t.Fatal(err)
	}
	wide, err := p.Build(1)
	if err != nil {
		t.Fatal(err)
	}
	start, err := p.Initial(w.Seed, 1)
	if err != nil {
		t.Fatal(err)
	}
	at := w.Local(w.Member(1))
	mask, _ := at.Labels(3)
	slice := nn.Index(wide, 0.25, nn.Leading).Slice(start)
	s, err := w.Engine.Begin(&train.Spec{Model: thin, Mask: train.ZeroMask, Scale: 0.25, Clip: 1}, slice, train.Options{LabelMask: mask})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Fit(t.Context(), a.Fit(at, 0)); err != nil {
		t.Fatal(err)
	}
	want, err := s.Params()
	if err != nil {
		t.Fatal(err)
	}
	if !scaled.Equal(want.Sub(slice)) {
		t.Error("a member's round is not the training loop at its level, with ρ = 1/4, mask and clip")
	}
}

// The rows of classes that a member does not have are left out of the average, with and without the mask of the loss; and
// the mask keeps them from being trained at all.
func TestLabelRule(t *testing.T) {
	w, p := world(t, 3), fedtest.Problem(t, 6, 3)
	p.Select = federated.Selection{Everyone: true, Eligible: func(m federated.Member) bool { return m.Index == 1 }} // lacks class 1
	for _, c := range []heterofl.Config{{}, {Unmasked: true}, {Exclusive: true}} {
		c.Mode = mode(t, "a1")
		r := fedtest.Run{World: w, Algorithm: algorithm(t, p, c), Config: federated.Config{Rounds: 1}}
		var sent weights.Set
		r.Members.Tamper = func(a *federated.Answer) {
			if !a.Order.Barrier {
				sent = a.Result.Addends["w"]
			}
		}
		l := r.Must(t)
		if f := l.Phase("train")[0].Failed; len(f) != 0 {
			t.Fatalf("%+v: %v", c, f)
		}
		start, err := p.Initial(w.Seed, 1)
		if err != nil {
			t.Fatal(err)
		}
		const width, row = 16, 1
		for i := range 3 * width {
			old, now := start.Must("linear.weight").At(i), l.Final.Sets["w"].Must("linear.weight").At(i)
			if changed := old != now; changed != (i/width != row) {
				t.Errorf("%+v: row %d of the output layer: %v became %v", c, i/width, old, now)
				break
			}
		}
		trained := false
		for j := range width {
			trained = trained || sent.Must("linear.weight").At(row*width+j) != 0
		}
		if trained != c.Unmasked {
			t.Errorf("%+v: the row of an absent class was trained: %t", c, trained)
		}
	}
}

// The exclusion baseline asks nobody but those who carry the global model.
func TestFullOnly(t *testing.T) {
	w, p := world(t, 3), fedtest.Problem(t, 6, 3)
	l := run(t, w, algorithm(t, p, heterofl.Config{Mode: mode(t, "a2-e3"), FullOnly: true}))
	for _, o := range l.Opened {
		if o.Phase == "train" && len(o.Selected) != 1 || o.Phase == "train" && o.Selected[0] > 1 {
			t.Errorf("round %d asks %v, want one of [0 1]", o.Round, o.Selected)
		}
	}
	// With dynamic levels a round may find nobody; the run goes on.
	p.Select = federated.Selection{Fraction: 0.2}
	l = run(t, w, algorithm(t, p, heterofl.Config{Mode: mode(t, "a1-e200"), FullOnly: true, Dynamic: true}))
	if len(l.Rounds) != 3 {
		t.Errorf("%d rounds, want 3", len(l.Rounds))
	}
}

// A last batch of one example has no variance: an error that says so, or it is left out if asked for.
func TestBatchOfOne(t *testing.T) {
	w, p := fedtest.Blobs(fedtest.Engine(t, "go"), 6, 3, 9, 8, 8, 1), fedtest.Problem(t, 6, 3)
	p.Select = federated.Selection{Everyone: true, Eligible: func(m federated.Member) bool { return m.Samples > 1 || p.Training.SkipSingles }}
	l := run(t, w, algorithm(t, p, heterofl.Config{Mode: mode(t, "a1")}))
	for _, phase := range l.Phase("train") {
		if len(phase.Failed) != 1 || phase.Failed[0].Member != "member-0" || !strings.Contains(phase.Failed[0].Reason, "9 examples in batches of 4") {
			t.Errorf("round %d: failed %v", phase.Round, phase.Failed)
		}
	}
	p.Training.SkipSingles = true
	l = run(t, w, algorithm(t, p, heterofl.Config{Mode: mode(t, "a1")}))
	for _, phase := range l.Phases {
		if len(phase.Failed) != 0 {
			t.Errorf("round %d, %s: failed %v", phase.Round, phase.Phase, phase.Failed)
		}
		if phase.Phase == "train" && !slices.Equal(phase.Abstained, federated.Indices{3}) {
			t.Errorf("round %d: %v abstain, want the member of one example, who cannot make a step", phase.Round, phase.Abstained)
		}
	}
}

// A level that an architecture cannot have is refused at the start, by name.
func TestImpossibleLevel(t *testing.T) {
	group, err := nn.New("cnn", nn.Config{Input: []int{8, 8, 1}, Classes: 10, Widths: []int{16, 32}, Norm: nn.GroupNorm})
	if err != nil {
		t.Fatal(err)
	}
	heads, err := nn.New("transformer", nn.Config{Vocabulary: 20, Tokens: 4, Embedding: 16, Heads: 4, FeedForward: 16, Layers: 1})
	if err != nil {
		t.Fatal(err)
	}
	for build, words := range map[*nn.Builder]string{&group: "level d: norm1 2", &heads: "level d: embedding 4 heads"} {
		_, err := heterofl.New(&federated.Problem{Build: *build}, heterofl.Config{Mode: mode(t, "a1-b1-c1-d1-e1")})
		if err == nil {
			t.Errorf("no error that says %q", words)
			continue
		}
		for word := range strings.FieldsSeq(words) {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("error %q does not say %q", err, word)
			}
		}
	}
}

// The shell of every level is trained by all members that hold it; a discount of stale results does not change that.
func TestCoverage(t *testing.T) {
	w, p := world(t, 2), fedtest.Problem(t, 6, 2)
	p.Select = federated.Selection{Everyone: true}
	for _, pace := range []federated.Pace{{}, {Staleness: 1, Discount: 1}} {
		r := fedtest.Run{World: w, Algorithm: algorithm(t, p, heterofl.Config{Mode: mode(t, "a1-b2-c2")}),
			Config: federated.Config{Rounds: 1, Pace: pace}}
		l := r.Must(t)
		for level, want := range map[string]float64{"a": 1, "b": 3, "c": 5} {
			if got := l.Metric("updates.mean", level)[0]; got != want {
				t.Errorf("%+v: coordinates of level %s were trained by %v members, want %v", pace, level, got, want)
			}
			if got := l.Metric("updates.stale", level)[0]; got != 0 {
				t.Errorf("%+v: a part of %v of level %s was trained by nobody", pace, got, level)
			}
		}
	}
	l := run(t, w, algorithm(t, p, heterofl.Config{Mode: mode(t, "a1-e4"), FullOnly: true}))
	if got := l.Metric("updates.mean", "e")[0]; got != 1 {
		t.Errorf("exclusion: coordinates of level e were trained by %v members, want 1", got)
	}
}

func TestLevels(t *testing.T) {
	count := func(m heterofl.Mode, n int) map[string]int {
		c := map[string]int{}
		for i := range n {
			c[m[m.Fixed(i, n)].Name]++
		}
		return c
	}
	if got := count(mode(t, "a2-b8"), 100); !maps.Equal(got, map[string]int{"a": 20, "b": 80}) {
		t.Errorf("a2-b8 of 100: %v", got)
	}
	if got := count(mode(t, "a1-b1-c1"), 10); !maps.Equal(got, map[string]int{"a": 3, "b": 3, "c": 4}) {
		t.Errorf("a1-b1-c1 of 10: %v", got)
	}
	m := mode(t, "a1-e3")
	n := 0
	for round := range 20 {
		for i := range 100 {
			if m.Dynamic(1, round, federated.Member{Name: fmt.Sprint(i)}) == 0 {
				n++
			}
		}
	}
	if n < 440 || n > 560 { // 500 ± 3 deviations
		t.Errorf("dynamic a1-e3 draws a %d times of 2000, want about 500", n)
	}
	if got := mode(t, "b1-e1"); got.Global().Rate != 0.5 || got.String() != "b1-e1" {
		t.Errorf("b1-e1: global %v", got.Global())
	}
	if m, err := heterofl.ParseMode("x1-y2", map[string]float64{"x": 0.3, "y": 0.1}); err != nil || m[1].Rate != 0.1 {
		t.Errorf("own levels: %v, %v", m, err)
	}
	for s, want := range map[string]string{
		"": "not a letter and a share", "a": "not a letter and a share", "z1": "no level", "a0": "at least 1", "a-1": "not a letter",
		"a1-b": "not a letter", "b1-a1": "wider", "a1-a2": "twice", "ax": "whole number", "a1--b1": "not a letter", "A1": "no level",
		"a1-b99999999999999999999": "whole number", "a+1": "whole number", "a1-b2000000000": "at most",
	} {
		if _, err := heterofl.ParseMode(s, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("mode %q: error %v, want one that says %q", s, err, want)
		}
	}
	w, p := world(t, 3), fedtest.Problem(t, 6, 3)
	if err := algorithm(t, p, heterofl.Config{Mode: mode(t, "a1-b9")}).Check(w.Server()); err == nil {
		t.Error("10 shares for 5 members: no error")
	}
	if _, err := heterofl.New(p, heterofl.Config{Mode: mode(t, "a1"), Scheme: "spiral"}); err == nil {
		t.Error("an unknown scheme: no error")
	}
}
