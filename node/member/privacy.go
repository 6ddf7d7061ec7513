package member

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"sync"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/secure/dp"
	dpledger "github.com/cohort-learning/cohort/secure/dp/ledger"
	"github.com/cohort-learning/cohort/transport"
)

// Budget is the account of the member's data, from which every round of a private run is paid before anything leaves for it.
// *[Account] is one. Methods are called by many goroutines. A [*dpledger.SpentError] says that the budget does not allow it, and then
// nothing has changed; any other error is a fault of this machine.
type Budget interface {
	// Allow reports whether so many rounds like the entry, from its round on, fit. It charges nothing.
	Allow(ctx context.Context, first dpledger.Entry, rounds int) error
	// AllowOpen reports whether a run that has no noise at all may see the data.
	AllowOpen(ctx context.Context) error
	// Charge makes entries durable before it returns, all or none. An entry with a key that is charged costs nothing again.
	Charge(ctx context.Context, entries ...dpledger.Entry) (Paid, error)
	// Holds returns an error unless the account still holds what it held when it had that head.
	Holds(ctx context.Context, head journal.Head) error
}

// Paid is what an account says after a charge.
type Paid struct {
	Head    journal.Head // of the ledger
	Epsilon float64      // ε of everything that the data were charged, +Inf if nothing bounds it
	Delta   float64      // at this δ
}

// Account is the ledger of the data at a path, in the folder that members of this machine share. It is opened when it is first
// needed, which reads all the data once.
type Account struct {
	Root    string // folder of the ledgers
	Data    string // path of the data
	Limit   dpledger.Budget
	Options dpledger.Options

	mu     sync.Mutex
	ledger *dpledger.Ledger
}

var _ Budget = (*Account)(nil)

func (a *Account) open(ctx context.Context) (*dpledger.Ledger, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ledger != nil {
		return a.ledger, nil
	}
	label, err := filepath.Abs(a.Data)
	if err != nil {
		return nil, err
	}
	digest, err := dpledger.DigestOf(ctx, a.Data)
	if err != nil {
		return nil, fmt.Errorf("reading the data for their privacy ledger: %w", err)
	}
	a.ledger, err = dpledger.Open(a.Root, digest, label, a.Options)
	if err != nil {
		a.ledger = nil
	}
	return a.ledger, err
}

// Allow implements [Budget].
func (a *Account) Allow(ctx context.Context, first dpledger.Entry, rounds int) error {
	l, err := a.open(ctx)
	if err != nil {
		return err
	}
	return l.Allow(a.Limit, first, rounds)
}

// AllowOpen implements [Budget]: such a run is allowed where there is no budget.
func (a *Account) AllowOpen(ctx context.Context) error {
	if a.Limit.None() {
		if some, err := a.budgets(); err != nil || !some {
			return err
		}
	}
	l, err := a.open(ctx)
	if err != nil {
		return err
	}
	own, err := l.Budget()
	if err != nil {
		return err
	}
	for i, b := range []dpledger.Budget{own, a.Limit} {
		if b.None() {
			continue
		}
		spent, _, err := l.Spent(b.Delta)
		if err != nil {
			return err
		}
		return &dpledger.SpentError{Spent: spent, After: math.Inf(1), Rounds: 1, Budget: b, Own: i == 0}
	}
	return nil
}

// budgets reports whether any data have a budget, without reading the data at hand.
func (a *Account) budgets() (bool, error) {
	all, err := dpledger.List(a.Root, a.Options)
	for _, l := range all {
		if b, err := l.Budget(); err != nil || !b.None() {
			return true, err
		}
	}
	return false, err
}

// Charge implements [Budget].
func (a *Account) Charge(ctx context.Context, entries ...dpledger.Entry) (p Paid, err error) {
	l, err := a.open(ctx)
	if err != nil {
		return p, err
	}
	r, err := l.ChargeWithin(ctx, a.Limit, entries...)
	if err != nil {
		return p, err
	}
	p.Head, p.Delta = r.Head, dpledger.DefaultDelta
	switch own, err := l.Budget(); {
	case err != nil:
		return p, err
	case !a.Limit.None():
		p.Delta = a.Limit.Delta
	case !own.None():
		p.Delta = own.Delta
	}
	p.Epsilon, _, err = l.Spent(p.Delta)
	return p, err
}

// Holds implements [Budget].
func (a *Account) Holds(ctx context.Context, head journal.Head) error {
	l, err := a.open(ctx)
	if err != nil {
		return err
	}
	return l.Holds(head)
}

