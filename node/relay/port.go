package relay

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/blob/web"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/node/gate"
	"github.com/cohort-learning/cohort/node/member"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/transport/natsbus"
)

// EnrolPath is where a relay passes on, at the coordinator, who enrols with it.
const EnrolPath = "/relay/join"

// routes puts everything that is served onto the one port.
func (r *Relay) routes(bus *natsbus.Server) {
	r.gate.HandleMembers(natsbus.Path, bus.Handler())
	r.gate.HandleMembers("/blob/", web.NewHandler(r.store, web.HandlerOptions{Who: r.gate.Who, Permits: r.permits,
		Notes: filepath.Join(r.o.Folder.Dir, uploadsName), Log: r.log}))
	r.gate.HandleMembers("GET "+member.RelayPath, http.HandlerFunc(r.serveDelegation))
	r.gate.HandleMembers("GET /journal/{run}", http.HandlerFunc(r.serveJournal))
	r.gate.Handle("POST /join", gate.JoinHandler((*admitter)(r), gate.JoinLimits{Log: r.log}))
}

// serveDelegation shows a leaf the coordinator's word for the relay.
func (r *Relay) serveDelegation(w http.ResponseWriter, _ *http.Request) {
	r.ledger.mu.Lock()
	text := r.ledger.text
	r.ledger.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text) // it asks again
}

// serveJournal passes on the coordinator's journal of a run.
func (r *Relay) serveJournal(w http.ResponseWriter, req *http.Request) {
	var from uint64
	if text := req.URL.Query().Get("from"); text != "" {
		if _, err := fmt.Sscanf(text, "%d", &from); err != nil {
			http.Error(w, "from is the number of a record", http.StatusBadRequest)
			return
		}
	}
	lines, err := r.network.Proof(req.Context(), req.PathValue("run"), from)
	if err != nil {
		http.NotFound(w, req)
		return
	}
	defer lines.Close()
	w.Header().Set("Content-Type", "application/jsonl")
	if _, err := io.Copy(w, lines); err != nil {
		panic(http.ErrAbortHandler) // else the leaf takes it for the end
	}
}

// joined are the answers to those who have enrolled here.
type joined struct {
	mu      sync.Mutex
	replies map[string]gate.JoinReply
	last    gate.JoinReply
}

// admitter is a Relay as what enrolment asks: it asks the coordinator.
type admitter Relay

var _ gate.Admitter = (*admitter)(nil)

// Federation implements [gate.Admitter].
func (a *admitter) Federation() identity.Public { return a.fed }

// Name implements [gate.Admitter].
func (a *admitter) Name() string {
	a.names.mu.Lock()
	defer a.names.mu.Unlock()
	return a.names.last.Federation
}

// Head implements [gate.Admitter].
func (a *admitter) Head() journal.Head {
	a.names.mu.Lock()
	defer a.names.mu.Unlock()
	return a.names.last.Head
}

// Proof implements [gate.Admitter].
func (a *admitter) Proof(name string) (identity.Proof, error) {
	a.names.mu.Lock()
	defer a.names.mu.Unlock()
	reply, ok := a.names.replies[name]
	if !ok {
		return identity.Proof{}, fmt.Errorf("%.64q did not enrol here", name)
	}
	return reply.Admission, nil
}

// Admit implements [gate.Admitter]. The leaf is let in once the coordinator's delegation says so.
func (a *admitter) Admit(name string, secret identity.Secret, key identity.Public) (identity.Member, error) {
	r := (*Relay)(a)
	ctx, cancel := context.WithTimeout(r.root, patience)
	defer cancel()
	reply, err := r.enrol(ctx, gate.JoinRequest{Name: name, Secret: secret, Key: key})
	if err != nil {
		return identity.Member{}, err
	}
	if err := reply.Admission.Admission(r.fed, name, key); err != nil {
		return identity.Member{}, err
	}
	a.names.mu.Lock()
	if a.names.replies == nil {
		a.names.replies = map[string]gate.JoinReply{}
	}
	a.names.replies[name], a.names.last = reply, reply
	a.names.mu.Unlock()
	if err := r.present(ctx); err != nil { // for the new delegation
		return identity.Member{}, err
	}
	if who, ok := r.ledger.who(key); !ok || who != name {
		return identity.Member{}, fmt.Errorf("the coordinator has admitted %s and not delegated it", name)
	}
	return identity.Member{Name: name, Key: key, State: identity.Admitted}, nil
}

// enrol asks the coordinator.
func (r *Relay) enrol(ctx context.Context, req gate.JoinRequest) (reply gate.JoinReply, err error) {
	body, err := json.Marshal(req)
	if err != nil {
		return reply, err
	}
	card := r.o.Folder.Card
	client, err := identity.HTTPClient(r.key, card.URL, identity.NewTrust(card.CA), nil)
	if err != nil {
		return reply, err
	}
	defer client.CloseIdleConnections()
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, card.URL+EnrolPath, bytes.NewReader(body))
	if err != nil {
		return reply, err
	}
	res, err := client.Do(post)
	if err != nil {
		r.log.Warn("somebody wants to join, and the coordinator cannot be asked", "error", err)
		return reply, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return reply, err
	}
	if res.StatusCode != http.StatusOK {
		no := gate.Refusal{Status: res.StatusCode}
		if json.Unmarshal(text, &no) != nil || no.Code == "" {
			return reply, fmt.Errorf("the coordinator answered %s", res.Status)
		}
		return reply, &no
	}
	return reply, json.Unmarshal(text, &reply)
}

// announceSoon has the coordinator told who is here.
func (r *Relay) announceSoon() {
	select {
	case r.poke <- struct{}{}:
	default:
	}
}

// announce tells the coordinator who is here, whenever that changes and now and then.
func (r *Relay) announce(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-r.poke:
			time.Sleep(20 * time.Millisecond) // several come together
		case <-ctx.Done():
			return
		}
		wait := every
		if err := r.present(ctx); err != nil && ctx.Err() == nil {
			wait = retry
			if r.connected() {
				wait = time.Second
				r.log.Warn("the coordinator does not take this relay", "error", err)
			}
		}
		timer.Reset(wait)
	}
}

// present says who is here and takes over the delegation.
func (r *Relay) present(ctx context.Context) error {
	here := r.hub.Present()
	if here == nil {
		here = []string{}
	}
	e, msg, err := r.request(ctx, transport.Envelope{}, &transport.Relay{URL: r.url, CA: transport.Digest(r.ca.Fingerprint()), Here: here})
	if err != nil {
		return err
	}
	return r.delegated(e, msg)
}

// delegated takes over a delegation, and shows out those who are not behind the relay any more.
func (r *Relay) delegated(e transport.Envelope, msg []byte) error {
	var d transport.Delegation
	if err := e.Decode(&d); err != nil {
		return err
	}
	if d.Relay != r.name || d.Key != r.key.Public().String() {
		return fmt.Errorf("the coordinator's delegation is for %.64q", d.Relay)
	}
	r.ledger.mu.Lock()
	old := r.ledger.delegation
	r.ledger.mu.Unlock()
	if old != nil && d.Number <= old.Number {
		return nil
	}
	if err := r.note(KindDelegated, delegated{string(msg)}); err != nil {
		return err
	}
	if old == nil {
		return nil
	}
	for _, l := range old.Leaves {
		if k, err := identity.ParsePublic(l.Key); err == nil && !d.Has(l.Name, k) {
			r.gate.Cut(l.Name)
			r.hub.Cut(l.Name)
		}
	}
	return nil
}
