package cpu

import (
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapeinference"
	"github.com/gomlx/compute/shapes"
	"github.com/pkg/errors"
)

// This file records products, convolutions, windows, indexed access, batch
// normalisation and control flow.

// dotGeneral holds the axes of a DotGeneral and the dtype to compute in.
type dotGeneral struct {
	lhsContract, lhsBatch, rhsContract, rhsBatch []int
	accumulate                                   dtypes.DType
}

// DotGeneral records the sum over the contracted axes of products, for every
// combination of the others; see the interface.
func (f *Function) DotGeneral(lhs compute.Value, lhsContract, lhsBatch []int,
	rhs compute.Value, rhsContract, rhsBatch []int, config compute.DotGeneralConfig) (compute.Value, error) {
	ins, err := f.values("DotGeneral", lhs, rhs)
	if err != nil {
		return nil, err
	}
	dt := ins[0].shape.DType
	out, acc := config.OutputDType, config.AccumulatorDType
	if out == dtypes.InvalidDType {
		out = dt // also with another accumulator
	}
	if acc == dtypes.InvalidDType {
		acc = dt
	}
	for _, t := range []dtypes.DType{dt, acc, out} {
		if err := arithmetic(compute.OpTypeDotGeneral, t); err != nil {
			return nil, err
		}
		if t == dtypes.Bool {
			return nil, errors.Wrap(compute.ErrNotImplemented, "cpu backend: DotGeneral of dtype Bool")
		}
	}
	shape, err := shapeinference.DotGeneral(ins[0].shape, lhsContract, lhsBatch, ins[1].shape, rhsContract, rhsBatch, config)
	if err != nil {
		return nil, err
	}
	shape.DType = out
	a := dotGeneral{slices.Clone(lhsContract), slices.Clone(lhsBatch), slices.Clone(rhsContract), slices.Clone(rhsBatch), acc}
	return f.add(compute.OpTypeDotGeneral, shape, a, ins...), nil
}

// convGeneral holds the parameters of a ConvGeneral, defaults filled in.
type convGeneral struct {
	axes                         compute.ConvolveAxesConfig
	strides                      []int
	paddings                     [][2]int
	inputDilations, kernDilation []int
	groups, batchGroups          int
}

// ConvGeneral records a convolution; see the interface.
func (f *Function) ConvGeneral(input, kernel compute.Value, axes compute.ConvolveAxesConfig,
	strides []int, paddings [][2]int, inputDilations, kernelDilations []int,
	channelGroups, batchGroups int) (compute.Value, error) {
	ins, err := f.values("ConvGeneral", input, kernel)
	if err != nil {
		return nil, err
	}
	dt := ins[0].shape.DType
	if dt != ins[1].shape.DType {
		return nil, errors.Errorf("ConvGeneral: input %s and kernel %s differ in dtype", ins[0].shape, ins[1].shape)
	}
	if err := arithmetic(compute.OpTypeConvGeneral, dt); err != nil {
		return nil, err
	}
	if dt == dtypes.Bool {
		return nil, errors.Wrap(compute.ErrNotImplemented, "cpu backend: ConvGeneral of dtype Bool")
	}
	channelGroups, batchGroups = max(channelGroups, 1), max(batchGroups, 1)
	spatial := ins[0].shape.Rank() - 2
	a := convGeneral{
		axes: axes.Clone(), strides: orOnes(strides, spatial), paddings: slices.Clone(paddings),
		inputDilations: orOnes(inputDilations, spatial), kernDilation: orOnes(kernelDilations, spatial),
		groups: channelGroups, batchGroups: batchGroups,
	}
	if len(a.paddings) == 0 {
		a.paddings = make([][2]int, max(spatial, 0))
	}
	shape, err := shapeinference.ConvGeneral(ins[0].shape, ins[1].shape, axes, a.strides, a.paddings,
		a.inputDilations, a.kernDilation, channelGroups, batchGroups)
	if err != nil {
		return nil, err
	}
	return f.add(compute.OpTypeConvGeneral, shape, a, ins...), nil
}

