package kernel

import (
	"slices"
	"sort"
)

// weightGrad is the plan of a weight gradient: one product per pair of axis
// classes and group, with (tap, input channel) as rows, output channels as
// columns, and the sum over output pixels, band by band.
//
// If there are few weights and many pixels, the bands are dealt to several splits
// that sum on their own; a second phase adds the partial sums in the order of the
// splits, and brings them into the layout of the weights.
type weightGrad struct {
	t          *tile
	s          ConvShape
	parts      []*weightGradPart
	splits     int
	chBlocks   int // blocks of input channels of a group
	ch         int // channels of such a block
	nBlock     int
	nBlocks    int
	perSplit   int // tasks of a split
	tasks      int
	weights    int  // of the kernel
	partial    bool // sums go to the workspace, with the layout inner
	inner      KernelStrides
	rowOut     []int32 // weight offset of each row of a partial sum
	rowKnown   []bool  // whether some output reads through its tap
	workLen    int
	scratchLen int
}

// weightGradPart is a pair of axis classes.
type weightGradPart struct {
	b        *bands
	h, w     axisClass
	ro, co   []int32 // input and weight offset of each row (tap, channel)
	kBlock   int
	source   bSource
	packedRo []int32
	packedKo []int32
	orders   []*gradOrder // as in correlationPart
}

const (
	fewTasks    = 8       // below, tasks are cut smaller than is good for one thread
	gradPixels  = 512     // pixels of a split at least, so that adding up stays cheap
	gradPartial = 1 << 21 // values of all partial sums at most
	gradBand    = 1 << 17 // values of a copied band at most: long sums are worth more than a cache half empty
)

func newWeightGrad(t *tile, s ConvShape) *weightGrad {
	in, out := s.Cin/s.Groups, s.Cout/s.Groups
	g := &weightGrad{t: t, s: s, weights: s.KH * s.KW * in * s.Cout}
	pixels := s.N * s.OutH() * s.OutW()
	total := pixels * g.weights / (s.InDilH * s.InDilW)
	want := min(max(total/minWork, 1), manyTasks)

	hs, ws := forwardAxisH(s).classes(false), forwardAxisW(s).classes(false)
	g.splits = min(want, max(pixels/gradPixels, 1), max(gradPartial/g.weights, 1))
	rest := ceilDiv(want, g.splits*s.Groups)
	panels := ceilDiv(out, t.nr)
	for _, least := range []int{2 * gradChannels, gradChannels} { // fewer channels copy dY more often
		g.chBlocks = 1
		for n := 2; n <= rest && in/n >= least; n++ {
			if in%n == 0 {
				g.chBlocks = n
			}
		}
		if g.splits*s.Groups*g.chBlocks*panels >= fewTasks {
			break
		}
	}
	g.ch = in / g.chBlocks
	g.nBlock = ceilDiv(panels, min(panels, ceilDiv(rest, g.chBlocks))) * t.nr
	g.nBlocks = ceilDiv(out, g.nBlock)

	for _, h := range hs {
		for _, w := range ws {
			if len(h.taps)*len(w.taps) == 0 {
				continue
			}
			g.parts = append(g.parts, &weightGradPart{
				h: h, w: w,
				b: newBands(h, w, s.N, s.H, s.W, s.Cin, s.OutH(), s.OutW(), s.Cout, g.ch, g.bandPixels(h, w), gradBand),
			})
		}
	}
	for _, p := range g.parts {
		g.splits = min(g.splits, p.b.count)
	}
	g.partial = g.splits > 1 || s.Kernel.Out != 1 || !g.covered()
	if g.partial {
		g.workLen = g.splits * g.weights
		g.planReduce()
	}
	for _, p := range g.parts {
		g.plan(p)
	}
	g.perSplit = len(g.parts) * s.Groups * g.chBlocks * g.nBlocks
	g.tasks = g.splits * g.perSplit
	return g
}

// layout is where the products put their sums.
func (g *weightGrad) layout() KernelStrides {
	if g.partial {
		return g.inner
	}
	return g.s.Kernel
}

