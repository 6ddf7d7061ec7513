package kernel

import "fmt"

// PoolShape is a pooling of N×H×W×C images in NHWC over windows of KH×KW pixels:
// output pixel (p, q) sees the input pixels
//
//	(p·StrideH − PadT + h·DilH, q·StrideW − PadL + w·DilW)     0 ≤ h < KH, 0 ≤ w < KW
//
// that lie inside the image. Strides of zero mean the size of the window,
// dilations of zero mean 1. Every window must see some pixel.
type PoolShape struct {
	N, H, W, C             int
	KH, KW                 int
	StrideH, StrideW       int
	PadT, PadB, PadL, PadR int
	DilH, DilW             int
}

// OutH is the height of the output.
func (s PoolShape) OutH() int {
	return outSize(s.H, s.KH, orDefault(s.StrideH, s.KH), s.PadT, s.PadB, s.DilH, 1)
}

// OutW is the width of the output.
func (s PoolShape) OutW() int {
	return outSize(s.W, s.KW, orDefault(s.StrideW, s.KW), s.PadL, s.PadR, s.DilW, 1)
}

func orDefault(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}

// Divisor says by what a sum over a window is divided.
type Divisor uint8

const (
	DivideNot      Divisor = iota // sums
	DivideByWindow                // means that count the padding as zeros: KH·KW
	DivideByInside                // means over the pixels inside the image
)

// poolKind is what a Pool computes.
type poolKind uint8

const (
	maxPool poolKind = iota
	maxPoolGrad
	sumPool
	sumPoolGrad
	maxPoolGradSet // of windows that share no pixel
	sumPoolGradSet // likewise
	poolKinds
)

// Pool is the plan of a pooling or of its gradient.
type Pool struct {
	kind     poolKind
	s        PoolShape
	t        *tile
	divisor  Divisor
	outH     int
	outW     int
	segments []poolSegment // of an output row
	kernel   func(*poolRow)
	rows     int // output rows of a task
	perImage int // tasks of an image
}

// poolSegment is a run of output pixels of a row whose windows lie alike.
type poolSegment struct {
	first, n int
	base     int     // input column of the first tap of the first window
	width    int     // taps inside, per row of the window
	taps     []int32 // offsets of the taps, row by row of the window, from the first
}

// NewMaxPool plans Y = the maximum of X over each window and channel. A NaN in the
// window is the maximum.
func NewMaxPool(p Path, s PoolShape) *Pool { return newPool(p, s, maxPool, DivideNot) }

// NewMaxPoolGrad plans the gradient of NewMaxPool: DX is the sum of the DY of
// all windows in which X is the first maximum, in the order of rows, then columns.
func NewMaxPoolGrad(p Path, s PoolShape) *Pool { return newPool(p, s, maxPoolGrad, DivideNot) }

// NewSumPool plans Y = the sum of X over each window and channel, divided as d says.
func NewSumPool(p Path, s PoolShape, d Divisor) *Pool { return newPool(p, s, sumPool, d) }

// NewSumPoolGrad plans the gradient of NewSumPool, from DY to DX.
func NewSumPoolGrad(p Path, s PoolShape, d Divisor) *Pool { return newPool(p, s, sumPoolGrad, d) }

const poolWork = 1 << 14 // values of a task, about

