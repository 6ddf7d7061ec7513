package semifl

import (
	"fmt"

	"github.com/cohort-learning/cohort/federated"
)

// collapse is when pseudo-labels are suspected of spoiling themselves: almost all are accepted, and fewer of them are right
// than were before.
const (
	collapseRatio = 0.9
	collapseFall  = 0.1
)

// diagnose tells how training went and what became of pseudo-labels: accuracy of all that the active members made and of the
// accepted ones, as far as labels are known, and the part that was accepted, of the examples of all who answered.
func (a *Algorithm) diagnose(srv federated.Server, s federated.State, sums map[string]*federated.Sum, roll federated.Roll) (federated.Diagnostics, meta, error) {
	var d federated.Diagnostics
	at, err := a.meta(s)
	if err != nil {
		return d, at, err
	}
	all := federated.Sum{Scalars: map[string]float64{}}
	for _, sum := range sums {
		if sum == nil {
			continue
		}
		all.N += sum.N
		for _, name := range append([]string{"train.loss", "train.examples", "train.steps"}, a.Measures()...) {
			all.Scalars[name] += sum.Scalars[name]
		}
	}
	d.Training(&all)
	if a.Loss == Labelled {
		return d, at, nil
	}
	d.Add("pseudo.clients", "", float64(all.N))
	n := all.Scalars
	asked := n[labelled]
	for _, m := range roll.Abstained {
		asked += float64(srv.Population.Member(m).Samples)
	}
	if asked == 0 {
		return d, at, nil
	}
	ratio := n[kept] / asked
	d.Add("pseudo.accepted", "", ratio)
	if n[known] > 0 {
		d.Add("pseudo.accuracy", "", n[right]/n[known])
	}
	if n[keptKnown] > 0 {
		accuracy := n[keptRight] / n[keptKnown]
		d.Add("pseudo.accepted.accuracy", "", accuracy)
		if ratio >= collapseRatio && ratio >= at.Ratio && accuracy < at.Best-collapseFall {
			d.Notes = append(d.Notes, fmt.Sprintf("pseudo-labels may be collapsing: %.0f %% are accepted, and of these %.0f %% are right, where %.0f %% were: raise the threshold, or lower epochs or the learning rate",
				100*ratio, 100*accuracy, 100*at.Best))
		}
		at.Best = max(at.Best, accuracy)
	}
	at.Ratio = ratio
	return d, at, nil
}
