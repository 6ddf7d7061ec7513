package mismatch

import (
	"math"

	"github.com/cohort-learning/cohort/parallel"
	"gonum.org/v1/gonum/mat"
)

// belief is what the E-step reads: predictions and the parameters of the likelihood.
type belief struct {
	f            *mat.Dense // n×k; log probabilities for classes
	noise, alpha float64
	unmatched    float64
	sweeps       int // bound; 0: the plan's own
	tolerance    float64
	last         bool // sweep to the end
}

// goal returns the most sweeps to make with a plan of so many entries, and the error of a row sum to stop at: b's, and the last
// time also as many as cost about a thousand million operations, to a tenth of what is allowed.
func (b *belief) goal(entries, otherwise, made int, worst float64) (sweeps int, tolerance float64) {
	if made == 0 {
		return orElse(b.sweeps, otherwise), b.tolerance
	}
	if b.last && worst > marginLimit/10 {
		return min(max(1_000_000_000/entries, 1000), 50_000), marginLimit / 10
	}
	return 0, 0
}

// posterior is what the E-step writes, by row of the table.
type posterior struct {
	soft    *mat.Dense // n×k: ȳ_i = Σ_j P_ij y_j, over the labels that the row may have
	mass    []float64  // of the row outside the dustbin
	own     []float64  // P_ii
	cost    []float64  // expected ‖y − f_i‖², over the same
	entropy []float64  // −Σ_j p log p of the row, natural log
}

func newPosterior(n, k int) *posterior {
	return &posterior{mat.NewDense(n, k, nil), make([]float64, n), make([]float64, n), make([]float64, n), make([]float64, n)}
}

// plan is the transport of one block.
type plan interface {
	// solve finds the plan for b and writes the posterior of its rows. It returns the largest error of a row sum.
	solve(b *belief, out *posterior, threads int) (worst float64, sweeps int)
	// pair writes the most probable assignment of labels to rows, −1 for none.
	pair(b *belief, of []int)
}

// dust returns the capacities of the dustbin: the column that takes rows, and the row that takes labels. The surplus of the
// longer side, and the share of the rows beside it.
func (b *block) dust(unmatched float64) (rows, labels float64) {
	r, c := float64(len(b.rows)), float64(len(b.labels))
	rows = max(0, r-c) + unmatched*r
	return rows, max(0, c+rows-r)
}

// fullPlan is an n×n plan (MSL-full). With own labels the kernel is
//
//	L_ij = log p(y_j | f_i) + (own label of i: log(1−α); other: log w) + s_ij
//
// and for rows without one log w as well (log(1/m) if there are no others); s_ij is the evidence about the link, 0 without any. In small
// blocks P is what all permutations say, in others own links are counted by Bethe's entropy (see [betheLinks]). With both, w is such
// that P_ii = 1−α where rows and labels say nothing, about 1/(n−1): there are as many fewer ways to deal out labels as there are fewer
// rows that moved.
// The specification's plan, sinkhorn, has w = α/(n−1).
type fullPlan struct {
	*block
	l        *layout
	sinkhorn bool
	b, c     []float64 // potentials, and what [betheLinks] keep, between calls
	// scratch hands out the large arrays, which blocks that are worked on one after another share.
	scratch *pool
}

// solve implements [plan].
func (p *fullPlan) solve(b *belief, out *posterior, threads int) (float64, int) {
	t := p.scratch.take()
	defer p.scratch.put(t)
	p.fill(t, b, threads)
	worst, made := p.sweepOrCount(t, b)
	parallel.Chunks(len(p.rows), rowChunk, threads, func(_, lo, hi int) {
		q := make([]float64, len(p.labels))
		for r := lo; r < hi; r++ {
			p.read(t, b, out, r, q)
		}
	})
	return worst, made
}

// sweepOrCount finds the plan, by sweeps from the potentials of the last call, or from afresh if they are no help.
func (p *fullPlan) sweepOrCount(t *transport, b *belief) (worst float64, made int) {
	if p.exact(b) {
		t.enumerate()
		return 0, 0
	}
	if len(p.b) != t.cols {
		t.anneal()
	}
	worst, made = t.reach(b)
	if worst > astray {
		clear(t.b)
		if t.bethe != nil {
			clear(t.bethe.log)
		}
		t.anneal()
		worst, made = t.reach(b)
	}
	p.b = append(p.b[:0], t.b...)
	if t.bethe != nil {
		p.c = append(p.c[:0], t.bethe.log...)
	}
	return worst, made
}

