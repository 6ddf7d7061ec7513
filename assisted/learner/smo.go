package learner

import (
	"container/list"
	"context"
	"fmt"
	"math"
	"sync"

	"gonum.org/v1/gonum/mat"
)

// kernelBytes bounds the rows of a kernel matrix that are kept.
const kernelBytes = 256 << 20

// kernel computes rows of the Gaussian kernel matrix of z and keeps those that were used last.
type kernel struct {
	z     *mat.Dense
	gamma float64
	n     int
	most  int // rows that may be kept

	mu    sync.Mutex
	rows  map[int]*list.Element
	order *list.List // of kept rows, the most recently used first
}

type kernelRow struct {
	i int
	v []float64
}

func newKernel(z *mat.Dense, gamma float64) *kernel {
	n, _ := z.Dims()
	return &kernel{z: z, gamma: gamma, n: n, most: max(2, kernelBytes/8/n), rows: map[int]*list.Element{}, order: list.New()}
}

// roomy reports whether all rows can be kept.
func (k *kernel) roomy() bool { return k.most >= k.n }

// row returns K(z_i, ·), which nobody may write.
func (k *kernel) row(i int) []float64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e, ok := k.rows[i]; ok {
		k.order.MoveToFront(e)
		return e.Value.(*kernelRow).v
	}
	for len(k.rows) >= k.most {
		last := k.order.Back()
		k.order.Remove(last)
		delete(k.rows, last.Value.(*kernelRow).i)
	}
	v := make([]float64, k.n)
	zi := k.z.RawRowView(i)
	for j := range v {
		v[j] = math.Exp(-k.gamma * squaredDistance(zi, k.z.RawRowView(j)))
	}
	k.rows[i] = k.order.PushFront(&kernelRow{i, v})
	return v
}

// pairwise is the state of sequential minimal optimisation. β = alpha[0] − alpha[1], both in [0, bound]; rest is y − Kβ. A
// pair (side, row) has the value rest − ε on side 0 and rest + ε on side 1: the solution is optimal if no
// value that may grow exceeds one that may shrink.
type pairwise struct {
	k       *kernel
	epsilon float64
	bound   []float64
	alpha   [2][]float64
	rest    []float64
}

// tolerance ends the optimisation: by so much may values still exceed one another, in units of the targets.
const tolerance = 1e-5

func newPairwise(k *kernel, y, bound []float64, epsilon float64) *pairwise {
	p := &pairwise{k: k, epsilon: epsilon, bound: bound, rest: y}
	p.alpha = [2][]float64{make([]float64, len(y)), make([]float64, len(y))}
	return p
}

func (p *pairwise) value(side, i int) float64 {
	if side == 0 {
		return p.rest[i] - p.epsilon
	}
	return p.rest[i] + p.epsilon
}

// room returns by how much β_i may grow (up) or shrink through alpha[side].
func (p *pairwise) room(side, i int, up bool) float64 {
	if (side == 0) == up {
		return p.bound[i] - p.alpha[side][i]
	}
	return p.alpha[side][i]
}

// run optimises until no pair violates the conditions by more than the tolerance.
func (p *pairwise) run(ctx context.Context) error {
	limit := max(10_000_000, 200*p.k.n)
	for step := range limit {
		if step%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		side, i, top := p.highest()
		if i < 0 {
			return nil
		}
		other, j, bottom := p.partner(i, top)
		if j < 0 || top-bottom < tolerance {
			return nil
		}
		p.move(side, i, other, j)
	}
	return fmt.Errorf("support vector regression has not converged in %d steps; give it a smaller c", limit)
}

// highest returns the greatest value that may grow; i is −1 if there is none.
func (p *pairwise) highest() (side, i int, value float64) {
	i, value = -1, math.Inf(-1)
	for s := range 2 {
		for t := range p.rest {
			if v := p.value(s, t); v > value && p.room(s, t, true) > 0 {
				side, i, value = s, t, v
			}
		}
	}
	return side, i, value
}

// partner returns, of those that may shrink, the one with which row i of the given value gains most, and the lowest value.
func (p *pairwise) partner(i int, value float64) (side, j int, lowest float64) {
	j, lowest = -1, math.Inf(1)
	row := p.k.row(i)
	best := 0.0
	for s := range 2 {
		for t := range p.rest {
			if p.room(s, t, false) <= 0 {
				continue
			}
			v := p.value(s, t)
			lowest = min(lowest, v)
			if gap := value - v; gap > 0 {
				if gain := gap * gap / curvature(row[t]); gain > best {
					side, j, best = s, t, gain
				}
			}
		}
	}
	return side, j, lowest
}

// curvature is that of the objective along β_i + δ, β_j − δ, whose kernel is k.
func curvature(k float64) float64 { return math.Max(2-2*k, 1e-12) }

// move moves weight from one pair to another as far as it helps and the bounds allow.
func (p *pairwise) move(side, i, other, j int) {
	a, b := p.k.row(i), p.k.row(j)
	delta := (p.value(side, i) - p.value(other, j)) / curvature(a[j])
	delta = min(delta, p.room(side, i, true), p.room(other, j, false))
	p.shift(side, i, delta)
	p.shift(other, j, -delta)
	for t := range p.rest {
		p.rest[t] -= float64(delta * (a[t] - b[t]))
	}
}

// shift adds delta to β_i through alpha[side], and ends exactly at a bound that is reached.
func (p *pairwise) shift(side, i int, delta float64) {
	room := p.room(side, i, delta > 0)
	at := &p.alpha[side][i]
	switch up := (side == 0) == (delta > 0); {
	case math.Abs(delta) < room && up:
		*at += math.Abs(delta)
	case math.Abs(delta) < room:
		*at -= math.Abs(delta)
	case up:
		*at = p.bound[i]
	default:
		*at = 0
	}
}

// bias returns b: the mean value of coefficients strictly between their bounds, or the middle of what is allowed.
func (p *pairwise) bias() float64 {
	var sum float64
	count := 0
	top, bottom := math.Inf(-1), math.Inf(1)
	for s := range 2 {
		for t := range p.rest {
			v := p.value(s, t)
			up, down := p.room(s, t, true) > 0, p.room(s, t, false) > 0
			if up && down {
				sum += v
				count++
			}
			if up {
				top = max(top, v)
			}
			if down {
				bottom = min(bottom, v)
			}
		}
	}
	if count > 0 {
		return sum / float64(count)
	}
	return (top + bottom) / 2
}
