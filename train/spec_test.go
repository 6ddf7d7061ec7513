package train_test

import (
	"slices"
	"testing"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/gomlx/core/graph"
)

func isBias(p nn.Param) bool { return p.Role == nn.Bias }

// TestGroups trains the bias and the weight of the reference problem in phases: who is not trained keeps its bits.
func TestGroups(t *testing.T) {
	engines(t, func(t *testing.T, e *train.Engine) {
		spec := &train.Spec{Model: linear(3, 2), DType: weights.Float64, Groups: []train.Group{
			{Name: "bias", Match: isBias, Optimizer: train.SGD{Momentum: 0.9}},
			{Name: "rest", Factor: 0.5},
		}}
		s := must[*train.Session](t)(e.Begin(spec, referenceStart(), train.Options{}))
		defer s.Close()
		before := must[weights.Set](t)(s.Params())
		must[float64](t)(s.StepGroup("bias", referenceBatches[0], 0.1))
		after := must[weights.Set](t)(s.Params())
		if !after.Must("weight").Equal(before.Must("weight")) || after.Must("bias").Equal(before.Must("bias")) {
			t.Errorf("from %v to %v: want only the bias changed", before, after)
		}
		_, g, err := s.BatchGradient(referenceBatches[0])
		if err != nil {
			t.Fatal(err)
		}
		must[float64](t)(s.StepGroup("rest", referenceBatches[0], 0.1))
		last := must[weights.Set](t)(s.Params())
		want := after.Map(g, func(w, g float64) float64 { return w - 0.05*g })
		near(t, "weight at half the rate", values(last.Must("weight")), values(want.Must("weight")), 1e-15)
		if !last.Must("bias").Equal(after.Must("bias")) {
			t.Error("the bias changed in a step of the rest")
		}
		state := must[weights.Set](t)(s.OptimizerState())
		if got := state.Names(); !slices.Equal(got, []string{"steps/bias", "steps/rest", "bias/momentum"}) {
			t.Errorf("state holds %q", got)
		}
		// All groups in one step start from the same gradient.
		_, g, err = s.BatchGradient(referenceBatches[1])
		if err != nil {
			t.Fatal(err)
		}
		momentum := state.Must("bias/momentum")
		must[float64](t)(s.Step(referenceBatches[1], 0.1))
		joint := must[weights.Set](t)(s.Params())
		for i := range 2 {
			want := last.Must("bias").At(i) - 0.1*(0.9*momentum.At(i)+g.Must("bias").At(i))
			near(t, "bias", []float64{joint.Must("bias").At(i)}, []float64{want}, 1e-15)
		}
		counts := must[weights.Set](t)(s.OptimizerState())
		if counts.Must("steps/bias").At(0) != 2 || counts.Must("steps/rest").At(0) != 2 {
			t.Errorf("steps %v and %v, want 2 and 2", counts.Must("steps/bias"), counts.Must("steps/rest"))
		}
	})
}

// TestAlternation: groups with splits of their own step in turn on batches of their own, as FedNAS trains weights and
// architecture; the smaller split begins again.
func TestAlternation(t *testing.T) {
	e := goEngine(t)
	w := weights.NewSet(1)
	w.Put("w", weights.Of32([]float32{1}, 1))
	spec := counter()
	spec.Model.Params = append(spec.Model.Params, nn.Param{Name: "v", Dims: spec.Model.Params[0].Dims})
	w.Put("v", weights.Of32([]float32{1}, 1))
	spec.Groups = []train.Group{
		{Name: "v", Match: func(p nn.Param) bool { return p.Name == "v" }, Split: "validation"},
		{Name: "w", Split: "train"},
	}
	s := must[*train.Session](t)(e.Begin(spec, w, train.Options{}))
	defer s.Close()
	all := numbers(8)
	validation, training := all, all
	validation.Rows, training.Rows = all.Rows[6:], all.Rows[:6]
	var losses []float64
	r := must[train.Report](t)(s.Fit(t.Context(), train.Fit{
		Splits: map[string]dataset.View{"train": training, "validation": validation},
		Batch:  2, Epochs: 1, Rate: train.Constant(0), Rates: map[string]train.Schedule{"v": train.Constant(0)},
		Progress: func(_ int, loss float64) { losses = append(losses, loss) },
	}))
	near(t, "losses", losses, []float64{6.5, 0.5, 6.5, 2.5, 6.5, 4.5}, 0)
	if r.Steps != 6 {
		t.Errorf("%+v, want 6 steps", r)
	}
	losses = nil
	must[train.Report](t)(s.Fit(t.Context(), train.Fit{Group: "v", Splits: map[string]dataset.View{"validation": validation},
		Batch: 1, Epochs: 1, Rate: train.Constant(0), Progress: func(_ int, loss float64) { losses = append(losses, loss) }}))
	near(t, "losses of one group", losses, []float64{6, 7}, 0)
}

