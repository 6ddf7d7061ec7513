package recommenders

import (
	"math"
	"testing"

	"github.com/cohort-learning/cohort/recommend"
	"pgregory.net/rapid"
)

// small is a table of three users and four items, of which nobody has rated the last.
func small() recommend.Table {
	return recommend.Table{Users: []int32{0, 1, 2}, Start: []int32{0, 2, 4, 5}, Items: []int32{0, 1, 0, 2, 1}, Values: []float32{5, 3, 4, 1, 2}}
}

// begin is a factorisation of it with k = 2 and y_i = (0.1(i+1), 0.3 − 0.2i).
func begin(t taste) *factors {
	f := &factors{taste: t, k: 2, y: make([]float64, 8), level: make([]float64, 4)}
	for i := range 4 {
		f.y[2*i], f.y[2*i+1] = 0.1*float64(i+1), 0.3-0.2*float64(i)
		if !t.implicit {
			f.level[i] = 3
		}
	}
	return f
}

var (
	explicit = taste{lambda: 0.1}
	implicit = taste{implicit: true, lambda: 0.5, alpha: 2, like: 3}
)

// objective is J, term by term as the package comment has it.
func objective(f *factors, t recommend.Table, x []float64) float64 {
	var j float64
	n := make([]float64, f.items())
	for u := range t.Len() {
		xu := x[u*(f.k+1) : (u+1)*(f.k+1)]
		items, values := t.Row(u)
		rated := map[int]float64{}
		for k, i := range items {
			rated[int(i)] = float64(values[k])
			n[i]++
		}
		for i := range f.items() {
			r, is := rated[i]
			switch {
			case f.implicit && is:
				e := f.score(xu, i) - f.target(float32(r))
				j += (1 + f.alpha) * e * e / 2
			case f.implicit:
				j += f.score(xu, i) * f.score(xu, i) / 2
			case is:
				j += (f.score(xu, i) - r) * (f.score(xu, i) - r) / 2
			}
		}
		weight := 1.0
		if !f.implicit {
			weight = float64(len(items))
		}
		j += f.lambda * weight * dot(xu, xu) / 2
	}
	for i := range f.items() {
		if f.implicit {
			n[i] = 1
		}
		j += f.lambda * n[i] * dot(f.row(i), f.row(i)) / 2
		if !f.implicit {
			j += f.lambda * n[i] * (f.level[i] - f.mean) * (f.level[i] - f.mean) / 2
		}
	}
	return j
}

func close(t *testing.T, what string, got, want []float64, within float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d numbers, want %d", what, len(got), len(want))
	}
	for i, v := range got {
		if !(math.Abs(v-want[i]) <= within) {
			t.Errorf("%s: number %d is %.10g, want %.10g", what, i, v, want[i])
		}
	}
}

// TestReference compares two sweeps with the same in numpy, written from the formulas with dense matrices and numpy.linalg.solve.
func TestReference(t *testing.T) {
	for _, c := range []struct {
		name     string
		taste    taste
		y, level []float64
		loss     float64
	}{
		{"explicit", explicit,
			[]float64{-0.0713668636, 0.571525084, 0.0374901609, -0.3636679113, 0.2288193411, -0.6200116152, 0, 0},
			[]float64{3.6367607598, 2.6890340049, 2.5727859389, 3}, 0.2938372058},
		{"implicit", implicit,
			[]float64{0.0783542348, 0.8657380348, 0.6639509175, 0.2631036718, 0, 0, 0, 0},
			[]float64{0, 0, 0, 0}, 0.5166737749},
	} {
		f := begin(c.taste)
		var loss float64
		for range 2 {
			var err error
			if loss, _, err = f.sweep(t.Context(), small()); err != nil {
				t.Fatal(err)
			}
		}
		close(t, c.name+": y", f.y, c.y, 1e-9)
		close(t, c.name+": β", f.level, c.level, 1e-9)
		close(t, c.name+": loss", []float64{loss}, []float64{c.loss}, 1e-9)
	}
}

