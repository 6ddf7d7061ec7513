// Package heterofl is HeteroFL: members of unequal strength train nested slices of one global network
// (Diao, Ding, Tarokh, arXiv 2010.01264).
//
// Every member has a level, a part s of the hidden width: a = 1, b = 1/2, … e = 1/16. The server sends it the leading
// channels of every tensor — depth, inputs and outputs stay whole — the member trains that thin network, and the server
// averages each scalar over the members that trained it:
//
//	W[i] ← (1/|K_i|) Σ_{m∈K_i} W_m[i]    where K_i are the active members whose slice contains i; unchanged if there are none
//
// A few things make thin and wide networks fit together (section 3 of the paper):
//
//   - the Scaler divides activations by ρ = s/s_global in training, so that the wide network needs no correction;
//   - static batch norm trains with batch statistics and collects evaluation statistics afterwards ([federated.Cycle]);
//   - the masked cross-entropy sets the outputs of classes a member does not have to 0, and the rows of such classes in the
//     output layer do not count in the average.
//
// Which channels a member holds is a [Scheme]: HeteroFL's leading ones, FedRolex's rolling window, random ones, or FjORD's
// leading ones with a width that changes at every step. Averages are over members, not over examples.
//
// Where this differs from the papers: sums are exact, where the authors' code adds in float32; the mask token's embedding
// is trained ([Config.Reference]); FedRolex and the random sub-models use HeteroFL's Scaler, mask and static batch norm,
// and all members of a round share FedRolex's window; FjORD draws its widths from the levels of the mode and has no
// self-distillation, and momentum and weight decay act on the whole slice that a member holds, also in steps of a smaller
// width. The exclusion baseline draws its cohort from the members that can carry the global model.
package heterofl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// Config is what HeteroFL adds to a problem.
type Config struct {
	Mode    Mode
	Dynamic bool   // redraw every member's level at the start of every round, instead of fixing it for ever
	Scheme  Scheme // which channels a level holds; empty is Leading
	// Unscaled leaves out the Scaler.
	Unscaled bool
	// Unmasked leaves out the mask of the loss and of local tests for classes that a member does not have. The average
	// leaves their rows out in any case. Exclusive sets their outputs to −∞ instead of the paper's 0.
	Unmasked, Exclusive bool
	// FullOnly lets only members of the global level take part: the exclusion baseline.
	FullOnly bool
	// Reference treats the row of the mask token of a language model as absent from every member's labels, as the authors'
	// code does, so that it keeps its initial value for ever.
	Reference bool
}

// Algorithm is HeteroFL and its relatives.
type Algorithm struct {
	federated.Cycle
	Config
	global *nn.Model
}

// New returns HeteroFL on a problem. It fails if the architecture cannot be built at one of the levels, naming it.
func New(p *federated.Problem, c Config) (*Algorithm, error) {
	if len(c.Mode) == 0 {
		return nil, fmt.Errorf("heterofl: the mode names no level")
	}
	if err := c.Scheme.validate(); err != nil {
		return nil, fmt.Errorf("heterofl: %w", err)
	}
	mask := train.ZeroMask
	switch {
	case c.Unmasked && c.Exclusive:
		return nil, errors.New("heterofl: a loss cannot be both unmasked and exclusive")
	case c.Unmasked:
		mask = train.NoMask
	case c.Exclusive:
		mask = train.InfMask
	}
	a := &Algorithm{Cycle: federated.Cycle{Problem: p, Rate: c.Mode.Global().Rate, Mask: mask}, Config: c}
	for i, l := range c.Mode {
		m, err := p.Build(l.Rate)
		if err != nil {
			return nil, fmt.Errorf("heterofl: level %s: %w", l.Name, err)
		}
		if i == 0 {
			a.global = m
		}
	}
	return a, nil
}

// task tells a member its level.
type task struct {
	Level string  `json:"level"`
	Rate  float64 `json:"rate"`
}

// Check implements [federated.Algorithm].
func (a *Algorithm) Check(srv federated.Server) error {
	if err := a.Cycle.Check(srv); err != nil {
		return err
	}
	if n := srv.Population.Len(); n < a.Mode.shares() && !a.Dynamic {
		return fmt.Errorf("heterofl: mode %s deals %d shares to %d members; use at least %d members or dynamic levels",
			a.Mode, a.Mode.shares(), n, a.Mode.shares())
	}
	return nil
}

