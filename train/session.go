package train

import (
	"fmt"
	"slices"

	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
)

// Options is what a session has beside weights. The zero value is right for specs without mask, extras and scalars.
type Options struct {
	// LabelMask tells the classes that are there: one number a class, 0 for absent. Needed to train a spec with a mask.
	LabelMask []float32
	// Extras holds the spec's extra sets: a tensor for every trained parameter, others are ignored.
	Extras map[string]weights.Set
	// Follows holds, in place of extra sets, sessions whose trained parameters they are: see [Session.Follow].
	Follows map[string]*Session
	// Scalars holds the spec's scalars.
	Scalars map[string]float64
	// OptimizerState continues from another session; empty starts afresh.
	OptimizerState weights.Set
	// Stats are the evaluation statistics of static batch norm layers, as [Statistics.Mean] returns them. Only
	// evaluation needs them.
	Stats weights.Set

	untrained bool // the session only asks
}

// Session is one set of weights on an engine, and what training needs beside them. It is for one goroutine at a time.
type Session struct {
	e       *Engine
	l       *layout
	id      identity
	buffers [tables][]compute.Buffer
	follows []*Session // by extra set: whose parameters it is; nil: a set of its own
	present []bool     // label mask
	scalars []float64
	counts  []int // steps of each group
	steps   int
	lanes   map[shape]*lane
	lossAny any // where the loss of a step is read to
	loss32  []float32
	loss64  []float64
	scratch []float64
	broken  error
	closed  bool
}

// NonFiniteError tells that training has diverged: the loss of a step is NaN or infinite.
type NonFiniteError struct {
	Model string
	Step  int // of the session, counted from 1
	Loss  float64
}

func (e *NonFiniteError) Error() string {
	return fmt.Sprintf("the loss of %s is %v in step %d: lower the learning rate, or clip gradients", e.Model, e.Loss, e.Step)
}

// Begin copies start to the engine and returns a session. It must be closed.
func (e *Engine) Begin(spec *Spec, start weights.Set, o Options) (*Session, error) {
	l, id, err := e.layout(spec)
	if err != nil {
		return nil, err
	}
	s := &Session{e: e, l: l, id: id, lanes: map[shape]*lane{}, counts: make([]int, len(l.groups))}
	if l.spec.DType == weights.Float64 {
		s.loss64 = make([]float64, 1)
		s.lossAny = s.loss64
	} else {
		s.loss32 = make([]float32, 1)
		s.lossAny = s.loss32
	}
	if err := s.begin(start, o); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Session) begin(start weights.Set, o Options) error {
	if err := s.SetParams(start); err != nil {
		return err
	}
	if o.LabelMask != nil {
		present, err := classes(o.LabelMask, s.l.spec.Model.Classes)
		if err != nil {
			return err
		}
		s.present = present
	}
	s.scalars = make([]float64, len(s.l.spec.Scalars))
	if o.untrained && s.l.spec.Derive == nil {
		return s.setStats(o.Stats)
	}
	for i, name := range s.l.spec.Scalars {
		v, ok := o.Scalars[name]
		if !ok {
			return fmt.Errorf("session of %s: scalar %q is missing", s.l.held.Name, name)
		}
		s.scalars[i] = v
	}
	for _, name := range s.l.spec.Extras {
		if other := o.Follows[name]; other != nil {
			if err := s.Follow(name, other); err != nil {
				return err
			}
			continue
		}
		set, ok := o.Extras[name]
		if !ok {
			return fmt.Errorf("session of %s: extra set %q is missing", s.l.held.Name, name)
		}
		if err := s.SetExtra(name, set); err != nil {
			return err
		}
	}
	if err := s.setStats(o.Stats); err != nil {
		return err
	}
	if o.OptimizerState.Len() > 0 {
		return s.resume(o.OptimizerState)
	}
	return nil
}

func (s *Session) setStats(stats weights.Set) error {
	if stats.Len() == 0 {
		return nil
	}
	return s.SetStats(stats)
}

// classes turns a label mask into booleans.
func classes(mask []float32, n int) ([]bool, error) {
	if len(mask) != n {
		return nil, fmt.Errorf("label mask of %d numbers for %d classes", len(mask), n)
	}
	present, any := make([]bool, n), false
	for i, v := range mask {
		present[i] = v != 0
		any = any || v != 0
	}
	if !any {
		return nil, fmt.Errorf("label mask without any class of %d", n)
	}
	return present, nil
}

