package kernel

import "sort"

// convKind is what a Conv computes.
type convKind uint8

const (
	convForward convKind = iota
	convInputGrad
	convWeightGrad
)

// Conv is the plan of a convolution or of one of its gradients. With dY the
// gradient of a loss with respect to Y, and the sums over all terms in which the
// two factors meet in the definition of [ConvShape]:
//
//	NewConvForward      Y  from X and W
//	NewConvInputGrad    dX[n,r,s,c] = Σ dY[n,p,q,o]·W[h,w,i,o]   from dY and W
//	NewConvWeightGrad   dW[h,w,i,o] = Σ dY[n,p,q,o]·X̃[n,·,·,c]   from X and dY
//
// Results overwrite what was there.
type Conv struct {
	kind convKind
	s    ConvShape
	t    *tile

	corr  *correlation // forward and input gradient
	wgrad *weightGrad
}

// NewConvForward plans the convolution s on path p.
func NewConvForward(p Path, s ConvShape) *Conv {
	s = s.normal().upright()
	c := &Conv{kind: convForward, s: s, t: tileOf(p)}
	k := s.Kernel
	c.corr = newCorrelation(c.t, correlationShape{
		n:      s.N,
		h:      forwardAxisH(s),
		w:      forwardAxisW(s),
		in:     s.Cin / s.Groups,
		out:    s.Cout / s.Groups,
		groups: s.Groups,
		weight: weightStrides{h: k.H, w: k.W, in: k.In, out: k.Out, group: s.Cout / s.Groups * k.Out},
	})
	return c
}

func forwardAxisH(s ConvShape) axis {
	return axis{out: s.OutH(), in: s.H, taps: s.KH, alpha: s.StrideH, beta: -s.PadT, gamma: s.DilH, delta: s.InDilH}
}

func forwardAxisW(s ConvShape) axis {
	return axis{out: s.OutW(), in: s.W, taps: s.KW, alpha: s.StrideW, beta: -s.PadL, gamma: s.DilW, delta: s.InDilW}
}

// NewConvInputGrad plans the gradient of the convolution s with respect to X.
// It is itself a convolution, of dY with the kernel upside down, whose strides and
// input dilations have changed places.
func NewConvInputGrad(p Path, s ConvShape) *Conv {
	s = s.normal().upright()
	c := &Conv{kind: convInputGrad, s: s, t: tileOf(p)}
	k := s.Kernel
	c.corr = newCorrelation(c.t, correlationShape{
		n:      s.N,
		h:      axis{out: s.H, in: s.OutH(), taps: s.KH, alpha: s.InDilH, beta: s.PadT, gamma: -s.DilH, delta: s.StrideH},
		w:      axis{out: s.W, in: s.OutW(), taps: s.KW, alpha: s.InDilW, beta: s.PadL, gamma: -s.DilW, delta: s.StrideW},
		in:     s.Cout / s.Groups,
		out:    s.Cin / s.Groups,
		groups: s.Groups,
		weight: weightStrides{h: k.H, w: k.W, in: k.Out, out: k.In, group: s.Cout / s.Groups * k.Out},
	})
	return c
}

// NewConvWeightGrad plans the gradient of the convolution s with respect to W.
func NewConvWeightGrad(p Path, s ConvShape) *Conv {
	s = s.normal().upright()
	c := &Conv{kind: convWeightGrad, s: s, t: tileOf(p)}
	c.wgrad = newWeightGrad(c.t, s)
	return c
}

// WorkspaceLen is the number of values a call needs in Work.
func (c *Conv) WorkspaceLen() int {
	if c.kind == convWeightGrad {
		return c.wgrad.workLen
	}
	return c.corr.workLen
}

// ScratchLen is the number of values a task needs in its Scratch.
func (c *Conv) ScratchLen() int {
	if c.kind == convWeightGrad {
		return c.wgrad.scratchLen
	}
	return c.corr.scratchLen
}

