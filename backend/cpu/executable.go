package cpu

import (
	"slices"
	"sync"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	"github.com/pkg/errors"
)

// Executable implements compute.Executable. Any number of goroutines may call
// Execute at once.
type Executable struct {
	backend *Backend
	fn      *Function
	dynamic bool

	mu    sync.Mutex
	plan  *plan  // without dynamic axes
	plans recent // with them
}

var _ compute.Executable = (*Executable)(nil)

func newExecutable(b *Builder) (*Executable, error) {
	e := &Executable{backend: b.backend, fn: b.main}
	for _, r := range b.main.params {
		e.dynamic = e.dynamic || r.shape.IsDynamic()
	}
	if e.dynamic {
		return e, nil
	}
	var err error
	e.plan, err = compile(b.backend, b.main, shapes.AxisBindings{})
	if err != nil {
		return nil, err
	}
	return e, nil
}

func compile(b *Backend, f *Function, sizes shapes.AxisBindings) (*plan, error) {
	g, err := lower(b, f, sizes)
	if err != nil {
		return nil, err
	}
	return newPlan(g)
}

// Finalize drops the plans.
func (e *Executable) Finalize() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.plan, e.plans, e.fn = nil, recent{}, nil
}

// Inputs returns the names and shapes of the parameters.
func (e *Executable) Inputs() (names []string, inputShapes []shapes.Shape) {
	for _, r := range e.fn.params {
		names = append(names, r.attr.(parameter).name)
		inputShapes = append(inputShapes, r.shape)
	}
	return names, inputShapes
}

// Outputs returns the shapes of the results.
func (e *Executable) Outputs() []shapes.Shape { return shapesOf(e.fn.outputs) }

// maxPlans is how many bindings of dynamic axes an executable keeps plans for:
// enough for the batch sizes and padded lengths of a program that groups its
// inputs by size. Others are compiled anew each time they come back.
const maxPlans = 64

// recent holds the plans for the bindings that were used last.
type recent struct {
	plans map[string]*dated
	clock uint64 // number of uses so far
}

type dated struct {
	plan *plan
	used uint64 // value of the clock at the last use
}

// get returns the plan for a binding, or nil.
func (r *recent) get(key string) *plan {
	d := r.plans[key]
	if d == nil {
		return nil
	}
	r.clock++
	d.used = r.clock
	return d.plan
}

// put keeps a plan and drops the one that was used the longest ago if there are
// too many. Executions at work keep theirs until they end.
func (r *recent) put(key string, p *plan) {
	if r.plans == nil {
		r.plans = map[string]*dated{}
	}
	r.clock++
	r.plans[key] = &dated{p, r.clock}
	if len(r.plans) <= maxPlans {
		return
	}
	oldest, used := "", r.clock
	for k, d := range r.plans {
		if d.used < used {
			oldest, used = k, d.used
		}
	}
	delete(r.plans, oldest)
}

// planFor checks the inputs and returns the plan for their shapes.
func (e *Executable) planFor(inputs []compute.Buffer, donate []bool) (*plan, error) {
	if e.fn == nil {
		return nil, errors.New("Execute: the executable was finalized")
	}
	params := e.fn.params
	if len(inputs) != len(params) {
		return nil, errors.Errorf("Execute: %d inputs for %d parameters", len(inputs), len(params))
	}
	if len(donate) != 0 && len(donate) != len(inputs) {
		return nil, errors.Errorf("Execute: %d donations for %d inputs", len(donate), len(inputs))
	}
	for i, in := range inputs {
		buf, ok := in.(*Buffer)
		if !ok || buf == nil {
			return nil, errors.Errorf("Execute: input %d is a %T, not a buffer of the cpu backend", i, in)
		}
		if !buf.valid {
			return nil, errors.Errorf("Execute: input %d (%s) was finalized or donated", i, buf.shape)
		}
		want := params[i].shape
		if buf.shape.DType != want.DType || !e.dynamic && !buf.shape.EqualDimensions(want) {
			return nil, errors.Errorf("Execute: input %d has shape %s, parameter %q wants %s", i, buf.shape, params[i].attr.(parameter).name, want)
		}
	}
	if !e.dynamic {
		return e.plan, nil
	}
	sizes := shapes.AxisBindings{}
	for i, in := range inputs {
		if err := sizes.Extract(params[i].shape, in.(*Buffer).shape); err != nil {
			return nil, errors.WithMessagef(err, "Execute: input %d", i)
		}
	}
	key := sizes.Key()
	e.mu.Lock()
	defer e.mu.Unlock()
	if p := e.plans.get(key); p != nil {
		return p, nil
	}
	p, err := compile(e.backend, e.fn, sizes)
	if err != nil {
		return nil, err
	}
	e.plans.put(key, p)
	return p, nil
}

