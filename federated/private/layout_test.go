package private

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/secure/dp"
	"github.com/cohort-learning/cohort/secure/secagg"
	"github.com/cohort-learning/cohort/weights"
)

// shelled is a layout of a tensor of three rows and four columns, of which holdings 0, 1, 2 have 1, 2, 4 columns.
func shelled(t *testing.T) *layout {
	t.Helper()
	l := &layout{Rows: 3, RowsOf: []string{"out"}, Folds: []foldLayout{{Name: "w", Indexed: true, Tensors: []tensorLayout{{Name: "out", Shape: []int{3, 4}}}}}}
	for _, n := range []int32{1, 2, 4} {
		columns := []int32{0, 1, 2, 3}[:n]
		l.Holdings = append(l.Holdings, weights.Index{"out": {weights.List([]int32{0, 1, 2}), weights.List(columns)}})
	}
	if err := l.place(); err != nil {
		t.Fatal(err)
	}
	return l
}

// TestFewHolders checks that nothing is told of a part of the model that few members hold: neither their weights, nor which
// labels they have, nor rows of labels that few of its holders cover, though many others do.
func TestFewHolders(t *testing.T) {
	l := shelled(t)
	for _, c := range []struct{ holders, want []int }{
		{[]int{4, 3, 1}, []int{2}}, {[]int{4, 1, 1}, []int{1}}, {[]int{0, 1, 3}, []int{3}}, {[]int{4, 1, 2}, []int{2}}, {[]int{1, 0, 0}, []int{1}}, {[]int{9}, []int{1}},
	} {
		if got := l.shown(c.holders, 3); got != c.want[0] {
			t.Errorf("of holdings that %v members hold %d are shown, want %d", c.holders, got, c.want[0])
		}
	}
	x := weights.NewTensor(weights.Float32, 3, 4)
	for i := range x.F32 {
		x.F32[i] = 1
	}
	w := weights.NewSet(1)
	w.Put("out", x)
	// The member has labels 0 and 2; of label 2 only holding 0 has enough.
	r := federated.Result{Weight: 5, Addends: map[string]weights.Set{"w": w}, Cover: weights.Index{"out": {weights.List([]int32{0, 2}), {}}}}
	allowed := []bool{true, true, true, true, true, false, true, false, false}
	p := secagg.Params{Session: "s", Members: 3, Threshold: 3, Size: l.size, Extra: l.extra, Holdings: l.ranges, MaxWeight: 5}.Defaults()
	v, err := l.encode(p, 2, 2, r, allowed, rng.New(1, 0, "", "test"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := v.Extra[:12], []uint64{5, 5, 0, 5, 0, 5, 5, 0, 0, 0, 0, 0}; !slices.Equal(got, want) {
		t.Errorf("weights and rows by holding %v, want %v", got, want)
	}
	for i, word := range v.Body64 {
		row, column := i/4, i%4
		if in := row == 0 || row == 2 && column == 0; in != (word != 0) {
			t.Errorf("row %d, column %d holds %d", row, column, word)
		}
	}
}

// TestStepIsOfItsPhase checks that a member does no step but that of the phase in which it is asked: rounds are charged by phase.
func TestStepIsOfItsPhase(t *testing.T) {
	c := &client{Secure: NewSecure(nil, SecureOptions{})}
	for _, phase := range []string{"train.keys", "train", "eval.masked", "train.rows.masked"} {
		_, err := c.Run(t.Context(), federated.Local{}, federated.Task{Phase: phase, Params: []byte(`{"step":"masked","phase":"train"}`)}, nil)
		if !errors.Is(err, secagg.ErrMalformed) {
			t.Errorf("asked to mask in phase %q: %v", phase, err)
		}
	}
}

// TestSparseAsAgreed checks that a member refuses a graph with fewer neighbours or a lower threshold than what was agreed takes.
func TestSparseAsAgreed(t *testing.T) {
	a := NewSecure(nil, SecureOptions{Sparse: true, Corrupt: 0.1, Dropout: 0.1})
	l := &layout{Folds: []foldLayout{{Name: "w", Tensors: []tensorLayout{{Name: "w", Shape: []int{4}}}}}, Holdings: []weights.Index{nil}}
	if err := l.place(); err != nil {
		t.Fatal(err)
	}
	k, threshold, err := a.graph(500, 1)
	if err != nil || k == 0 {
		t.Fatalf("%d neighbours, %v", k, err)
	}
	fits := terms{Session: "s", Members: 500, Neighbours: k, Threshold: threshold, Layout: l}
	if err := a.acceptable(&fits); err != nil {
		t.Error(err)
	}
	for _, change := range []func(*terms){
		func(t *terms) { t.Neighbours, t.Threshold = 2, 3 },
		func(t *terms) { t.Neighbours -= 2 },
		func(t *terms) { t.Threshold-- },
		func(t *terms) { t.Members, t.Neighbours, t.Threshold = 20, 10, 8 },
	} {
		weak := fits
		change(&weak)
		if err := a.acceptable(&weak); !errors.Is(err, secagg.ErrMalformed) && (err == nil || !strings.Contains(err.Error(), "expected")) {
			t.Errorf("%d neighbours with threshold %d of %d: %v", weak.Neighbours, weak.Threshold, weak.Members, err)
		}
	}
}

// TestMembersAsAgreed checks that a member refuses a session of fewer members than was agreed.
func TestMembersAsAgreed(t *testing.T) {
	l := &layout{Folds: []foldLayout{{Name: "w", Tensors: []tensorLayout{{Name: "w", Shape: []int{4}}}}}, Holdings: []weights.Index{nil}}
	if err := l.place(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		least, n int
		want     string
	}{{0, 3, ""}, {0, 2, "a session of 2 members, and at least 3 were agreed"}, {2, 2, ""}, {20, 20, ""}, {20, 19, "a session of 19 members, and at least 20 were agreed"}} {
		a := NewSecure(nil, SecureOptions{Members: c.least})
		err := a.acceptable(&terms{Session: "s", Members: c.n, Threshold: a.threshold(c.n), Layout: l})
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, secagg.ErrMalformed) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("at least %d agreed, a session of %d: %v", c.least, c.n, err)
		}
	}
}

