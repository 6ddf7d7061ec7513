package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/blob/web"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/node/gate"
	"github.com/cohort-learning/cohort/node/member"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/transport/natsbus"
)

// Options say how a relay is reached. Folder is required.
type Options struct {
	Folder *member.Folder // who the relay is, and where its coordinator is
	Listen string         // address of the port; default ":8443"
	URL    string         // under which leaves reach it; default https://HOSTNAME:PORT
	Hosts  []string       // further names and addresses of this machine, for its certificate
	// Linger is how long results wait for those of other leaves before they are added; 0 means two seconds. It is a matter of
	// traffic, never of bits.
	Linger  time.Duration
	Cap     int64 // bytes that models and results may take on the disk; 0: as much as there is
	Program string
	Limits  gate.Limits
	FS      journal.FS   // of the journal; nil: the system's
	Log     *slog.Logger // nil: nothing is logged
}

// Names in the folder of a relay, beside those of a member's.
const (
	caName      = "ca.pem"
	uploadsName = "uploads"
)

// Pace of a relay.
const (
	patience = 30 * time.Second       // for an answer of the coordinator
	every    = 20 * time.Second       // between two words of who is here, when nothing changes
	gather   = 10                     // part of Linger for which all must be silent before a phase is taken to be complete
	retry    = 250 * time.Millisecond // doubled with each failure, up to
	retryMax = 10 * time.Second
	grants   = 24 * time.Hour // that a leaf may download what a task needs
	relayed  = 64             // messages of one leaf on their way at a time
)

// Relay is a relay at work.
type Relay struct {
	o        Options
	key      identity.Key
	name     string
	fed      identity.Public
	ca       *identity.Authority
	url      string
	log      *slog.Logger
	ledger   *ledger
	store    *blob.Dir
	permits  *web.Permits
	gate     *gate.Gate
	hub      transport.Hub
	listener net.Listener
	courier  member.Courier
	network  member.Options // how the coordinator is reached
	making   sync.RWMutex   // read-held while blobs come that nothing refers to yet

	root   context.Context
	cancel context.CancelCauseFunc
	tasks  sync.WaitGroup

	mu       sync.Mutex
	link     transport.Link
	up       bool
	changed  chan struct{} // closed and replaced whenever the connection comes or goes
	fetching map[transport.Digest]*fetch
	phases   map[phaseKey]*phase
	inLine   map[string]int
	names    joined
	poke     chan struct{} // who is here has changed
}

// Open opens the folder of a relay and listens. Nothing is served before [Relay.Run].
func Open(o Options) (_ *Relay, err error) {
	if o.Folder == nil {
		panic("relay: Options need a Folder")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Linger = cmp.Or(o.Linger, 2*time.Second)
	card := o.Folder.Card
	r := &Relay{o: o, key: o.Folder.Key, name: card.Name, fed: card.Federation, log: o.Log, permits: web.NewPermits(), changed: make(chan struct{}),
		fetching: map[transport.Digest]*fetch{}, phases: map[phaseKey]*phase{}, inLine: map[string]int{}, poke: make(chan struct{}, 1)}
	r.root, r.cancel = context.WithCancelCause(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("relay: %w", err), r.close())
		}
	}()
	if r.ca, err = authority(o.Folder.Dir, card.Name); err != nil {
		return nil, err
	}
	if r.listener, err = net.Listen("tcp", cmp.Or(o.Listen, ":8443")); err != nil {
		return nil, fmt.Errorf("%w: is another program at work there, or does the port need other rights? --listen takes another", err)
	}
	if r.url, err = address(o.URL, r.listener.Addr()); err != nil {
		return nil, err
	}
	if r.ledger, err = openLedger(o.Folder.Dir, card.Name, card.Federation, journal.Options{FS: o.FS}); err != nil {
		return nil, err
	}
	if r.store, err = blob.OpenDir(filepath.Join(o.Folder.Dir, member.StoreName), nil); err != nil {
		return nil, err
	}
	r.store.SetCap(o.Cap)
	if err = o.Folder.Network(&r.network); err != nil {
		return nil, err
	}
	r.courier = r.network.Blobs
	return r, r.openPort()
}

// authority returns the authority that signs the relay's certificate; it is made at the first time.
func authority(dir, name string) (*identity.Authority, error) {
	path := filepath.Join(dir, caName)
	ca, err := identity.LoadAuthority(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return ca, err
	}
	if ca, err = identity.NewAuthority(name, time.Now()); err != nil {
		return nil, err
	}
	return ca, ca.Save(path)
}

