package dataset

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/rng"
)

// TwoLevel draws clients whose own truth is drawn around a common one, the model behind Self-FL (arXiv 2204.08069): how
// much clients differ and how much data each has are known, so that what a method makes of them can be checked.
//
// Gaussian, a location model, where a row is one observation and there is no label:
//
//	θ_0 ~ N(0, I)   θ_m ~ N(θ_0, Between·I)   z_mi ~ N(θ_m, Within_m·I)
//
// Softmax, classification with one matrix a client:
//
//	W_0 entries ~ N(0, 1)   W_m = W_0 + √Between·N(0, 1)   x_j ~ N(0, j^−1.2), j = 1 … Features, and x = 1 for a bias
//	y = argmax(W_m·x) of ten classes
//
// Key of a row is its client, so that the "natural" scheme deals each client its own; every client has Tests rows besides
// for its test part.
type TwoLevel struct {
	Softmax  bool
	Clients  int       // default 50; 20 of softmax
	Features int       // default 20; 60 of softmax
	Between  float64   // variance between clients
	Within   []float64 // gaussian: variance of the rows of each client; one number is everybody's; default 1
	// Sizes are the training rows of each client. Two numbers are those of the first and the last client, with
	// round(first·(last/first)^(m/(M−1))) for client m in between; default 5, 200, of softmax 20, 400.
	Sizes []int
	Tests int // default 200
	Seed  uint64
}

const twoLevelClasses = 10

// defaults fills in the fields that are zero.
func (y TwoLevel) defaults() TwoLevel {
	clients, features, sizes := 50, 20, []int{5, 200}
	if y.Softmax {
		clients, features, sizes = 20, 60, []int{20, 400}
	}
	if y.Clients == 0 {
		y.Clients = clients
	}
	if y.Features == 0 {
		y.Features = features
	}
	if y.Sizes == nil {
		y.Sizes = sizes
	}
	if y.Within == nil {
		y.Within = []float64{1}
	}
	if y.Tests == 0 {
		y.Tests = 200
	}
	return y
}

// Validate reports the first field out of its range.
func (y TwoLevel) Validate() error {
	y = y.defaults()
	variance := func(v float64) bool { return v >= 0 && !math.IsInf(v, 1) }
	switch {
	case y.Clients < 1 || y.Clients > 100_000:
		return fmt.Errorf("two-level: %d clients is outside 1..100000", y.Clients)
	case y.Features < 1 || y.Features > 1<<16:
		return fmt.Errorf("two-level: %d features is outside 1..65536", y.Features)
	case !variance(y.Between):
		return fmt.Errorf("two-level: between %v is a variance and must not be negative", y.Between)
	case y.Softmax && (len(y.Within) != 1 || y.Within[0] != 1):
		return fmt.Errorf("two-level: within %v is for gaussian data; labels of softmax data are certain", y.Within)
	case len(y.Within) != 1 && len(y.Within) != y.Clients:
		return fmt.Errorf("two-level: within has %d variances for %d clients; give one, or one for each", len(y.Within), y.Clients)
	case len(y.Sizes) != y.Clients && len(y.Sizes) != 2:
		return fmt.Errorf("two-level: sizes has %d numbers for %d clients; give one for each, or the first and the last", len(y.Sizes), y.Clients)
	case y.Tests < 1 || y.Tests > 1<<20:
		return fmt.Errorf("two-level: %d test rows a client is outside 1..1048576", y.Tests)
	}
	for _, v := range y.Within {
		if !variance(v) {
			return fmt.Errorf("two-level: within %v is a variance and must not be negative", v)
		}
	}
	for _, n := range y.Sizes {
		if n < 1 || n > syntheticLargest {
			return fmt.Errorf("two-level: sizes: %d rows of a client is outside 1..%d", n, syntheticLargest)
		}
	}
	return nil
}

