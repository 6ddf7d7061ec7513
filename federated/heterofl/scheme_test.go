package heterofl_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/federated/heterofl"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
	"pgregory.net/rapid"
)

// architectures are small models of all kinds.
func architectures(t testing.TB) map[string]nn.Builder {
	t.Helper()
	dropout := 0.2
	out := map[string]nn.Builder{}
	for name, c := range map[string]nn.Config{
		"mlp":         {Input: []int{6}, Classes: 3, Hidden: []int{16, 8}, Norm: nn.StaticBatchNorm},
		"cnn":         {Input: []int{8, 8, 1}, Classes: 4, Widths: []int{4, 8}},
		"resnet":      {Input: []int{8, 8, 1}, Classes: 4, Widths: []int{4, 8}, Blocks: []int{1, 1}},
		"lenet":       {Input: []int{12, 12, 1}, Classes: 4, Widths: []int{4, 8}, Hidden: []int{16}},
		"transformer": {Vocabulary: 12, Tokens: 6, Embedding: 16, Heads: 2, FeedForward: 16, Layers: 1, Dropout: &dropout},
	} {
		b, err := nn.New(name, c)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = b
	}
	return out
}

// index returns the index of one member's task in a round.
func index(t testing.TB, build nn.Builder, c heterofl.Config, seed uint64, round int, member federated.Member) (weights.Index, weights.Set) {
	t.Helper()
	p := fedtest.Problem(t, 6, 3)
	p.Build = build
	a, err := heterofl.New(p, c)
	if err != nil {
		t.Fatal(err)
	}
	s, err := a.Init(t.Context(), federated.Server{Seed: seed, Population: &fedtest.World{Members: make([]fedtest.Holder, 5)}})
	if err != nil {
		t.Fatal(err)
	}
	s.Round = round
	phase, _ := a.Next(s)
	task, err := a.Task(s, phase, member)
	if err != nil {
		t.Fatal(err)
	}
	return task.Index, task.Sets["w"]
}

// Whatever the scheme, a slice has the shapes of the thin model, its positions are distinct and within the axis, the same
// ones wherever an axis of that name appears, and as many of each head.
func TestSlices(t *testing.T) {
	builds := architectures(t)
	names := []string{"mlp", "cnn", "resnet", "lenet", "transformer"}
	rapid.Check(t, func(rt *rapid.T) {
		name := rapid.SampledFrom(names).Draw(rt, "model")
		scheme := rapid.SampledFrom(heterofl.Schemes()).Draw(rt, "scheme")
		round, seed := rapid.IntRange(0, 40).Draw(rt, "round"), rapid.Uint64Range(0, 3).Draw(rt, "seed")
		member := federated.Member{Index: rapid.IntRange(1, 4).Draw(rt, "member")}
		member.Name = fmt.Sprint(member.Index)
		const rate = 0.5
		m, err := heterofl.ParseMode("a1-b4", nil)
		if err != nil {
			rt.Fatal(err)
		}
		ix, w := index(t, builds[name], heterofl.Config{Mode: m, Scheme: scheme}, seed, round, member)
		thin, err := builds[name](rate)
		if err != nil {
			rt.Fatal(err)
		}
		if err := w.Match(thin.Zeros(weights.Float32)); err != nil {
			rt.Fatalf("%s, %s: %v", name, scheme, err)
		}
		seen := map[string][]int32{}
		for _, p := range thin.Params {
			for i, d := range p.Dims {
				whole := d.At(1)
				at := ix[p.Name][i].Positions(whole)
				if len(at) != d.At(rate) {
					rt.Fatalf("%s: %s keeps %d of axis %d, want %d", name, p.Name, len(at), i, d.At(rate))
				}
				sorted := slices.Clone(at)
				slices.Sort(sorted)
				if len(slices.Compact(sorted)) != len(at) || at[0] < 0 || int(sorted[len(sorted)-1]) >= whole {
					rt.Fatalf("%s: %s keeps %v of %d positions", name, p.Name, at, whole)
				}
				if d.Name == "" || d.Block > 1 {
					continue
				}
				if before, ok := seen[d.Name]; ok && !slices.Equal(before, at) {
					rt.Fatalf("%s: axis %s keeps %v here and %v elsewhere", name, d.Name, at, before)
				}
				seen[d.Name] = at
				for h := range d.Heads {
					n := 0
					for _, k := range at {
						if int(k)*d.Heads/whole == h {
							n++
						}
					}
					if n != len(at)/d.Heads {
						rt.Fatalf("%s: head %d of %s keeps %d of %v", name, h, d.Name, n, at)
					}
				}
				if d.Scaled && (scheme == heterofl.Leading || scheme == heterofl.Ordered) && d.Heads == 0 && int(sorted[len(sorted)-1]) != len(at)-1 {
					rt.Fatalf("%s: %s is not a leading slice: %v", name, d.Name, at)
				}
			}
		}
	})
}

