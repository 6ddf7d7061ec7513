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

// Gemm is the plan of a GemmShape on a path.
type Gemm struct {
	t       *tile
	s       GemmShape // with contiguous columns in C
	swapped bool      // the shape was transposed: A and B of the call change places
	batch   int
	source  bSource
	packA   bool
	dot     bool // one column, and contiguous vectors to multiply it from

	mBlock, nBlock, kBlock    int // rows and columns of a task, length of a partial sum
	mBlocks, nBlocks, panels  int
	starts                    []int // where blocks of rows begin, and the end: the greatest has mBlock rows; nil if all have
	perTask                   int   // products of the batch in a task
	ro, co, ko, bo            []int32
	packedRo, packedKo        []int32 // the tables of a packed A, for paths that want it
	aLen, bLen, cLen, workLen int
}

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
	g.dot = g.t.dot != nil && min(s.M, s.N) == 1 && s.A.Col == 1 && s.B.Row == 1
	if g.dot && s.N > 1 || !g.dot && (s.N > 1 && s.C.Col != 1 || s.N == 1 && s.M > 1 && s.C.Row == 1 && s.A.Row == 1) {
		if !g.dot && s.C.Row != 1 {
			panic(fmt.Sprintf("kernel: NewGemm: neither rows nor columns of C are contiguous: strides %d, %d", s.C.Row, s.C.Col))
		}
		g.swapped = true
		g.s.M, g.s.N = s.N, s.M
		g.s.A, g.s.B, g.s.C = s.B.T(), s.A.T(), s.C.T()
	}
	g.cut()
	s = g.s
	g.ro, g.co = offsets(g.mBlock, s.A.Row), offsets(g.mBlock, s.C.Row)
	g.ko, g.bo = offsets(s.K, s.A.Col), offsets(s.K, s.B.Row)
	if g.packA {
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

	big := t.large.bigA
	if s.A.Col > 1 && s.A.Row == 1 {
		big = t.large.stridedA
	}
	g.packA = t.packA || s.M*s.K > big && s.N > t.large.minN
	width := t.nr // columns that cost time
	if g.dot {
		width = 1
	}
	perPanel := max(g.mBlock*s.K*width, 1)
	g.nBlock = min(max(work/perPanel, 1), max(g.panels, 1)) * t.nr
	if s.B.Col == 1 && s.M <= groupedRows && !g.inPlace() {
		g.nBlock = max(g.nBlock, g.group()*t.nr)
	}
	switch {
	case g.packA && g.nBlock < t.large.columns:
		g.cutPacked()
	case g.nBlock == t.nr && g.panels*g.batch < manyTasks/2:
		// A panel of all rows is too much for a task: fewer rows.
		perTileRow := max(t.mr*s.K*width, 1)
		g.mBlock = min(g.mBlock, max(work/perTileRow, 1)*t.mr)
	}
	if g.starts == nil {
		g.mBlocks = ceilDiv(s.M, max(g.mBlock, 1))
	}
	g.nBlocks = ceilDiv(s.N, g.nBlock)
	g.perTask = 1
	if g.mBlocks*g.nBlocks == 1 {
		g.perTask = min(max(work/max(s.M*s.N*s.K, 1), 1), max(g.batch, 1))
	}
	switch {
	case g.dot:
		g.source = bDirect
	case g.inPlace():
		g.source = bDirect
	case g.mBlocks <= 1 || s.K == 0:
		g.source = bTask
	default:
		g.source = bPhase
		g.workLen = g.batch * g.panels * t.nr * s.K
	}
}

// inPlace tells whether the tasks read B where it lies.
func (g *Gemm) inPlace() bool {
	s, t := &g.s, g.t
	if s.B.Col != 1 || s.M > 2*t.mr {
		return false
	}
	return s.M <= t.large.fewRows || s.K*s.N <= t.large.directB
}

// group is how many panels of a B with contiguous rows a task packs at least: an even number of tasks, if there can be one.
func (g *Gemm) group() int {
	most := g.t.together()
	for n := most; n > 1; n-- {
		if ceilDiv(g.panels, n)%2 == 0 {
			return n
		}
	}
	return most
}

// cutPacked chooses the blocks of a product whose A is packed by each task.
func (g *Gemm) cutPacked() {
	s, t, l := &g.s, g.t, &g.t.large
	g.nBlock = max(blockOf(s.N, l.columns, t.nr), t.nr)
	if l.tasks == 0 {
		return
	}
	batch := max(g.batch, 1)
	parts := min(ceilDiv(l.tasks, ceilDiv(s.N, g.nBlock)*batch), s.M/l.minRows)
	parts = max(parts+parts&1, 1)                       // an even number, for two threads
	g.mBlocks = max(parts, ceilDiv(8*s.M, 5*maxMBlock)) // the first are the greatest, see dealt
	columns := s.N * g.mBlocks * batch / l.tasks
	g.nBlock = max(blockOf(s.N, min(max(columns, l.columns/2), g.nBlock), t.nr), t.nr)
	g.starts = dealt(s.M, g.mBlocks, t.mr, g.nBlock >= s.N)
	g.mBlock = 0
	for b, end := range g.starts[1:] {
		g.mBlock = max(g.mBlock, end-g.starts[b])
	}
}