// reach sweeps to b's goal.
func (t *transport) reach(b *belief) (worst float64, made int) {
	for {
		sweeps, tolerance := b.goal(len(t.l), 50, made, worst)
		if sweeps == 0 {
			return worst, made
		}
		more := 0
		worst, more = t.solve(sweeps, tolerance)
		if made += more; made > sweeps {
			return worst, made
		}
	}
}

// astray is the error of a row sum beyond which the potentials of the last call were no help.
const astray = 0.5

// fill writes the logarithm of the kernel, the capacities and the potentials of the last call.
func (p *fullPlan) fill(t *transport, b *belief, threads int) {
	rows, labels := len(p.rows), len(p.labels)
	dustRows, dustLabels := p.dust(b.unmatched)
	t.threads = threads
	t.size(rows+flag(dustLabels > 0), labels+flag(dustRows > 0))
	copy(t.b, p.b)
	if len(p.b) != t.cols {
		clear(t.b)
	}
	t.bethe = nil
	if p.counted(b) {
		t.bethe = &betheLinks{}
		t.bethe.size(t.rows, t.cols, p.own)
		copy(t.bethe.log, p.c)
	}
	for i := range t.r {
		t.r[i] = 1
	}
	for j := range t.c {
		t.c[j] = 1
	}
	other, own := p.other(b, dustLabels), math.Log1p(-b.alpha)
	none := other
	if p.sinkhorn || p.pairs() == 0 {
		none = -math.Log(float64(labels))
	}
	parallel.Chunks(rows, rowChunk, threads, func(_, lo, hi int) {
		for r := lo; r < hi; r++ {
			l, f := t.l[r*t.cols:(r+1)*t.cols], b.f.RawRowView(p.rows[r])
			prior := other
			if p.own[r] < 0 {
				prior = none
			}
			if p.clues != nil {
				prior += p.rest[r]
			}
			p.likelihoods(l[:labels], f, b.noise, prior)
			if p.clues != nil {
				for _, c := range p.clues[r] {
					l[c.at] += c.odds - p.rest[r]
				}
			}
			if j := p.own[r]; j >= 0 && labels > 1 {
				l[j] += own - other
				if b.alpha == 0 {
					l[j] = p.likelihood(p.labels[j], f, b.noise)
				}
			}
			if labels < t.cols {
				l[labels] = 0
			}
		}
	})
	if dustRows > 0 {
		t.c[labels] = dustRows
	}
	if dustLabels > 0 {
		t.r[rows] = dustLabels
		l := t.l[rows*t.cols:]
		for j, at := range p.labels {
			l[j] = p.l.background(at, b.noise)
		}
		if labels < t.cols {
			l[labels] = math.Inf(-1)
		}
	}
}

// counted reports whether own links are counted by Bethe's entropy.
func (p *fullPlan) counted(b *belief) bool {
	return !p.sinkhorn && b.alpha > 0 && len(p.labels) > 1 && p.pairs() > 0 && !p.exact(b)
}

// pairs counts the rows with a label of their own.
func (b *block) pairs() int {
	n := 0
	for _, j := range b.own {
		n += flag(j >= 0)
	}
	return n
}

// other returns the logarithm of the prior weight of a label that is not the row's own. A moved row chooses among the labels that are
// not with their own row: α(n−1) of n pairs and those, rest, that came with no row, of which the dustbin has its part.
func (p *fullPlan) other(b *belief, dustLabels float64) float64 {
	pairs := p.pairs()
	rest := float64(len(p.rows)-pairs) + dustLabels
	switch {
	case p.sinkhorn || pairs == 0 || b.alpha == 0 || len(p.labels) < 2:
		return math.Log(b.alpha / float64(max(1, len(p.labels)-1)))
	case p.exact(b):
		return fairWeight(b.alpha, pairs, int(rest))
	}
	return math.Log(b.alpha / (b.alpha*float64(pairs-1) + rest))
}

// likelihood returns log p(y_j|f) up to what is common to all: −‖y_j−f‖²/(2σ²), or log p_θ(class of j).
func (p *fullPlan) likelihood(j int, f []float64, noise float64) float64 {
	if p.l.classes != nil {
		return f[p.l.classes[j]]
	}
	return -distance(p.l.y.RawRowView(j), f) / (2 * noise)
}

