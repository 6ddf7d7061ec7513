package cpu

import (
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/pkg/errors"

	"github.com/cohort-learning/cohort/backend/cpu/kernel"
	"github.com/cohort-learning/cohort/backend/cpu/loops"
)

// This file lowers convolutions. Those of float32 over one or two axes go to the
// kernel package, where the gradients have kernels of their own: GoMLX writes
// the gradient with respect to the input as a convolution with the reversed
// kernel, and that with respect to the kernel as one in which batch and channels
// have changed places. Both are recognised by their strides.

// fastConv is the attribute of a convolution by the kernel package. The operands
// are the two arrays that it reads.
type fastConv struct {
	kind  convKind
	shape kernel.ConvShape
}

type convKind uint8

const (
	convForward convKind = iota
	convInputGrad
	convWeightGrad
)

const opFastConv compute.OpType = 10_300

// geometry is one spatial axis of a convolution; missing axes have one
// position.
type geometry struct {
	in, out, taps, stride, low, inDil, dil int
	x, w                                   int // strides of input and kernel views
}

func (g *graph) convGeneral(x, w *node, a convGeneral) (*node, error) {
	if x.dt.IsHalfPrecision() {
		r, err := g.convGeneral(g.convert(x, dtypes.Float32), g.convert(w, dtypes.Float32), a)
		if err != nil {
			return nil, err
		}
		return g.convert(r, x.dt), nil
	}
	if len(a.axes.InputSpatial) > loops.MaxRank {
		return nil, errors.Wrapf(compute.ErrNotImplemented, "ConvGeneral with %d spatial axes", len(a.axes.InputSpatial))
	}
	ax := a.axes
	// Channel-last views of input and kernel.
	x = g.transpose(x, slices.Concat([]int{ax.InputBatch}, ax.InputSpatial, []int{ax.InputChannels}))
	w = g.transpose(w, slices.Concat(ax.KernelSpatial, []int{ax.KernelInputChannels, ax.KernelOutputChannels}))
	rank := len(x.dims)
	c := loops.Conv{
		Batch: x.dims[0], InChannels: x.dims[rank-1], OutChannels: w.dims[rank-1],
		Groups: a.groups, BatchGroups: a.batchGroups,
	}
	dims := []int{c.Batch / c.BatchGroups}
	for k := range rank - 2 {
		wa := loops.WindowAxis{
			In: x.dims[k+1], Window: w.dims[k], Stride: a.strides[k], Low: a.paddings[k][0],
			InDilation: a.inputDilations[k], WindowDilation: a.kernDilation[k],
		}
		span := (wa.In-1)*wa.InDilation + 1 + a.paddings[k][0] + a.paddings[k][1]
		wa.Out = (span-(wa.Window-1)*wa.WindowDilation-1)/wa.Stride + 1
		c.Axes = append(c.Axes, wa)
		dims = append(dims, wa.Out)
	}
	dims = append(dims, c.OutChannels)
	// The order of axes that was asked for.
	order := slices.Concat([]int{ax.OutputBatch}, ax.OutputSpatial, []int{ax.OutputChannels})
	perm := make([]int, rank)
	for from, to := range order {
		perm[to] = from
	}
	if r := g.fastConv(x, w, c, dims, perm); r != nil {
		return r, nil
	}
	r := g.emit(opConv, x.dt, dims, c, g.contiguous(x), g.contiguous(w))
	return g.transpose(r, perm), nil
}

// fastConv emits a convolution of channel-last views by the kernel package, the
// result permuted; nil if it cannot.
func (g *graph) fastConv(x, w *node, c loops.Conv, dims, perm []int) *node {
	if x.dt != dtypes.Float32 || len(c.Axes) > 2 || c.BatchGroups != 1 || x.size() == 0 || w.size() == 0 || product(dims) == 0 {
		return nil
	}
	axes := [2]geometry{{1, 1, 1, 1, 0, 1, 1, 0, 0}, {1, 1, 1, 1, 0, 1, 1, 0, 0}}
	first := 2 - len(c.Axes)
	for k, ax := range c.Axes {
		axes[first+k] = geometry{ax.In, ax.Out, ax.Window, ax.Stride, ax.Low, ax.InDilation, ax.WindowDilation,
			x.strides[k+1], w.strides[k]}
	}
	if r := g.weightGrad(x, w, c, axes, dims, perm); r != nil {
		return r
	}
	if r := g.inputGrad(x, w, c, axes, dims, perm); r != nil {
		return r
	}
	if !distinct(w) {
		w = g.copy(w)
		for k := range c.Axes {
			axes[first+k].w = w.strides[k]
		}
	}
	last := len(w.dims) - 1
	h, v := axes[0], axes[1]
	s := kernel.ConvShape{
		N: c.Batch, H: h.in, W: v.in, Cin: c.InChannels, KH: h.taps, KW: v.taps, Cout: c.OutChannels,
		StrideH: h.stride, StrideW: v.stride, PadT: h.low, PadB: h.high(), PadL: v.low, PadR: v.high(),
		DilH: h.dil, DilW: v.dil, InDilH: h.inDil, InDilW: v.inDil, Groups: c.Groups,
		Kernel: kernel.KernelStrides{H: h.w, W: v.w, In: w.strides[last-1], Out: w.strides[last]},
	}
	r := g.emit(opFastConv, x.dt, dims, fastConv{convForward, s}, g.contiguous(x), w)
	return g.transpose(r, perm)
}

