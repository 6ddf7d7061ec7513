package cpu_test

import (
	"slices"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"

	"github.com/cohort-learning/cohort/backend/cpu"
)

// build runs a program written with the functions of the interface, which
// panic in place of returning errors.
type build struct {
	t *testing.T
	b compute.Backend
}

func (p build) one(v compute.Value, err error) compute.Value {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
	return v
}

func (p build) all(v []compute.Value, err error) []compute.Value {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
	return v
}

func (p build) closure(f compute.Function) compute.Function {
	p.t.Helper()
	c, err := f.Closure()
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}

func (p build) give(f compute.Function, v ...compute.Value) {
	p.t.Helper()
	if err := f.Return(v, nil); err != nil {
		p.t.Fatal(err)
	}
}

func (p build) compile(builder compute.Builder) compute.Executable {
	p.t.Helper()
	e, err := builder.Compile()
	if err != nil {
		p.t.Fatal(err)
	}
	return e
}

// run executes on float32 vectors of any length and returns the results.
func (p build) run(e compute.Executable, in ...[]float32) [][]float32 {
	p.t.Helper()
	var bufs []compute.Buffer
	for _, v := range in {
		buf, err := p.b.BufferFromFlatData(0, v, shapes.Make(dtypes.Float32, len(v)))
		if err != nil {
			p.t.Fatal(err)
		}
		bufs = append(bufs, buf)
	}
	out, err := e.Execute(bufs, nil, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	var flats [][]float32
	for _, o := range out {
		flats = append(flats, floatsOf(p.t, o))
	}
	return flats
}

func (p build) want(got, want []float32) {
	p.t.Helper()
	if !slices.Equal(got, want) {
		p.t.Errorf("got %v, want %v", got, want)
	}
}

var three = shapes.Make(dtypes.Float32, 3)

func TestWhileDoublesUntilLarge(t *testing.T) {
	p := build{t, newBackend(t, cpu.Options{})}
	builder := p.b.Builder("while")
	f := builder.Main()
	x := p.one(f.Parameter("x", three, nil))
	limit := p.one(f.Constant([]float32{100}))
	step := p.one(f.Mul(limit, p.one(f.Constant([]float32{0.02})))) // 2, captured by the body
	cond := p.closure(f)
	s := p.one(cond.Parameter("s", three, nil))
	p.give(cond, p.one(cond.LessThan(p.one(cond.ReduceSum(s)), limit)))
	body := p.closure(f)
	s = p.one(body.Parameter("s", three, nil))
	p.give(body, p.one(body.Mul(s, step)))
	p.give(f, p.all(f.While(cond, body, x))...)
	e := p.compile(builder)
	p.want(p.run(e, []float32{1, 2, 3})[0], []float32{32, 64, 96})
	p.want(p.run(e, []float32{100, 2, 3})[0], []float32{100, 2, 3})
}

func TestIfTakesOneBranch(t *testing.T) {
	p := build{t, newBackend(t, cpu.Options{})}
	builder := p.b.Builder("if")
	f := builder.Main()
	x := p.one(f.Parameter("x", three, nil))
	y := p.one(f.Neg(x))
	yes, no := p.closure(f), p.closure(f)
	p.give(yes, p.one(yes.Add(x, x)), x)
	p.give(no, y, p.one(no.Exp(p.one(no.Sub(x, x)))))
	zero := p.one(f.Constant([]float32{0}))
	out := p.all(f.If(p.one(f.GreaterThan(p.one(f.ReduceSum(x)), zero)), yes, no))
	p.give(f, out[1], out[0])
	e := p.compile(builder)
	got := p.run(e, []float32{1, 2, 3})
	p.want(got[0], []float32{1, 2, 3})
	p.want(got[1], []float32{2, 4, 6})
	got = p.run(e, []float32{-1, -2, -3})
	p.want(got[0], []float32{1, 1, 1})
	p.want(got[1], []float32{1, 2, 3})
}

func TestCallIsInlined(t *testing.T) {
	p := build{t, newBackend(t, cpu.Options{})}
	builder := p.b.Builder("call")
	square, err := builder.NewFunction("square")
	if err != nil {
		t.Fatal(err)
	}
	v := p.one(square.Parameter("v", three, nil))
	p.give(square, p.one(square.Mul(v, v)))
	f := builder.Main()
	x := p.one(f.Parameter("x", three, nil))
	p.give(f, p.all(f.Call(square, p.all(f.Call(square, x))[0]))...)
	p.want(p.run(p.compile(builder), []float32{1, 2, 3})[0], []float32{1, 16, 81})
}

func TestSortIsStableAndMovesAllOperands(t *testing.T) {
	p := build{t, newBackend(t, cpu.Options{})}
	builder := p.b.Builder("sort")
	f := builder.Main()
	s := shapes.Make(dtypes.Float32, 6)
	x, y := p.one(f.Parameter("x", s, nil)), p.one(f.Parameter("y", s, nil))
	less := p.closure(f)
	scalar := shapes.Make(dtypes.Float32)
	var v []compute.Value
	for _, name := range []string{"x0", "x1", "y0", "y1"} {
		v = append(v, p.one(less.Parameter(name, scalar, nil)))
	}
	p.give(less, p.one(less.GreaterThan(v[0], v[1])))
	p.give(f, p.all(f.Sort(less, 0, true, x, y))...)
	got := p.run(p.compile(builder), []float32{1, 3, 2, 3, 1, 2}, []float32{1, 2, 3, 4, 5, 6})
	p.want(got[0], []float32{3, 3, 2, 2, 1, 1})
	p.want(got[1], []float32{2, 4, 3, 6, 1, 5})
}

func TestDynamicAxesArePlannedPerSize(t *testing.T) {
	p := build{t, newBackend(t, cpu.Options{})}
	builder := p.b.Builder("dynamic")
	f := builder.Main()
	s := shapes.MakeDynamic(dtypes.Float32, []int{shapes.DynamicDim}, []string{"n"})
	x := p.one(f.Parameter("x", s, nil))
	n := p.one(f.ConvertDType(p.one(f.DynamicDimensionSize(x, 0)), dtypes.Float32))
	mean := p.one(f.Div(p.one(f.ReduceSum(x)), n))
	p.give(f, p.one(f.Sub(x, mean)))
	e := p.compile(builder)
	for range 2 {
		p.want(p.run(e, []float32{1, 2, 3})[0], []float32{-1, 0, 1})
		p.want(p.run(e, []float32{1, 5})[0], []float32{-2, 2})
	}
}

func TestMistakesAreErrors(t *testing.T) {
	b := newBackend(t, cpu.Options{})
	builder := b.Builder("mistakes")
	f := builder.Main()
	x, err := f.Parameter("x", three, nil)
	if err != nil {
		t.Fatal(err)
	}
	other, err := b.Builder("other").Main().Parameter("x", three, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, build := range map[string]func() (compute.Value, error){
		"value of another builder": func() (compute.Value, error) { return f.Add(x, other) },
		"no value":                 func() (compute.Value, error) { return f.Neg(nil) },
		"bitwise on floats":        func() (compute.Value, error) { return f.BitwiseNot(x) },
		"axis out of range":        func() (compute.Value, error) { return f.ReduceSum(x, 3) },
		"complex constant":         func() (compute.Value, error) { return f.Constant([]complex64{1}, 1) },
		"sort without order":       func() (compute.Value, error) { _, err := f.Sort(f, 0, true, x); return nil, err },
	} {
		if _, err := build(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := f.FFT(x, compute.FFTForward, []int{3}); !compute.IsNotImplemented(err) {
		t.Errorf("FFT: error %v does not say that it is not implemented", err)
	}
	if _, err := builder.Compile(); err == nil {
		t.Error("Compile without Return: no error")
	}
}

func TestUseAfterDonation(t *testing.T) {
	p := build{t, newBackend(t, cpu.Options{})}
	builder := p.b.Builder("donation")
	f := builder.Main()
	x := p.one(f.Parameter("x", three, nil))
	p.give(f, p.one(f.Neg(x)))
	e := p.compile(builder)
	in, flat, err := p.b.NewSharedBuffer(0, three)
	if err != nil {
		t.Fatal(err)
	}
	copy(flat.([]float32), []float32{1, 2, 3})
	out, err := e.Execute([]compute.Buffer{in}, []bool{true}, 0)
	if err != nil {
		t.Fatal(err)
	}
	p.want(floatsOf(t, out[0]), []float32{-1, -2, -3})
	if _, err := in.Data(); err == nil {
		t.Error("a donated buffer still gives its data")
	}
	if _, err := e.Execute([]compute.Buffer{in}, nil, 0); err == nil {
		t.Error("a donated buffer is accepted as input")
	}
}
