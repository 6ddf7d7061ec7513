package train_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/gomlx/core/graph"
)

func TestFitLearns(t *testing.T) {
	engines(t, func(t *testing.T, e *train.Engine) {
		m := linear(8, 4)
		spec := &train.Spec{Model: m, Optimizer: train.SGD{Momentum: 0.9}, Clip: 1}
		data := blobs(203, 8, 4, 1)
		s := must[*train.Session](t)(e.Begin(spec, m.Initial(weights.Float32, rng.New(1, 0, "", "w")), train.Options{}))
		defer s.Close()
		r := must[train.Report](t)(s.Fit(t.Context(), train.Fit{Data: data, Epochs: 5, Batch: 10, Rate: train.Constant(0.1),
			Random: rng.New(1, 0, "", "fit")}))
		if r.Steps != 5*21 || r.Examples != 5*203 || s.Steps() != r.Steps {
			t.Errorf("report %+v, want 105 steps on 1015 examples", r)
		}
		met := must[train.Metrics](t)(s.Evaluate(t.Context(), data, train.EvalOptions{}))
		if met.Accuracy < 0.9 || met.N != 203 {
			t.Errorf("metrics %+v, want accuracy above 0.9", met)
		}
		if got := e.Compiled(); got != 3 {
			t.Errorf("%d programs compiled, want 3 (batches of 10 and 3, evaluation)", got)
		}
	})
}

// counter is a model whose loss on a row of the value v is v·w, so that at w = 1 and rate 0 the losses of single-row
// batches tell which rows they held.
func counter() *train.Spec {
	m := &nn.Model{Name: "counter", Rate: 1, Input: []int{1}, Classes: 1, Params: []nn.Param{{Name: "w", Dims: []nn.Dim{{Name: "w", Size: 1}}}}}
	m.Forward = func(p *nn.Pass, x *graph.Node) *graph.Node {
		return graph.Mul(x, graph.ExpandLeftToRank(p.Params["w"], 2))
	}
	return &train.Spec{Model: m, Loss: train.MeanSquares, Target: train.FromInput,
		Custom: func(output, _ *graph.Node) *graph.Node { return graph.Reshape(output, -1) }}
}

// numbers is a data set whose row i holds i, for i below n.
func numbers(n int) dataset.View {
	e := &dataset.Examples{Name: "numbers", Shape: []int{1}}
	for i := range n {
		e.F32 = append(e.F32, float32(i))
	}
	return e.All()
}

func counting(t *testing.T, e *train.Engine, f train.Fit) ([]float64, train.Report, error) {
	t.Helper()
	w := weights.NewSet(1)
	w.Put("w", weights.Of32([]float32{1}, 1))
	s := must[*train.Session](t)(e.Begin(counter(), w, train.Options{}))
	defer s.Close()
	var losses []float64
	f.Rate = train.Constant(0)
	f.Progress = func(_ int, loss float64) { losses = append(losses, loss) }
	r, err := s.Fit(t.Context(), f)
	return losses, r, err
}

