package mismatch

import (
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/parallel"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/mat"
)

// MarginError tells that a plan's row sums are too far from what they should be.
type MarginError struct {
	Worst  float64 // largest relative error of a row sum
	Sweeps int
}

func (e *MarginError) Error() string {
	return fmt.Sprintf("mismatch: after %d sweeps a row of the plan still adds up to 1 ± %.2g; allow more sweeps, or look for labels "+
		"that no prediction comes near", e.Sweeps, e.Worst)
}

// marginLimit is the largest error of a row sum with which a result is given.
const marginLimit = 1e-3

// transport finds P = diag(u)·exp(L)·diag(v) with given row and column sums by Sinkhorn sweeps: u = r/(Kv), v = c/(Kᵀu). The
// kernel is K_ij = exp(L_ij + b_j − max_j(L_ij + b_j)), where b are the columns' potentials of the sweeps before, so that what
// underflows is nothing; when scalings grow out of bounds they move into the potentials by one sweep of logarithms.
type transport struct {
	rows, cols int
	l          []float64 // logarithm of the kernel, rows·cols
	kernel     []float64
	r, c       []float64
	b          []float64 // log potentials of the columns, kept from call to call
	u, v       []float64
	den        []float64
	bethe      *betheLinks // entries that are counted by Bethe's entropy; nil: none
	threads    int
}

// extreme is where scalings move into the potentials.
const extreme = 1e100

// size makes room; what it held is lost but for b, which is kept if it fits.
func (t *transport) size(rows, cols int) {
	t.rows, t.cols = rows, cols
	grow := func(s *[]float64, n int) {
		if cap(*s) < n {
			*s = make([]float64, n)
		}
		*s = (*s)[:n]
	}
	grow(&t.l, rows*cols)
	grow(&t.kernel, rows*cols)
	grow(&t.r, rows)
	grow(&t.u, rows)
	grow(&t.den, max(rows, cols))
	grow(&t.c, cols)
	grow(&t.v, cols)
	if len(t.b) != cols {
		t.b = make([]float64, cols)
	}
}

// anneal brings the potentials near where they belong when the kernel spans many orders: it solves exp(L/s) for s falling by halves
// to 2, each from the potentials of the last. Powers of two leave the bits of L as they are.
func (t *transport) anneal() {
	span := 0.0
	for i := range t.rows {
		low, high := math.Inf(1), math.Inf(-1)
		for _, x := range t.l[i*t.cols : (i+1)*t.cols] {
			if !math.IsInf(x, -1) {
				low, high = min(low, x), max(high, x)
			}
		}
		span = max(span, high-low)
	}
	steps := 0
	for ; span > annealSpan; span /= 2 {
		steps++
	}
	scale := func(v []float64, by float64) {
		for i := range v {
			v[i] *= by
		}
	}
	scale(t.l, math.Ldexp(1, -steps))
	for range steps {
		t.solve(100, 1e-3)
		scale(t.l, 2)
		scale(t.b, 2)
		if t.bethe != nil {
			scale(t.bethe.log, 2)
		}
	}
}

// annealSpan is the logarithm of the largest ratio of a row's entries with which a solution needs no annealing.
const annealSpan = 50

const (
	rowChunk    = 64
	columnChunk = 256
)

// solve sweeps until the largest relative error of a row sum is below tolerance. Column sums are exact. It returns the error
// and the sweeps made.
func (t *transport) solve(sweeps int, tolerance float64) (float64, int) {
	t.exponentiate()
	for s := 0; ; s++ {
		if bad := t.rowSums(); bad {
			t.sweepLogarithms()
			t.rowSums()
		}
		if s > 0 {
			worst := 0.0
			for i, d := range t.den[:t.rows] {
				if t.r[i] > 0 {
					worst = max(worst, math.Abs(t.u[i]*d/t.r[i]-1))
				}
			}
			if worst < tolerance || s >= sweeps {
				t.keep()
				return worst, s
			}
		}
		for i, d := range t.den[:t.rows] {
			t.u[i] = t.r[i] / max(d, math.SmallestNonzeroFloat64)
		}
		if bad := t.columnSums(); bad {
			t.sweepLogarithms()
		}
	}
}

