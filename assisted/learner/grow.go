package learner

import (
	"math"
	"slices"
	"sync"

	"github.com/cohort-learning/cohort/parallel"
	"github.com/cohort-learning/cohort/rng"
)

// growth grows one tree on binned features (Breiman, Friedman, Olshen and Stone 1984; histograms as in Ke et al., LightGBM,
// 2017). Every row brings statistics: k sums s, a weight h and a count. A node's score is Σ_c S_c²/(H+damp) over its rows'
// totals S and H; a split is worth score(left) + score(right) − score(node), which for s = w·y and h = w is what it takes
// off the weighted squares. A leaf's value is S/(H+damp).
type growth struct {
	b     *binned
	k     int
	stats []float64 // n rows of k sums, the weight and the count; of width k+1 where weight and count are the same
	width int
	damp  float64

	depth    int         // splits on the longest path
	least    int         // rows of a leaf, at least
	features int         // columns that are drawn at every node; as many as there are columns, or more: all
	random   *rng.Stream // draws them

	// leaf is told of every leaf, in order, and of its rows.
	leaf func(number int, rows []int32)

	floor   float64 // gains up to here are rounding
	offsets []int   // of the columns in a histogram
	spare   [][]float64
	scratch sync.Pool
	buffer  []int32
	tree    tree
}

// run grows a tree on the rows, which it reorders.
func (g *growth) run(rows []int32) tree {
	g.tree = tree{width: g.k}
	g.offsets = make([]int, len(g.b.cuts)+1)
	for j := range g.b.cuts {
		g.offsets[j+1] = g.offsets[j] + (len(g.b.cuts[j])+2)*g.width
	}
	g.floor = 0
	for _, i := range rows {
		s := g.stats[int(i)*g.width:][:g.width]
		if s[g.k] > 0 {
			g.floor += g.score(s)
		}
	}
	g.floor *= 1e-13
	g.buffer = slices.Grow(g.buffer[:0], len(rows))[:len(rows)]
	var hist []float64
	if g.worthwhile(rows) {
		hist = g.histogram(rows)
	}
	g.node(rows, g.depth, hist)
	return g.tree
}

// score returns Σ S²/(H+damp) of totals.
func (g *growth) score(total []float64) float64 {
	var sum float64
	for _, s := range total[:g.k] {
		sum += float64(s * s)
	}
	return sum / math.Max(total[g.k]+g.damp, 1e-300)
}

// worthwhile reports whether a node of these rows should keep the histograms of all columns, so that those of its children
// come by subtraction.
func (g *growth) worthwhile(rows []int32) bool {
	return g.depth > 0 && g.features >= len(g.b.cuts) && 4*len(rows)*len(g.b.cuts)*g.width >= g.offsets[len(g.b.cuts)]
}

// histogram returns the totals of the rows for every bin of every column.
func (g *growth) histogram(rows []int32) []float64 {
	var hist []float64
	if n := len(g.spare); n > 0 {
		hist, g.spare = g.spare[n-1], g.spare[:n-1]
		clear(hist)
	} else {
		hist = make([]float64, g.offsets[len(g.b.cuts)])
	}
	g.each(len(g.b.cuts), len(rows), func(j int) { g.add(hist[g.offsets[j]:g.offsets[j+1]], j, rows) })
	return hist
}

// each calls do for n columns, in parallel if that is much work.
func (g *growth) each(n, rows int, do func(j int)) {
	if n*rows < 1<<15 {
		for j := range n {
			do(j)
		}
		return
	}
	parallel.Do(n, 0, do)
}

// add adds the statistics of the rows to the histogram of column j.
func (g *growth) add(hist []float64, j int, rows []int32) {
	bins := g.b.bins[j]
	switch g.width { // the usual ones without a loop
	case 2:
		for _, i := range rows {
			s, h := g.stats[2*int(i):][:2], hist[2*int(bins[i]):][:2]
			h[0] += s[0]
			h[1] += s[1]
		}
		return
	case 3:
		for _, i := range rows {
			s, h := g.stats[3*int(i):][:3], hist[3*int(bins[i]):][:3]
			h[0] += s[0]
			h[1] += s[1]
			h[2] += s[2]
		}
		return
	}
	for _, i := range rows {
		h := hist[int(bins[i])*g.width:][:g.width]
		for c, v := range g.stats[int(i)*g.width:][:g.width] {
			h[c] += v
		}
	}
}

