// Package node makes processes of a federation: [Host] is a coordinator with its identity, its public port and its runs in one
// folder. The parts are packages below it: gate (the port), coordinator (rounds), member (a participant), program (trainers that
// are brought along), parcel (tensors in messages).
package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/blob/bucket"
	"github.com/cohort-learning/cohort/blob/web"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/node/coordinator"
	"github.com/cohort-learning/cohort/node/gate"
	"github.com/cohort-learning/cohort/node/member"
	"github.com/cohort-learning/cohort/transport"
)

// Options say how a coordinator is reached. What is zero is what it was when the folder was used last.
type Options struct {
	Dir    string
	Name   string       // of the federation, for people
	Listen string       // address of the port; default ":8443"
	URL    string       // under which members reach it; default https://HOSTNAME:PORT
	Hosts  []string     // further names and addresses of this machine, for its certificate
	Cert   string       // own certificate and key (PEM files) instead of the federation's
	Key    string       //
	Cap    int64        // bytes that results and models may take on the disk; 0: as much as there is
	Blobs  string       // URL of a bucket for them instead of the folder (see package blob/bucket)
	NATS   *NATS        // servers that carry messages instead of this port; nil: this port
	Log    *slog.Logger // nil: nothing is logged
	// Program is the version of this program.
	Program string
	// Limits are those of the port.
	Limits gate.Limits
}

// Names in the folder of a coordinator.
const (
	settingsName = "federation.json"
	keyName      = "federation.key"
	caName       = "ca.pem"
	rosterName   = "roster"
	blobsName    = "blobs"
	uploadsName  = "uploads" // how far long uploads have come
	runsName     = "runs"
)

// settings is what a coordinator remembers of its options.
type settings struct {
	Version int       `json:"version"`
	Name    string    `json:"name"`
	Listen  string    `json:"listen"`
	URL     string    `json:"url"`
	Hosts   []string  `json:"hosts,omitempty"`
	Cert    string    `json:"cert,omitempty"`
	Key     string    `json:"key,omitempty"`
	Pins    uint64    `json:"pins,omitempty"` // number of the list of fingerprints; it grows when the authority changes
	Created time.Time `json:"created"`
}

// Book is the folder of a coordinator: who it is and who its members are. One process at a time has it open.
type Book struct {
	Dir    string
	Key    identity.Key
	CA     *identity.Authority
	Roster *identity.Roster
	relays *relays
	settings
}

// ErrNoFederation tells that a folder is not that of a coordinator.
var ErrNoFederation = errors.New("there is no federation in this folder")

// OpenBook opens the folder of a coordinator.
func OpenBook(dir string) (*Book, error) {
	b := &Book{Dir: dir}
	text, err := os.ReadFile(b.path(settingsName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNoFederation)
	}
	if err == nil {
		err = json.Unmarshal(text, &b.settings)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.path(settingsName), err)
	}
	if b.Version != 1 {
		return nil, fmt.Errorf("%s is of version %d; this program reads version 1", b.path(settingsName), b.Version)
	}
	if b.Key, err = identity.LoadKey(b.path(keyName)); err != nil {
		return nil, err
	}
	if b.CA, err = identity.LoadAuthority(b.path(caName)); err != nil {
		return nil, err
	}
	if b.relays, err = openRelays(b); err != nil {
		return nil, err
	}
	b.Roster, err = identity.OpenRoster(b.path(rosterName), b.Key, journal.Options{})
	return b, err
}

