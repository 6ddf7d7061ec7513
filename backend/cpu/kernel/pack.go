package kernel

// packPanel copies the panel of B whose element (k, j) is src[ko[k] + j·stride]
// to dst[k·nr + j], for j < n; columns n … nr-1 become zero.
// len(dst) ≥ len(ko)·nr.
func packPanel(dst, src []float32, ko []int32, n, nr, stride int) {
	if stride == 1 {
		for k, o := range ko {
			row := dst[k*nr : k*nr+nr]
			copy(row, src[o:int(o)+n])
			clear(row[n:])
		}
		return
	}
	for k, o := range ko {
		row := dst[k*nr : k*nr+nr]
		at := int(o)
		for j := range n {
			row[j] = src[at]
			at += stride
		}
		clear(row[n:])
	}
}

// packA copies the rows of A whose element (i, k) is src[ro[i] + ko[k]] to
// dst[to[i] + k·mr]: tiles of mr rows, k by k, with to from packedTables.
func packA(dst, src []float32, ro, ko, to []int32, mr int) {
	for i, r := range ro {
		row, at := src[r:], int(to[i])
		for _, o := range ko {
			dst[at] = row[o]
			at += mr
		}
	}
}

// packedTables returns the offsets of rows and summands in an A that packA has
// packed with tiles of mr rows by at most kc summands.
func packedTables(mr, rows, kc int) (ro, ko []int32) {
	ro = offsets(rows, 1)
	for i := range ro {
		ro[i] = int32(i/mr*mr*kc + i%mr)
	}
	return ro, offsets(kc, mr)
}