func orOnes(s []int, n int) []int {
	if len(s) == 0 {
		return repeat(1, max(n, 0))
	}
	return slices.Clone(s)
}

// reduceWindow holds the parameters of ReduceWindow and SelectAndScatter.
type reduceWindow struct {
	reduction                    compute.ReduceOpType
	window, strides              []int
	inputDilations, windDilation []int
	paddings                     [][2]int
}

func newReduceWindow(rank int, r compute.ReduceOpType, window, strides, inputDilations, windowDilations []int, paddings [][2]int) reduceWindow {
	a := reduceWindow{
		reduction: r, window: orOnes(window, rank), strides: slices.Clone(strides),
		inputDilations: orOnes(inputDilations, rank), windDilation: orOnes(windowDilations, rank),
		paddings: slices.Clone(paddings),
	}
	if len(a.strides) == 0 {
		a.strides = slices.Clone(a.window)
	}
	if len(a.paddings) == 0 {
		a.paddings = make([][2]int, rank)
	}
	return a
}

// ReduceWindow records the reduction of a moving window.
func (f *Function) ReduceWindow(x compute.Value, reduction compute.ReduceOpType,
	window, strides, inputDilations, windowDilations []int, paddings [][2]int) (compute.Value, error) {
	ins, err := f.values("ReduceWindow", x)
	if err != nil {
		return nil, err
	}
	s := ins[0].shape
	if err := arithmetic(compute.OpTypeReduceWindow, s.DType); err != nil {
		return nil, err
	}
	if reduction <= compute.ReduceOpUndefined || reduction > compute.ReduceOpMin {
		return nil, errors.Errorf("ReduceWindow: reduction %s", reduction)
	}
	shape, err := shapeinference.ReduceWindow(s, window, strides, inputDilations, windowDilations, paddings)
	if err != nil {
		return nil, err
	}
	a := newReduceWindow(s.Rank(), reduction, window, strides, inputDilations, windowDilations, paddings)
	return f.add(compute.OpTypeReduceWindow, shape, a, ins...), nil
}

// SelectAndScatterMax records the addition of each element of source to the
// place of the largest element of its window.
func (f *Function) SelectAndScatterMax(operand, source compute.Value, window, strides []int, paddings [][2]int) (compute.Value, error) {
	return f.selectAndScatter(compute.OpTypeSelectAndScatterMax, operand, source, window, strides, paddings)
}

// SelectAndScatterMin is SelectAndScatterMax with the smallest element.
func (f *Function) SelectAndScatterMin(operand, source compute.Value, window, strides []int, paddings [][2]int) (compute.Value, error) {
	return f.selectAndScatter(compute.OpTypeSelectAndScatterMin, operand, source, window, strides, paddings)
}

func (f *Function) selectAndScatter(op compute.OpType, operand, source compute.Value, window, strides []int, paddings [][2]int) (compute.Value, error) {
	ins, err := f.values(op.String(), operand, source)
	if err != nil {
		return nil, err
	}
	s := ins[0].shape
	if err := arithmetic(op, s.DType); err != nil {
		return nil, err
	}
	shape, err := shapeinference.SelectAndScatter(s, ins[1].shape, window, strides, paddings)
	if err != nil {
		return nil, err
	}
	a := newReduceWindow(s.Rank(), compute.ReduceOpSum, window, strides, nil, nil, paddings)
	return f.add(op, shape, a, ins...), nil
}

// gather holds the parameters of a Gather.
type gather struct {
	indexAxis                             int
	offsetAxes, collapsed, startMap, size []int
}