// Size returns how many training rows client m has.
func (y TwoLevel) Size(m int) int {
	y = y.defaults()
	if len(y.Sizes) == y.Clients {
		return y.Sizes[m]
	}
	first, last := float64(y.Sizes[0]), float64(y.Sizes[1])
	if y.Clients == 1 {
		return y.Sizes[0]
	}
	return int(math.Round(first * math.Pow(last/first, float64(m)/float64(y.Clients-1))))
}

// Key is the natural key of client m's rows.
func (y TwoLevel) Key(m int) string { return fmt.Sprintf("client-%05d", m) }

// Common returns θ_0, or of softmax W_0, row-major [10, Features + 1] with the bias last.
func (y TwoLevel) Common() []float64 {
	y = y.defaults()
	return normals(rng.New(y.Seed, 0, "", "two-level"), y.parameters(), nil, 1)
}

// Truth returns θ_m, or of softmax W_m.
func (y TwoLevel) Truth(m int) []float64 {
	y = y.defaults()
	return y.truth(m, y.Common())
}

func (y TwoLevel) truth(m int, common []float64) []float64 {
	return normals(rng.New(y.Seed, 0, y.Key(m), "two-level/truth"), y.parameters(), common, y.Between)
}

func (y TwoLevel) parameters() int {
	if y.Softmax {
		return twoLevelClasses * (y.Features + 1)
	}
	return y.Features
}

// normals draws n numbers of a variance around centre; nil is 0.
func normals(r *rng.Stream, n int, centre []float64, variance float64) []float64 {
	x, sd := make([]float64, n), math.Sqrt(variance)
	copy(x, centre)
	for i := range x {
		x[i] += sd * r.NormFloat64()
	}
	return x
}

// Load draws the data set. Client m depends on (Seed, Features, Between, Within_m, its size, m) alone, not on the others.
func (y TwoLevel) Load(ctx context.Context) (*Split, error) {
	if err := y.Validate(); err != nil {
		return nil, err
	}
	y = y.defaults()
	part := func() *Examples {
		e := &Examples{Name: "two-level-gaussian", Shape: []int{y.Features}}
		if y.Softmax {
			e.Name = "two-level-softmax"
			for c := range twoLevelClasses {
				e.Classes = append(e.Classes, fmt.Sprint(c))
			}
		}
		return e
	}
	split, common := &Split{Train: part(), Test: part()}, y.Common()
	for m := range y.Clients {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("drawing two-level data: %w", err)
		}
		truth := y.truth(m, common)
		r := rng.New(y.Seed, 0, y.Key(m), "two-level/rows")
		for i := range y.Size(m) + y.Tests {
			e := split.Train
			if i >= y.Size(m) {
				e = split.Test
			}
			y.row(e, truth, y.Within[min(m, len(y.Within)-1)], r)
			e.Keys = append(e.Keys, y.Key(m))
		}
	}
	return split, nil
}

// row draws one row of a client.
func (y TwoLevel) row(e *Examples, truth []float64, within float64, r *rng.Stream) {
	if !y.Softmax {
		for _, v := range normals(r, y.Features, truth, within) {
			e.F32 = append(e.F32, float32(v))
		}
		return
	}
	x := make([]float64, y.Features+1)
	for j := range y.Features {
		x[j] = math.Pow(float64(j+1), -0.6) * r.NormFloat64()
		e.F32 = append(e.F32, float32(x[j]))
	}
	x[y.Features] = 1
	var logits [twoLevelClasses]float64
	for c := range logits {
		for j := range x {
			logits[c] += float64(truth[c*len(x)+j] * x[j])
		}
	}
	e.Labels = append(e.Labels, int32(slices.Index(logits[:], slices.Max(logits[:]))))
}

func (s Spec) twoLevel() TwoLevel {
	y := TwoLevel{Softmax: s.Name == "two-level-softmax", Clients: s.Clients, Features: s.Features, Between: 1, Within: s.Within,
		Sizes: s.Sizes, Tests: s.Tests, Seed: s.Seed}
	switch {
	case s.Between > 0:
		y.Between = s.Between
	case s.Between < 0:
		y.Between = 0
	}
	return y
}
