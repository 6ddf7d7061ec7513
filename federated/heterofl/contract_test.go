package heterofl_test

import (
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/federated/heterofl"
)

func mode(t testing.TB, s string) heterofl.Mode {
	t.Helper()
	m, err := heterofl.ParseMode(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestContract(t *testing.T) {
	levels := mode(t, "a1-b2-c2")
	for name, c := range map[string]heterofl.Config{
		"heterofl":         {Mode: levels},
		"heterofl dynamic": {Mode: levels, Dynamic: true, Exclusive: true, Unscaled: true},
		"fedrolex":         {Mode: levels, Dynamic: true, Scheme: heterofl.Rolling},
		"random":           {Mode: levels, Scheme: heterofl.Random, Unmasked: true},
		"fjord":            {Mode: levels, Scheme: heterofl.Ordered},
	} {
		t.Run(name, func(t *testing.T) {
			fedtest.TestAlgorithm(t, fedtest.Options{New: func(p *federated.Problem) (federated.Algorithm, error) {
				return heterofl.New(p, c)
			}})
		})
	}
}
