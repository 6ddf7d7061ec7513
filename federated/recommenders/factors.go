package recommenders

import (
	"context"
	"errors"
	"slices"

	"github.com/cohort-learning/cohort/recommend"
	"gonum.org/v1/gonum/mat"
)

// taste is what a factorisation minimises, see the package comment.
type taste struct {
	implicit bool
	lambda   float64 // λ > 0
	alpha    float64 // α ≥ 0
	like     float32 // rating from which an item is liked
}

// target returns p_ui for a rating.
func (t taste) target(rating float32) float64 {
	if rating >= t.like {
		return 1
	}
	return 0
}

// factors are the items' side of a factorisation.
type factors struct {
	taste
	k     int       // factors
	y     []float64 // [items, k]
	level []float64 // β, [items]; of implicit feedback 0
	mean  float64   // μ
	gram  []float64 // YᵀY [k, k], of implicit feedback; nil until it is asked for
}

func (f *factors) items() int { return len(f.level) }

func (f *factors) row(i int) []float64 { return f.y[i*f.k : (i+1)*f.k] }

// dot returns Σ a_j·b_j.
func dot(a, b []float64) float64 {
	var sum float64
	for j, v := range a {
		sum += float64(v * b[j])
	}
	return sum
}

// gramOf returns VᵀV of the rows of v.
func gramOf(v []float64, k int) []float64 {
	g := make([]float64, k*k)
	for ; len(v) > 0; v = v[k:] {
		for a := range k {
			for b := a; b < k; b++ {
				g[a*k+b] += float64(v[a] * v[b])
			}
		}
	}
	for a := range k {
		for b := range a {
			g[a*k+b] = g[b*k+a]
		}
	}
	return g
}

// ridge gathers and solves normal equations, (Σ w·v vᵀ + diag)·z = Σ t·v.
type ridge struct {
	n    int
	a, b []float64 // upper triangle [n, n], and [n]
	chol mat.Cholesky
}

// reset begins with the given matrix, or with zeros, and d on its diagonal.
func (r *ridge) reset(n int, gram []float64, d float64) {
	r.n = n
	r.a, r.b = slices.Grow(r.a[:0], n*n)[:n*n], slices.Grow(r.b[:0], n)[:n]
	clear(r.a)
	clear(r.b)
	copy(r.a, gram)
	for j := range n {
		r.a[j*n+j] += d
	}
}

// add adds w·v vᵀ and t·v.
func (r *ridge) add(v []float64, w, t float64) {
	for a := range r.n {
		r.b[a] += float64(t * v[a])
		s := w * v[a]
		for b := a; b < r.n; b++ {
			r.a[a*r.n+b] += float64(s * v[b])
		}
	}
}

// solve writes z to dst.
func (r *ridge) solve(dst []float64) error {
	if !r.chol.Factorize(mat.NewSymDense(r.n, r.a)) {
		return errors.New("a least squares problem has no solution: raise options.regularisation")
	}
	return r.chol.SolveVecTo(mat.NewVecDense(r.n, dst), mat.NewVecDense(r.n, r.b))
}

// solver finds the factors of users, and of items where all ratings are at one place. It is one goroutine's.
type solver struct {
	ridge
	v []float64 // a vector and a 1
}

// withOne returns v and a 1 after it.
func (s *solver) withOne(v []float64) []float64 {
	s.v = append(append(s.v[:0], v...), 1)
	return s.v
}

// user writes the k factors of a user and after them the level to dst: argmin of J for these ratings, zeros for none.
func (f *factors) user(s *solver, items []int32, values []float32, dst []float64) error {
	clear(dst)
	if len(items) == 0 {
		return nil
	}
	if f.implicit {
		if f.gram == nil {
			f.gram = gramOf(f.y, f.k)
		}
		s.reset(f.k, f.gram, f.lambda)
		for n, i := range items {
			s.add(f.row(int(i)), f.alpha, (1+f.alpha)*f.target(values[n]))
		}
		return s.solve(dst[:f.k])
	}
	s.reset(f.k+1, nil, f.lambda*float64(len(items)))
	for n, i := range items {
		s.add(s.withOne(f.row(int(i))), 1, float64(values[n])-f.level[i])
	}
	return s.solve(dst)
}

