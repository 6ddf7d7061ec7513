package personalfr

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/recommend"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/secure/robust"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func ars(t testing.TB, items int, hidden ...int) nn.Builder {
	t.Helper()
	b, err := nn.New("ars", nn.Config{Input: []int{items}, Classes: items, Hidden: hidden})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func run(t *testing.T, w *fedtest.World, p *federated.Problem, o Options) *fedtest.Trace {
	t.Helper()
	a, err := New(p, o)
	if err != nil {
		t.Fatal(err)
	}
	r := fedtest.Run{World: w, Algorithm: a, Config: federated.Config{Rounds: p.Rounds}}
	l := r.Must(t)
	for _, q := range l.Phases {
		for _, f := range q.Failed {
			t.Fatalf("%s failed in %s: %s", f.Member, f.Phase, f.Reason)
		}
	}
	return l
}

func variant(change func(*Options)) Options {
	o := *Defaults()
	o.Catalogue = false
	if change != nil {
		change(&o)
	}
	return o
}

// TestCost: words sent and both ratios of the specification's table (computed there from P_enc = 256N + 33,920 and
// P_dec = 257N + 33,536), for MovieLens 100K and 1M.
func TestCost(t *testing.T) {
	for _, c := range []struct {
		items, encoder, decoder int
		n, words                []int
		exact, reference        []float64
	}{
		{1682, 464512, 465810, []int{20, 96, 149, 500, 1682}, []int{38676, 58208, 71829, 162036, 465810},
			[]float64{24.054, 15.983, 12.952, 5.741, 1.9972}, []float64{24.088, 16.005, 12.970, 5.749, 2}},
		{3706, 982656, 985978, []int{20, 96, 149, 500, 3706}, []int{38676, 58208, 71829, 162036, 985978},
			[]float64{50.901, 33.821, 27.407, 12.149, 1.9966}, []float64{50.987, 33.878, 27.453, 12.170, 2}},
	} {
		m, err := ars(t, c.items)(1)
		if err != nil {
			t.Fatal(err)
		}
		cost, err := CostOf(m)
		if err != nil {
			t.Fatal(err)
		}
		if cost.Encoder != c.encoder || cost.Decoder != c.decoder || cost.Between != 65536 {
			t.Errorf("%d items: encoder %d, decoder %d, %d operations between", c.items, cost.Encoder, cost.Decoder, cost.Between)
		}
		for i, n := range c.n {
			if got := cost.Words("decoder", n, true); got != c.words[i] {
				t.Errorf("%d of %d items: %d words, want %d", n, c.items, got, c.words[i])
			}
			exact, reference := cost.Ratio([]int{n}), cost.ReferenceRatio([]int{n})
			if math.Abs(exact-c.exact[i]) > 5.1e-4 || math.Abs(reference-c.reference[i]) > 5.1e-4 {
				t.Errorf("%d of %d items: ratios %.4f and %.4f, want %.4f and %.4f", n, c.items, exact, reference, c.exact[i], c.reference[i])
			}
		}
		if got, want := cost.Work(149), (Work{512*149 + 65536, 2*(512*149+65536) - 256*149}); got != want {
			t.Errorf("149 ratings cost %+v, want %+v", got, want)
		}
		if got, want := cost.Work(c.items).Forward, int64(512*c.items+65536); got != want {
			t.Errorf("dense: %d operations, want %d", got, want)
		}
		if got, want := cost.Words("all", 0, false), c.encoder+c.decoder; got != want {
			t.Errorf("FedAvg sends %d words, want %d", got, want)
		}
	}
}

// TestBytesOnTheWire: the traffic on record is four bytes for each word of the formula, both ways, and the list of items costs what
// IndexBytes says, once.
func TestBytesOnTheWire(t *testing.T) {
	w, p := fedtest.Tastes(fedtest.Engine(t, "go"), 5), fedtest.RatingProblem(t)
	m, err := p.Build(1)
	if err != nil {
		t.Fatal(err)
	}
	cost, err := CostOf(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{variant(nil), variant(func(o *Options) { o.Share, o.Compression = "all", "none" }), variant(func(o *Options) { o.Share = "all" }),
		variant(func(o *Options) { o.Share, o.Compression = "encoder", "compute" })} {
		l := run(t, w, p, o)
		for _, q := range l.Phase("train") {
			var words int
			for _, f := range q.Folded {
				for _, k := range f.Members {
					words += cost.Words(o.Share, len(recommend.Of(w.Members[k].Train).Rated()), o.Compression == "active")
				}
			}
			if q.Everyone {
				t.Fatal("everybody is asked, of whom the test knows nothing")
			}
			if got := q.Traffic[0]; got.Down != 4*int64(words) || got.Up != 4*int64(words) {
				t.Errorf("%s, %s: %d bytes down and %d up, want %d", o.Share, o.Compression, got.Down, got.Up, 4*words)
			}
		}
		asked := l.Phase("items")
		if o.Compression != "active" {
			if len(asked) > 0 {
				t.Errorf("%s, %s: members are asked for their items", o.Share, o.Compression)
			}
			continue
		}
		var index int64
		for _, h := range w.Members {
			index += int64(1 + IndexBytes(len(recommend.Of(h.Train).Rated()), cost.Items))
		}
		if len(asked) != 1 || asked[0].Traffic[0].Up != index || asked[0].Traffic[0].Down != 0 {
			t.Errorf("items are told in %d phases, %+v; want one of %d bytes", len(asked), asked[0].Traffic, index)
		}
	}
}

// TestCentral (K2): of a single member FedAvg, and PersonalFR too, is training at one place, bit for bit, over rounds: momentum goes on.
func TestCentral(t *testing.T) {
	w := fedtest.Tastes(fedtest.Engine(t, "go"), 1)
	w.Members[0].Name = "" // whose streams are those of the server
	p := fedtest.RatingProblem(t)
	p.Select, p.Training.Epochs = federated.Selection{Everyone: true}, 1
	o := variant(func(o *Options) { o.Share, o.Compression = "all", "none" })
	j, err := NewJoint(p, o)
	if err != nil {
		t.Fatal(err)
	}
	r := fedtest.Run{World: w, Algorithm: j, Config: federated.Config{Rounds: p.Rounds}}
	joint := r.Must(t)
	fed := run(t, w, p, o)
	private := run(t, w, p, variant(nil))
	for i := range joint.Snapshots {
		want := joint.Snapshots[i].State.Sets["w"]
		if !fed.Snapshots[i].State.Sets["w"].Equal(want) {
			t.Errorf("round %d: FedAvg of one member is not training at one place", i)
		}
		decoder := want.Filter(func(n string) bool { return strings.HasPrefix(n, "decoder.") })
		if !private.Snapshots[i].State.Sets["w"].Equal(decoder) {
			t.Errorf("round %d: PersonalFR of one member is not training at one place", i)
		}
	}
}

// TestCompression (K3): what is computed and sent makes no difference to any bit of the server's decoder, without weight decay, and
// with it too, since it acts on a member's own items.
func TestCompression(t *testing.T) {
	w := fedtest.Tastes(fedtest.Engine(t, "go"), 6)
	for _, decay := range []float64{0, 5e-2} {
		p := fedtest.RatingProblem(t)
		p.Training.Optimizer = train.SGD{Momentum: 0.9, Nesterov: true, Decay: decay}
		var want []weights.Set
		for _, compression := range []string{"active", "compute", "none"} {
			l := run(t, w, p, variant(func(o *Options) { o.Compression = compression }))
			for i, s := range l.Snapshots {
				switch got := s.State.Sets["w"]; {
				case len(want) <= i:
					want = append(want, got)
				case !got.Equal(want[i]):
					t.Errorf("decay %g, compression %s: another decoder after round %d", decay, compression, i)
				}
			}
		}
	}
	p := fedtest.RatingProblem(t)
	lazy := run(t, w, p, variant(func(o *Options) { o.Compression = "none" }))
	reference := run(t, w, p, variant(func(o *Options) { o.Compression, o.ReferenceDecay = "none", true }))
	if lazy.Final.Sets["w"].Equal(reference.Final.Sets["w"]) {
		t.Error("decay of all items is decay of a member's own")
	}
}

// reference runs one step of the model as a graph: the loss over rated items and the parameters after w ← w − g.
func reference(t *testing.T, e *train.Engine, m *nn.Model, w weights.Set, x, mask []float32, users int, implicit bool) (float64, weights.Set) {
	t.Helper()
	total := 0.0
	for _, v := range mask {
		total += float64(v)
	}
	inputs := append(slices.Clone(x), mask...) // as one example of 2N numbers
	wide := *m
	wide.Input, wide.Noise = []int{2 * m.Classes}, nil
	wide.Forward = func(p *nn.Pass, in *graph.Node) *graph.Node {
		ratings, rated := graph.SliceAxis(in, 1, graph.AxisRange(0, m.Classes)), graph.SliceAxis(in, 1, graph.AxisRange(m.Classes, 2*m.Classes))
		q := *p
		q.Train = false
		y := m.Forward(&q, ratings)
		d := graph.Square(graph.Sub(y, ratings))
		if implicit {
			d = graph.Add(graph.Sub(graph.Max(y, graph.ZerosLike(y)), graph.Mul(y, ratings)), graph.Log1P(graph.Exp(graph.Neg(graph.Abs(y)))))
		}
		return graph.MulScalar(graph.ReduceAndKeep(graph.Mul(d, rated), graph.ReduceSum, 1), float64(users)/total)
	}
	wide.Classes = 1
	data := &dataset.Examples{Name: "step", Shape: wide.Input, Targets: make([]float32, users)}
	for u := range users {
		data.F32 = append(data.F32, inputs[u*m.Classes:(u+1)*m.Classes]...)
		data.F32 = append(data.F32, inputs[(users+u)*m.Classes:(users+u+1)*m.Classes]...)
	}
	s, err := e.Begin(&train.Spec{Model: &wide, Loss: train.MeanSquares, Custom: func(output, _ *graph.Node) *graph.Node { return graph.Reshape(output, -1) }},
		w, train.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r, err := s.Fit(context.Background(), train.Fit{Data: data.All(), Steps: 1, Batch: users, Rate: train.Constant(1), Random: rng.New(1, 0, "", "order")})
	if err != nil {
		t.Fatal(err)
	}
	after, err := s.Params()
	if err != nil {
		t.Fatal(err)
	}
	return r.Loss, after
}

// TestSparse (K4): loss and gradients of a step on the rated items are those of the dense model, differentiated by the engine, to 1e-6
// of the largest gradient; both for squared errors and for cross-entropy.
func TestSparse(t *testing.T) {
	const items, users = 31, 4
	build := ars(t, items, 16, 8)
	m, err := build(1)
	if err != nil {
		t.Fatal(err)
	}
	e := fedtest.Engine(t, "go")
	n, err := networkOf(m)
	if err != nil {
		t.Fatal(err)
	}
	w := m.Initial(weights.Float32, rng.New(5, 0, "", "weights"))
	r := rng.New(6, 0, "", "data")
	x, mask := make([]float32, users*items), make([]float32, users*items)
	view := dataset.View{Data: &dataset.Examples{Shape: []int{2}}}
	for u := range users {
		for i := range items {
			if r.Float64() < 0.4 && i%5 != 0 { // some items are nobody's
				k := u*items + i
				x[k], mask[k] = float32(1+r.IntN(5)), 1
				view.Data.Tok, view.Data.Targets = append(view.Data.Tok, int32(u), int32(i)), append(view.Data.Targets, x[k])
			}
		}
	}
	for _, implicit := range []bool{false, true} {
		table := recommend.Of(view.Data.All())
		if implicit {
			table = table.Like(3)
			clear(x)
			for k := range table.Users {
				list, values := table.Row(k)
				for j, i := range list {
					x[k*items+int(i)] = values[j]
				}
			}
		}
		loss, after := reference(t, e, m, w, x, mask, users, implicit)
		for _, dense := range []bool{false, true} {
			all := make([]int32, items)
			for i := range all {
				all[i] = int32(i)
			}
			p := n.zeros(m, items)
			if err := n.load(&p, m, w, all, false); err != nil {
				t.Fatal(err)
			}
			l := n.newLearner(p)
			l.g = n.zeros(m, items)
			l.gather(table, []int{0, 1, 2, 3}, dense)
			l.forward(nil)
			sum, count := l.backward(implicit, false)
			if math.Abs(sum/float64(count)-loss) > 1e-6*math.Max(1, loss) {
				t.Errorf("implicit %t, dense %t: loss %v, want %v", implicit, dense, sum/float64(count), loss)
			}
			if len(l.cols) >= items && !dense {
				t.Errorf("a sparse step works on %d of %d items", len(l.cols), items)
			}
			grads := n.store(l.g, m, w)
			for name, g := range grads.All() {
				var worst, top float64
				for i := range g.Len() {
					want := w.Must(name).At(i) - after.Must(name).At(i)
					worst, top = math.Max(worst, math.Abs(g.At(i)-want)), math.Max(top, math.Abs(want))
				}
				// w − (w − g) loses what is below the spacing of w, 6e-8 at 1.
				if worst > 1e-6*math.Max(top, 1) {
					t.Errorf("implicit %t, dense %t: gradient of %s differs by %g, largest %g", implicit, dense, name, worst, top)
				}
			}
		}
	}
}

// TestPrivate (K5): what is sent has tensors of the decoder only; the encoder of a member that is not asked never changes, and those of
// two that were differ.
func TestPrivate(t *testing.T) {
	w, p := fedtest.Tastes(fedtest.Engine(t, "go"), 6), fedtest.RatingProblem(t)
	p.Select.Fraction = 0.34
	a, err := New(p, variant(nil))
	if err != nil {
		t.Fatal(err)
	}
	r := fedtest.Run{World: w, Algorithm: a, Config: federated.Config{Rounds: 3}}
	r.Members.Tamper = func(x *federated.Answer) {
		for fold, s := range x.Result.Addends {
			for _, name := range s.Names() {
				if fold == "w" && !strings.HasPrefix(name, "decoder.") {
					t.Errorf("%s sends %s", x.Order.Member.Name, name)
				}
			}
		}
	}
	l := r.Must(t)
	for _, name := range l.Final.Sets["w"].Names() {
		if !strings.HasPrefix(name, "decoder.") {
			t.Errorf("the server has %s", name)
		}
	}
	trained := func(round int) (who []int) {
		for _, f := range l.Phase("train")[round].Folded {
			who = append(who, f.Members...)
		}
		return who
	}
	const code = keptWeights + "encoder.linear2.weight"
	first := l.Kept[0]
	if who := trained(0); len(who) != 2 || first[who[0]].Must(code).Equal(first[who[1]].Must(code)) {
		t.Errorf("members %v trained, and their encoders are the same", who)
	}
	for round := 1; round < 3; round++ {
		for k := range w.Members {
			before, after := l.Kept[round-1][k], l.Kept[round][k]
			if slices.Contains(trained(round), k) {
				if before != nil && before.Equal(*after) {
					t.Errorf("round %d: member %d trained and keeps what it had", round, k)
				}
				continue
			}
			if (before == nil) != (after == nil) || before != nil && !before.Equal(*after) {
				t.Errorf("round %d: member %d was not asked, and what it keeps changed", round, k)
			}
		}
	}
}

// TestRowRule (K6): a row at 1.0 of which two of three members send 1.6 and 1.2 becomes (1.6 + 1.2 + 1.0)/3, with Count 1.4; rows that
// nobody has stay to the bit.
func TestRowRule(t *testing.T) {
	for _, c := range []struct {
		count bool
		want  float64
	}{{false, 3.8 / 3}, {true, 1.4}} {
		p := fedtest.RatingProblem(t)
		a, err := New(p, variant(func(o *Options) { o.Count = c.count }))
		if err != nil {
			t.Fatal(err)
		}
		w := fedtest.Tastes(fedtest.Engine(t, "go"), 3)
		s, err := a.Init(t.Context(), w.Server())
		if err != nil {
			t.Fatal(err)
		}
		_, n, err := a.network()
		if err != nil {
			t.Fatal(err)
		}
		shared := s.Sets["w"].Clone()
		for i := range shared.Must(n.weightName()).F32 {
			shared.Must(n.weightName()).F32[i] = 1
		}
		s = s.With("w", shared)
		acc := weights.NewAcc(shared, c.count)
		for k, send := range []float32{1.6, 1.2, 0} {
			items := []int32{4, 7}
			if k == 2 {
				items = []int32{9}
			}
			ix := a.index(n, shared, items)
			delta := ix.Like(shared)
			if k < 2 {
				x := delta.Must(n.weightName()).F32
				for i := range n.width { // of item 4
					x[i] = send - 1
				}
			}
			if err := acc.Add(delta, ix, nil, 1); err != nil {
				t.Fatal(err)
			}
		}
		next, _, err := a.average(w.Server(), s, &federated.Sum{Total: map[string]*weights.Acc{"w": acc}, N: 3, Weight: 3, Unit: 1}, federated.Roll{})
		if err != nil {
			t.Fatal(err)
		}
		got := next.Sets["w"].Must(n.weightName())
		if math.Abs(got.At(4*n.width)-c.want) > 1e-6 {
			t.Errorf("count %t: the row becomes %v, want %v", c.count, got.At(4*n.width), c.want)
		}
		if got.At(5*n.width) != 1 {
			t.Errorf("a row that nobody has becomes %v", got.At(5*n.width))
		}
	}
}

// TestEvaluation (K8): predictions do not depend on dropout, nor on when they are made; sizes of the world (K7).
func TestEvaluation(t *testing.T) {
	w, p := fedtest.Tastes(fedtest.Engine(t, "go"), 3), fedtest.RatingProblem(t)
	a, err := New(p, variant(nil))
	if err != nil {
		t.Fatal(err)
	}
	users := map[int32]bool{}
	for k := range w.Members {
		for _, u := range recommend.Of(w.Members[k].Train).Users {
			users[u] = true
		}
		w0, err := a.initial(w.Seed)
		if err != nil {
			t.Fatal(err)
		}
		at := w.Local(w.Member(k))
		task := federated.Task{Phase: "eval", Sets: map[string]weights.Set{"w": w0.Filter(a.shares)}}
		one, err := a.Client().Run(t.Context(), at, task, nil)
		if err != nil {
			t.Fatal(err)
		}
		two, err := a.Client().Run(t.Context(), at, task, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !one.Addends["measures"].Equal(two.Addends["measures"]) {
			t.Error("two tests of the same model differ")
		}
	}
	if len(users) != 12 {
		t.Errorf("%d of 12 users are with the members", len(users))
	}
}

// TestRefusals: what cannot be says so, and what to do.
func TestRefusals(t *testing.T) {
	w, p := fedtest.Tastes(fedtest.Engine(t, "go"), 5), fedtest.RatingProblem(t)
	a, err := New(p, variant(nil))
	if err != nil {
		t.Fatal(err)
	}
	s, err := a.Init(t.Context(), w.Server())
	if err != nil {
		t.Fatal(err)
	}
	err = federated.Config{Rule: robust.Rule{Method: robust.Median{}}}.Fits(a, s, w.Server())
	if err == nil || !strings.Contains(err.Error(), "most members do not have most items") || !strings.Contains(err.Error(), "median") {
		t.Errorf("PersonalFR with median: %v", err)
	}
	if err := a.Summable(); err == nil || !strings.Contains(err.Error(), "set options.compression to compute") {
		t.Errorf("partial compression in secure sums: %v", err)
	}
	other := fedtest.Blobs(fedtest.Engine(t, "go"), 6, 3, 4, 4)
	_, err = a.Client().Run(t.Context(), other.Local(other.Member(0)), federated.Task{Phase: "items"}, nil)
	if err == nil || !strings.Contains(err.Error(), "is not ratings") {
		t.Errorf("data that are not ratings: %v", err)
	}
	wrong := fedtest.Problem(t, 6, 3)
	b, err := New(wrong, variant(nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Check(other.Server()); err == nil || !strings.Contains(err.Error(), "ratings take the architecture ars") {
		t.Errorf("another architecture: %v", err)
	}
	p.Training.Optimizer = train.AdamW{}
	if err := a.Check(w.Server()); err == nil || !strings.Contains(err.Error(), "use sgd or adam") {
		t.Errorf("another optimiser: %v", err)
	}
	for what, change := range map[string]func(*Options){
		"share":           func(o *Options) { o.Share = "most" },
		"compression":     func(o *Options) { o.Compression = "zip" },
		"feedback":        func(o *Options) { o.Feedback = "" },
		"like":            func(o *Options) { o.Like = math.NaN() },
		"bias":            func(o *Options) { o.Bias = math.Inf(1) },
		"reference_decay": func(o *Options) { o.ReferenceDecay = true },
		"count":           func(o *Options) { o.Share, o.Count = "nothing", true },
	} {
		if _, err := New(p, variant(change)); err == nil || !strings.HasPrefix(err.Error(), what+": ") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestOptimizers: ten steps on rows, with and without gradients, are the formulas of package train in float64.
func TestOptimizers(t *testing.T) {
	m, err := ars(t, 9, 4, 2)(1)
	if err != nil {
		t.Fatal(err)
	}
	n, err := networkOf(m)
	if err != nil {
		t.Fatal(err)
	}
	for what, o := range map[string]train.Optimizer{"sgd": train.SGD{Decay: 0.1}, "momentum": train.SGD{Momentum: 0.9, Decay: 0.1},
		"nesterov": train.SGD{Momentum: 0.9, Nesterov: true, Decay: 0.1}, "adam": train.Adam{Decay: 0.1}} {
		opt, err := optimizerOf(o)
		if err != nil {
			t.Fatal(err)
		}
		w, slots, tmp := []float32{0.5, -2}, [][]float32{make([]float32, 2), make([]float32, 2)}, make([]float32, 2)
		x, b, v := []float64{0.5, -2}, make([]float64, 2), make([]float64, 2)
		for step := 1; step <= 10; step++ {
			g := []float32{float32(step) / 7, -0.3}
			if step%3 == 0 {
				g = nil
			}
			opt.begin(step)
			opt.update(n.f, w, g, slots[:opt.slots], 0.5, 0.05, tmp)
			for i := range x {
				d := 0.1 * x[i]
				if g != nil {
					d += 0.5 * float64(g[i])
				}
				switch o := o.(type) {
				case train.SGD:
					b[i] = o.Momentum*b[i] + d
					if o.Nesterov {
						d += o.Momentum * b[i]
					} else {
						d = b[i]
					}
					x[i] -= 0.05 * d
				default:
					b[i], v[i] = 0.9*b[i]+0.1*d, 0.999*v[i]+0.001*d*d
					x[i] -= 0.05 / (1 - math.Pow(0.9, float64(step))) * b[i] / (math.Sqrt(v[i])/math.Sqrt(1-math.Pow(0.999, float64(step))) + 1e-8)
				}
				if math.Abs(float64(w[i])-x[i]) > 1e-5 {
					t.Fatalf("%s, step %d: %v, want %v", what, step, w[i], x[i])
				}
			}
		}
	}
}

func TestItems(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		items := rapid.IntRange(1, 300).Draw(rt, "items")
		var list []int32
		for i := range items {
			if rapid.IntRange(0, 9).Draw(rt, "in") < 3 || i == items-1 && len(list) == 0 {
				list = append(list, int32(i))
			}
		}
		b := packItems(list, items)
		if len(b) != 1+IndexBytes(len(list), items) {
			rt.Errorf("%d of %d items take %d bytes, want %d", len(list), items, len(b), 1+IndexBytes(len(list), items))
		}
		back, err := unpackItems(b, items)
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(list, back); diff != "" {
			rt.Error(diff)
		}
	})
}

func FuzzItems(f *testing.F) {
	f.Add(packItems([]int32{1, 5}, 100), 100)
	f.Add(packItems([]int32{0, 1, 2, 9}, 10), 10)
	f.Fuzz(func(t *testing.T, b []byte, items int) {
		if items < 1 || items > 1<<20 {
			return
		}
		list, err := unpackItems(b, items)
		if err != nil {
			return
		}
		if len(list) == 0 || !slices.IsSorted(list) || list[0] < 0 || int(list[len(list)-1]) >= items || len(slices.Compact(slices.Clone(list))) != len(list) {
			t.Fatalf("items %v of %d", list, items)
		}
	})
}
