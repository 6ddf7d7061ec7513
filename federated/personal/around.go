package personal

import (
	"context"
	"errors"
	"fmt"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedavg"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// around is a method whose server is that of federated averaging. What FedAvg offers beside, such as trainers that members bring
// along, is not offered.
type around struct {
	federated.Algorithm // = avg
	avg                 *fedavg.Algorithm
}

func newAround(p *federated.Problem) around {
	avg := fedavg.New(p)
	return around{avg, avg}
}

// Average returns the server's side, whose weighting and rule may be changed before the run.
func (a *around) Average() *fedavg.Algorithm { return a.avg }

// OwnModel implements [federated.Owner].
func (a *around) OwnModel(ctx context.Context, at federated.Local, s federated.State, keep *weights.Set) (federated.Own, error) {
	return a.avg.OwnModel(ctx, at, s, keep)
}

// Finish implements [federated.Algorithm].
func (a *around) Finish(ctx context.Context, srv federated.Server, s federated.State, p federated.Phase, sums map[string]*federated.Sum, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	s, d, err := a.Algorithm.Finish(ctx, srv, s, p, sums, roll)
	if p.Name == "train" {
		d.Begun(sums[""])
	}
	return s, d, err
}

// own is the personal model of methods that keep it whole: the memory, or before there is one the model that was sent.
func own(_ context.Context, _ federated.Local, t federated.Task, keep *weights.Set) (federated.Own, error) {
	return federated.Own{Weights: started(keep, t)}, nil
}

// started is where a member's own model starts in a round.
func started(keep *weights.Set, t federated.Task) weights.Set {
	if keep != nil {
		return *keep
	}
	return t.Sets["w"]
}

// fit trains w and returns what came of it.
func fit(ctx context.Context, e *train.Engine, spec *train.Spec, o train.Options, w weights.Set, f train.Fit) (weights.Set, train.Report, error) {
	s, err := e.Begin(spec, w, o)
	if err != nil {
		return w, train.Report{}, err
	}
	defer s.Close()
	report, err := s.Fit(ctx, f)
	if err != nil {
		return w, report, err
	}
	w, err = s.Params()
	return w, report, err
}

// plain returns an error unless members take plain steps: method's update is a formula of gradients.
func (a *around) plain(method string) error {
	if o := a.avg.Training.Optimizer; o != nil {
		if sgd, ok := o.(train.SGD); !ok || sgd.Momentum != 0 {
			return fmt.Errorf("%s: its steps are those of plain SGD; use optimizer sgd with momentum 0", method)
		}
	}
	return nil
}

// unbuffered returns an error if the model has running statistics, which only training steps move.
func (a *around) unbuffered(method string) error {
	m, err := a.avg.Build(a.avg.Rate)
	if err != nil {
		return err
	}
	for _, p := range m.Params {
		if p.Role == nn.Buffer {
			return fmt.Errorf("%s: it is made of gradients, which do not move the running statistics %s of batch norm; choose another norm: sbn, gn, ln, in or none",
				method, p.Name)
		}
	}
	return nil
}

// Work is how long and how fast a member works on its own model in a round. The zero value is as on the global one.
type Work struct {
	Epochs, Steps int     // passes over its data, or steps; both 0: as on the global model
	Rate          float64 // 0: that of the round
}

// Validate returns an error that says which field cannot be.
func (w Work) Validate() error {
	switch {
	case w.Epochs < 0 || w.Steps < 0:
		return fmt.Errorf("%d epochs or %d steps on the own model: neither may be negative", w.Epochs, w.Steps)
	case w.Epochs > 0 && w.Steps > 0:
		return fmt.Errorf("%d epochs and %d steps on the own model: give one of them", w.Epochs, w.Steps)
	case !(w.Rate >= 0):
		return fmt.Errorf("learning rate %g of the own model: need 0, that of the round, or more", w.Rate)
	}
	return nil
}

// fit is the work as a pass over the member's data, in the same order of batches as the one on the global model.
func (w Work) fit(p *federated.Problem, at federated.Local, round int) train.Fit {
	f := p.Fit(at, round)
	if w.Epochs > 0 || w.Steps > 0 {
		f.Epochs, f.Steps = w.Epochs, w.Steps
	}
	if w.Rate > 0 {
		f.Rate = train.Constant(w.Rate)
	}
	return f
}

// errNoBatch says that a member has no batch that is large enough for the model.
var errNoBatch = errors.New("no batch is large enough for the model's batch norm")

// hand deals batches for methods that look at several in one step, and says how gradients are taken on them.
type hand struct {
	*train.Batches
	fit    train.Fit
	least  int  // examples of a batch
	random bool // gradients draw: dropout, augmentation, hidden tokens
	dealt  int
}

// deal returns a hand of a member's batches in a round.
func deal(spec *train.Spec, f train.Fit) *hand {
	return &hand{Batches: train.NewBatches(f.Data, f.Batch, f.Random), fit: f, least: max(1, spec.Model.MinBatch), random: draws(spec, f)}
}

// draws reports whether a step on a batch draws anything. Where it does not, a batch by itself needs no stream, and keeps its order.
func draws(spec *train.Spec, f train.Fit) bool {
	return f.Augment.Random() || len(spec.Model.Noise) > 0 || spec.Hide.Prob > 0
}

// steps returns how many steps the member makes in the round.
func (h *hand) steps() int {
	if h.fit.Epochs == 0 {
		return h.fit.Steps
	}
	n := h.Steps(h.fit.Epochs)
	if h.fit.Steps > 0 {
		n = min(n, h.fit.Steps)
	}
	return n
}

// next returns the next batch by itself, as a pass that takes it at once and draws what no other batch does.
func (h *hand) next() (train.Fit, error) {
	f := h.fit
	f.Epochs, f.Steps, f.Batch, f.Random = 1, 0, 0, nil
	for range h.Steps(1) + 1 {
		f.Data = h.Next()
		f.Data.Rows = append([]int32(nil), f.Data.Rows...)
		h.dealt++
		if f.Data.Len() < h.least && f.SkipSmall {
			continue
		}
		if h.random {
			f.Random = h.fit.Random.Fork(fmt.Sprint("batch ", h.dealt))
		}
		return f, nil
	}
	return f, errNoBatch
}

// gradient returns the loss of a batch and its gradient at a session's weights.
func gradient(ctx context.Context, s *train.Session, b train.Fit) (float64, weights.Set, error) {
	return s.Gradient(ctx, b.Data, train.Pass{Augment: b.Augment, Random: b.Random})
}