// keep moves the scalings into the potentials for the next call; v stays, for whoever reads the plan.
func (t *transport) keep() {
	if t.bethe != nil {
		t.bethe.keep(t.b)
	}
	for j, v := range t.v {
		if v > 0 && !math.IsInf(v, 1) {
			t.b[j] += math.Log(v)
		}
	}
}

// exponentiate makes the kernel at the potentials.
func (t *transport) exponentiate() {
	parallel.Chunks(t.rows, rowChunk, t.threads, func(_, lo, hi int) {
		for i := lo; i < hi; i++ {
			l, k := t.l[i*t.cols:(i+1)*t.cols], t.kernel[i*t.cols:(i+1)*t.cols]
			top := math.Inf(-1)
			for j, x := range l {
				k[j] = x + t.b[j]
				top = max(top, k[j])
			}
			exponentials(k, top)
		}
	})
	t.unscale()
}

// unscale makes all scalings 1, the potentials being in the kernel, and takes the links of Bethe's entropy out of it.
func (t *transport) unscale() {
	for i := range t.u {
		t.u[i] = 1
	}
	for j := range t.v {
		t.v[j] = 1
	}
	if t.bethe != nil {
		t.bethe.takeOut(t)
	}
}

// exponentials replaces x by exp(x − top); a top of −∞ gives zeros.
func exponentials(x []float64, top float64) {
	for j, v := range x {
		d := v - top
		if d > -745 {
			x[j] = math.Exp(d)
		} else {
			x[j] = 0
		}
	}
}

// rowSums computes Kv into den and reports whether a row has no support within reach.
func (t *transport) rowSums() bool {
	v := blas64.Vector{N: t.cols, Inc: 1, Data: t.v}
	parallel.Chunks(t.rows, rowChunk, t.threads, func(_, lo, hi int) {
		for i := lo; i < hi; i++ {
			t.den[i] = blas64.Dot(blas64.Vector{N: t.cols, Inc: 1, Data: t.kernel[i*t.cols : (i+1)*t.cols]}, v)
		}
	})
	if t.bethe != nil {
		t.bethe.addToRows(t.den)
	}
	return t.outOfBounds(t.den[:t.rows])
}

// columnSums computes v = c/(Kᵀu) and reports whether scalings have grown out of bounds.
func (t *transport) columnSums() bool {
	parallel.Chunks(t.cols, columnChunk, t.threads, func(_, lo, hi int) {
		sum := t.den[lo:hi]
		clear(sum)
		for i := range t.rows {
			blas64.Axpy(t.u[i], blas64.Vector{N: hi - lo, Inc: 1, Data: t.kernel[i*t.cols+lo : i*t.cols+hi]},
				blas64.Vector{N: hi - lo, Inc: 1, Data: sum})
		}
	})
	if t.bethe != nil {
		t.bethe.addToColumns(t.den)
	}
	bad := t.outOfBounds(t.den[:t.cols])
	for j, d := range t.den[:t.cols] {
		if t.c[j] == 0 {
			t.v[j] = 0
		} else if d > 0 {
			t.v[j] = t.c[j] / d
		}
	}
	return bad
}

// outOfBounds reports whether a sum is so small or so large that logarithms have to help. A large one is no trouble where it comes
// of a link that nearly all of a row or column goes to.
func (t *transport) outOfBounds(sums []float64) bool {
	most := extreme
	if t.bethe != nil {
		most = math.Inf(1)
	}
	for _, s := range sums {
		if !(s > 1/extreme && s < most) {
			return true
		}
	}
	return false
}

