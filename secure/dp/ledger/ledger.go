package ledger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/secure/dp"
)

// Options say how ledgers are kept. The zero value is ready for use.
type Options struct {
	FS       journal.FS       // nil: the system's
	Now      func() time.Time // nil: time.Now
	Patience time.Duration    // how long to wait for another process that is charging; 0: half a minute
}

func (o Options) fs() journal.FS {
	if o.FS == nil {
		return journal.OS()
	}
	return o.FS
}

// Ledger is the account of one data set. Its methods may be called by many goroutines, and any number of processes may have the
// same ledger open: each call looks at what the files hold.
type Ledger struct {
	root  string
	data  Digest
	label string // given by whoever opened it
	o     Options

	mu    sync.Mutex
	s     *state
	kin   map[Digest]*state // of all other ledgers in the folder
	total *cost             // of this one and those that share a label; nil after a change
}

// identity stands in the header of a ledger's file.
func identity(d Digest) string { return "privacy of " + d.String() }

// Open returns the ledger of data in the folder root, where nothing is written before the first charge or budget. The label,
// usually the path of the data, is for people, and for the rule that data under one label share what was spent; it may be empty.
// Errors: a ledger in the folder that is damaged, see [*DamageError].
func Open(root string, data Digest, label string, o Options) (*Ledger, error) {
	if len(label) > 8*longest {
		return nil, fmt.Errorf("label of data: %d bytes, expected at most %d", len(label), 8*longest)
	}
	l := &Ledger{root: root, data: data, label: label, o: o, s: newState(data), kin: map[Digest]*state{}}
	return l, l.Refresh()
}

func dirOf(root string, d Digest) string { return filepath.Join(root, d.String()) }

func pathOf(root string, d Digest) string { return filepath.Join(dirOf(root, d), journal.FileName) }

// Path returns the ledger's file.
func (l *Ledger) Path() string { return pathOf(l.root, l.data) }

// Data returns what the ledger is of.
func (l *Ledger) Data() Digest { return l.data }

// Labels returns what the data are called.
func (l *Ledger) Labels() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.labels()
}

func (l *Ledger) labels() []string {
	if l.label == "" {
		return slices.Clone(l.s.labels)
	}
	return with(slices.Clone(l.s.labels), l.label)
}

// Refresh reads what others have added. It takes no lock. The other methods do so by themselves.
func (l *Ledger) Refresh() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refresh()
}

func (l *Ledger) refresh() error {
	if err := l.read(l.s); err != nil {
		return err
	}
	return l.refreshKin()
}

// refreshKin reads the other ledgers in the folder.
func (l *Ledger) refreshKin() error {
	found, err := digests(l.root, l.o.fs())
	if err != nil {
		return err
	}
	for d := range l.kin {
		if !slices.Contains(found, d) {
			found = append(found, d) // which reading it tells
		}
	}
	for _, d := range found {
		if d == l.data {
			continue
		}
		s := l.kin[d]
		if s == nil {
			s = newState(d)
		}
		if err := l.read(s); err != nil {
			return err
		}
		l.kin[d] = s
	}
	return nil
}

// read applies the records of a file that are behind the state's head, and checks all.
func (l *Ledger) read(s *state) error {
	fsys, path := l.o.fs(), pathOf(l.root, s.data)
	head, begun := s.head()
	last := head
	for r, err := range journal.Read(fsys, dirOf(l.root, s.data)) {
		if errors.Is(err, fs.ErrNotExist) {
			last = journal.Head{}
			break
		}
		if err != nil {
			return damaged(path, err)
		}
		if err := l.take(s, r, head, begun); err != nil {
			return err
		}
		last = journal.Head{Seq: r.Seq, Hash: r.Hash}
	}
	if begun && (last.Seq < head.Seq || last.Hash == journal.Hash{}) {
		return &RewrittenError{path, head}
	}
	return nil
}

// take applies a record that is new, and compares the one at the head with what was seen.
func (l *Ledger) take(s *state, r journal.Record, head journal.Head, begun bool) error {
	if begun && r.Seq == head.Seq && r.Hash != head.Hash {
		return &RewrittenError{pathOf(l.root, s.data), head}
	}
	if r.Seq < uint64(len(s.hashes)) {
		return nil
	}
	if err := s.apply(r); err != nil {
		return &DamageError{pathOf(l.root, s.data), int(r.Seq) + 1, err}
	}
	l.total = nil
	return nil
}

