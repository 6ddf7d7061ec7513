package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/node/coordinator"
	"github.com/cohort-learning/cohort/node/gate"
	"github.com/cohort-learning/cohort/node/parcel"
	"github.com/cohort-learning/cohort/node/relay"
	"github.com/cohort-learning/cohort/transport"
)

// relaysName is the file in the folder of a coordinator that says who is behind which relay.
const relaysName = "relays.json"

// relays are the relays of a federation: it implements [coordinator.Relays].
type relays struct {
	b *Book

	mu     sync.RWMutex
	list   map[string]*relayEntry
	behind map[string]string // leaves' relays
	number int               // changes so far
}

// relayEntry is one relay.
type relayEntry struct {
	URL    string               `json:"url"`
	CA     identity.Fingerprint `json:"ca"`
	Leaves []string             `json:"leaves"`
}

// relaysFile is the content of relays.json.
type relaysFile struct {
	Version int                    `json:"version"`
	Number  int                    `json:"number"`
	Relays  map[string]*relayEntry `json:"relays"`
}

func openRelays(b *Book) (*relays, error) {
	r := &relays{b: b, list: map[string]*relayEntry{}, behind: map[string]string{}}
	text, err := os.ReadFile(b.path(relaysName))
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	var f relaysFile
	if err == nil {
		err = json.Unmarshal(text, &f)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.path(relaysName), err)
	}
	if f.Version != 1 {
		return nil, fmt.Errorf("%s is of version %d; this program reads version 1", b.path(relaysName), f.Version)
	}
	r.number = f.Number
	for name, e := range f.Relays {
		r.list[name] = e
		for _, l := range e.Leaves {
			r.behind[l] = name
		}
	}
	return r, nil
}

// save writes the file. The caller holds the lock.
func (r *relays) save() error {
	r.number++
	text, err := json.MarshalIndent(relaysFile{1, r.number, r.list}, "", "  ")
	if err != nil {
		return err
	}
	return journal.WriteFile(journal.OS(), r.b.path(relaysName), func(w io.Writer) error {
		_, err := w.Write(append(text, '\n'))
		return err
	})
}

// Is implements [coordinator.Relays].
func (r *relays) Is(member string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.list[member] != nil
}

// Leaves implements [coordinator.Relays].
func (r *relays) Leaves() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.behind)
}

// Behind implements [coordinator.Relays].
func (r *relays) Behind(member string) (string, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	relay, ok := r.behind[member]
	return relay, ok
}

// leaves is how many members are behind a relay.
func (r *relays) leaves(relay string) int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if e := r.list[relay]; e != nil {
		return len(e.Leaves)
	}
	return 0
}

// Delegation implements [coordinator.Relays]. Both numbers that make up its own only grow, and one does whenever it changes.
func (r *relays) Delegation(relay string) (*transport.Delegation, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e := r.list[relay]
	m, ok := r.b.Roster.ByName(relay)
	if e == nil || !ok {
		return nil, false
	}
	d := &transport.Delegation{Number: r.number + int(r.b.Roster.Head().Seq), Relay: relay, Key: m.Key.String(), URL: r.b.URL,
		CA: transport.Digest(r.b.recognised()), Leaves: []transport.Leaf{}}
	for _, name := range e.Leaves {
		switch l, _ := r.b.Roster.ByName(name); l.State {
		case identity.Admitted:
			d.Leaves = append(d.Leaves, transport.Leaf{Name: name, Key: l.Key.String()})
		case identity.Invited:
			d.Leaves = append(d.Leaves, transport.Leaf{Name: name})
		}
	}
	return d, true
}

// Announce implements [coordinator.Relays].
func (r *relays) Announce(relay, url string, ca identity.Fingerprint) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if of, ok := r.behind[relay]; ok {
		return fmt.Errorf("%s is itself behind the relay %s: a relay connects to the coordinator", relay, of)
	}
	e := r.list[relay]
	if e == nil {
		e = &relayEntry{Leaves: []string{}}
		r.list[relay] = e
	}
	if e.URL == url && e.CA == ca {
		return nil
	}
	e.URL, e.CA = url, ca
	return r.save()
}

