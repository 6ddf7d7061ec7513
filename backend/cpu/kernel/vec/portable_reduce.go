package vec

import (
	"fmt"
	"math/bits"
)

// Reductions in plain Go, in the order that the package comment fixes.

// halves returns where a slice of n > ReduceBlock elements splits for pairwise combination: at
// the largest power of two of blocks that leaves something on the right.
func halves(n int) int {
	blocks := (n + ReduceBlock - 1) / ReduceBlock
	return ReduceBlock << (bits.Len(uint(blocks-1)) - 1)
}

// lanes are the partial results of a reduction, one accumulator a lane.
type lanes [Lanes]float32

// fold combines the upper half of the lanes into the lower until one is left.
func (l *lanes) fold(f func(x, y float32) float32) float32 {
	for n := Lanes / 2; n > 0; n /= 2 {
		for i := range n {
			l[i] = f(l[i], l[i+n])
		}
	}
	return l[0]
}

// fill sets all lanes to x.
func (l *lanes) fill(x float32) {
	for i := range l {
		l[i] = x
	}
}

func plus(x, y float32) float32  { return x + y }
func times(x, y float32) float32 { return x * y }

func sumPortable(a []float32) float32 {
	if len(a) > ReduceBlock {
		h := halves(len(a))
		return sumPortable(a[:h]) + sumPortable(a[h:])
	}
	var l lanes
	for i, x := range a {
		l[i%Lanes] += x
	}
	return l.fold(plus)
}

func prodPortable(a []float32) float32 {
	if len(a) > ReduceBlock {
		h := halves(len(a))
		return prodPortable(a[:h]) * prodPortable(a[h:])
	}
	var l lanes
	l.fill(1)
	for i, x := range a {
		l[i%Lanes] *= x
	}
	return l.fold(times)
}

func maxOfPortable(a []float32) float32 {
	m := -inf
	for _, x := range a {
		m = max(m, x)
	}
	return m
}

func minOfPortable(a []float32) float32 {
	m := inf
	for _, x := range a {
		m = min(m, x)
	}
	return m
}

func sumSqPortable(a []float32) float32 {
	if len(a) > ReduceBlock {
		h := halves(len(a))
		return sumSqPortable(a[:h]) + sumSqPortable(a[h:])
	}
	var l lanes
	for i, x := range a {
		l[i%Lanes] = fma(x, x, l[i%Lanes])
	}
	return l.fold(plus)
}

func dotPortable(a, b []float32) float32 {
	b = b[:len(a)]
	if len(a) > ReduceBlock {
		h := halves(len(a))
		return dotPortable(a[:h], b[:h]) + dotPortable(a[h:], b[h:])
	}
	var l lanes
	for i, x := range a {
		l[i%Lanes] = fma(x, b[i], l[i%Lanes])
	}
	return l.fold(plus)
}

func sumSqDiffPortable(a []float32, m float32) float32 {
	if len(a) > ReduceBlock {
		h := halves(len(a))
		return sumSqDiffPortable(a[:h], m) + sumSqDiffPortable(a[h:], m)
	}
	var l lanes
	for i, x := range a {
		d := x - m
		l[i%Lanes] = fma(d, d, l[i%Lanes])
	}
	return l.fold(plus)
}

func sumExpSubPortable(a []float32, m float32) float32 {
	if len(a) > ReduceBlock {
		h := halves(len(a))
		return sumExpSubPortable(a[:h], m) + sumExpSubPortable(a[h:], m)
	}
	var l lanes
	for i, x := range a {
		l[i%Lanes] += exp(x - m)
	}
	return l.fold(plus)
}

func expSubSumPortable(dst, a []float32, m float32) float32 {
	a = a[:len(dst)]
	if len(a) > ReduceBlock {
		h := halves(len(a))
		return expSubSumPortable(dst[:h], a[:h], m) + expSubSumPortable(dst[h:], a[h:], m)
	}
	var l lanes
	for i, x := range a {
		dst[i] = exp(x - m)
		l[i%Lanes] += dst[i]
	}
	return l.fold(plus)
}

// checkRows panics unless rows rows of cols columns, stride elements apart, fit n elements.
func checkRows(n, rows, stride, cols int) {
	if rows < 0 || stride < cols || (rows > 0 && (rows-1)*stride+cols > n) {
		panic(fmt.Sprintf("vec: %d rows of %d columns with stride %d do not fit a slice of %d elements", rows, cols, stride, n))
	}
}

// sumRowsPortable runs over the blocks of RowBlock rows; rowsPortable gives the order inside one.
func sumRowsPortable(dst, a []float32, rows, stride int) {
	checkRows(len(a), rows, stride, len(dst))
	rowsPortable(dst, rows, func(r, c int, t float32) float32 { return t + a[r*stride+c] })
}

func sumMulRowsPortable(dst, a, b []float32, rows, stride int) {
	checkRows(len(a), rows, stride, len(dst))
	checkRows(len(b), rows, stride, len(dst))
	rowsPortable(dst, rows, func(r, c int, t float32) float32 { return fma(a[r*stride+c], b[r*stride+c], t) })
}

func sumSqDiffRowsPortable(dst, a, m []float32, rows, stride int) {
	checkRows(len(a), rows, stride, len(dst))
	m = m[:len(dst)]
	rowsPortable(dst, rows, func(r, c int, t float32) float32 {
		d := a[r*stride+c] - m[c]
		return fma(d, d, t)
	})
}

// rowGroup is the number of rows added up before their sum joins the partial result.
const rowGroup = 8

// rowsPortable adds the terms of all rows to dst: term adds row r, column c to t. A group of eight
// rows starts from 0; the rows left over at the end of a block form groups of one.
func rowsPortable(dst []float32, rows int, term func(r, c int, t float32) float32) {
	for c := range dst {
		for r0 := 0; r0 < rows; r0 += RowBlock {
			end := min(r0+RowBlock, rows)
			var part float32
			for r := r0; r < end; {
				n := rowGroup
				if end-r < rowGroup {
					n = 1
				}
				var t float32
				for range n {
					t = term(r, c, t)
					r++
				}
				part += t
			}
			dst[c] += part
		}
	}
}

// colTile is the number of columns that the assembly paths add up at a time.
const colTile = 256