// score returns the prediction for item i and a user's factors and level.
func (f *factors) score(x []float64, i int) float64 {
	return dot(x[:f.k], f.row(i)) + f.level[i] + x[f.k]
}

// loss returns Σ c·e² of a user with factors x, and how many terms it has.
func (f *factors) loss(x []float64, items []int32, values []float32) (sum float64, terms int) {
	if !f.implicit {
		for n, i := range items {
			e := f.score(x, int(i)) - float64(values[n])
			sum += float64(e * e)
		}
		return sum, len(items)
	}
	for a := range f.k { // Σ_i ŝ² = xᵀ·YᵀY·x, as if nothing were rated
		sum += float64(x[a] * dot(x[:f.k], f.gram[a*f.k:(a+1)*f.k]))
	}
	for n, i := range items {
		score, p := f.score(x, int(i)), f.target(values[n])
		sum += float64((1+f.alpha)*(score-p)*(score-p)) - float64(score*score)
	}
	return sum, f.items()
}

// slope is the gradient of J at the users' best factors, without the items' regularisation of implicit feedback, which is nobody's.
type slope struct {
	y, level []float64
	loss     float64 // Σ c·e²
	terms    int     // of it
	sum      float64 // of ratings
}

// gradient adds up the gradients of the users of a table.
func (f *factors) gradient(ctx context.Context, t recommend.Table) (*slope, error) {
	g := &slope{y: make([]float64, len(f.y)), level: make([]float64, len(f.level))}
	var s solver
	x := make([]float64, f.k+1)
	second := make([]float64, f.k*f.k) // Σ_u x xᵀ
	for u := range t.Len() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		items, values := t.Row(u)
		if err := f.user(&s, items, values, x); err != nil {
			return nil, err
		}
		loss, terms := f.loss(x, items, values)
		g.loss, g.terms = g.loss+loss, g.terms+terms
		if f.implicit {
			f.implicitly(g, x, items, values, second)
			continue
		}
		for n, i := range items {
			e := f.score(x, int(i)) - float64(values[n])
			g.sum += float64(values[n])
			y, to := f.row(int(i)), g.y[int(i)*f.k:(int(i)+1)*f.k]
			for j := range to {
				to[j] += float64(e*x[j]) + float64(f.lambda*y[j])
			}
			g.level[i] += e + float64(f.lambda*(f.level[i]-f.mean))
		}
	}
	if f.implicit { // the pairs that nobody rated: Σ_u ŝ_ui·x_u = (Σ_u x xᵀ)·y_i
		for i := range f.items() {
			y, to := f.row(i), g.y[i*f.k:(i+1)*f.k]
			for j := range to {
				to[j] += dot(second[j*f.k:(j+1)*f.k], y)
			}
		}
	}
	return g, nil
}

// implicitly adds what a user's rated items add beyond all pairs having c = 1 and p = 0.
func (f *factors) implicitly(g *slope, x []float64, items []int32, values []float32, second []float64) {
	for a := range f.k {
		for b := range f.k {
			second[a*f.k+b] += float64(x[a] * x[b])
		}
	}
	for n, i := range items {
		score := f.score(x, int(i))
		e := (1+f.alpha)*(score-f.target(values[n])) - score
		to := g.y[int(i)*f.k : (int(i)+1)*f.k]
		for j := range to {
			to[j] += float64(e * x[j])
		}
	}
}

