package coordinator

import (
	"context"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/node/parcel"
	"github.com/cohort-learning/cohort/transport"
)

// Relays knows which members are behind a relay. Its methods are safe for concurrent use and quick.
type Relays interface {
	// Is reports whether a member is a relay.
	Is(member string) bool
	// Delegation returns who is behind a relay; false if the member is no relay.
	Delegation(relay string) (*transport.Delegation, bool)
	// Leaves is how many members are behind relays.
	Leaves() int
	// Behind returns the relay that a member is behind; false if it is behind none.
	Behind(member string) (relay string, ok bool)
	// Announce notes where a member's leaves reach it. It is a relay from then on, with nobody behind it at first.
	Announce(relay, url string, ca identity.Fingerprint) error
}

// nobody is a federation without relays.
type nobody struct{}

func (nobody) Leaves() int                                               { return 0 }
func (nobody) Is(string) bool                                            { return false }
func (nobody) Delegation(string) (*transport.Delegation, bool)           { return nil, false }
func (nobody) Behind(string) (string, bool)                              { return "", false }
func (nobody) Announce(string, string, identity.Fingerprint) (err error) { return nil }

// speaker returns the member that a request is from: whose connection it came over or, if that is a relay, one of its leaves.
// Whether the member signed it is checked afterwards.
func (s *Server) speaker(req transport.Request) string {
	if !s.o.Relays.Is(req.From) {
		return req.From
	}
	e, err := transport.Peek(req.Msg)
	if err != nil {
		return req.From
	}
	if relay, ok := s.o.Relays.Behind(e.From); ok && relay == req.From {
		return e.From
	}
	return req.From
}

// patienceOf is how many requests of a member may wait: a relay brings those of its leaves.
func (s *Server) patienceOf(member string) int {
	d, _ := s.o.Relays.Delegation(member)
	if d == nil {
		return maxWaiting
	}
	return maxWaiting * (1 + len(d.Leaves))
}

// relay answers a relay that says who is connected to it.
func (s *Server) relay(from string, e transport.Envelope, reply func(string, transport.Body)) {
	var b transport.Relay
	if err := e.Decode(&b); err != nil {
		reply("", &transport.Failure{Code: codeOf(err), Message: err.Error()})
		return
	}
	for _, r := range s.Runs() {
		if r.agrees(from) {
			reply("", &transport.Failure{Code: transport.CodeUnknown, Message: "this member takes part in run " + r.spec.ID + ": a relay needs a name of its own"})
			return
		}
	}
	if err := s.o.Relays.Announce(from, b.URL, identity.Fingerprint(b.CA)); err != nil {
		reply("", &transport.Failure{Code: transport.CodeUnknown, Message: err.Error()})
		return
	}
	s.through(from, b.Here)
	d, _ := s.o.Relays.Delegation(from)
	reply("", d)
}

// through notes which leaves are connected to a relay; those that came are offered what they have yet to do.
func (s *Server) through(relay string, names []string) {
	here := map[string]bool{}
	for _, name := range names {
		if r, ok := s.o.Relays.Behind(name); ok && r == relay {
			here[name] = true
		}
	}
	s.mu.Lock()
	var came []string
	var news []Event
	for name, p := range s.members {
		if p.via == relay && !here[name] {
			news = append(news, s.meet(name, p, p.here, "")...)
		}
	}
	for name := range here {
		p := s.members[name]
		if p == nil {
			p = &presence{}
			s.members[name] = p
		}
		if p.via != relay {
			news = append(news, s.meet(name, p, p.here, relay)...)
			came = append(came, name)
		}
	}
	s.mu.Unlock()
	for _, e := range news {
		s.tell(e)
	}
	for _, name := range came {
		for _, r := range s.Runs() {
			go r.desk.welcome(s.ctx, name)
		}
	}
}

// meet changes how a member is connected, and returns what there is to tell. The caller holds the lock.
func (s *Server) meet(member string, p *presence, here bool, via string) []Event {
	was := p.connected()
	p.here, p.via = here, via
	if p.connected() == was {
		return nil
	}
	p.since = time.Now()
	what := "is not here any more"
	if !was {
		what = "is here"
		if !here {
			what += ", behind " + via
		}
	}
	s.o.Log.Info(what, "member", member)
	return []Event{{Member: member, Text: what}}
}

// Relayed is how many members are connected to relays.
func (s *Server) Relayed() (n int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, p := range s.members {
		if p.via != "" {
			n++
		}
	}
	return n
}

// Summable returns why the results of the run's members cannot be added by relays, or nil.
func (r *Run) Summable() error { return r.summable }

