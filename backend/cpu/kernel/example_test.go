package kernel_test

import (
	"fmt"

	"github.com/cohort-learning/cohort/backend/cpu/kernel"
)

// The product of a 2×3 and a 3×2 matrix, the second stored by columns.
func Example() {
	plan := kernel.NewGemm(kernel.Best(), kernel.GemmShape{
		M: 2, N: 2, K: 3,
		A: kernel.RowMajor(nil, 2, 3),
		B: kernel.RowMajor(nil, 2, 3).T(),
		C: kernel.RowMajor(nil, 2, 2),
	})
	call := kernel.GemmCall{
		Plan: plan,
		A:    []float32{1, 2, 3, 4, 5, 6},
		B:    []float32{1, 0, 1, 0, 1, 0},
		C:    make([]float32, 4),
		Work: make([]float32, plan.WorkspaceLen()),
	}
	kernel.Run(&call, new(kernel.Scratch))
	fmt.Println(call.C)
	// Output: [4 2 10 5]
}

// A 2×2 kernel of ones over an image of 3×3 pixels and one channel.
func ExampleNewConvForward() {
	plan := kernel.NewConvForward(kernel.Best(), kernel.ConvShape{
		N: 1, H: 3, W: 3, Cin: 1, KH: 2, KW: 2, Cout: 1,
	})
	call := kernel.ConvCall{
		Plan: plan,
		X:    []float32{1, 2, 3, 4, 5, 6, 7, 8, 9},
		W:    []float32{1, 1, 1, 1},
		Y:    make([]float32, 4),
		Work: make([]float32, plan.WorkspaceLen()),
	}
	kernel.Run(&call, new(kernel.Scratch))
	fmt.Println(call.Y)
	// Output: [12 16 24 28]
}
