package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/transport"
)

// Spec is a run to be.
type Spec struct {
	ID        string
	Recipe    []byte          // resolved; it is part of the terms
	Assist    bool            // Recipe is what organisations with columns of their own are asked for instead, see assisted.Terms
	Schema    json.RawMessage // of the data; nil: that of the first member to agree
	Members   int             // how many must have agreed before the first round
	Await     []string        // and who must be among them
	Algorithm federated.Algorithm
	Server    federated.Server // the coordinator's own data and engine; the run fills in the population
	Config    federated.Config
	Metrics   []string // scalars that may be asked of members
	// Check returns what is wrong with a member's declaration, given the schema that was agreed so far; it may agree on one.
	Check func(schema json.RawMessage, c *transport.Consent) (agreed json.RawMessage, err error)
	// Observer, if not nil, is told what happens while it happens.
	Observer simulation.Observer
	// Changed, if not nil, is called when the journal, or what Now and Standing return, may have changed. It must be quick.
	Changed func()
	// Window is how many results may lie unfolded; 0 means 64.
	Window int
	// Together is how many tasks of a phase that ask the same are worth one message to all; 0 means 16.
	Together int
	// Absent is how long a phase that measures waits for a member that is not here; 0 means a minute.
	Absent time.Duration
}

// Run is one run of a server.
type Run struct {
	srv      *Server
	spec     Spec
	rec      *record.Run
	desk     *desk
	spool    *spool
	appender *appender
	acks     *acks
	parting  parting
	keeper   *keeper
	people   *population
	log      *slog.Logger
	model    int64 // bytes of the state before the first round
	limit    int64 // bytes of a result
	refusals atomic.Int64
	round    atomic.Int64
	answered atomic.Int64
	asked    atomic.Int64
	deadline atomic.Int64 // of the phase, on the desk's clock; 0: none
	phase    atomic.Pointer[string]

	closing sync.RWMutex // read-held by those who read in the folder
	closed  bool

	summable error // why relays cannot add the results of its members; nil: they can
	hiding   hiding

	delegating  sync.Mutex
	delegations map[string]string // those behind each relay, as recorded last

	joining  sync.Mutex // held while members join or leave
	waited   bool       // long enough: the first round begins with those who are there
	lobby    map[string]accepted
	entering map[string][]func(error) // who waits for the record that a member has agreed
	gone     map[string]string        // members that left before the coordinator was restarted, and why

	mu      sync.Mutex
	terms   []byte // the signed message
	schema  json.RawMessage
	agreed  chan struct{} // closed when enough members have agreed
	state   Stage
	failure error
	done    chan struct{}
	stop    chan struct{} // closed: stop after the round under way
	halt    sync.Once
}

// Results of a phase that a robust rule is to read lie in the folder "rows" of the run. What a crash left there is of no use:
// accepted results are given to the driver again.
const rowsDir = "rows"

// Stage is how far a run has come.
type Stage string

// Stages.
const (
	Waiting  Stage = "waiting" // for members
	Learning Stage = "learning"
	Ended    Stage = "ended"
	Stopped  Stage = "stopped"
	Broken   Stage = "failed"
)

// ID returns the name of the run.
func (r *Run) ID() string { return r.spec.ID }

// Dir returns the folder of the run.
func (r *Run) Dir() string { return r.rec.Dir() }

// Model returns the bytes of what is learned: the state before the first round.
func (r *Run) Model() int64 { return r.model }

// Done is closed when the run has ended, stopped or failed.
func (r *Run) Done() <-chan struct{} { return r.done }

// Err returns why the run failed, or federated.ErrStopped; nil if it is under way or has ended.
func (r *Run) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failure
}

