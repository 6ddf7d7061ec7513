package personal

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/baselines"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// Split is a shared body φ under a head h_k of every member's own, by default the last dense layer:
//
//   - FedPer (Arivazhagan et al., arXiv 1912.00818) trains both together and sends φ.
//   - FedRep (Collins et al., arXiv 2102.07078, algorithm 1) freezes φ and trains h_k for some epochs, then freezes h_k and trains φ
//     for some, each with an optimiser of its own; φ is sent.
//
// φ is averaged as in FedAvg. All heads begin alike, with initial weights that members draw from the run's seed, and are their
// members' from then on. There is no global model. A member that has not trained yet is tested with a head that it trains, for
// as many epochs as FedRep would in a round, on the φ that it is sent.
type Split struct {
	*baselines.Partial
	Alternate  bool     // FedRep
	HeadEpochs int      // on h_k in a round: FedRep, and new members
	BodyEpochs int      // FedRep: on φ in a round; 0: as the problem says
	Final      int      // further epochs on h_k before the last test, which the authors of FedRep allow
	Heads      []string // parameters of the head; nil: those of the last dense layer
}

// NewFedPer returns FedPer on a problem.
func NewFedPer(p *federated.Problem) *Split { return newSplit(p, false) }

// NewFedRep returns FedRep on a problem.
func NewFedRep(p *federated.Problem) *Split { return newSplit(p, true) }

func newSplit(p *federated.Problem, alternate bool) *Split {
	a := &Split{Alternate: alternate, HeadEpochs: 10}
	a.Partial = baselines.NewPartial(p, func(q nn.Param) bool { return !a.head(q) })
	a.Step, a.Train = a.groups, a.train
	a.Personal = a.used
	return a
}

// head reports whether a parameter is the member's own.
func (a *Split) head(p nn.Param) bool {
	if a.Heads == nil {
		return p.Head
	}
	return slices.Contains(a.Heads, p.Name)
}

// Check implements [federated.Algorithm].
func (a *Split) Check(srv federated.Server) error {
	if err := a.Partial.Check(srv); err != nil {
		return err
	}
	if a.HeadEpochs < 0 || a.BodyEpochs < 0 || a.Final < 0 {
		return fmt.Errorf("epochs on the head %d, on the body %d, at the end %d: none may be negative", a.HeadEpochs, a.BodyEpochs, a.Final)
	}
	m, err := a.Build(a.Rate)
	if err != nil {
		return err
	}
	for _, name := range a.Heads {
		if _, ok := m.Param(name); !ok {
			return fmt.Errorf("head: %s has no parameter %q; it has %v", m.Name, name, m.Zeros(a.DType).Names())
		}
	}
	if a.count(m, false) == 0 {
		return errors.New("head: it is the whole model, so that nothing is shared; leave it out for the last layer")
	}
	return nil
}

// count counts the trained parameters of the head, or of the body.
func (a *Split) count(m *nn.Model, head bool) (n int) {
	for _, p := range m.Params {
		if p.Trained() && a.head(p) == head {
			n++
		}
	}
	return n
}

const headGroup, bodyGroup = "head", "body"

// groups returns the training step with head and body apart, or whole where there is no head.
func (a *Split) groups() (*train.Spec, error) {
	return a.Spec("split", a.Rate, func(s *train.Spec) {
		if a.count(s.Model, true) == 0 {
			return
		}
		s.Groups = []train.Group{{Name: headGroup, Match: a.head, Optimizer: s.Optimizer}, {Name: bodyGroup, Optimizer: s.Optimizer}}
		s.Optimizer = nil
	})
}

// train is a member's round.
func (a *Split) train(ctx context.Context, at federated.Local, s *train.Session, round int) (train.Report, error) {
	f := a.Fit(at, round)
	m, err := a.Build(a.Rate)
	if err != nil {
		return train.Report{}, err
	}
	headless := a.count(m, true) == 0
	if !a.Alternate || headless {
		if a.BodyEpochs > 0 && a.Alternate {
			f.Epochs, f.Steps = a.BodyEpochs, 0
		}
		return s.Fit(ctx, f)
	}
	head, err := a.fitHead(ctx, at, s, round, a.HeadEpochs, "head")
	if err != nil {
		return head, err
	}
	f.Group = bodyGroup
	if a.BodyEpochs > 0 {
		f.Epochs, f.Steps = a.BodyEpochs, 0
	}
	body, err := s.Fit(ctx, f)
	return joined(head, body), err
}

// fitHead trains the head on the frozen body.
func (a *Split) fitHead(ctx context.Context, at federated.Local, s *train.Session, round, epochs int, purpose string) (train.Report, error) {
	if epochs == 0 {
		return train.Report{}, nil
	}
	f := a.Fit(at, round)
	f.Group, f.Epochs, f.Steps, f.Random = headGroup, epochs, 0, at.Rand(round, purpose)
	return s.Fit(ctx, f)
}

// joined is what two fits did one after the other.
func joined(a, b train.Report) train.Report {
	n := a.Examples + b.Examples
	if n > 0 {
		b.Loss = (a.Loss*float64(a.Examples) + b.Loss*float64(b.Examples)) / float64(n)
	}
	b.Examples, b.Steps, b.Skipped = n, b.Steps+a.Steps, b.Skipped+a.Skipped
	return b
}

// used is the personal model.
func (a *Split) used(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Own, error) {
	w, err := a.Mixture(at, t.Sets, keep)
	if err != nil {
		return federated.Own{}, err
	}
	epochs := 0
	if keep == nil {
		epochs = a.HeadEpochs
	}
	if t.Round+1 == a.Rounds {
		epochs += a.Final
	}
	spec, err := a.groups()
	if err != nil || epochs == 0 || spec.Groups == nil || at.Train.Len() == 0 {
		return federated.Own{Weights: w}, err
	}
	s, err := at.Engine.Begin(spec, w, train.Options{})
	if err != nil {
		return federated.Own{}, err
	}
	defer s.Close()
	if _, err := a.fitHead(ctx, at, s, t.Round, epochs, "personal"); err != nil {
		return federated.Own{}, fmt.Errorf("training the member's head: %w", err)
	}
	w, err = s.Params()
	return federated.Own{Weights: w}, err
}
