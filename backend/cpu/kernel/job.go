package kernel

import (
	"fmt"
	"unsafe"
)

// A Job is work cut into independent tasks, which may run in any order and at the
// same time. The cut depends on shapes and path only, never on the number of
// threads, so that the same bits come out for any number of them.
type Job interface {
	// Tasks is the number of tasks; it may be zero.
	Tasks() int
	// Do runs one task, 0 ≤ task < Tasks(). It allocates nothing once s has grown
	// to what the plan asks for. Two tasks running at once need two Scratches.
	Do(task int, s *Scratch)
}

// A Call is one execution of a plan: a few Jobs, each of which begins when all
// tasks of the one before it have ended. A Call belongs to one execution at a
// time and can be used again.
type Call interface {
	Phases() int
	// Phase returns the job of phase i, 0 ≤ i < Phases(). It allocates nothing.
	// Phase 0 checks the lengths of the slices and panics if one is too short.
	Phase(i int) Job
}

// Run executes all phases of c on the calling goroutine.
func Run(c Call, s *Scratch) {
	for i := range c.Phases() {
		job := c.Phase(i)
		for t := range job.Tasks() {
			job.Do(t, s)
		}
	}
}

// Scratch is the private memory of one worker. The zero value is ready to use.
type Scratch struct {
	buf     []float32 // aligned to a cache line
	product product   // what the task in flight multiplies, and the arguments
	panel   panel     // of its inner kernel: here so that no task allocates them
	pool    poolRow   // likewise
}

// Grow makes room for n float32 values (the ScratchLen of a plan). Calling it
// before the first task keeps allocation out of the hot path; a task that finds
// too little room grows it itself.
func (s *Scratch) Grow(n int) {
	if n > len(s.buf) {
		s.buf = alignedFloats(n)
	}
}

// take returns the first n values of the scratch.
func (s *Scratch) take(n int) []float32 {
	s.Grow(n)
	return s.buf[:n]
}

const cacheLine = 64 // bytes

// alignedFloats returns n zeros whose first lies at the start of a cache line.
func alignedFloats(n int) []float32 {
	const lane = cacheLine / 4
	buf := make([]float32, n+lane)
	off := int(uintptr(unsafe.Pointer(unsafe.SliceData(buf)))%cacheLine) / 4
	if off != 0 {
		off = lane - off
	}
	return buf[off : off+n : off+n]
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }

func roundUp(a, b int) int { return ceilDiv(a, b) * b }

// need panics unless a slice of the given name has at least want values.
func need(plan, name string, have, want int) {
	if have < want {
		panic(fmt.Sprintf("kernel: %s: %s has %d values, want at least %d", plan, name, have, want))
	}
}
