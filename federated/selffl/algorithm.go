package selffl

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/heterofl"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// Algorithm is Self-FL.
type Algorithm struct {
	federated.Cycle
	Config
	model  *nn.Model           // the global one
	blocks []block             // what has variances of its own
	levels *heterofl.Algorithm // nil: everybody trains the whole model
}

// block is a part of the model with one σ_0², v_m, h_m and learning rate.
type block struct {
	measured []string // tensors that variances are measured on
	governed []string // tensors that they are for
}

// New returns Self-FL on a problem.
func New(p *federated.Problem, c Config) (*Algorithm, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	a := &Algorithm{Cycle: federated.Cycle{Problem: p, Rate: 1}, Config: c}
	a.Personal = a.personal
	if c.Levels != nil {
		l, err := heterofl.New(p, *c.Levels)
		if err != nil {
			return nil, fmt.Errorf("mode: %w", err)
		}
		a.levels, a.Rate, a.Mask = l, l.Rate, l.Mask
	}
	var err error
	if a.model, err = p.Build(a.Rate); err != nil {
		return nil, err
	}
	a.blocks = blocksOf(a.model, c.Granularity)
	return a, nil
}

// blocksOf divides the trained tensors of a model: running statistics are in no variance.
func blocksOf(m *nn.Model, granularity string) []block {
	var all, head []string
	for _, p := range m.Params {
		if p.Trained() {
			all = append(all, p.Name)
			if p.Head {
				head = append(head, p.Name)
			}
		}
	}
	switch {
	case granularity == Tensor:
		var out []block
		for _, n := range all {
			out = append(out, block{[]string{n}, []string{n}})
		}
		return out
	case granularity == Head && len(head) > 0:
		return []block{{head, all}}
	}
	return []block{{all, all}}
}

// measured are the tensors that the variances of all blocks are measured on.
func (a *Algorithm) measured() (names []string) {
	for _, b := range a.blocks {
		names = append(names, b.measured...)
	}
	return names
}

// Check implements [federated.Algorithm].
func (a *Algorithm) Check(srv federated.Server) error {
	if err := a.Cycle.Check(srv); err != nil {
		return err
	}
	if a.levels != nil {
		if err := a.levels.Check(srv); err != nil {
			return err
		}
	}
	switch o := a.Training.Optimizer.(type) {
	case nil, train.SGD:
	default:
		if a.Within == Calibrated {
			return fmt.Errorf("selffl: uq trajectory-calibrated knows how SGD moves, not %T: set train.optimizer to sgd, or uq to trajectory, rounds, sandwich or fisher", o)
		}
	}
	if n := a.model.Params; a.Within == Sandwich || a.Within == Fisher {
		size := 0
		for _, p := range n {
			if p.Trained() {
				size += product(p.Shape(a.Rate))
			}
		}
		if size > mostParameters {
			return fmt.Errorf("selffl: uq %s computes with a matrix of all %d parameters, and can with at most %d: choose trajectory-calibrated, or a smaller model",
				a.Within, size, mostParameters)
		}
	}
	return nil
}

func product(dims []int) int {
	n := 1
	for _, d := range dims {
		n *= d
	}
	return n
}

// meta is what the server knows beside the model.
type meta struct {
	// Between is σ_0² of each block; nil while it is unknown.
	Between []float64 `json:"between,omitempty"`
	// Of each block, over the clients in G, with weights a_m and variances v_m as they were used.
	In []mass `json:"in,omitempty"`
	// Scale is what sums count variances in: about σ_0² + the mean of v_m.
	Scale float64 `json:"scale"`
	// Formed is the round whose participants are in G; −1 if nobody is.
	Formed int `json:"formed"`
	// Seen are the clients that the server keeps uploads of.
	Seen map[string]*seen `json:"seen,omitempty"`
	// Levels is the meta of the levels.
	Levels json.RawMessage `json:"levels,omitempty"`
}

// mass is what the weights of the clients in G add up to.
type mass struct {
	A   float64 `json:"a"`   // Σ a_m
	AA  float64 `json:"aa"`  // Σ a_m²
	AAV float64 `json:"aav"` // Σ a_m² v_m
}

// variance returns that of G = Σ a_m θ_m/A around θ_0, (σ_0² Σa_m² + Σa_m²v_m)/A², which is 1/W for weights by precision.
func (x mass) variance(between float64) float64 { return (between*x.AA + x.AAV) / (x.A * x.A) }

// without leaves out a client.
func (x mass) without(a, v float64) mass {
	return mass{x.A - a, max(0, x.AA-a*a), max(0, x.AAV-a*a*v)}
}

// seen is what the server knows of a client that it keeps the last upload of.
type seen struct {
	V []float64 `json:"v"`
	A []float64 `json:"a"` // its weight in G
}

func readMeta(s federated.State) (m meta, err error) {
	if err := json.Unmarshal(s.Meta, &m); err != nil {
		return m, fmt.Errorf("state: %w", err)
	}
	return m, nil
}

