package kernel

// bSource says where the inner kernel reads B from.
type bSource uint8

const (
	bDirect bSource = iota // from where it lies: its rows are contiguous and read once or twice
	bTask                  // from the scratch: the task packs a panel and uses it at once
	bRuns                  // from the workspace: a first phase packs the few columns, for runDots
	bPhase                 // from the workspace: a first phase has packed all panels for all tasks
)

// Limits of the cut into blocks and tasks. A partial sum of maxKBlock summands
// keeps a panel of B (maxKBlock × nr) within the first-level cache, and a block of
// maxMBlock rows of A within the second.
const (
	maxKBlock   = 320
	maxMBlock   = 192
	groupedRows = 64      // of A, up to which reading B takes as long as multiplying
	minWork     = 1 << 18 // multiplications that are worth a task: some microseconds
	manyTasks   = 32      // a call that is big enough is cut into about so many
)

// product is one task's share of a multiplication: for 0 ≤ i < rows, 0 ≤ j < n
//
//	C[co[i] + j] (+)= Σ_k A[ro[i] + ko[k]] · B[bo[k] + j·bStride]
//
// summed in blocks of kBlock in ascending order.
type product struct {
	t        *tile
	rows, n  int
	kBlock   int
	add      bool
	a, b, c  []float32
	ro, co   []int32
	ko, bo   []int32 // of equal length
	bStride  int
	source   bSource
	packed   []float32 // with bPhase: the panels, each of len(ko)·nr values
	starts   []int32   // with bRuns: the offsets where the runs of ko begin
	packedRo []int32   // to pack A first: the tables of packedTables, else nil
	packedKo []int32
}

// productScratch is the number of values that multiply takes from its buffer.
func productScratch(t *tile, source bSource, packA bool, rows, kBlock int) int {
	n := 0
	if source == bTask || source == bDirect && !t.partialB {
		n += kBlock * t.nr * t.together()
	}
	if packA {
		n += roundUp(rows, t.mr) * kBlock
	}
	return n
}

// multiply computes s.product, with buf as working memory.
func (s *Scratch) multiply(buf []float32) {
	m, p := &s.product, &s.panel
	t := m.t
	var panelBuf []float32
	if m.source == bTask || m.source == bDirect && !t.partialB {
		n := m.kBlock * t.nr * t.together()
		panelBuf, buf = buf[:n], buf[n:]
	}
	if len(m.ko) == 0 {
		m.clear()
		return
	}
	if m.source == bRuns {
		*p = panel{a: m.a, b: m.packed, c: m.c, ro: m.ro, co: m.co, ko: m.starts, rows: m.rows, n: m.n, ldb: len(m.ko) / len(m.starts)}
		t.runDots[m.n-1](p)
		return
	}
	p.rows, p.co, p.next, p.ahead = m.rows, m.co, nil, 0
	for k0 := 0; k0 < len(m.ko); k0 += m.kBlock {
		kc := min(m.kBlock, len(m.ko)-k0)
		p.add = m.add || k0 > 0
		p.a, p.ro, p.ko = m.a, m.ro, m.ko[k0:k0+kc]
		if m.packedRo != nil {
			t.packTiles(buf, p.a, p.ro[:p.rows], p.ko, m.packedRo)
			p.a, p.ro, p.ko = buf, m.packedRo, m.packedKo[:kc]
		}
		packed := 0 // panels in panelBuf that are still to come
		j := 0
		if m.source == bDirect && m.rows == 1 && t.wide != nil {
			j = m.wideRow(p, k0, kc)
		}
		for ; j < m.n; j += t.nr {
			p.n = min(t.nr, m.n-j)
			p.c, p.ldb = m.c[j:], t.nr
			switch {
			case m.source == bDirect && (t.partialB || p.n == t.nr):
				p.b, p.ldb = m.b[int(m.bo[k0])+j:], m.pitchOfB()
			case m.source != bPhase:
				if packed == 0 {
					packed = m.packPanels(panelBuf, k0, kc, j)
					p.b = panelBuf
				} else {
					p.b = p.b[kc*t.nr:]
				}
				packed--
			default:
				p.b = m.packed[(j/t.nr*len(m.ko)+k0)*t.nr:]
			}
			m.lookAhead(p, k0, kc, j)
			t.run(p)
		}
	}
}

// pitchOfB is the distance between rows of a B that is read in place.
func (m *product) pitchOfB() int {
	if len(m.bo) == 1 {
		return 0
	}
	return int(m.bo[1] - m.bo[0])
}

// wideRow adds the summands k0 … k0+kc−1 to the only row of C, as far as whole wide panels go, and returns how far that is.
// A row of B is read in longer pieces than a panel has.
func (m *product) wideRow(p *panel, k0, kc int) int {
	p.n, p.ldb, p.next, p.ahead = wideColumns, m.pitchOfB(), nil, 0
	j := 0
	for ; j+wideColumns <= m.n; j += wideColumns {
		p.b, p.c = m.b[int(m.bo[k0])+j:], m.c[j:]
		m.t.wide(p)
	}
	return j
}

// packPanels packs the next panels of B from column j on, and returns how many.
func (m *product) packPanels(dst []float32, k0, kc, j int) int {
	t, ko, src := m.t, m.bo[k0:k0+kc], m.b[j*m.bStride:]
	left := ceilDiv(m.n-j, t.nr)
	group := ceilDiv(left, ceilDiv(left, t.together()))
	if whole := min(group, (m.n-j)/t.nr); whole > 1 && m.bStride == 1 {
		t.panelRows(dst, src, ko, whole, kc*t.nr)
		return whole
	}
	t.pack(dst, src, ko, min(t.nr, m.n-j), t.nr, t.nr, m.bStride)
	return 1
}

// lookAhead tells p what part of B comes after the summands k0 … k0+kc−1 for the columns from j on.
func (m *product) lookAhead(p *panel, k0, kc, j int) {
	p.next, p.ahead = nil, 0
	nr := m.t.nr
	far := nr // columns from this panel to the one to fetch
	if m.source == bTask {
		far *= min(m.t.together(), ceilDiv(m.n, nr)) // those up to there are packed
	}
	k := k0
	if j += far; j >= m.n {
		k, j = k0+kc, j%far
	}
	switch {
	case k >= len(m.ko) || j >= m.n:
	case m.source == bPhase:
		p.next, p.pitch = m.packed[(j/nr*len(m.ko)+k)*nr:], nr
		p.ahead = ceilDiv(kc*nr/16, ceilDiv(m.rows, m.t.mr))
	case m.bStride == 1:
		p.next, p.pitch = m.b[int(m.bo[k])+j:], m.pitchOfB()
	}
}

// clear is the product without summands.
func (m *product) clear() {
	if m.add {
		return
	}
	for _, o := range m.co[:m.rows] {
		clear(m.c[o:][:m.n])
	}
}

// blockOf cuts n into equal blocks of at most about limit, rounded up to a multiple of unit.
func blockOf(n, limit, unit int) int {
	if n == 0 {
		return 0
	}
	return min(roundUp(ceilDiv(n, ceilDiv(n, limit)), unit), n)
}