func TestBatchOrder(t *testing.T) {
	e := goEngine(t)
	order := func(seed uint64, epochs int) []float64 {
		losses, _, err := counting(t, e, train.Fit{Data: numbers(20), Batch: 1, Epochs: epochs, Random: rng.New(seed, 0, "", "x")})
		if err != nil {
			t.Fatal(err)
		}
		return losses
	}
	a := order(1, 2)
	if !slices.Equal(a, order(1, 2)) {
		t.Error("the same seed gives two orders")
	}
	if slices.Equal(a, order(2, 2)) {
		t.Error("two seeds give the same order")
	}
	first, second := slices.Clone(a[:20]), slices.Clone(a[20:])
	if slices.Equal(first, second) {
		t.Error("the second epoch has the order of the first")
	}
	for _, epoch := range [][]float64{first, second} {
		slices.Sort(epoch)
		for i, v := range epoch {
			if v != float64(i) {
				t.Fatalf("an epoch saw %v, want each of 0..19 once", epoch)
			}
		}
	}
	// Without a stream the view's order is kept, the last batch holds the rest, and losses are means over the batch.
	losses, r, err := counting(t, e, train.Fit{Data: numbers(7), Batch: 3, Epochs: 2})
	if err != nil {
		t.Fatal(err)
	}
	near(t, "losses", losses, []float64{1, 4, 6, 1, 4, 6}, 0)
	if r.Steps != 6 || r.Examples != 14 || r.Loss != 3 || r.Last != 6 {
		t.Errorf("report %+v, want 6 steps, 14 examples, mean loss 3, last 6", r)
	}
	// Steps bound the fit in the middle of an epoch, and alone make it go round.
	losses, _, err = counting(t, e, train.Fit{Data: numbers(4), Batch: 2, Steps: 5})
	if err != nil {
		t.Fatal(err)
	}
	near(t, "losses", losses, []float64{0.5, 2.5, 0.5, 2.5, 0.5}, 0)
	losses, _, _ = counting(t, e, train.Fit{Data: numbers(4), Steps: 9, Epochs: 2})
	near(t, "losses of full batches", losses, []float64{1.5, 1.5}, 0)
}

// TestSharedPrograms: many sessions of one spec at once, on several goroutines, give the bits that they give one after
// the other, and everything is compiled once.
func TestSharedPrograms(t *testing.T) {
	engines(t, func(t *testing.T, e *train.Engine) {
		m := linear(8, 4)
		spec := &train.Spec{Model: m, Optimizer: train.SGD{Momentum: 0.9, Decay: 5e-4}, Clip: 1}
		const clients = 16
		run := func(client int) weights.Set {
			member := fmt.Sprint("client-", client)
			s := must[*train.Session](t)(e.Begin(spec, m.Initial(weights.Float32, rng.New(1, 0, member, "w")), train.Options{}))
			defer s.Close()
			must[train.Report](t)(s.Fit(t.Context(), train.Fit{Data: blobs(20+client%3, 8, 4, uint64(client)), Epochs: 3, Batch: 10,
				Rate: train.Constant(0.1), Random: rng.New(1, 0, member, "fit")}))
			return must[weights.Set](t)(s.Params())
		}
		together := make([]weights.Set, clients)
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() { together[i] = run(i) })
		}
		wg.Wait()
		if got := e.Compiled(); got != 3 {
			t.Errorf("%d programs compiled, want one for each of the batch sizes 10, 1 and 2", got)
		}
		for i := range clients {
			if !run(i).Equal(together[i]) {
				t.Errorf("client %d: other bits alone than among %d", i, clients)
			}
		}
		for i := range clients {
			for j := range i {
				if together[i].Equal(together[j]) {
					t.Errorf("clients %d and %d ended at the same weights", i, j)
				}
			}
		}
	})
}

// TestKey: specs with one key and equal settings share programs, others do not.
func TestKey(t *testing.T) {
	e := goEngine(t)
	step := func(key string, clip float64) {
		spec := &train.Spec{Key: key, Model: linear(3, 2), DType: weights.Float64, Clip: clip}
		s := must[*train.Session](t)(e.Begin(spec, referenceStart(), train.Options{}))
		defer s.Close()
		steps(t, s, 0, 1)
	}
	for i, c := range []struct {
		key      string
		clip     float64
		compiled int
	}{{"k", 1, 1}, {"k", 1, 1}, {"k", 2, 2}, {"l", 1, 3}, {"", 1, 4}, {"", 1, 5}, {"k", 1, 5}} {
		step(c.key, c.clip)
		if got := e.Compiled(); got != c.compiled {
			t.Errorf("after spec %d: %d programs compiled, want %d", i, got, c.compiled)
		}
	}
}

func TestDivergence(t *testing.T) {
	engines(t, func(t *testing.T, e *train.Engine) {
		s := must[*train.Session](t)(e.Begin(parabola(), one(0), train.Options{}))
		defer s.Close()
		// Each step multiplies w − 3 by 1 − 4·1e60.
		r, err := s.Fit(t.Context(), train.Fit{Data: quadratics[2].view(), Epochs: 100, Rate: train.Constant(1e60)})
		var bad *train.NonFiniteError
		if !errors.As(err, &bad) {
			t.Fatalf("%v, want a NonFiniteError", err)
		}
		if bad.Step != 4 || !math.IsInf(bad.Loss, 1) || r.Steps != 3 || !strings.Contains(bad.Error(), "step 4") {
			t.Errorf("%+v after %d good steps (%v), want an infinite loss in step 4", bad, r.Steps, bad)
		}
	})
}