// distinct tells whether the strides are those that the kernel package wants of
// weights: none backwards, and no weight repeated.
func distinct(w *node) bool {
	for k, d := range w.dims {
		if d > 1 && w.strides[k] <= 0 {
			return false
		}
	}
	return true
}

// high is the padding at the end that makes the number of outputs come out
// exactly.
func (a geometry) high() int {
	return (a.out-1)*a.stride + (a.taps-1)*a.dil + 1 - ((a.in-1)*a.inDil + 1) - a.low
}

// mirrored is the axis of the convolution whose input gradient a is.
func (a geometry) mirrored() geometry {
	return geometry{in: a.out, out: a.in, taps: a.taps, stride: a.inDil, low: (a.taps-1)*a.dil - a.low, inDil: 1, dil: a.dil}
}

// inputGrad recognises the gradient with respect to the input: the kernel is
// read backwards along every axis with more than one tap.
func (g *graph) inputGrad(v, w *node, c loops.Conv, axes [2]geometry, dims, perm []int) *node {
	offset := w.offset
	reversed := false
	for _, a := range axes {
		if a.taps > 1 && a.w >= 0 || a.stride != 1 {
			return nil
		}
		if a.w < 0 {
			offset += (a.taps - 1) * a.w
			reversed = true
		}
	}
	if !reversed || c.Groups != 1 {
		return nil
	}
	// The kernel as it lies in memory.
	last := len(w.dims) - 1
	forward := slices.Clone(w.strides)
	for k := range c.Axes {
		forward[k] = max(forward[k], -forward[k])
	}
	plain := g.view(compute.OpTypeReverse, w, w.dims, forward, offset, "undone")
	if !distinct(plain) {
		return nil
	}
	h, u := axes[0].mirrored(), axes[1].mirrored()
	s := kernel.ConvShape{
		N: c.Batch, H: h.in, W: u.in, Cin: c.OutChannels, KH: h.taps, KW: u.taps, Cout: c.InChannels,
		StrideH: h.stride, StrideW: u.stride, PadT: h.low, PadB: h.high(), PadL: u.low, PadR: u.high(),
		DilH: h.dil, DilW: u.dil,
		Kernel: kernel.KernelStrides{
			H: max(axes[0].w, -axes[0].w), W: max(axes[1].w, -axes[1].w), In: forward[last], Out: forward[last-1],
		},
	}
	if s.OutH() != h.out || s.OutW() != u.out {
		return nil
	}
	r := g.emit(opFastConv, v.dt, dims, fastConv{convInputGrad, s}, g.contiguous(v), plain)
	return g.transpose(r, perm)
}

// weightGrad recognises the gradient with respect to the kernel: what acts as
// the batch lies innermost in memory, what acts as the channels outermost, and
// what acts as the kernel is an image.
func (g *graph) weightGrad(x, v *node, c loops.Conv, axes [2]geometry, dims, perm []int) *node {
	last := len(x.dims) - 1
	channels, batch := c.Batch, c.InChannels // of the image
	pixels := axes[0].in * axes[1].in
	out := axes[0].taps * axes[1].taps
	if channels > 1 && x.strides[0] != 1 || batch > 1 && x.strides[last] != channels*pixels ||
		c.Groups != 1 || (batch == 1 && channels == 1) || axes[0].inDil != 1 || axes[1].inDil != 1 {
		return nil
	}
	if v.dims[last] > 1 && v.strides[last] != 1 || batch > 1 && v.strides[last-1] != c.OutChannels*out {
		return nil
	}
	for k, want := range []int{axes[1].in * channels, channels} {
		if a := axes[k]; a.in > 1 && a.x != want {
			return nil
		}
	}
	for k, want := range []int{axes[1].taps * c.OutChannels, c.OutChannels} {
		if a := axes[k]; a.taps > 1 && a.w != want {
			return nil
		}
	}
	if batch == 1 && x.dense() && channels*axes[0].taps*axes[1].taps > 0 && axes[0].taps*axes[1].taps <= 49 {
		return nil // as good as a forward convolution of one image per channel, and more likely one
	}
	m := [2]geometry{}
	for k, a := range axes {
		m[k] = geometry{in: a.in, out: a.taps, taps: a.out, stride: a.dil, low: a.low, inDil: 1, dil: a.stride}
	}
	// The result in the order of axes that was asked for.
	final := make([]int, len(dims))
	for to, from := range perm {
		final[to] = dims[from]
	}
	strides := rowMajor(final)
	at := make([]int, len(dims)) // strides of the result by role
	for to, from := range perm {
		at[from] = strides[to]
	}
	ks := kernel.KernelStrides{In: at[0], Out: at[last]}
	if len(c.Axes) == 2 {
		ks.H = at[1]
	}
	if len(c.Axes) > 0 {
		ks.W = at[last-1]
	}
	s := kernel.ConvShape{
		N: batch, H: m[0].in, W: m[1].in, Cin: channels, KH: m[0].taps, KW: m[1].taps, Cout: c.OutChannels,
		StrideH: m[0].stride, StrideW: m[1].stride, PadT: m[0].low, PadB: m[0].high(), PadL: m[1].low, PadR: m[1].high(),
		DilH: m[0].dil, DilW: m[1].dil, Kernel: ks,
	}
	if s.OutH() != m[0].out || s.OutW() != m[1].out {
		return nil
	}
	return g.emit(opFastConv, x.dt, final, fastConv{convWeightGrad, s}, x, v)
}
