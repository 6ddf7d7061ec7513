// Package cpu is a GoMLX backend that runs graphs on the processor with its own
// kernels, in plain Go and assembly.
//
// A blank import registers it under the name "cpu":
//
//	import _ "github.com/cohort-learning/cohort/backend/cpu"
//
//	backend, err := compute.NewWithConfig("cpu:threads=2")
//
// [New] makes one from [Options] without the registry.
//
// # From graph to result
//
// A [Builder] records what is asked of it as nodes, shapes checked, nothing
// else. Compiling (and, for graphs with dynamic axes, the first execution with
// a new binding of them) turns the record into a plan in four steps:
//
//   - lower: every operation is rewritten into a few kinds of nodes with
//     concrete shapes; equal nodes become one, views (reshape, transpose,
//     broadcast, slice, reverse) only describe where to read, constants are
//     folded, and what no output needs is dropped;
//   - fuse: element-wise nodes and the reductions at their ends are gathered
//     into programs, which run block by block in cache and touch memory only
//     for what somebody outside needs;
//   - place: every value that remains gets a place in one arena, shared by
//     values that do not live at the same time;
//   - run: an [Executable] owns a few frames (arena, scratch, call records),
//     one for each execution in flight, and allocates nothing else but the
//     output buffers; with [Executable.ExecuteInto] not even those.
//
// # Guarantees
//
// Results do not depend on the number of threads: work is cut by shape, and
// partial results are combined in a fixed order. Any number of goroutines may
// execute one Executable at once; together they use no more threads than the
// backend has. Arithmetic on half-precision types is done in float32 and
// rounded after every operation. A panic in a kernel is an error of the
// execution that it ends, and of no other. An executable with dynamic axes
// keeps the plans of the 64 bindings that were used last.
package cpu
