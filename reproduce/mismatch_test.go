package reproduce

import (
	"context"
	"strings"
	"testing"
)

// TestMismatchAssist: aligning the assistor's rows to the sponsor's residuals makes good most of what wrong links cost.
func TestMismatchAssist(t *testing.T) {
	l := &Lab{}
	if err := l.mismatchAssist(context.Background(), .3); err != nil {
		t.Fatal(err)
	}
	for _, r := range l.rows {
		t.Log(r.Claim, *r.Measured)
		if r.Pass != nil && !*r.Pass {
			t.Errorf("%s: %v, required %s", r.Claim, *r.Measured, *r.Required)
		}
	}
}

// TestParts: one part of an experiment of parts can be computed, and has its rows; a part that does not exist is refused by name.
func TestParts(t *testing.T) {
	var l Lab
	count := func(_ context.Context, alpha float64) error {
		l.report("", 0, "", alpha)
		return nil
	}
	e := Experiment{Name: "counting", Parts: true, Scales: map[Scale]Study{Small: {Run: func(ctx context.Context, l *Lab) error {
		return l.shares(ctx, shares{"ones", count, []float64{1, 1.5}}, shares{"twos", count, []float64{2}})
	}}}}
	for only, want := range map[string][]float64{"": {1, 1.5, 2}, "ones, α = 1.5": {1.5}, "twos, α = 2": {2}} {
		l = Lab{Only: only}
		r, err := e.Run(context.Background(), Small, &l)
		if err != nil || len(r.Rows) != len(want) {
			t.Fatalf("only %q: %d rows, %v; want %v", only, len(r.Rows), err, want)
		}
		for i, v := range want {
			if *r.Rows[i].Measured != v {
				t.Errorf("only %q: row %d is %v, want %v", only, i, *r.Rows[i].Measured, v)
			}
		}
	}
	l = Lab{Only: "threes"}
	if _, err := e.Run(context.Background(), Small, &l); err == nil || !strings.Contains(err.Error(), "ones, α = 1.5") {
		t.Errorf("a part that does not exist: %v", err)
	}
}