// address is the URL that leaves are given.
func address(text string, at net.Addr) (string, error) {
	if text != "" {
		u, err := identity.ParseURL(text)
		if err != nil {
			return "", err
		}
		return "https://" + u.Host, nil
	}
	_, port, err := net.SplitHostPort(at.String())
	if err != nil {
		return "", err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return "https://" + net.JoinHostPort(host, port), nil
}

// hosts are the names that the certificate is for.
func (r *Relay) hosts() []string {
	h := append([]string{"localhost", "127.0.0.1", "::1"}, r.o.Hosts...)
	if name, err := os.Hostname(); err == nil {
		h = append(h, name)
	}
	if u, err := url.Parse(r.url); err == nil {
		h = append(h, u.Hostname())
	}
	slices.Sort(h)
	return slices.Compact(h)
}

// openPort makes what leaves connect to.
func (r *Relay) openPort() error {
	source, err := identity.NewSource(r.ca, r.hosts(), time.Now)
	if err != nil {
		return err
	}
	r.gate = gate.New(gate.Options{Certificate: source.Certificate, Member: r.ledger.who, Limits: r.o.Limits, Log: r.log})
	bus, err := natsbus.NewServer(natsbus.Options{Admit: r.ledger.who, Who: r.gate.Who, Log: r.log})
	if err != nil {
		return err
	}
	r.hub = bus.Hub()
	r.hub.Watch(func(string, bool) { r.announceSoon() })
	r.hub.Handle(r.take)
	r.routes(bus)
	return nil
}

// Addr is where the relay listens, and URL how leaves reach it.
func (r *Relay) Addr() net.Addr { return r.listener.Addr() }

// URL is how leaves reach the relay.
func (r *Relay) URL() string { return r.url }

// Leaves returns the names of those behind the relay, and which of them are here.
func (r *Relay) Leaves() (all, here []string) { return r.ledger.behind(), r.hub.Present() }

// Run connects to the coordinator and serves leaves until ctx ends (nil), the coordinator has revoked the relay, or the relay
// cannot go on. It closes the relay. Whatever ended it, a relay that is opened in the same folder goes on.
func (r *Relay) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, r.close()) }()
	defer context.AfterFunc(ctx, func() { r.cancel(nil) })()
	served := make(chan error, 1)
	go func() { served <- r.gate.Serve(r.listener) }()
	r.tasks.Go(func() { r.connect(r.root) })
	r.tasks.Go(func() { r.announce(r.root) })
	for p := range r.ledger.phases() {
		r.kick(p)
	}
	hourly := time.NewTicker(time.Hour)
	defer hourly.Stop()
	for {
		select {
		case <-hourly.C:
			r.sweep()
		case err := <-served:
			r.cancel(err)
		case <-r.root.Done():
			if cause := context.Cause(r.root); !errors.Is(cause, context.Canceled) {
				return cause
			}
			return nil
		}
	}
}

// close ends whatever has begun.
func (r *Relay) close() error {
	r.cancel(nil)
	var errs []error
	r.mu.Lock()
	link := r.link
	r.mu.Unlock()
	if link != nil {
		errs = append(errs, link.Close())
	}
	if r.hub != nil {
		errs = append(errs, r.hub.Close())
	}
	if r.gate != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		_ = r.gate.Shutdown(ctx) // what does not end in time is ended
		cancel()
	}
	if r.listener != nil {
		_ = r.listener.Close() // the gate may have closed it
	}
	r.tasks.Wait()
	if r.store != nil {
		errs = append(errs, r.store.Close())
	}
	if r.ledger != nil {
		errs = append(errs, r.ledger.Close())
	}
	return errors.Join(errs...)
}

// note writes a record of the journal. A relay that cannot ends: what it would say next would not be kept.
func (r *Relay) note(kind string, body any) error {
	err := r.ledger.note(kind, body)
	if err != nil {
		r.cancel(err)
	}
	return err
}

// seal signs a message of the relay itself.
func (r *Relay) seal(e transport.Envelope, body transport.Body) ([]byte, error) {
	e.Fed, e.From = r.fed.String(), r.name
	if err := e.Put(body); err != nil {
		return nil, err
	}
	return transport.Seal(r.key, e)
}

// sweep deletes the blobs that nothing needs.
func (r *Relay) sweep() {
	if !r.making.TryLock() {
		return // something is just coming in
	}
	defer r.making.Unlock()
	needed := r.ledger.needed()
	if _, err := blob.Collect(r.root, r.store, func(h blob.Hash) bool { return needed[transport.Digest(h)] }); err != nil && r.root.Err() == nil {
		r.log.Warn("blobs that are not needed any more cannot be deleted", "error", err)
	}
}
