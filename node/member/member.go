package member

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/secure/dp"
	"github.com/cohort-learning/cohort/transport"
)

// Courier brings blobs to and from the coordinator. Both methods may be called again after an error, and by many goroutines.
type Courier interface {
	// Download brings a blob into the store, whole; what is there already is not fetched again.
	Download(ctx context.Context, to blob.Store, h blob.Hash) error
	// Upload brings a blob from the store to the coordinator, as far as it is missing there.
	Upload(ctx context.Context, from blob.Store, h blob.Hash) error
}

// Proposal is what a run asks of a member.
type Proposal struct {
	Run    string
	Terms  *transport.Terms
	Recipe *recipe.Recipe  // nil: see Assist
	Assist *assisted.Terms // what is asked of an organisation with columns of its own; nil: see Recipe
}

// Method is what the run calls its way of learning.
func (p Proposal) Method() string {
	if p.Assist != nil {
		return p.Assist.Method()
	}
	return p.Recipe.Method
}

// Rounds is how many rounds the run has at most.
func (p Proposal) Rounds() int {
	if p.Assist != nil {
		return p.Assist.Rounds
	}
	return p.Recipe.Rounds
}

// hidden reports whether nothing but what a secure sum hides may leave.
func (p Proposal) hidden() bool { return p.Recipe != nil && p.Recipe.Hidden() }

// masked reports whether the coordinator learns sums only.
func (p Proposal) masked() bool { return p.Recipe != nil && p.Recipe.Secure.Sums == "masked" }

// Part is what a member has for a run: its data, and how it computes on them.
type Part struct {
	Client    federated.Client
	Algorithm federated.Algorithm // for previews; may be nil
	Local     federated.Local     // the member's index and declared samples come with each task
	Schema    json.RawMessage     // of the data
	Data      string              // what the data are, in a few words
	Model     string              // what the model is, in a few words
	Samples   int                 // declared; 0: those of Local
	Tests     int                 // likewise
	Gaps      bool                // what tasks bring may hold NaN, for rows that have no value: the client checks them
	Close     func()              // may be nil
	// Listen, if not nil, is told whom to tell what has been answered to requests for predictions.
	Listen func(tell func(text string))

	hidden  bool      // nothing but what a secure sum or noise hides may leave
	metrics []string  // that the terms name
	privacy *dp.Terms // that the terms announce; nil: none
	rounds  int
}

// Options are what a member needs. Folder, Dial and Prepare are required, and Blobs unless all tensors fit into messages.
type Options struct {
	Folder *Folder
	Policy Policy
	// Parallel is how many tasks are computed at a time; 0 means 1.
	Parallel int
	// Program, Kernels and Can are told to the coordinator: the version of the program, the engine and kernel path, what the
	// member can do.
	Program, Kernels string
	Can              []string
	// Dial makes the connection. It may fail and is then tried again, unless the error is [transport.ErrDenied].
	Dial func(context.Context) (transport.Link, error)
	// Probe asks, while there is no connection, whether there will be one: [transport.ErrDenied] says no. Other errors mean
	// nothing. It may be nil.
	Probe func(context.Context) error
	// Store holds blobs; nil is the folder's own, which is closed at the end.
	Store blob.Store
	Blobs Courier
	// Proof returns the coordinator's journal of a run from a record on; nil: heads are compared, but not the way between them.
	Proof func(ctx context.Context, run string, from uint64) (io.ReadCloser, error)
	// Relay returns the delegation that the relay at the other end of the connection shows; its error is [ErrNoRelay] if that is
	// the coordinator itself. It is asked on every new connection. nil: there are no relays.
	Relay func(context.Context) ([]byte, error)
	// Roster returns the federation's roster, from its first line; nil: peers are known by their pinned keys only.
	Roster func(ctx context.Context) (io.ReadCloser, error)
	// Pins are public keys of other members that were exchanged without the coordinator. With any, the member takes part in
	// secure sums only where enough of its peers are among them.
	Pins map[string]identity.Public
	// Prepare loads the data for a run and makes its client. An error declines the run.
	Prepare func(context.Context, Proposal) (*Part, error)
	// Announced reads what a run announces about its privacy; nil, or an answer of nil: nothing. Its error declines the run.
	Announced func(Proposal) (*dp.Terms, error)
	// Budget pays for private runs; nil: none is agreed to.
	Budget Budget
	// Events is told what happens; calls come one at a time and must be quick.
	Events func(Event)
	// Stop, when closed, ends the member: what is being computed is given up, what is being sent may still take Grace.
	Stop <-chan struct{}
	// Stay keeps the member here when all runs are over, for those that come.
	Stay bool
	// AcceptRollback accepts, once a run, a coordinator whose journal does not continue what was seen.
	AcceptRollback bool

	FS     journal.FS       // nil: the system's
	Now    func() time.Time // the clock of the policy and of records; nil: time.Now
	Jitter *rng.Stream      // spreads what members do at intervals; nil: a stream of the member's name
}