// TestGroupLoss: every group descends its own part of the objective.
func TestGroupLoss(t *testing.T) {
	engines(t, func(t *testing.T, e *train.Engine) {
		m := linear(1, 1)
		first := func(factor float64) func(z, y *graph.Node) *graph.Node {
			return func(z, _ *graph.Node) *graph.Node { return graph.MulScalar(graph.Reshape(z, -1), factor) }
		}
		spec := &train.Spec{Model: m, DType: weights.Float64, Loss: train.MeanSquares, Groups: []train.Group{
			{Name: "bias", Match: isBias, Loss: first(2)}, {Name: "weight", Loss: first(-3)}}}
		s := must[*train.Session](t)(e.Begin(spec, m.Zeros(weights.Float64), train.Options{}))
		defer s.Close()
		// z = 5w + b, so the bias has slope 2 and the weight −15.
		must[float64](t)(s.Step(train.Batch{N: 1, X: []float32{5}, Targets: []float32{0}}, 1))
		w := must[weights.Set](t)(s.Params())
		near(t, "weight and bias", []float64{w.Must("weight").At(0), w.Must("bias").At(0)}, []float64{15, -2}, 0)
		must[float64](t)(s.StepGroup("bias", train.Batch{N: 1, X: []float32{5}, Targets: []float32{0}}, 1))
		w = must[weights.Set](t)(s.Params())
		near(t, "weight and bias", []float64{w.Must("weight").At(0), w.Must("bias").At(0)}, []float64{15, -4}, 0)
	})
}

// TestDerive trains the leading half of a wider model in one step and all of it in the next, as FjORD does.
func TestDerive(t *testing.T) {
	engines(t, func(t *testing.T, e *train.Engine) {
		wide := linear(4, 2)
		whole := &train.Spec{Model: wide, DType: weights.Float64, Optimizer: train.SGD{Momentum: 0.9}}
		thin := linear(2, 2)
		thin.Input = []int{4}
		dense := thin.Forward
		thin.Forward = func(p *nn.Pass, x *graph.Node) *graph.Node {
			return dense(p, graph.Slice(x, graph.AxisRange(), graph.AxisRange(0, 2)))
		}
		half := &train.Spec{Model: thin, Holds: wide, DType: weights.Float64, Optimizer: train.SGD{Momentum: 0.9},
			Derive: func(a *train.Adjust) map[string]*graph.Node {
				return map[string]*graph.Node{
					"weight": graph.Slice(a.Params["weight"], graph.AxisRange(), graph.AxisRange(0, 2)),
					"bias":   a.Params["bias"],
				}
			}}
		start := wide.Initial(weights.Float64, rng.New(1, 0, "", "w"))
		s := must[*train.Session](t)(e.Begin(whole, start, train.Options{}))
		defer s.Close()
		data := blobs(8, 4, 2, 1)
		var seen []weights.Set
		must[train.Report](t)(s.Fit(t.Context(), train.Fit{Data: data, Epochs: 2, Rate: train.Constant(0.1),
			Vary: func(step int) *train.Spec {
				seen = append(seen, must[weights.Set](t)(s.Params()))
				return []*train.Spec{half, whole}[step]
			}}))
		end := must[weights.Set](t)(s.Params())
		for i := range 8 {
			outside := i%4 >= 2
			if moved := seen[0].Must("weight").At(i) != seen[1].Must("weight").At(i); moved == outside {
				t.Errorf("step 1: coordinate %d moved: %t, want %t", i, moved, !outside)
			}
			if seen[1].Must("weight").At(i) == end.Must("weight").At(i) {
				t.Errorf("step 2: coordinate %d did not move", i)
			}
		}
		if err := s.Switch(&train.Spec{Model: thin, DType: weights.Float64}); err == nil {
			t.Error("switched to a spec of other parameters")
		}
	})
}

// tokensModel predicts from each token a row of a table.
func tokensModel(vocabulary, length int) *nn.Model {
	v, c := nn.Dim{Name: "v", Size: vocabulary + 1}, nn.Dim{Name: "c", Size: vocabulary}
	return &nn.Model{Name: "tokens", Rate: 1, Input: []int{length}, Tokens: true, Classes: vocabulary,
		Params: []nn.Param{{Name: "table", Dims: []nn.Dim{v, c}, Role: nn.Embedding}},
		Forward: func(p *nn.Pass, x *graph.Node) *graph.Node {
			return graph.Gather(p.Params["table"], graph.ExpandAxes(x, -1))
		}}
}

