package mismatch

import (
	"cmp"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/parallel"
	"gonum.org/v1/gonum/blas/blas64"
)

// binPlan is a plan of n rows and B bins of labels (the specification's MSL-bin): O(nB) memory and time a sweep. Bins of classes
// are the classes. Bins of numbers are h = σ̂/2 wide; one with n_b labels of mean c_b and variance v_b has the kernel
//
//	K_ib = (α n_b/(m−1)) · (σ²/(σ²+v_b))^½ · exp(−(c_b−f_i)²/(2(σ²+v_b)))
//
// and a row's own label one more entry, o_i = (1−α)·exp(−(y_i−f_i)²/(2σ²)). With K̄ = K + o at the row's own bin, sweeps
// u = 1/(K̄v), v = n_b/(K̄ᵀu) give every bin as much as it has labels; that own labels stand in single file is relaxed.
// A clue s_ij about another label is an entry of its own, too, exp(s_ij) − exp(rest_i) times what the label has in its bin.
// Within a bin the posterior label has mean m_ib = clip((σ²c_b + v_b f_i)/(σ²+v_b), bin) and variance v_bσ²/(σ²+v_b).
type binPlan struct {
	*block
	l *layout

	bins  []bin
	of    []int   // bin of each label of the block
	width float64 // h of the bins; 0 for classes

	kernel []float64   // rows·B, other labels, each row divided by its largest entry
	mine   []float64   // o_i on the same scale
	hints  [][]float64 // by row the entries of its clues on the same scale, 0 for its own label's; nil without evidence
	aside  []float64   // the dustbin's column on the same scale; 0 without one
	u, v   []float64   // v: bins, then the dustbin
	cap    []float64   // of the columns
	dust   []float64   // kernel of the dustbin's row, by bin; nil without one
	dustR  float64     // its capacity
	dustU  float64     // its scaling
	parts  [][]float64 // column sums by chunk of rows
}

// bin is a set of labels that are treated alike.
type bin struct {
	count, mean, spread float64 // spread is the variance within
	low, high           float64
}

// Bins are at most binLimit, so that memory is bounded however small the noise. A kernel entry below leastKernel of the row's
// largest is raised to it: any label can be used up.
const (
	binLimit    = 2048
	leastKernel = 1e-200
	binChunk    = 1024
)

// arrange makes the bins for a noise, unless those that there are will do.
func (p *binPlan) arrange(noise float64) {
	if p.l.classes != nil {
		if p.bins == nil {
			p.arrangeClasses()
		}
		return
	}
	h := math.Sqrt(noise) / 2
	if p.bins != nil && math.Abs(h-p.width) <= 0.05*p.width {
		return
	}
	y := p.l.y.RawMatrix().Data
	low, high := math.Inf(1), math.Inf(-1)
	for _, j := range p.labels {
		low, high = min(low, y[j]), max(high, y[j])
	}
	p.width = h
	h = max(h, (high-low)/binLimit)
	all := make([]bin, 1)
	if high > low {
		all = make([]bin, int((high-low)/h)+1)
	}
	p.of = make([]int, len(p.labels))
	for c, j := range p.labels {
		if high > low {
			p.of[c] = min(int((y[j]-low)/h), len(all)-1)
		}
		b := &all[p.of[c]]
		if b.count == 0 {
			b.low, b.high = y[j], y[j]
		}
		b.low, b.high = min(b.low, y[j]), max(b.high, y[j])
		b.count++
		b.mean += (y[j] - b.mean) / b.count
	}
	for c, j := range p.labels {
		b := &all[p.of[c]]
		d := y[j] - b.mean
		b.spread += d * d / b.count
	}
	p.keepFilled(all)
}

func (p *binPlan) arrangeClasses() {
	all := make([]bin, p.l.k)
	p.of = make([]int, len(p.labels))
	for c, j := range p.labels {
		p.of[c] = p.l.classes[j]
		all[p.of[c]].count++
	}
	for c := range all {
		all[c].mean = float64(c)
	}
	p.keepFilled(all)
}

