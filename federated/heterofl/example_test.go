package heterofl_test

import (
	"fmt"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/heterofl"
	"github.com/cohort-learning/cohort/nn"
)

// What the five levels of the paper cost with its network for MNIST.
func Example() {
	mode, err := heterofl.ParseMode("a1-b1-c1-d1-e1", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	build, err := nn.New("cnn", nn.Config{Input: []int{28, 28, 1}, Classes: 10})
	if err != nil {
		fmt.Println(err)
		return
	}
	a, err := heterofl.New(&federated.Problem{Build: build}, heterofl.Config{Mode: mode, Dynamic: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	sizes, err := a.Sizes()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(a)
	for _, s := range sizes {
		fmt.Printf("%s: 1/%v of the width, %7d parameters, %8d multiply-adds an image\n", s.Level, 1/s.Rate, s.Cost.Params, s.Cost.MACs)
	}
	// Output:
	// heterofl a1-b1-c1-d1-e1 dynamic
	// a: 1/1 of the width, 1556874 parameters, 39974912 multiply-adds an image
	// b: 1/2 of the width,  391370 parameters, 10107904 multiply-adds an image
	// c: 1/4 of the width,   98922 parameters,  2584064 multiply-adds an image
	// d: 1/8 of the width,   25274 parameters,   674560 multiply-adds an image
	// e: 1/16 of the width,    6594 parameters,   182912 multiply-adds an image
}