// planReduce chooses the layout of the partial sums: rows in the order in which
// the weights lie in memory, so that bringing them there is a plain transposition.
func (g *weightGrad) planReduce() {
	k, in := g.s.Kernel, g.s.Cin/g.s.Groups
	dims := []struct {
		n, stride int
		inner     *int
	}{{g.s.KH, k.H, &g.inner.H}, {g.s.KW, k.W, &g.inner.W}, {in, k.In, &g.inner.In}}
	sort.SliceStable(dims, func(i, j int) bool { return dims[i].stride > dims[j].stride })
	stride := g.s.Cout
	for d := len(dims) - 1; d >= 0; d-- {
		*dims[d].inner = stride
		stride *= dims[d].n
	}
	g.inner.Out = 1
	g.rowOut = make([]int32, g.weights/g.s.Cout)
	g.rowKnown = make([]bool, len(g.rowOut))
	for h := range g.s.KH {
		for w := range g.s.KW {
			known := g.hasTap(h*g.s.KW + w)
			for ch := range in {
				row := (h*g.inner.H + w*g.inner.W + ch*g.inner.In) / g.s.Cout
				g.rowOut[row] = offset32(h*k.H + w*k.W + ch*k.In)
				g.rowKnown[row] = known
			}
		}
	}
}

// sorts tells whether the pixels of a part with so many taps may be sorted.
func (g *weightGrad) sorts(taps int) bool { return taps > 1 && g.ch >= gradChannels && !g.t.packA }

// bandPixels is how many outputs of a pair of classes a band holds.
func (g *weightGrad) bandPixels(h, w axisClass) int {
	if g.sorts(len(h.taps)*len(w.taps)) && h.n*w.n <= gradSmall {
		return max(gradSmallBand, gradImages*h.n*w.n)
	}
	return maxKBlock
}

// plan fills the tables of a part.
func (g *weightGrad) plan(p *weightGradPart) {
	layout := g.layout()
	for i, th := range p.h.taps {
		for j, tw := range p.w.taps {
			at := p.b.tapOffset(i, j)
			for ch := range g.ch {
				p.ro = append(p.ro, offset32(at+ch))
				p.co = append(p.co, offset32(th*layout.H+tw*layout.W+ch*layout.In))
			}
		}
	}
	if g.sorts(len(p.h.taps) * len(p.w.taps)) {
		p.orders = ordersOf(p.b, func(row, rows, images int) (*gradOrder, int) {
			return newGradOrder(p.b, row, rows, images, g.ch)
		})
	}
	if p.orders != nil {
		p.source = bTask
		g.scratchLen = max(g.scratchLen, p.b.bufferLen()+len(p.b.pixel)*g.t.nr)
		return
	}
	p.kBlock = blockOf(len(p.b.pixel), maxKBlock, 1)
	p.source = bTask
	if len(p.ro) <= 2*g.t.mr && uniform(p.b.out) {
		p.source = bDirect
	}
	if g.t.packA {
		p.packedRo, p.packedKo = packedTables(g.t.mr, len(p.ro), p.kBlock)
	}
	g.scratchLen = max(g.scratchLen, p.b.bufferLen()+productScratch(g.t, p.source, g.t.packA, len(p.ro), p.kBlock))
}

// covered reports whether the parts hold every tap, so that every weight is written.
func (g *weightGrad) covered() bool {
	n := 0
	for _, p := range g.parts {
		n += len(p.h.taps) * len(p.w.taps)
	}
	return n == g.s.KH*g.s.KW
}