// ConvCall is one execution of a Conv. X is the image or its gradient, W the
// kernel or its gradient, Y the result or its gradient: the plan reads two and
// writes the third, which overlaps nothing else. Work has the plan's WorkspaceLen
// values; its contents do not matter before and after.
type ConvCall struct {
	Plan    *Conv
	X, W, Y []float32
	Work    []float32

	first, second convPhase
}

var _ Call = (*ConvCall)(nil)

// convPhase is one phase of a ConvCall.
type convPhase struct {
	c    *ConvCall
	pack bool // packs weights, or adds up partial weight gradients
}

// Phases is 1 or 2.
func (c *ConvCall) Phases() int {
	p := c.Plan
	if p.kind == convWeightGrad && p.wgrad.reduces() || p.kind != convWeightGrad && p.corr.packs() {
		return 2
	}
	return 1
}

// Phase returns the job of phase i.
func (c *ConvCall) Phase(i int) Job {
	p := c.Plan
	if i == 0 {
		need("Conv", "X", len(c.X), p.s.xLen())
		need("Conv", "W", len(c.W), p.s.wLen())
		need("Conv", "Y", len(c.Y), p.s.yLen())
		need("Conv", "Work", len(c.Work), p.WorkspaceLen())
	}
	two := c.Phases() == 2
	c.first = convPhase{c: c, pack: two && p.kind != convWeightGrad}
	c.second = convPhase{c: c, pack: two && p.kind == convWeightGrad}
	if i == 0 {
		return &c.first
	}
	return &c.second
}

// Tasks is the number of tasks of the phase.
func (p *convPhase) Tasks() int {
	plan := p.c.Plan
	switch {
	case plan.kind == convWeightGrad && p.pack:
		return plan.wgrad.reduceTasks()
	case plan.kind == convWeightGrad:
		return plan.wgrad.tasks
	case p.pack:
		return plan.corr.packTasks
	default:
		return plan.corr.tasks
	}
}

// Do runs one task of the phase.
func (p *convPhase) Do(task int, s *Scratch) {
	c := p.c
	plan := c.Plan
	in, out := c.X, c.Y
	if plan.kind == convInputGrad {
		in, out = c.Y, c.X
	}
	switch {
	case plan.kind == convWeightGrad && p.pack:
		plan.wgrad.reduce(task, c.W, c.Work)
	case plan.kind == convWeightGrad:
		plan.wgrad.do(task, c.X, c.Y, c.W, c.Work, s)
	case p.pack:
		plan.corr.pack(task, c.W, c.Work)
	default:
		plan.corr.do(task, in, c.W, out, c.Work, s)
	}
}

// weightStrides is the layout of the weights as a correlation sees them.
type weightStrides struct{ h, w, in, out, group int }

// correlationShape is what the forward convolution and the input gradient have in
// common: every output pixel is a sum over taps and input channels.
type correlationShape struct {
	n       int
	h, w    axis
	in, out int // channels of a group
	groups  int
	weight  weightStrides
}

// correlation is the plan of a correlationShape: one product per pair of axis
// classes, with the output pixels as rows, the output channels as columns, and
// the sum over (tap, input channel).
type correlation struct {
	t          *tile
	s          correlationShape
	parts      []*correlationPart
	tasks      int
	packTasks  int
	workLen    int
	scratchLen int
}

// correlationPart is a pair of axis classes.
type correlationPart struct {
	b        *bands // nil if no tap reads anything: the outputs are zero
	h, w     axisClass
	ko, wo   []int32 // input and weight offset of each summand
	kBlock   int
	source   bSource
	starts   []int32 // with bRuns: where the runs of ko begin
	panels   int     // of a group
	nBlock   int     // columns of a task
	nBlocks  int
	work     int // where the packed weights begin in the workspace
	packedRo []int32
	packedKo []int32

	orders []*borderOrder // of the bands of an image, or of a full band and of the last; nil if rows are not sorted
	tapWo  []int32        // with orders: weight offset of each tap
}

