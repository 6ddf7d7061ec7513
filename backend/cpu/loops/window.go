package loops

import (
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
)

// WindowAxis describes how a window moves along one axis.
type WindowAxis struct {
	In, Out        int // positions of the operand and of the result
	Window         int // positions in the window
	Stride         int // operand positions between windows
	Low            int // padding before the first position
	InDilation     int // 1 + holes between neighbouring operand positions
	WindowDilation int // 1 + holes between neighbouring window positions
}

// Windows is a window over every axis of a row-major operand.
type Windows struct {
	Axes []WindowAxis
}

// Size returns the number of results.
func (w *Windows) Size() int {
	n := 1
	for _, ax := range w.Axes {
		n *= ax.Out
	}
	return n
}

// each calls f for the operand offset of every position of the window of
// result i that lies inside the operand, in row-major order of the window.
func (w *Windows) each(i int, f func(offset int)) {
	var first [MaxRank]int
	for k := len(w.Axes) - 1; k >= 0; k-- {
		ax := &w.Axes[k]
		first[k] = i%ax.Out*ax.Stride - ax.Low
		i /= ax.Out
	}
	w.visit(0, 0, &first, f)
}

func (w *Windows) visit(k, offset int, first *[MaxRank]int, f func(offset int)) {
	if k == len(w.Axes) {
		f(offset)
		return
	}
	ax := &w.Axes[k]
	for j := range ax.Window {
		p := first[k] + j*ax.WindowDilation
		if p < 0 || p%ax.InDilation != 0 {
			continue
		}
		if p /= ax.InDilation; p < ax.In {
			w.visit(k+1, offset*ax.In+p, first, f)
		}
	}
}

// ReduceWindow folds the window of each result lo ≤ i < hi; a window without a
// position inside the operand gives the identity of the reduction.
func ReduceWindow(w *Windows, r Reduction, dt dtypes.DType) func(dst, src unsafe.Pointer, lo, hi int) {
	op := Binary(r.Op(dt), dt)
	if op == nil {
		return nil
	}
	identity, size := r.Identity(dt), Size(dt)
	return func(dst, src unsafe.Pointer, lo, hi int) {
		for i := lo; i < hi; i++ {
			d := unsafe.Add(dst, i*size)
			Fill(d, identity, size, 1)
			w.each(i, func(offset int) { op(d, d, unsafe.Add(src, offset*size), nil, 1) })
		}
	}
}

// SelectAndScatter adds element i of source to the position of dst at which
// the operand is largest (or smallest) within window i; the first wins among
// equals. dst has the shape of the operand and is overwritten.
func SelectAndScatter(w *Windows, dt dtypes.DType, smallest bool) func(dst, operand, source unsafe.Pointer) {
	op := compute.OpTypeGreaterThan
	if smallest {
		op = compute.OpTypeLessThan
	}
	better := Compare(op, dt)
	addTo := Binary(Sum.Op(dt), dt)
	if better == nil || addTo == nil {
		return nil
	}
	size, n := Size(dt), w.Size()
	in := 1
	for _, ax := range w.Axes {
		in *= ax.In
	}
	return func(dst, operand, source unsafe.Pointer) {
		clear(Slice[byte](dst, in*size))
		for i := range n {
			best := -1
			w.each(i, func(offset int) {
				if best >= 0 {
					var yes bool
					better(unsafe.Pointer(&yes), unsafe.Add(operand, offset*size), unsafe.Add(operand, best*size), nil, 1)
					if !yes {
						return
					}
				}
				best = offset
			})
			if best >= 0 {
				d := unsafe.Add(dst, best*size)
				addTo(d, d, unsafe.Add(source, i*size), nil, 1)
			}
		}
	}
}