// do sums the bands of one split for one part, group, block of channels and block of columns.
func (g *weightGrad) do(task int, x, dy, dw, work []float32, s *Scratch) {
	sh := &g.s
	nb := task % g.nBlocks
	task /= g.nBlocks
	cb := task % g.chBlocks
	task /= g.chBlocks
	group := task % sh.Groups
	task /= sh.Groups
	p, split := g.parts[task%len(g.parts)], task/len(g.parts)

	layout, dst := g.layout(), dw
	if g.partial {
		dst = work[split*g.weights:][:g.weights]
	}
	out, j0 := sh.Cout/sh.Groups, nb*g.nBlock
	channel := cb * g.ch
	dst = dst[channel*layout.In+(group*out+j0)*layout.Out:]
	buf := s.take(g.scratchLen)
	first, last := split*p.b.count/g.splits, (split+1)*p.b.count/g.splits
	for band := first; band < last; band++ {
		_, _, _, _, pixels := p.b.place(band)
		s.product = product{
			t: g.t, rows: len(p.ro), n: min(g.nBlock, out-j0), kBlock: p.kBlock, add: band > first,
			a:  p.b.input(x, buf, band, group*sh.Cin/sh.Groups+channel),
			b:  dy[p.b.output(band)*sh.Cout+group*out+j0:],
			c:  dst,
			ro: p.ro, ko: p.b.pixel[:pixels], co: p.co, bo: p.b.out[:pixels],
			bStride: 1, source: p.source, packedRo: p.packedRo, packedKo: p.packedKo,
		}
		if p.orders != nil {
			g.multiplyBorder(p, orderOf(p.b, p.orders, band), s, buf[p.b.bufferLen():])
			continue
		}
		s.multiply(buf[p.b.bufferLen():])
	}
}

// reduces reports whether a second phase brings the sums from the workspace to the weights.
func (g *weightGrad) reduces() bool { return g.partial }

// reduceRows is the number of rows (tap, input channel) of a task of the second phase.
// The more they are, the longer the pieces of the weights that it writes.
func (g *weightGrad) reduceRows() int {
	const small, large, few = 1 << 14, 1 << 16, 8 // values, values, tasks
	return max(small/g.s.Cout, min(large/g.s.Cout, len(g.rowOut)/few), 1)
}

func (g *weightGrad) reduceTasks() int { return ceilDiv(len(g.rowOut), g.reduceRows()) }

// reduce adds the partial sums of some rows and writes them where the weights lie.
func (g *weightGrad) reduce(task int, dw, work []float32) {
	out, n := g.s.Cout, len(g.rowOut)
	first := task * g.reduceRows()
	last := min(first+g.reduceRows(), n)
	sum := work[first*out : last*out]
	if g.splits > 1 {
		g.t.sum(sum, work[first*out:], g.weights, g.splits)
	}
	for row, known := range g.rowKnown[first:last] {
		if !known {
			clear(sum[row*out:][:out])
		}
	}
	if g.s.Kernel.Out == 1 {
		for row, o := range g.rowOut[first:last] {
			copy(dw[o:][:out], sum[row*out:])
		}
		return
	}
	// Sixteen channels at a time become rows of the weights.
	for j := 0; j < out; j += 16 {
		g.scatter(dw[j*g.s.Kernel.Out:], sum[j:], g.rowOut[first:last], min(16, out-j))
	}
}

// scatter writes n columns of sum, a row for each offset in rows, to
// dw[rows[i] + j·Kernel.Out].
func (g *weightGrad) scatter(dw, sum []float32, rows []int32, n int) {
	out, stride := g.s.Cout, g.s.Kernel.Out
	for i := 0; i < len(rows); {
		run := runLength(rows[i:])
		if run >= 8 && g.t.transpose != nil {
			for r := 0; r < run; r += 16 {
				g.t.transpose(dw[rows[i+r]:], sum[(i+r)*out:], n, min(16, run-r), min(16, run-r), stride, out)
			}
			i += run
			continue
		}
		for _, o := range rows[i : i+run] {
			for j, v := range sum[i*out:][:n] {
				dw[int(o)+j*stride] = v
			}
			i++
		}
	}
}

// hasTap reports whether some output reads through a tap.
func (g *weightGrad) hasTap(tap int) bool {
	for _, p := range g.parts {
		if slices.Contains(p.h.taps, tap/g.s.KW) && slices.Contains(p.w.taps, tap%g.s.KW) {
			return true
		}
	}
	return false
}