func newCorrelation(t *tile, s correlationShape) *correlation {
	c := &correlation{t: t, s: s}
	hs, ws := s.h.classes(true), s.w.classes(true)
	total := 0
	for _, h := range hs {
		for _, w := range ws {
			total += s.n * h.n * w.n * len(h.taps) * len(w.taps) * s.in * s.out * s.groups
		}
	}
	work := max(total/manyTasks, minWork)
	for _, h := range hs {
		for _, w := range ws {
			p := c.newPart(h, w, work)
			c.parts = append(c.parts, p)
			c.tasks += c.tasksOf(p)
			if p.source >= bRuns {
				p.work = c.workLen
				c.workLen += s.groups * p.panels * t.nr * len(p.ko)
				c.packTasks += s.groups * p.panels
			}
		}
	}
	return c
}

const (
	maxBandPixels = 256
	maxBandBig    = 1 << 18
	minRun        = 16      // input channels for which few output channels are computed with lanes along the sum
	bigWeights    = 1 << 17 // weights that leave the second-level cache are read as seldom as possible
)

// newPart plans a pair of classes, in tasks of about work multiplications.
func (c *correlation) newPart(h, w axisClass, work int) *correlationPart {
	s, t := &c.s, c.t
	p := &correlationPart{h: h, w: w, nBlocks: 1, nBlock: s.out}
	k := len(h.taps) * len(w.taps) * s.in
	if k == 0 {
		return p
	}
	most := maxBandPixels
	if image := h.n * w.n; image <= maxBandPixels {
		most = max(most, 2*image) // so that no group of rows at the border is of one
	}
	pixels := min(max(work/(k*s.out), 8*t.mr), most)
	limit := maxBand
	if k*s.out > bigWeights {
		pixels, limit = maxBandPixels, maxBandBig
	}
	p.b = newBands(h, w, s.n, s.h.in, s.w.in, s.in*s.groups, s.h.out, s.w.out, s.out*s.groups, s.in, pixels, limit)
	runs := s.out <= maxDotColumns && s.in >= minRun && t.runDots[s.out-1] != nil
	if !runs && !t.packA && s.in >= borderChannels {
		p.orders = ordersOf(p.b, func(row, rows, images int) (*borderOrder, int) {
			return newBorderOrder(p.b, row, rows, images, s.in)
		})
	}
	p.ko, p.wo = c.summands(p, runs || p.orders != nil)
	p.kBlock = blockOf(k, maxKBlock, 1)
	p.panels = ceilDiv(s.out, t.nr)
	if p.b.count*s.groups < manyTasks/2 {
		perPanel := len(p.b.pixel) * k * t.nr
		p.nBlock = min(max(work/perPanel, 1), p.panels) * t.nr
		p.nBlocks = ceilDiv(s.out, p.nBlock)
	}
	switch {
	case runs:
		p.source = bRuns
		for k := 0; k < len(p.ko); k += s.in {
			p.starts = append(p.starts, p.ko[k])
		}
	case uniform(p.wo) && s.weight.out == 1 && len(p.b.pixel) <= 2*t.mr:
		p.source = bDirect
	case p.b.count == 1:
		p.source = bTask
	default:
		p.source = bPhase
	}
	if p.orders != nil {
		c.planBorder(p)
		return p
	}
	if t.packA {
		p.packedRo, p.packedKo = packedTables(t.mr, len(p.b.pixel), p.kBlock)
	}
	need := p.b.bufferLen() + productScratch(t, p.source, t.packA, len(p.b.pixel), p.kBlock)
	c.scratchLen = max(c.scratchLen, need)
	return p
}

// summands lists the offsets of the summands of an output, in input and weights,
// in the order in which the weights lie in memory, or with runs tap by tap.
func (c *correlation) summands(p *correlationPart, runs bool) (ko, wo []int32) {
	s := &c.s
	dims := []struct{ n, stride, kind int }{
		{len(p.h.taps), s.weight.h, 0}, {len(p.w.taps), s.weight.w, 1}, {s.in, s.weight.in, 2},
	}
	if !runs {
		sort.SliceStable(dims, func(i, j int) bool { return dims[i].stride > dims[j].stride })
	}
	var at [3]int
	for at[dims[0].kind] = range dims[0].n {
		for at[dims[1].kind] = range dims[1].n {
			for at[dims[2].kind] = range dims[2].n {
				i, j, ch := at[0], at[1], at[2]
				ko = append(ko, offset32(p.b.tapOffset(i, j)+ch))
				wo = append(wo, offset32(p.h.taps[i]*s.weight.h+p.w.taps[j]*s.weight.w+ch*s.weight.in))
			}
		}
	}
	return ko, wo
}

