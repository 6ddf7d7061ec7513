package mismatch

import (
	"context"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// TestAlign: residuals of two numbers, a third of the links wrong.
func TestAlign(t *testing.T) {
	r := rng.New(40, 0, "", "residuals")
	x, first, _ := LinearTable(250, 4, .2, r)
	residuals := mat.NewDense(250, 2, nil)
	for i := range 250 {
		residuals.SetRow(i, []float64{first.At(i, 0), x.At(i, 2) + .2*r.NormFloat64()})
	}
	own := Shuffle(250, .3, r)
	res, err := Align(context.Background(), x, residuals, assisted.Links{Own: own}, nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	before, after := 0.0, 0.0
	for i, j := range own {
		before += distance(residuals.RawRowView(j), residuals.RawRowView(i))
		after += distance(res.Soft.RawRowView(i), residuals.RawRowView(i))
	}
	if after > .15*before {
		t.Errorf("aligned residuals are off by %.1f, as they came by %.1f", after, before)
	}
	if _, err := Align(context.Background(), x, residuals, assisted.Links{Own: own[:9]}, nil, Options{}); err == nil || !strings.Contains(err.Error(), "9 links") {
		t.Errorf("fewer links than rows: %v", err)
	}
}