// dealt returns where the blocks begin if rows are dealt to so many by tiles of
// mr, and the end. With shrinking the first have four times as many as the last, so
// that threads which are not equally fast end at about the same time.
func dealt(rows, blocks, mr int, shrinking bool) []int {
	starts, tiles := make([]int, blocks+1), ceilDiv(rows, mr)
	for b := range starts {
		at := tiles * b / blocks
		if shrinking {
			at = tiles * b * (8*blocks - 3*b) / (5 * blocks * blocks)
		}
		starts[b] = min(at*mr, rows)
	}
	return starts
}

// offsets is the table 0, stride, 2·stride, …
func offsets(n, stride int) []int32 {
	t := make([]int32, n)
	for i := range t {
		t[i] = offset32(i * stride)
	}
	return t
}

// offset32 panics unless the offset n within a matrix or image fits a table.
func offset32(n int) int32 {
	if n < 0 || n > math.MaxInt32 {
		panic(fmt.Sprintf("kernel: offset %d is beyond the reach of 2³¹ values", n))
	}
	return int32(n)
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
func (g *Gemm) ScratchLen() int { return productScratch(g.t, g.source, g.packA, g.mBlock, g.kBlock) }

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

// gemmPack copies B into panels: one task a panel, or several that lie side by side.
type gemmPack struct{ c *GemmCall }

func (p *gemmPack) Tasks() int { return p.c.Plan.batch * ceilDiv(p.c.Plan.panels, p.c.Plan.packed()) }

// packed is the number of panels of a task of gemmPack.
func (g *Gemm) packed() int {
	if g.s.B.Col == 1 {
		return g.t.together()
	}
	return 1
}

func (p *gemmPack) Do(task int, _ *Scratch) {
	g := p.c.Plan
	_, b := p.c.operands()
	nr, k := g.t.nr, g.s.K
	tasks := ceilDiv(g.panels, g.packed())
	batch, first := task/tasks, task%tasks*g.packed()
	src := b[g.at(g.s.B, batch)+first*nr*g.s.B.Col:]
	dst := p.c.Work[(batch*g.panels+first)*nr*k:]
	n := min(g.packed()*nr, g.s.N-first*nr)
	if whole := n / nr; g.packed() > 1 && whole > 0 {
		g.t.panelRows(dst, src, g.bo, whole, nr*k)
		n -= whole * nr
		src, dst = src[min(whole*nr, len(src)):], dst[whole*nr*k:]
	}
	if n > 0 {
		g.t.pack(dst[:nr*k], src, g.bo, n, nr, nr, g.s.B.Col)
	}
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
		m.block(b, mBlock, nBlock*g.nBlock, s)
	}
}

// rows are those of a block: from i0 on, and how many.
func (g *Gemm) rows(block int) (i0, n int) {
	if g.starts == nil {
		i0 = block * g.mBlock
		return i0, min(g.mBlock, g.s.M-i0)
	}
	return g.starts[block], g.starts[block+1] - g.starts[block]
}

// block computes a block of rows of C from column j0 on, of one product of the batch.
func (m *gemmMul) block(batch, mBlock, j0 int, s *Scratch) {
	g := m.c.Plan
	i0, rows := g.rows(mBlock)
	a, b := m.c.operands()
	p := &s.product
	*p = product{
		t: g.t, rows: rows, n: min(g.nBlock, g.s.N-j0), kBlock: g.kBlock, add: g.s.Accumulate,
		c:  m.c.C[g.at(g.s.C, batch)+i0*g.s.C.Row+j0:],
		ro: g.ro, co: g.co, ko: g.ko, bo: g.bo,
		bStride: g.s.B.Col, source: g.source, packedRo: g.packedRo, packedKo: g.packedKo,
	}
	if g.s.K > 0 {
		p.a = a[g.at(g.s.A, batch)+i0*g.s.A.Row:]
		p.b = b[g.at(g.s.B, batch)+j0*g.s.B.Col:]
	}
	if g.source == bPhase {
		p.packed = m.c.Work[(batch*g.panels+j0/g.t.nr)*g.s.K*g.t.nr:]
	}
	if g.dot && g.s.K > 0 {
		s.panel = panel{a: p.a, b: p.b, c: p.c, ro: p.ro, co: p.co, ko: p.ko, rows: p.rows, n: 1, add: p.add}
		g.t.dot(&s.panel)
		return
	}
	s.multiply(s.take(g.ScratchLen()))
}