// charged is a round that the data were charged. Attempts are counted by the tasks that a round brought.
type charged struct {
	Run       string           `json:"run"`
	Round     int              `json:"round"`
	Step      string           `json:"step"`
	Attempt   int              `json:"attempt,omitempty"`
	Task      transport.Digest `json:"task,omitzero"` // zero: not asked, or not yet
	Amplified bool             `json:"amplified"`
	Trusts    string           `json:"trusts,omitempty"`
	Epsilon   *float64         `json:"epsilon"` // of everything that the data were charged by then; null: nothing bounds it
	Delta     float64          `json:"delta"`
	Ledger    journal.Head     `json:"ledger"`
}

// pay takes in a charge.
func (r *run) pay(b charged) {
	key := phaseKey{b.Round, b.Step}
	for len(r.paid[key]) <= b.Attempt {
		r.paid[key] = append(r.paid[key], transport.Digest{})
	}
	r.paid[key][b.Attempt] = b.Task
	r.receipt = &b.Ledger
}

// maxAttempts bounds what a journal may say about one round.
const maxAttempts = 1 << 16

// private is the one step whose results are hidden by the noise that a run announces.
const private = "train"

// announced returns what a run announces about its privacy: nil if nothing.
func (m *Member) announced(p Proposal) (*dp.Terms, error) {
	if m.o.Announced == nil || p.Recipe == nil { // what organisations answer with, noise does not hide
		return nil, nil
	}
	t, err := m.o.Announced(p)
	if err != nil || t == nil {
		return nil, err
	}
	if err := t.Validate(); err != nil {
		return nil, fmt.Errorf("what the run says about its privacy: %w", err)
	}
	return t, nil
}

// afford holds a run against the budget of the data. An error declines the run; what the coordinator is told of it says nothing
// about what others have spent.
func (m *Member) afford(ctx context.Context, p Proposal, t *dp.Terms) error {
	var err error
	switch {
	case t == nil && m.o.Budget == nil:
	case t == nil:
		err = m.o.Budget.AllowOpen(ctx)
	case m.o.Budget == nil:
		return errors.New("the run announces differential privacy, and this member keeps no privacy ledger to charge it to")
	default:
		rounds := p.Rounds()
		if m.o.Policy.Overrun == OverrunStop {
			rounds = min(rounds, 1)
		}
		err = m.o.Budget.Allow(ctx, m.entry(p.Run, t, 0, 0, t.Amplified()), rounds)
	}
	return budgeted(err)
}

// budgeted keeps from the coordinator what an account says.
func budgeted(err error) error {
	var spent *dpledger.SpentError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &spent):
		return &PrivateError{err, "the privacy budget of this member's data does not allow it"}
	}
	return &PrivateError{err, "this member cannot use its privacy ledger"}
}

// accounted checks that a private run that was agreed to before can still be paid for from the same ledger.
func (m *Member) accounted(ctx context.Context, r *run, t *dp.Terms) error {
	m.mu.Lock()
	receipt := r.receipt
	m.mu.Unlock()
	switch {
	case t == nil:
		return nil
	case m.o.Budget == nil:
		return errors.New("it is charged to the privacy of the data, and this member keeps no privacy ledger any more")
	case receipt == nil:
		return nil
	}
	return m.o.Budget.Holds(ctx, *receipt)
}

// entry is a charge for a round of a run.
func (m *Member) entry(run string, t *dp.Terms, round, attempt int, amplified bool) dpledger.Entry {
	m.mu.Lock()
	name := m.coordinator
	m.mu.Unlock()
	return dpledger.Entry{Coordinator: dpledger.Coordinator{Name: name, Key: m.fed}, Run: run, Round: round, Phase: private, Attempt: attempt,
		Member: m.name, Terms: *t, Amplified: amplified}
}

// owed returns what is to be charged before a task of a round is computed, or before a round may ask. If rounds are charged by the
// chance of being asked, all earlier ones are among it. A second task for the same round is one more look at the data, and one that
// came by no secret coin: it is charged at its full price. The caller holds the lock.
func (r *run) owed(t *dp.Terms, round int, task transport.Digest) (out []charged) {
	first := round
	if t.Amplified() {
		first = 0
	}
	for k := first; k <= round; k++ {
		tasks := r.paid[phaseKey{k, private}]
		c := charged{Run: r.id, Round: k, Step: private, Amplified: t.Amplified(), Trusts: t.Trusts}
		asked := k == round && task != transport.Digest{}
		if asked {
			c.Task = task
		}
		switch {
		case len(tasks) == 0:
		case !asked, slices.Contains(tasks, task):
			continue
		case len(tasks) == 1 && tasks[0] == transport.Digest{}: // charged before it asked
		default:
			c.Attempt, c.Amplified = len(tasks), false
		}
		out = append(out, c)
	}
	return out
}

