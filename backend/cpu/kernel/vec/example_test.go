package vec_test

import (
	"fmt"

	"github.com/cohort-learning/cohort/backend/cpu/kernel/vec"
)

// Softmax of one row: subtract the maximum, exponentiate and sum in one pass, divide.
func Example() {
	f := vec.For(vec.Portable) // vec.Default() gives the fastest path
	row := []float32{1, 2, 3}
	sum := f.ExpSubSum(row, row, f.MaxOf(row))
	f.DivS(row, row, sum)
	fmt.Printf("%.4f\n", row)
	// Output: [0.0900 0.2447 0.6652]
}