// Pace of a member.
const (
	Grace      = 10 * time.Second       // that a result under way may take when the member is stopped
	patience   = 20 * time.Second       // for an answer of the coordinator
	interval   = 30 * time.Second       // between syncs, when nothing else happens
	firstRetry = 200 * time.Millisecond // doubled with each failure
	lastRetry  = 30 * time.Second
	backlog    = 1024 // messages that may wait to be handled
	maxOpen    = 64   // tasks of a run that wait to be computed
	maxTries   = 5    // at what may be the other side's fault
)

// Member is one participant. It runs once.
type Member struct {
	o      Options
	name   string
	fed    string
	fs     journal.FS
	store  blob.Store
	link   transport.Link
	ledger *ledger

	root   context.Context
	cancel context.CancelCauseFunc
	work   context.Context // ends when the member is stopped: nothing is computed any more
	rest   context.CancelFunc
	walks  sync.WaitGroup
	slots  chan struct{}
	poke   chan struct{}
	making sync.RWMutex // read-held while blobs come into the store that nothing refers to yet

	telling  sync.Mutex
	jitter   sync.Mutex
	charging sync.Mutex // held while a round is paid for

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced whenever something changes that somebody may wait for
	up       bool
	relay    *transport.Delegation // that the member is behind; nil: none
	conn     uint64                // number of the connection
	states   uint64                // how often the link told its state
	welcomed uint64                // the connection on which the coordinator has greeted
	syncs    uint64                // asked so far
	sending  int                   // results that are being sent at this moment

	peers  *peers
	vaults map[string]*vault // by run

	coordinator string // what it calls itself
	forgiven    map[string]bool
	ignored     map[string]int
	invited     map[string]bool // runs whose terms were pushed
}

// New returns a member that is ready to run.
func New(o Options) (*Member, error) {
	if o.Folder == nil || o.Dial == nil || o.Prepare == nil {
		panic("member: Options need Folder, Dial and Prepare")
	}
	for _, c := range o.Can {
		if c == "exec" && !o.Policy.Exec {
			return nil, fmt.Errorf("%s does not allow programs of your own: set exec: true there if you trust yours", filepath.Join(o.Folder.Dir, PolicyName))
		}
	}
	m := &Member{o: o, name: o.Folder.Card.Name, fed: o.Folder.Card.Federation.String(), fs: o.FS, store: o.Store,
		slots: make(chan struct{}, max(1, o.Parallel)), poke: make(chan struct{}, 1), changed: make(chan struct{}),
		forgiven: map[string]bool{}, ignored: map[string]int{}, invited: map[string]bool{}, vaults: map[string]*vault{}}
	if m.fs == nil {
		m.fs = journal.OS()
	}
	if m.o.Now == nil {
		m.o.Now = time.Now
	}
	m.peers = &peers{key: o.Folder.Key, own: m.name, pins: o.Pins, insist: len(o.Pins) > 0}
	if o.Roster != nil {
		anew := o.AcceptRollback // once
		m.peers.fetch = func(ctx context.Context) (*identity.View, error) {
			view, err := m.roster(ctx, anew)
			anew = anew && err != nil
			return view, err
		}
	}
	if m.o.Jitter == nil {
		m.o.Jitter = rng.New(0, 0, m.name, "jitter")
	}
	return m, nil
}

func (m *Member) now() time.Time { return m.o.Now() }

