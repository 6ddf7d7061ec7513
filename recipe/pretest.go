package recipe

import (
	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/al"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/methods"
	"gonum.org/v1/gonum/mat"
)

// What is made of the pre-test.
const (
	PretestTell    = "tell"
	PretestRequire = "require"
)

// Plain is [AssistPlan.Method] without a pre-test, for a company of one.
func (p *AssistPlan) Plain(desks federated.Client) (methods.Assistance, error) {
	return p.plain(p.Sponsor, desks)
}

// Pretest only asks whether assistance is worth while.
func (p *AssistPlan) Pretest(desks federated.Client) (federated.Algorithm, error) {
	m, err := p.plain(p.Sponsor, desks)
	if err != nil {
		return nil, err
	}
	t := p.pretested(m, p.Sponsor, desks)
	t.Only = true
	return t, nil
}

// pretested asks before a method begins; the sponsor's own columns are those of its table here.
func (p *AssistPlan) pretested(m methods.Assistance, s *assisted.Sponsor, desks federated.Client) *al.Pretested {
	at := map[string]int{}
	for i, k := range p.Table.Keys {
		at[k] = i
	}
	_, width := p.Table.Features.Dims()
	own := mat.NewDense(len(p.Sponsor.Keys), width, nil)
	for i, k := range p.Sponsor.Keys {
		own.SetRow(i, p.Table.Features.RawRowView(at[k]))
	}
	return &al.Pretested{Learnt: m, Test: &al.Useful{Table: assisted.Table{Sponsor: s, Desks: desks}, Mixtures: p.Recipe.Mixtures, Own: own}}
}
