package mismatch

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted/mismatch/linkage"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// TestPerfectField: a field that agrees where rows belong together and nowhere else decides, whatever key and features say; one that is
// the same everywhere says nothing.
func TestPerfectField(t *testing.T) {
	const n = 120
	r := rng.New(2, 0, "", "perfect")
	x, y, _ := LinearTable(n, 2, 3, r) // the features say hardly anything
	own := Shuffle(n, .6, r)
	var all [][]string
	for i := range n {
		all = append(all, []string{fmt.Sprintf("%c%c", 'a'+rune(i/11), 'n'+rune(i%11)), "here"})
	}
	pairs, err := linkage.Compare(linkage.Table{Records: all}, linkage.Table{Records: all})
	if err != nil {
		t.Fatal(err)
	}
	m := pairs.Estimate()
	close(t, "m of a field that is the same everywhere over u", m.M[1][linkage.Exact]/m.U[1][linkage.Exact], 1, .01)
	if m.M[0][linkage.Exact] < .85 || m.U[0][linkage.Exact] > .002 {
		t.Errorf("a perfect field agrees for %v of the right pairs, %v of others", m.M[0][linkage.Exact], m.U[0][linkage.Exact])
	}
	if p, ok := pairs.Pattern(3, 3); !ok || p.Level(0) != linkage.Exact || p.Level(1) != linkage.Exact {
		t.Errorf("a record agrees with itself as %v", p)
	}
	for _, plan := range []string{"full", "bin"} {
		f, err := NewLinear(x, true, 0)
		if err != nil {
			t.Fatal(err)
		}
		found, err := Fit(context.Background(), Problem{Y: y, Own: own, Evidence: pairs.Evidence(m, own)}, f, Options{Plan: plan, Pair: true})
		if err != nil {
			t.Fatal(err)
		}
		for i, j := range own {
			if found.Pair[i] != i {
				t.Errorf("%s plan: row %d is paired with label %d", plan, i, found.Pair[i])
			}
			if p := found.Linked[i]; i == j && p < .95 || i != j && p > .05 {
				t.Errorf("%s plan: a link from %d to %d has probability %v", plan, i, j, p)
			}
		}
		close(t, "α̂", found.Alpha, .6, .03)
	}
}

// people draws names and dates of birth, and how somebody else writes them.
func people(n int, r *rng.Stream) (here, there [][]string) {
	syllables := strings.Fields("an be car do el fi gus ha in jo ka lu mar ne ol pe ri sa tom ur vi wen xa yo zel")
	name := func(parts int) (s string) {
		for range parts {
			s += syllables[r.IntN(len(syllables))]
		}
		return s
	}
	first := make([]string, 40)
	for i := range first {
		first[i] = name(2)
	}
	damage := func(s string) string {
		at := r.IntN(len(s) - 1)
		switch v := r.Float64(); {
		case v < .7:
			return s
		case v < .85:
			return s[:at] + string(s[at+1]) + string(s[at]) + s[at+2:]
		case v < .95:
			return s[:at] + s[at+1:]
		}
		return ""
	}
	for range n {
		a := []string{first[r.IntN(len(first))], name(3), fmt.Sprintf("19%02d-%02d-%02d", 40+r.IntN(60), 1+r.IntN(12), 1+r.IntN(28))}
		here = append(here, a)
		there = append(there, []string{damage(a[0]), damage(a[1]), damage(a[2])})
	}
	return here, there
}

// TestEvidenceHelps: with names and dates more rows find their labels than without, by key and without one, in full plans and in bins.
func TestEvidenceHelps(t *testing.T) {
	const n = 300
	r := rng.New(3, 0, "", "people")
	x, y, beta := LinearTable(n, 3, .7, r)
	here, there := people(n, r)
	pairs, err := linkage.Compare(linkage.Table{Records: here}, linkage.Table{Records: there})
	if err != nil {
		t.Fatal(err)
	}
	m := pairs.Estimate()
	for f := range m.M {
		if m.M[f][linkage.Exact] < .5 || m.M[f][linkage.Different] > .2 {
			t.Errorf("field %d agrees as %v where rows belong together, as %v elsewhere", f, m.M[f], m.U[f])
		}
	}
	nobody := make([]int, n)
	for i := range nobody {
		nobody[i] = -1
	}
	try := func(plan string, own []int, e *linkage.Evidence) (right int, loss, off float64) {
		t.Helper()
		f, err := NewLinear(x, false, 0)
		if err != nil {
			t.Fatal(err)
		}
		found, err := Fit(context.Background(), Problem{Y: y, Own: own, Evidence: e}, f, Options{Plan: plan, Pair: true})
		if err != nil {
			t.Fatal(err)
		}
		for i, j := range found.Pair {
			if i == j {
				right++
			}
			p := found.Linked[i]
			if own[i] != i {
				p = 1 - p
			}
			loss -= math.Log(max(p, 1e-12)) / n
		}
		for c, b := range beta {
			off += (f.Coefficients().At(c, 0) - b) * (f.Coefficients().At(c, 0) - b)
		}
		return right, loss, math.Sqrt(off)
	}
	own := Shuffle(n, .4, r)
	for _, plan := range []string{"full", "bin"} {
		before, beforeLoss, _ := try(plan, own, nil)
		right, loss, off := try(plan, own, pairs.Evidence(m, own))
		t.Logf("%s plan: %d of %d labels find their rows, log loss of links %.3f; with names and dates %d, %.3f, β̂ off by %.3f", plan, before, n, beforeLoss, right, loss, off)
		if right < before+40 || right < n*9/10 || loss > .5*beforeLoss {
			t.Errorf("%s plan: %d labels find their rows, with names and dates %d; log loss of links %v and %v", plan, before, right, beforeLoss, loss)
		}
		right, _, off = try(plan, nobody, pairs.Evidence(m, nobody))
		t.Logf("%s plan, without a key: %d, β̂ off by %.3f", plan, right, off)
		if right < n*85/100 || off > .2 {
			t.Errorf("%s plan, without a key: %d labels find their rows, β̂ is off by %v", plan, right, off)
		}
	}
}

// TestEvidenceThatCannotBe: package mismatch refuses it by name.
func TestEvidenceThatCannotBe(t *testing.T) {
	y := mat.NewDense(2, 1, []float64{1, 2})
	clues := func(c ...linkage.Clue) *linkage.Evidence {
		return &linkage.Evidence{Clues: [][]linkage.Clue{c, nil}, Rest: make([]float64, 2)}
	}
	for what, e := range map[string]*linkage.Evidence{
		"evidence of 1":     {Clues: make([][]linkage.Clue, 1), Rest: make([]float64, 2)},
		"is about label 7":  clues(linkage.Clue{Label: 7}),
		"label 1 is NaN":    clues(linkage.Clue{Label: 1, Odds: math.NaN()}),
		"two clues":         clues(linkage.Clue{Label: 1}, linkage.Clue{Label: 1}),
		"other labels is +": {Clues: make([][]linkage.Clue, 2), Rest: []float64{math.Inf(1), 0}},
	} {
		f, err := NewLinear(mat.NewDense(2, 1, []float64{1, 2}), false, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Fit(context.Background(), Problem{Y: y, Evidence: e}, f, Options{}); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("the error about %q is %v", what, err)
		}
	}
}
