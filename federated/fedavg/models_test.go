package fedavg_test

import (
	"testing"

	"github.com/cohort-learning/cohort/nn"
)

func linear(t *testing.T) nn.Builder {
	return model(t, "linear", nn.Config{Input: []int{6}, Classes: 3})
}

func batchNorm(t *testing.T) nn.Builder {
	return model(t, "mlp", nn.Config{Input: []int{6}, Classes: 3, Hidden: []int{8}, Norm: nn.BatchNorm})
}

func model(t *testing.T, name string, c nn.Config) nn.Builder {
	t.Helper()
	b, err := nn.New(name, c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