// Gather records the windows of the operand that begin at the given indices;
// see the interface.
func (f *Function) Gather(operand, startIndices compute.Value, indexVectorAxis int,
	offsetOutputAxes, collapsedSliceAxes, startIndexMap, sliceSizes []int, indicesAreSorted bool) (compute.Value, error) {
	ins, err := f.values("Gather", operand, startIndices)
	if err != nil {
		return nil, err
	}
	if err := arithmetic(compute.OpTypeGather, ins[0].shape.DType); err != nil {
		return nil, err
	}
	inferFrom := ins[1].shape
	if indexVectorAxis == inferFrom.Rank() { // an implied last axis of size 1
		inferFrom = inferFrom.Clone()
		inferFrom.Dimensions = append(inferFrom.Dimensions, 1)
		if inferFrom.AxisNames != nil {
			inferFrom.AxisNames = append(inferFrom.AxisNames, "")
		}
	}
	shape, err := shapeinference.Gather(ins[0].shape, inferFrom, indexVectorAxis,
		offsetOutputAxes, collapsedSliceAxes, startIndexMap, sliceSizes, indicesAreSorted)
	if err != nil {
		return nil, err
	}
	a := gather{indexVectorAxis, slices.Clone(offsetOutputAxes), slices.Clone(collapsedSliceAxes),
		slices.Clone(startIndexMap), slices.Clone(sliceSizes)}
	return f.add(compute.OpTypeGather, shape, a, ins...), nil
}

// scatter holds the parameters of a Scatter.
type scatter struct {
	indexAxis                      int
	windowAxes, inserted, startMap []int
}

// ScatterSum records the addition of windows to the operand at given indices.
func (f *Function) ScatterSum(operand, indices, updates compute.Value, indexVectorAxis int,
	updateWindowAxes, insertedWindowAxes, scatterAxesToOperandAxes []int, sorted, unique bool) (compute.Value, error) {
	return f.scatter(compute.OpTypeScatterSum, operand, indices, updates, indexVectorAxis, updateWindowAxes, insertedWindowAxes, scatterAxesToOperandAxes)
}

// ScatterMax is ScatterSum with the larger value instead of the sum.
func (f *Function) ScatterMax(operand, indices, updates compute.Value, indexVectorAxis int,
	updateWindowAxes, insertedWindowAxes, scatterAxesToOperandAxes []int, sorted, unique bool) (compute.Value, error) {
	return f.scatter(compute.OpTypeScatterMax, operand, indices, updates, indexVectorAxis, updateWindowAxes, insertedWindowAxes, scatterAxesToOperandAxes)
}

// ScatterMin is ScatterSum with the smaller value instead of the sum.
func (f *Function) ScatterMin(operand, indices, updates compute.Value, indexVectorAxis int,
	updateWindowAxes, insertedWindowAxes, scatterAxesToOperandAxes []int, sorted, unique bool) (compute.Value, error) {
	return f.scatter(compute.OpTypeScatterMin, operand, indices, updates, indexVectorAxis, updateWindowAxes, insertedWindowAxes, scatterAxesToOperandAxes)
}

func (f *Function) scatter(op compute.OpType, operand, indices, updates compute.Value, indexAxis int, windowAxes, inserted, startMap []int) (compute.Value, error) {
	ins, err := f.values(op.String(), operand, indices, updates)
	if err != nil {
		return nil, err
	}
	if err := arithmetic(op, ins[0].shape.DType); err != nil {
		return nil, err
	}
	shape, err := shapeinference.Scatter(ins[0].shape, ins[1].shape, ins[2].shape, indexAxis, windowAxes, inserted, startMap)
	if err != nil {
		return nil, err
	}
	a := scatter{indexAxis, slices.Clone(windowAxes), slices.Clone(inserted), slices.Clone(startMap)}
	return f.add(op, shape.Clone(), a, ins...), nil
}

// DynamicSlice records a box of the given size whose position is computed: one
// scalar index an axis, or all of them in a vector.
func (f *Function) DynamicSlice(operand compute.Value, startIndices []compute.Value, sizes []int) (compute.Value, error) {
	startIndices, err := f.scalarStarts(operand, startIndices)
	if err != nil {
		return nil, err
	}
	ins, err := f.values("DynamicSlice", append([]compute.Value{operand}, startIndices...)...)
	if err != nil {
		return nil, err
	}
	if err := startsFor("DynamicSlice", ins[0], ins[1:]); err != nil {
		return nil, err
	}
	shape, err := shapeinference.DynamicSlice(ins[0].shape, sizes)
	if err != nil {
		return nil, err
	}
	return f.add(compute.OpTypeDynamicSlice, shape, slices.Clone(sizes), ins...), nil
}

