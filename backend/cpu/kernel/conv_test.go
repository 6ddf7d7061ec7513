package kernel

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// drawConv draws a small convolution with every feature.
func drawConv(t *rapid.T) ConvShape {
	small := func(name string, lo, hi int) int { return rapid.IntRange(lo, hi).Draw(t, name) }
	s := ConvShape{
		N: small("n", 1, 4), H: small("h", 1, 12), W: small("w", 1, 20),
		KH: small("kh", 1, 4), KW: small("kw", 1, 4),
		StrideH: small("sh", 1, 3), StrideW: small("sw", 1, 3),
		PadT: small("pt", -1, 3), PadB: small("pb", -1, 3), PadL: small("pl", -1, 3), PadR: small("pr", -1, 3),
		DilH: small("dh", 1, 2), DilW: small("dw", 1, 2),
		Groups: rapid.SampledFrom([]int{1, 1, 1, 2, 3}).Draw(t, "groups"),
	}
	if small("dilated", 0, 3) == 0 {
		s.InDilH, s.InDilW = small("ih", 1, 3), small("iw", 1, 3)
	}
	s.Cin, s.Cout = s.Groups*small("cin", 1, 40), s.Groups*small("cout", 1, 70)
	if small("row", 0, 5) == 0 {
		s.H, s.KH, s.PadT, s.PadB = 1, 1, 0, 0
	}
	if rapid.Bool().Draw(t, "oihw") {
		s.Kernel = s.OIHW()
	}
	return s
}

// naiveConv calls f with the indices of x, w and y of every term of the definition.
func naiveConv(s ConvShape, f func(x, w, y int)) {
	s = s.normal()
	in, out := s.Cin/s.Groups, s.Cout/s.Groups
	oh, ow := s.OutH(), s.OutW()
	for n := range s.N {
		for p := range oh {
			for q := range ow {
				for h := range s.KH {
					for w := range s.KW {
						r, c := p*s.StrideH-s.PadT+h*s.DilH, q*s.StrideW-s.PadL+w*s.DilW
						if r < 0 || c < 0 || r%s.InDilH != 0 || c%s.InDilW != 0 || r/s.InDilH >= s.H || c/s.InDilW >= s.W {
							continue
						}
						for o := range s.Cout {
							for i := range in {
								f(((n*s.H+r/s.InDilH)*s.W+c/s.InDilW)*s.Cin+o/out*in+i,
									h*s.Kernel.H+w*s.Kernel.W+i*s.Kernel.In+o*s.Kernel.Out,
									((n*oh+p)*ow+q)*s.Cout+o)
							}
						}
					}
				}
			}
		}
	}
}

// reference is a result in float64 with the number and the absolute sum of its terms.
type reference struct{ sum, abs, terms []float64 }

func newReference(n int) reference {
	return reference{make([]float64, n), make([]float64, n), make([]float64, n)}
}

func (r reference) add(i int, a, b float32) {
	v := float64(a) * float64(b)
	r.sum[i] += v
	r.abs[i] += math.Abs(v)
	r.terms[i]++
}

// check fails unless every value is within (terms+2)·2⁻²⁴·Σ|a||b| of the exact sum.
func (r reference) check(t failer, what string, got []float32) {
	t.Helper()
	for i, want := range r.sum {
		if bound := (r.terms[i] + 2) * 0x1p-24 * r.abs[i]; !(math.Abs(float64(got[i])-want) <= bound) {
			t.Fatalf("%s[%d] = %g, want %g within %g", what, i, got[i], want, bound)
		}
	}
}

func TestConvEqualsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawConv(t)
		checkConv(t, s, rapid.Uint64().Draw(t, "seed"))
	})
}

