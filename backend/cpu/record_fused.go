package cpu

import (
	"math"
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	"github.com/pkg/errors"
)

// This file records the fused operations of the interface. They are written
// out in primitive ones, in the form that GoMLX itself differentiates, so that a
// training graph, which contains both forms, computes them once. The plan fuses
// what is worth fusing whoever wrote it.

// chain records operations one after the other until the first error.
type chain struct {
	f   *Function
	err error
}

func (c *chain) do(v compute.Value, err error) compute.Value {
	if c.err == nil && err != nil {
		c.err = err
	}
	if c.err != nil {
		return nil
	}
	return v
}

func (c *chain) unary(op compute.OpType, x compute.Value) compute.Value {
	if c.err != nil {
		return nil
	}
	return c.do(c.f.unary(op, x))
}

func (c *chain) binary(op compute.OpType, x, y compute.Value) compute.Value {
	if c.err != nil {
		return nil
	}
	return c.do(c.f.binary(op, x, y))
}

// number records a scalar of the dtype of x.
func (c *chain) number(x compute.Value, v float64) compute.Value {
	if c.err != nil {
		return nil
	}
	dt := x.(*record).shape.DType
	n := newGraph(c.f.builder.backend).scalar(dt, v)
	return c.f.add(compute.OpTypeConstant, shapes.Make(dt), n.attr)
}

// keep records a reduction whose axes remain with size 1.
func (c *chain) keep(op compute.OpType, x compute.Value, axes []int) compute.Value {
	if c.err != nil {
		return nil
	}
	dims := slices.Clone(x.(*record).shape.Dimensions)
	for _, a := range axes {
		dims[a] = 1
	}
	y := c.do(c.f.reduce(op, x, axes))
	if c.err != nil {
		return nil
	}
	return c.do(c.f.Reshape(y, dims...))
}

// mean records the mean over the axes, which remain with size 1.
func (c *chain) mean(x compute.Value, axes []int) compute.Value {
	if c.err != nil {
		return nil
	}
	s := x.(*record).shape
	count := 1
	for _, a := range axes {
		count *= s.Dimensions[a]
	}
	r := c.do(c.f.reduce(compute.OpTypeReduceSum, x, axes))
	if c.err != nil {
		return nil
	}
	m := c.binary(compute.OpTypeMul, r, c.number(x, 1/float64(count)))
	dims := slices.Clone(s.Dimensions)
	for _, a := range axes {
		dims[a] = 1
	}
	return c.do(c.f.Reshape(m, dims...))
}

// align records x with axes of size 1 in front, up to the rank of y.
func (c *chain) align(x, y compute.Value) compute.Value {
	if c.err != nil {
		return nil
	}
	have, rank := x.(*record).shape.Dimensions, y.(*record).shape.Rank()
	if len(have) >= rank {
		return x
	}
	return c.do(c.f.Reshape(x, slices.Concat(repeat(1, rank-len(have)), have)...))
}

// floatOperand checks the first operand of a fused operation.
func (f *Function) floatOperand(op compute.OpType, x compute.Value) (*record, error) {
	ins, err := f.values(op.String(), x)
	if err != nil {
		return nil, err
	}
	if s := ins[0].shape; !s.DType.IsFloat() || s.IsDynamic() {
		return nil, errors.Wrapf(compute.ErrNotImplemented, "cpu backend: %s of shape %s", op, s)
	}
	return ins[0], nil
}

// FusedSoftmax records exp(x−m)/Σ exp(x−m) along an axis, m being the maximum.
func (f *Function) FusedSoftmax(x compute.Value, axis int) (compute.Value, error) {
	r, err := f.floatOperand(compute.OpTypeFusedSoftmax, x)
	if err != nil {
		return nil, err
	}
	if axis < 0 || axis >= r.shape.Rank() {
		return nil, errors.Errorf("FusedSoftmax: axis %d of shape %s", axis, r.shape)
	}
	c := &chain{f: f}
	axes := []int{axis}
	e := c.unary(compute.OpTypeExp, c.binary(compute.OpTypeSub, r, c.keep(compute.OpTypeReduceMax, r, axes)))
	y := c.binary(compute.OpTypeDiv, e, c.keep(compute.OpTypeReduceSum, e, axes))
	return y, c.err
}

// FusedGelu records x·Φ(x), or its approximation by tanh.
func (f *Function) FusedGelu(x compute.Value, exact bool) (compute.Value, error) {
	r, err := f.floatOperand(compute.OpTypeFusedGelu, x)
	if err != nil {
		return nil, err
	}
	c := &chain{f: f}
	y := c.gelu(r, exact)
	return y, c.err
}

func (c *chain) gelu(x compute.Value, exact bool) compute.Value {
	add, mul := compute.OpTypeAdd, compute.OpTypeMul
	var t compute.Value
	if exact {
		t = c.unary(compute.OpTypeErf, c.binary(compute.OpTypeDiv, x, c.number(x, math.Sqrt2)))
		t = c.binary(add, t, c.number(x, 1))
	} else {
		cube := c.binary(compute.OpTypePow, x, c.number(x, 3))
		t = c.binary(add, x, c.binary(mul, cube, c.number(x, 0.044715)))
		t = c.unary(compute.OpTypeTanh, c.binary(mul, t, c.number(x, math.Sqrt(2/math.Pi))))
		t = c.binary(add, t, c.number(x, 1))
	}
	return c.binary(mul, x, c.binary(mul, t, c.number(x, 0.5)))
}

