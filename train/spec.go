package train

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/gomlx/core/graph"
)

// Spec is what one training step is. It must not change once an engine has seen it.
//
// A step computes the loss L of a batch at the current weights w, and with g = ∂L/∂w
//
//	g ← Adjust(g);   g ← g·min(1, Clip/(‖g‖+1e-6));   w ← Optimizer(w, g)
//
// An engine knows a spec by its address, so programs are shared by using one *Spec for many sessions. Where that is
// awkward, as when every task of a client arrives as a message, equal Keys do the same for equal specs.
type Spec struct {
	// Key, if not empty, promises that all specs with this key have the same functions (Forward, Custom, Adjust, Derive
	// and the Match of groups). Everything else is compared.
	Key string

	Model *nn.Model
	DType weights.DType // of weights and arithmetic; inputs are always float32 and are widened

	Loss Loss
	// Custom replaces the formula of Loss: from the output and the targets it builds the loss of every example, [batch],
	// or position, [batch, tokens]. Targets are int32 labels or numbers as Loss says. A scalar is taken as the mean over
	// the batch, which trains but cannot be evaluated.
	Custom func(output, target *graph.Node) *graph.Node
	Target Target  // where targets come from in Fit and Evaluate
	Hide   Hide    // tokens that are hidden from the model
	Mask   Mask    // what becomes of the outputs of classes that a client does not have
	Scale  float64 // ρ of the Scaler, see [nn.Pass]
	Clip   float64 // bound of the Euclidean norm over all gradients of a step; 0: none

	Optimizer Optimizer // of all parameters when Groups is nil; nil: SGD{}
	Groups    []Group   // parameters in no group keep their values

	Extras  []string // sets of tensors that come with a session, see [Adjust]
	Scalars []string // numbers that come with a session, see [Adjust]
	// Adjust changes gradients before they are clipped, as FedProx does, g += μ(w − anchor), or SCAFFOLD, g += c − c_k.
	Adjust func(a *Adjust)
	// GradientSum adds up the raw gradients of the steps, before Adjust and clipping: see [Session.GradientSum].
	GradientSum bool

	// Holds is the model whose parameters the session holds, if that is not Model, and Derive builds Model's parameters
	// from them: leading slices of a wider model, or a mixture with an extra set. Gradients flow through Derive.
	Holds  *nn.Model
	Derive func(a *Adjust) map[string]*graph.Node
}

// Group is a set of parameters that are trained in one way.
type Group struct {
	Name      string              // unique; may be empty if there is only one
	Match     func(nn.Param) bool // nil: all that no earlier group has
	Optimizer Optimizer           // nil: SGD{}
	Factor    float64             // multiplies the rate; 0 means 1
	Split     string              // which of [Fit.Splits] the group learns from
	// Loss replaces the spec's Custom for this group: its part of the objective.
	Loss func(output, target *graph.Node) *graph.Node
}

// Loss is an objective: the mean over examples, or over all positions of sequences.
type Loss uint8

// The losses.
const (
	// CrossEntropy is log Σ_c exp z_c − z_y for the output z [batch, …, classes] and the label y [batch, …].
	CrossEntropy Loss = iota
	// MeanSquares is the mean over the outputs of an example of (z − y)²; targets have the shape of the output.
	MeanSquares
)

// Mask says how outputs z_c of classes c that are not in a session's label mask are treated, in loss and prediction.
type Mask uint8

// The masks.
const (
	NoMask Mask = iota
	// ZeroMask sets z_c to 0: absent classes still add 1 each to the partition function and get no gradient (HeteroFL,
	// arXiv 2010.01264, section 3).
	ZeroMask
	// InfMask sets z_c to −∞: absent classes do not exist.
	InfMask
)

// Target says what a model is to predict from a row of data.
type Target uint8

// The targets.
const (
	FromData  Target = iota // the label of the row (CrossEntropy) or its target number (MeanSquares)
	FromInput               // the row itself: the tokens before any are hidden, or the input values
	NextToken               // the next token at every position: the last token of a row is target only
)

