package coordinator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/transport"
)

// Options say what a server works with.
type Options struct {
	FS     journal.FS // nil: the operating system's
	Key    identity.Key
	Name   string // of the federation, for people
	Roster Roster
	Hub    transport.Hub
	Blobs  blob.Store
	Access Access
	Relays Relays // nil: there are none
	// Leave is called when a member leaves the federation.
	Leave   func(member string) error
	Log     *slog.Logger // nil: nothing is logged
	Program string       // version of this program
}

// Roster knows the members of the federation.
type Roster interface {
	ByName(name string) (identity.Member, bool)
}

// Access lets members read and write blobs; package blob/web has the permits.
type Access interface {
	// Upload lets a member upload blobs for some time.
	Upload(member string, blobs []transport.Ref, life time.Duration)
	// Uploaded reports whether the member has uploaded a whole blob: that it is here does not say that it is the member's.
	Uploaded(member string, b transport.Ref) bool
	// Download lets a member download blobs.
	Download(member string, blobs []transport.Ref)
	// Done ends both for some blobs.
	Done(member string, blobs []transport.Ref)
}

// Server is a federation at work.
type Server struct {
	o        Options
	fed      string
	ctx      context.Context
	cancel   context.CancelFunc
	pins     *pins
	inbox    chan transport.Request
	workers  sync.WaitGroup
	lines    sync.Mutex
	inLine   map[string]int    // requests of each member in the inbox or being answered
	busy     map[string][]byte // what is answered to those who have too many
	counters counters

	mu      sync.RWMutex
	runs    map[string]*Run
	members map[string]*presence
	watch   []func(Event)
}

// presence is what the server knows of a member's connection.
type presence struct {
	here    bool
	via     string // the relay that it is connected to; empty: none
	since   time.Time
	kernels string
	program string

	together bool         // it understands the tasks of many
	heard    atomic.Int64 // when it asked something last, in Unix nanoseconds
}

func (p *presence) connected() bool { return p.here || p.via != "" }

// counters are for metrics.
type counters struct {
	accepted, late, duplicate atomic.Int64

	mu      sync.Mutex
	refused map[transport.Code]int64
	told    map[string]int // refusals of each member and code
}

// worth reports whether one more refusal of a member deserves a line in the log: the first, the tenth, the hundredth … do, and
// many is how many there have been if it is not the first. Whoever sends rubbish cannot fill the log with it.
func (c *counters) worth(member string, code transport.Code) (many string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.told == nil {
		c.told = map[string]int{}
	}
	key := member + " " + string(code)
	c.told[key]++
	n := c.told[key]
	for ten := 10; ten <= n; ten *= 10 {
		if n == ten {
			return fmt.Sprintf(" (%d times so far)", n), true
		}
	}
	return "", n == 1
}

func (c *counters) refuse(code transport.Code) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused == nil {
		c.refused = map[transport.Code]int64{}
	}
	c.refused[code]++
}

