package loops

import "unsafe"

// MaxRank bounds the number of axes that strided access can have after axes
// that lie behind each other in memory have been merged.
const MaxRank = 12

// CopyStrided copies n elements of the given size to dst in row-major order
// of the index space dims, beginning at the linear index first. The element at
// index (i0, i1, …) is taken from src + Σ ik·strides[k] elements.
func CopyStrided(dst, src unsafe.Pointer, size int, dims, strides []int, first, n int) {
	switch size {
	case 1:
		copyStrided[uint8](dst, src, dims, strides, first, n)
	case 2:
		copyStrided[uint16](dst, src, dims, strides, first, n)
	case 4:
		copyStrided[uint32](dst, src, dims, strides, first, n)
	case 8:
		copyStrided[uint64](dst, src, dims, strides, first, n)
	}
}

func copyStrided[T any](dst, src unsafe.Pointer, dims, strides []int, first, n int) {
	var zero T
	size := int(unsafe.Sizeof(zero))
	d := Slice[T](dst, n)
	rank := len(dims)
	if rank == 0 {
		for i := range d {
			d[i] = *(*T)(src)
		}
		return
	}
	var index [MaxRank]int
	offset := 0
	for k := rank - 1; k >= 0; k-- {
		index[k] = first % dims[k]
		first /= dims[k]
		offset += index[k] * strides[k]
	}
	last := rank - 1
	inner, step := dims[last], strides[last]
	for len(d) > 0 {
		run := min(inner-index[last], len(d))
		from := unsafe.Add(src, offset*size)
		switch step {
		case 1:
			copy(d[:run], Slice[T](from, run))
		case 0:
			v := *(*T)(from)
			for i := range d[:run] {
				d[i] = v
			}
		default:
			bytes := step * size
			at := 0
			for i := range d[:run] {
				d[i] = *(*T)(unsafe.Add(from, at))
				at += bytes
			}
		}
		d = d[run:]
		if len(d) == 0 {
			return
		}
		offset += run * step
		index[last] += run
		for k := last; index[k] == dims[k] && k > 0; k-- {
			offset += strides[k-1] - dims[k]*strides[k]
			index[k] = 0
			index[k-1]++
		}
	}
}

// Transpose2D copies the rows×cols matrix at src, whose columns lie
// colStride elements apart and whose rows rowStride, to dst in row-major order
// with dstStride elements between rows, tile by tile.
func Transpose2D(dst, src unsafe.Pointer, size, rows, cols, rowStride, colStride, dstStride int) {
	switch size {
	case 1:
		transpose2D[uint8](dst, src, rows, cols, rowStride, colStride, dstStride)
	case 2:
		transpose2D[uint16](dst, src, rows, cols, rowStride, colStride, dstStride)
	case 4:
		transpose2D[uint32](dst, src, rows, cols, rowStride, colStride, dstStride)
	case 8:
		transpose2D[uint64](dst, src, rows, cols, rowStride, colStride, dstStride)
	}
}

func transpose2D[T any](dst, src unsafe.Pointer, rows, cols, rowStride, colStride, dstStride int) {
	const tile = 16
	var zero T
	size := int(unsafe.Sizeof(zero))
	for r0 := 0; r0 < rows; r0 += tile {
		r1 := min(r0+tile, rows)
		for c0 := 0; c0 < cols; c0 += tile {
			c1 := min(c0+tile, cols)
			for r := r0; r < r1; r++ {
				d := Slice[T](unsafe.Add(dst, (r*dstStride+c0)*size), c1-c0)
				from := unsafe.Add(src, (r*rowStride+c0*colStride)*size)
				at := 0
				for i := range d {
					d[i] = *(*T)(unsafe.Add(from, at))
					at += colStride * size
				}
			}
		}
	}
}