// SetParams replaces the weights. The optimiser's state stays.
func (s *Session) SetParams(w weights.Set) error {
	if err := s.l.check(w); err != nil {
		return err
	}
	for i, p := range s.l.params {
		if err := s.put(paramTable, i, len(s.l.params), w.Must(p.Name)); err != nil {
			return err
		}
	}
	return nil
}

// extra returns the place of an extra set among those of the spec.
func (s *Session) extra(name string) (int, error) {
	e := slices.Index(s.l.spec.Extras, name)
	if e < 0 {
		return 0, fmt.Errorf("spec of %s has no extra set %q", s.l.held.Name, name)
	}
	if len(s.follows) == 0 {
		s.follows = make([]*Session, len(s.l.spec.Extras))
	}
	return e, nil
}

// Follow makes an extra set be the trained parameters of another session of the same engine: as they are whenever a program of
// s runs, without a copy. The other session must stay open, train the same parameters as s, and not run while s does.
func (s *Session) Follow(name string, other *Session) error {
	e, err := s.extra(name)
	if err != nil {
		return err
	}
	if other.e != s.e || other.closed || other.l.spec.DType != s.l.spec.DType || len(other.l.trained) != len(s.l.trained) {
		return fmt.Errorf("extra set %q of %s cannot follow a session of %s: they do not train the same parameters on one engine",
			name, s.l.held.Name, other.l.held.Name)
	}
	for j, i := range s.l.trained {
		k := other.l.trained[j]
		if s.l.params[i].Name != other.l.params[k].Name || !slices.Equal(s.l.shapes[i], other.l.shapes[k]) {
			return fmt.Errorf("extra set %q of %s cannot follow a session of %s: it has %s %v where this has %s %v", name, s.l.held.Name,
				other.l.held.Name, other.l.params[k].Name, other.l.shapes[k], s.l.params[i].Name, s.l.shapes[i])
		}
	}
	s.follows[e] = other
	return nil
}

// SetExtra replaces an extra set.
func (s *Session) SetExtra(name string, set weights.Set) error {
	e, err := s.extra(name)
	if err != nil {
		return err
	}
	s.follows[e] = nil
	n := len(s.l.trained)
	for j, i := range s.l.trained {
		t, ok := set.Get(s.l.params[i].Name)
		if !ok {
			return fmt.Errorf("extra set %q of %s: tensor %q is missing", name, s.l.held.Name, s.l.params[i].Name)
		}
		if err := s.l.checkTensor(t, i); err != nil {
			return fmt.Errorf("extra set %q of %s: %w", name, s.l.held.Name, err)
		}
		if err := s.put(extraTable, e*n+j, n*len(s.l.spec.Extras), t); err != nil {
			return err
		}
	}
	return nil
}

// SetScalar replaces one of the spec's scalars.
func (s *Session) SetScalar(name string, v float64) error {
	i := slices.Index(s.l.spec.Scalars, name)
	if i < 0 {
		return fmt.Errorf("spec of %s has no scalar %q", s.l.held.Name, name)
	}
	s.scalars[i] = v
	return nil
}

// SetStats replaces the evaluation statistics of static batch norm layers; they are rounded to the spec's type.
func (s *Session) SetStats(stats weights.Set) error {
	m := s.l.spec.Model
	names := m.StatNames()
	for i, name := range names {
		t, ok := stats.Get(name)
		if !ok {
			return fmt.Errorf("evaluation statistics of %s: tensor %q is missing", m.Name, name)
		}
		if want := m.Norms[i/2].Dim.At(m.Rate); t.Len() != want || len(t.Shape) != 1 {
			return fmt.Errorf("evaluation statistics of %s: tensor %q is %v, the model needs [%d]", m.Name, name, t.Shape, want)
		}
		if t.DType() != s.l.spec.DType {
			u := weights.NewTensor(s.l.spec.DType, t.Shape...)
			for j := range t.Len() {
				u.SetAt(j, t.At(j))
			}
			t = u
		}
		if err := s.put(statTable, i, len(names), t); err != nil {
			return err
		}
	}
	return nil
}

// Switch makes further steps follow another spec that trains the same parameters with optimisers of the same state, such
// as one that uses another part of the weights in each step.
func (s *Session) Switch(spec *Spec) error {
	l, id, err := s.e.layout(spec)
	if err != nil {
		return err
	}
	old := s.l
	same := l == old || slices.EqualFunc(l.shapes, old.shapes, slices.Equal[[]int]) && slices.Equal(l.states, old.states) &&
		slices.Equal(l.trained, old.trained) && slices.Equal(l.group, old.group) &&
		slices.Equal(l.spec.Extras, old.spec.Extras) && slices.Equal(l.spec.Scalars, old.spec.Scalars) &&
		l.spec.DType == old.spec.DType && l.spec.GradientSum == old.spec.GradientSum
	if !same {
		return fmt.Errorf("a session of %s cannot switch to a spec of other parameters, optimiser state or extras",
			old.held.Name)
	}
	if id != s.id {
		s.giveBack()
	}
	s.l, s.id = l, id
	return nil
}