// FusedLayerNorm records (x−mean)/√(variance+ε)·gamma + beta over the axes.
func (f *Function) FusedLayerNorm(x compute.Value, axes []int, epsilon float64, gamma, beta compute.Value) (compute.Value, error) {
	r, err := f.floatOperand(compute.OpTypeFusedLayerNorm, x)
	if err != nil {
		return nil, err
	}
	if axes, err = axesOf("FusedLayerNorm", r.shape.Rank(), axes); err != nil {
		return nil, err
	}
	c := &chain{f: f}
	centred := c.binary(compute.OpTypeSub, r, c.mean(r, axes))
	variance := c.mean(c.binary(compute.OpTypeMul, centred, centred), axes)
	root := c.unary(compute.OpTypeSqrt, c.binary(compute.OpTypeAdd, variance, c.number(r, epsilon)))
	y := c.binary(compute.OpTypeDiv, centred, root)
	if gamma != nil {
		y = c.binary(compute.OpTypeMul, y, c.align(gamma, r))
	}
	if beta != nil {
		y = c.binary(compute.OpTypeAdd, y, c.align(beta, r))
	}
	return y, c.err
}

// FusedDense records activation(x·weight + bias).
func (f *Function) FusedDense(x, weight, bias compute.Value, options compute.DenseConfig) (compute.Value, error) {
	r, err := f.floatOperand(compute.OpTypeFusedDense, x)
	if err != nil {
		return nil, err
	}
	w, err := f.floatOperand(compute.OpTypeFusedDense, weight)
	if err != nil {
		return nil, err
	}
	xs, ws := r.shape.Dimensions, w.shape.Dimensions
	if len(xs) < 1 || len(ws) < 2 {
		return nil, errors.Errorf("FusedDense: operand %s and weight %s", r.shape, w.shape)
	}
	c := &chain{f: f}
	in := xs[len(xs)-1]
	rows := product(xs[:len(xs)-1])
	x2, w2 := compute.Value(r), compute.Value(w)
	if len(xs) != 2 {
		x2 = c.do(f.Reshape(r, rows, in))
	}
	outDims, contract := ws[1:], 0
	if options.WeightLayout == compute.DenseLayoutOutputsInput {
		outDims, contract = ws[:len(ws)-1], 1
	}
	if len(ws) > 2 {
		flat := []int{ws[0], product(outDims)}
		if contract == 1 {
			flat = []int{product(outDims), ws[len(ws)-1]}
		}
		w2 = c.do(f.Reshape(w, flat...))
	}
	if c.err != nil {
		return nil, c.err
	}
	y := c.do(f.DotGeneral(x2, []int{1}, nil, w2, []int{contract}, nil, compute.DotGeneralConfig{}))
	if c.err == nil && (len(xs) != 2 || len(ws) != 2) {
		y = c.do(f.Reshape(y, slices.Concat(xs[:len(xs)-1], outDims)...))
	}
	if bias != nil {
		y = c.binary(compute.OpTypeAdd, y, c.align(bias, y))
	}
	y = c.activate(y, options.Activation)
	return y, c.err
}

// activate records an activation function.
func (c *chain) activate(x compute.Value, a compute.ActivationType) compute.Value {
	const add, mul, least, most = compute.OpTypeAdd, compute.OpTypeMul, compute.OpTypeMin, compute.OpTypeMax
	if c.err != nil {
		return nil
	}
	switch a {
	case compute.ActivationNone:
		return x
	case compute.ActivationRelu:
		return c.binary(most, x, c.number(x, 0))
	case compute.ActivationGelu:
		return c.gelu(x, true)
	case compute.ActivationSilu:
		return c.binary(mul, x, c.unary(compute.OpTypeLogistic, x))
	case compute.ActivationHardSwish: // x·min(max(x/6 + ½, 0), 1)
		y := c.binary(add, c.binary(mul, x, c.number(x, 1.0/6)), c.number(x, 0.5))
		y = c.binary(least, c.binary(most, y, c.number(x, 0)), c.number(x, 1))
		return c.binary(mul, x, y)
	case compute.ActivationTanh:
		return c.unary(compute.OpTypeTanh, x)
	}
	return c.do(nil, errors.Wrapf(compute.ErrNotImplemented, "cpu backend: activation %s", a))
}

// FusedAttentionQKVProjection records one product and its split in three, each
// with its bias.
func (f *Function) FusedAttentionQKVProjection(x, wQKV, biasQ, biasK, biasV compute.Value, queryDim, keyValueDim int) (query, key, value compute.Value, err error) {
	r, err := f.floatOperand(compute.OpTypeFusedAttentionQKVProjection, x)
	if err != nil {
		return nil, nil, nil, err
	}
	dims := r.shape.Dimensions
	last := len(dims) - 1
	if last < 1 {
		return nil, nil, nil, errors.Errorf("FusedAttentionQKVProjection: operand has shape %s, want rank 2 or more", r.shape)
	}
	c := &chain{f: f}
	rows := product(dims[:last])
	x2 := compute.Value(r)
	if last > 1 {
		x2 = c.do(f.Reshape(r, rows, dims[last]))
	}
	if c.err != nil {
		return nil, nil, nil, c.err
	}
	all := c.do(f.DotGeneral(x2, []int{1}, nil, wQKV, []int{0}, nil, compute.DotGeneralConfig{}))
	part := func(from, to int, bias compute.Value) compute.Value {
		if c.err != nil {
			return nil
		}
		y := c.do(f.Slice(all, []int{0, from}, []int{rows, to}, []int{1, 1}))
		if c.err == nil && last > 1 {
			y = c.do(f.Reshape(y, slices.Concat(dims[:last], []int{to - from})...))
		}
		if bias != nil {
			y = c.binary(compute.OpTypeAdd, y, c.align(bias, y))
		}
		return y
	}
	query = part(0, queryDim, biasQ)
	key = part(queryDim, queryDim+keyValueDim, biasK)
	value = part(queryDim+keyValueDim, queryDim+2*keyValueDim, biasV)
	return query, key, value, c.err
}
