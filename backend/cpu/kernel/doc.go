// Package kernel multiplies, convolves and pools float32 arrays as fast as one
// machine can, with the same bits for any number of threads.
//
// Three nouns carry the package:
//
//   - A [Path] is a way of computing: AVX-512, AVX2 with FMA, NEON, or portable
//     Go. [Best] is the fastest one of this machine, [Default] obeys COHORT_CPU;
//     plans take the path as an argument, so all can be tried on one machine.
//   - A plan ([Gemm], [Conv], [Pool]) is everything that follows from shapes:
//     offsets, blocks, the cut into tasks. It is immutable and shared by any
//     number of concurrent executions.
//   - A call ([GemmCall], [ConvCall], [PoolCall]) is a plan with the slices of one
//     execution. It has one or more phases to be run one after the other; a
//     phase is a [Job] whose tasks may run in any order on any threads.
//
// The package starts no goroutine. Running a call on one thread is
//
//	plan := kernel.NewGemm(kernel.Best(), shape)
//	call := kernel.GemmCall{Plan: plan, A: a, B: b, C: c, Work: make([]float32, plan.WorkspaceLen())}
//	var scratch kernel.Scratch
//	kernel.Run(&call, &scratch)
//
// # How it works
//
// Nearly all the arithmetic is done by one inner kernel, the panel:
//
//	C[cᵢ + j] (+)= Σₖ A[rᵢ + oₖ] · B[k·ldb + j]
//
// with one offset a row (rᵢ, cᵢ) and one offset a summand (oₖ), read from tables
// that the plan has built. A matrix in any layout is the case rᵢ = i·row,
// oₖ = k·col. A convolution over an image in NHWC is the case "offset of the
// pixel" plus "offset of the tap", once the image has a border of zeros: a task
// copies the band of rows it needs, with the border, into its own [Scratch] and
// multiplies straight from there. The weight gradient is the same with the two
// tables exchanged. Where much of what the taps would read lies outside the
// image, rows are sorted by the taps they reach, and the rest is not computed. So
// nothing is ever unfolded (im2col), thin and odd shapes cost no packing, and only
// B is rearranged, into panels of the width of the register tile, and those A that
// the caches would not hold as they lie. (Products with a vector, and convolutions
// into four channels or fewer, have kernels with the lanes of the vector unit along
// the sum.)
//
// Sums over k run in blocks whose size depends on shapes and path only. Results
// of different paths differ by rounding: each differs from the exact sum by at
// most (K+2)·2⁻²⁴·Σ|a||b|.
//
// The amd64 assembly is written by the program in gen: go generate reproduces it.
package kernel
