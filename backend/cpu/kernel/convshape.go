package kernel

import "fmt"

// KernelStrides says where the weight of tap (h, w) from input channel i to
// output channel o lies: at h·H + w·W + i·In + o·Out. The input channels are those
// of a group. No two weights share a place.
type KernelStrides struct{ H, W, In, Out int }

// ConvShape is a two-dimensional convolution of images in NHWC, with the
// definition of cross-correlation that neural networks use:
//
//	Y[n,p,q,o] = Σ_{h,w,i} X̃[n, p·StrideH − PadT + h·DilH, q·StrideW − PadL + w·DilW, g·Cin/G + i] · W[h,w,i,o]
//
// where g is the group of o, and X̃ is X with InDilH−1 rows and InDilW−1 columns of
// zeros put between its own, and zeros everywhere outside. X is N×H×W×Cin, Y is
// N×OutH×OutW×Cout, both contiguous. Strides, dilations and Groups of zero mean 1;
// paddings may be negative, which crops. The zero Kernel means the contiguous
// order KH, KW, Cin/Groups, Cout (HWIO). One-dimensional convolutions have H = KH = 1.
type ConvShape struct {
	N, H, W, Cin           int
	KH, KW, Cout           int
	StrideH, StrideW       int
	PadT, PadB, PadL, PadR int
	DilH, DilW             int
	InDilH, InDilW         int
	Groups                 int
	Kernel                 KernelStrides
}

// HWIO is the contiguous order KH, KW, Cin/Groups, Cout.
func (s ConvShape) HWIO() KernelStrides {
	in := s.Cin / max(s.Groups, 1)
	return KernelStrides{H: s.KW * in * s.Cout, W: in * s.Cout, In: s.Cout, Out: 1}
}

// OIHW is the contiguous order Cout, Cin/Groups, KH, KW, that of PyTorch.
func (s ConvShape) OIHW() KernelStrides {
	in := s.Cin / max(s.Groups, 1)
	return KernelStrides{H: s.KW, W: 1, In: s.KH * s.KW, Out: in * s.KH * s.KW}
}

// OutH is the height of Y.
func (s ConvShape) OutH() int {
	return outSize(s.H, s.KH, s.StrideH, s.PadT, s.PadB, s.DilH, s.InDilH)
}

// OutW is the width of Y.
func (s ConvShape) OutW() int {
	return outSize(s.W, s.KW, s.StrideW, s.PadL, s.PadR, s.DilW, s.InDilW)
}

func outSize(in, k, stride, lo, hi, dil, inDil int) int {
	if in == 0 {
		return max(0, (lo+hi-(k-1)*max(dil, 1)-1)/max(stride, 1)+1)
	}
	room := (in-1)*max(inDil, 1) + 1 + lo + hi - (k-1)*max(dil, 1) - 1
	if room < 0 {
		return 0
	}
	return room/max(stride, 1) + 1
}

// normal returns s with the defaults filled in. It panics if s makes no sense.
func (s ConvShape) normal() ConvShape {
	for _, f := range []*int{&s.StrideH, &s.StrideW, &s.DilH, &s.DilW, &s.InDilH, &s.InDilW, &s.Groups} {
		if *f == 0 {
			*f = 1
		}
		if *f < 0 {
			panic(fmt.Sprintf("kernel: convolution %+v: strides, dilations and groups must be positive", s))
		}
	}
	if s.N < 1 || s.H < 1 || s.W < 1 || s.Cin < 1 || s.KH < 1 || s.KW < 1 || s.Cout < 1 {
		panic(fmt.Sprintf("kernel: convolution %+v: sizes must be at least 1", s))
	}
	if s.Cin%s.Groups != 0 || s.Cout%s.Groups != 0 {
		panic(fmt.Sprintf("kernel: convolution %+v: %d groups must divide the %d and %d channels", s, s.Groups, s.Cin, s.Cout))
	}
	if s.Kernel == (KernelStrides{}) {
		s.Kernel = s.HWIO()
	}
	return s
}

// upright turns a shape of one row into one of one column: bands are cut along H.
func (s ConvShape) upright() ConvShape {
	if s.H > 1 || s.KH > 1 || s.OutH() != 1 {
		return s
	}
	s.H, s.W = s.W, s.H
	s.KH, s.KW = s.KW, s.KH
	s.StrideH, s.StrideW = s.StrideW, s.StrideH
	s.PadT, s.PadB, s.PadL, s.PadR = s.PadL, s.PadR, s.PadT, s.PadB
	s.DilH, s.DilW = s.DilW, s.DilH
	s.InDilH, s.InDilW = s.InDilW, s.InDilH
	s.Kernel.H, s.Kernel.W = s.Kernel.W, s.Kernel.H
	return s
}

func (s ConvShape) xLen() int { return s.N * s.H * s.W * s.Cin }

func (s ConvShape) yLen() int { return s.N * s.OutH() * s.OutW() * s.Cout }

func (s ConvShape) wLen() int {
	k := s.Kernel
	return (s.KH-1)*k.H + (s.KW-1)*k.W + (s.Cin/s.Groups-1)*k.In + (s.Cout-1)*k.Out + 1
}