func (m meta) put(s federated.State) (federated.State, error) {
	b, err := json.Marshal(m)
	s.Meta = b
	return s, err
}

// Init implements [federated.Algorithm].
func (a *Algorithm) Init(ctx context.Context, srv federated.Server) (federated.State, error) {
	m := meta{Scale: 1, Formed: -1}
	var s federated.State
	if a.levels != nil {
		var err error
		if s, err = a.levels.Init(ctx, srv); err != nil {
			return s, err
		}
		m.Levels = s.Meta
		s = s.With("n", s.Sets["w"].Zeros())
	} else {
		w, err := a.Initial(srv.Seed, a.Rate)
		if err != nil {
			return s, err
		}
		s.Sets = map[string]weights.Set{"w": w}
	}
	return m.put(s)
}

// forLevels is the state as the levels know it.
func (m meta) forLevels(s federated.State) federated.State {
	s.Meta = m.Levels
	return s
}

// Next implements [federated.Algorithm].
func (a *Algorithm) Next(s federated.State) (federated.Phase, bool) {
	if s.Step > 0 {
		return a.After(s, s.Step-1)
	}
	w := s.Sets["w"]
	p := federated.Phase{Name: "train", Who: a.Select, Folds: []federated.Fold{
		{Name: "w", Like: w, Indexed: a.levels != nil, Counts: a.levels != nil},
		{Name: "uq", Like: a.numbers(nil), Exact: true},
	}}
	if a.Stale == Keep || a.levels != nil { // whose rows are counted by weight, so that a secure sum could not tell how many have one
		p.Collect = []string{"train.steps"}
	}
	if a.Stale == Drop {
		p.Folds = append(p.Folds, federated.Fold{Name: "u", Like: pick(w, a.measured()), Indexed: a.levels != nil, Counts: a.levels != nil})
	}
	return p, true
}

// numbers puts numbers that members send beside tensors into a set; nil: zeros, as many as they are. With stale keep they are
// v and b of each block; with drop, times the client's weight, ‖θ̃ − G‖²/D and v in units of the scale, a and a·v. The last one
// is whether the learning rate was too large.
func (a *Algorithm) numbers(x []float64) weights.Set {
	if x == nil {
		n := 5
		if a.Stale == Keep {
			n = 2*len(a.blocks) + 1
		}
		x = make([]float64, n)
	}
	s := weights.NewSet(1)
	s.Put("uq", weights.Of64(x, len(x)))
	return s
}

// pick returns the named tensors of a set.
func pick(s weights.Set, names []string) weights.Set {
	out := weights.NewSet(len(names))
	for _, n := range names {
		out.Put(n, s.Must(n))
	}
	return out
}

// task is what a client is told beside the model.
type task struct {
	Between []float64       `json:"between,omitempty"`
	In      []mass          `json:"in,omitempty"`
	Scale   float64         `json:"scale"`
	Formed  int             `json:"formed"`
	Own     []float64       `json:"own,omitempty"`   // stale keep: the client's weights in G; nil if it is not in it
	Level   json.RawMessage `json:"level,omitempty"` // what its level's task says
}

// readTask reads what a task says, which may come from anybody.
func (a *Algorithm) readTask(params json.RawMessage) (t task, err error) {
	if err := json.Unmarshal(params, &t); err != nil {
		return t, fmt.Errorf("task parameters: %w", err)
	}
	good := func(x float64) bool { return x >= 0 && !math.IsInf(x, 1) }
	ok := good(t.Scale) && t.Scale > 0
	if t.Between != nil {
		ok = ok && len(t.Between) == len(a.blocks) && len(t.In) == len(a.blocks) && (t.Own == nil || len(t.Own) == len(a.blocks))
	}
	for _, x := range append(slices.Clone(t.Between), t.Own...) {
		ok = ok && good(x)
	}
	for _, x := range t.In {
		ok = ok && good(x.A) && good(x.AA) && good(x.AAV) && x.A > 0
	}
	if !ok {
		return t, fmt.Errorf("task parameters: %.200s are no variances and weights of %d parts of a model", params, len(a.blocks))
	}
	return t, nil
}

// Task implements [federated.Algorithm].
func (a *Algorithm) Task(s federated.State, p federated.Phase, m federated.Member) (federated.Task, error) {
	if p.Name != "train" {
		return a.Cycle.Task(s, p, m)
	}
	at, err := readMeta(s)
	if err != nil {
		return federated.Task{}, err
	}
	t := federated.Task{Sets: map[string]weights.Set{"w": s.Sets["w"]}}
	params := task{Between: at.Between, In: at.In, Scale: at.Scale, Formed: at.Formed}
	switch known := at.Seen[m.Name]; {
	case a.Stale == Keep:
		t.Group = m.Name
		if known != nil {
			params.Own = known.A
		}
	case a.levels != nil:
		if t, err = a.levels.Task(at.forLevels(s), p, m); err != nil {
			return t, err
		}
		params.Level = t.Params
		t.Sets["n"] = t.Index.Slice(s.Sets["n"])
	}
	t.Params, err = json.Marshal(params)
	return t, err
}