func newPool(p Path, s PoolShape, kind poolKind, d Divisor) *Pool {
	s.StrideH, s.StrideW = orDefault(s.StrideH, s.KH), orDefault(s.StrideW, s.KW)
	s.DilH, s.DilW = orDefault(s.DilH, 1), orDefault(s.DilW, 1)
	if s.N < 1 || s.H < 1 || s.W < 1 || s.C < 1 || s.KH < 1 || s.KW < 1 ||
		s.StrideH < 1 || s.StrideW < 1 || s.DilH < 1 || s.DilW < 1 {
		panic(fmt.Sprintf("kernel: pooling %+v: sizes, strides and dilations must be at least 1", s))
	}
	g := &Pool{kind: kind, s: s, t: tileOf(p), divisor: d, outH: s.OutH(), outW: s.OutW()}
	for y := range g.outH {
		if lo, hi := inside(y*s.StrideH-s.PadT, s.KH, s.DilH, s.H); lo >= hi {
			panic(fmt.Sprintf("kernel: pooling %+v: the windows of row %d lie outside the image", s, y))
		}
	}
	for x := range g.outW {
		base := x*s.StrideW - s.PadL
		lo, hi := inside(base, s.KW, s.DilW, s.W)
		if lo >= hi {
			panic(fmt.Sprintf("kernel: pooling %+v: the windows of column %d lie outside the image", s, x))
		}
		last := len(g.segments) - 1
		if last >= 0 && lo == 0 && g.segments[last].width == hi-lo && g.segments[last].base == base-g.segments[last].n*s.StrideW {
			g.segments[last].n++
			continue
		}
		seg := poolSegment{first: x, n: 1, base: base + lo*s.DilW, width: hi - lo}
		for h := range s.KH {
			for w := lo; w < hi; w++ {
				seg.taps = append(seg.taps, offset32((h*s.DilH*s.W+(w-lo)*s.DilW)*s.C))
			}
		}
		g.segments = append(g.segments, seg)
	}
	g.rows = max(g.outH, 1)
	if kind == maxPool || kind == sumPool || s.DilH == 1 && s.KH <= s.StrideH {
		g.rows = blockOf(g.rows, max(poolWork/max(g.outW*s.C, 1), 1), 1)
	}
	g.kernel = g.t.pool(kind)
	if s.DilH == 1 && s.DilW == 1 && s.KH <= s.StrideH && s.KW <= s.StrideW {
		switch kind {
		case maxPoolGrad:
			g.kernel = g.t.pool(maxPoolGradSet)
		case sumPoolGrad:
			g.kernel = g.t.pool(sumPoolGradSet)
		}
	}
	g.perImage = ceilDiv(g.outH, g.rows)
	if kind == maxPoolGrad || kind == sumPoolGrad {
		g.perImage = max(g.perImage, 1) // to clear the gradient even without windows
	}
	return g
}

// inside is the range of taps that begin, base being the place of the first, inside 0 … n-1.
func inside(base, taps, dil, n int) (lo, hi int) {
	hi = taps
	for lo < hi && base+lo*dil < 0 {
		lo++
	}
	for hi > lo && base+(hi-1)*dil >= n {
		hi--
	}
	return lo, hi
}

// PoolCall is one execution of a Pool. A plan uses some of the slices:
//
//	NewMaxPool      X → Y            NewSumPool      X → Y
//	NewMaxPoolGrad  X, DY → DX       NewSumPoolGrad  DY → DX
//
// X and DX are N×H×W×C, Y and DY are N×OutH×OutW×C.
type PoolCall struct {
	Plan         *Pool
	X, Y, DX, DY []float32

	job poolJob
}

var _ Call = (*PoolCall)(nil)

// Phases is 1.
func (c *PoolCall) Phases() int { return 1 }

// Phase returns the job.
func (c *PoolCall) Phase(int) Job {
	p := c.Plan
	in, out := p.s.N*p.s.H*p.s.W*p.s.C, p.s.N*p.outH*p.outW*p.s.C
	if p.kind != sumPoolGrad {
		need("Pool", "X", len(c.X), in)
	}
	if p.kind == maxPool || p.kind == sumPool {
		need("Pool", "Y", len(c.Y), out)
	} else {
		need("Pool", "DY", len(c.DY), out)
		need("Pool", "DX", len(c.DX), in)
	}
	c.job.c = c
	return &c.job
}

// poolJob is the only phase of a PoolCall: one task is some output rows of an image.
type poolJob struct{ c *PoolCall }

// Tasks is the number of tasks.
func (j *poolJob) Tasks() int { return j.c.Plan.s.N * j.c.Plan.perImage }

