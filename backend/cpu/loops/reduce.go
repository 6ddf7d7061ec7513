package loops

import (
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
)

// Reduction names an associative operation that folds many elements into one.
type Reduction uint8

// The reductions. The logical ones are And, Or and Xor on Bool.
const (
	Sum Reduction = iota
	Product
	Max
	Min
	And
	Or
	Xor
)

// Op is the two-operand operation that the reduction repeats on dt.
func (r Reduction) Op(dt dtypes.DType) compute.OpType {
	logical := dt == dtypes.Bool
	switch r {
	case Sum:
		return compute.OpTypeAdd
	case Product:
		return compute.OpTypeMul
	case Max:
		return compute.OpTypeMax
	case Min:
		return compute.OpTypeMin
	case And:
		if logical {
			return compute.OpTypeLogicalAnd
		}
		return compute.OpTypeBitwiseAnd
	case Or:
		if logical {
			return compute.OpTypeLogicalOr
		}
		return compute.OpTypeBitwiseOr
	}
	if logical {
		return compute.OpTypeLogicalXor
	}
	return compute.OpTypeBitwiseXor
}

// Identity returns a pointer to the element that does not change any other
// under the reduction.
func (r Reduction) Identity(dt dtypes.DType) unsafe.Pointer {
	var bits uint64
	p := unsafe.Pointer(&bits)
	switch r {
	case Sum, Or, Xor:
	case Product:
		one := uint8(1)
		Convert(dtypes.Uint8, dt)(p, unsafe.Pointer(&one), nil, nil, 1)
	case And:
		bits = ^uint64(0)
		if dt == dtypes.Bool {
			bits = 1
		}
	case Max:
		store(p, dt, dt.LowestValue())
	case Min:
		store(p, dt, dt.HighestValue())
	}
	return p
}

func store(p unsafe.Pointer, dt dtypes.DType, v any) {
	flat := dtypes.MakeAnySlice(dt, 1)
	switch s := flat.(type) {
	case []bool:
		s[0] = v.(bool)
	case []int8:
		s[0] = v.(int8)
	case []int16:
		s[0] = v.(int16)
	case []int32:
		s[0] = v.(int32)
	case []int64:
		s[0] = v.(int64)
	case []uint8:
		s[0] = v.(uint8)
	case []uint16:
		s[0] = v.(uint16)
	case []uint32:
		s[0] = v.(uint32)
	case []uint64:
		s[0] = v.(uint64)
	case []float32:
		s[0] = v.(float32)
	case []float64:
		s[0] = v.(float64)
	}
	copy(Slice[byte](p, Size(dt)), dtypes.UnsafeByteSliceFromAny(flat))
}

// RowKernel folds each of rows consecutive rows of n elements at src into one
// element at dst.
type RowKernel func(dst, src unsafe.Pointer, rows, n int)

// RowReduce returns the row kernel of a reduction, or nil if it is not defined
// on dt. Rows are folded in eight interleaved lanes that are combined
// pairwise, so the order depends on n alone.
func RowReduce(r Reduction, dt dtypes.DType) RowKernel {
	op := Binary(r.Op(dt), dt)
	if op == nil {
		return nil
	}
	identity, size := r.Identity(dt), Size(dt)
	if r == Sum {
		if k := perNumber[RowKernel](dt, nil, nil, nil, nil, nil, nil, nil, nil, sumRows[float32], sumRows[float64]); k != nil {
			return k
		}
	}
	const lanes = 8
	return func(dst, src unsafe.Pointer, rows, n int) {
		var acc [lanes]uint64
		p := unsafe.Pointer(&acc)
		for i := range rows {
			row := unsafe.Add(src, i*n*size)
			Fill(p, identity, size, lanes)
			for j := 0; j < n; j += lanes {
				op(p, p, unsafe.Add(row, j*size), nil, min(lanes, n-j))
			}
			for m := lanes / 2; m > 0; m /= 2 {
				op(p, p, unsafe.Add(p, m*size), nil, m)
			}
			copy(Slice[byte](unsafe.Add(dst, i*size), size), Slice[byte](p, size))
		}
	}
}

func sumRows[T float](dst, src unsafe.Pointer, rows, n int) {
	d, s := Slice[T](dst, rows), Slice[T](src, rows*n)
	for i := range d {
		row := s[i*n : (i+1)*n]
		var a [8]T
		for ; len(row) >= 8; row = row[8:] {
			for j := range a {
				a[j] += row[j]
			}
		}
		for j, v := range row {
			a[j] += v
		}
		d[i] = ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
	}
}

// ArgExtreme writes for each of outer×inner lines of n elements, stride inner
// apart, the index of the smallest (or largest) one as an element of type to.
// The first wins among equals; a NaN wins over everything.
func ArgExtreme(dt, to dtypes.DType, smallest bool) func(dst, src unsafe.Pointer, outer, n, inner int) {
	k := perNumber(dt, argExtreme[int8], argExtreme[int16], argExtreme[int32], argExtreme[int64],
		argExtreme[uint8], argExtreme[uint16], argExtreme[uint32], argExtreme[uint64],
		argExtreme[float32], argExtreme[float64])
	put := Convert(dtypes.Int64, to)
	if k == nil || put == nil {
		return nil
	}
	size := Size(to)
	return func(dst, src unsafe.Pointer, outer, n, inner int) {
		for i := range outer {
			for j := range inner {
				at := int64(k(src, (i*n)*inner+j, n, inner, smallest))
				put(unsafe.Add(dst, (i*inner+j)*size), unsafe.Pointer(&at), nil, nil, 1)
			}
		}
	}
}

func argExtreme[T number](src unsafe.Pointer, first, n, stride int, smallest bool) int {
	if n == 0 {
		return 0
	}
	s := Slice[T](src, first+(n-1)*stride+1)
	best, at := s[first], 0
	if best != best {
		return 0
	}
	for i := 1; i < n; i++ {
		v := s[first+i*stride]
		if v != v {
			return i
		}
		if smallest && v < best || !smallest && v > best {
			best, at = v, i
		}
	}
	return at
}
