package loops

import (
	"unsafe"

	"github.com/gomlx/compute/dtypes"
)

// Plane is the common form of a window: it moves over at most two axes, with
// outer independent planes before them and inner elements that lie together
// after them (the channels of an image in NHWC order).
type Plane struct {
	Outer, Inner int
	A, B         WindowAxis
}

// Plane returns the window in this form; false if it does not have it.
func (w *Windows) Plane() (Plane, bool) {
	idle := WindowAxis{In: 1, Out: 1, Window: 1, Stride: 1, InDilation: 1, WindowDilation: 1}
	p := Plane{Outer: 1, Inner: 1, A: idle, B: idle}
	moving := 0
	for _, ax := range w.Axes {
		if ax.Window == 1 && ax.Stride == 1 && ax.Low == 0 && ax.InDilation == 1 && ax.In == ax.Out {
			if moving == 0 {
				p.Outer *= ax.In
			} else {
				p.Inner *= ax.In
			}
			continue
		}
		if p.Inner > 1 || moving == 2 {
			return Plane{}, false
		}
		p.A, p.B = p.B, ax
		moving++
	}
	return p, true
}

// at returns the operand position that tap t of window o reads, or −1.
func (ax *WindowAxis) at(o, t int) int {
	p := o*ax.Stride - ax.Low + t*ax.WindowDilation
	if p < 0 || p%ax.InDilation != 0 {
		return -1
	}
	if p /= ax.InDilation; p >= ax.In {
		return -1
	}
	return p
}

// ReducePlanes folds the windows of planes lo to hi with op, whose identity is
// given.
func ReducePlanes(p *Plane, op Kernel, identity unsafe.Pointer, size int, dst, src unsafe.Pointer, lo, hi int) {
	line := p.Inner * size
	for o := lo; o < hi; o++ {
		from := unsafe.Add(src, o*p.A.In*p.B.In*line)
		for a := range p.A.Out {
			for b := range p.B.Out {
				to := unsafe.Add(dst, ((o*p.A.Out+a)*p.B.Out+b)*line)
				first := true
				for i := range p.A.Window {
					r := p.A.at(a, i)
					if r < 0 {
						continue
					}
					for j := range p.B.Window {
						c := p.B.at(b, j)
						if c < 0 {
							continue
						}
						x := unsafe.Add(from, (r*p.B.In+c)*line)
						if first {
							copy(Slice[byte](to, line), Slice[byte](x, line))
							first = false
						} else {
							op(to, to, x, nil, p.Inner)
						}
					}
				}
				if first {
					Fill(to, identity, size, p.Inner)
				}
			}
		}
	}
}

// SelectPlanes returns a function that does [SelectAndScatter] for planes lo to
// hi, or nil if dt is not a number.
func SelectPlanes(dt dtypes.DType, smallest bool) func(p *Plane, dst, operand, source unsafe.Pointer, lo, hi int) {
	f := perNumber(dt, selectPlanes[int8], selectPlanes[int16], selectPlanes[int32], selectPlanes[int64],
		selectPlanes[uint8], selectPlanes[uint16], selectPlanes[uint32], selectPlanes[uint64],
		selectPlanes[float32], selectPlanes[float64])
	if f == nil {
		return nil
	}
	return func(p *Plane, dst, operand, source unsafe.Pointer, lo, hi int) {
		f(p, dst, operand, source, lo, hi, smallest)
	}
}

func selectPlanes[T number](p *Plane, dst, operand, source unsafe.Pointer, lo, hi int, smallest bool) {
	in, out := p.A.In*p.B.In*p.Inner, p.A.Out*p.B.Out*p.Inner
	d, x, s := Slice[T](dst, hi*in), Slice[T](operand, hi*in), Slice[T](source, hi*out)
	clear(d[lo*in:])
	for o := lo; o < hi; o++ {
		for a := range p.A.Out {
			for b := range p.B.Out {
				src := s[o*out+(a*p.B.Out+b)*p.Inner:][:p.Inner]
				for c, v := range src {
					best := -1
					for i := range p.A.Window {
						r := p.A.at(a, i)
						if r < 0 {
							continue
						}
						for j := range p.B.Window {
							q := p.B.at(b, j)
							if q < 0 {
								continue
							}
							at := o*in + (r*p.B.In+q)*p.Inner + c
							if best < 0 || !smallest && x[at] > x[best] || smallest && x[at] < x[best] {
								best = at
							}
						}
					}
					if best >= 0 {
						d[best] += v
					}
				}
			}
		}
	}
}
