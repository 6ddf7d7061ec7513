package cpu

import (
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/notimplemented"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/compute/support/sets"
	"github.com/pkg/errors"
)

// Builder records a computation.
type Builder struct {
	backend  *Backend
	name     string
	main     *Function
	byName   map[string]*Function
	compiled bool
}

var _ compute.Builder = (*Builder)(nil)

func newBuilder(b *Backend, name string) *Builder {
	bd := &Builder{backend: b, name: name, byName: map[string]*Function{}}
	bd.main = bd.function(compute.MainName, nil)
	return bd
}

func (b *Builder) function(name string, parent *Function) *Function {
	return &Function{
		Function: notimplemented.Function{ErrFn: notImplemented},
		builder:  b, name: name, parent: parent,
		captured: map[*record]*record{}, axisNames: sets.Make[string](),
	}
}

func notImplemented(op compute.OpType) error {
	return errors.Wrapf(compute.ErrNotImplemented, "cpu backend: %s", op)
}

// Name of the computation.
func (b *Builder) Name() string { return b.name }

// Main returns the function that is compiled.
func (b *Builder) Main() compute.Function { return b.main }

// NewFunction starts a function that others can call.
func (b *Builder) NewFunction(name string) (compute.Function, error) {
	if name == "" || name == compute.MainName || b.byName[name] != nil {
		return nil, errors.Errorf("NewFunction: the name %q is empty, %q or taken", name, compute.MainName)
	}
	f := b.function(name, nil)
	b.byName[name] = f
	return f, nil
}

// OpShape returns the shape of a value.
func (b *Builder) OpShape(v compute.Value) (shapes.Shape, error) {
	r, ok := v.(*record)
	if !ok || r == nil {
		return shapes.Invalid(), errors.Errorf("OpShape: %T is not a value of the cpu backend", v)
	}
	return r.shape, nil
}

// DistributedSPMD accepts one device only.
func (b *Builder) DistributedSPMD(numDevices int) error {
	if numDevices == 1 {
		return nil
	}
	return errors.Wrapf(compute.ErrNotImplemented, "cpu backend: SPMD over %d devices, there is one", numDevices)
}

// DistributedAutoSharding is not implemented.
func (b *Builder) DistributedAutoSharding(...compute.Mesh) error {
	return errors.Wrap(compute.ErrNotImplemented, "cpu backend: automatic sharding")
}

// DeviceAssignment accepts device 0 only.
func (b *Builder) DeviceAssignment(devices ...compute.DeviceNum) error {
	if len(devices) == 1 && devices[0] == 0 {
		return nil
	}
	return errors.Errorf("DeviceAssignment: devices %v, the cpu backend has device 0 only", devices)
}

// Compile turns the record of Main into an executable.
func (b *Builder) Compile() (compute.Executable, error) {
	if b.compiled {
		return nil, errors.Errorf("Compile: builder %q was compiled before", b.name)
	}
	if !b.main.returned {
		return nil, errors.Errorf("Compile: Main of %q has no Return", b.name)
	}
	b.compiled = true
	return newExecutable(b)
}

// record is one recorded operation, or one of its results if it has several.
type record struct {
	op    compute.OpType
	ins   []*record
	shape shapes.Shape // may have dynamic axes
	attr  any
	fn    *Function
	index int // position in fn.records

	outs   []*record // results of an operation with several
	output int       // which result of ins[0] this is; only if op is opResult
}

// Kinds of records and nodes that are no operations of the interface.
const (
	opResult  compute.OpType = 10_000 + iota // one of several results
	opCapture                                // value of an enclosing function
	opUnpack                                 // packed integers, one byte each
	opPack                                   // the inverse
	opDecode                                 // float32 from quantized blocks (blockFormat)
)

// Function records the body of a function or closure.
type Function struct {
	notimplemented.Function
	builder  *Builder
	name     string
	parent   *Function
	records  []*record
	params   []*record
	outputs  []*record
	returned bool

	captures  []*record           // values of the parent that this closure uses
	captured  map[*record]*record // their stand-ins here
	axisNames sets.Set[string]    // dynamic axes introduced by parameters
}

var _ compute.Function = (*Function)(nil)

// Name is empty for closures.
func (f *Function) Name() string { return f.name }

// Builder returns the builder of the function.
func (f *Function) Builder() compute.Builder { return f.builder }

// Parent returns the function that encloses a closure, or nil.
func (f *Function) Parent() compute.Function {
	if f.parent == nil {
		return nil
	}
	return f.parent
}

// Closure starts a function that can use the values of this one.
func (f *Function) Closure() (compute.Function, error) {
	if err := f.open("Closure"); err != nil {
		return nil, err
	}
	return f.builder.function("", f), nil
}

func (f *Function) open(what string) error {
	if f.returned {
		return errors.Errorf("%s: function %q has returned already", what, f.name)
	}
	if f.builder.compiled {
		return errors.Errorf("%s: builder %q is compiled already", what, f.builder.name)
	}
	return nil
}