// sweepLogarithms moves the scalings into the potentials, makes one sweep with logarithms, which nothing underflows, and makes
// the kernel anew: a_i = log r_i − log Σ_j exp(L_ij + b_j), b_j = log c_j − log Σ_i exp(L_ij + a_i), K = exp(L + a + b).
func (t *transport) sweepLogarithms() {
	t.keep()
	a, links := t.u, t.bethe
	parallel.Chunks(t.rows, rowChunk, t.threads, func(_, lo, hi int) {
		for i := lo; i < hi; i++ {
			sum := logSum(t.cols, func(j int) float64 {
				if links.has(i, j) {
					return math.Inf(-1)
				}
				return t.l[i*t.cols+j] + t.b[j]
			})
			a[i] = math.Log(t.r[i]) - links.logRow(t, i, sum)
		}
	})
	parallel.Chunks(t.cols, rowChunk, t.threads, func(_, lo, hi int) {
		for j := lo; j < hi; j++ {
			sum := logSum(t.rows, func(i int) float64 {
				if links.has(i, j) {
					return math.Inf(-1)
				}
				return t.l[i*t.cols+j] + a[i]
			})
			if sum = links.logColumn(t, j, sum); !math.IsInf(sum, -1) {
				t.b[j] = math.Log(t.c[j]) - sum
			}
		}
	})
	parallel.Chunks(t.rows, rowChunk, t.threads, func(_, lo, hi int) {
		for i := lo; i < hi; i++ {
			for j := range t.cols {
				t.kernel[i*t.cols+j] = t.l[i*t.cols+j] + t.b[j] + a[i]
			}
			exponentials(t.kernel[i*t.cols:(i+1)*t.cols], 0)
		}
	})
	t.unscale()
}

// logSum returns log Σ exp x(i), −∞ if all are.
func logSum(n int, x func(int) float64) float64 {
	top := math.Inf(-1)
	for i := range n {
		top = max(top, x(i))
	}
	if math.IsInf(top, -1) {
		return top
	}
	sum := 0.0
	for i := range n {
		sum += math.Exp(x(i) - top)
	}
	return top + math.Log(sum)
}

// mass returns P_ij: u_i·K_ij·v_j, of a link in Bethe's entropy what that says.
func (t *transport) mass(i, j int) float64 {
	if t.bethe.has(i, j) {
		return t.bethe.mass(i)
	}
	return t.u[i] * t.kernel[i*t.cols+j] * t.v[j]
}

// share returns P_ij on the scale of its row, before u_i.
func (t *transport) share(i, j int) float64 {
	if t.bethe.has(i, j) {
		return t.bethe.share(i)
	}
	return t.kernel[i*t.cols+j] * t.v[j]
}

// Sinkhorn returns the plan P of row sums 1 and column sums n/m nearest to exp(logKernel), n×m, in relative entropy:
// P = diag(u)·exp(logKernel)·diag(v). With logKernel = −C/τ it minimises Σ P∘C + τ Σ P(log P − 1). Entries of −∞ forbid a pair.
// It sweeps until every row adds up to 1 within tolerance, and returns a [*MarginError] if that takes too many sweeps.
func Sinkhorn(logKernel mat.Matrix, sweeps int, tolerance float64) (*mat.Dense, error) {
	n, m := logKernel.Dims()
	t := &transport{threads: parallel.Threads()}
	t.size(n, m)
	for i := range n {
		t.r[i] = 1
		for j := range m {
			t.l[i*m+j] = logKernel.At(i, j)
		}
	}
	for j := range t.c {
		t.c[j] = float64(n) / float64(m)
	}
	t.anneal()
	if worst, made := t.solve(sweeps, tolerance); !(worst <= tolerance) {
		return nil, &MarginError{worst, made}
	}
	p := mat.NewDense(n, m, nil)
	p.Apply(func(i, j int, _ float64) float64 { return t.mass(i, j) }, p)
	return p, nil
}
