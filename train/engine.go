package train

import (
	"fmt"
	"sync"

	"github.com/gomlx/compute"
)

// maxPrograms bounds the compiled programs that an engine keeps; programs in use are never dropped.
const maxPrograms = 512

// Engine compiles specs and keeps the programs, one for each spec, purpose and batch size: up to 512, then those that were
// not used for longest make room. Any number of goroutines may
// use it at once; whoever needs a program that is being compiled waits for it.
type Engine struct {
	backend compute.Backend
	limit   int

	mu       sync.Mutex
	layouts  map[identity]*layout
	programs map[programKey]*entry
	clock    uint64
	compiled int

	zerosMu sync.Mutex
	zeros32 []float32
	zeros64 []float64
}

type programKey struct {
	id identity
	shape
}

// entry is a program that is there or on its way.
type entry struct {
	once sync.Once
	p    *program
	err  error
	uses int    // lanes in the hands of sessions
	last uint64 // when it was last taken
}

// NewEngine returns an engine that computes on b.
func NewEngine(b compute.Backend) *Engine {
	return &Engine{backend: b, limit: maxPrograms, layouts: map[identity]*layout{}, programs: map[programKey]*entry{}}
}

// Backend returns what e computes on.
func (e *Engine) Backend() compute.Backend { return e.backend }

// Compiled returns how many programs e has compiled so far.
func (e *Engine) Compiled() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.compiled
}

// Close frees the programs. No session of e may be in use.
func (e *Engine) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for k, en := range e.programs {
		if en.p != nil {
			en.p.finalize()
		}
		delete(e.programs, k)
	}
}

// layout returns the layout of s, of the first spec that was seen with its identity.
func (e *Engine) layout(s *Spec) (*layout, identity, error) {
	if s.Model == nil {
		return nil, identity{}, s.Validate()
	}
	id := s.identity()
	e.mu.Lock()
	defer e.mu.Unlock()
	if l, ok := e.layouts[id]; ok {
		return l, id, nil
	}
	l, err := newLayout(s)
	if err != nil {
		return nil, id, err
	}
	e.layouts[id] = l
	return l, id, nil
}

// lane returns a lane of the program for that shape of l, compiled if this is its first use. It must be given back.
func (e *Engine) lane(id identity, l *layout, at shape) (*lane, error) {
	key := programKey{id, at}
	e.mu.Lock()
	en, ok := e.programs[key]
	if !ok {
		en = new(entry)
		e.programs[key] = en
	}
	e.clock++
	en.uses, en.last = en.uses+1, e.clock
	e.evict()
	e.mu.Unlock()

	en.once.Do(func() {
		en.err = fmt.Errorf("building the %v program of %s was interrupted", at.kind, l.spec.Model.Name)
		en.p, en.err = assemble(e.backend, l, at)
		e.mu.Lock()
		defer e.mu.Unlock()
		if en.err == nil {
			en.p.entry = en
			e.compiled++
		} else if e.programs[key] == en {
			delete(e.programs, key)
		}
	})
	if en.err != nil {
		return nil, en.err
	}
	ln, err := en.p.lane(e.backend, at.batch)
	if err != nil {
		e.release(en)
		return nil, err
	}
	return ln, nil
}

// giveBack returns a lane to its program.
func (e *Engine) giveBack(l *lane) {
	p := l.p
	p.put(l)
	e.release(p.entry)
}

func (e *Engine) release(en *entry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	en.uses--
	e.evict()
}

// evict drops the programs that nobody has used for longest while there are too many. e.mu must be held.
func (e *Engine) evict() {
	for len(e.programs) > e.limit {
		var oldest programKey
		var found *entry
		for k, en := range e.programs {
			if en.uses == 0 && (found == nil || en.last < found.last) {
				oldest, found = k, en
			}
		}
		if found == nil {
			return
		}
		found.p.finalize()
		delete(e.programs, oldest)
		e.forget(oldest.id)
	}
}

// forget drops the layout of a spec that has no programs left; sessions that still have it keep it. e.mu must be held.
func (e *Engine) forget(id identity) {
	for k := range e.programs {
		if k.id == id {
			return
		}
	}
	delete(e.layouts, id)
}

// zeros returns a slice of n zeros of type float32 or float64 that nobody may write.
func (e *Engine) zeros(double bool, n int) any {
	e.zerosMu.Lock()
	defer e.zerosMu.Unlock()
	if double {
		if len(e.zeros64) < n {
			e.zeros64 = make([]float64, n)
		}
		return e.zeros64[:n]
	}
	if len(e.zeros32) < n {
		e.zeros32 = make([]float32, n)
	}
	return e.zeros32[:n]
}
