package assisted_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/assisttest"
	"github.com/cohort-learning/cohort/federated"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// column returns values, each so many times.
func column(counts map[string]int) (values []string) {
	for v, n := range counts {
		values = append(values, slices.Repeat([]string{v}, n)...)
	}
	return values
}

// TestStrataMerged checks what becomes of values of few rows, and of those that were not there.
func TestStrataMerged(t *testing.T) {
	for _, c := range []struct {
		name   string
		counts map[string]int
		want   []int // of a, b, c, d and a value that was not there
	}{
		{"all are large", map[string]int{"a": 40, "b": 50, "c": 30}, []int{1, 0, 2, 0, 0}},
		{"small ones are one together", map[string]int{"a": 90, "b": 50, "c": 10, "d": 20}, []int{0, 1, 2, 2, 2}},
		{"still too small, and the smallest goes with them", map[string]int{"a": 90, "b": 50, "c": 10, "d": 31}, []int{0, 1, 2, 2, 2}},
	} {
		s, err := assisted.NewStrata("x", column(c.counts))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if diff := cmp.Diff(c.want, s.Of([]string{"a", "b", "c", "d", "?"})); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
	for want, counts := range map[string]map[string]int{
		`of the 1 values of "x" on the 99 rows to fit, 1 have 30 rows or more`:  {"a": 99},
		`of the 2 values of "x" on the 119 rows to fit, 1 have 30 rows or more`: {"a": 90, "b": 29},
		`of the 4 values of "x" on the 80 rows to fit, 0 have 30 rows or more`:  {"a": 20, "b": 20, "c": 20, "d": 20},
	} {
		if _, err := assisted.NewStrata("x", column(counts)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: want an error with %q, got %v", counts, want, err)
		}
	}
	if (*assisted.Strata)(nil).Of([]string{"a"}) != nil {
		t.Error("strata where there are none")
	}
}

// TestStrataProperties checks on random columns that every stratum has rows enough and numbers have no gaps.
func TestStrataProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		counts := map[string]int{}
		for i, n := range rapid.SliceOfN(rapid.IntRange(1, 80), 1, 8).Draw(rt, "counts") {
			counts[fmt.Sprint(i)] = n
		}
		values := column(counts)
		s, err := assisted.NewStrata("x", values)
		if err != nil {
			large := 0
			for _, n := range counts {
				large += min(1, n/assisted.LeastStratum)
			}
			if large > 2 || large == 2 && len(counts) == 2 {
				rt.Fatalf("%v: %v", counts, err)
			}
			return
		}
		rows := make([]int, s.Count)
		for _, stratum := range s.Of(values) {
			rows[stratum]++
		}
		if slices.Min(rows) < assisted.LeastStratum {
			rt.Fatalf("%v: strata of %v rows", counts, rows)
		}
		if text := s.Text(s.Of(values)); strings.Count(text, " rows)") != s.Count {
			rt.Fatalf("%v: %s", counts, text)
		}
	})
}

// A desk fits and predicts by strata that are said of every row, and refuses others for the same model, models without them, and more
// than were agreed to.
func TestDeskOfStrata(t *testing.T) {
	b := newBench(t, assisted.NewStore())
	b.tell(t)
	b.table.ByStratum = true
	b.table.Sponsor.Strata = &assisted.Strata{Column: "x", Values: map[string]int{"a": 0, "b": 1}, Count: 2}
	b.table.Sponsor.Stratum = []int{0, 0, 1, 1, 1}
	ask := func(round int, client federated.Client) (federated.Result, error) {
		task, err := b.table.FitTask(assisted.Targets(assisttest.Column(1, 3, 10, 20)), assisted.Slot{Round: round})
		if err != nil {
			t.Fatal(err)
		}
		task = b.table.Stratify("org-1", task)
		task.Round = round
		return client.Run(t.Context(), b.at, task, nil)
	}
	got, err := ask(0, b.Desk)
	if err != nil {
		t.Fatal(err)
	}
	v, err := assisted.ReadMatrix(got.Attached)
	if err != nil {
		t.Fatal(err)
	}
	// x = 1, 2 | 3, 5, 8: a line through each stratum.
	assisttest.Near(t, "values", v, assisttest.Column(1, 3, 10, 20, 35), 1e-12)
	seen, err := b.Seen(b.at)
	if want := (assisted.Seen{Columns: 1, All: 1, Received: 1, Answered: 2, Span: 4}); err != nil || seen != want {
		t.Errorf("seen %+v, %v, want %+v", seen, err, want)
	}

	e := assisted.Ensemble{Start: []float64{0}, Strata: b.table.Sponsor.Strata,
		Members: []assisted.Voice{{Name: "org-1", Terms: []assisted.Term{{Coefficient: 2, Mean: []float64{0}, Means: [][]float64{{2}, {15}}}}}}}
	p := &assisted.Prediction{Ensemble: e, Keys: []string{"id-4", "id-0"}, Strata: []int{0, 1}}
	if err := p.Check(federated.Server{}); err != nil {
		t.Fatal(err)
	}
	predict := func() (federated.Result, error) {
		task, err := p.Task(federated.State{}, federated.Phase{}, b.at.Member)
		if err != nil {
			t.Fatal(err)
		}
		return b.Run(t.Context(), b.at, task, nil)
	}
	if got, err = predict(); err != nil {
		t.Fatal(err)
	}
	if v, err = assisted.ReadMatrix(got.Attached); err != nil {
		t.Fatal(err)
	}
	assisttest.Near(t, "prediction in other strata", v, assisttest.Column(2*15, 0), 1e-12)

	refused := func(want string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
	p.Strata = nil
	refused("2 entities, and the strata of 0", p.Check(federated.Server{}))
	p.Ensemble.Members[0].Terms[0].Means = nil
	_, err = predict()
	refused("does not say in which each is", err)
	b.table.Sponsor.Stratum = []int{0, 0, 0, 1, 1}
	_, err = ask(0, b.Desk)
	refused("fitted to other strata", err)
	b.table.Sponsor.Stratum = []int{0, 0, -1, 1, 1}
	_, err = ask(1, b.Desk)
	refused("row 2 is in stratum -1: expected a whole number", err)
	b.table.Sponsor.Stratum = []int{0, 0, 1, 1}
	_, err = ask(1, b.Desk)
	refused("the strata of 4 rows, of which there are 5", err)
	b.table.Sponsor.Stratum = []int{0, 0, 1, 1, 2}
	_, err = ask(1, &assisted.Clerk{Desk: b.Desk, Mode: assisted.PlainKeys, Strata: 2})
	refused("rows come in 3 strata, and 2 were agreed to", err)
	if _, err = ask(1, &assisted.Clerk{Desk: b.Desk, Mode: assisted.PlainKeys, Strata: 3}); err != nil {
		t.Error(err)
	}
}