// checkConv compares the convolution and its gradients with the definition, on every path.
func checkConv(t failer, s ConvShape, seed uint64) {
	rnd := newRandom(seed)
	n := s.normal()
	x, w, y := rnd.slice(n.xLen()), rnd.slice(n.wLen()), rnd.slice(n.yLen())
	fwd, dx, dw := newReference(len(y)), newReference(len(x)), newReference(len(w))
	naiveConv(s, func(i, j, k int) {
		fwd.add(k, x[i], w[j])
		dx.add(i, y[k], w[j])
		dw.add(j, y[k], x[i])
	})
	for _, p := range Available() {
		got := guarded(len(y))
		runChecked(t, &ConvCall{X: x, W: w, Y: got.mid, Plan: NewConvForward(p, s)})
		fwd.check(t, p.String()+" Y", got.values(t))
		got = guarded(len(x))
		runChecked(t, &ConvCall{X: got.mid, W: w, Y: y, Plan: NewConvInputGrad(p, s)})
		dx.check(t, p.String()+" dX", got.values(t))
		got = guarded(len(w))
		runChecked(t, &ConvCall{X: x, W: got.mid, Y: y, Plan: NewConvWeightGrad(p, s)})
		dw.check(t, p.String()+" dW", got.values(t))
	}
}

// The shapes whose rows are sorted: whole images and parts of them in a band, a
// last band that is not full, one tap a step and several, all paddings.
func TestConvWithBordersLeftOut(t *testing.T) {
	for name, c := range map[string]struct {
		s                  ConvShape
		rows, pixels, taps bool // what of forward and weight gradient is sorted, and whether a step is one tap
	}{
		"small images":           {s: ConvShape{N: 3, H: 5, W: 4, Cin: 64, Cout: 35, KH: 3, KW: 3}, rows: true, pixels: true},
		"one tap a step":         {s: ConvShape{N: 2, H: 3, W: 3, Cin: 300, Cout: 33, KH: 3, KW: 3}, rows: true, pixels: true, taps: true},
		"a last band":            {s: ConvShape{N: 71, H: 2, W: 3, Cin: 32, Cout: 20, KH: 3, KW: 3}, rows: true, pixels: true},
		"many images of one tap": {s: ConvShape{N: 150, H: 3, W: 3, Cin: 192, Cout: 2, KH: 3, KW: 3}, rows: true, pixels: true, taps: true},
		"bands of an image":      {s: ConvShape{N: 1, H: 27, W: 23, Cin: 32, Cout: 8, KH: 5, KW: 3}, rows: true, pixels: true},
		"even kernel":            {s: ConvShape{N: 9, H: 4, W: 6, Cin: 40, Cout: 20, KH: 2, KW: 4}, rows: true, pixels: true},
		"one column of taps":     {s: ConvShape{N: 2, H: 9, W: 1, Cin: 40, Cout: 20, KH: 5, KW: 1}, rows: true, pixels: true},
		"pixels without input":   {s: ConvShape{N: 2, H: 1, W: 3, Cin: 40, Cout: 20, KH: 1, KW: 1, PadL: 2, PadR: 2}},
		"no border":              {s: ConvShape{N: 2, H: 6, W: 6, Cin: 40, Cout: 20, KH: 1, KW: 1}},
	} {
		s := c.s
		if s.PadL == 0 {
			s.PadT, s.PadB, s.PadL, s.PadR = s.KH/2, (s.KH-1)/2, (s.KW-1)/2, s.KW/2
		}
		for _, layout := range []KernelStrides{s.HWIO(), s.OIHW()} {
			s.Kernel = layout
			t.Run(name, func(t *testing.T) {
				checkConv(t, s, 1)
				fwd, dw := NewConvForward(Portable, s).corr.parts[0], NewConvWeightGrad(Portable, s).wgrad.parts[0]
				if got := fwd.orders != nil; got != c.rows {
					t.Errorf("rows of the convolution are sorted: %v, want %v", got, c.rows)
				}
				if got := dw.orders != nil; got != c.pixels {
					t.Errorf("pixels of the weight gradient are sorted: %v, want %v", got, c.pixels)
				}
				if c.rows && (len(fwd.orders[0].passes[0].steps) > 1) != c.taps {
					t.Errorf("a pass has %d steps, want several: %v", len(fwd.orders[0].passes[0].steps), c.taps)
				}
			})
		}
	}
}