// TestTokens: the targets of the language tasks, by accuracy of a table that copies its input or says what follows.
func TestTokens(t *testing.T) {
	engines(t, func(t *testing.T, e *train.Engine) {
		const vocabulary = 5
		data := &dataset.Examples{Name: "tokens", Shape: []int{4}, Tok: []int32{0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1}}
		m := tokensModel(vocabulary, 4)
		table := func(shift int) weights.Set {
			w := m.Zeros(weights.Float32)
			for i := range vocabulary {
				w.Must("table").SetAt(i*vocabulary+(i+shift)%vocabulary, 100)
			}
			return w
		}
		copies := &train.Spec{Model: m, Target: train.FromInput}
		follows := &train.Spec{Model: m, Target: train.NextToken}
		hidden := &train.Spec{Model: m, Target: train.FromInput, Hide: train.Hide{Prob: 1, ID: vocabulary}}
		for what, c := range map[string]struct {
			spec *train.Spec
			w    weights.Set
			n    int
			loss float64
		}{
			"copy":   {copies, table(0), 12, 0},
			"next":   {follows, table(1), 9, 0},
			"hidden": {hidden, table(0), 12, 1.6094379124341003}, // log 5: the row of the mask is 0
		} {
			m := must[train.Metrics](t)(e.Evaluate(t.Context(), c.spec, c.w, weights.Set{}, data.All(),
				train.EvalOptions{Batch: 2, Random: rng.New(1, 0, "", "hide")}))
			if m.N != c.n {
				t.Errorf("%s: %d predictions, want %d", what, m.N, c.n)
			}
			near(t, what, []float64{m.Loss}, []float64{c.loss}, 1e-6)
		}
		s := must[*train.Session](t)(e.Begin(follows, m.Zeros(weights.Float32), train.Options{}))
		defer s.Close()
		must[train.Report](t)(s.Fit(t.Context(), train.Fit{Data: data.All(), Epochs: 50, Batch: 2, Rate: train.Constant(5)}))
		if got := must[train.Metrics](t)(s.Evaluate(t.Context(), data.All(), train.EvalOptions{})); got.Accuracy != 1 {
			t.Errorf("after training %+v, want every next token right", got)
		}
	})
}

// TestDropout: masks are 0 with probability p, else 1/(1−p), come from the stream, and are absent in evaluation.
func TestDropout(t *testing.T) {
	engines(t, func(t *testing.T, e *train.Engine) {
		spec := counter()
		m := spec.Model
		const n, p = 4000, 0.2
		m.Noise = []nn.Noise{{Name: "drop", Dims: []int{3}, Drop: p}}
		plain := m.Forward
		m.Forward = func(pass *nn.Pass, x *graph.Node) *graph.Node {
			z := plain(pass, x)
			if mask := pass.Noise["drop"]; mask != nil {
				z = graph.Mul(z, graph.Reshape(graph.Slice(mask, graph.AxisRange(), graph.AxisElem(1)), -1, 1))
			}
			return z
		}
		w := weights.NewSet(1)
		w.Put("w", weights.Of32([]float32{1}, 1))
		s := must[*train.Session](t)(e.Begin(spec, w, train.Options{}))
		defer s.Close()
		ones := numbers(n)
		for i := range ones.Data.F32 {
			ones.Data.F32[i] = 1
		}
		run := func(seed uint64) float64 {
			r := must[train.Report](t)(s.Fit(t.Context(), train.Fit{Data: ones, Epochs: 1, Rate: train.Constant(0), Random: rng.New(seed, 0, "", "x")}))
			return r.Loss
		}
		// The mean of n masks of variance p/(1−p) stays within 5 standard deviations of 1.
		a := run(1)
		near(t, "mean mask", []float64{a}, []float64{1}, 5*0.5/63)
		if a != run(1) || a == run(2) {
			t.Errorf("masks do not follow the stream: %v, again %v, other seed %v", a, run(1), run(2))
		}
		if got := must[train.Metrics](t)(s.Evaluate(t.Context(), ones, train.EvalOptions{})); got.Loss != 1 {
			t.Errorf("loss %v in evaluation, want 1 without dropout", got.Loss)
		}
		if _, err := s.Fit(t.Context(), train.Fit{Data: ones, Epochs: 1, Rate: train.Constant(0)}); err == nil {
			t.Error("dropout without a stream was not refused")
		}
	})
}

// TestBuffers: running statistics that the model updates in training become part of the weights.
func TestBuffers(t *testing.T) {
	engines(t, func(t *testing.T, e *train.Engine) {
		m := linear(1, 1)
		m.Params = append(m.Params, nn.Param{Name: "seen", Dims: []nn.Dim{{Name: "s", Size: 1}}, Role: nn.Buffer})
		plain := m.Forward
		m.Forward = func(p *nn.Pass, x *graph.Node) *graph.Node {
			if p.Train {
				p.Updated = map[string]*graph.Node{"seen": graph.Add(p.Params["seen"], graph.ReduceSum(x, 0))}
			}
			return plain(p, x)
		}
		spec := &train.Spec{Model: m, DType: weights.Float64, Loss: train.MeanSquares, Optimizer: train.SGD{Decay: 0.5}}
		s := must[*train.Session](t)(e.Begin(spec, m.Zeros(weights.Float64), train.Options{}))
		defer s.Close()
		data := numbers(5)
		data.Data.Targets = make([]float32, 5)
		must[train.Report](t)(s.Fit(t.Context(), train.Fit{Data: data, Epochs: 2, Batch: 2, Rate: train.Constant(0.1)}))
		must[train.Metrics](t)(s.Evaluate(t.Context(), data, train.EvalOptions{}))
		if _, _, err := s.Gradient(t.Context(), data, train.Pass{}); err != nil {
			t.Fatal(err)
		}
		near(t, "seen", values(must[weights.Set](t)(s.Params()).Must("seen")), []float64{20}, 0)
	})
}
