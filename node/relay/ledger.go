package relay

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/transport"
)

// Kinds of records in the journal of a relay.
const (
	KindDelegated = "relay.delegated" // who is behind it, as the coordinator signed
	KindPassed    = "task.passed"     // a task, before its leaf gets it
	KindKept      = "result.kept"     // a leaf's result, before its receipt
	KindSum       = "sum.made"        // a partial sum, before it is handed in
	KindSettled   = "sum.settled"     // orders that the coordinator has, or does not want
	KindClosed    = "phase.closed"    // up to which order all is over
)

// delegated holds the coordinator's message.
type delegated struct {
	Text string `json:"message"`
}

// passed holds the coordinator's message.
type passed struct {
	Run   string `json:"run"`
	Order int    `json:"order"`
	Leaf  string `json:"leaf"`
	Round int    `json:"round"`
	Step  string `json:"step"`
	Text  string `json:"message"`
}

// kept holds the leaf's message.
type kept struct {
	Run   string `json:"run"`
	Order int    `json:"order"`
	Text  string `json:"message"`
}

// sum is a partial sum: which results are inside, by order and digest of their messages.
type sum struct {
	Run     string             `json:"run"`
	Round   int                `json:"round"`
	Step    string             `json:"step"`
	Orders  []int              `json:"orders"`
	Results []transport.Digest `json:"results"`
	Ref     transport.Ref      `json:"ref"`
}

