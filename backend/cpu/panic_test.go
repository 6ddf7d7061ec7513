package cpu

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"

	"github.com/cohort-learning/cohort/backend/cpu/workers"
)

// faulty runs a good step, and before it a job of which one task panics if
// asked to.
type faulty struct {
	good  runner
	armed *bool
	cause error
}

func (f faulty) Tasks() int { return 64 }

func (f faulty) Do(task int, _ *workers.Worker) {
	if task == 37 && *f.armed {
		panic(f.cause)
	}
}

func (f faulty) run(s *workers.Session) {
	s.Run(f)
	f.good.run(s)
}

func TestPanicInAKernelIsAnErrorOfItsExecution(t *testing.T) {
	const threads = 2
	backend, err := New(Options{Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Finalize()
	b := newBuilder(backend.(*Backend), t.Name())
	ok := must(t)
	shape := shapes.Make(dtypes.Float32, 3)
	x := ok(b.main.Parameter("x", shape, nil))
	if err := b.main.Return([]compute.Value{ok(b.main.Exp(x)), ok(b.main.ReduceSum(x))}, nil); err != nil {
		t.Fatal(err)
	}
	exec, err := b.Compile()
	if err != nil {
		t.Fatal(err)
	}
	armed, cause := false, errors.New("kernel on fire")
	p := exec.(*Executable).plan
	bind := p.steps[0].bind
	p.steps[0].bind = func(base []unsafe.Pointer) runner { return faulty{bind(base), &armed, cause} }
	execute := func(donate bool) (*Buffer, []compute.Buffer, error) {
		in, err := backend.BufferFromFlatData(0, []float32{0, 1, 2}, shape)
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Execute([]compute.Buffer{in}, []bool{donate}, 0)
		return in.(*Buffer), out, err
	}
	_, out, err := execute(false)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := out[0].(*Buffer).Data()
	memory := &backend.(*Backend).memory
	for round := range 3 * threads {
		armed = true
		used := memory.used
		in, out, err := execute(round%2 == 0)
		if !errors.Is(err, cause) || out != nil || !strings.Contains(err.Error(), "step 0") {
			t.Fatalf("Execute returned %v and error %v, want one of step 0 that wraps %q", out, err, cause)
		}
		if !strings.Contains(fmt.Sprintf("%+v", err), "faulty.Do") {
			t.Errorf("%%+v of the error does not show where the panic began:\n%+v", err)
		}
		if in.valid == (round%2 == 0) {
			t.Errorf("after the error the input is valid: %t, donated: %t", in.valid, round%2 == 0)
		}
		if _ = in.Finalize(); memory.used != used {
			t.Errorf("the failed execution keeps %d bytes", memory.used-used)
		}
		armed = false
		_, out, err = execute(true)
		if err != nil {
			t.Fatalf("Execute after a failed one: %v", err)
		}
		if got, _ := out[0].(*Buffer).Data(); !slices.Equal(got.([]float32), want.([]float32)) {
			t.Errorf("Execute after a failed one returned %v, want %v", got, want)
		}
	}
}