// found makes the folder of a new federation. The settings are written last, so that one cut short is begun again.
func found(o Options) (*Book, error) {
	b := &Book{Dir: o.Dir, settings: settings{Version: 1, Name: cmp.Or(o.Name, "cohort"), Listen: cmp.Or(o.Listen, ":8443"), Created: time.Now().UTC()}}
	if err := os.MkdirAll(b.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := b.apply(o); err != nil {
		return nil, err
	}
	for _, name := range []string{keyName, caName, rosterName, relaysName} {
		if err := os.RemoveAll(b.path(name)); err != nil {
			return nil, err
		}
	}
	var err error
	if b.relays, err = openRelays(b); err != nil {
		return nil, err
	}
	if b.Key, err = identity.NewKey(); err != nil {
		return nil, err
	}
	if err := b.Key.Save(b.path(keyName)); err != nil {
		return nil, err
	}
	if b.CA, err = identity.NewAuthority(b.Name, time.Now()); err != nil {
		return nil, err
	}
	if err := b.CA.Save(b.path(caName)); err != nil {
		return nil, err
	}
	if b.Roster, err = identity.Found(b.path(rosterName), b.Key, b.Name, journal.Options{}); err != nil {
		return nil, err
	}
	return b, b.save()
}

func (b *Book) path(name string) string { return filepath.Join(b.Dir, name) }

// Close gives the folder back.
func (b *Book) Close() error { return b.Roster.Close() }

// apply takes over what the options say.
func (b *Book) apply(o Options) error {
	if _, _, err := net.SplitHostPort(cmp.Or(o.Listen, b.Listen)); err != nil { // before it is remembered
		return fmt.Errorf("address to listen on: %w", err)
	}
	b.Listen = cmp.Or(o.Listen, b.Listen)
	if o.Cert != "" || o.Key != "" {
		if o.Cert == "" || o.Key == "" {
			return errors.New("an own certificate needs its key, and a key its certificate")
		}
		b.Cert, b.settings.Key = o.Cert, o.Key
	}
	if len(o.Hosts) > 0 {
		b.Hosts = o.Hosts
	}
	if o.URL != "" {
		u, err := url.Parse(o.URL)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" {
			return fmt.Errorf("the address of the coordinator is https://HOST or https://HOST:PORT, not %q", o.URL)
		}
		b.URL = "https://" + u.Host
	}
	if b.URL == "" {
		_, port, err := net.SplitHostPort(b.Listen)
		if err != nil {
			return fmt.Errorf("address to listen on: %w", err)
		}
		host, err := os.Hostname()
		if err != nil {
			host = "localhost"
		}
		b.URL = "https://" + net.JoinHostPort(host, port)
	}
	return nil
}

func (b *Book) save() error {
	text, err := json.MarshalIndent(b.settings, "", "  ")
	if err != nil {
		return err
	}
	return journal.WriteFile(journal.OS(), b.path(settingsName), func(w io.Writer) error {
		_, err := w.Write(append(text, '\n'))
		return err
	})
}

// hosts are the names that the certificate is for.
func (b *Book) hosts() []string {
	h := []string{"localhost", "127.0.0.1", "::1"}
	if name, err := os.Hostname(); err == nil {
		h = append(h, name)
	}
	if u, err := url.Parse(b.URL); err == nil {
		h = append(h, u.Hostname())
	}
	h = append(h, b.Hosts...)
	slices.Sort(h)
	return slices.Compact(h)
}

// Tokens invites members and returns what they join with. A name that was invited and has not joined gets a new token.
func (b *Book) Tokens(expires time.Duration, names ...string) ([]identity.Token, error) {
	return b.Roster.Tokens(b.URL, b.recognised(), time.Now().Add(expires), names...)
}

// Host is a coordinator at work.
type Host struct {
	*Book
	Server *coordinator.Server
	Gate   *gate.Gate

	o        Options
	hub      transport.Hub
	store    bucket.Store
	permits  *web.Permits
	source   *identity.Source
	listener net.Listener
	admin    *adminServer
	page     *page
	started  time.Time

	mu     sync.Mutex
	plans  map[string]*hosted
	closed bool
}

