package kernel

import "slices"

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
	partial    bool // sums go to the workspace in the order HWIO
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
}

const (
	gradPixels  = 512     // pixels of a split at least, so that adding up stays cheap
	gradPartial = 1 << 21 // values of all partial sums at most
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
	g.chBlocks = 1
	for n := 2; n <= rest && in/n >= 16; n++ {
		if in%n == 0 {
			g.chBlocks = n
		}
	}
	g.ch = in / g.chBlocks
	panels := ceilDiv(out, t.nr)
	g.nBlock = ceilDiv(panels, min(panels, ceilDiv(rest, g.chBlocks))) * t.nr
	g.nBlocks = ceilDiv(out, g.nBlock)

	for _, h := range hs {
		for _, w := range ws {
			if len(h.taps)*len(w.taps) == 0 {
				continue
			}
			g.parts = append(g.parts, &weightGradPart{
				h: h, w: w,
				b: newBands(h, w, s.N, s.H, s.W, s.Cin, s.OutH(), s.OutW(), s.Cout, g.ch, maxKBlock),
			})
		}
	}
	for _, p := range g.parts {
		g.splits = min(g.splits, p.b.count)
	}
	g.partial = g.splits > 1 || s.Kernel.Out != 1 || !g.covered()
	if g.partial {
		g.workLen = g.splits * g.weights
	}
	for _, p := range g.parts {
		g.plan(p)
	}
	g.perSplit = len(g.parts) * s.Groups * g.chBlocks * g.nBlocks
	g.tasks = g.splits * g.perSplit
	return g
}

// plan fills the tables of a part.
func (g *weightGrad) plan(p *weightGradPart) {
	layout := g.s.Kernel
	if g.partial {
		layout = g.s.HWIO()
	}
	for i, th := range p.h.taps {
		for j, tw := range p.w.taps {
			at := p.b.tapOffset(i, j)
			for ch := range g.ch {
				p.ro = append(p.ro, offset32(at+ch))
				p.co = append(p.co, offset32(th*layout.H+tw*layout.W+ch*layout.In))
			}
		}
	}
	p.kBlock = blockOf(len(p.b.pixel), maxKBlock, 1)
	p.source = bTask
	if len(p.ro) <= 2*g.t.mr && uniform(p.b.out) {
		p.source = bDirect
	}
	if g.t.packA {
		p.packedRo, p.packedKo = packedTables(g.t.mr, len(p.ro), p.kBlock)
	}
	g.scratchLen = max(g.scratchLen, p.b.bufferLen()+productScratch(g.t, p.source, len(p.ro), p.kBlock))
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

	layout, dst := sh.Kernel, dw
	if g.partial {
		layout, dst = sh.HWIO(), work[split*g.weights:][:g.weights]
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
		s.multiply(buf[p.b.bufferLen():])
	}
}

// reduces reports whether a second phase brings the sums from the workspace to the weights.
func (g *weightGrad) reduces() bool { return g.partial }

// reduceRows is the number of rows (tap, input channel) of a task of the second phase.
func (g *weightGrad) reduceRows() int { return max((1<<14)/g.s.Cout, 1) }

func (g *weightGrad) reduceTasks() int {
	return ceilDiv(g.weights/g.s.Cout, g.reduceRows())
}

// reduce adds the partial sums of some rows.
func (g *weightGrad) reduce(task int, dw, work []float32, s *Scratch) {
	sh, k := &g.s, g.s.Kernel
	in := sh.Cin / sh.Groups
	first := task * g.reduceRows()
	for row := first; row < min(first+g.reduceRows(), g.weights/sh.Cout); row++ {
		tap, ch := row/in, row%in
		dst := dw[tap/sh.KW*k.H+tap%sh.KW*k.W+ch*k.In:]
		sum := work[row*sh.Cout:][:sh.Cout]
		if !g.hasTap(tap) {
			clear(sum)
		}
		for split := 1; split < g.splits && g.hasTap(tap); split++ {
			for i, v := range work[split*g.weights+row*sh.Cout:][:sh.Cout] {
				sum[i] += v
			}
		}
		for i, v := range sum {
			dst[i*k.Out] = v
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