func TestCancel(t *testing.T) {
	e := goEngine(t)
	s := must[*train.Session](t)(e.Begin(parabola(), one(0), train.Options{}))
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	r, err := s.Fit(ctx, train.Fit{Data: quadratics[0].view(), Epochs: 100, Rate: train.Constant(0.1),
		Progress: func(step int, _ float64) {
			if step == 7 {
				cancel()
			}
		}})
	if !errors.Is(err, context.Canceled) || r.Steps != 7 {
		t.Errorf("%d steps, %v; want 7 and a cancelled context", r.Steps, err)
	}
	must[weights.Set](t)(s.Params()) // the session lives on
}

func TestSmallBatches(t *testing.T) {
	e := goEngine(t)
	spec := counter()
	spec.Model.MinBatch = 2
	w := weights.NewSet(1)
	w.Put("w", weights.Of32([]float32{1}, 1))
	s := must[*train.Session](t)(e.Begin(spec, w, train.Options{}))
	defer s.Close()
	fit := train.Fit{Data: numbers(7), Batch: 3, Epochs: 2, Rate: train.Constant(0)}
	_, err := s.Fit(t.Context(), fit)
	var small *train.BatchSizeError
	if !errors.As(err, &small) || small.Size != 1 || small.Min != 2 || s.Steps() != 0 {
		t.Errorf("%v after %d steps, want a BatchSizeError of 1 before the first", err, s.Steps())
	}
	fit.SkipSmall = true
	r := must[train.Report](t)(s.Fit(t.Context(), fit))
	if r.Steps != 4 || r.Skipped != 2 || r.Examples != 12 || r.Loss != 2.5 {
		t.Errorf("%+v, want 4 steps on 12 examples with mean loss 2.5, and 2 batches skipped", r)
	}
	fit.Data = numbers(1)
	if r = must[train.Report](t)(s.Fit(t.Context(), fit)); r.Steps != 0 || r.Skipped != 2 {
		t.Errorf("%+v on a single example, want all skipped", r)
	}
	if _, err := s.Step(train.Batch{N: 1, X: []float32{1}, Targets: []float32{1}}, 0); !errors.As(err, &small) {
		t.Errorf("Step with a single example: %v", err)
	}
}

func TestFitRefused(t *testing.T) {
	e := goEngine(t)
	m := linear(8, 4)
	s := must[*train.Session](t)(e.Begin(&train.Spec{Model: m}, m.Zeros(weights.Float32), train.Options{}))
	defer s.Close()
	good := train.Fit{Data: blobs(8, 8, 4, 1), Epochs: 1, Batch: 4, Rate: train.Constant(0.1)}
	unlabelled := blobs(8, 8, 4, 1)
	unlabelled.Data.Labels = nil
	for want, change := range map[string]func(*train.Fit){
		"neither epochs":  func(f *train.Fit) { f.Epochs = 0 },
		"negative":        func(f *train.Fit) { f.Batch = -1 },
		"no examples":     func(f *train.Fit) { f.Data.Rows = nil },
		"no learning":     func(f *train.Fit) { f.Rate = nil },
		"rate -1":         func(f *train.Fit) { f.Rate = train.Constant(-1) },
		"no group":        func(f *train.Fit) { f.Group = "head" },
		"shape [5]":       func(f *train.Fit) { f.Data = blobs(8, 5, 4, 1) },
		"no labels":       func(f *train.Fit) { f.Data = unlabelled },
		"label 4":         func(f *train.Fit) { f.Data = blobs(8, 8, 5, 1) },
		"random stream":   func(f *train.Fit) { f.Augment.FlipH = true },
		"takes tokens":    func(f *train.Fit) { f.Data = (&dataset.Examples{Shape: []int{8}, Tok: make([]int32, 8)}).All() },
		`split ""`:        func(f *train.Fit) { f.Splits = map[string]dataset.View{"a": good.Data} },
		"need 32, 0, 4 a": nil,
	} {
		f := good
		var err error
		if change == nil {
			_, err = s.Step(train.Batch{N: 4, X: make([]float32, 32)}, 0.1)
		} else {
			change(&f)
			_, err = s.Fit(t.Context(), f)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want an error with %q", err, want)
		}
	}
	must[train.Report](t)(s.Fit(t.Context(), good))

	// Four outputs an example, and one target.
	values := must[*train.Session](t)(e.Begin(&train.Spec{Model: m, Loss: train.MeanSquares}, m.Zeros(weights.Float32), train.Options{}))
	defer values.Close()
	const want = "gives 4 targets for a batch of 4, the output [4 4] of linear needs 16"
	if _, err := values.Fit(t.Context(), good); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want an error with %q", err, want)
	}
	if _, _, err := values.Gradient(t.Context(), good.Data, train.Pass{Batch: 4}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want an error with %q", err, want)
	}
	if _, err := values.Evaluate(t.Context(), good.Data, train.EvalOptions{Batch: 4}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want an error with %q", err, want)
	}
}