// uniform reports whether the offsets have one and the same distance.
func uniform(offs []int32) bool {
	for i := 2; i < len(offs); i++ {
		if offs[i]-offs[i-1] != offs[1]-offs[0] {
			return false
		}
	}
	return len(offs) < 2 || offs[1] > offs[0]
}

// packs reports whether a first phase packs weights.
func (c *correlation) packs() bool { return c.packTasks > 0 }

// pack packs one panel of weights.
func (c *correlation) pack(task int, w, work []float32) {
	nr := c.t.nr
	for _, p := range c.parts {
		if p.source < bRuns {
			continue
		}
		if n := c.s.groups * p.panels; task >= n {
			task -= n
			continue
		}
		j0 := task % p.panels * nr
		src := w[task/p.panels*c.s.weight.group+j0*c.s.weight.out:]
		dst := work[p.work+task*nr*len(p.wo):][:nr*len(p.wo)]
		if p.source == bRuns {
			packColumns(dst, src, p.wo, c.s.out, c.s.weight.out)
			return
		}
		if p.orders != nil {
			c.packTaps(p, dst, src, 0, c.s.in, min(nr, c.s.out-j0))
			return
		}
		c.t.pack(dst, src, p.wo, min(nr, c.s.out-j0), nr, nr, c.s.weight.out)
		return
	}
}

// tasksOf is the number of tasks of a part.
func (c *correlation) tasksOf(p *correlationPart) int {
	if p.b == nil {
		return c.s.n
	}
	return p.b.count * c.s.groups * p.nBlocks
}

// do computes the outputs of one band for one block of channels.
func (c *correlation) do(task int, in, w, out, work []float32, s *Scratch) {
	i := 0
	for task >= c.tasksOf(c.parts[i]) {
		task -= c.tasksOf(c.parts[i])
		i++
	}
	p := c.parts[i]
	if p.b == nil {
		c.zero(p, task, out)
		return
	}
	sh, nr := &c.s, c.t.nr
	j0 := task % p.nBlocks * p.nBlock
	task /= p.nBlocks
	group, band := task%sh.groups, task/sh.groups
	_, _, _, _, pixels := p.b.place(band)
	buf := s.take(c.scratchLen)
	m := &s.product
	*m = product{
		t: c.t, rows: pixels, n: min(p.nBlock, sh.out-j0), kBlock: p.kBlock,
		a:  p.b.input(in, buf, band, group*sh.in),
		b:  w[group*sh.weight.group+j0*sh.weight.out:],
		c:  out[p.b.output(band)*sh.out*sh.groups+group*sh.out+j0:],
		ro: p.b.pixel, ko: p.ko, co: p.b.out, bo: p.wo,
		bStride: sh.weight.out, source: p.source, packedRo: p.packedRo, packedKo: p.packedKo,
	}
	if p.source >= bRuns {
		m.starts = p.starts
		m.packed = work[p.work+(group*p.panels+j0/nr)*nr*len(p.ko):]
	}
	if p.orders != nil {
		c.multiplyBorder(p, orderOf(p.b, p.orders, band), s, buf[p.b.bufferLen():])
		return
	}
	s.multiply(buf[p.b.bufferLen():])
}

// zero clears the outputs of a part that no tap reaches, in one image.
func (c *correlation) zero(p *correlationPart, image int, out []float32) {
	ch := c.s.out * c.s.groups
	for i := range p.h.n {
		for j := range p.w.n {
			row, col := p.h.first+i*p.h.step, p.w.first+j*p.w.step
			clear(out[((image*c.s.h.out+row)*c.s.w.out+col)*ch:][:ch])
		}
	}
}