// keepFilled removes empty bins and makes room for a plan of those that are left.
func (p *binPlan) keepFilled(all []bin) {
	to := make([]int, len(all))
	p.bins = p.bins[:0]
	for b := range all {
		to[b] = len(p.bins)
		if all[b].count > 0 {
			p.bins = append(p.bins, all[b])
		}
	}
	for c := range p.of {
		p.of[c] = to[p.of[c]]
	}
	n := len(p.rows) * len(p.bins)
	if cap(p.kernel) < n {
		p.kernel = make([]float64, n)
	}
	p.kernel = p.kernel[:n]
	p.mine, p.aside, p.u = make([]float64, len(p.rows)), make([]float64, len(p.rows)), make([]float64, len(p.rows))
	if p.clues != nil && p.hints == nil {
		p.hints = make([][]float64, len(p.rows))
		for r, c := range p.clues {
			p.hints[r] = make([]float64, len(c))
		}
	}
	p.v, p.cap = make([]float64, len(p.bins)+1), make([]float64, len(p.bins)+1)
	for b := range p.v {
		p.v[b] = 1
	}
	p.parts = make([][]float64, (len(p.rows)+binChunk-1)/binChunk)
	for at := range p.parts {
		p.parts[at] = make([]float64, len(p.bins)+1)
	}
}

// fill writes the kernel for b.
func (p *binPlan) fill(b *belief, threads int) {
	p.arrange(b.noise)
	dustRows, dustLabels := p.block.dust(b.unmatched)
	p.dustR, p.dust = dustLabels, nil
	for c, n := range p.bins {
		p.cap[c] = n.count
	}
	p.cap[len(p.bins)] = dustRows
	if dustLabels > 0 {
		p.dust = make([]float64, len(p.bins))
		for c, j := range p.labels {
			p.dust[p.of[c]] += math.Exp(p.l.background(j, b.noise))
		}
	}
	labels := float64(len(p.labels))
	// The logarithm of everything but the square, and the factor of the square, by bin.
	constant, factor := make([]float64, len(p.bins)), make([]float64, len(p.bins))
	for c, n := range p.bins {
		constant[c], factor[c] = math.Log(n.count), -1/(2*(b.noise+n.spread))
		if p.l.classes == nil {
			constant[c] += 0.5 * math.Log(b.noise/(b.noise+n.spread))
		}
	}
	other, own, none := math.Log(b.alpha/max(1, labels-1)), math.Log1p(-b.alpha), -math.Log(labels)
	parallel.Chunks(len(p.rows), binChunk, threads, func(_, lo, hi int) {
		l := make([]float64, len(p.bins))
		for r := lo; r < hi; r++ {
			f := b.f.RawRowView(p.rows[r])
			prior, mine, aside := none, math.Inf(-1), math.Inf(-1)
			if j := p.own[r]; j >= 0 {
				known, _ := p.known(r)
				prior, mine = other, own+known+p.likelihood(p.labels[j], f, b.noise)
			}
			if dustRows > 0 { // a row is as likely to have another label as to have none, wherever it came from
				aside = prior + math.Log(labels)
			}
			top := max(mine, aside)
			if p.clues != nil {
				top = max(top, p.hint(r, prior, f, b.noise))
				prior += p.rest[r]
			}
			for c := range l {
				if p.l.classes != nil {
					l[c] = prior + constant[c] + f[int(p.bins[c].mean)]
				} else {
					d := p.bins[c].mean - f[0]
					l[c] = prior + constant[c] + factor[c]*d*d
				}
				top = max(top, l[c])
			}
			k := p.kernel[r*len(l) : (r+1)*len(l)]
			for c, x := range l {
				k[c] = 0
				if !math.IsInf(x, -1) {
					k[c] = max(math.Exp(x-top), leastKernel)
				}
			}
			p.mine[r], p.aside[r] = math.Exp(mine-top), math.Exp(aside-top)
			if p.clues != nil {
				exponentials(p.hints[r], top)
			}
		}
	})
}