// Delegated tells a relay, if it is here, that those behind it are others.
func (s *Server) Delegated(relay string) {
	d, ok := s.o.Relays.Delegation(relay)
	if !ok {
		return
	}
	_ = s.o.Hub.Push(relay, s.seal(transport.Envelope{To: relay}, d)) // it is told again when it connects
}

// SealDelegation returns the signed message that a relay shows its leaves.
func (s *Server) SealDelegation(d *transport.Delegation) []byte {
	return s.seal(transport.Envelope{To: d.Relay}, d)
}

// send pushes a message to a member, by its own connection or its relay's.
func (s *Server) send(member string, msg []byte) {
	s.mu.RLock()
	by := member
	if p := s.members[member]; p != nil && !p.here && p.via != "" {
		by = p.via
	}
	s.mu.RUnlock()
	_ = s.o.Hub.Push(by, msg) // what is lost is asked for
}

// download lets a member, and the relay that it is behind, download blobs.
func (s *Server) download(member string, refs []transport.Ref) {
	s.o.Access.Download(member, refs)
	if relay, ok := s.o.Relays.Behind(member); ok {
		s.o.Access.Download(relay, refs)
	}
}

// handleRelay answers what only relays ask; false if it is something else.
func (r *Run) handleRelay(from string, e transport.Envelope, msg []byte, reply func(transport.Body)) (bool, error) {
	if !r.srv.o.Relays.Is(from) {
		return false, nil
	}
	switch e.Kind {
	case transport.KindLayout:
		var b transport.Layout
		if err := e.Decode(&b); err != nil {
			return true, err
		}
		r.layout(from, &b, reply)
	case transport.KindAsk:
		var b transport.Ask
		if err := e.Decode(&b); err != nil {
			return true, err
		}
		r.ask(from, &b, reply)
	case transport.KindPartial:
		var b transport.Partial
		if err := e.Decode(&b); err != nil {
			return true, err
		}
		r.partial(from, e, &b, msg, reply)
	default:
		return false, nil
	}
	return true, nil
}

// mayAnswer reports whether a member may hand in the result of another's order: its own, or that of a leaf.
func (r *Run) mayAnswer(from string, x *order) bool {
	if x.Member.Name == from {
		return true
	}
	relay, ok := r.srv.o.Relays.Behind(x.Member.Name)
	return ok && relay == from
}

// layout tells a relay what the results of an order's phase are added to.
func (r *Run) layout(from string, body *transport.Layout, reply func(transport.Body)) {
	x, refused := r.claim(from, body.Order, body.Task)
	if refused != nil {
		reply(refused)
		return
	}
	if err := r.Summable(); err != nil {
		reply(&transport.Failure{Code: transport.CodeResult, Message: err.Error()})
		return
	}
	if body.Again {
		r.push(x.Member.Name, x.task)
	}
	out := &transport.Folds{}
	for _, f := range x.Folds {
		like := []transport.Shape{}
		for name, t := range f.Like.All() {
			like = append(like, transport.Shape{Name: name, Shape: append([]int{}, t.Shape...)})
		}
		out.Folds = append(out.Folds, transport.Fold{Name: f.Name, Like: like, Indexed: f.Indexed, Counts: f.Counts})
	}
	p := parcel.Packer{Store: r.desk.store}
	err := r.desk.pins.pack(func() (refs []transport.Ref, err error) {
		out.Folds, out.Ref, err = p.Folds(context.Background(), out.Folds)
		return p.Refs, err
	})
	if err != nil {
		reply(&transport.Failure{Code: transport.CodeInternal, Message: err.Error()})
		return
	}
	r.desk.mu.Lock()
	x.pinned = append(x.pinned, p.Refs...)
	r.desk.mu.Unlock()
	r.srv.o.Access.Download(from, p.Refs)
	reply(&referring{out, p.Refs})
}

// referring is an answer that refers to blobs.
type referring struct {
	transport.Body
	refs []transport.Ref
}

// delegated records once who is behind a relay, before the first result that came by it.
func (r *Run) delegated(relay string) {
	d, ok := r.srv.o.Relays.Delegation(relay)
	if !ok {
		return
	}
	rec := delegation{Relay: relay, Number: d.Number, Message: transport.DigestOf(r.srv.SealDelegation(d))}
	for _, l := range d.Leaves {
		rec.Leaves = append(rec.Leaves, l.Name)
	}
	r.delegating.Lock()
	defer r.delegating.Unlock()
	if text := strings.Join(rec.Leaves, " "); r.delegations[relay] != text {
		r.delegations[relay] = text
		r.appender.add(KindDelegated, rec, ignored)
	}
}
