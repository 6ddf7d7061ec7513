package mismatch

import "math"

// betheLinks are the entries of a transport, at most one a row and one a column, that are counted by Bethe's entropy: own links.
//
// A permutation of n rows of which w are moved is one of about w!/e. The entropy that Sinkhorn's sweeps maximise, −Σ P log P, counts
// e^w times as many, since it lets rows choose apart from each other, while rows that stay are counted once; so it moves too many.
// Bethe's entropy, −Σ P log P + Σ (1−P) log(1−P), counts rightly to first order and is concave on doubly stochastic matrices
// (Vontobel, The Bethe permanent of a nonnegative matrix, IEEE T-IT 2013). An entry that is not an own link is small, and
// (1−P) log(1−P) ≈ −P. The plan is then P = diag(u)·K·diag(v) but for own links, with r_i and c_i the sums of the other entries
// of the link's row and column:
//
//	P_ii/(1−P_ii) = K_ii/(r_i c_i),  u_i = 1/(r_i + K_ii/c_i),  v_i = 1/(c_i + K_ii/r_i),  r_i = Σ_{j≠i} K_ij v_j,  c_i = Σ_{k≠i} u_k K_ki
//
// that is, Sinkhorn's sweeps in which a row's own label answers for what others leave of it, 1/c_i in the place of v_i.
type betheLinks struct {
	own, owner []int     // column of a row, row of a column; −1: none
	o          []float64 // K_ii by row, on the scale of the row of the transport's kernel
	r, c       []float64 // by row and by column, on the scales of the kernel
	log        []float64 // log c_j by column, without the potentials: kept from call to call
}

// leastSum is where sums over the other entries end, so that one that nothing reaches is a sure link and not a division by 0.
const leastSum = 1e-200

// size makes room for rows and columns; own tells the links of the first rows.
func (l *betheLinks) size(rows, cols int, own []int) {
	l.own, l.owner = make([]int, rows), make([]int, cols)
	l.o, l.r = make([]float64, rows), make([]float64, rows)
	l.c, l.log = make([]float64, cols), make([]float64, cols)
	for i := range l.own {
		l.own[i] = -1
	}
	for j := range l.owner {
		l.owner[j] = -1
	}
	for i, j := range own {
		if l.own[i] = j; j >= 0 {
			l.owner[j] = i
		}
	}
}

// has reports whether an entry is one of the links.
func (l *betheLinks) has(i, j int) bool { return l != nil && l.own[i] == j }

// takeOut moves the links from the kernel to o.
func (l *betheLinks) takeOut(t *transport) {
	for i, j := range l.own {
		if j >= 0 {
			at := &t.kernel[i*t.cols+j]
			l.o[i], *at = *at, 0
		}
	}
	for j := range l.c {
		l.c[j] = min(max(math.Exp(l.log[j]+t.b[j]), leastSum), 1/leastSum)
	}
}

// keep remembers the columns' sums; b are the potentials that are in the kernel.
func (l *betheLinks) keep(b []float64) {
	for j, c := range l.c {
		l.log[j] = math.Log(c) - b[j]
	}
}

// addToRows turns r_i, the sums over a row's other entries, into r_i + K_ii/c_i.
func (l *betheLinks) addToRows(sums []float64) {
	for i, j := range l.own {
		if l.r[i] = max(sums[i], leastSum); j >= 0 {
			sums[i] = l.r[i] + l.share(i)
		}
	}
}

// addToColumns turns c_j into c_j + K_jj/r_j.
func (l *betheLinks) addToColumns(sums []float64) {
	for j, i := range l.owner {
		if l.c[j] = max(sums[j], leastSum); i >= 0 {
			sums[j] = l.c[j] + l.o[i]/l.r[i]
		}
	}
}

// logRow returns log(r_i + K_ii/c_i) from log r_i, which it keeps, for a sweep of logarithms.
func (l *betheLinks) logRow(t *transport, i int, sum float64) float64 {
	if l == nil || l.own[i] < 0 {
		return sum
	}
	l.r[i] = sum
	return logAdd(sum, t.l[i*t.cols+l.own[i]]-l.log[l.own[i]])
}

// logColumn returns log(c_j + K_jj/r_j) from log c_j, which it keeps; r are logarithms.
func (l *betheLinks) logColumn(t *transport, j int, sum float64) float64 {
	if l == nil {
		return sum
	}
	l.log[j] = max(sum, -math.MaxFloat64)
	i := l.owner[j]
	if i < 0 {
		return sum
	}
	return logAdd(sum, t.l[i*t.cols+j]-max(l.r[i], -math.MaxFloat64))
}

// share returns P_ii on the scale of the row's other entries, K_ij·v_j.
func (l *betheLinks) share(i int) float64 { return l.o[i] / l.c[l.own[i]] }

// mass returns P_ii.
func (l *betheLinks) mass(i int) float64 {
	share := l.share(i)
	return share / (share + l.r[i])
}

// logAdd returns log(e^a + e^b).
func logAdd(a, b float64) float64 {
	if a < b {
		a, b = b, a
	}
	if math.IsInf(a, -1) {
		return a
	}
	return a + math.Log1p(math.Exp(b-a))
}