// damaged turns damage that the journal found into a [*DamageError].
func damaged(path string, err error) error {
	var d *journal.DamageError
	if errors.As(err, &d) {
		return &DamageError{path, int(d.Seq) + 1, err}
	}
	return err
}

// relatives returns the other ledgers that share a label with this one, by digest.
func (l *Ledger) relatives() (out []*state) {
	labels := l.labels()
	for _, s := range l.kin {
		if slices.ContainsFunc(s.labels, func(label string) bool { return slices.Contains(labels, label) }) {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b *state) int { return slices.Compare(a.data[:], b.data[:]) })
	return out
}

// spent returns what all entries cost, those of relatives included.
func (l *Ledger) spent() *cost {
	if l.total == nil {
		l.total = l.s.spent.clone()
		for _, s := range l.relatives() {
			l.total.merge(s.spent)
		}
	}
	return l.total
}

// budget returns the newest of those of the ledger and its relatives.
func (l *Ledger) budget() Budget {
	b, set := l.s.budget, l.s.set
	for _, s := range l.relatives() {
		if s.set.After(set) {
			b, set = s.budget, s.set
		}
	}
	return b
}

// Holds returns a [*RewrittenError] unless the ledger holds the record that a head names: it was put back to an earlier state since.
func (l *Ledger) Holds(h journal.Head) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.refresh(); err != nil {
		return err
	}
	if !l.s.holds(h) {
		return &RewrittenError{l.Path(), h}
	}
	return nil
}

// Receipt says what a ledger holds after a charge.
type Receipt struct {
	Head  journal.Head // newest record
	Added int          // entries that were not charged before
}

// Charge makes entries durable before it returns, whatever the budget: for what can not be undone. Entries whose [Key] is charged
// are not charged again, so that it may be called anew after a crash. After an error some of the entries may be charged.
func (l *Ledger) Charge(ctx context.Context, entries ...Entry) (Receipt, error) {
	return l.charge(ctx, entries, func(*cost) error { return nil })
}

// ChargeWithin is Charge if all that is spent then stays within the ledger's own budget and within limit, and otherwise charges
// nothing and returns a [*SpentError]. Nobody else can charge between the question and the deed.
func (l *Ledger) ChargeWithin(ctx context.Context, limit Budget, entries ...Entry) (Receipt, error) {
	if err := limit.Validate(); err != nil {
		return Receipt{}, err
	}
	return l.charge(ctx, entries, func(c *cost) error { return l.fits(c, limit) })
}