// settled says that the coordinator has results, or that nobody waits for them.
type settled struct {
	Run    string `json:"run"`
	Have   []int  `json:"have,omitempty"`
	Out    []int  `json:"out,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// closed says that the phases of all orders up to one are over: the phases of a run do not overlap where relays are allowed.
type closed struct {
	Run     string `json:"run"`
	Through int    `json:"through"`
}

// key names an order of a run.
type key struct {
	run   string
	order int
}

// phaseKey names a phase of a run.
type phaseKey struct {
	run   string
	round int
	step  string
}

// job is one order of a leaf, from its task to the end of its phase.
type job struct {
	key
	phase  phaseKey
	leaf   string
	task   []byte
	digest transport.Digest // of the task
	result []byte           // nil until it is kept
	kept   transport.Digest // of the result
	have   bool             // the coordinator has the result
}

// ledger is the journal of a relay and what it says.
type ledger struct {
	*journal.Journal

	mu         sync.Mutex
	delegation *transport.Delegation
	text       []byte            // of the delegation's message
	leaves     map[string]string // keys of leaves by name; empty: not admitted yet
	names      map[string]string // names by key
	jobs       map[key]*job      // of phases that are not over
	through    map[string]int    // up to which order the phases of each run are over, plus one
}

// openLedger opens the journal in a folder, or makes it, and reads what it says.
func openLedger(dir, name string, federation identity.Public, o journal.Options) (*ledger, error) {
	o.Run = name + "@" + federation.String()
	j, err := journal.OpenOrCreate(dir, o)
	var locked *journal.LockedError
	if errors.As(err, &locked) {
		return nil, fmt.Errorf("this relay is at work already: %w", locked)
	}
	if err != nil {
		return nil, fmt.Errorf("journal of the relay: %w", err)
	}
	l := &ledger{Journal: j, leaves: map[string]string{}, names: map[string]string{}, jobs: map[key]*job{}, through: map[string]int{}}
	for r, err := range j.Records() {
		if err == nil {
			err = l.replay(r)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("journal of the relay: %w", err), j.Close())
		}
	}
	return l, nil
}

// note writes one record and applies it.
func (l *ledger) note(kind string, body any) error {
	rec, err := l.Append(kind, body)
	if err != nil {
		return fmt.Errorf("journal of the relay: %w", err)
	}
	return l.replay(rec)
}

// replay applies one record. Unknown kinds are of later versions and change nothing here.
func (l *ledger) replay(rec journal.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch rec.Kind {
	case KindDelegated:
		return apply(rec, l.delegate)
	case KindPassed:
		return apply(rec, func(b passed) error {
			// Another task for the same order comes of a coordinator that was put back to an earlier state, as one of a phase that was
			// over does; one that has only been long on its way goes with the next phase.
			k, digest := key{b.Run, b.Order}, transport.DigestOf([]byte(b.Text))
			if x := l.jobs[k]; x == nil || x.digest != digest {
				l.jobs[k] = &job{key: k, phase: phaseKey{b.Run, b.Round, b.Step}, leaf: b.Leaf, task: []byte(b.Text), digest: digest}
			}
			return nil
		})
	case KindKept:
		return apply(rec, func(b kept) error {
			if x := l.jobs[key{b.Run, b.Order}]; x != nil {
				x.result, x.kept = []byte(b.Text), transport.DigestOf([]byte(b.Text))
			}
			return nil
		})
	case KindSettled:
		return apply(rec, func(b settled) error {
			for _, order := range b.Have {
				if x := l.jobs[key{b.Run, order}]; x != nil {
					x.have = true
				}
			}
			for _, order := range b.Out {
				delete(l.jobs, key{b.Run, order})
			}
			return nil
		})
	case KindClosed:
		return apply(rec, func(b closed) error {
			l.through[b.Run] = b.Through + 1
			maps.DeleteFunc(l.jobs, func(k key, _ *job) bool { return k.run == b.Run && k.order <= b.Through })
			return nil
		})
	}
	return nil
}

func apply[T any](rec journal.Record, f func(T) error) error {
	var b T
	if err := rec.Decode(&b); err != nil {
		return err
	}
	return f(b)
}

// delegate takes over a list of leaves. The caller holds the lock.
func (l *ledger) delegate(b delegated) error {
	e, err := transport.Peek([]byte(b.Text)) // it was verified before it was written
	var d transport.Delegation
	if err == nil {
		err = e.Decode(&d)
	}
	if err != nil {
		return err
	}
	l.delegation, l.text = &d, []byte(b.Text)
	clear(l.leaves)
	clear(l.names)
	for _, leaf := range d.Leaves {
		l.leaves[leaf.Name] = leaf.Key
		if leaf.Key != "" {
			l.names[leaf.Key] = leaf.Name
		}
	}
	return nil
}

// who returns the leaf with a key.
func (l *ledger) who(k identity.Public) (string, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	name, ok := l.names[k.String()]
	return name, ok
}

// keyOf returns the key of a leaf.
func (l *ledger) keyOf(leaf string) (identity.Public, bool) {
	l.mu.Lock()
	text := l.leaves[leaf]
	l.mu.Unlock()
	k, err := identity.ParsePublic(text)
	return k, err == nil
}

// find returns a copy of what is known of an order, and whether its phase is over.
func (l *ledger) find(run string, order int) (x job, known, over bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if y := l.jobs[key{run, order}]; y != nil {
		return *y, true, false
	}
	return job{}, false, order < l.through[run]
}

// open returns the orders of a phase that is not over, sorted.
func (l *ledger) open(p phaseKey) []job {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []job
	for _, x := range l.jobs {
		if x.phase == p {
			out = append(out, *x)
		}
	}
	slices.SortFunc(out, func(a, b job) int { return a.order - b.order })
	return out
}

// phases returns those that are not over.
func (l *ledger) phases() map[phaseKey]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[phaseKey]bool{}
	for _, x := range l.jobs {
		out[x.phase] = true
	}
	return out
}

// ends reports whether a phase that is over is news.
func (l *ledger) ends(run string, through int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k := range l.jobs {
		if k.run == run && k.order <= through {
			return true
		}
	}
	return through >= l.through[run]
}

// needed returns the blobs of all that is not over, but for results that the coordinator has.
func (l *ledger) needed() map[transport.Digest]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[transport.Digest]bool{}
	for _, x := range l.jobs {
		messages := [][]byte{x.task}
		if !x.have {
			messages = append(messages, x.result)
		}
		for _, msg := range messages {
			if e, err := transport.Peek(msg); err == nil {
				for _, ref := range e.Refs {
					out[ref.Hash] = true
				}
			}
		}
	}
	return out
}

// behind returns the leaves, sorted.
func (l *ledger) behind() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.leaves))
}
