package reproduce

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
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
	computed := 0
	count := func(_ context.Context, alpha float64) error {
		computed++
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
	// With a folder parts are kept, read again, and drawn.
	dir, before := t.TempDir(), computed
	for range 2 {
		l = Lab{Dir: dir}
		if r, err := e.Run(context.Background(), Small, &l); err != nil || len(r.Rows) != 3 || *r.Rows[2].Measured != 2 {
			t.Fatalf("parts in a folder: %v, %v", r.Rows, err)
		}
	}
	if computed != before+3 {
		t.Errorf("with a folder %d parts were computed, want 3", computed-before)
	}
	if err := l.draw("counting", curve{name: "ones", title: "ones", xs: []float64{1, 1.5, 3}, part: func(x float64) string { return fmt.Sprintf("ones, α = %v", x) },
		series: []string{"one"}, claim: func(float64, string) string { return "" }}); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "report", "ones.csv")); err != nil || strings.Count(string(text), "\n") != 3 {
		t.Errorf("the curve is %q, %v", text, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "report", "ones.png")); err != nil {
		t.Error(err)
	}
	l = Lab{Dir: dir, Seed: 1}
	if _, err := e.Run(context.Background(), Small, &l); err == nil || !strings.Contains(err.Error(), "with seed 0") {
		t.Errorf("parts of another seed: %v", err)
	}
	l = Lab{Only: "threes"}
	if _, err := e.Run(context.Background(), Small, &l); err == nil || !strings.Contains(err.Error(), "ones, α = 1.5") {
		t.Errorf("a part that does not exist: %v", err)
	}
}
