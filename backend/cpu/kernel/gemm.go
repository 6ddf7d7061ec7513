package kernel

import (
	"fmt"
	"math"
)

// Operand says where the elements of a batch of matrices lie in a slice: element
// (i, j) of the matrix with batch index (d0, d1, …) is at
//
//	d0·Batch[0] + d1·Batch[1] + … + i·Row + j·Col
//
// Strides are in elements and not negative; those of the inputs may be zero, which repeats.
type Operand struct {
	Batch    []int
	Row, Col int
}

// T is the transposed matrix: rows and columns exchanged, nothing moved.
func (o Operand) T() Operand { return Operand{Batch: o.Batch, Row: o.Col, Col: o.Row} }

// RowMajor is a batch of contiguous rows×cols matrices, one behind the other.
func RowMajor(batch []int, rows, cols int) Operand {
	o := Operand{Batch: make([]int, len(batch)), Row: cols, Col: 1}
	stride := rows * cols
	for d := len(batch) - 1; d >= 0; d-- {
		o.Batch[d] = stride
		stride *= batch[d]
	}
	return o
}

// GemmShape is a batch of matrix products
//
//	C[b,i,j] = Σ_k A[b,i,k]·B[b,k,j]        0 ≤ i < M, 0 ≤ j < N, 0 ≤ k < K
//
// or, with Accumulate, C[b,i,j] += Σ. Batch holds the sizes of the batch axes;
// nil is one product. Either the rows or the columns of C are contiguous
// (C.Row or C.Col is 1), and no two elements of C share a place.
type GemmShape struct {
	Batch      []int
	M, N, K    int
	A, B, C    Operand
	Accumulate bool
}

// bSource says where the inner kernel reads B from.
type bSource uint8

const (
	bDirect bSource = iota // from where it lies: its rows are contiguous and read once or twice
	bTask                  // from the scratch: the task packs a panel and uses it at once
	bPhase                 // from the workspace: a first phase packs all panels for all tasks
)

// Gemm is the plan of a GemmShape on a path.
type Gemm struct {
	t       *tile
	s       GemmShape // with contiguous columns in C
	swapped bool      // the shape was transposed: A and B of the call change places
	batch   int
	source  bSource

	mBlock, nBlock, kBlock    int // rows and columns of a task, length of a partial sum
	mBlocks, nBlocks, panels  int
	perTask                   int // products of the batch in a task
	ro, co, ko, bo            []int32
	packedRo, packedKo        []int32 // the tables of a packed A, for paths that want it
	aLen, bLen, cLen, workLen int
}

// Limits of the cut into blocks and tasks. A partial sum of maxKBlock summands
// keeps a panel of B (maxKBlock × nr) within the first-level cache, and a block of
// maxMBlock rows of A within the second.
const (
	maxKBlock = 320
	maxMBlock = 192
	minWork   = 1 << 18 // multiplications that are worth a task: some microseconds
	manyTasks = 32      // a call that is big enough is cut into about so many
)

// NewGemm plans the products of s on path p. It panics on a negative size or
// stride, on a C without contiguous rows or columns, and on a matrix whose
// offsets within a block exceed 2³¹.
func NewGemm(p Path, s GemmShape) *Gemm {
	g := &Gemm{t: tileOf(p), s: s, batch: 1}
	for _, n := range s.Batch {
		g.batch *= n
	}
	if s.M < 0 || s.N < 0 || s.K < 0 || g.batch < 0 {
		panic(fmt.Sprintf("kernel: NewGemm: sizes M=%d N=%d K=%d batch=%v must not be negative", s.M, s.N, s.K, s.Batch))
	}
	for _, o := range []Operand{s.A, s.B, s.C} {
		if len(o.Batch) != len(s.Batch) || o.Row < 0 || o.Col < 0 {
			panic(fmt.Sprintf("kernel: NewGemm: operand %+v: want %d batch strides and no negative ones", o, len(s.Batch)))
		}
	}
	if s.N > 1 && s.C.Col != 1 || s.N == 1 && s.M > 1 && s.C.Row == 1 && s.A.Row == 1 {
		if s.C.Row != 1 {
			panic(fmt.Sprintf("kernel: NewGemm: neither rows nor columns of C are contiguous: strides %d, %d", s.C.Row, s.C.Col))
		}
		g.swapped = true
		g.s.M, g.s.N = s.N, s.M
		g.s.A, g.s.B, g.s.C = s.B.T(), s.A.T(), s.C.T()
	}
	g.cut()
	s = g.s
	g.ro, g.co = offsets(g.mBlock, s.A.Row), offsets(g.mBlock, s.C.Row)
	g.ko, g.bo = offsets(g.kBlock, s.A.Col), offsets(s.K, s.B.Row)
	if g.t.packA {
		g.packedRo, g.packedKo = packedTables(g.t.mr, g.mBlock, g.kBlock)
	}
	g.aLen = extent(s.Batch, s.A, s.M, s.K)
	g.bLen = extent(s.Batch, s.B, s.K, s.N)
	g.cLen = extent(s.Batch, s.C, s.M, s.N)
	return g
}