// enlist puts names behind a relay.
func (r *relays) enlist(relay string, names []string) (relayEntry, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.list[relay]
	if e == nil {
		return relayEntry{}, fmt.Errorf("%s is no relay yet: start \"cohort relay TOKEN\" there first, so that it is known where members reach it", relay)
	}
	fresh := slices.Clone(e.Leaves)
	for _, name := range names {
		switch of, taken := r.behind[name]; {
		case r.list[name] != nil:
			return relayEntry{}, fmt.Errorf("%s is a relay itself: relays do not stand behind relays", name)
		case taken && of != relay:
			return relayEntry{}, fmt.Errorf("%s is behind the relay %s", name, of)
		case !taken && !slices.Contains(fresh, name):
			fresh = append(fresh, name)
		}
	}
	if len(fresh) > parcel.MaxLeaves {
		return relayEntry{}, fmt.Errorf("%d members behind %s: a relay takes at most %d", len(fresh), relay, parcel.MaxLeaves)
	}
	e.Leaves = fresh
	for _, name := range names {
		r.behind[name] = relay
	}
	return *e, r.save()
}

// recognised is the fingerprint by which members recognise the coordinator; zero: as their system does.
func (b *Book) recognised() identity.Fingerprint {
	if b.Cert != "" {
		return identity.Fingerprint{}
	}
	return b.CA.Fingerprint()
}

// TokensBehind invites members that will be behind a relay: their tokens have the relay's address, and the coordinator takes
// their results in the relay's sums.
func (b *Book) TokensBehind(relay string, expires time.Duration, names ...string) ([]identity.Token, error) {
	for _, name := range names {
		if m, ok := b.Roster.ByName(name); ok && m.State == identity.Admitted {
			return nil, fmt.Errorf("%s has joined already; invite the site again under a new name", name)
		}
	}
	e, err := b.relays.enlist(relay, names)
	if err != nil {
		return nil, err
	}
	return b.Roster.Tokens(e.URL, e.CA, time.Now().Add(expires), names...)
}

// TokensBehind is that of [Book]; it is refused while a run is under way whose results a relay cannot add.
func (h *Host) TokensBehind(relay string, expires time.Duration, names ...string) ([]identity.Token, error) {
	for _, r := range h.Server.Runs() {
		if err := r.Summable(); err != nil && r.Err() == nil {
			return nil, fmt.Errorf("run %s takes no relays: %w", r.ID(), err)
		}
	}
	tokens, err := h.Book.TokensBehind(relay, expires, names...)
	if err == nil {
		h.Server.Delegated(relay)
	}
	return tokens, err
}

// serveEnrolment takes in a member that enrols at a relay. The relay vouches that the new member owns its key.
func (h *Host) serveEnrolment(w http.ResponseWriter, r *http.Request) {
	from, _ := h.Gate.Who(r)
	var req gate.JoinRequest
	if err := json.NewDecoder(io.LimitReader(r.Body, 4<<10)).Decode(&req); err != nil {
		gate.Refuse(w, &gate.Refusal{Code: gate.BadRequest, Status: http.StatusBadRequest, Message: err.Error()})
		return
	}
	var no *gate.Refusal
	reply, err := gate.EnrolBehind(h.Roster, req, func(name string) bool {
		relay, ok := h.relays.Behind(name)
		return ok && relay == from
	})
	if errors.As(err, &no) {
		gate.Refuse(w, no)
		return
	}
	h.o.Log.Info("a member has joined", "member", reply.Member, "behind", from)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(reply) // it asks again
	h.Server.Delegated(from)
}

// readsJournal reports whether a member may read the journal of a run: its members may, and relays for their leaves.
func (h *Host) readsJournal(name string, run *coordinator.Run) bool {
	if run.Agrees(name) {
		return true
	}
	d, ok := h.relays.Delegation(name)
	return ok && slices.ContainsFunc(d.Leaves, func(l transport.Leaf) bool { return run.Agrees(l.Name) })
}

// enrolPath is where relays pass on who enrols with them.
const enrolPath = relay.EnrolPath

var _ coordinator.Relays = (*relays)(nil)