// sweep makes one round of alternating least squares: the users' best factors, then the items' best for these. Neither raises J.
// It returns Σ c·e² between the two, and how many terms it has.
func (f *factors) sweep(ctx context.Context, t recommend.Table) (loss float64, terms int, err error) {
	f.mean, f.gram = 0, nil
	for _, v := range t.Values {
		f.mean += float64(v) / float64(len(t.Values))
	}
	x, err := f.users(ctx, t)
	if err != nil {
		return 0, 0, err
	}
	for u := range t.Len() {
		items, values := t.Row(u)
		l, n := f.loss(x[u*(f.k+1):(u+1)*(f.k+1)], items, values)
		loss, terms = loss+l, terms+n
	}
	return loss, terms, f.fitItems(ctx, t, x)
}

// fitItems sets the items' factors and levels to the best for those of the users x, [users, k+1].
func (f *factors) fitItems(ctx context.Context, t recommend.Table, x []float64) error {
	start, users, values := byItem(t, f.items())
	var gram []float64
	if f.implicit {
		all := make([]float64, 0, t.Len()*f.k)
		for u := range t.Len() {
			all = append(all, x[u*(f.k+1):u*(f.k+1)+f.k]...)
		}
		gram = gramOf(all, f.k)
	}
	var s solver
	z := make([]float64, f.k+1)
	for i := range f.items() {
		if err := ctx.Err(); err != nil {
			return err
		}
		rated, given := users[start[i]:start[i+1]], values[start[i]:start[i+1]]
		clear(z)
		if len(rated) > 0 {
			if f.implicit {
				s.reset(f.k, gram, f.lambda)
			} else {
				s.reset(f.k+1, nil, f.lambda*float64(len(rated)))
			}
			for n, u := range rated {
				xu := x[int(u)*(f.k+1) : (int(u)+1)*(f.k+1)]
				if f.implicit {
					s.add(xu[:f.k], f.alpha, (1+f.alpha)*f.target(given[n]))
				} else {
					s.add(s.withOne(xu[:f.k]), 1, float64(given[n])-f.mean-xu[f.k])
				}
			}
			if err := s.solve(z[:s.n]); err != nil {
				return err
			}
		}
		copy(f.row(i), z)
		if !f.implicit {
			f.level[i] = f.mean + z[f.k]
		}
	}
	f.gram = nil
	return nil
}

// users returns the factors and levels of all users of a table, [users, k+1].
func (f *factors) users(ctx context.Context, t recommend.Table) ([]float64, error) {
	var s solver
	x := make([]float64, t.Len()*(f.k+1))
	for u := range t.Len() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		items, values := t.Row(u)
		if err := f.user(&s, items, values, x[u*(f.k+1):(u+1)*(f.k+1)]); err != nil {
			return nil, err
		}
	}
	return x, nil
}

// byItem turns a table round: the ratings of item i are entries start[i] to start[i+1].
func byItem(t recommend.Table, items int) (start, users []int32, values []float32) {
	start = make([]int32, items+1)
	for _, i := range t.Items {
		start[i+1]++
	}
	for i := range items {
		start[i+1] += start[i]
	}
	next := slices.Clone(start)
	users, values = make([]int32, len(t.Items)), make([]float32, len(t.Items))
	for u := range t.Len() {
		rated, given := t.Row(u)
		for n, i := range rated {
			users[next[i]], values[next[i]] = int32(u), given[n]
			next[i]++
		}
	}
	return start, users, values
}

// predictor scores items by a factorisation.
type predictor struct {
	*factors
	solver
	x []float64
}

func newPredictor(f *factors) *predictor { return &predictor{factors: f, x: make([]float64, f.k+1)} }

// Score implements [recommend.Scorer]: with the factors that fit the user's ratings best.
func (p *predictor) Score(_ int, rated []int32, values []float32, items []int32, dst []float32) {
	if err := p.user(&p.solver, rated, values, p.x); err != nil {
		clear(p.x) // as for a user without ratings
	}
	for n, i := range items {
		dst[n] = float32(p.factors.score(p.x, int(i)))
	}
}
