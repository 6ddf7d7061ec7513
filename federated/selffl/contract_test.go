package selffl_test

import (
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/federated/heterofl"
	"github.com/cohort-learning/cohort/federated/private"
	"github.com/cohort-learning/cohort/federated/selffl"
)

func levels(t *testing.T) *heterofl.Config {
	t.Helper()
	mode, err := heterofl.ParseMode("a1-b1", nil)
	if err != nil {
		t.Fatal(err)
	}
	return &heterofl.Config{Mode: mode}
}

func TestContract(t *testing.T) {
	for name, change := range map[string]func(*selffl.Config){
		"keep":   func(*selffl.Config) {},
		"drop":   func(c *selffl.Config) { c.Stale = selffl.Drop },
		"levels": func(c *selffl.Config) { c.Stale, c.Levels = selffl.Drop, levels(t) },
	} {
		t.Run(name, func(t *testing.T) {
			fedtest.TestAlgorithm(t, fedtest.Options{New: func(p *federated.Problem) (federated.Algorithm, error) {
				c := selffl.Recommended()
				change(&c)
				return selffl.New(p, c)
			}})
		})
	}
}

// Under secure sums members weigh themselves, and nothing but sums travels.
func TestContractSecure(t *testing.T) {
	fedtest.TestAlgorithm(t, fedtest.Options{Session: "train.keys",
		Adapt: func(p *federated.Problem) { p.Select = federated.Selection{Everyone: true} },
		New: func(p *federated.Problem) (federated.Algorithm, error) {
			c := selffl.Recommended()
			c.Stale = selffl.Drop
			a, err := selffl.New(p, c)
			return private.NewSecure(a, private.SecureOptions{}), err
		}})
}