// put uploads t as entry i of a table of n.
func (s *Session) put(t table, i, n int, from weights.Tensor) error {
	var flat any = from.F32
	if s.l.spec.DType == weights.Float64 {
		flat = from.F64
	}
	return s.upload(t, i, n, flat, from.Shape)
}

func (s *Session) upload(t table, i, n int, flat any, dims []int) error {
	if len(s.buffers[t]) != n {
		release(s.buffers[t])
		s.buffers[t] = make([]compute.Buffer, n)
	}
	if old := s.buffers[t][i]; old != nil {
		_ = old.Finalize()
	}
	b, err := s.e.backend.BufferFromFlatData(0, flat, shapes.Make(dtype(s.l.spec.DType), dims...))
	s.buffers[t][i] = b
	if err != nil {
		s.buffers[t][i] = nil
		return fmt.Errorf("copying weights of %s to the engine: %w", s.l.held.Name, err)
	}
	return nil
}

// zero uploads zeros of a parameter's shape as entry i of a table of n.
func (s *Session) zero(t table, i, n, param int) error {
	size := 1
	for _, d := range s.l.shapes[param] {
		size *= d
	}
	return s.upload(t, i, n, s.e.zeros(s.l.spec.DType == weights.Float64, size), s.l.shapes[param])
}

// download copies a buffer to a new tensor.
func (s *Session) download(b compute.Buffer, dims []int) (weights.Tensor, error) {
	t := weights.NewTensor(s.l.spec.DType, dims...)
	var flat any = t.F32
	if t.F64 != nil {
		flat = t.F64
	}
	if err := b.ToFlatData(flat); err != nil {
		return t, fmt.Errorf("copying weights of %s from the engine: %w", s.l.held.Name, err)
	}
	return t, nil
}

// Params returns a copy of the weights, in the order of the model.
func (s *Session) Params() (weights.Set, error) {
	if s.broken != nil {
		return weights.Set{}, s.broken
	}
	set := weights.NewSet(len(s.l.params))
	for i, p := range s.l.params {
		t, err := s.download(s.buffers[paramTable][i], s.l.shapes[i])
		if err != nil {
			return set, err
		}
		set.Put(p.Name, t)
	}
	return set, nil
}

// Steps returns how many steps the session has made.
func (s *Session) Steps() int { return s.steps }

// countName is the tensor of an optimiser state that counts the steps of a group.
func countName(group string) string {
	if group == "" {
		return "steps"
	}
	return "steps/" + group
}

// OptimizerState returns a copy of the optimiser's state, for [Options]: a tensor parameter/slot for every slot, and the
// number of steps of every group, as steps or steps/group.
func (s *Session) OptimizerState() (weights.Set, error) {
	if s.broken != nil {
		return weights.Set{}, s.broken
	}
	if err := s.prepare(); err != nil {
		return weights.Set{}, err
	}
	set := weights.NewSet(len(s.l.states) + len(s.l.groups))
	for j, g := range s.l.groups {
		set.Put(countName(g.Name), weights.Of64([]float64{float64(s.counts[j])}, 1))
	}
	for i, name := range s.l.states {
		t, err := s.download(s.buffers[stateTable][i], s.l.shapes[s.l.owner[i]])
		if err != nil {
			return set, err
		}
		set.Put(name, t)
	}
	return set, nil
}

// resume takes over a state of OptimizerState.
func (s *Session) resume(state weights.Set) error {
	for j, g := range s.l.groups {
		t, ok := state.Get(countName(g.Name))
		if !ok || t.Len() != 1 || t.At(0) < 0 || t.At(0) != float64(int(t.At(0))) {
			return fmt.Errorf("optimiser state of %s: %q does not hold a number of steps", s.l.held.Name, countName(g.Name))
		}
		s.counts[j] = int(t.At(0))
	}
	for i, name := range s.l.states {
		t, ok := state.Get(name)
		if !ok {
			return fmt.Errorf("optimiser state of %s: tensor %q is missing", s.l.held.Name, name)
		}
		if err := s.l.checkTensor(t, s.l.owner[i]); err != nil {
			return fmt.Errorf("optimiser state of %s: %q: %w", s.l.held.Name, name, err)
		}
		if err := s.put(stateTable, i, len(s.l.states), t); err != nil {
			return err
		}
	}
	return nil
}

