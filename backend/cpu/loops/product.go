package loops

import (
	"unsafe"

	"github.com/gomlx/compute/dtypes"
)

// MatMul returns the kernel c = a·b for row-major matrices a [m,k], b [k,n],
// c [m,n] of dt, or nil for types without multiplication. Every element is a
// sum over k in ascending order.
func MatMul(dt dtypes.DType) func(c, a, b unsafe.Pointer, m, k, n int) {
	return perNumber(dt, matMul[int8], matMul[int16], matMul[int32], matMul[int64],
		matMul[uint8], matMul[uint16], matMul[uint32], matMul[uint64], matMul[float32], matMul[float64])
}

func matMul[T number](c, a, b unsafe.Pointer, m, k, n int) {
	x, y, z := Slice[T](a, m*k), Slice[T](b, k*n), Slice[T](c, m*n)
	clear(z)
	for i := range m {
		out := z[i*n : (i+1)*n]
		for j, v := range x[i*k : (i+1)*k] {
			axpy(out, y[j*n:(j+1)*n], v)
		}
	}
}

// axpy adds v·x to y. The product is rounded before it is added, on every
// architecture.
func axpy[T number](y, x []T, v T) {
	x = x[:len(y)]
	for i := range y {
		y[i] += T(v * x[i])
	}
}

// Conv is a convolution over channel-last arrays: input [batch, spatial…,
// inChannels], kernel [spatial…, inChannels/Groups, outChannels], output
// [batch/BatchGroups, spatial…, outChannels].
type Conv struct {
	Axes                    []WindowAxis // spatial; Window is the kernel's size
	Batch                   int          // of the input
	InChannels, OutChannels int
	Groups, BatchGroups     int
}

// Positions is the number of output positions over batch and space.
func (c *Conv) Positions() int {
	n := c.Batch / c.BatchGroups
	for _, ax := range c.Axes {
		n *= ax.Out
	}
	return n
}

// Convolve returns a function that computes the output positions lo to hi, or
// nil if dt has no multiplication.
func Convolve(c *Conv, dt dtypes.DType) func(out, in, kernel unsafe.Pointer, lo, hi int) {
	run := perNumber(dt, convolve[int8], convolve[int16], convolve[int32], convolve[int64],
		convolve[uint8], convolve[uint16], convolve[uint32], convolve[uint64], convolve[float32], convolve[float64])
	if run == nil {
		return nil
	}
	return func(out, in, kernel unsafe.Pointer, lo, hi int) { run(c, out, in, kernel, lo, hi) }
}

func convolve[T number](c *Conv, out, in, kernel unsafe.Pointer, lo, hi int) {
	inSpace, outSpace, taps := 1, 1, 1
	for _, ax := range c.Axes {
		inSpace *= ax.In
		outSpace *= ax.Out
		taps *= ax.Window
	}
	ci, co := c.InChannels/c.Groups, c.OutChannels
	perGroup := co / c.Groups
	perBatchGroup := co / c.BatchGroups
	outBatch := c.Batch / c.BatchGroups
	x := Slice[T](in, c.Batch*inSpace*c.InChannels)
	w := Slice[T](kernel, taps*ci*co)
	z := Slice[T](out, outBatch*outSpace*co)
	windows := Windows{c.Axes}
	strides := kernelOffsets(c.Axes)
	for p := lo; p < hi; p++ {
		d := z[p*co : (p+1)*co]
		clear(d)
		n := p / outSpace
		windows.eachTap(p%outSpace, strides, func(at, tap int) {
			for g := range c.BatchGroups {
				row := x[((g*outBatch+n)*inSpace+at)*c.InChannels:][:c.InChannels]
				for h := range c.Groups {
					first, count := h*perGroup, perGroup
					if c.BatchGroups > 1 {
						first, count = g*perBatchGroup, perBatchGroup
					}
					for j, v := range row[h*ci : (h+1)*ci] {
						k := (tap*ci+j)*co + first
						axpy(d[first:first+count], w[k:k+count], v)
					}
				}
			}
		})
	}
}

func kernelOffsets(axes []WindowAxis) []int {
	s := make([]int, len(axes))
	n := 1
	for k := len(axes) - 1; k >= 0; k-- {
		s[k] = n
		n *= axes[k].Window
	}
	return s
}

// eachTap is each with the row-major index of the window position.
func (w *Windows) eachTap(i int, strides []int, f func(offset, tap int)) {
	var first [MaxRank]int
	for k := len(w.Axes) - 1; k >= 0; k-- {
		ax := &w.Axes[k]
		first[k] = i%ax.Out*ax.Stride - ax.Low
		i /= ax.Out
	}
	w.visitTaps(0, 0, 0, &first, strides, f)
}

func (w *Windows) visitTaps(k, offset, tap int, first *[MaxRank]int, strides []int, f func(offset, tap int)) {
	if k == len(w.Axes) {
		f(offset, tap)
		return
	}
	ax := &w.Axes[k]
	for j := range ax.Window {
		p := first[k] + j*ax.WindowDilation
		if p < 0 || p%ax.InDilation != 0 {
			continue
		}
		if p /= ax.InDilation; p < ax.In {
			w.visitTaps(k+1, offset*ax.In+p, tap+j*strides[k], first, strides, f)
		}
	}
}