// charge pays what is owed for a round, durably in the ledger first and then in the member's journal. When it has returned without
// an error, what is computed for the task may leave.
func (m *Member) charge(ctx context.Context, r *run, part *Part, round int, task transport.Digest) error {
	m.charging.Lock()
	defer m.charging.Unlock()
	m.mu.Lock()
	owed := r.owed(part.privacy, round, task)
	m.mu.Unlock()
	if len(owed) == 0 {
		return nil
	}
	entries := make([]dpledger.Entry, len(owed))
	for i, c := range owed {
		entries[i] = m.entry(r.id, part.privacy, c.Round, c.Attempt, c.Amplified)
	}
	paid, err := m.o.Budget.Charge(ctx, entries...)
	if err != nil {
		return err
	}
	notes := make([]journal.Entry, len(owed))
	for i, c := range owed {
		c.Delta, c.Ledger = paid.Delta, paid.Head
		if !math.IsInf(paid.Epsilon, 1) {
			c.Epsilon = &paid.Epsilon
		}
		notes[i] = journal.Entry{Kind: KindCharged, Body: c}
	}
	m.mu.Lock()
	recs, err := m.ledger.AppendAll(notes)
	if err != nil {
		err = fmt.Errorf("journal of the member: %w", err)
	}
	for _, rec := range recs {
		err = errors.Join(err, m.ledger.replay(rec))
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	spent := "no bound holds any more"
	if !math.IsInf(paid.Epsilon, 1) {
		spent = fmt.Sprintf("ε %.3g at δ %.3g", paid.Epsilon, paid.Delta)
	}
	m.tell(Event{Kind: EventCharged, Run: r.id, Round: round + 1, Step: private}, "run %s, round %d: charged to the data, which have now spent %s", r.id, round+1, spent)
	return nil
}

// toll is charge for a task that is about to be computed. Its error is a *[localError], the context's, or what the round is declined
// with.
func (m *Member) toll(ctx context.Context, r *run, o *order) error {
	part := r.part
	if part.privacy == nil {
		return nil
	}
	switch o.step {
	case private, private + ".masked":
	case private + ".keys", private + ".shares", private + ".confirm", private + ".unmask":
		return nil // about keys, not about data
	default:
		return fmt.Errorf("the noise of this run hides %q only; this member sends nothing else", private)
	}
	err := m.charge(ctx, r, part, o.round, o.task)
	var spent *dpledger.SpentError
	switch {
	case err == nil, ctx.Err() != nil:
		return err
	case errors.As(err, &spent):
		return budgeted(err)
	}
	return &localError{err}
}

// ahead charges the round after one that has closed, if rounds are charged by the chance of being asked: from now on it may ask.
// If the budget does not allow it, the member will not answer.
func (m *Member) ahead(ctx context.Context, r *run, round int, step string) error {
	m.mu.Lock()
	part, last := r.part, r.last
	m.mu.Unlock()
	if part == nil || part.privacy == nil || !part.privacy.Amplified() || step != private || last != nil || round+1 >= part.rounds {
		return nil
	}
	err := m.charge(ctx, r, part, round+1, transport.Digest{})
	var spent *dpledger.SpentError
	if errors.As(err, &spent) {
		m.mu.Lock()
		told := r.spent
		r.spent = true
		m.mu.Unlock()
		if !told {
			m.tell(Event{Kind: EventSpent, Run: r.id, Round: round + 2, Step: private}, "run %s: this member answers no further round: %v", r.id, spent)
		}
		return nil
	}
	return err
}

// hidden says what an agreed run promises, for people.
func hidden(t *dp.Terms) string {
	if t == nil {
		return ""
	}
	text := fmt.Sprintf(". Noise of multiplier %.3g hides each member in the sum", t.Noise)
	if t.Trusts != "" {
		text += "; this member trusts " + oneLine(t.Trusts, 60) + " for the noise"
	}
	if t.Amplified() {
		return text + "; every round is charged to the privacy of the data, asked or not"
	}
	return text + "; every round taken is charged to the privacy of the data"
}