func TestBeginRefused(t *testing.T) {
	e := goEngine(t)
	m := linear(3, 2)
	good := m.Zeros(weights.Float32)
	missing, spare, shape := good.Clone(), good.Clone(), good.Clone()
	missing = missing.Filter(func(n string) bool { return n != "bias" })
	spare.Put("spare", weights.NewTensor(weights.Float32, 1))
	shape.Put("bias", weights.NewTensor(weights.Float32, 3))
	for want, w := range map[string]weights.Set{
		`"bias" is missing`:    missing,
		`no parameter "spare"`: spare,
		"[3]":                  shape,
		"float64":              good.Convert(weights.Float64),
	} {
		if _, err := e.Begin(&train.Spec{Model: m}, w, train.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want an error with %q", err, want)
		}
	}
	for want, spec := range map[string]*train.Spec{
		"without a model":    {},
		"clip -1":            {Model: m, Clip: -1},
		"scale -1":           {Model: m, Scale: -1},
		"probability 2":      {Model: m, Hide: train.Hide{Prob: 2}},
		"models of tokens":   {Model: m, Target: train.NextToken},
		"needs the cross":    {Model: m, Mask: train.ZeroMask, Loss: train.MeanSquares},
		"beside groups":      {Model: m, Optimizer: train.SGD{}, Groups: []train.Group{{}}},
		"Holds and Derive":   {Model: m, Holds: m},
		`two groups`:         {Model: m, Groups: []train.Group{{}, {}}},
		`factor -1`:          {Model: m, Groups: []train.Group{{Factor: -1}}},
		`momentum -1`:        {Model: m, Optimizer: train.SGD{Momentum: -1}},
		`matches no`:         {Model: m, Groups: []train.Group{{Name: "a"}, {Name: "b"}}},
		`extra set "anchor"`: {Model: m, Extras: []string{"anchor"}},
		`scalar "mu"`:        {Model: m, Scalars: []string{"mu"}},
	} {
		if _, err := e.Begin(spec, good, train.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want an error with %q", err, want)
		}
	}
	// A model that does not fit what its loss needs shows when its program is built, every time.
	broken := *m
	broken.Forward = func(*nn.Pass, *graph.Node) *graph.Node { panic("no such layer") }
	s := must[*train.Session](t)(e.Begin(&train.Spec{Model: &broken}, good, train.Options{}))
	for range 2 {
		if _, err := s.Step(train.Batch{N: 1, X: make([]float32, 3), Labels: []int32{0}}, 0.1); err == nil || !strings.Contains(err.Error(), "no such layer") {
			t.Errorf("%v, want the model's own words", err)
		}
	}
	s.Close()
	s.Close()
	if _, err := s.Params(); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("weights of a closed session: %v", err)
	}
}