// labelled is a method with rows for labels; of the rest nothing is asked.
type labelled struct{ federated.Algorithm }

func (labelled) Rows(federated.Phase) ([]string, int)                          { return []string{"out"}, 3 }
func (labelled) Covers(federated.Local, federated.Task) (weights.Index, error) { return nil, nil }

// TestRowsAreCounted checks that a member refuses terms by which its rows would be sent uncounted.
func TestRowsAreCounted(t *testing.T) {
	a := NewSecure(labelled{}, SecureOptions{})
	l := shelled(t)
	if err := a.counted(&terms{Layout: l}, order{Phase: "train"}); err != nil {
		t.Error(err)
	}
	none := *l
	none.Rows, none.RowsOf = 0, nil
	if err := a.counted(&terms{Layout: &none}, order{Phase: "train"}); !errors.Is(err, secagg.ErrMalformed) {
		t.Errorf("terms that count no rows: %v", err)
	}
	c := &client{Secure: a, method: silent{}}
	_, _, err := c.vector(t.Context(), federated.Local{}, federated.Task{}, nil, order{Phase: "train"}, &terms{Members: 3, Layout: l}, 0, 3)
	if !errors.Is(err, secagg.ErrMalformed) {
		t.Errorf("a task that says of no row whether enough cover it: %v", err)
	}
}

// silent is a client that is not to be asked.
type silent struct{ federated.Client }

// TestNoiseCoversAll checks that nothing is left in the open where members add noise.
func TestNoiseCoversAll(t *testing.T) {
	l := &layout{Folds: []foldLayout{{Name: "w", Tensors: []tensorLayout{{Name: "a", Shape: []int{2}}, {Name: "b", Shape: []int{2}, Wide: true}}}},
		Holdings: []weights.Index{nil}}
	if err := l.place(); err != nil {
		t.Fatal(err)
	}
	set := weights.NewSet(2)
	set.Put("a", weights.NewTensor(weights.Float32, 2))
	set.Put("b", weights.NewTensor(weights.Float64, 2))
	p := secagg.Params{Session: "s", Members: 3, Threshold: 3, Size: l.size, Extra: l.extra, Holdings: l.ranges}.Defaults()
	noise := &dp.Skellam{Clip: 1, Scale: 1 << 10, Dimension: 2, Noise: 1, Survivors: 3}
	_, err := l.encode(p, 0, 1, federated.Result{Weight: 1, Addends: map[string]weights.Set{"w": set}}, nil, nil, noise)
	if err == nil || !strings.Contains(err.Error(), `"b"`) {
		t.Errorf("float64 beside noise for float32: %v", err)
	}
}