// cut chooses blocks, tasks and the source of B.
func (g *Gemm) cut() {
	s, t := &g.s, g.t
	g.kBlock = blockOf(s.K, maxKBlock, 1)
	g.mBlock = blockOf(s.M, maxMBlock, t.mr)
	g.panels = ceilDiv(s.N, t.nr)
	work := max(g.batch*s.M*s.N*s.K/manyTasks, minWork)

	perPanel := max(g.mBlock*s.K*t.nr, 1)
	g.nBlock = min(max(work/perPanel, 1), max(g.panels, 1)) * t.nr
	if g.nBlock == t.nr && g.panels*g.batch < manyTasks/2 {
		// A panel of all rows is too much for a task: fewer rows.
		perTileRow := max(t.mr*s.K*t.nr, 1)
		g.mBlock = min(g.mBlock, max(work/perTileRow, 1)*t.mr)
	}
	g.mBlocks, g.nBlocks = ceilDiv(s.M, max(g.mBlock, 1)), ceilDiv(s.N, g.nBlock)
	g.perTask = 1
	if g.mBlocks*g.nBlocks == 1 {
		g.perTask = min(max(work/max(s.M*s.N*s.K, 1), 1), max(g.batch, 1))
	}
	switch {
	case s.B.Col == 1 && s.M <= 2*t.mr:
		g.source = bDirect
	case g.mBlocks <= 1:
		g.source = bTask
	default:
		g.source = bPhase
		g.workLen = g.batch * g.panels * t.nr * s.K
	}
}

// blockOf cuts n into equal blocks of at most about limit, rounded up to a multiple of unit.
func blockOf(n, limit, unit int) int {
	if n == 0 {
		return 0
	}
	return min(roundUp(ceilDiv(n, ceilDiv(n, limit)), unit), n)
}

// offsets is the table 0, stride, 2·stride, …
func offsets(n, stride int) []int32 {
	if n > 0 && (n-1)*stride > math.MaxInt32 {
		panic(fmt.Sprintf("kernel: %d rows with a stride of %d exceed the reach of 2³¹ values", n, stride))
	}
	t := make([]int32, n)
	for i := range t {
		t[i] = int32(i * stride)
	}
	return t
}

// extent is the length that a slice needs to hold the rows×cols matrices of o.
func extent(batch []int, o Operand, rows, cols int) int {
	if rows == 0 || cols == 0 {
		return 0
	}
	last := (rows-1)*o.Row + (cols-1)*o.Col
	for d, n := range batch {
		if n == 0 {
			return 0
		}
		last += (n - 1) * o.Batch[d]
	}
	return last + 1
}

// WorkspaceLen is the number of values a call needs in Work.
func (g *Gemm) WorkspaceLen() int { return g.workLen }

// ScratchLen is the number of values a task needs in its Scratch.
func (g *Gemm) ScratchLen() int {
	n := 0
	if g.source == bTask {
		n += g.kBlock * g.t.nr
	}
	if g.t.packA {
		n += roundUp(g.mBlock, g.t.mr) * g.kBlock
	}
	return n
}

// GemmCall is one execution of a Gemm on A, B, C. Work has the plan's
// WorkspaceLen values; its contents do not matter before and after.
// C overlaps none of the others.
type GemmCall struct {
	Plan    *Gemm
	A, B, C []float32
	Work    []float32

	pack gemmPack
	mul  gemmMul
}

var _ Call = (*GemmCall)(nil)

// Phases is 2 if B is packed before the products begin, else 1.
func (c *GemmCall) Phases() int {
	if c.Plan.source == bPhase {
		return 2
	}
	return 1
}

// Phase returns the job of phase i.
func (c *GemmCall) Phase(i int) Job {
	if i == 0 {
		c.check()
	}
	c.pack.c, c.mul.c = c, c
	if i == 0 && c.Plan.source == bPhase {
		return &c.pack
	}
	return &c.mul
}

