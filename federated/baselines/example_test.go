package baselines_test

import (
	"fmt"

	"github.com/cohort-learning/cohort/federated/baselines"
	"github.com/cohort-learning/cohort/nn"
)

// What FedBN and LG-FedAvg share of a small network.
func Example() {
	build, err := nn.New("mlp", nn.Config{Input: []int{6}, Classes: 3, Hidden: []int{8}, Norm: nn.StaticBatchNorm})
	if err != nil {
		fmt.Println(err)
		return
	}
	m, err := build(1)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, p := range m.Params {
		fmt.Printf("%-14s fedbn %-5t lg-fedavg %t\n", p.Name, baselines.AllButBatchNorm(p), baselines.LastLayer(p))
	}
	// Output:
	// linear1.weight fedbn true  lg-fedavg false
	// linear1.bias   fedbn true  lg-fedavg false
	// norm1.weight   fedbn false lg-fedavg false
	// norm1.bias     fedbn false lg-fedavg false
	// linear.weight  fedbn true  lg-fedavg true
	// linear.bias    fedbn true  lg-fedavg true
}