// Open founds a federation, or takes up the one in the folder, and listens. Nothing is served before [Host.Serve].
func Open(o Options) (_ *Host, err error) {
	b, err := OpenBook(o.Dir)
	switch {
	case errors.Is(err, ErrNoFederation):
		b, err = found(o)
	case err == nil:
		if err = b.apply(o); err == nil {
			err = b.save()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("coordinator: %w", err)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	h := &Host{Book: b, o: o, plans: map[string]*hosted{}, permits: web.NewPermits(), started: time.Now()}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("coordinator: %w", err), h.close())
		}
	}()
	if b.Cert != "" {
		h.source, err = identity.FileSource(journal.OS(), b.Cert, b.settings.Key, time.Now)
	} else {
		h.source, err = identity.NewSource(b.CA, b.hosts(), time.Now)
	}
	if err != nil {
		return nil, err
	}
	if h.store, err = openStore(b.path(blobsName), o.Blobs); err != nil {
		return nil, err
	}
	h.store.SetCap(o.Cap)
	h.Gate = gate.New(gate.Options{Certificate: h.source.Certificate, Member: b.Roster.Who, Limits: o.Limits, Log: o.Log})
	if h.hub, err = h.openBus(); err != nil {
		return nil, err
	}
	h.Server = coordinator.New(coordinator.Options{Key: b.Key, Name: b.Name, Roster: b.Roster, Hub: h.hub, Blobs: h.store,
		Access: (*access)(h), Relays: b.relays, Leave: b.Roster.Leave, Log: o.Log, Program: o.Program})
	if h.page, err = newPage(h); err != nil {
		return nil, err
	}
	h.Server.Watch(h.page.presence)
	h.routes()
	if h.listener, err = net.Listen("tcp", b.Listen); err != nil {
		return nil, fmt.Errorf("%w: is another coordinator at work, or does the port need other rights? --listen takes another", err)
	}
	if h.admin, err = newAdmin(h); err != nil {
		return nil, err
	}
	return h, nil
}

// openStore opens the folder of blobs, or a bucket.
func openStore(dir, url string) (bucket.Store, error) {
	if url == "" {
		return blob.OpenDir(dir, nil)
	}
	return bucket.Open(context.Background(), url)
}

// routes puts everything that is served onto the one port.
func (h *Host) routes() {
	h.Gate.HandleMembers("/blob/", web.NewHandler(h.store, web.HandlerOptions{Who: h.Gate.Who, Permits: h.permits, Notes: h.path(uploadsName), Log: h.o.Log}))
	h.Gate.HandleMembers("GET /journal/{run}", http.HandlerFunc(h.serveJournal))
	h.Gate.HandleMembers("GET /roster", http.HandlerFunc(h.serveRoster))
	h.Gate.Handle("/", h.page.site)
	h.Gate.HandleMembers("POST "+rotatePath, http.HandlerFunc(h.serveRotation))
	h.Gate.Handle("GET "+member.RelayPath, http.NotFoundHandler()) // this is no relay
	h.Gate.HandleMembers("POST "+enrolPath, http.HandlerFunc(h.serveEnrolment))
	h.Gate.Handle("GET /pins", gate.PinsHandler(h.pins))
	h.Gate.Handle("POST /join", gate.JoinHandler(h.Roster, gate.JoinLimits{}))
}

// SaveMemory makes the garbage collector of this process work more often than is usual, unless GOGC says how often, if a model
// has many bytes: what the coordinator holds are then a few large sums and models, cheap to look through, and each result is as
// much again that is garbage at once. With small models it is the connections that count, and the usual is right.
func SaveMemory(model int64) {
	const large = 4 << 20
	if model >= large && os.Getenv("GOGC") == "" {
		debug.SetGCPercent(10)
	}
}

// Addr is where the host listens.
func (h *Host) Addr() net.Addr { return h.listener.Addr() }

// Serve serves until ctx ends, then stops the runs where they are, and closes the host.
func (h *Host) Serve(ctx context.Context) error {
	done := make(chan error, 2)
	go func() { done <- h.Gate.Serve(h.listener) }()
	go func() { done <- h.admin.serve() }()
	hourly := time.NewTicker(time.Hour)
	defer hourly.Stop()
	for {
		select {
		case <-hourly.C:
			if err := h.Server.Sweep(); err != nil {
				h.o.Log.Warn("deleting what no run needs", "error", err)
			}
		case <-ctx.Done():
			return h.close()
		case err := <-done:
			return errors.Join(err, h.close())
		}
	}
}

