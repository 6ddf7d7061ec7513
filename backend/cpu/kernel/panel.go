package kernel

// panel is the argument of the inner kernel, which computes for 0 ≤ i < rows and
// 0 ≤ j < n, n at most the width of the path's register tile,
//
//	C[co[i] + j] (+)= Σ_{k < len(ko)} A[ro[i] + ko[k]] · B[k·ldb + j]
//
// Each sum runs over k in ascending order and begins at zero; with add it begins at
// the value that C holds, or that is added in the end, as suits the path. len(ro) and len(co) are at least rows. Different i must
// not write the same values of C. The assembly reads the fields by offset.
type panel struct {
	a, b, c    []float32
	ro, ko, co []int32
	rows       int
	n          int
	ldb        int
	add        bool
	next       []float32 // what B will be in the next call, nil if that is not known
	ahead      int       // cache lines of next to fetch with each tile
	pitch      int       // values between the rows of next, for kernels that fetch it row by row
}

// maxDotColumns is the number of columns up to which lanes go along the sum.
const maxDotColumns = 4

// wideColumns is the width of a panel of one row.
const wideColumns = 64

// tile describes the kernels of a path.
type tile struct {
	mr, nr   int  // rows and columns of the register tile
	packA    bool // the kernel wants A as packed by packTiles
	partialB bool // the kernel reads no more columns of B than there are
	large    largeCut
	run      func(*panel)
	wide     func(*panel) // run for one row and wideColumns columns; may be nil
	dot      func(*panel) // run for one column, contiguous rows of A and a contiguous B; may be nil

	// runDots compute 1, 2, … columns without add, the sum in runs of ldb contiguous
	// values of A that begin at ro[i] + ko[r], B by columns one behind the other.
	// They may be nil.
	runDots [maxDotColumns]func(*panel)

	pools [poolKinds]func(*poolRow) // by poolKind, nil for the portable ones

	// Copies, nil for the portable ones. They are called with at least one offset
	// or row, and with slices that are long enough.
	copyRows   func(dst, src []float32, ko []int32, n, width, pitch int) // pack with stride 1
	gather     func(dst, src []float32, ro, ko []int32)                  // packTiles for mr rows
	tileRows   func(dst, src []float32, ko []int32, tiles, pitch int)    // packTiles for so many times mr rows with ro = 0, 1, …
	panelRows  func(dst, src []float32, ko []int32, panels, pitch int)   // pack with stride 1 for several panels pitch apart
	transpose  func(dst, src []float32, k, n, width, pitch, stride int)  // pack with ko = 0, 1, …, k-1
	sumVectors func(dst, src []float32, pitch, parts int) (done int)     // sum of the first done values
}

var portableTile = tile{mr: 4, nr: 8, partialB: true, large: plainCut(4), run: panelPortable}

// largeCut is how a path treats operands that its caches do not hold.
type largeCut struct {
	fewRows int // of A, up to which B is read in place whatever its size
	directB int // values of B up to which it is read in place once or twice: a larger one comes from memory, and is better copied first

	// Products whose A is packed:

	bigA     int // values of A above which it is packed: its rows would not stay in the caches
	stridedA int // the same for an A with contiguous columns
	minN     int // columns above which it is worth it
	columns  int // of a task at most
	tasks    int // into which a product is cut, 0 for one for each block of maxMBlock rows
	minRows  int // of such a task
}

// plainCut is for paths that read operands in place wherever they can, with tiles of mr rows.
func plainCut(mr int) largeCut {
	return largeCut{fewRows: mr * 2 / 3, directB: 1 << 20, bigA: 1 << 18, stridedA: 1 << 18, minN: 256, columns: 512}
}

// tileOf returns the kernels of path p. It panics if this machine cannot run them.
func tileOf(p Path) *tile {
	if p == Portable {
		return &portableTile
	}
	return nativeTile(p)
}

// panelPortable is the twin of the assembly in plain Go: two rows by four columns
// at a time, which is what the registers of a scalar unit hold.
func panelPortable(p *panel) {
	i := 0
	for ; i+2 <= p.rows; i += 2 {
		a0, a1 := p.a[p.ro[i]:], p.a[p.ro[i+1]:]
		c0, c1 := p.c[p.co[i]:][:p.n], p.c[p.co[i+1]:][:p.n]
		j := 0
		for ; j+4 <= p.n; j += 4 {
			dot2x4(p, a0, a1, j, c0[j:j+4], c1[j:j+4])
		}
		for ; j < p.n; j++ {
			c0[j] = dot1(p, a0, j, c0[j])
			c1[j] = dot1(p, a1, j, c1[j])
		}
	}
	if i < p.rows {
		a0, c0 := p.a[p.ro[i]:], p.c[p.co[i]:][:p.n]
		for j := range c0 {
			c0[j] = dot1(p, a0, j, c0[j])
		}
	}
}

// dot2x4 computes two rows of four neighbouring sums. The conversions keep the
// compiler from fusing product and sum, so that all architectures agree.
func dot2x4(p *panel, a0, a1 []float32, j int, c0, c1 []float32) {
	var s00, s01, s02, s03, s10, s11, s12, s13 float32
	if p.add {
		s00, s01, s02, s03 = c0[0], c0[1], c0[2], c0[3]
		s10, s11, s12, s13 = c1[0], c1[1], c1[2], c1[3]
	}
	for _, o := range p.ko {
		b := p.b[j : j+4 : j+4]
		x, y := a0[o], a1[o]
		s00 += float32(x * b[0])
		s01 += float32(x * b[1])
		s02 += float32(x * b[2])
		s03 += float32(x * b[3])
		s10 += float32(y * b[0])
		s11 += float32(y * b[1])
		s12 += float32(y * b[2])
		s13 += float32(y * b[3])
		j += p.ldb
	}
	c0[0], c0[1], c0[2], c0[3] = s00, s01, s02, s03
	c1[0], c1[1], c1[2], c1[3] = s10, s11, s12, s13
}

// dot1 computes one sum.
func dot1(p *panel, a []float32, j int, c float32) float32 {
	if !p.add {
		c = 0
	}
	for _, o := range p.ko {
		c += float32(a[o] * p.b[j])
		j += p.ldb
	}
	return c
}
