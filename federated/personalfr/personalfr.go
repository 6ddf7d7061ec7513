package personalfr

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/recommend"
	"github.com/cohort-learning/cohort/weights"
)

// The phases of a round: members that have not yet done so tell their items, some train, all test.
const (
	askItems = "items"
	trains   = "train"
)

// keptItems begins the names under which the state keeps members' items.
const keptItems = "items/"

// Algorithm is PersonalFR and its relatives.
type Algorithm struct {
	*federated.Problem
	Options

	mu    sync.Mutex
	model *nn.Model // at rate 1
	net   *network
	first map[uint64]weights.Set // initial weights by seed
}

// New returns PersonalFR on a problem.
func New(p *federated.Problem, o Options) (*Algorithm, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &Algorithm{Problem: p, Options: o, first: map[uint64]weights.Set{}}, nil
}

// network returns the model and its layout.
func (a *Algorithm) network() (*nn.Model, *network, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.net != nil {
		return a.model, a.net, nil
	}
	m, err := a.Build(1)
	if err != nil {
		return nil, nil, err
	}
	n, err := networkOf(m)
	if err != nil {
		return nil, nil, err
	}
	a.model, a.net = m, n
	return m, n, nil
}

// initial returns the weights of round 0, the same at the server and at every member.
func (a *Algorithm) initial(seed uint64) (weights.Set, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w, ok := a.first[seed]; ok {
		return w, nil
	}
	w, err := a.Initial(seed, 1)
	if err != nil {
		return w, err
	}
	if a.Start == nil && a.Bias != 0 {
		if m, err := a.Build(1); err == nil {
			for _, p := range m.Params {
				if p.Head && p.Role == nn.Bias {
					x := w.Must(p.Name)
					for i := range x.F32 {
						x.F32[i] = float32(a.Bias)
					}
				}
			}
		}
	}
	a.first[seed] = w
	return w, nil
}

// shares reports whether a tensor is averaged by the server.
func (a *Algorithm) shares(name string) bool {
	part := strings.HasPrefix(name, encoder)
	switch a.Share {
	case "all":
		return true
	case "encoder":
		return part
	case "decoder":
		return !part
	}
	return false
}

// Keeps reports whether members keep a part of the model that they use.
func (a *Algorithm) Keeps() bool { return a.Share != "all" }

// active reports whether members send just their own items.
func (a *Algorithm) active() bool { return a.Compression == "active" && a.Share != "nothing" }

// Check implements [federated.Algorithm].
func (a *Algorithm) Check(srv federated.Server) error {
	if err := a.Validate(); err != nil {
		return err
	}
	if _, _, err := a.network(); err != nil {
		return err
	}
	if a.DType != weights.Float32 {
		return errors.New("sparse rows are computed in float32")
	}
	_, err := optimizerOf(a.Problem.Training.Optimizer)
	return err
}

// Validate reports the first setting that cannot work.
func (a *Algorithm) Validate() error {
	if err := a.Options.Validate(); err != nil {
		return err
	}
	return a.Problem.Validate()
}

// meta is what the state remembers beside weights.
type meta struct {
	Asked int  `json:"asked"` // the last round in which members were asked for their items
	Again bool `json:"again"` // whether there are members that have not told theirs
}

func metaOf(s federated.State) (m meta, err error) {
	if err := json.Unmarshal(s.Meta, &m); err != nil {
		return m, fmt.Errorf("state: %w", err)
	}
	return m, nil
}

// Init implements [federated.Algorithm].
func (a *Algorithm) Init(_ context.Context, srv federated.Server) (federated.State, error) {
	w, err := a.initial(srv.Seed)
	if err != nil {
		return federated.State{}, err
	}
	m, err := json.Marshal(meta{Asked: -1, Again: a.active()})
	return federated.State{Sets: map[string]weights.Set{"w": w.Filter(a.shares)}, Meta: m}, err
}

