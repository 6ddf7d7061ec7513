package cpu

import (
	"slices"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
)

// twoResults returns an executable for 2x and x+1 of three numbers, and a maker of inputs.
func twoResults(t *testing.T, b *Backend) (*Executable, func(v ...float32) compute.Buffer) {
	t.Helper()
	builder := newBuilder(b, t.Name())
	ok := must(t)
	shape := shapes.Make(dtypes.Float32, 3)
	x := ok(builder.main.Parameter("x", shape, nil))
	one := ok(builder.main.Constant([]float32{1, 1, 1}, 3))
	if err := builder.main.Return([]compute.Value{ok(builder.main.Add(x, x)), ok(builder.main.Add(x, one))}, nil); err != nil {
		t.Fatal(err)
	}
	exec, err := builder.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return exec.(*Executable), func(v ...float32) compute.Buffer {
		t.Helper()
		in, err := b.BufferFromFlatData(0, v, shape)
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
}

func TestExecuteIntoTakesSpentBuffersOnly(t *testing.T) {
	backend, other := newTestBackend(t), newTestBackend(t)
	exec, input := twoResults(t, backend)
	wantValues := func(what string, b compute.Buffer, want ...float32) {
		t.Helper()
		flat := make([]float32, 3)
		if err := b.ToFlatData(flat); err != nil {
			t.Errorf("%s: %v", what, err)
		} else if !slices.Equal(flat, want) {
			t.Errorf("%s: %v, want %v", what, flat, want)
		}
	}
	run := func(results []compute.Buffer, donate []bool, in compute.Buffer) {
		t.Helper()
		if err := exec.ExecuteInto(results, []compute.Buffer{in}, donate); err != nil {
			t.Fatal(err)
		}
		wantValues("first result", results[0], 2, 4, 6)
		wantValues("second result", results[1], 2, 3, 4)
	}
	spent := func() compute.Buffer {
		b := input(0, 0, 0)
		if err := b.Finalize(); err != nil {
			t.Fatal(err)
		}
		return b
	}

	results := make([]compute.Buffer, 2)
	run(results, nil, input(1, 2, 3))
	t.Run("spent ones come back to life", func(t *testing.T) {
		a, b := spent(), spent()
		results := []compute.Buffer{a, b}
		run(results, nil, input(1, 2, 3))
		if results[0] != a || results[1] != b {
			t.Error("spent buffers were not used")
		}
	})
	t.Run("valid ones stay", func(t *testing.T) {
		first, second := results[0], results[1]
		again := slices.Clone(results)
		run(again, nil, input(1, 2, 3))
		if again[0] == first || again[1] == second {
			t.Error("a valid buffer was used for a result")
		}
		wantValues("first result of the run before", first, 2, 4, 6)
		wantValues("second result of the run before", second, 2, 3, 4)
	})
	t.Run("one buffer for two results", func(t *testing.T) {
		a := spent()
		results := []compute.Buffer{a, a}
		run(results, nil, input(1, 2, 3))
		if results[0] != a || results[1] == a {
			t.Error("one spent buffer must serve one result")
		}
	})
	t.Run("the input itself, donated or not", func(t *testing.T) {
		for _, donate := range []bool{false, true} {
			in := input(1, 2, 3)
			results := []compute.Buffer{in, nil}
			run(results, []bool{donate}, in)
			if results[0] == in {
				t.Error("an input was used for a result of the same execution")
			}
			if donate != !in.(*Buffer).valid {
				t.Errorf("input donated: %v, valid afterwards: %v", donate, in.(*Buffer).valid)
			}
			if !donate {
				wantValues("input", in, 1, 2, 3)
			}
		}
	})
	t.Run("a donated one of the run before", func(t *testing.T) {
		in := input(1, 2, 3)
		run(make([]compute.Buffer, 2), []bool{true}, in)
		results := []compute.Buffer{nil, in}
		run(results, nil, input(1, 2, 3))
		if results[1] != in {
			t.Error("a donated buffer was not used")
		}
	})
	t.Run("of another backend", func(t *testing.T) {
		b := other.newBuffer(shapes.Make(dtypes.Float32, 3))
		_ = b.Finalize()
		results := []compute.Buffer{b, nil}
		run(results, nil, input(1, 2, 3))
		if results[0] == b || b.valid {
			t.Error("a buffer of another backend was used")
		}
	})
	t.Run("a spent input is refused", func(t *testing.T) {
		in := spent()
		results := []compute.Buffer{in, nil}
		if err := exec.ExecuteInto(results, []compute.Buffer{in}, nil); err == nil || in.(*Buffer).valid {
			t.Errorf("error %v, valid %v", err, in.(*Buffer).valid)
		}
		if err := exec.ExecuteInto(make([]compute.Buffer, 1), []compute.Buffer{input(1, 2, 3)}, nil); err == nil {
			t.Error("no error for one place for two results")
		}
	})
}

func newTestBackend(t *testing.T) *Backend {
	t.Helper()
	b, err := New(Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Finalize)
	return b.(*Backend)
}