// hint writes the logarithms of the entries of the r-th row's clues and returns the largest.
func (p *binPlan) hint(r int, prior float64, f []float64, noise float64) float64 {
	top := math.Inf(-1)
	for c, k := range p.clues[r] {
		p.hints[r][c] = math.Inf(-1)
		if more := k.odds - p.rest[r]; more > 0 && k.at != p.own[r] {
			p.hints[r][c] = prior + k.odds + math.Log(-math.Expm1(-more)) + p.likelihood(p.labels[k.at], f, noise)
			top = max(top, p.hints[r][c])
		}
	}
	return top
}

// eachHint calls f for the entries of the r-th row's clues: what they weigh, and the place of the label.
func (p *binPlan) eachHint(r int, f func(w float64, at int)) {
	if p.hints == nil {
		return
	}
	for c, w := range p.hints[r] {
		if w > 0 {
			f(w, p.clues[r][c].at)
		}
	}
}

// likelihood returns log p(y_j|f) up to what is common to all.
func (p *binPlan) likelihood(j int, f []float64, noise float64) float64 {
	if p.l.classes != nil {
		return f[p.l.classes[j]]
	}
	d := p.l.y.At(j, 0) - f[0]
	return -d * d / (2 * noise)
}

// rowSum returns (K̄v)_r, the dustbin included.
func (p *binPlan) rowSum(r int) float64 {
	n := len(p.bins)
	sum := blas64.Dot(blas64.Vector{N: n, Inc: 1, Data: p.kernel[r*n : (r+1)*n]}, blas64.Vector{N: n, Inc: 1, Data: p.v}) + p.aside[r]*p.v[n]
	if j := p.own[r]; j >= 0 {
		sum += p.mine[r] * p.v[p.of[j]]
	}
	p.eachHint(r, func(w float64, at int) { sum += w * p.v[p.of[at]] })
	return sum
}

// sweep makes u = 1/(K̄v) and v = v^(1−ω)·(n_b/(K̄ᵀu))^ω in one pass over the rows, and returns the largest error of a row sum that
// there was before. With ω = 1 columns are exact after it. Rows are added by chunks that do not depend on threads.
func (p *binPlan) sweep(omega float64, threads int) float64 {
	n := len(p.bins)
	worst := make([]float64, len(p.parts))
	parallel.Chunks(len(p.rows), binChunk, threads, func(at, lo, hi int) {
		sum := blas64.Vector{N: n, Inc: 1, Data: p.parts[at]}
		clear(p.parts[at])
		for r := lo; r < hi; r++ {
			d := max(p.rowSum(r), 1e-300)
			worst[at] = max(worst[at], math.Abs(p.u[r]*d-1))
			u := 1 / d
			p.u[r] = u
			blas64.Axpy(u, blas64.Vector{N: n, Inc: 1, Data: p.kernel[r*n : (r+1)*n]}, sum)
			sum.Data[n] += u * p.aside[r]
			if j := p.own[r]; j >= 0 {
				sum.Data[p.of[j]] += u * p.mine[r]
			}
			p.eachHint(r, func(w float64, at int) { sum.Data[p.of[at]] += u * w })
		}
	})
	total := make([]float64, n+1)
	for _, part := range p.parts {
		for c, x := range part {
			total[c] += x
		}
	}
	if p.dust != nil {
		d := 1e-300
		for c, x := range p.dust {
			d += x * p.v[c]
		}
		p.dustU = p.dustR / d
		for c, x := range p.dust {
			total[c] += p.dustU * x
		}
	}
	for c, was := range p.v {
		p.v[c] = 0
		if p.cap[c] > 0 {
			p.v[c] = p.cap[c] / max(total[c], 1e-300)
			if omega != 1 && was > 0 {
				p.v[c] = was * math.Pow(p.v[c]/was, omega)
			}
		}
	}
	return slices.Max(worst)
}

