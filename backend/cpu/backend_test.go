package cpu_test

import (
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/support/backendtest"

	"github.com/cohort-learning/cohort/backend/cpu"
)

func newBackend(t testing.TB, o cpu.Options) compute.Backend {
	t.Helper()
	b, err := cpu.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Finalize)
	return b
}

func TestConformance(t *testing.T) {
	backendtest.RunAll(t, newBackend(t, cpu.Options{}), nil)
}