// DeclinedError says that the member takes part in no run, and why.
type DeclinedError struct{ Reasons []string }

func (e *DeclinedError) Error() string {
	return "this member takes part in nothing: " + strings.Join(e.Reasons, "; ")
}

// RevokedError says that the coordinator has put the member out.
type RevokedError struct{ Reason string }

func (e *RevokedError) Error() string {
	if e.Reason == "" {
		return "the coordinator has revoked this member"
	}
	return "the coordinator has revoked this member: " + e.Reason
}

// ConflictError says that the coordinator contradicts itself. Nothing more is done for it.
type ConflictError struct{ Run, What string }

func (e *ConflictError) Error() string {
	return fmt.Sprintf("run %s: the coordinator contradicts itself: %s; what it signed is in the journal of this member", e.Run, e.What)
}

// ErrLeft says that the member has withdrawn from its federation.
var ErrLeft = errors.New("this member has left its federation; ask for a new invitation to join again, in a new folder")

// Run takes part until all runs that the coordinator offers are over, and returns nil then unless it is to stay. Other ends are
// [federated.ErrStopped] when Stop was closed, the error of ctx, *[DeclinedError], *[RevokedError], *[RollbackError],
// *[ConflictError], or what keeps the member from going on. Whatever ended it, another Run in the same folder goes on.
func (m *Member) Run(ctx context.Context) (err error) {
	if err := m.open(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	m.root, m.cancel = context.WithCancelCause(ctx)
	m.work, m.rest = context.WithCancel(m.root)
	defer m.rest()
	defer m.cancel(nil)
	if m.link, err = m.dial(m.root); err != nil {
		return m.why(err)
	}
	var own sync.WaitGroup
	pushed := make(chan []byte, backlog)
	own.Go(func() { m.listen(m.root, pushed) })
	own.Go(func() { m.watchStop(m.root) })
	m.link.Receive(func(msg []byte) {
		select {
		case pushed <- msg:
		default: // what is lost comes with the next sync
		}
	})
	m.link.OnState(m.state)
	err = m.session(m.root)
	if err == nil {
		m.cancel(errOver)
	} else {
		err = m.why(err)
		m.cancel(err)
	}
	m.walks.Wait()
	own.Wait()
	return errors.Join(err, m.link.Close())
}

// errOver is why things end at the end of all runs.
var errOver = errors.New("the run is over")

// why is the cause of an end: what was said when the member was cancelled, or the error itself.
func (m *Member) why(err error) error {
	if m.root != nil && m.root.Err() != nil {
		if cause := context.Cause(m.root); cause != nil && !errors.Is(cause, errOver) {
			return cause
		}
	}
	return err
}

// fail ends the member.
func (m *Member) fail(err error) { m.cancel(err) }

// open opens journal and store, and tidies what a crash left.
func (m *Member) open(ctx context.Context) (err error) {
	dir := m.o.Folder.Dir
	if m.ledger, err = openLedger(dir, m.name, m.o.Folder.Card.Federation, journal.Options{FS: m.fs, Now: m.o.Now}); err != nil {
		return err
	}
	if m.ledger.left {
		return errors.Join(ErrLeft, m.ledger.Close())
	}
	if m.store == nil {
		if m.store, err = blob.OpenDir(filepath.Join(dir, StoreName), m.fs); err != nil {
			return errors.Join(err, m.ledger.Close())
		}
	}
	if found := m.ledger.Recovery().String(); found != "" {
		m.tell(Event{Kind: EventWarning}, "%s", found)
	}
	for _, r := range m.ledger.runs {
		m.tidy(r)
	}
	m.sweep(ctx)
	return nil
}

func (m *Member) close() error {
	var errs []error
	for _, r := range m.ledger.runs {
		if r.part != nil && r.part.Close != nil {
			r.part.Close()
		}
	}
	if m.o.Store == nil {
		if c, ok := m.store.(io.Closer); ok {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(append(errs, m.ledger.Close())...)
}

// dial makes the first connection, and tries until it is there.
func (m *Member) dial(ctx context.Context) (transport.Link, error) {
	told := ""
	for n := 0; ; n++ {
		link, err := m.o.Dial(ctx)
		if err == nil || errors.Is(err, transport.ErrDenied) || ctx.Err() != nil {
			return link, err
		}
		if text := oneLine(err.Error(), 300); text != told {
			told = text
			m.tell(Event{Kind: EventConnecting}, "no connection yet: %s; trying again", text)
		}
		if err := m.sleep(ctx, m.backoff(n)); err != nil {
			return nil, err
		}
	}
}

// state is told whenever the connection comes or goes.
func (m *Member) state(connected bool) {
	m.mu.Lock()
	was := m.up
	m.up = connected
	m.states++
	if connected && !was {
		m.conn++
	}
	m.wake()
	m.mu.Unlock()
	if was && !connected && m.root.Err() == nil {
		m.tell(Event{Kind: EventDisconnected}, "connection lost; reconnecting")
	}
}

// wake wakes everybody who waits for a change. The caller holds the lock.
func (m *Member) wake() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// until waits until ok, which is called with the lock held.
func (m *Member) until(ctx context.Context, ok func() bool) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		m.mu.Lock()
		if ok() {
			m.mu.Unlock()
			return nil
		}
		changed := m.changed
		m.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func (m *Member) sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// backoff is how long to wait after n failures.
func (m *Member) backoff(n int) time.Duration {
	d := lastRetry
	if n < 8 {
		d = min(lastRetry, firstRetry<<n)
	}
	return m.spread(d)
}

// spread draws a time around d, so that members do not move in step.
func (m *Member) spread(d time.Duration) time.Duration {
	m.jitter.Lock()
	defer m.jitter.Unlock()
	return time.Duration(float64(d) * (0.75 + 0.5*m.o.Jitter.Float64()))
}

// nudge asks the session to sync soon.
func (m *Member) nudge() {
	select {
	case m.poke <- struct{}{}:
	default:
	}
}

// listen handles what the coordinator pushes.
func (m *Member) listen(ctx context.Context, pushed <-chan []byte) {
	for {
		select {
		case msg := <-pushed:
			if _, err := m.handle(ctx, msg); err != nil {
				m.fail(err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// watchStop ends the member when it is asked to stop.
func (m *Member) watchStop(ctx context.Context) {
	select {
	case <-m.o.Stop:
	case <-ctx.Done():
		return
	}
	m.rest()
	quick, cancel := context.WithTimeout(ctx, Grace)
	defer cancel()
	_ = m.until(quick, func() bool { return m.sending == 0 }) // whatever came of it
	m.fail(federated.ErrStopped)
}

// tidy removes the files of memories of a run that nothing needs.
func (m *Member) tidy(r *run) {
	m.mu.Lock()
	needed := map[int]bool{r.order: r.memory != nil}
	newest := r.order
	for id, o := range r.orders {
		newest = max(newest, id)
		if o.status != over && (o.memory != nil || o.status == atWork) {
			needed[id] = true
		}
	}
	m.mu.Unlock()
	if err := tidyMemory(m.fs, m.o.Folder.Dir, r.id, func(order int) bool {
		return needed[order] || order > newest // one that has been taken since may be writing its memory
	}); err != nil {
		m.tell(Event{Kind: EventWarning, Run: r.id}, "old files cannot be removed: %v", err)
	}
}

// sweep deletes blobs that nothing needs, unless others are just coming in.
func (m *Member) sweep(ctx context.Context) {
	if !m.making.TryLock() {
		return
	}
	defer m.making.Unlock()
	live := map[blob.Hash]bool{}
	m.mu.Lock()
	for _, r := range m.ledger.runs {
		for _, o := range r.orders {
			for _, msg := range [][]byte{o.message, o.result} {
				e, err := transport.Peek(msg)
				if err != nil {
					continue
				}
				for _, ref := range e.Refs {
					live[blob.Hash(ref.Hash)] = true
				}
			}
		}
	}
	m.mu.Unlock()
	if _, err := blob.Collect(ctx, m.store, func(h blob.Hash) bool { return live[h] }); err != nil && ctx.Err() == nil {
		m.tell(Event{Kind: EventWarning}, "blobs that are not needed any more cannot be deleted: %v", err)
	}
}
