//go:build !race

package main

import (
	"testing"

	"github.com/cohort-learning/cohort/backend/cpu"
)

// The training steps of the table allocate nothing, once they have warmed up.
func TestStepsAllocateNothing(t *testing.T) {
	b, err := cpu.New(cpu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Finalize()
	for _, c := range standardCases() {
		if c.Kind != "train" || c.Batch == 128 {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			r, err := newRunner(b, c)
			if err != nil {
				t.Fatal(err)
			}
			defer r.close()
			step := func() {
				if err := r.step(); err != nil {
					t.Fatal(err)
				}
			}
			step()
			// Helpers warm up, and the runtime allocates, at any time: one try without any is enough.
			for try := 1; ; try++ {
				n := testing.AllocsPerRun(2, step)
				if n == 0 {
					return
				}
				if try == 5 {
					t.Fatalf("a step allocates %v times", n)
				}
			}
		})
	}
}