// Over as many rounds as the widest axis has channels, the rolling window visits every channel equally often, and leading
// slices never leave theirs.
func TestRollingCoversAll(t *testing.T) {
	build := architectures(t)["cnn"]
	wide, err := build(1)
	if err != nil {
		t.Fatal(err)
	}
	visits := map[string][]int{}
	const rounds = 8
	for round := range rounds {
		ix, _ := index(t, build, heterofl.Config{Mode: mode(t, "a1-c4"), Scheme: heterofl.Rolling}, 1, round, federated.Member{Index: 2, Name: "x"})
		for _, p := range wide.Params {
			for i, d := range p.Dims {
				if !d.Scaled {
					continue
				}
				if visits[d.Name] == nil {
					visits[d.Name] = make([]int, d.At(1))
				}
				if p.Name == d.Name+".weight" && i == 0 {
					for _, at := range ix[p.Name][i].Positions(d.At(1)) {
						visits[d.Name][at]++
					}
				}
			}
		}
	}
	for axis, v := range visits {
		for k, n := range v {
			if n != rounds/4 {
				t.Errorf("channel %d of %s was visited %d times in %d rounds, want %d", k, axis, n, rounds, rounds/4)
			}
		}
	}
	if len(visits) != 2 {
		t.Errorf("axes %v", visits)
	}
}

// Random sub-models differ between members and between rounds.
func TestRandomDiffers(t *testing.T) {
	build := architectures(t)["mlp"]
	c := heterofl.Config{Mode: mode(t, "a1-b4"), Scheme: heterofl.Random}
	at := func(round int, member string) string {
		ix, _ := index(t, build, c, 1, round, federated.Member{Index: 2, Name: member})
		return fmt.Sprint(ix["linear1.weight"][0].Positions(16))
	}
	if first := at(0, "x"); first != at(0, "x") || first == at(1, "x") || first == at(0, "y") {
		t.Errorf("positions %s, in another round %s, of another member %s", first, at(1, "x"), at(0, "y"))
	}
}

// FjORD redraws the width at every step: after one step only a leading slice of some level up to the member's own has
// moved, over the rounds every level comes up, and coordinates beyond never move without momentum and decay.
func TestOrderedWidths(t *testing.T) {
	w, p := world(t, 3), fedtest.Problem(t, 6, 3)
	p.Rounds = 12
	p.Training = federated.Training{Steps: 1, Rate: train.Constant(0.1)}
	p.Select = federated.Selection{Everyone: true}
	r := fedtest.Run{World: w, Algorithm: algorithm(t, p, heterofl.Config{Mode: mode(t, "a1-b2-c2"), Scheme: heterofl.Ordered}),
		Config: federated.Config{Rounds: p.Rounds}}
	moved := map[string]map[int]int{}
	r.Members.Tamper = func(a *federated.Answer) {
		if a.Order.Barrier {
			return
		}
		x := a.Result.Addends["w"].Must("linear1.bias") // one number a hidden unit; 0 in front of batch norm
		y := a.Result.Addends["w"].Must("norm1.bias")
		width := 0
		for i := range y.Len() {
			if x.At(i) != 0 || y.At(i) != 0 {
				width = i + 1
			}
		}
		if moved[a.Task.Tag] == nil {
			moved[a.Task.Tag] = map[int]int{}
		}
		moved[a.Task.Tag][width]++
	}
	r.Must(t)
	for level, widths := range map[string][]int{"a": {4, 8, 16}, "b": {4, 8}, "c": {4}} {
		for n := range moved[level] {
			if !slices.Contains(widths, n) {
				t.Errorf("level %s moved %d channels, want one of %v", level, n, widths)
			}
		}
		if len(moved[level]) != len(widths) {
			t.Errorf("level %s moved %v, want each of %v at times", level, moved[level], widths)
		}
	}
}

// pictures are random images with labels, dealt to members.
func pictures(t *testing.T, size, members int) *fedtest.World {
	r := rng.New(5, 0, "", "pictures")
	data := &dataset.Examples{Name: "pictures", Shape: []int{size, size, 1}, Classes: []string{"0", "1", "2", "3"}}
	w := &fedtest.World{Engine: fedtest.Engine(t, "go"), Seed: 3}
	for k := range members {
		h := fedtest.Holder{Name: fmt.Sprintf("member-%d", k)}
		for i := range 8 {
			label := int32((k + i) % 4)
			for range size * size {
				data.U8 = append(data.U8, uint8(64*int(label)+r.IntN(60)))
			}
			data.Labels = append(data.Labels, label)
			h.Train.Rows = append(h.Train.Rows, int32(len(data.Labels)-1))
		}
		h.Test = h.Train
		w.Members = append(w.Members, h)
	}
	for k := range w.Members {
		w.Members[k].Train.Data, w.Members[k].Test.Data = data, data
	}
	w.Pooled, w.Test = data.All(), data.All()
	return w
}