// Next implements [federated.Algorithm].
func (a *Algorithm) Next(s federated.State) (federated.Phase, bool) {
	m, err := metaOf(s)
	if err != nil {
		panic("personalfr: " + err.Error()) // it was written here
	}
	step := s.Step
	if m.Asked == s.Round || m.Again && step == 0 {
		if step == 0 {
			return a.askPhase(s), true
		}
		step--
	}
	switch {
	case step == 0:
		who := a.Select
		if a.active() {
			who.Eligible = and(who.Eligible, func(m federated.Member) bool { return known(s, m) })
		}
		return federated.Phase{Name: trains, Who: who, Folds: []federated.Fold{{Name: "w", Like: s.Sets["w"],
			Indexed: a.active() || a.Count, Counts: a.Count}}}, true
	case step == 1 && a.Due(s.Round) && a.Measuring.Members:
		return a.tasting().Phase(), true
	}
	return federated.Phase{}, false
}

// askPhase asks those who have not told their items, and waits for them as for a measurement. Whoever fails is asked again in the
// next round.
func (a *Algorithm) askPhase(s federated.State) federated.Phase {
	return federated.Phase{Name: askItems, Gather: true, Always: true, Barrier: true, Who: federated.Selection{Everyone: true,
		Eligible: and(a.Select.Eligible, func(m federated.Member) bool { return m.Samples > 0 && !known(s, m) })}}
}

func and(f, g func(federated.Member) bool) func(federated.Member) bool {
	if f == nil {
		return g
	}
	return func(m federated.Member) bool { return f(m) && g(m) }
}

func known(s federated.State, m federated.Member) bool { return len(s.Attached[keptItems+m.Name]) > 0 }

// Task implements [federated.Algorithm].
func (a *Algorithm) Task(s federated.State, p federated.Phase, m federated.Member) (federated.Task, error) {
	switch {
	case p.Name == askItems:
		return federated.Task{}, nil
	case federated.Tastes(p.Name) || !a.active():
		return federated.Task{Sets: map[string]weights.Set{"w": s.Sets["w"]}}, nil
	}
	_, n, err := a.network()
	if err != nil {
		return federated.Task{}, err
	}
	items, err := unpackItems(s.Attached[keptItems+m.Name], n.items)
	if err != nil {
		return federated.Task{}, fmt.Errorf("items of %s: %w", m.Name, err)
	}
	ix := a.index(n, s.Sets["w"], items)
	return federated.Task{Sets: map[string]weights.Set{"w": ix.Slice(s.Sets["w"])}, Index: ix}, nil
}

// index says which coordinates of the shared tensors belong to some items, or to none in particular.
func (a *Algorithm) index(n *network, shared weights.Set, items []int32) weights.Index {
	ix := make(weights.Index, shared.Len())
	for name, t := range shared.All() {
		axes := make([]weights.Axis, len(t.Shape))
		switch name {
		case input:
			axes[1] = weights.List(items)
		case n.weightName(), n.biasName():
			axes[0] = weights.List(items)
		}
		ix[name] = axes
	}
	return ix
}

// Rows says which tensors have a row for each item: secure sums leave out rows that too few members have.
func (a *Algorithm) Rows(p federated.Phase) (tensors []string, rows int) {
	_, n, err := a.network()
	if err != nil || p.Name != trains || a.Share != "decoder" || a.active() {
		return nil, 0
	}
	return []string{n.weightName(), n.biasName()}, n.items
}

// Covers returns what the result of a training task will cover.
func (a *Algorithm) Covers(at federated.Local, t federated.Task) (weights.Index, error) {
	_, n, err := a.network()
	if err != nil {
		return nil, err
	}
	w, err := a.initial(at.Seed)
	if err != nil {
		return nil, err
	}
	return a.index(n, w.Filter(a.shares), recommend.Of(at.Train).Rated()), nil
}

// Summable returns why the results of the method must not be summed securely, or nil.
func (a *Algorithm) Summable() error {
	switch {
	case a.Share != "decoder":
		return fmt.Errorf("members share %s, whose columns of items that few members have could not be left out of the sum; set options.share to decoder", a.Share)
	case a.active():
		return errors.New("partial compression tells the server which items members have, which a secure sum is there to hide; set options.compression to compute, which sends all rows")
	}
	return nil
}

// Unruled returns why the method does not go with a robust rule, or nil.
func (a *Algorithm) Unruled(rule federated.Rule) error {
	return federated.SparseRule(rule)
}

