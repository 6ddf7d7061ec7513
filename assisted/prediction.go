package assisted

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/weights"
	"gonum.org/v1/gonum/mat"
)

// tableScalar is the number, beside an answer, of the version of its table that an organisation on a network answers from.
const tableScalar = "table"

// Scalars are the numbers that organisations tell beside their answers, training and predicting.
func Scalars() []string { return append([]string{"rows", "rows.fit", tableScalar}, LinkScalars()...) }

// Prediction asks organisations for their parts of an ensemble, for any entities by key: one round of one phase, in which each
// answers with the weighted sum of its models, n×K values. An organisation that does not answer, or lacks an entity, is stood for by its
// training mean, and the prediction is marked as degraded; weights are not redistributed.
//
// It is an algorithm, so that the same driver runs it wherever the ensemble was learned. The seed and the scope must be those
// of that run. The outcome is the set "F" of the last state, n×K.
type Prediction struct {
	Ensemble Ensemble
	Keys     []string
	Strata   []int // of the entities, where the ensemble has strata: [Strata.Of] what the sponsor knows of them
	Desks    federated.Client
}

// Check implements [federated.Algorithm].
func (p *Prediction) Check(federated.Server) error {
	switch {
	case len(p.Keys) == 0:
		return errors.New("no entity to predict for")
	case len(p.Ensemble.Start) == 0:
		return errors.New("the ensemble is empty: nothing was learned")
	case (p.Ensemble.Strata == nil) != (p.Strata == nil) || p.Strata != nil && len(p.Strata) != len(p.Keys):
		return fmt.Errorf("%d entities, and the strata of %d: of each entity that an ensemble with strata predicts for it has to be known, and of no other", len(p.Keys), len(p.Strata))
	case p.Strata != nil && (slices.Min(p.Strata) < 0 || slices.Max(p.Strata) >= p.Ensemble.Strata.Count):
		return fmt.Errorf("strata of entities from %d to %d: the ensemble has %d, from 0", slices.Min(p.Strata), slices.Max(p.Strata), p.Ensemble.Strata.Count)
	}
	if _, err := ReadKeys(AppendKeys(nil, p.Keys)); err != nil {
		return fmt.Errorf("entities to predict for: %w", err)
	}
	return nil
}

// Init implements [federated.Algorithm].
func (p *Prediction) Init(context.Context, federated.Server) (federated.State, error) {
	f := p.Ensemble.above(Constant(len(p.Keys), p.Ensemble.Start))
	return federated.State{Sets: map[string]weights.Set{"F": setOf("F", f)}}, nil
}

// Next implements [federated.Algorithm].
func (p *Prediction) Next(s federated.State) (federated.Phase, bool) {
	return federated.Phase{Name: Tells, Gather: true, Always: true, Collect: []string{tableScalar}, Who: federated.Selection{Everyone: true,
		Eligible: func(m federated.Member) bool { return len(p.Ensemble.Voice(m.Name).Terms) > 0 }}}, s.Step == 0
}

// Task implements [federated.Algorithm].
func (p *Prediction) Task(_ federated.State, _ federated.Phase, m federated.Member) (federated.Task, error) {
	keys, voice := AppendKeys(nil, p.Keys), p.Ensemble.Voice(m.Name)
	t, err := voice.ask(digestOf(keys)).task(nil, keys)
	if voice.stratified() {
		t = stratified(t, p.Strata)
	}
	return t, err
}

// Finish implements [federated.Algorithm].
func (p *Prediction) Finish(_ context.Context, srv federated.Server, s federated.State, _ federated.Phase, _ map[string]*federated.Sum, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	var d federated.Diagnostics
	d.Notes = Lost(roll, "does not answer")
	for i, member := range roll.Each.Members {
		if v := roll.Each.Values[tableScalar][i]; v > 0 {
			d.Add(tableScalar, srv.Population.Member(int(member)).Name, v)
		}
	}
	parts := map[string]*mat.Dense{}
	for _, g := range roll.Gathered {
		name := srv.Population.Member(g.Member).Name
		v, err := ReadMatrix(g.Attached)
		if err == nil {
			if rows, columns := v.Dims(); rows != len(p.Keys) || columns != len(p.Ensemble.Start) {
				err = fmt.Errorf("%d×%d values, where %d×%d were asked for", rows, columns, len(p.Keys), len(p.Ensemble.Start))
			} else {
				err = readable(v)
			}
		}
		if err != nil {
			d.Notes = append(d.Notes, fmt.Sprintf("%s is stood for by its mean: its answer is %v", name, err))
			continue
		}
		parts[name] = v
	}
	f, degraded := p.Ensemble.Combine(len(p.Keys), parts, p.Strata)
	for _, v := range p.Ensemble.sorted() {
		if n := degraded[v.Name]; n > 0 {
			d.Add("degraded", v.Name, float64(n))
			d.Notes = append(d.Notes, fmt.Sprintf("%s did not answer for %d of %d entities: its training mean stands for it", v.Name, n, len(p.Keys)))
		}
	}
	s.Version++
	return WithMatrix(s, "F", f), d, nil
}

// Client implements [federated.Algorithm].
func (p *Prediction) Client() federated.Client { return p.Desks }

// readable returns an error unless every row is finite, or NaN throughout.
func readable(v *mat.Dense) error {
	rows, _ := v.Dims()
	for i := range rows {
		if err := checkRow(v.RawRowView(i)); err != nil {
			return fmt.Errorf("%w in row %d", err, i)
		}
	}
	return nil
}

var _ federated.Algorithm = (*Prediction)(nil)