// text deals rows of tokens to members; member k never sees the tokens 3k to 3k+2.
func text(t *testing.T, vocabulary, length, members int) *fedtest.World {
	r := rng.New(5, 0, "", "text")
	data := &dataset.Examples{Name: "text", Shape: []int{length}, Classes: make([]string, vocabulary)}
	for i := range data.Classes {
		data.Classes[i] = fmt.Sprintf("word%d", i)
	}
	w := &fedtest.World{Engine: fedtest.Engine(t, "go"), Seed: 3}
	rows := int32(0)
	for k := range members {
		h := fedtest.Holder{Name: fmt.Sprintf("member-%d", k)}
		for range 10 {
			for range length {
				token := r.IntN(vocabulary)
				for token/3 == k {
					token = r.IntN(vocabulary)
				}
				data.Tok = append(data.Tok, int32(token))
			}
			h.Train.Rows = append(h.Train.Rows, rows)
			rows++
		}
		w.Members = append(w.Members, h)
	}
	for k := range w.Members {
		w.Members[k].Train.Data = data
		w.Members[k].Test = w.Members[k].Train
	}
	w.Pooled, w.Test = data.All(), data.All()
	return w
}

// All architectures train at all widths under every scheme.
func TestArchitectures(t *testing.T) {
	builds := architectures(t)
	images, words := pictures(t, 8, 3), text(t, 12, 6, 3)
	for _, name := range []string{"cnn", "resnet", "transformer"} {
		for _, scheme := range heterofl.Schemes() {
			w, p := images, fedtest.Problem(t, 6, 3)
			p.Build, p.Rounds = builds[name], 1
			p.Select = federated.Selection{Everyone: true}
			p.Training.Optimizer = train.SGD{Momentum: 0.9, Decay: 5e-4}
			if name == "transformer" {
				w, p.Target, p.Hide = words, train.FromInput, train.Hide{Prob: 0.3, ID: 12}
			}
			levels := "a1-b1-c1"
			r := fedtest.Run{World: w, Algorithm: algorithm(t, p, heterofl.Config{Mode: mode(t, levels), Scheme: scheme}), Config: federated.Config{Rounds: 1}}
			l := r.Must(t)
			for _, phase := range l.Phases {
				for _, f := range phase.Failed {
					t.Errorf("%s, %s: %s failed in %s: %s", name, scheme, f.Member, f.Phase, f.Reason)
				}
			}
			if err := l.Final.Sets["w"].Finite(); err != nil {
				t.Errorf("%s, %s: %v", name, scheme, err)
			}
			want := []string{"accuracy", "accuracy.local", "loss.train"}
			if name == "transformer" {
				want = append(want, "perplexity")
			}
			for _, m := range want {
				if len(l.Metric(m, "")) != 1 {
					t.Errorf("%s, %s: %s was not measured", name, scheme, m)
				}
			}
		}
	}
}

// Rows of tokens that no member has keep their initial values; the row of the mask token is trained, unless the reference
// is followed.
func TestMaskRow(t *testing.T) {
	for _, reference := range []bool{false, true} {
		w, p := text(t, 12, 6, 1), fedtest.Problem(t, 6, 3) // its one member lacks tokens 0 to 2
		p.Build, p.Rounds = architectures(t)["transformer"], 1
		p.Select = federated.Selection{Everyone: true}
		p.Target, p.Hide = train.FromInput, train.Hide{Prob: 0.5, ID: 12}
		a := algorithm(t, p, heterofl.Config{Mode: mode(t, "a1"), Reference: reference})
		r := fedtest.Run{World: w, Algorithm: a, Config: federated.Config{Rounds: 1}}
		l := r.Must(t)
		start, err := p.Initial(w.Seed, 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"embedding.weight", "decoder.linear2.weight"} {
			x, y := start.Must(name), l.Final.Sets["w"].Must(name)
			var same []string
			width := x.Shape[1]
			for row := range x.Shape[0] {
				if slices.Equal(x.F32[row*width:(row+1)*width], y.F32[row*width:(row+1)*width]) {
					same = append(same, fmt.Sprint(row))
				}
			}
			want := "0 1 2"
			if reference && name == "embedding.weight" {
				want = "0 1 2 12"
			}
			if got := strings.Join(same, " "); got != want {
				t.Errorf("reference %t: rows %s of %s kept their values, want %s", reference, got, name, want)
			}
		}
	}
}