func (l *Ledger) charge(ctx context.Context, entries []Entry, check func(*cost) error) (r Receipt, err error) {
	for _, e := range entries {
		if err := e.Validate(); err != nil {
			return r, fmt.Errorf("charge round %d of run %.40q: %w", e.Round+1, e.Run, err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	err = l.locked(ctx, func(j *journal.Journal) error {
		fresh, c := l.s.fresh(entries)
		if err := check(c); err != nil {
			return err
		}
		body := make([]journal.Entry, len(fresh))
		for i, e := range fresh {
			body[i] = journal.Entry{Kind: KindCharged, Body: e}
		}
		r.Added = len(fresh)
		return l.append(j, body)
	})
	if err != nil {
		return Receipt{}, err
	}
	r.Head, _ = l.s.head()
	return r, nil
}

// fits returns a [*SpentError] if a cost does not fit into the ledger's budget or into another one. Nothing always fits.
func (l *Ledger) fits(c *cost, limit Budget) error {
	if c.rounds == 0 {
		return nil
	}
	after := l.spent().clone()
	after.merge(c)
	for i, b := range []Budget{l.budget(), limit} {
		if b.None() || after.within(b) {
			continue
		}
		e := &SpentError{Rounds: c.rounds, Budget: b, Own: i == 0}
		e.Spent, _ = l.spent().epsilon(b.Delta)
		e.After, _ = after.epsilon(b.Delta)
		return e
	}
	return nil
}

// Allow returns a [*SpentError] if so many rounds like the entry, from its round on, would exceed the ledger's own budget or limit.
// Rounds that are charged already cost nothing more. It charges nothing, so that others may be quicker.
func (l *Ledger) Allow(limit Budget, first Entry, rounds int) error {
	if err := errors.Join(first.Validate(), limit.Validate()); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.refresh(); err != nil {
		return err
	}
	entries := make([]Entry, rounds)
	for i := range entries {
		entries[i] = first
		entries[i].Round += i
	}
	_, c := l.s.fresh(entries)
	return l.fits(c, limit)
}

// Budget returns the ledger's own budget.
func (l *Ledger) Budget() (Budget, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.refresh(); err != nil {
		return Budget{}, err
	}
	return l.budget(), nil
}

// SetBudget gives the ledger another budget, durably; the zero value removes it. It may be below what is spent already.
func (l *Ledger) SetBudget(ctx context.Context, b Budget) error {
	if err := b.Validate(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.locked(ctx, func(j *journal.Journal) error {
		if l.budget() == b {
			return nil
		}
		return l.append(j, []journal.Entry{{Kind: KindBudget, Body: b}})
	})
}

// Spent returns the ε of everything that is charged, at δ in (0, 1): the least that an accountant vouches for, +Inf if none does.
func (l *Ledger) Spent(delta float64) (float64, dp.Accountant, error) {
	if !(delta > 0 && delta < 1) {
		return 0, 0, fmt.Errorf("delta %v: expected a probability between 0 and 1", delta)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.refresh(); err != nil {
		return 0, 0, err
	}
	e, a := l.spent().epsilon(delta)
	return e, a, nil
}

// append writes records and takes them in.
func (l *Ledger) append(j *journal.Journal, entries []journal.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	records, err := j.AppendAll(entries)
	if err != nil {
		return err
	}
	for _, r := range records {
		if err := l.take(l.s, r, journal.Head{}, false); err != nil {
			return err
		}
	}
	return nil
}

// locked calls do while nobody else can charge in the folder, with all that it holds taken in. It begins the ledger if there is
// none.
func (l *Ledger) locked(ctx context.Context, do func(*journal.Journal) error) (err error) {
	unlock, err := l.lock(ctx)
	if err != nil {
		return fmt.Errorf("privacy ledger: %w", err)
	}
	defer func() { err = errors.Join(err, unlock.Close()) }()
	if err := l.refreshKin(); err != nil {
		return err
	}
	j, err := l.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	head, begun := l.s.head()
	if begun && j.Head().Seq < head.Seq {
		return &RewrittenError{l.Path(), head}
	}
	for r, err := range j.From(head.Seq) {
		if err == nil {
			err = l.take(l.s, r, head, begun)
		}
		if err != nil {
			return damaged(l.Path(), err)
		}
	}
	if l.label != "" && !slices.Contains(l.s.labels, l.label) {
		if err := l.append(j, []journal.Entry{{Kind: KindNamed, Body: named{l.data, l.label}}}); err != nil {
			return err
		}
	}
	return do(j)
}

// lock takes the lock of the folder, and waits for others who have it.
func (l *Ledger) lock(ctx context.Context) (io.Closer, error) {
	fsys := l.o.fs()
	if err := fsys.MkdirAll(l.root, 0o700); err != nil {
		return nil, err
	}
	patience := l.o.Patience
	if patience == 0 {
		patience = 30 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		c, err := fsys.Lock(filepath.Join(l.root, journal.LockName))
		var held *journal.LockedError
		if !errors.As(err, &held) {
			return c, err
		}
		t := time.NewTimer(time.Millisecond + rand.N(10*time.Millisecond))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, fmt.Errorf("nothing can be charged, another process has been charging all the while: %w", err)
		}
	}
}

// open opens the file to append to it, and makes it if there is none.
func (l *Ledger) open() (*journal.Journal, error) {
	o := journal.Options{FS: l.o.fs(), Now: l.o.Now, Run: identity(l.data)}
	dir := dirOf(l.root, l.data)
	j, err := journal.Open(dir, o)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, journal.ErrEmpty) {
		if head, begun := l.s.head(); begun {
			return nil, &RewrittenError{l.Path(), head}
		}
		j, err = journal.Create(dir, o)
	}
	if err != nil {
		return nil, damaged(l.Path(), fmt.Errorf("privacy ledger: %w", err))
	}
	return j, nil
}
