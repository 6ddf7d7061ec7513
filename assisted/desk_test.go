package assisted_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/assisttest"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/weights"
	"gonum.org/v1/gonum/mat"
)

// bench is a desk, and a sponsor that asks it by hand.
type bench struct {
	*assisted.Desk
	table assisted.Table
	at    federated.Local
}

func newBench(t *testing.T, store assisted.Store) *bench {
	x := assisttest.Column(1, 2, 3, 5, 8)
	return &bench{
		Desk: &assisted.Desk{Keys: assisttest.Keys(5), Features: x, Learner: assisttest.OLS(t), Store: store},
		table: assisted.Table{Sponsor: &assisted.Sponsor{Objective: assisted.Objective{Loss: assisted.Squared},
			Keys: assisttest.Keys(5), Labels: assisttest.Column(1, 0, 2, 3, 1), Fit: 4, Test: 1}},
		at: federated.Local{Member: federated.Member{Name: "org-1"}, Scope: "run", Seed: 3},
	}
}

func (b *bench) tell(t *testing.T) {
	t.Helper()
	task, err := b.table.RowsTask()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Run(t.Context(), b.at, task, nil); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) fit(t *testing.T, round int, r *mat.Dense) (federated.Result, error) {
	t.Helper()
	task, err := b.table.FitTask(assisted.Targets(r), assisted.Slot{Round: round})
	if err != nil {
		t.Fatal(err)
	}
	task.Round = round
	return b.Run(t.Context(), b.at, task, nil)
}

// TestDeskAnswersAgain checks that the same task gets the same answer, from another desk on the same store, too, without being
// counted twice; and that other targets for the same model are refused.
func TestDeskAnswersAgain(t *testing.T) {
	for name, store := range map[string]func() assisted.Store{
		"memory": assisted.NewStore,
		"folder": func() assisted.Store {
			s, err := journal.OpenValues(nil, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			kept := store()
			b := newBench(t, kept)
			b.Limit = 1
			b.tell(t)
			r := assisttest.Column(1, -1, 2, 0)
			first, err := b.fit(t, 0, r)
			if err != nil {
				t.Fatal(err)
			}
			again := newBench(t, kept)
			again.Limit = 1
			second, err := again.fit(t, 0, r)
			if err != nil || string(second.Attached) != string(first.Attached) {
				t.Errorf("the second answer is another one, or %v", err)
			}
			if _, err := again.fit(t, 0, assisttest.Column(1, -1, 2, 1)); err == nil || !strings.Contains(err.Error(), "other targets") {
				t.Errorf("other targets for the same model: %v", err)
			}
			if _, err := again.fit(t, 1, r); err == nil || !strings.Contains(err.Error(), "at most 1 column") {
				t.Errorf("more targets than the limit: %v", err)
			}
		})
	}
}

// TestDeskRefuses checks what no organisation answers.
func TestDeskRefuses(t *testing.T) {
	b := newBench(t, assisted.NewStore())
	if _, err := b.fit(t, 0, assisttest.Column(1, 2, 3, 4)); err == nil || !strings.Contains(err.Error(), "rows of this run") {
		t.Errorf("targets before rows: %v", err)
	}
	b.tell(t)
	for want, r := range map[string]*mat.Dense{
		"3 targets":       assisttest.Column(1, 2, 3),
		"row be left out": mat.NewDense(4, 2, []float64{1, 2, math.NaN(), 3, 4, 5, 6, 7}),
		"is +Inf":         assisttest.Column(1, 2, math.Inf(1), 4),
		"is 1e+200":       assisttest.Column(1, 2, 1e200, 4),
	} {
		if _, err := b.fit(t, 0, r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
	for want, task := range map[string]federated.Task{
		"cannot be read":    {Params: []byte(`{"do":"fit","learner":"mine"}`)},
		`"export"`:          {Params: []byte(`{"do":"export"}`)},
		"not those that":    {Params: []byte(`{"do":"rows","rows":"00","fit":1}`), Attached: assisted.AppendKeys(nil, []string{"a"})},
		"no matrix":         {Params: []byte(`{"do":"fit"}`), Sets: map[string]weights.Set{}},
		"no model is asked": {Params: []byte(`{"do":"predict"}`)},
		"model 7.0":         {Params: []byte(`{"do":"predict","slots":[{"round":7,"step":0}]}`), Attached: assisted.AppendKeys(nil, []string{"id-0"})},
		"coefficients":      {Params: []byte(`{"do":"predict","slots":[{"round":7,"step":0}],"coefficients":[1,2]}`)},
	} {
		if _, err := b.Run(t.Context(), b.at, task, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
	stranger := newBench(t, assisted.NewStore())
	for i := range stranger.Keys {
		stranger.Keys[i] = fmt.Sprintf("person %d", i)
	}
	task, err := stranger.table.RowsTask()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.Run(t.Context(), stranger.at, task, nil); err == nil || !strings.Contains(err.Error(), "has 0") {
		t.Errorf("an organisation without any of the entities: %v", err)
	}
}

// TestMaskedTargets checks that rows without a target are left out of the fit and have a value all the same.
func TestMaskedTargets(t *testing.T) {
	b := newBench(t, assisted.NewStore())
	b.tell(t)
	nan := math.NaN()
	res, err := b.fit(t, 0, assisttest.Column(1, 2, nan, 5)) // y = x
	if err != nil {
		t.Fatal(err)
	}
	g, err := assisted.ReadMatrix(res.Attached)
	if err != nil {
		t.Fatal(err)
	}
	assisttest.Near(t, "fitted values", g, assisttest.Column(1, 2, 3, 5, 8), 1e-12)
}

// TestSponsorsThatCannotBe checks what is said of rows and labels that do not fit.
func TestSponsorsThatCannotBe(t *testing.T) {
	good := func() *assisted.Sponsor {
		return &assisted.Sponsor{Objective: assisted.Objective{Loss: assisted.Squared}, Keys: assisttest.Keys(5),
			Labels: assisttest.Column(1, 0, 2, 3, 1), Fit: 4, Test: 1}
	}
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*assisted.Sponsor){
		"no labels":        func(s *assisted.Sponsor) { s.Labels = nil },
		"4 keys":           func(s *assisted.Sponsor) { s.Keys = s.Keys[:4] },
		"are not 5":        func(s *assisted.Sponsor) { s.Test = 2 },
		"at least 2":       func(s *assisted.Sponsor) { s.Fit, s.Test = 1, 4 },
		`"id-0" is there`:  func(s *assisted.Sponsor) { s.Keys[3] = "id-0" },
		"to test on none":  func(s *assisted.Sponsor) { s.Labels.Set(4, 0, math.NaN()) },
		"expected squared": func(s *assisted.Sponsor) { s.Objective.Loss = "" },
	} {
		s := good()
		change(s)
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
}

// TestEntitiesTwice checks that a desk or a query with the same key twice is refused.
func TestEntitiesTwice(t *testing.T) {
	b := newBench(t, assisted.NewStore())
	b.Keys[1] = "id-0"
	task, err := b.table.RowsTask()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Run(t.Context(), b.at, task, nil); err == nil || !strings.Contains(err.Error(), "twice, in rows 0 and 1") {
		t.Errorf("a key twice at a desk: %v", err)
	}
	p := assisted.Prediction{Keys: []string{"a", "a"}, Ensemble: assisted.Ensemble{Start: []float64{0}}}
	if err := p.Check(federated.Server{}); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("a key twice in a query: %v", err)
	}
}