// Init implements [federated.Algorithm]. The global model is drawn at its own width.
func (a *Algorithm) Init(_ context.Context, srv federated.Server) (federated.State, error) {
	w, err := a.Initial(srv.Seed, a.Rate)
	if err != nil {
		return federated.State{}, err
	}
	m, err := json.Marshal(meta{srv.Seed, srv.Population.Len()})
	return federated.State{Sets: map[string]weights.Set{"w": w}, Meta: m}, err
}

// meta is what levels and slices are drawn from.
type meta struct {
	Seed    uint64 `json:"seed"`
	Members int    `json:"members"`
}

func (a *Algorithm) meta(s federated.State) (m meta, err error) {
	if err := json.Unmarshal(s.Meta, &m); err != nil {
		return m, fmt.Errorf("state: %w", err)
	}
	return m, nil
}

// level returns a member's level in a round.
func (a *Algorithm) level(at meta, round int, m federated.Member) Level {
	if a.Dynamic {
		return a.Mode[a.Mode.Dynamic(at.Seed, round, m)]
	}
	return a.Mode[a.Mode.Fixed(m.Index, at.Members)]
}

// Next implements [federated.Algorithm].
func (a *Algorithm) Next(s federated.State) (federated.Phase, bool) {
	if s.Step > 0 {
		return a.After(s, s.Step-1)
	}
	who := a.Select
	if a.FullOnly {
		at, err := a.meta(s)
		eligible := who.Eligible
		who.Eligible = func(m federated.Member) bool {
			return err == nil && a.level(at, s.Round, m).Rate == a.Rate && (eligible == nil || eligible(m))
		}
	}
	return federated.Phase{Name: "train", Who: who,
		Folds: []federated.Fold{{Name: "w", Like: s.Sets["w"], Indexed: true, Counts: true}}}, true
}

// Task slices the member's part out of the global weights.
func (a *Algorithm) Task(s federated.State, p federated.Phase, m federated.Member) (federated.Task, error) {
	if p.Name != "train" {
		return a.Cycle.Task(s, p, m)
	}
	at, err := a.meta(s)
	if err != nil {
		return federated.Task{}, err
	}
	l := a.level(at, s.Round, m)
	params, err := json.Marshal(task{l.Name, l.Rate})
	if err != nil {
		return federated.Task{}, err
	}
	ix := nn.Index(a.global, l.Rate, a.Scheme.pick(at.Seed, s.Round, m.Name))
	w := s.Sets["w"]
	if l.Rate != a.Rate {
		w = ix.Slice(w)
	}
	return federated.Task{Tag: l.Name, Sets: map[string]weights.Set{"w": w}, Index: ix, Params: params}, nil
}

// Client implements [federated.Algorithm].
func (a *Algorithm) Client() federated.Client { return client{a} }

// Finish implements [federated.Algorithm].
func (a *Algorithm) Finish(ctx context.Context, srv federated.Server, s federated.State, p federated.Phase, sums map[string]*federated.Sum, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	if p.Name != "train" {
		return a.Cycle.Finish(ctx, srv, s, p, sums, roll)
	}
	sum := sums[""]
	var d federated.Diagnostics
	d.Training(sum)
	a.coverage(&d, sum)
	s = s.With("w", sum.Total["w"].AddMean(s.Sets["w"]))
	s.Version++
	return s, d, nil
}

// Size is what one level costs.
type Size struct {
	Level string
	Rate  float64
	Cost  nn.Cost
}

// Sizes returns the cost of every level, in the order of the mode.
func (a *Algorithm) Sizes() ([]Size, error) {
	var out []Size
	for _, l := range a.Mode {
		m, err := a.Build(l.Rate)
		if err != nil {
			return nil, err
		}
		out = append(out, Size{l.Name, l.Rate, m.Cost()})
	}
	return out, nil
}

// String returns, for example, "heterofl a1-e1 dynamic".
func (a *Algorithm) String() string {
	words := []string{"heterofl", a.Mode.String()}
	if a.Dynamic {
		words = append(words, "dynamic")
	}
	return strings.Join(words, " ")
}