// close ends whatever has begun.
func (h *Host) close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	h.mu.Unlock()
	var errs []error
	if h.admin != nil {
		errs = append(errs, h.admin.close())
	}
	if h.Server != nil {
		h.Server.Close()
	}
	if h.page != nil {
		h.page.close()
	}
	if h.hub != nil {
		errs = append(errs, h.hub.Close())
	}
	if h.Gate != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		_ = h.Gate.Shutdown(ctx) // what does not end in time is ended
		cancel()
	}
	if h.listener != nil {
		_ = h.listener.Close() // the gate may have closed it
	}
	if h.store != nil {
		errs = append(errs, h.store.Close())
	}
	for _, p := range h.plans {
		if p.engine != nil {
			p.engine.Close()
		}
	}
	return errors.Join(append(errs, h.Book.Close())...)
}

// Revoke takes a member out of the federation, at once.
func (h *Host) Revoke(name, reason string) error {
	if err := h.Roster.Revoke(name, reason); err != nil {
		return err
	}
	why := "was revoked"
	if reason != "" {
		why += ": " + reason
	}
	h.Server.Gone(name, why)
	h.Gate.Cut(name)
	return nil
}

// access opens blobs to members.
type access Host

// Upload implements [coordinator.Access].
func (a *access) Upload(member string, blobs []transport.Ref, life time.Duration) {
	for _, b := range blobs {
		a.permits.Issue(member, blob.Hash(b.Hash), b.Bytes, time.Now().Add(life))
	}
}

// Download implements [coordinator.Access].
func (a *access) Download(member string, blobs []transport.Ref) {
	for _, b := range blobs {
		a.permits.Grant(member, blob.Hash(b.Hash), time.Now().Add(grantLife))
	}
}

// Uploaded implements [coordinator.Access].
func (a *access) Uploaded(member string, b transport.Ref) bool {
	return a.permits.Uploaded(member, blob.Hash(b.Hash))
}

// Done implements [coordinator.Access].
func (a *access) Done(member string, blobs []transport.Ref) {
	for _, b := range blobs {
		a.permits.Revoke(member, blob.Hash(b.Hash))
	}
}

// grantLife is how long a member may download what a task needs; asking for the task again renews it.
const grantLife = 24 * time.Hour

// serveJournal sends a run's journal to a member of the run, from a record on: what it needs to see that the journal goes on from
// where it saw it last.
func (h *Host) serveJournal(w http.ResponseWriter, r *http.Request) {
	name, _ := h.Gate.Who(r)
	run, ok := h.Server.Run(r.PathValue("run"))
	if !ok || !h.readsJournal(name, run) {
		http.NotFound(w, r)
		return
	}
	var from uint64
	if text := r.URL.Query().Get("from"); text != "" {
		if _, err := fmt.Sscanf(text, "%d", &from); err != nil {
			http.Error(w, "from is the number of a record", http.StatusBadRequest)
			return
		}
	}
	w.Header().Set("Content-Type", "application/jsonl")
	if err := run.WriteJournal(w, from); err != nil {
		h.o.Log.Warn("sending the journal", "member", name, "error", err)
	}
}

// serveRoster sends the signed chain of who is a member, with their keys: secure sums are made between them.
func (h *Host) serveRoster(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/jsonl")
	if err := h.Roster.WriteFrom(w, 0); err != nil {
		name, _ := h.Gate.Who(r)
		h.o.Log.Warn("sending the roster", "member", name, "error", err)
	}
}

// Link returns a link to the page that signs its first visitor in; it works once, within ten minutes.
func (h *Host) Link() string { return h.URL + h.page.site.Link() }

// Farewell waits until members have been told that the runs are over and have gone, at most for some time.
func (h *Host) Farewell(ctx context.Context, most time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for slices.ContainsFunc(h.hub.Present(), func(name string) bool { return !h.relays.Is(name) }) || h.Server.Relayed() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
