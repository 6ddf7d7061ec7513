package assisted_test

import (
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/assisttest"
	"github.com/cohort-learning/cohort/federated"
)

// TestSeen checks what a desk says has passed: how many columns, of what rank, and how much of its span is known.
func TestSeen(t *testing.T) {
	b := newBench(t, assisted.NewStore())
	b.tell(t)
	if got, err := b.Seen(b.at); err != nil || got != (assisted.Seen{}) {
		t.Errorf("before anything was asked: %+v, %v", got, err)
	}
	for round, r := range [][]float64{{1, 2, 3, 4}, {1, 0, 0, 0}, {2, 2, 3, 4}} {
		if _, err := b.fit(t, round, assisttest.Column(r...)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := b.Seen(b.at)
	if want := (assisted.Seen{Columns: 3, All: 3, Received: 2, Answered: 2, Span: 2}); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
}

// TestMixtures checks that mixtures are told once, alike, and no more than allowed; scaled columns by an open desk.
func TestMixtures(t *testing.T) {
	ask := func(b *bench, n int) (federated.Result, error) {
		t.Helper()
		task, err := b.table.SketchTask(n)
		if err != nil {
			t.Fatal(err)
		}
		return b.Run(t.Context(), b.at, task, nil)
	}
	b := newBench(t, assisted.NewStore())
	b.tell(t)
	if _, err := ask(b, 1); err == nil || !strings.Contains(err.Error(), "at most 0") {
		t.Errorf("a desk that tells nothing: %v", err)
	}
	b = newBench(t, assisted.NewStore())
	b.Sketch = 2
	b.tell(t)
	if _, err := ask(b, 3); err == nil || !strings.Contains(err.Error(), "at most 2") {
		t.Errorf("more mixtures than allowed: %v", err)
	}
	one, err := ask(b, 2)
	if err != nil {
		t.Fatal(err)
	}
	two, err := ask(b, 2)
	if err != nil || string(one.Attached) != string(two.Attached) {
		t.Errorf("asked again, it tells something else, %v", err)
	}
	b = newBench(t, assisted.NewStore())
	b.Sketch = assisted.Open
	b.tell(t)
	res, err := ask(b, 1)
	if err != nil {
		t.Fatal(err)
	}
	x, err := assisted.ReadMatrix(res.Attached)
	if err != nil {
		t.Fatal(err)
	}
	assisttest.Near(t, "scaled column", x, assisttest.Column(0, 1./7, 2./7, 4./7, 1), 1e-12)
}