// New returns a server that answers on the hub.
func New(o Options) *Server {
	if o.FS == nil {
		o.FS = journal.OS()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Relays == nil {
		o.Relays = nobody{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{o: o, fed: o.Key.Public().String(), ctx: ctx, cancel: cancel, pins: newPins(o.Blobs, o.Log),
		inbox: make(chan transport.Request, 1<<14), inLine: map[string]int{}, busy: map[string][]byte{}, runs: map[string]*Run{}, members: map[string]*presence{}}
	for range 2 * runtime.GOMAXPROCS(0) {
		s.workers.Go(func() {
			for {
				select {
				case r := <-s.inbox:
					s.answer(r)
					s.leaveLine(r.From)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	o.Hub.Watch(s.presence)
	o.Hub.Handle(s.take)
	return s
}

// maxWaiting is how many requests of one member may wait to be answered: one that floods the coordinator keeps nobody else from
// it.
const maxWaiting = 64

// take puts a request in line, or sends it away.
func (s *Server) take(r transport.Request) {
	s.lines.Lock()
	n := s.inLine[r.From]
	busy := n >= maxWaiting && n >= s.patienceOf(r.From)
	if !busy {
		s.inLine[r.From]++
	}
	s.lines.Unlock()
	if !busy {
		select {
		case s.inbox <- r:
			return
		default:
			s.leaveLine(r.From)
		}
	}
	s.counters.refuse(transport.CodeBusy)
	s.lines.Lock()
	msg := s.busy[r.From] // signed once: a flood is not to be answered with as much work
	s.lines.Unlock()
	if msg == nil {
		msg = s.seal(transport.Envelope{To: r.From}, &transport.Failure{Code: transport.CodeBusy, Message: "the coordinator is busy: ask again later"})
		s.lines.Lock()
		s.busy[r.From] = msg
		s.lines.Unlock()
	}
	r.Reply(msg)
}

func (s *Server) leaveLine(member string) {
	s.lines.Lock()
	defer s.lines.Unlock()
	if s.inLine[member]--; s.inLine[member] <= 0 {
		delete(s.inLine, member)
	}
}

// Close stops all runs at once and waits for them; they can be resumed.
func (s *Server) Close() {
	s.cancel()
	for _, r := range s.Runs() {
		<-r.done
	}
	s.workers.Wait()
}

// Runs returns the runs by name.
func (s *Server) Runs() []*Run {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.SortedFunc(maps.Values(s.runs), func(a, b *Run) int { return cmp.Compare(a.spec.ID, b.spec.ID) })
}

// Run returns a run by name.
func (s *Server) Run(id string) (*Run, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, ok := s.runs[id]
	return r, ok
}

// termsName is the file in the folder of a run that holds its signed terms.
const termsName = "terms.json"

// Start begins a run in the folder that rec has open, or goes on with it. The run owns rec from now on, also if Start fails.
func (s *Server) Start(spec Spec, rec *record.Run) (*Run, error) {
	r := &Run{srv: s, spec: spec, rec: rec, people: newPopulation(), lobby: map[string]accepted{}, entering: map[string][]func(error){}, gone: map[string]string{},
		schema: spec.Schema, acks: newAcks(), agreed: make(chan struct{}), done: make(chan struct{}), stop: make(chan struct{}), state: Waiting,
		delegations: map[string]string{}, log: s.o.Log.With("run", spec.ID)}
	if err := r.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("run %s: %w", spec.ID, err), rec.Close(record.Failed, err))
	}
	s.mu.Lock()
	if _, ok := s.runs[spec.ID]; ok {
		s.mu.Unlock()
		err := fmt.Errorf("there is a run %s already", spec.ID)
		return nil, errors.Join(err, rec.Close(record.Interrupted, err))
	}
	s.runs[spec.ID] = r
	s.mu.Unlock()
	go r.drive(s.ctx)
	s.o.Hub.Broadcast(s.seal(transport.Envelope{Run: spec.ID}, &transport.Control{Action: "sync"}))
	return r, nil
}

// prepare reads what has been and makes the desk ready.
func (r *Run) prepare() error {
	if r.spec.Members < 1 {
		return fmt.Errorf("it waits for %d members: need at least 1", r.spec.Members)
	}
	if err := r.writeTerms(); err != nil {
		return fmt.Errorf("terms: %w", err)
	}
	r.keeper = newKeeper(r)
	p, err := r.recall()
	if err != nil {
		return err
	}
	window, absent := cmp.Or(r.spec.Window, 64), cmp.Or(r.spec.Absent, time.Minute)
	r.spool = newSpool(r.srv.o.FS, filepath.Join(r.rec.Dir(), "spool"))
	r.desk = newDesk(r, r.srv.o.Blobs, r.srv.pins, r.spool, window, absent, p.clock, r.log)
	r.desk.least = cmp.Or(r.spec.Together, leastTogether)
	r.appender = newAppender(r.rec.Journal(), r.spool, r.hiding.seal, func() time.Duration {
		return min(time.Duration(r.asked.Load())*time.Microsecond, mostPause)
	})
	if r.limit, err = r.resultLimit(); err != nil {
		return err
	}
	if r.hiding.on && p.checkpoint != "" {
		if err := r.hide(p.enrolled); err != nil {
			return err
		}
	}
	if err := r.keeper.restore(p); err != nil {
		return err
	}
	begun := r.people.Len() > 0
	if begun && p.checkpoint != "" {
		close(r.agreed)
		return nil
	}
	r.joining.Lock()
	defer r.joining.Unlock()
	if err := r.seat(); err != nil { // or the rest, if that was cut short before the run was opened
		return err
	}
	if begun {
		close(r.agreed)
	}
	return nil
}

// resultLimit bounds what a member may upload for one task: four times the sums of all phases, and some.
func (r *Run) resultLimit() (int64, error) {
	srv := r.server()
	srv.Population = federated.Population(one{})
	s, err := r.spec.Algorithm.Init(r.srv.ctx, srv)
	if err != nil {
		return 0, fmt.Errorf("initial state: %w", err)
	}
	var n int64
	for _, set := range s.Sets {
		n += set.Bytes()
	}
	r.model = n
	r.summable = r.spec.Config.Summable(r.spec.Algorithm, s)
	r.hiding.on = federated.DrawsInSecret(r.spec.Algorithm, s)
	if leaves := r.srv.o.Relays.Leaves(); leaves > 0 && r.summable != nil {
		return 0, fmt.Errorf("%d members are behind relays: %w", leaves, r.summable)
	}
	return 4*n + 16<<20, nil
}

// one is a population of one member, to find out how large a model is.
type one struct{}

func (one) Len() int                    { return 1 }
func (one) Member(int) federated.Member { return federated.Member{Name: "member", Samples: 1} }

// writeTerms signs the terms, or reads those that were signed when the run began.
func (r *Run) writeTerms() error {
	path := filepath.Join(r.rec.Dir(), termsName)
	f, err := r.srv.o.FS.OpenFile(path, os.O_RDONLY, 0)
	if err == nil {
		defer f.Close()
		if r.terms, err = io.ReadAll(f); err != nil {
			return err
		}
		if _, err = transport.Open(r.srv.o.Key.Public(), r.terms); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	e := transport.Envelope{Fed: r.srv.fed, Run: r.spec.ID}
	body := &transport.Terms{Recipe: string(r.spec.Recipe), Assist: r.spec.Assist, Schema: r.spec.Schema, Members: r.spec.Members, Metrics: r.spec.Metrics}
	if len(body.Recipe)+len(body.Schema) > transport.MaxInline {
		return fmt.Errorf("recipe and schema have %d bytes, at most %d fit a message", len(body.Recipe)+len(body.Schema), transport.MaxInline)
	}
	if err := e.Put(body); err != nil {
		return err
	}
	if r.terms, err = transport.Seal(r.srv.o.Key, e); err != nil {
		return err
	}
	return journal.WriteFile(r.srv.o.FS, path, func(w io.Writer) error { _, err := w.Write(r.terms); return err })
}

// seal signs a message of the coordinator. Bodies are made by this program, so that it cannot fail but for their length.
func (s *Server) seal(e transport.Envelope, body transport.Body) []byte {
	e.Fed = s.fed
	err := e.Put(body)
	if err == nil {
		var msg []byte
		if msg, err = transport.Seal(s.o.Key, e); err == nil {
			return msg
		}
	}
	s.o.Log.Error("a message cannot be sent", "kind", body.Kind(), "error", err)
	e.Refs = nil
	_ = e.Put(&transport.Failure{Code: transport.CodeInternal, Message: "the answer is too long"})
	msg, _ := transport.Seal(s.o.Key, e)
	return msg
}

func (s *Server) presence(member string, here bool) {
	s.mu.Lock()
	p := s.members[member]
	if p == nil {
		p = &presence{}
		s.members[member] = p
	}
	news := s.meet(member, p, here, p.via)
	s.mu.Unlock()
	for _, e := range news {
		s.tell(e)
	}
	if !here {
		s.through(member, nil) // those behind it, if it is a relay
	}
	if here { // it may have asked for its duties before it was known to be here, and was issued something in between
		for _, r := range s.Runs() {
			go r.desk.welcome(s.ctx, member)
		}
	}
}

// Gone takes a member that left or was revoked out of all runs, and ends its connections.
func (s *Server) Gone(member, reason string) {
	for _, r := range s.Runs() {
		r.lose(member, reason)
	}
	s.send(member, s.seal(transport.Envelope{To: member}, &transport.Control{Action: "revoked", Reason: reason}))
	if relay, ok := s.o.Relays.Behind(member); ok {
		s.Delegated(relay)
	}
	s.o.Hub.Cut(member)
}

// inOrder sorts names as the members were invited.
func (s *Server) inOrder(names []string) {
	slices.SortFunc(names, func(a, b string) int {
		x, _ := s.o.Roster.ByName(a)
		y, _ := s.o.Roster.ByName(b)
		return cmp.Or(cmp.Compare(x.Index, y.Index), cmp.Compare(a, b))
	})
}

// Event is something that happened, in words for a person.
type Event struct {
	Run, Member, Text string
}

// Watch calls the function for every event.
func (s *Server) Watch(f func(Event)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watch = append(s.watch, f)
}

func (s *Server) tell(e Event) {
	s.mu.RLock()
	watch := s.watch
	s.mu.RUnlock()
	for _, f := range watch {
		f(e)
	}
}