// TestSweepsLowerTheObjective: each half of a sweep is a minimum, so that J never rises; at the end the gradient is gone.
func TestSweepsLowerTheObjective(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		tb, ta := drawTable(rt), explicit
		if rapid.Bool().Draw(rt, "implicit") {
			ta = implicit
		}
		f := &factors{taste: ta, k: 2, y: make([]float64, 2*drawnItems), level: make([]float64, drawnItems)}
		for i := range f.y {
			f.y[i] = rapid.Float64Range(-1, 1).Draw(rt, "y")
		}
		before := math.Inf(1)
		for range 30 {
			if _, _, err := f.sweep(t.Context(), tb); err != nil {
				rt.Fatal(err)
			}
			x, err := f.users(t.Context(), tb)
			if err != nil {
				rt.Fatal(err)
			}
			now := objective(f, tb, x)
			if now > before*(1+1e-9) {
				rt.Fatalf("J rose from %.12g to %.12g", before, now)
			}
			before = now
		}
	})
}

const drawnItems = 5

func drawTable(rt *rapid.T) recommend.Table {
	t := recommend.Table{Start: []int32{0}}
	for u := range rapid.IntRange(1, 6).Draw(rt, "users") {
		for i := range drawnItems {
			if i == u%drawnItems || rapid.Bool().Draw(rt, "rated") {
				t.Items, t.Values = append(t.Items, int32(i)), append(t.Values, float32(rapid.IntRange(1, 5).Draw(rt, "rating")))
			}
		}
		t.Users, t.Start = append(t.Users, int32(u)), append(t.Start, int32(len(t.Items)))
	}
	return t
}

// TestGradientIsOfTheObjective compares what members send with finite differences of J at the users' best factors.
func TestGradientIsOfTheObjective(t *testing.T) {
	for name, ta := range map[string]taste{"explicit": explicit, "implicit": implicit} {
		f, tb := begin(ta), small()
		f.mean = 2.5
		g, err := f.gradient(t.Context(), tb)
		if err != nil {
			t.Fatal(err)
		}
		at := func(x *float64, step float64) float64 {
			old := *x
			*x += step
			defer func() { *x, f.gram = old, nil }()
			f.gram = nil
			users, err := f.users(t.Context(), tb)
			if err != nil {
				t.Fatal(err)
			}
			return objective(f, tb, users)
		}
		const h = 1e-5
		want := make([]float64, len(f.y))
		for i := range f.y {
			want[i] = (at(&f.y[i], h) - at(&f.y[i], -h)) / (2 * h)
			if ta.implicit {
				want[i] -= ta.lambda * f.y[i] // the server's part
			}
		}
		close(t, name+": ∂J/∂y", g.y, want, 1e-7)
		if !ta.implicit {
			want = make([]float64, len(f.level))
			for i := range f.level {
				want[i] = (at(&f.level[i], h) - at(&f.level[i], -h)) / (2 * h)
			}
			close(t, name+": ∂J/∂β", g.level, want, 1e-7)
		}
		users, err := f.users(t.Context(), tb)
		if err != nil {
			t.Fatal(err)
		}
		var loss float64
		for u := range tb.Len() {
			items, values := tb.Row(u)
			l, _ := f.loss(users[3*u:3*u+3], items, values)
			loss += l
		}
		close(t, name+": loss", []float64{g.loss}, []float64{loss}, 1e-12)
	}
}

// TestGradientsAddUp: the gradient of all users is the sum of those of parts of them, and vanishes where alternating least squares
// has come to rest.
func TestGradientsAddUp(t *testing.T) {
	for name, ta := range map[string]taste{"explicit": explicit, "implicit": implicit} {
		tb := small()
		f := begin(ta)
		for range 3000 {
			if _, _, err := f.sweep(t.Context(), tb); err != nil {
				t.Fatal(err)
			}
		}
		y, level := make([]float64, len(f.y)), make([]float64, len(f.level))
		for u := range tb.Len() {
			items, values := tb.Row(u)
			one := recommend.Table{Users: []int32{0}, Start: []int32{0, int32(len(items))}, Items: items, Values: values}
			g, err := f.gradient(t.Context(), one)
			if err != nil {
				t.Fatal(err)
			}
			for i, v := range g.y {
				y[i] += v
			}
			for i, v := range g.level {
				level[i] += v
			}
		}
		if ta.implicit {
			for i, v := range f.y {
				y[i] += ta.lambda * v
			}
			clear(level) // nobody looks at them
		}
		close(t, name+": ∂J/∂y at rest", y, make([]float64, len(y)), 1e-6)
		close(t, name+": ∂J/∂β at rest", level, make([]float64, len(level)), 1e-6)
	}
}
