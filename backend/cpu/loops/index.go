package loops

import (
	"unsafe"

	"github.com/gomlx/compute/dtypes"
)

// loadIndex reads element i of an array of integers of type dt.
func loadIndex(p unsafe.Pointer, dt dtypes.DType, i int) int {
	switch dt {
	case dtypes.Int8:
		return int(*(*int8)(unsafe.Add(p, i)))
	case dtypes.Int16:
		return int(*(*int16)(unsafe.Add(p, 2*i)))
	case dtypes.Int32:
		return int(*(*int32)(unsafe.Add(p, 4*i)))
	case dtypes.Int64:
		return int(*(*int64)(unsafe.Add(p, 8*i)))
	case dtypes.Uint8, dtypes.Bool:
		return int(*(*uint8)(unsafe.Add(p, i)))
	case dtypes.Uint16:
		return int(*(*uint16)(unsafe.Add(p, 2*i)))
	case dtypes.Uint32:
		return int(*(*uint32)(unsafe.Add(p, 4*i)))
	case dtypes.Uint64:
		return int(*(*uint64)(unsafe.Add(p, 8*i)))
	}
	panic("loops: index of type " + dt.String())
}

// LoadIndex reads element i of an array of integers of type dt.
func LoadIndex(p unsafe.Pointer, dt dtypes.DType, i int) int { return loadIndex(p, dt, i) }

// Axis is one axis of an index space that walks two arrays at once.
type Axis struct {
	Dim  int // number of positions
	A, B int // elements between neighbouring positions in the first and second array
}

// Slices describes a set of windows of one array (the operand), found through
// index vectors, and their places in another (the slices): what gather reads
// and scatter writes.
//
// Window number i begins at the operand position that the index vector i
// names: component k of the vector, clamped or checked against Limit[k], times
// Stride[k].
type Slices struct {
	Index      dtypes.DType // type of the index vectors' components
	Batch      []Axis       // windows: A steps over the slices array, B over the index array
	Component  int          // elements between components of one index vector
	Stride     []int        // operand elements per unit of component k
	Limit      []int        // largest valid value of component k
	Window     []Axis       // positions in a window: A over the slices array, B over the operand
	WindowSize int          // product of Window dims
	Count      int          // product of Batch dims
}

// start finds window i: its offset in the slices array and in the operand.
// ok is false if the window would not fit and clamping is off.
func (s *Slices) start(index unsafe.Pointer, i int, clamp bool) (slices, operand int, ok bool) {
	at := 0
	for k := len(s.Batch) - 1; k >= 0; k-- {
		ax := &s.Batch[k]
		j := i % ax.Dim
		i /= ax.Dim
		slices += j * ax.A
		at += j * ax.B
	}
	for k, stride := range s.Stride {
		v := loadIndex(index, s.Index, at+k*s.Component)
		if v < 0 || v > s.Limit[k] {
			if !clamp {
				return 0, 0, false
			}
			v = min(max(v, 0), s.Limit[k])
		}
		operand += v * stride
	}
	return slices, operand, true
}

// Gather copies windows lo to hi of the operand to the slices array dst;
// starts that lie outside are moved to the nearest window that fits.
func Gather(s *Slices, dst, operand, index unsafe.Pointer, size, lo, hi int) {
	for i := lo; i < hi; i++ {
		to, from, _ := s.start(index, i, true)
		walk(s.Window, to, from, func(a, b, n, stepA, stepB int) {
			if stepA == 1 && stepB == 1 {
				copy(Slice[byte](unsafe.Add(dst, a*size), n*size), Slice[byte](unsafe.Add(operand, b*size), n*size))
				return
			}
			for range n {
				copy(Slice[byte](unsafe.Add(dst, a*size), size), Slice[byte](unsafe.Add(operand, b*size), size))
				a += stepA
				b += stepB
			}
		})
	}
}

// Scatter folds all windows of the slices array updates into the operand dst
// with the given kernel; windows that do not fit are left out.
func Scatter(s *Slices, fold Kernel, dst, index, updates unsafe.Pointer, size int) {
	for i := range s.Count {
		from, to, ok := s.start(index, i, false)
		if !ok {
			continue
		}
		walk(s.Window, from, to, func(a, b, n, stepA, stepB int) {
			if stepA == 1 && stepB == 1 {
				d := unsafe.Add(dst, b*size)
				fold(d, d, unsafe.Add(updates, a*size), nil, n)
				return
			}
			for range n {
				d := unsafe.Add(dst, b*size)
				fold(d, d, unsafe.Add(updates, a*size), nil, 1)
				a += stepA
				b += stepB
			}
		})
	}
}

// walk calls line for every innermost line of the index space.
func walk(axes []Axis, a, b int, line func(a, b, n, stepA, stepB int)) {
	switch len(axes) {
	case 0:
		line(a, b, 1, 1, 1)
	case 1:
		line(a, b, axes[0].Dim, axes[0].A, axes[0].B)
	default:
		for range axes[0].Dim {
			walk(axes[1:], a, b, line)
			a += axes[0].A
			b += axes[0].B
		}
	}
}

// MergeAxes drops axes of one position and joins axes that step through both
// arrays as one.
func MergeAxes(axes []Axis) []Axis {
	var out []Axis
	for _, ax := range axes {
		if ax.Dim == 1 {
			continue
		}
		if n := len(out); n > 0 && out[n-1].A == ax.A*ax.Dim && out[n-1].B == ax.B*ax.Dim {
			out[n-1] = Axis{out[n-1].Dim * ax.Dim, ax.A, ax.B}
			continue
		}
		out = append(out, ax)
	}
	return out
}

// CopyAxes copies src, walked with the B steps of the axes, to dst, walked with
// the A steps.
func CopyAxes(dst, src unsafe.Pointer, size int, axes []Axis) {
	switch size {
	case 1:
		copyAxes[uint8](dst, src, axes)
	case 2:
		copyAxes[uint16](dst, src, axes)
	case 4:
		copyAxes[uint32](dst, src, axes)
	case 8:
		copyAxes[uint64](dst, src, axes)
	}
}

func copyAxes[T any](dst, src unsafe.Pointer, axes []Axis) {
	var zero T
	size := int(unsafe.Sizeof(zero))
	switch len(axes) {
	case 0:
		*(*T)(dst) = *(*T)(src)
	case 1:
		ax := axes[0]
		if ax.A == 1 && ax.B == 1 {
			copy(Slice[T](dst, ax.Dim), Slice[T](src, ax.Dim))
			return
		}
		a, b := 0, 0
		for range ax.Dim {
			*(*T)(unsafe.Add(dst, a)) = *(*T)(unsafe.Add(src, b))
			a += ax.A * size
			b += ax.B * size
		}
	default:
		a, b := 0, 0
		for range axes[0].Dim {
			copyAxes[T](unsafe.Add(dst, a), unsafe.Add(src, b), axes[1:])
			a += axes[0].A * size
			b += axes[0].B * size
		}
	}
}