// prepare makes what only training needs: optimiser state and gradient sums of zeros, where there are none.
func (s *Session) prepare() error {
	if n := len(s.l.states); len(s.buffers[stateTable]) != n {
		for i := range n {
			if err := s.zero(stateTable, i, n, s.l.owner[i]); err != nil {
				return err
			}
		}
	}
	if n := len(s.l.trained); s.l.spec.GradientSum && len(s.buffers[sumTable]) != n {
		for j, i := range s.l.trained {
			if err := s.zero(sumTable, j, n, i); err != nil {
				return err
			}
		}
	}
	return nil
}

// GradientSum returns the sum of the raw gradients of all steps so far, before Adjust and clipping, and the number of
// steps. Their quotient is what SCAFFOLD's option II keeps (arXiv 1910.06378, algorithm 1), for any schedule of rates.
// It panics if the spec does not ask for it.
func (s *Session) GradientSum() (weights.Set, int, error) {
	if !s.l.spec.GradientSum {
		panic(fmt.Sprintf("train: GradientSum of a spec of %s that does not ask for it", s.l.held.Name))
	}
	if s.broken != nil {
		return weights.Set{}, 0, s.broken
	}
	if err := s.prepare(); err != nil {
		return weights.Set{}, 0, err
	}
	set, err := s.trainedSet(sumTable)
	return set, s.steps, err
}

// trainedSet downloads a table that has an entry for every trained parameter.
func (s *Session) trainedSet(t table) (weights.Set, error) {
	set := weights.NewSet(len(s.l.trained))
	for j, i := range s.l.trained {
		x, err := s.download(s.buffers[t][j], s.l.shapes[i])
		if err != nil {
			return set, err
		}
		set.Put(s.l.params[i].Name, x)
	}
	return set, nil
}

// lane returns the session's lane for that shape.
func (s *Session) lane(at shape) (*lane, error) {
	if l, ok := s.lanes[at]; ok {
		return l, nil
	}
	l, err := s.e.lane(s.id, s.l, at)
	if err != nil {
		return nil, err
	}
	s.lanes[at] = l
	return l, nil
}

func (s *Session) giveBack() {
	for k, l := range s.lanes {
		s.e.giveBack(l)
		delete(s.lanes, k)
	}
}

// Close frees what the session holds on the engine. Closing twice does nothing.
func (s *Session) Close() {
	if s.closed {
		return
	}
	s.closed = true
	s.broken = fmt.Errorf("session of %s is closed", s.l.held.Name)
	s.giveBack()
	for t := range s.buffers {
		release(s.buffers[t])
	}
}

// followed returns the buffer of another session that an entry of the extra table is, nil if it is one of its own.
func (s *Session) followed(index int) compute.Buffer {
	n := len(s.l.trained)
	if n == 0 || len(s.follows) == 0 {
		return nil
	}
	other := s.follows[index/n]
	if other == nil {
		return nil
	}
	return other.buffers[paramTable][other.l.trained[index%n]]
}

// run executes l's program on the session's buffers. Outputs that belong to the session replace what was there, the
// others are returned, until the lane runs again; the first of them is results[0]. After a failure the session is
// unusable, since inputs may have been given away.
func (s *Session) run(l *lane) (results []compute.Buffer, err error) {
	if err := l.send(s.e.backend); err != nil {
		return nil, err
	}
	for i, in := range l.p.ins {
		switch {
		case in.table == feedTable:
			l.inputs[i] = l.fed[in.index]
		case in.table == extraTable && s.followed(in.index) != nil:
			l.inputs[i] = s.followed(in.index)
		default:
			l.inputs[i] = s.buffers[in.table][in.index]
		}
	}
	into, reuses := l.p.exec.(intoExecutable)
	if reuses {
		results = l.results
		err = into.ExecuteInto(results, l.inputs, l.p.donate)
	} else {
		results, err = l.p.exec.Execute(l.inputs, l.p.donate, 0)
	}
	if err != nil {
		s.broken = fmt.Errorf("running %s on the engine: %w", s.l.held.Name, err)
		return nil, s.broken
	}
	given := l.given[:0]
	for k, at := range l.p.outs {
		if at.table == tables {
			given = append(given, results[k])
			continue
		}
		// What was there was donated: it may hold a result of the next run.
		results[k], s.buffers[at.table][at.index] = s.buffers[at.table][at.index], results[k]
	}
	l.given = given
	return given, nil
}