// DynamicUpdateSlice records the operand with a box replaced by update.
func (f *Function) DynamicUpdateSlice(operand, update compute.Value, startIndices []compute.Value) (compute.Value, error) {
	startIndices, err := f.scalarStarts(operand, startIndices)
	if err != nil {
		return nil, err
	}
	ins, err := f.values("DynamicUpdateSlice", append([]compute.Value{operand, update}, startIndices...)...)
	if err != nil {
		return nil, err
	}
	if err := startsFor("DynamicUpdateSlice", ins[0], ins[2:]); err != nil {
		return nil, err
	}
	shape, err := shapeinference.DynamicUpdateSlice(ins[0].shape, ins[1].shape)
	if err != nil {
		return nil, err
	}
	return f.add(compute.OpTypeDynamicUpdateSlice, shape, nil, ins...), nil
}

// scalarStarts splits start indices that are given as one vector.
func (f *Function) scalarStarts(operand compute.Value, starts []compute.Value) ([]compute.Value, error) {
	x, ok := operand.(*record)
	if !ok || len(starts) != 1 {
		return starts, nil
	}
	v, ok := starts[0].(*record)
	if !ok || v.shape.Rank() != 1 || v.shape.Dimensions[0] != x.shape.Rank() {
		return starts, nil
	}
	var out []compute.Value
	for k := range x.shape.Rank() {
		s, err := f.Slice(v, []int{k}, []int{k + 1}, []int{1})
		if err == nil {
			s, err = f.Reshape(s)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

func startsFor(what string, operand *record, starts []*record) error {
	if err := arithmetic(compute.OpTypeDynamicSlice, operand.shape.DType); err != nil {
		return err
	}
	if len(starts) != operand.shape.Rank() {
		return errors.Errorf("%s: %d start indices for shape %s", what, len(starts), operand.shape)
	}
	for _, s := range starts {
		if s.shape.Rank() != 0 || s.shape.DType != starts[0].shape.DType || !s.shape.DType.IsInt() {
			return errors.Errorf("%s: a start index has shape %s, want integer scalars of one dtype", what, s.shape)
		}
	}
	return nil
}

// batchNorm holds the parameters of the batch normalisation operations.
type batchNorm struct {
	epsilon float32
	axis    int
}

func (f *Function) batchNorm(op compute.OpType, axis int, vs ...compute.Value) ([]*record, shapes.Shape, error) {
	ins, err := f.values(op.String(), vs...)
	if err != nil {
		return nil, shapes.Shape{}, err
	}
	s := ins[0].shape
	if axis < 0 || axis >= s.Rank() || !s.DType.IsFloat() {
		return nil, shapes.Shape{}, errors.Errorf("%s: feature axis %d of shape %s", op, axis, s)
	}
	perFeature := shapes.Shape{DType: s.DType, Dimensions: []int{s.Dimensions[axis]}}
	if s.AxisNames != nil {
		perFeature.AxisNames = []string{s.AxisNames[axis]}
	}
	for i, r := range ins[1:] {
		want := perFeature
		if op == compute.OpTypeBatchNormGradient && i == 3 {
			want = s
		}
		if r.shape.DType != want.DType || !r.shape.EqualDimensions(want) {
			return nil, shapes.Shape{}, errors.Errorf("%s: operand %d has shape %s, want %s", op, i+1, r.shape, want)
		}
	}
	return ins, perFeature, nil
}

// BatchNormForTraining records (x−mean)·scale/√(variance+ε)+offset with the mean
// and the biased variance over all axes but one, and returns those as well.
func (f *Function) BatchNormForTraining(x, scale, offset compute.Value, epsilon float32, axis int) (normalized, mean, variance compute.Value, err error) {
	op := compute.OpTypeBatchNormForTraining
	ins, feature, err := f.batchNorm(op, axis, x, scale, offset)
	if err != nil {
		return nil, nil, nil, err
	}
	out := f.addMulti(op, []shapes.Shape{ins[0].shape, feature, feature}, batchNorm{epsilon, axis}, ins...)
	return out[0], out[1], out[2], nil
}

// BatchNormForInference records the same with a given mean and variance.
func (f *Function) BatchNormForInference(x, scale, offset, mean, variance compute.Value, epsilon float32, axis int) (compute.Value, error) {
	op := compute.OpTypeBatchNormForInference
	ins, _, err := f.batchNorm(op, axis, x, scale, offset, mean, variance)
	if err != nil {
		return nil, err
	}
	return f.add(op, ins[0].shape, batchNorm{epsilon, axis}, ins...), nil
}

// BatchNormGradient records the gradients of BatchNormForTraining with respect
// to x, scale and offset.
func (f *Function) BatchNormGradient(x, scale, mean, variance, gradOutput compute.Value, epsilon float32, axis int) (gradX, gradScale, gradOffset compute.Value, err error) {
	op := compute.OpTypeBatchNormGradient
	ins, feature, err := f.batchNorm(op, axis, x, scale, mean, variance, gradOutput)
	if err != nil {
		return nil, nil, nil, err
	}
	out := f.addMulti(op, []shapes.Shape{ins[0].shape, feature, feature}, batchNorm{epsilon, axis}, ins...)
	return out[0], out[1], out[2], nil
}

// callee checks a function given to an operation: a closure of f, or with call
// a function of the builder.
func (f *Function) callee(what string, g compute.Function, call bool) (*Function, error) {
	fn, ok := g.(*Function)
	if !ok || fn == nil || fn.builder != f.builder {
		return nil, errors.Errorf("%s: %T is not a function of this builder", what, g)
	}
	if !fn.returned {
		return nil, errors.Errorf("%s: function %q has no Return", what, fn.name)
	}
	if call && fn.parent != nil || !call && fn.parent != f {
		return nil, errors.Errorf("%s: function %q has the wrong parent", what, fn.name)
	}
	return fn, nil
}

func sameShapes(what string, got, want []*record) error {
	if len(got) != len(want) {
		return errors.Errorf("%s: %d values where %d are wanted", what, len(got), len(want))
	}
	for i, r := range got {
		if !r.shape.Equal(want[i].shape) {
			return errors.Errorf("%s: value %d has shape %s, want %s", what, i, r.shape, want[i].shape)
		}
	}
	return nil
}

func shapesOf(rs []*record) []shapes.Shape {
	s := make([]shapes.Shape, len(rs))
	for i, r := range rs {
		s[i] = r.shape
	}
	return s
}

// Call records the results of another function of the builder.
func (f *Function) Call(g compute.Function, inputs ...compute.Value) ([]compute.Value, error) {
	fn, err := f.callee("Call", g, true)
	if err != nil {
		return nil, err
	}
	ins, err := f.values("Call", inputs...)
	if err != nil {
		return nil, err
	}
	if err := sameShapes("Call of "+fn.name, ins, fn.params); err != nil {
		return nil, err
	}
	return f.addMulti(compute.OpTypeCall, shapesOf(fn.outputs), []*Function{fn}, ins...), nil
}

// control is the attribute of While, If and Sort. The operands of the record
// are followed by what the functions capture, one after the other.
type control struct {
	fns  []*Function
	own  int // operands before the captures
	axis int // of Sort
}

func (f *Function) addControl(op compute.OpType, outs []shapes.Shape, c control, ins []*record) []compute.Value {
	c.own = len(ins)
	for _, fn := range c.fns {
		ins = append(ins, fn.captures...)
	}
	return f.addMulti(op, outs, c, ins...)
}

// While records the repetition of body while cond holds.
func (f *Function) While(cond, body compute.Function, initial ...compute.Value) ([]compute.Value, error) {
	c, err := f.callee("While condition", cond, false)
	if err != nil {
		return nil, err
	}
	b, err := f.callee("While body", body, false)
	if err != nil {
		return nil, err
	}
	ins, err := f.values("While", initial...)
	if err != nil {
		return nil, err
	}
	for _, check := range []error{
		sameShapes("While condition parameters", c.params, ins),
		sameShapes("While body parameters", b.params, ins),
		sameShapes("While body results", b.outputs, ins),
		wantBool("While condition", c.outputs),
	} {
		if check != nil {
			return nil, check
		}
	}
	return f.addControl(compute.OpTypeWhile, shapesOf(ins), control{fns: []*Function{c, b}}, ins), nil
}

func wantBool(what string, rs []*record) error {
	if len(rs) != 1 || rs[0].shape.Rank() != 0 || rs[0].shape.DType != dtypes.Bool {
		return errors.Errorf("%s: want one Bool scalar, got %v", what, shapesOf(rs))
	}
	return nil
}

// If records the results of one of two closures without parameters.
func (f *Function) If(pred compute.Value, onTrue, onFalse compute.Function) ([]compute.Value, error) {
	t, err := f.callee("If true branch", onTrue, false)
	if err != nil {
		return nil, err
	}
	e, err := f.callee("If false branch", onFalse, false)
	if err != nil {
		return nil, err
	}
	ins, err := f.values("If", pred)
	if err != nil {
		return nil, err
	}
	for _, check := range []error{
		wantBool("If", ins),
		sameShapes("If branch parameters", t.params, nil),
		sameShapes("If branch parameters", e.params, nil),
		sameShapes("If branch results", e.outputs, t.outputs),
	} {
		if check != nil {
			return nil, check
		}
	}
	return f.addControl(compute.OpTypeIf, shapesOf(t.outputs), control{fns: []*Function{t, e}}, ins), nil
}

// Sort records the operands sorted together along an axis by a comparator, a
// closure of (lhs of operand 0, rhs of operand 0, lhs of operand 1, …). The sort
// is always stable.
func (f *Function) Sort(comparator compute.Function, axis int, isStable bool, inputs ...compute.Value) ([]compute.Value, error) {
	c, err := f.callee("Sort comparator", comparator, false)
	if err != nil {
		return nil, err
	}
	if len(inputs) == 0 {
		return nil, errors.Errorf("Sort: no operands")
	}
	ins, err := f.values("Sort", inputs...)
	if err != nil {
		return nil, err
	}
	rank := ins[0].shape.Rank()
	if axis < 0 {
		axis += rank
	}
	if axis < 0 || axis >= rank {
		return nil, errors.Errorf("Sort: axis %d of shape %s", axis, ins[0].shape)
	}
	if err := wantBool("Sort comparator", c.outputs); err != nil {
		return nil, err
	}
	if len(c.params) != 2*len(ins) {
		return nil, errors.Errorf("Sort: the comparator has %d parameters for %d operands, want %d", len(c.params), len(ins), 2*len(ins))
	}
	for i, r := range ins {
		if err := arithmetic(compute.OpTypeSort, r.shape.DType); err != nil {
			return nil, err
		}
		if !r.shape.EqualDimensions(ins[0].shape) {
			return nil, errors.Errorf("Sort: operand %d has shape %s, the first has %s", i, r.shape, ins[0].shape)
		}
		for _, p := range c.params[2*i : 2*i+2] {
			if p.shape.Rank() != 0 || p.shape.DType != r.shape.DType {
				return nil, errors.Errorf("Sort: a comparator parameter has shape %s, want a scalar %s", p.shape, r.shape.DType)
			}
		}
	}
	return f.addControl(compute.OpTypeSort, shapesOf(ins), control{fns: []*Function{c}, axis: axis}, ins), nil
}