// Finish implements [federated.Algorithm].
func (a *Algorithm) Finish(ctx context.Context, srv federated.Server, s federated.State, p federated.Phase, sums map[string]*federated.Sum, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	if p.Name != "train" {
		return a.Cycle.Finish(ctx, srv, s, p, sums, roll)
	}
	var d federated.Diagnostics
	at, err := readMeta(s)
	if err != nil {
		return s, d, err
	}
	old := at.Between
	if a.Stale == Keep {
		s, err = a.keep(srv, s, &at, sums, roll, &d)
	} else {
		s, err = a.drop(s, &at, sums[""], &d)
	}
	switch {
	case errors.Is(err, ErrAlone):
		at.Between = old
		d.Notes = append(d.Notes, "only one client's upload is known, which does not show how much clients differ: it trains by itself")
	case err != nil:
		return s, d, err
	}
	mean := 0.0
	for i, v := range at.Between {
		mean += v / float64(len(at.Between))
		if len(at.Between) > 1 {
			d.Add("variance.between", a.blocks[i].measured[0], v)
		}
	}
	if at.Between != nil {
		d.Add("variance.between", "", mean)
	}
	if s, err = at.put(s); err != nil {
		return s, d, err
	}
	s.Version++
	return s, d, nil
}

// unit is how many parts the weight of an average client has where weights must be whole numbers, and heaviest the most that
// any has.
const (
	unit     = 1 << 10
	heaviest = 1 << 17
)

// weight returns the whole number that a client weighs where only sums are seen, and the weight a_m that it stands for.
func (a *Algorithm) weight(t task, v float64, examples int) (uint64, float64) {
	switch a.Aggregate {
	case Uniform:
		return 1, 1
	case BySamples:
		return uint64(examples), float64(examples)
	}
	k := float64(unit)
	if t.Between != nil {
		k = math.Round(unit * t.Scale * Precision(a.shared(t.Between[0]), v))
	}
	k = min(max(k, 1), heaviest)
	return uint64(k), k / unit
}

// shared is the variance between two clients' parameters that others' estimates are taken to have: σ_0² around their common
// mean, 2σ_0² around the client itself if they are taken as independent.
func (a *Algorithm) shared(between float64) float64 {
	if a.Posterior == PairwiseOther {
		return 2 * between
	}
	return between
}

// drop makes the next state of sums alone.
func (a *Algorithm) drop(s federated.State, at *meta, sum *federated.Sum, d *federated.Diagnostics) (federated.State, error) {
	d.Training(sum)
	g := s.Sets["w"]
	s = s.With("w", sum.Total["w"].AddMean(g))
	parts := 1.0 // whole numbers in a weight of 1
	if a.Aggregate == ByPrecision {
		parts = unit
	}
	n := make([]float64, 5) // Σ a_m of each number
	for i := range n {
		n[i] = sum.Total["uq"].Total("uq", i) / float64(cmp.Or(sum.Unit, 1)) / parts
	}
	all := float64(sum.Weight) / float64(cmp.Or(sum.Unit, 1)) / parts
	if a.levels != nil {
		s = s.With("n", a.counts(g, sum, parts))
	}
	// Q = Σ a‖θ̃ − G‖² − A‖mean θ̃ − G‖², over the coordinates.
	var off, size float64
	for name, x := range sum.Total["u"].Mean(weights.Float64).All() {
		for i := range x.Len() {
			share := float64(sum.Total["u"].Count(name, i)) / float64(sum.Weight)
			off += float64(share * x.F64[i] * x.F64[i])
		}
		size += float64(x.Len())
	}
	scale := at.Scale
	spread := Spread{Q: max(0, scale*n[0]-all*off/size), A: all, AA: n[2], AV: scale * n[1], AAV: scale * n[3], N: sum.N}
	at.In, at.Formed = []mass{{all, spread.AA, spread.AAV}}, s.Round
	d.Add("variance.within", "", spread.AV/all)
	d.Add("steps.mean", "", sum.Scalars["train.steps"]/float64(sum.N))
	capped(d, n[4]/all)
	v, err := spread.Variance(a.Between == Naive)
	if err != nil {
		return s, err
	}
	at.Between, at.Scale = []float64{v}, v+spread.AV/all
	return s, nil
}

// counts returns Σ a_m over those who covered each coordinate of the model.
func (a *Algorithm) counts(g weights.Set, sum *federated.Sum, parts float64) weights.Set {
	out := g.Zeros()
	for name, x := range out.All() {
		for i := range x.Len() {
			x.SetAt(i, float64(sum.Total["w"].Count(name, i))/float64(cmp.Or(sum.Unit, 1))/parts)
		}
	}
	return out
}

// capped notes that clients could not use the learning rate.
func capped(d *federated.Diagnostics, part float64) {
	if part > 0 {
		d.Notes = append(d.Notes, fmt.Sprintf("the learning rate is more than 1/curvature for %.0f %% of the clients by weight, who planned with less: lower it", 100*part))
	}
}