// Hide replaces each input token by ID with probability Prob, in training and in evaluation. The zero value hides none.
type Hide struct {
	Prob float64
	ID   int32
}

// Adjust gives access to a step that is being built. Nodes may be combined into new ones; the maps may be written.
type Adjust struct {
	Graph *graph.Graph
	// Names are the parameters that this step trains, in order.
	Names []string
	// Params holds the value of every parameter of the session before the step.
	Params map[string]*graph.Node
	// Grads holds the gradients by name; nil in Derive.
	Grads map[string]*graph.Node
	// Extras holds, by set and by name, a tensor for every trained parameter: those of the spec's Extras.
	Extras map[string]map[string]*graph.Node
	// Scalars holds the spec's Scalars.
	Scalars map[string]*graph.Node
}

// Validate reports the first setting that cannot work.
func (s *Spec) Validate() error {
	if s.Model == nil {
		return errors.New("spec without a model")
	}
	if !(s.Clip >= 0) || math.IsInf(s.Clip, 0) {
		return fmt.Errorf("spec of %s: clip %v: need 0 or more", s.Model.Name, s.Clip)
	}
	if !(s.Scale >= 0) || math.IsInf(s.Scale, 0) {
		return fmt.Errorf("spec of %s: scale %v: need 0 or more", s.Model.Name, s.Scale)
	}
	if !(s.Hide.Prob >= 0 && s.Hide.Prob <= 1) {
		return fmt.Errorf("spec of %s: tokens hidden with probability %v", s.Model.Name, s.Hide.Prob)
	}
	if !s.Model.Tokens && (s.Hide.Prob > 0 || s.Target == NextToken) {
		return fmt.Errorf("spec of %s: only models of tokens can hide or predict them", s.Model.Name)
	}
	if s.Mask != NoMask && s.Loss != CrossEntropy {
		return fmt.Errorf("spec of %s: a mask of classes needs the cross-entropy", s.Model.Name)
	}
	if s.Groups != nil && s.Optimizer != nil {
		return fmt.Errorf("spec of %s: an optimiser beside groups, which have their own", s.Model.Name)
	}
	if (s.Holds == nil) != (s.Derive == nil) {
		return fmt.Errorf("spec of %s: Holds and Derive go together", s.Model.Name)
	}
	seen := map[string]bool{}
	for _, g := range s.groups() {
		if seen[g.Name] {
			return fmt.Errorf("spec of %s: two groups called %q", s.Model.Name, g.Name)
		}
		seen[g.Name] = true
		if g.Factor < 0 {
			return fmt.Errorf("spec of %s: group %q: factor %v is negative", s.Model.Name, g.Name, g.Factor)
		}
		if err := g.optimizer().Validate(); err != nil {
			return fmt.Errorf("spec of %s: group %q: %w", s.Model.Name, g.Name, err)
		}
	}
	return nil
}

// groups returns the groups with the default filled in.
func (s *Spec) groups() []Group {
	if s.Groups == nil {
		return []Group{{Optimizer: s.Optimizer}}
	}
	return s.Groups
}

func (g Group) optimizer() Optimizer {
	if g.Optimizer == nil {
		return SGD{}
	}
	return g.Optimizer
}

func (g Group) factor() float64 {
	if g.Factor == 0 {
		return 1
	}
	return g.Factor
}

// holds returns the model whose parameters a session has.
func (s *Spec) holds() *nn.Model {
	if s.Holds != nil {
		return s.Holds
	}
	return s.Model
}

// identity is what an engine knows a spec by.
type identity struct {
	spec *Spec
	key  string
}

func (s *Spec) identity() identity {
	if s.Key == "" {
		return identity{spec: s}
	}
	m, h := s.Model, s.holds()
	key := fmt.Sprintf("%q %v %v %v %v %v %v %v %v %q %q %v", s.Key, s.DType, s.Loss, s.Target, s.Mask, s.Hide, s.Scale, s.Clip,
		len(s.Groups), s.Extras, s.Scalars, s.GradientSum)
	for _, g := range s.groups() {
		key += fmt.Sprintf("|%q %#v %v", g.Name, g.optimizer(), g.Factor)
	}
	models := []*nn.Model{m}
	if h != m {
		models = append(models, h)
	}
	for _, m := range models {
		key += fmt.Sprintf("|%q %v %v %v", m.Name, m.Rate, m.Input, m.Classes)
		for _, p := range m.Params {
			key += fmt.Sprint(p.Name, p.Shape(m.Rate))
		}
	}
	return identity{key: key}
}

