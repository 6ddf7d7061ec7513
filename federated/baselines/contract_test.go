package baselines_test

import (
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/baselines"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/nn"
)

func TestContract(t *testing.T) {
	for name, shared := range map[string]func(nn.Param) bool{
		"fedbn": baselines.AllButBatchNorm, "lg-fedavg": baselines.LastLayer, "local": baselines.Nothing,
	} {
		t.Run(name, func(t *testing.T) {
			fedtest.TestAlgorithm(t, fedtest.Options{New: func(p *federated.Problem) (federated.Algorithm, error) {
				return baselines.NewPartial(p, shared), nil
			}})
		})
	}
	t.Run("centralised", func(t *testing.T) {
		fedtest.TestAlgorithm(t, fedtest.Options{Server: true, New: func(p *federated.Problem) (federated.Algorithm, error) {
			return baselines.NewCentralised(p), nil
		}})
	})
}