// solve implements [plan].
func (p *binPlan) solve(b *belief, out *posterior, threads int) (float64, int) {
	p.fill(b, threads)
	for r := range p.u {
		p.u[r] = 0
	}
	worst, made := 0.0, 0
	sweeps, tolerance := b.goal(len(p.kernel), 10, 0, 0)
	for ; made < sweeps; made++ {
		if worst = p.sweep(1, threads); made > 0 && worst < tolerance {
			break
		}
	}
	if sweeps, tolerance = b.goal(len(p.kernel), 10, made, worst); sweeps > 0 {
		more := 0
		worst, more = p.polish(sweeps, tolerance, threads)
		made += more
	}
	parallel.Chunks(len(p.rows), binChunk, threads, func(_, lo, hi int) {
		for r := lo; r < hi; r++ {
			p.read(b, out, r)
		}
	})
	return worst, made
}

// polish sweeps on with over-relaxation, which shortens the long tail of sweeps (Thibault et al., arXiv 1711.01851): batches of 18
// sweeps with ω = 1.7 and two plain ones, that columns are exact again. A batch that made things worse halves what ω is above 1.
func (p *binPlan) polish(sweeps int, tolerance float64, threads int) (worst float64, made int) {
	omega, before := 1.7, math.Inf(1)
	for made < sweeps {
		for range 18 {
			p.sweep(omega, threads)
		}
		p.sweep(1, threads)
		worst = p.sweep(1, threads)
		if made += 20; worst < tolerance {
			break
		}
		if !(worst < before) {
			omega = (omega + 1) / 2
		}
		before = worst
	}
	return worst, made
}

// read writes the posterior of the block's r-th row.
func (p *binPlan) read(b *belief, out *posterior, r int) {
	i, n := p.rows[r], len(p.bins)
	soft, f := out.soft.RawRowView(i), b.f.RawRowView(i)
	clear(soft)
	out.cost[i], out.entropy[i] = 0, 0
	total := p.rowSum(r)
	real := total - p.aside[r]*p.v[n]
	out.mass[i], out.own[i] = real/total, 0
	if !(real > 0) {
		out.mass[i] = 0
		return
	}
	add := func(w float64, c int, label, spread float64) {
		if w == 0 {
			return
		}
		if p.l.classes != nil {
			soft[int(p.bins[c].mean)] += w
			return
		}
		soft[0] += w * label
		d := label - f[0]
		out.cost[i] += w * (d*d + spread)
	}
	for c := range p.bins {
		k := &p.bins[c]
		w := p.kernel[r*n+c] * p.v[c] / real
		label, spread := 0.0, 0.0
		if p.l.classes == nil {
			label = min(max((b.noise*k.mean+k.spread*f[0])/(b.noise+k.spread), k.low), k.high)
			spread = k.spread * b.noise / (b.noise + k.spread)
		}
		add(w, c, label, spread)
		if w > 0 { // a bin's mass is spread over its labels
			out.entropy[i] -= w * math.Log(w/k.count)
		}
	}
	one := func(w float64, at int) float64 { // a label with an entry of its own
		w *= p.v[p.of[at]] / real
		label := 0.0
		if p.l.classes == nil {
			label = p.l.y.At(p.labels[at], 0)
		}
		add(w, p.of[at], label, 0)
		if w > 0 {
			out.entropy[i] -= w * math.Log(w)
		}
		return w
	}
	if j := p.own[r]; j >= 0 {
		out.own[i] = one(p.mine[r], j) * real / total
	}
	p.eachHint(r, func(w float64, at int) { one(w, at) })
}