// layout is a spec with its parameters sorted out; computed once.
type layout struct {
	spec    *Spec
	held    *nn.Model
	params  []nn.Param
	shapes  [][]int
	index   map[string]int // parameter by name
	groups  []Group        // with defaults filled in
	group   []int          // group of each parameter, −1 if it is not trained
	members [][]int        // parameters of each group
	trained []int          // parameters of all groups, in order
	place   []int          // place of each parameter among trained, −1 if it is not
	slots   [][]int        // state tensors of each parameter
	states  []string       // name of each state tensor: parameter/slot
	owner   []int          // parameter of each state tensor
}

func newLayout(s *Spec) (*layout, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	h := s.holds()
	l := &layout{spec: s, held: h, params: h.Params, groups: slices.Clone(s.groups()), index: make(map[string]int, len(h.Params))}
	for j := range l.groups {
		l.groups[j].Optimizer, l.groups[j].Factor = l.groups[j].optimizer(), l.groups[j].factor()
	}
	l.members = make([][]int, len(l.groups))
	for i, p := range h.Params {
		if _, ok := l.index[p.Name]; ok {
			return nil, fmt.Errorf("model %s has two parameters called %q", h.Name, p.Name)
		}
		l.index[p.Name] = i
		l.shapes = append(l.shapes, p.Shape(h.Rate))
		g := -1
		for j := range l.groups {
			if p.Trained() && (l.groups[j].Match == nil || l.groups[j].Match(p)) {
				g = j
				break
			}
		}
		l.group = append(l.group, g)
		l.place = append(l.place, -1)
		l.slots = append(l.slots, nil)
		if g < 0 {
			continue
		}
		l.place[i] = len(l.trained)
		l.trained = append(l.trained, i)
		l.members[g] = append(l.members[g], i)
		for _, slot := range l.groups[g].Optimizer.Slots() {
			l.slots[i] = append(l.slots[i], len(l.states))
			l.states = append(l.states, p.Name+"/"+slot)
			l.owner = append(l.owner, i)
		}
	}
	for j, m := range l.members {
		if len(m) == 0 && len(l.groups) > 1 {
			return nil, fmt.Errorf("spec of %s: group %q matches no parameter", h.Name, l.groups[j].Name)
		}
	}
	return l, nil
}

// groupIndex returns the group of that name.
func (l *layout) groupIndex(name string) (int, error) {
	for i, g := range l.groups {
		if g.Name == name {
			return i, nil
		}
	}
	return 0, fmt.Errorf("spec of %s has no group %q", l.held.Name, name)
}

// check returns an error unless set holds exactly the parameters of l with the spec's type.
func (l *layout) check(set weights.Set) error {
	for i, p := range l.params {
		t, ok := set.Get(p.Name)
		if !ok {
			return fmt.Errorf("weights of %s: tensor %q is missing", l.held.Name, p.Name)
		}
		if err := l.checkTensor(t, i); err != nil {
			return fmt.Errorf("weights of %s: %w", l.held.Name, err)
		}
	}
	if set.Len() != len(l.params) {
		for _, n := range set.Names() {
			if _, ok := l.index[n]; !ok {
				return fmt.Errorf("weights of %s: it has no parameter %q", l.held.Name, n)
			}
		}
	}
	return nil
}

func (l *layout) checkTensor(t weights.Tensor, param int) error {
	if t.DType() != l.spec.DType || !slices.Equal(t.Shape, l.shapes[param]) {
		return fmt.Errorf("tensor %q is %v %v, the model needs %v %v", l.params[param].Name, t.DType(), t.Shape,
			l.spec.DType, l.shapes[param])
	}
	return nil
}
