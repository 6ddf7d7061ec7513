package kernel

import (
	"slices"
	"sort"
)

// pack copies the k×n block of a matrix whose element (i, j) is src[ko[i] + j·stride]
// to dst[i·pitch + j], and sets the columns n … width-1 of dst to zero. This is how
// panels of B (width = pitch = nr) and tiles of A (width = pitch = mr) are built.
// The offsets ascend.
func (t *tile) pack(dst, src []float32, ko []int32, n, width, pitch, stride int) {
	if len(ko) == 0 {
		return
	}
	_ = dst[(len(ko)-1)*pitch+width-1]
	if stride == 1 && t.copyRows != nil {
		t.copyRows(dst, src, ko, n, width, pitch)
		return
	}
	for i := 0; i < len(ko); {
		run := runLength(ko[i:])
		if run >= 4 && stride > 1 && t.transpose != nil {
			t.transpose(dst[i*pitch:], src[ko[i]:], run, n, width, pitch, stride)
			i += run
			continue
		}
		packRows(dst[i*pitch:], src, ko[i:i+run], n, width, pitch, stride)
		i += run
	}
}

// together is the number of panels that lie side by side in rows of B and are
// packed at the same time, so that more than one cache line is read of each row.
func (t *tile) together() int {
	if t.panelRows != nil {
		return 4
	}
	return 1
}

// runLength is the number of offsets at the beginning of ko, which ascend, that follow one another.
func runLength(ko []int32) int {
	follows := func(i int) bool { return int(ko[i]-ko[0]) == i }
	if follows(len(ko) - 1) {
		return len(ko)
	}
	n := 1 // offsets known to follow
	for 2*n < len(ko) && follows(2*n) {
		n *= 2
	}
	return n + sort.Search(min(n, len(ko)-n), func(i int) bool { return !follows(n + i) })
}

// packRows is pack in plain Go.
func packRows(dst, src []float32, ko []int32, n, width, pitch, stride int) {
	for i, o := range ko {
		row := dst[i*pitch:][:width]
		if stride == 1 {
			copy(row, src[o:int(o)+n])
		} else {
			at := int(o)
			for j := range row[:n] {
				row[j] = src[at]
				at += stride
			}
		}
		clear(row[n:])
	}
}

// packTiles copies the rows of A whose element (i, k) is src[ro[i] + ko[k]] to
// dst[to[i] + k·mr]: tiles of mr rows, k by k, with to from packedTables.
func (t *tile) packTiles(dst, src []float32, ro, ko, to []int32) {
	if whole := len(ro) / t.mr; whole > 0 && t.tileRows != nil && runLength(ro) == len(ro) {
		pitch := 0
		if whole > 1 {
			pitch = int(to[t.mr])
		}
		t.tileRows(dst, src[ro[0]:], ko, whole, pitch)
		ro, to = ro[whole*t.mr:], to[whole*t.mr:]
	}
	for i0 := 0; i0 < len(ro); i0 += t.mr {
		rows := ro[i0:min(i0+t.mr, len(ro))]
		stride := 1
		if len(rows) > 1 {
			stride = int(rows[1] - rows[0])
		}
		out := dst[to[i0]:]
		if len(rows) == t.mr && t.gather != nil {
			t.gather(out, src, rows, ko)
			continue
		}
		if uniform(rows) && slices.IsSorted(ko) {
			t.pack(out, src[rows[0]:], ko, len(rows), t.mr, t.mr, stride)
			continue
		}
		for i, r := range rows {
			row := src[r:]
			for k, o := range ko {
				out[k*t.mr+i] = row[o]
			}
		}
	}
}

// packedTables returns the offsets of rows and summands in an A that packTiles has
// packed with tiles of mr rows by at most kc summands.
func packedTables(mr, rows, kc int) (ro, ko []int32) {
	ro = offsets(rows, 1)
	for i := range ro {
		ro[i] = int32(i/mr*mr*kc + i%mr)
	}
	return ro, offsets(kc, mr)
}

// sum adds the given number of partial results, pitch apart in src, in their order: dst[i] = Σ src[part·pitch + i].
// dst may be the first part.
func (t *tile) sum(dst, src []float32, pitch, parts int) {
	done := 0
	if t.sumVectors != nil && parts > 0 {
		_ = src[(parts-1)*pitch:][:len(dst)]
		done = t.sumVectors(dst, src, pitch, parts)
	}
	for i := done; i < len(dst); i++ {
		v := src[i]
		for part := 1; part < parts; part++ {
			v += src[part*pitch+i]
		}
		dst[i] = v
	}
}

// packColumns copies the n columns of a matrix whose element (k, j) is
// src[ko[k] + j·stride] one behind the other.
func packColumns(dst, src []float32, ko []int32, n, stride int) {
	for j := range n {
		for k, o := range ko {
			dst[j*len(ko)+k] = src[int(o)+j*stride]
		}
	}
}
