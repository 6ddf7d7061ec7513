package fedtest

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/weights"
)

// Members carry orders to clients in this process, in virtual time, for tests: [federated.Members] that are as plain as
// can be. The fields must not change once they are in use.
type Members struct {
	Client federated.Client
	Local  func(federated.Member) federated.Local
	// Threads is how many clients run at a time; 0 means 1.
	Threads int
	// Shuffle orders answers that arrive at the same time: another number, another order.
	Shuffle uint64
	// Delay is how long an answer takes; nil: no time.
	Delay func(*federated.Order) time.Duration
	// Tamper, if not nil, changes answers on their way.
	Tamper func(*federated.Answer)

	mu      sync.Mutex
	clock   time.Duration
	flights []*flight
	memory  map[int]*weights.Set
}

type flight struct {
	order  *federated.Order
	at     time.Duration
	tie    uint64
	answer *federated.Answer
}

// Now implements [federated.Members].
func (m *Members) Now() time.Duration { return m.clock }

// Issue implements [federated.Members].
func (m *Members) Issue(_ context.Context, o *federated.Order) error {
	f := &flight{order: o, at: o.Issued, tie: rng.New(m.Shuffle, o.ID, "", "tie").Uint64()}
	if m.Delay != nil {
		f.at += m.Delay(o)
	}
	m.flights = append(m.flights, f)
	return nil
}

// Next implements [federated.Members]: it computes whatever is in flight, and returns what arrives first.
func (m *Members) Next(ctx context.Context, deadline time.Duration) (*federated.Answer, error) {
	var wg sync.WaitGroup
	slot := make(chan struct{}, max(1, m.Threads))
	for _, f := range m.flights {
		if f.answer != nil {
			continue
		}
		slot <- struct{}{}
		wg.Go(func() {
			defer func() { <-slot }()
			f.answer = federated.Perform(ctx, m.Client, m.Local(f.order.Member), f.order, m.kept(f.order.Member.Index))
			if m.Tamper != nil {
				m.Tamper(f.answer)
			}
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	first := slices.MinFunc(m.flights, func(a, b *flight) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.tie, b.tie))
	})
	if deadline > 0 && first.at > deadline {
		m.clock = max(m.clock, deadline)
		return nil, nil
	}
	m.clock = max(m.clock, first.at)
	m.Drop(first.order)
	return first.answer, nil
}

// Drop implements [federated.Members].
func (m *Members) Drop(o *federated.Order) {
	m.flights = slices.DeleteFunc(m.flights, func(f *flight) bool { return f.order == o })
}

// Keep implements [federated.Members].
func (m *Members) Keep(member int, s *weights.Set) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.memory == nil {
		m.memory = map[int]*weights.Set{}
	}
	m.memory[member] = s
	return nil
}

func (m *Members) kept(member int) *weights.Set {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.memory[member]
}

// Kept returns what members keep, by index.
func (m *Members) Kept() map[int]*weights.Set {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.memory)
}

// Restore sets clock and memories to those of an earlier moment.
func (m *Members) Restore(clock time.Duration, kept map[int]*weights.Set) {
	m.clock, m.memory = clock, maps.Clone(kept)
}