func (c *GemmCall) check() {
	g := c.Plan
	a, b := c.operands()
	need("Gemm", "the left operand", len(a), g.aLen)
	need("Gemm", "the right operand", len(b), g.bLen)
	need("Gemm", "C", len(c.C), g.cLen)
	need("Gemm", "Work", len(c.Work), g.workLen)
}

// operands returns A and B as the plan sees them.
func (c *GemmCall) operands() (a, b []float32) {
	if c.Plan.swapped {
		return c.B, c.A
	}
	return c.A, c.B
}

// gemmPack copies B into panels: one task a panel.
type gemmPack struct{ c *GemmCall }

func (p *gemmPack) Tasks() int { return p.c.Plan.batch * p.c.Plan.panels }

func (p *gemmPack) Do(task int, _ *Scratch) {
	g := p.c.Plan
	_, b := p.c.operands()
	nr := g.t.nr
	j0 := task % g.panels * nr
	src := b[g.at(g.s.B, task/g.panels)+j0*g.s.B.Col:]
	dst := p.c.Work[task*nr*g.s.K:][:nr*g.s.K]
	packPanel(dst, src, g.bo, min(nr, g.s.N-j0), nr, g.s.B.Col)
}

// at is the offset of product number b of the batch.
func (g *Gemm) at(o Operand, b int) int {
	off := 0
	for d := len(g.s.Batch) - 1; d >= 0; d-- {
		n := g.s.Batch[d]
		off += b % n * o.Batch[d]
		b /= n
	}
	return off
}

// gemmMul multiplies: one task a block of C, or a few small products.
type gemmMul struct{ c *GemmCall }

func (m *gemmMul) Tasks() int {
	g := m.c.Plan
	return ceilDiv(g.batch, g.perTask) * g.mBlocks * g.nBlocks
}

func (m *gemmMul) Do(task int, s *Scratch) {
	g := m.c.Plan
	mBlock := task % g.mBlocks
	task /= g.mBlocks
	nBlock := task % g.nBlocks
	first := task / g.nBlocks * g.perTask
	for b := first; b < min(first+g.perTask, g.batch); b++ {
		m.block(b, mBlock*g.mBlock, nBlock*g.nBlock, s)
	}
}

// block computes the block of C that begins at row i0 and column j0 of product b.
func (m *gemmMul) block(batch, i0, j0 int, s *Scratch) {
	g := m.c.Plan
	a, b := m.c.operands()
	nr := g.t.nr
	a = a[g.at(g.s.A, batch)+i0*g.s.A.Row:]
	b = b[g.at(g.s.B, batch):]
	c := m.c.C[g.at(g.s.C, batch)+i0*g.s.C.Row:]
	buf := s.take(g.ScratchLen())
	var panelBuf []float32
	if g.source == bTask {
		panelBuf, buf = buf[:g.kBlock*nr], buf[g.kBlock*nr:]
	}

	p := &s.panel
	p.rows = min(g.mBlock, g.s.M-i0)
	p.co, p.ldb = g.co, nr
	jEnd := min(j0+g.nBlock, g.s.N)
	for k0 := 0; k0 == 0 || k0 < g.s.K; k0 += max(g.kBlock, 1) {
		kc := min(g.kBlock, g.s.K-k0)
		p.add = g.s.Accumulate || k0 > 0
		p.a, p.ro, p.ko = a, g.ro, g.ko[:kc]
		if kc > 0 {
			p.a = a[k0*g.s.A.Col:]
		}
		if g.t.packA {
			packA(buf, p.a, p.ro[:p.rows], p.ko, g.packedRo, g.t.mr)
			p.a, p.ro, p.ko = buf, g.packedRo, g.packedKo[:kc]
		}
		for j := j0; j < jEnd; j += nr {
			p.n = min(nr, jEnd-j)
			p.c = c[j:]
			switch {
			case kc == 0:
			case g.source == bDirect:
				p.b, p.ldb = b[k0*g.s.B.Row+j:], g.s.B.Row
			case g.source == bTask:
				packPanel(panelBuf, b[j*g.s.B.Col:], g.bo[k0:k0+kc], p.n, nr, g.s.B.Col)
				p.b = panelBuf
			default:
				p.b = m.c.Work[((batch*g.panels+j/nr)*g.s.K+k0)*nr:]
			}
			g.t.run(p)
		}
	}
}
