package dataset

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"
)

func twoLevel(t *testing.T, y TwoLevel) *Split {
	t.Helper()
	s, err := y.Load(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []*Examples{s.Train, s.Test} {
		if err := e.Validate(); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// TestTwoLevelSizes: n_m = round(5·40^(m/49)) of fifty clients, 2,691 together.
func TestTwoLevelSizes(t *testing.T) {
	y := TwoLevel{Sizes: []int{5, 200}}
	sum := 0
	for m := range 50 {
		n := y.Size(m)
		if want := int(math.Round(5 * math.Pow(40, float64(m)/49))); n != want {
			t.Errorf("client %d has %d rows, want %d", m, n, want)
		}
		sum += n
	}
	if sum != 2691 {
		t.Errorf("%d rows together, want 2691", sum)
	}
	if n := (TwoLevel{Clients: 3, Sizes: []int{7, 1, 9}}).Size(1); n != 1 {
		t.Errorf("client 1 has %d rows, want the 1 that is given", n)
	}
}

// TestTwoLevelGaussian: the rows of a client have its mean and variance, the clients' means the variance between them.
func TestTwoLevelGaussian(t *testing.T) {
	y := TwoLevel{Clients: 40, Features: 30, Between: 4, Within: []float64{0.25}, Sizes: []int{400, 400}, Tests: 1, Seed: 3}
	s := twoLevel(t, y)
	if s.Train.Labels != nil || s.Train.Len() != 16000 || s.Test.Len() != 40 {
		t.Fatalf("%d and %d rows, labels %v", s.Train.Len(), s.Test.Len(), s.Train.Labels != nil)
	}
	var rows, between float64
	common := y.Common()
	for m := range 40 {
		truth := y.Truth(m)
		for j, v := range truth {
			between += (v - common[j]) * (v - common[j])
		}
		for i := range 400 {
			if s.Train.Keys[m*400+i] != y.Key(m) {
				t.Fatalf("row %d is %s's", m*400+i, s.Train.Keys[m*400+i])
			}
			for j, v := range truth {
				d := float64(s.Train.F32[(m*400+i)*30+j]) - v
				rows += d * d
			}
		}
	}
	if got := rows / 16000 / 30; math.Abs(got/0.25-1) > 0.02 {
		t.Errorf("rows have variance %v around the truth, want 0.25", got)
	}
	if got := between / 40 / 30; math.Abs(got/4-1) > 0.15 {
		t.Errorf("truths have variance %v around the common one, want 4", got)
	}
	other := y
	other.Clients = 41
	if !slices.Equal(other.Truth(7), y.Truth(7)) {
		t.Error("a client depends on how many there are")
	}
}

// TestTwoLevelSoftmax: labels are what the client's own matrix says; with nothing between them all clients have the same.
func TestTwoLevelSoftmax(t *testing.T) {
	y := TwoLevel{Softmax: true, Seed: 5}
	s := twoLevel(t, y)
	if got := s.Test.Len(); got != 20*200 {
		t.Errorf("%d test rows", got)
	}
	for m := range 20 {
		if !slices.Equal(y.Truth(m), y.Common()) {
			t.Fatalf("client %d differs with nothing between clients", m)
		}
	}
	y.Between = 1
	s = twoLevel(t, y)
	at, wrong := 0, 0
	for m := range 20 {
		w := y.Truth(m)
		for range y.Size(m) {
			x := s.Train.F32[at*60 : at*60+60]
			best, label := math.Inf(-1), 0
			for c := range 10 {
				z := w[c*61+60]
				for j, v := range x {
					z += w[c*61+j] * float64(v)
				}
				if z > best {
					best, label = z, c
				}
			}
			if int(s.Train.Labels[at]) != label {
				wrong++ // the stored row is rounded
			}
			at++
		}
	}
	if at != s.Train.Len() || wrong > at/1000 {
		t.Errorf("%d of %d labels are not argmax(W·x)", wrong, at)
	}
}

func TestTwoLevelRefusals(t *testing.T) {
	for want, s := range map[string]Spec{
		"clients":       {Name: "two-level-softmax", Clients: -1},
		"features":      {Name: "two-level-softmax", Features: -3},
		"within":        {Name: "two-level-softmax", Within: []float64{2}},
		"variances for": {Name: "two-level-gaussian", Within: []float64{1, 2}},
		"negative":      {Name: "two-level-gaussian", Within: []float64{-2}},
		"sizes":         {Name: "two-level-gaussian", Sizes: []int{1, 2, 3}},
		"rows of a":     {Name: "two-level-gaussian", Sizes: []int{0, 2}},
		"test rows":     {Name: "two-level-gaussian", Tests: -1},
		"between":       {Name: "two-level-gaussian", Between: math.Inf(1)},
	} {
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want one about %q", s, err, want)
		}
	}
}