// split is a way to divide a node: rows whose bin in the column is at most bin go left, missing ones where left says.
type split struct {
	gain    float64
	column  int
	bin     uint16
	missing bool // go left
}

// node appends the node of these rows and all below it. hist holds their histograms, or is nil.
func (g *growth) node(rows []int32, depth int, hist []float64) {
	var best split
	if depth > 0 && len(rows) >= 2*g.least {
		best = g.search(rows, hist)
	}
	if best.gain == 0 {
		g.close(rows)
		g.release(hist)
		return
	}
	at := len(g.tree.nodes)
	j := best.column
	cut := math.MaxFloat64 // whatever is known
	if int(best.bin) < len(g.b.cuts[j]) {
		cut = g.b.cuts[j][best.bin]
	}
	g.tree.nodes = append(g.tree.nodes, node{column: int32(j), cut: cut, missingLeft: best.missing})
	left := g.partition(rows, best)
	a, b := g.children(rows[:left], rows[left:], depth-1, hist)
	g.node(rows[:left], depth-1, a)
	g.tree.nodes[at].next = int32(len(g.tree.nodes))
	g.node(rows[left:], depth-1, b)
}

// close appends a leaf.
func (g *growth) close(rows []int32) {
	total := g.total(rows)
	number := len(g.tree.values) / g.k
	for _, s := range total[:g.k] {
		v := 0.0
		if h := total[g.k] + g.damp; h > 0 {
			v = s / h
		}
		g.tree.values = append(g.tree.values, v)
	}
	g.tree.nodes = append(g.tree.nodes, node{column: -1, next: int32(number)})
	if g.leaf != nil {
		g.leaf(number, rows)
	}
}

func (g *growth) total(rows []int32) []float64 {
	total := make([]float64, g.width)
	for _, i := range rows {
		for c, v := range g.stats[int(i)*g.width:][:g.width] {
			total[c] += v
		}
	}
	return total
}

// partition moves the rows that go left before the others, both in their order, and returns how many go left.
func (g *growth) partition(rows []int32, s split) int {
	bins, missing := g.b.bins[s.column], g.b.missing(s.column)
	left, right := 0, 0
	for _, i := range rows {
		if b := bins[i]; b == missing && s.missing || b <= s.bin {
			rows[left] = i
			left++
		} else {
			g.buffer[right] = i
			right++
		}
	}
	copy(rows[left:], g.buffer[:right])
	return left
}

// children returns the histograms of two children of a node that has one: the smaller child's is counted, the other's is
// what is left.
func (g *growth) children(left, right []int32, depth int, hist []float64) (a, b []float64) {
	if hist == nil || depth == 0 {
		g.release(hist)
		return nil, nil
	}
	small, large := left, right
	if len(left) > len(right) {
		small, large = right, left
	}
	if len(large) < 2*g.least || !g.worthwhile(large) {
		g.release(hist)
		return nil, nil
	}
	counted := g.histogram(small)
	for i, v := range counted {
		hist[i] -= v
	}
	if !g.worthwhile(small) {
		g.release(counted)
		counted = nil
	}
	if len(left) > len(right) {
		return hist, counted
	}
	return counted, hist
}

func (g *growth) release(hist []float64) {
	if hist != nil {
		g.spare = append(g.spare, hist)
	}
}

// search returns the best split of a node, of gain 0 if there is none. Of equally good ones it takes the first column and
// the lowest cut, whatever rounding says.
func (g *growth) search(rows []int32, hist []float64) split {
	d := len(g.b.cuts)
	if g.features >= d {
		columns := make([]int, d)
		for j := range columns {
			columns[j] = j
		}
		return g.among(columns, rows, hist)
	}
	order := g.random.Perm(d)
	slices.Sort(order[:g.features])
	best := g.among(order[:g.features], rows, nil)
	for at := g.features; best.gain == 0 && at < d; at++ { // none of them can split: others are drawn until one can
		best = g.among(order[at:at+1], rows, nil)
	}
	return best
}