// Execute runs the plan. Donated inputs are invalid afterwards, also if an
// error is returned that concerns the computation. A panic in a kernel is such
// an error; it ends this execution only.
func (e *Executable) Execute(inputs []compute.Buffer, donate []bool, _ compute.DeviceNum) ([]compute.Buffer, error) {
	p, err := e.planFor(inputs, donate)
	if err != nil {
		return nil, err
	}
	results := make([]compute.Buffer, len(p.outputs))
	holders := make([]Buffer, len(p.outputs)) // all in one piece
	for i := range results {
		results[i] = &holders[i]
	}
	if err := e.execute(p, inputs, donate, results); err != nil {
		return nil, err
	}
	return results, nil
}

// ExecuteInto is Execute for those who run a graph again and again: it puts the
// results into a slice of the caller's, one entry for each output, and allocates
// nothing where an entry is a *Buffer of this backend that is spent, that is,
// finalized or donated to an execution before this one. Such a buffer comes back
// to life with the result, so nobody else may still hold it. Other entries, valid
// buffers among them, are replaced by new buffers and left alone.
//
// After an error that concerns the computation, all entries are spent.
func (e *Executable) ExecuteInto(results, inputs []compute.Buffer, donate []bool) error {
	p, err := e.planFor(inputs, donate)
	if err != nil {
		return err
	}
	if len(results) != len(p.outputs) {
		return errors.Errorf("ExecuteInto: room for %d results, there are %d", len(results), len(p.outputs))
	}
	for i, r := range results {
		if b, ok := r.(*Buffer); !ok || b == nil || b.valid || b.backend != e.backend || slices.Contains(results[:i], r) {
			results[i] = &Buffer{backend: e.backend}
		}
	}
	return e.execute(p, inputs, donate, results)
}

// execute runs p with results in spent buffers of which there are no two the same.
func (e *Executable) execute(p *plan, inputs []compute.Buffer, donate []bool, results []compute.Buffer) error {
	err := e.compute(p, inputs, donate, results)
	for i, d := range donate {
		if d {
			_ = inputs[i].Finalize() // cannot fail
		}
	}
	if err == nil {
		return nil
	}
	for _, r := range results {
		_ = r.Finalize() // cannot fail
	}
	return errors.WithMessage(err, "Execute")
}

// compute fills results. Those that it made before an error are to be
// finalized.
func (e *Executable) compute(p *plan, inputs []compute.Buffer, donate []bool, results []compute.Buffer) error {
	// Frames are taken inside the pool: there are no more than threads then, and
	// their memory stays in cache.
	s := e.backend.pool.Enter()
	defer s.Leave()
	f := p.takeFrame()
	for i, in := range inputs {
		if s := p.params[i].slot; s >= 0 {
			f.base[s] = in.(*Buffer).block.data
		}
	}
	for i := range p.outputs {
		o, buf := &p.outputs[i], results[i].(*Buffer)
		buf.backend, buf.shape, buf.valid = e.backend, o.shape, true
		if o.reuse >= 0 && len(donate) > 0 && donate[o.reuse] && once(inputs, o.reuse) {
			from := inputs[o.reuse].(*Buffer)
			buf.block = from.block
			from.block, from.valid = block{}, false
		} else {
			buf.block = e.backend.memory.get(int(o.shape.ByteSize()))
		}
		f.base[o.slot] = buf.block.data
	}
	if err := p.run(f, s); err != nil {
		return err // the frame may be in any state: drop it
	}
	p.giveFrame(f)
	return nil
}

// once tells whether no other input is the same buffer as input i.
func once(inputs []compute.Buffer, i int) bool {
	for k, in := range inputs {
		if k != i && in == inputs[i] {
			return false
		}
	}
	return true
}