// Do computes the rows of one task.
func (j *poolJob) Do(task int, s *Scratch) {
	c, p := j.c, j.c.Plan
	sh := &p.s
	image, first := task/p.perImage, task%p.perImage*p.rows
	last := min(first+p.rows, p.outH)
	y := c.Y
	grad := p.kind == maxPoolGrad || p.kind == sumPoolGrad
	if grad {
		y = c.DY
		from, to := p.owned(first, last)
		row := sh.W * sh.C
		clear(c.DX[(image*sh.H+from)*row : (image*sh.H+to)*row])
	}
	a := &s.pool
	a.c, a.step = sh.C, sh.StrideW*sh.C
	for r := first; r < last; r++ {
		top := r*sh.StrideH - sh.PadT
		lo, hi := inside(top, sh.KH, sh.DilH, sh.H)
		for i := range p.segments {
			seg := &p.segments[i]
			at := ((image*sh.H+top)*sh.W + seg.base) * sh.C // of row 0 of the window, which may lie outside
			at += lo * sh.DilH * sh.W * sh.C
			if p.kind != sumPoolGrad {
				a.x = c.X[at:]
			}
			if grad {
				a.dx = c.DX[at:]
			}
			a.y = y[((image*p.outH+r)*p.outW+seg.first)*sh.C:][:seg.n*sh.C]
			a.taps, a.pixels = seg.taps[:(hi-lo)*seg.width], seg.n
			a.scale = p.scale((hi - lo) * seg.width)
			p.kernel(a)
		}
	}
}

// owned is the range of input rows that a task of a gradient clears and adds to.
func (p *Pool) owned(first, last int) (from, to int) {
	if first > 0 {
		from = first*p.s.StrideH - p.s.PadT
	}
	to = p.s.H
	if last < p.outH {
		to = last*p.s.StrideH - p.s.PadT
	}
	return min(max(from, 0), p.s.H), min(max(to, 0), p.s.H)
}

// scale is the factor of a sum over a window with the given number of pixels inside.
func (p *Pool) scale(inside int) float32 {
	switch p.divisor {
	case DivideByWindow:
		return 1 / float32(p.s.KH*p.s.KW)
	case DivideByInside:
		return 1 / float32(inside)
	}
	return 1
}

// poolRow is the argument of the pooling kernels: pixels neighbouring windows with
// their first taps step apart, c channels, taps relative to the first. The
// assembly reads the fields by offset.
type poolRow struct {
	x, y, dx        []float32
	taps            []int32
	pixels, step, c int
	scale           float32
}

// pool returns the kernel of a kind.
func (t *tile) pool(kind poolKind) func(*poolRow) {
	if f := t.pools[kind]; f != nil {
		return f
	}
	return portablePools[kind]
}

var portablePools = [poolKinds]func(*poolRow){
	maxPool:     maxPoolPortable,
	maxPoolGrad: maxPoolGradPortable,
	sumPool:     sumPoolPortable,
	sumPoolGrad: sumPoolGradPortable,

	maxPoolGradSet: maxPoolGradPortable, // the gradient is cleared before
	sumPoolGradSet: sumPoolGradPortable,
}

func maxPoolPortable(p *poolRow) {
	for i := range p.pixels {
		for c := range p.c {
			v, _ := p.greatest(i*p.step + c)
			p.y[i*p.c+c] = v
		}
	}
}

func maxPoolGradPortable(p *poolRow) {
	for i := range p.pixels {
		for c := range p.c {
			_, at := p.greatest(i*p.step + c)
			p.dx[at] += p.y[i*p.c+c]
		}
	}
}

// greatest returns the first maximum of the window at base and its place.
func (p *poolRow) greatest(base int) (float32, int) {
	at := base + int(p.taps[0])
	v := p.x[at]
	for _, o := range p.taps[1:] {
		if x := p.x[base+int(o)]; x > v || x != x {
			v, at = x, base+int(o)
		}
	}
	return v, at
}

func sumPoolPortable(p *poolRow) {
	for i := range p.pixels {
		for c := range p.c {
			base := i*p.step + c
			v := p.x[base+int(p.taps[0])]
			for _, o := range p.taps[1:] {
				v += p.x[base+int(o)]
			}
			p.y[i*p.c+c] = v * p.scale
		}
	}
}

func sumPoolGradPortable(p *poolRow) {
	for i := range p.pixels {
		for c := range p.c {
			v := float32(p.y[i*p.c+c] * p.scale) // not fused with the sum
			for _, o := range p.taps {
				p.dx[i*p.step+c+int(o)] += v
			}
		}
	}
}
