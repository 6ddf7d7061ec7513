package semifl

import (
	"cmp"
	"context"
	"fmt"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/heterofl"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// Statistics of static batch norm, as in HeteroFL (arXiv 2010.01264, section 3): one pass in training mode over data as they are,
// in order; the mean over all batches of all parties, each counting 1, of the batch's mean and unbiased variance. They are sums over
// members, and the server adds those of its own data.

// statistics is a phase that collects them: of everybody, or of the server's data alone.
func (a *Algorithm) statistics(name string) federated.Phase {
	p := federated.Phase{Name: name}
	if a.Measuring.Pooled {
		return p
	}
	p.Who, p.Barrier, p.Always = federated.Selection{Everyone: true}, true, true
	p.Folds = []federated.Fold{{Name: "stats", Like: a.statLike(), Indexed: a.Mode != nil}}
	return p
}

// statLike has the names and shapes of the global model's statistics.
func (a *Algorithm) statLike() weights.Set {
	s := weights.NewSet(2 * len(a.global.Norms))
	for i, name := range a.global.StatNames() {
		s.Put(name, weights.NewTensor(weights.Float64, a.global.Norms[i/2].Dim.At(a.Rate)))
	}
	return s
}

// statIndex is the part of them that a level has.
func (a *Algorithm) statIndex(rate float64) weights.Index {
	ix := weights.Index{}
	for i, name := range a.global.StatNames() {
		d := a.global.Norms[i/2].Dim
		ix[name] = []weights.Axis{nn.Leading(d, d.At(a.Rate), d.At(rate))}
	}
	return ix
}

// statsOf names the set of the state that holds a level's statistics; the global level's are "stats".
func statsOf(level string, m heterofl.Mode) string {
	if level == "" || m != nil && level == m.Global().Name {
		return "stats"
	}
	return "stats." + level
}

// sumStatistics goes once over data.
func (a *Algorithm) sumStatistics(ctx context.Context, e *train.Engine, rate float64, w weights.Set, v dataset.View, skew dataset.Skew) (train.Statistics, error) {
	if n := a.StatSamples; n > 0 && v.Len() > n {
		v.Rows = v.Rows[:n]
	}
	if v.Len() == 0 {
		return train.Statistics{}, nil
	}
	spec, err := a.Spec("label", rate, nil)
	if err != nil {
		return train.Statistics{}, err
	}
	return e.Statistics(ctx, spec, w, v, train.Pass{Batch: cmp.Or(a.StatBatch, 250), Augment: dataset.Augment{Skew: skew}, SkipSmall: true})
}

// measure answers a phase of statistics.
func (c client) measure(ctx context.Context, at federated.Local, t federated.Task, l task) (federated.Result, error) {
	s, err := c.sumStatistics(ctx, at.Engine, l.Rate, t.Sets["w"], at.Train, at.Skew)
	if err != nil {
		return federated.Result{}, err
	}
	if s.Batches == 0 {
		return federated.Result{Status: federated.Abstained}, nil
	}
	return federated.Result{Addends: map[string]weights.Set{"stats": s.Sum}, Scalars: map[string]float64{"batches": float64(s.Batches)}}, nil
}

// gather adds the server's statistics to the members' and divides, for every level.
func (a *Algorithm) gather(ctx context.Context, srv federated.Server, s federated.State, sums map[string]*federated.Sum) (federated.State, federated.Diagnostics, error) {
	var d federated.Diagnostics
	levels := a.Mode
	if levels == nil {
		levels = heterofl.Mode{{Rate: a.Rate}}
	}
	for _, l := range levels {
		own, err := a.sumStatistics(ctx, srv.Engine, l.Rate, a.slice(s.Sets["w"], l.Rate), srv.Train, dataset.Skew{})
		if err != nil {
			return s, d, fmt.Errorf("statistics of the server's data: %w", err)
		}
		total, batches := weights.NewAcc(a.statLike(), false), float64(own.Batches)
		if sum := sums[l.Name]; sum != nil && sum.N > 0 {
			total, batches = sum.Total["stats"], batches+sum.Scalars["batches"]
		}
		var at weights.Index
		if a.Mode != nil {
			at = a.statIndex(l.Rate)
		}
		if own.Batches > 0 {
			total.MustAdd(own.Sum, at, nil, 1)
		}
		if batches == 0 {
			continue
		}
		mean := total.Over(batches, weights.Float64)
		if l.Rate != a.Rate {
			mean = at.Slice(mean)
		}
		s = s.With(statsOf(l.Name, a.Mode), mean)
	}
	return s, d, nil
}
