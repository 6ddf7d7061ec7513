package assisted

import (
	"math"
	"slices"
	"testing"

	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

func TestBlocks(t *testing.T) {
	got, err := Blocks(10, 8, rng.New(1, 0, "", "columns"))
	if err != nil {
		t.Fatal(err)
	}
	var all []int
	for m, b := range got {
		if want := 1; m == 7 && len(b) != 3 || m < 7 && len(b) != want {
			t.Errorf("organisation %d gets %d columns: %v", m, len(b), got)
		}
		all = append(all, b...)
	}
	slices.Sort(all)
	if !slices.Equal(all, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}) {
		t.Errorf("the columns dealt are %v", all)
	}
	if _, err := Blocks(4, 8, rng.New(1, 0, "", "columns")); err == nil {
		t.Error("4 columns are dealt to 8 organisations")
	}
}

func TestPatches(t *testing.T) {
	got, err := Patches(4, 8, 1, 8) // 2 by 4 patches of 2 by 2
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got[1], []int{2, 3, 10, 11}) || !slices.Equal(got[7], []int{22, 23, 30, 31}) {
		t.Errorf("patches %v", got)
	}
	if _, err := Patches(8, 8, 1, 6); err == nil {
		t.Error("there are 6 patches")
	}
	if _, err := Patches(5, 8, 1, 8); err == nil {
		t.Error("5 rows of pixels are halved")
	}
}

// TestFriedman compares the labels' moments with those of the formula: mean 10·E sin(π x₁x₂) + 20/12 + 5 + 2.5.
func TestFriedman(t *testing.T) {
	_, y := Friedman(20000, 1, rng.New(1, 0, "", "friedman"))
	mean := mat.Sum(y) / 20000
	sine := 0.0 // by the midpoint rule
	const grid = 400
	for i := range grid {
		for j := range grid {
			sine += math.Sin(math.Pi*(float64(i)+.5)/grid*(float64(j)+.5)/grid) / (grid * grid)
		}
	}
	if want := 10*sine + 20./12 + 7.5; math.Abs(mean-want) > .15 { // 4 standard errors
		t.Errorf("mean %g, want %g", mean, want)
	}
}

func TestBlobs(t *testing.T) {
	x, y := Blobs(103, 3, 5, rng.New(1, 0, "", "blobs"))
	if rows, columns := x.Dims(); rows != 103 || columns != 3 {
		t.Errorf("%d×%d features", rows, columns)
	}
	if err := (Objective{Loss: CrossEntropy, Classes: 5}).Check(y); err != nil {
		t.Error(err)
	}
}