func (p *fullPlan) likelihoods(out, f []float64, noise, prior float64) {
	if p.l.classes == nil && p.l.k == 1 {
		y, at, scale := p.l.y.RawMatrix().Data, f[0], -1/(2*noise)
		for c, j := range p.labels {
			d := y[j] - at
			out[c] = prior + scale*d*d
		}
		return
	}
	for c, j := range p.labels {
		out[c] = prior + p.likelihood(j, f, noise)
	}
}

// background returns the log density of a label that belongs to no row, on the scale of likelihood: that of all labels, N(ȳ, s²)
// by column, over (2πσ²)^(−k/2); for classes their frequency.
func (l *layout) background(j int, noise float64) float64 {
	if l.classes != nil {
		return math.Log(l.counts[l.classes[j]] / float64(l.m))
	}
	sum := 0.0
	for c, v := range l.y.RawRowView(j) {
		s := max(l.spread[c], 1e-12*l.scale)
		d := v - l.mean[c]
		sum += 0.5*math.Log(noise/s) - d*d/(2*s)
	}
	return sum
}

func distance(a, b []float64) float64 {
	sum := 0.0
	for c, v := range a {
		d := v - b[c]
		sum += d * d
	}
	return sum
}

// read writes the posterior of the block's r-th row. Q is scratch for its labels.
func (p *fullPlan) read(t *transport, b *belief, out *posterior, r int, q []float64) {
	i, labels := p.rows[r], len(p.labels)
	total := 0.0
	for j := range q {
		q[j] = t.share(r, j)
		total += q[j]
	}
	soft, f := out.soft.RawRowView(i), b.f.RawRowView(i)
	clear(soft)
	out.own[i], out.cost[i], out.entropy[i], out.mass[i] = 0, 0, 0, 0
	dust := 0.0
	if labels < t.cols {
		dust = t.kernel[r*t.cols+labels] * t.v[labels]
	}
	if !(total > 0) {
		return
	}
	out.mass[i] = total / (total + dust)
	for j, w := range q {
		if w /= total; w == 0 {
			continue
		}
		y := p.l.y.RawRowView(p.labels[j])
		for c, v := range y {
			soft[c] += w * v
		}
		if p.l.classes == nil {
			out.cost[i] += w * distance(y, f)
		}
		out.entropy[i] -= w * math.Log(w)
	}
	if j := p.own[r]; j >= 0 {
		out.own[i] = q[j] / (total + dust)
	}
}

// pair implements [plan]: the assignment that maximises Σ log P_ij. Rows and labels may go to the dustbin as far as it reaches.
func (p *fullPlan) pair(b *belief, of []int) {
	t := p.scratch.take()
	defer p.scratch.put(t)
	p.fill(t, b, parallel.Threads())
	rows, labels := len(p.rows), len(p.labels)
	if t.rows == rows && t.cols == labels {
		cost := mat.NewDense(rows, labels, nil)
		cost.Apply(func(i, j int, _ float64) float64 { return -t.l[i*t.cols+j] }, cost)
		found, _ := Assign(cost)
		for r, j := range found {
			of[p.rows[r]] = p.labels[j]
		}
		return
	}
	// The dustbin as single places, so that each takes one row or label.
	p.sweepOrCount(t, b)
	dustRows := int(math.Ceil(t.cDust(labels) - 1e-9))
	dustLabels := max(0, labels+dustRows-rows)
	size := rows + dustLabels
	cost := mat.NewDense(size, size, nil)
	cost.Apply(func(i, j int, _ float64) float64 {
		if i >= rows && j >= labels {
			return math.Inf(1)
		}
		return -math.Log(max(t.mass(min(i, t.rows-1), min(j, t.cols-1)), math.SmallestNonzeroFloat64))
	}, cost)
	found, _ := Assign(cost)
	for r, j := range found[:rows] {
		of[p.rows[r]] = -1
		if j < labels {
			of[p.rows[r]] = p.labels[j]
		}
	}
}

// cDust returns the capacity of the dustbin's column, if there is one.
func (t *transport) cDust(labels int) float64 {
	if labels < t.cols {
		return t.c[labels]
	}
	return 0
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

func orElse(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}