// among returns the best split by one of the columns.
func (g *growth) among(columns []int, rows []int32, hist []float64) split {
	total := g.total(rows)
	found := make([]split, len(columns))
	g.each(len(columns), len(rows), func(at int) {
		j := columns[at]
		if hist != nil {
			found[at] = g.scan(j, total, hist[g.offsets[j]:g.offsets[j+1]], nil)
			return
		}
		found[at] = g.column(j, rows, total)
	})
	var best split
	for _, s := range found {
		if g.better(s.gain, best.gain) {
			best = s
		}
	}
	return best
}

// better reports whether a gain is greater than another by more than rounding.
func (g *growth) better(a, b float64) bool { return a > b+float64(1e-10*b)+g.floor }

// column returns the best split by column j of rows without a histogram: it counts one if there are many rows for its bins,
// and else sorts the rows by bin.
func (g *growth) column(j int, rows []int32, total []float64) split {
	size := g.offsets[j+1] - g.offsets[j]
	kept, ok := g.scratch.Get().(*[]float64)
	if !ok {
		kept = new([]float64)
	}
	buffer := *kept
	defer func() {
		*kept = buffer
		g.scratch.Put(kept)
	}()
	if 4*len(rows)*g.width >= size {
		buffer = slices.Grow(buffer[:0], size)[:size]
		clear(buffer)
		g.add(buffer, j, rows)
		return g.scan(j, total, buffer, nil)
	}
	sorted := make([]uint64, len(rows)) // by bin and then by row, in one number
	for at, i := range rows {
		sorted[at] = uint64(g.b.bins[j][i])<<32 | uint64(i)
	}
	slices.Sort(sorted)
	buffer = slices.Grow(buffer[:0], len(rows)*g.width)[:0]
	var present []uint16
	for _, key := range sorted {
		at, s := uint16(key>>32), g.stats[int(uint32(key))*g.width:][:g.width]
		if n := len(present); n > 0 && present[n-1] == at {
			last := buffer[(n-1)*g.width:]
			for c, v := range s {
				last[c] += v
			}
			continue
		}
		present = append(present, at)
		buffer = append(buffer, s...)
	}
	return g.scan(j, total, buffer, present)
}

// scan returns the best split by column j. hist holds the totals of the bins that are present, in order; nil means all.
func (g *growth) scan(j int, total, hist []float64, present []uint16) split {
	var best split
	missing := g.b.missing(j)
	var absent []float64 // totals of rows where the value is missing
	n := len(hist) / g.width
	if present == nil || present[n-1] == missing {
		n--
		absent = hist[n*g.width:]
		if absent[g.width-1] < 0.5 {
			absent = nil
		}
	}
	node := g.score(total)
	left, right := make([]float64, g.width), make([]float64, g.width)
	try := func(bin uint16, missingLeft bool) {
		for c, v := range left {
			right[c] = total[c] - v
		}
		count := g.width - 1
		if left[count] < float64(g.least)-0.5 || right[count] < float64(g.least)-0.5 {
			return
		}
		if gain := g.score(left) + g.score(right) - node; g.better(gain, best.gain) {
			best = split{gain, j, bin, missingLeft}
		}
	}
	for at := range n {
		h := hist[at*g.width:][:g.width]
		if h[g.width-1] < 0.5 {
			continue
		}
		for c, v := range h {
			left[c] += v
		}
		bin := uint16(at)
		if present != nil {
			bin = present[at]
		}
		try(bin, false)
		if absent == nil {
			continue
		}
		for c, v := range absent {
			left[c] += v
		}
		try(bin, true)
		for c, v := range absent {
			left[c] -= v
		}
	}
	if absent == nil && best.gain > 0 { // nothing was missing here: later it goes where more rows went
		best.missing = g.heavier(j, best.bin, total, hist, present)
	}
	return best
}

// heavier reports whether the left side of a split has more rows than the right.
func (g *growth) heavier(j int, bin uint16, total, hist []float64, present []uint16) bool {
	var left float64
	for at := range len(hist) / g.width {
		b := uint16(at)
		if present != nil {
			b = present[at]
		}
		if b <= bin {
			left += hist[at*g.width+g.width-1]
		}
	}
	return 2*left >= total[g.width-1]
}