// Stage returns how far the run has come.
func (r *Run) Stage() Stage {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

// Stop ends the run after the round under way; it can be resumed.
func (r *Run) Stop() { r.halt.Do(func() { close(r.stop) }) }

func (r *Run) roundNow() int { return int(r.round.Load()) }

// drive runs the run to its end.
func (r *Run) drive(ctx context.Context) {
	err := r.work(ctx)
	if e := r.keeper.refreshed(); err == nil {
		err = e
	}
	r.desk.stop()
	r.appender.close()
	r.part()
	r.acks.flush()
	r.spool.close()
	r.desk.pins.sweep()
	r.desk.pins.idle.Wait()
	state, stage := record.Finished, Ended
	switch {
	case errors.Is(err, federated.ErrStopped), errors.Is(err, context.Canceled):
		state, stage = record.Interrupted, Stopped
	case err != nil:
		state, stage = record.Failed, Broken
	}
	if e := r.shut(state, err); err == nil && e != nil {
		err, stage = e, Broken
	}
	r.mu.Lock()
	r.state, r.failure = stage, err
	r.mu.Unlock()
	close(r.done)
}

func (r *Run) work(ctx context.Context) error {
	from := r.keeper.from
	select { // wait until enough members have agreed
	case <-r.agreed:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-r.stop:
		return federated.ErrStopped
	}
	r.mu.Lock()
	r.state = Learning
	r.mu.Unlock()
	r.moved()
	srv := r.server()
	srv.Population = r.people
	cfg := r.spec.Config
	cfg.Stop, cfg.Apart = r.stop, r.hiding.on
	cfg.Window = math.MaxInt // each member has a machine of its own; how many results lie here at a time, permits say
	if cfg.Rule != nil && cfg.Spool.Dir == "" {
		cfg.Spool.Dir = filepath.Join(r.rec.Dir(), rowsDir)
		if err := errors.Join(os.RemoveAll(cfg.Spool.Dir), os.MkdirAll(cfg.Spool.Dir, 0o700)); err != nil {
			return fmt.Errorf("folder for the results of a phase: %w", err)
		}
	}
	if err := r.keeper.begin(r.people.Len()); err != nil {
		return err
	}
	state, err := federated.Run(ctx, r.spec.Algorithm, srv, r.desk, r.keeper, cfg, from)
	if err != nil {
		return err
	}
	return r.keeper.finish(state)
}

// server is the coordinator's side of the algorithm. Its secrets follow from a key in the folder of the run.
func (r *Run) server() federated.Server {
	srv := r.spec.Server
	srv.Scope = r.srv.fed + "/" + r.spec.ID
	srv.Secret = simulation.Secrets(r.srv.o.FS, r.rec)
	srv.Verify = r.srv.verify
	return srv
}

// verify returns nil if a message carries the signature of an admitted member.
func (s *Server) verify(name string, msg, sig []byte) error {
	switch m, ok := s.o.Roster.ByName(name); {
	case !ok || m.State != identity.Admitted:
		return errors.New("the roster does not admit it")
	case !m.Key.Verify(msg, sig):
		return errors.New("the signature is not that of the key in the roster")
	}
	return nil
}

// consent admits a member that agrees to the terms.
func (r *Run) consent(from string, key string, body *transport.Consent, msg []byte, reply func(transport.Body)) {
	r.mu.Lock()
	terms, schema := r.terms, r.schema
	r.mu.Unlock()
	if body.Terms != transport.DigestOf(terms) {
		reply(&transport.Failure{Code: transport.CodeTerms, Message: "these are not the terms of the run"})
		return
	}
	if body.Declined != "" {
		r.log.Info("declined the terms", "member", from, "reason", body.Declined)
		r.appender.add(KindLeft, left{Index: -1, Name: from, Reason: "declined: " + body.Declined, Events: []record.Event{{Level: record.Warn,
			Client: from, Message: "declined the terms: " + body.Declined}}}, func(journal.Record, error) { reply(&transport.Duties{}) })
		return
	}
	if r.srv.o.Relays.Is(from) {
		reply(&transport.Failure{Code: transport.CodeTerms, Message: "a relay takes part in no run: join with a name of its own"})
		return
	}
	if m, ok := r.people.find(from); ok {
		if m.Gone {
			reply(&transport.Failure{Code: transport.CodeRevoked, Message: "the member has left this run"})
			return
		}
		reply(nil) // it had agreed before: its duties
		return
	}
	agreed, err := r.spec.Check(schema, body)
	if err != nil {
		r.log.Warn("cannot take part", "member", from, "reason", err)
		reply(&transport.Failure{Code: transport.CodeSchema, Message: err.Error()})
		return
	}
	a := accepted{Name: from, Key: key, Samples: body.Samples, Tests: body.Tests, Terms: body.Terms, Consent: transport.DigestOf(msg)}
	if schema == nil {
		a.Schema = agreed
	}
	r.enter(a, msg, func(err error) {
		if err != nil {
			reply(&transport.Failure{Code: transport.CodeFull, Message: "the consent cannot be recorded: " + err.Error()})
			return
		}
		reply(nil)
	})
}

// enter records that a member agreed, and calls then when that is durable: records of thousands that come at once are written
// together. Before the first round a member waits for the others; later it is counted at once.
func (r *Run) enter(a accepted, consent []byte, then func(error)) {
	r.joining.Lock()
	_, in := r.lobby[a.Name]
	waiting, coming := r.entering[a.Name]
	if !in {
		r.entering[a.Name] = append(waiting, then)
	}
	r.joining.Unlock()
	if in {
		then(nil)
	}
	if in || coming { // it says so again
		return
	}
	if err := r.keepConsent(a.Name, consent); err != nil {
		r.entered(a, err)
		return
	}
	r.mu.Lock() // whoever is checked against a schema is on record after it
	defer r.mu.Unlock()
	if a.Schema != nil && r.schema != nil {
		a.Schema = nil // somebody was faster, with a schema that was checked against none
	} else if a.Schema != nil {
		r.schema = a.Schema
	}
	r.appender.add(KindAccepted, a, func(_ journal.Record, err error) { r.entered(a, err) })
}

// entered lets a member in, whose consent is on record unless there is an error.
func (r *Run) entered(a accepted, err error) {
	r.joining.Lock()
	waiting := r.entering[a.Name]
	delete(r.entering, a.Name)
	if err == nil {
		r.log.Info("agreed to the terms", "member", a.Name, "examples", a.Samples)
		r.lobby[a.Name] = a
		err = r.seat()
	}
	r.joining.Unlock()
	r.moved()
	for _, then := range waiting {
		go then(err) // an answer is more work than whoever writes the journal has time for
	}
}

// keepConsent keeps the signed message: the journal, which members may see, has its digest.
func (r *Run) keepConsent(name string, msg []byte) error {
	fsys, dir := r.srv.o.FS, filepath.Join(r.rec.Dir(), "consents")
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return journal.WriteFile(fsys, filepath.Join(dir, name+".json"), func(w io.Writer) error { _, err := w.Write(msg); return err })
}

// agrees reports whether a member has agreed to the terms.
func (r *Run) agrees(name string) bool {
	r.joining.Lock()
	defer r.joining.Unlock()
	_, ok := r.lobby[name]
	return ok
}

// seat gives those in the lobby their places in the run: all at once, in the order in which they were invited, when enough have
// agreed; later ones as they come. The caller holds joining.
func (r *Run) seat() error {
	begun := r.people.Len() > 0
	if !begun && !r.waited && !r.complete() {
		return nil
	}
	var entries []journal.Entry
	var names []string
	for name := range r.lobby {
		if _, ok := r.people.find(name); !ok {
			names = append(names, name)
		}
	}
	r.srv.inOrder(names)
	for i, name := range names {
		a := r.lobby[name]
		entries = append(entries, journal.Entry{Kind: KindAdmitted, Body: admitted{Index: r.people.Len() + i, Name: name, Samples: a.Samples,
			Tests: a.Tests}})
	}
	if len(entries) == 0 {
		return nil
	}
	if _, err := r.rec.Journal().AppendAll(entries); err != nil {
		return err
	}
	for _, name := range names {
		r.people.add(name, r.lobby[name].Samples)
	}
	if !begun {
		close(r.agreed)
	}
	return nil
}

// complete reports whether all have agreed whom the first round waits for. The caller holds joining.
func (r *Run) complete() bool {
	for _, name := range r.spec.Await {
		if _, ok := r.lobby[name]; !ok {
			return false
		}
	}
	return len(r.lobby) >= r.spec.Members
}

// Begin begins the first round with those who have agreed so far, at least one; others take part from the next one on.
func (r *Run) Begin() error {
	r.joining.Lock()
	defer r.joining.Unlock()
	if len(r.lobby) == 0 {
		return errors.New("nobody has agreed to the terms")
	}
	r.waited = true
	return r.seat()
}

// lose takes a member out of the run.
func (r *Run) lose(name, reason string) {
	r.joining.Lock()
	defer r.joining.Unlock()
	m, ok := r.people.find(name)
	if !ok {
		delete(r.lobby, name)
		m.Index = -1
	} else if m.Gone {
		return
	}
	if _, err := r.rec.Journal().Append(KindLeft, left{Index: m.Index, Name: name, Reason: reason, Events: []record.Event{{Level: record.Warn,
		Client: name, Message: reason, Round: r.roundNow()}}}); err != nil {
		r.log.Error("a member that left cannot be recorded", "member", name, "error", err)
	}
	r.people.lose(name)
	r.desk.lose(name, reason)
	r.moved()
}

// Agrees reports whether a member has agreed to the terms.
func (r *Run) Agrees(member string) bool { return r.agrees(member) }

// WriteJournal writes the lines of the run's journal from a record on, also when the run is over: a member that was away may come
// back only then. Sealed records stay sealed.
func (r *Run) WriteJournal(w io.Writer, from uint64) error {
	end := r.shown()
	over := func() bool {
		r.closing.RLock()
		defer r.closing.RUnlock()
		return r.closed
	}
	if !over() {
		var read error
		for rec, err := range r.rec.Journal().Lines(from) {
			if read = err; err != nil {
				break
			}
			if rec.Seq > end {
				return nil
			}
			if _, err := w.Write(rec.Line()); err != nil {
				return err
			}
			from = rec.Seq + 1
		}
		if read == nil || !over() {
			return read
		}
	}
	for rec, err := range journal.Read(r.srv.o.FS, r.rec.Dir()) {
		if err != nil {
			return err
		}
		if rec.Seq < from {
			continue
		}
		if rec.Seq > end {
			return nil
		}
		if _, err := w.Write(rec.Line()); err != nil {
			return err
		}
	}
	return nil
}
