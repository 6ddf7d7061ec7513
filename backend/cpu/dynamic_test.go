package cpu

import (
	"slices"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
)

func TestPlansForDynamicAxesAreBounded(t *testing.T) {
	backend, err := New(Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Finalize()
	b := newBuilder(backend.(*Backend), t.Name())
	ok := must(t)
	open := shapes.MakeDynamic(dtypes.Int32, []int{shapes.DynamicDim}, []string{"n"})
	x := ok(b.main.Parameter("x", open, nil))
	if err := b.main.Return([]compute.Value{ok(b.main.ReduceSum(x))}, nil); err != nil {
		t.Fatal(err)
	}
	c, err := b.Compile()
	if err != nil {
		t.Fatal(err)
	}
	exec := c.(*Executable)
	// execute runs on n ones and tells which plan it took.
	execute := func(n int) *plan {
		in, err := backend.BufferFromFlatData(0, slices.Repeat([]int32{1}, n), shapes.Make(dtypes.Int32, n))
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Execute([]compute.Buffer{in}, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := out[0].(*Buffer).Data(); got.([]int32)[0] != int32(n) {
			t.Errorf("the sum of %d ones is %v", n, got)
		}
		p, err := exec.planFor([]compute.Buffer{in}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	steady, second := execute(1), execute(2)
	for n := 3; n <= 5*maxPlans; n++ {
		execute(n)
		if execute(1) != steady {
			t.Fatalf("the plan that is used all the time was dropped before binding %d", n)
		}
		if n <= maxPlans && len(exec.plans.plans) != n || len(exec.plans.plans) > maxPlans {
			t.Fatalf("%d plans are kept after %d bindings, want at most %d", len(exec.plans.plans), n, maxPlans)
		}
	}
	if execute(2) == second {
		t.Error("the plan that was used the longest ago is still kept")
	}
}