// pair implements [plan]. Rows that believe in their own label more than not keep it, then those that believe so in another by a clue get
// that, the surest first; the others share out what is left: numbers by rank, classes to the rows that are surest of them. With a
// dustbin the rows least sure of any label get none.
func (p *binPlan) pair(b *belief, of []int) {
	taken := make([]bool, len(p.labels))
	type wish struct {
		r, at int
		w     float64
	}
	var wishes []wish
	for r, i := range p.rows {
		of[i] = -1
		total := p.rowSum(r)
		if j := p.own[r]; j >= 0 && 2*p.mine[r]*p.v[p.of[j]] > total {
			of[i], taken[j] = p.labels[j], true
			continue
		}
		p.eachHint(r, func(w float64, at int) {
			if w *= p.v[p.of[at]] / total; w > .5 {
				wishes = append(wishes, wish{r, at, w})
			}
		})
	}
	slices.SortStableFunc(wishes, func(x, y wish) int { return cmp.Compare(y.w, x.w) })
	for _, w := range wishes {
		if !taken[w.at] {
			of[p.rows[w.r]], taken[w.at] = p.labels[w.at], true
		}
	}
	var rest []int
	for r, i := range p.rows {
		if of[i] < 0 {
			rest = append(rest, r)
		}
	}
	var labels []int
	for c, j := range p.labels {
		if !taken[c] {
			labels = append(labels, j)
		}
	}
	slices.SortStableFunc(rest, func(x, y int) int { return cmp.Compare(p.doubt(x), p.doubt(y)) })
	rest = rest[:min(len(rest), len(labels))]
	if p.l.classes != nil {
		p.pairClasses(rest, labels, of)
		return
	}
	rows := make([]int, len(rest))
	for c, r := range rest {
		rows[c] = p.rows[r]
	}
	matchSorted(rows, p.nearest(labels, rows), b.f.RawMatrix().Data, p.l.y.RawMatrix().Data, of)
}

// doubt is the share of a row that lies in the dustbin.
func (p *binPlan) doubt(r int) float64 { return p.aside[r] * p.v[len(p.bins)] / p.rowSum(r) }

// nearest returns as many of the labels as there are rows: it drops from the bins that gave most to the dustbin's row first.
func (p *binPlan) nearest(labels, rows []int) []int {
	if len(labels) == len(rows) {
		return labels
	}
	share := func(j int) float64 {
		c := p.of[p.place(j)]
		return p.dustU * p.dust[c] * p.v[c] / p.cap[c]
	}
	kept := slices.Clone(labels)
	slices.SortStableFunc(kept, func(x, y int) int { return cmp.Compare(share(x), share(y)) })
	return kept[:len(rows)]
}

// place returns where a label stands in the block.
func (p *binPlan) place(j int) int {
	at, _ := slices.BinarySearch(p.labels, j)
	return at
}

// pairClasses gives each of the labels to a row: in the order of how sure rows are of a class, while there are labels of it.
func (p *binPlan) pairClasses(rest, labels []int, of []int) {
	byClass := make([][]int, len(p.bins))
	for _, j := range labels {
		c := p.of[p.place(j)]
		byClass[c] = append(byClass[c], j)
	}
	n := len(p.bins)
	type wish struct {
		r, c int
		w    float64
	}
	wishes := make([]wish, 0, len(rest)*n)
	for _, r := range rest {
		total := p.rowSum(r)
		for c := range n {
			wishes = append(wishes, wish{r, c, p.kernel[r*n+c] * p.v[c] / total})
		}
	}
	slices.SortStableFunc(wishes, func(a, b wish) int { return cmp.Compare(b.w, a.w) })
	for _, w := range wishes {
		if i := p.rows[w.r]; of[i] < 0 && len(byClass[w.c]) > 0 {
			of[i] = byClass[w.c][0]
			byClass[w.c] = byClass[w.c][1:]
		}
	}
}