// Client implements [federated.Algorithm].
func (a *Algorithm) Client() federated.Client { return client{a} }

// Finish implements [federated.Algorithm].
func (a *Algorithm) Finish(_ context.Context, srv federated.Server, s federated.State, p federated.Phase, sums map[string]*federated.Sum, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	switch {
	case p.Name == askItems:
		return a.learnItems(srv, s, roll)
	case federated.Tastes(p.Name):
		var d federated.Diagnostics
		a.tasting().Report(&d, sums[""])
		return s, d, nil
	case p.Name == trains:
		return a.average(srv, s, sums[""], roll)
	}
	return s, federated.Diagnostics{}, fmt.Errorf("phase %q is unknown", p.Name)
}

func (a *Algorithm) implicit() bool { return a.Feedback == "implicit" }

// Told returns the state in which a member's items are known, as after it was asked.
func (a *Algorithm) Told(s federated.State, at federated.Local) (federated.State, error) {
	_, n, err := a.network()
	if err != nil || !a.active() || at.Train.Len() == 0 {
		return s, err
	}
	if s.Meta, err = json.Marshal(meta{Asked: -1}); err != nil {
		return s, err
	}
	return s.Attach(keptItems+at.Member.Name, packItems(recommend.Of(at.Train).Rated(), n.items)), nil
}

// learnItems keeps the items that members have told.
func (a *Algorithm) learnItems(srv federated.Server, s federated.State, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	var d federated.Diagnostics
	_, n, err := a.network()
	if err != nil {
		return s, d, err
	}
	for _, g := range roll.Gathered {
		name := srv.Population.Member(g.Member).Name
		if _, err := unpackItems(g.Attached, n.items); err != nil {
			d.Notes = append(d.Notes, fmt.Sprintf("%s did not tell its items, and does not train until it does: %v", name, err))
			continue
		}
		s = s.Attach(keptItems+name, g.Attached)
	}
	s, err = a.askAgain(srv, s, s.Round)
	return s, d, err
}

// askAgain notes whether members are to be asked for their items.
func (a *Algorithm) askAgain(srv federated.Server, s federated.State, asked int) (federated.State, error) {
	m := meta{Asked: asked}
	for i := 0; a.active() && i < srv.Population.Len() && !m.Again; i++ {
		q := srv.Population.Member(i)
		m.Again = !q.Gone && q.Samples > 0 && !known(s, q) && (a.Select.Eligible == nil || a.Select.Eligible(q))
	}
	b, err := json.Marshal(m)
	s.Meta = b
	return s, err
}

// average is dec ← dec + (1/|A|)·Σ Δ, in which a row that a member did not send is a Δ of 0; with Count it is the mean over those who
// did.
func (a *Algorithm) average(srv federated.Server, s federated.State, sum *federated.Sum, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	var d federated.Diagnostics
	d.Training(sum)
	acc := sum.Total["w"]
	whole := float64(acc.Weight())
	w := acc.Apply(s.Sets["w"], func(base, total, count float64) float64 {
		switch {
		case total == 0:
			return base
		case a.Count:
			return base + total/count
		}
		return base + total/whole
	})
	a.compression(&d, srv, s, roll)
	s = s.With("w", w)
	s.Version++
	m, err := metaOf(s)
	if err != nil {
		return s, d, err
	}
	s, err = a.askAgain(srv, s, m.Asked)
	return s, d, err
}

// compression reports how much less the round moved than FedAvg would have, exactly and as the authors count.
func (a *Algorithm) compression(d *federated.Diagnostics, srv federated.Server, s federated.State, roll federated.Roll) {
	m, n, err := a.network()
	if err != nil || !a.active() || a.Share != "decoder" {
		return
	}
	c, err := CostOf(m)
	if err != nil {
		return
	}
	var items []int
	for _, f := range roll.Folded {
		list, err := unpackItems(s.Attached[keptItems+srv.Population.Member(f.Member).Name], n.items)
		if err == nil {
			items = append(items, len(list))
		}
	}
	if len(items) > 0 {
		d.Add("compression", "", c.Ratio(items))
		d.Add("compression.reference", "", c.ReferenceRatio(items))
	}
}