// Shape returns the shape of a value.
func (f *Function) Shape(v compute.Value) (shapes.Shape, error) { return f.builder.OpShape(v) }

// add appends an operation with one result.
func (f *Function) add(op compute.OpType, shape shapes.Shape, attr any, ins ...*record) *record {
	if !slices.ContainsFunc(shape.AxisNames, func(name string) bool { return name != "" }) {
		shape.AxisNames = nil // no names are the same as empty ones
	}
	r := &record{op: op, ins: ins, shape: shape, attr: attr, fn: f, index: len(f.records)}
	f.records = append(f.records, r)
	return r
}

// addMulti appends an operation with several results.
func (f *Function) addMulti(op compute.OpType, outs []shapes.Shape, attr any, ins ...*record) []compute.Value {
	m := f.add(op, shapes.Invalid(), attr, ins...)
	values := make([]compute.Value, len(outs))
	for i, s := range outs {
		r := f.add(opResult, s.Clone(), nil, m)
		r.output = i
		m.outs = append(m.outs, r)
		values[i] = r
	}
	return values
}

// values checks the operands of an operation and replaces those of enclosing
// functions by captures.
func (f *Function) values(what string, vs ...compute.Value) ([]*record, error) {
	if err := f.open(what); err != nil {
		return nil, err
	}
	rs := make([]*record, len(vs))
	for i, v := range vs {
		r, ok := v.(*record)
		if !ok || r == nil {
			return nil, errors.Errorf("%s: operand %d is a %T, not a value of the cpu backend", what, i, v)
		}
		if r.fn.builder != f.builder {
			return nil, errors.Errorf("%s: operand %d belongs to builder %q, not to %q", what, i, r.fn.builder.name, f.builder.name)
		}
		if r = f.capture(r); r == nil {
			return nil, errors.Errorf("%s: operand %d belongs to a function that does not enclose this one", what, i)
		}
		rs[i] = r
	}
	return rs, nil
}

// capture returns the stand-in of r in f, or nil if r is out of sight.
func (f *Function) capture(r *record) *record {
	if r.fn == f {
		return r
	}
	if c := f.captured[r]; c != nil {
		return c
	}
	if f.parent == nil {
		return nil
	}
	outer := f.parent.capture(r)
	if outer == nil {
		return nil
	}
	c := f.add(opCapture, outer.shape, len(f.captures))
	f.captures = append(f.captures, outer)
	f.captured[r] = c
	return c
}

// parameter identifies an input of a function.
type parameter struct {
	name  string
	index int
}

// Parameter adds an input.
func (f *Function) Parameter(name string, shape shapes.Shape, sharding *compute.ShardingSpec) (compute.Value, error) {
	if err := f.open("Parameter"); err != nil {
		return nil, err
	}
	if !shape.Ok() {
		return nil, errors.Errorf("Parameter %q: invalid shape", name)
	}
	if !capabilities.DTypes[shape.DType] {
		return nil, errors.Wrapf(compute.ErrNotImplemented, "cpu backend: parameter %q has dtype %s", name, shape.DType)
	}
	if sharding != nil {
		return nil, errors.Wrapf(compute.ErrNotImplemented, "cpu backend: sharding of parameter %q", name)
	}
	r := f.add(compute.OpTypeParameter, shape.Clone(), parameter{name, len(f.params)})
	f.params = append(f.params, r)
	root := f.root()
	for i, d := range shape.Dimensions {
		if d == shapes.DynamicDim && shape.AxisName(i) != "" {
			root.axisNames.Insert(shape.AxisName(i))
		}
	}
	return r, nil
}

func (f *Function) root() *Function {
	for f.parent != nil {
		f = f.parent
	}
	return f
}

// Constant adds an array of known values, which are copied.
func (f *Function) Constant(flat any, dims ...int) (compute.Value, error) {
	if err := f.open("Constant"); err != nil {
		return nil, err
	}
	dt, n := flatOf(flat)
	if dt == dtypes.InvalidDType {
		return nil, errors.Wrapf(compute.ErrNotImplemented, "cpu backend: constant of type %T", flat)
	}
	shape := shapes.Make(dt, dims...)
	if shape.Size() != n {
		return nil, errors.Errorf("Constant: %d values for shape %s of size %d", n, shape, shape.Size())
	}
	data := alignedBytes(int(shape.ByteSize()))
	copy(unsafeBytes(data, int(shape.ByteSize())), dtypes.UnsafeByteSliceFromAny(flat))
	return f.add(compute.OpTypeConstant, shape, data), nil
}

// Return names the results and ends the record.
func (f *Function) Return(outputs []compute.Value, shardings []*compute.ShardingSpec) error {
	if len(outputs) == 0 {
		return errors.Errorf("Return: function %q needs at least one output", f.name)
	}
	for _, s := range shardings {
		if s != nil {
			return errors.Wrap(compute.ErrNotImplemented, "cpu backend: sharding of outputs")
		}
	}
	rs, err := f.values("Return", outputs...)
	if err != nil {
		return err
	}
	f.outputs, f.returned = rs, true
	return nil
}
