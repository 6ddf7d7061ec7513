package dataset

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/rng"
)

// Tastes are ratings from 1 to 5 that follow hidden tastes, a matrix factorisation with biases (Koren, Bell, Volinsky, Computer
// 42(8), 2009) read as a generator:
//
//	p_u, q_i ~ N(0, I₈)/√8     a_u ~ N(0, 0.4²)     b_i ~ N(0, 0.5²)     ε ~ N(0, 0.5²)
//	r_ui = clamp(round(3.5 + a_u + b_i + 2·p_u·q_i + ε), 1, 5)
//
// User u rates n_u = 10 + ⌊e^z⌋ items, z ~ N(3, 0.7²), at most half of all, drawn without putting back with probabilities
// proportional to 1/(10 + rank): the popular ones come first. A tenth of all ratings is held out.
type Tastes struct {
	Users, Items int // default 300 and 400
	TestFraction float64
	Seed         uint64
}

const tasteFactors = 8

// Validate reports the first field out of its range.
func (y Tastes) Validate() error {
	switch {
	case y.Users < 2 || y.Users > 1_000_000:
		return fmt.Errorf("tastes: %d users is outside 2..1000000", y.Users)
	case y.Items < 20 || y.Items > 1_000_000:
		return fmt.Errorf("tastes: %d items is outside 20..1000000", y.Items)
	}
	return nil
}

func (s Spec) tastes() Tastes {
	y := Tastes{Users: s.Users, Items: s.Items, TestFraction: s.TestFraction, Seed: s.Seed}
	if y.Users == 0 {
		y.Users = 300
	}
	if y.Items == 0 {
		y.Items = 400
	}
	return y
}

// Load draws the data set.
func (y Tastes) Load(ctx context.Context) (*Split, error) {
	if err := y.Validate(); err != nil {
		return nil, err
	}
	r := &Ratings{Low: 1, High: 5}
	items := rng.New(y.Seed, 0, "", "tastes/items")
	factors, bias, weight := make([][tasteFactors]float64, y.Items), make([]float64, y.Items), make([]float64, y.Items)
	for i := range y.Items {
		r.Items = append(r.Items, fmt.Sprint(i+1))
		r.Titles = append(r.Titles, fmt.Sprintf("Item %d", i+1))
		factors[i], bias[i] = tasteVector(items), 0.5*items.NormFloat64()
		weight[i] = 1 / float64(10+i)
	}
	e := &Examples{Name: "tastes", Shape: []int{2}, Ratings: r}
	for u := range y.Users {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("drawing ratings: %w", err)
		}
		r.Users = append(r.Users, fmt.Sprint(u+1))
		s := rng.New(y.Seed, 0, r.Users[u], "tastes/user")
		p, a := tasteVector(s), 0.4*s.NormFloat64()
		n := min(10+int(math.Exp(3+0.7*s.NormFloat64())), y.Items/2)
		for _, i := range popular(s, weight, n) {
			x := 3.5 + a + bias[i]
			for k := range p {
				x += 2 * p[k] * factors[i][k]
			}
			x = math.Round(x + 0.5*s.NormFloat64())
			e.Tok = append(e.Tok, int32(u), i)
			e.Targets = append(e.Targets, float32(min(max(x, 1), 5)))
		}
	}
	return Spec{TestFraction: y.TestFraction, Seed: y.Seed}.holdOutRatings(e), nil
}

func tasteVector(s *rng.Stream) (v [tasteFactors]float64) {
	for k := range v {
		v[k] = s.NormFloat64() / math.Sqrt(tasteFactors)
	}
	return v
}

// popular draws n positions without putting back, with probabilities proportional to weights, ascending: those of the n least of
// independent exponential times with these rates (Efraimidis and Spirakis, IPL 97(5), 2006).
func popular(s *rng.Stream, weight []float64, n int) []int32 {
	time := make([]float64, len(weight))
	for i, w := range weight {
		time[i] = s.ExpFloat64() / w
	}
	order := identity(len(weight))
	slices.SortFunc(order, func(a, b int32) int {
		switch {
		case time[a] < time[b]:
			return -1
		case time[a] > time[b]:
			return 1
		}
		return int(a - b)
	})
	order = order[:n]
	slices.Sort(order)
	return order
}
