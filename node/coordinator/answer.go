package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/transport"
)

// answer handles one request of a member.
func (s *Server) answer(req transport.Request) {
	from := s.speaker(req)
	m, ok := s.o.Roster.ByName(from)
	s.heard(from)
	reply := func(run string, body transport.Body) {
		e := transport.Envelope{Run: run, To: from}
		if w, ok := body.(*referring); ok {
			body, e.Refs = w.Body, w.refs
		}
		req.Reply(s.seal(e, body))
	}
	refuse := func(run string, f *transport.Failure) {
		s.counters.refuse(f.Code)
		reply(run, f)
	}
	if !ok || m.State != identity.Admitted {
		refuse("", &transport.Failure{Code: transport.CodeRevoked, Message: "the member is not admitted"})
		return
	}
	e, wrong := verify(m.Key, from, s.fed, req.Msg)
	if wrong != nil {
		if many, ok := s.counters.worth(from, wrong.Code); ok {
			s.o.Log.Warn("a message was refused"+many, "member", from, "code", wrong.Code, "reason", wrong.Message)
		}
		refuse(e.Run, wrong)
		return
	}
	if e.Kind == transport.KindHello {
		s.hello(from, e, reply)
		return
	}
	if e.Kind == transport.KindRelay {
		s.relay(from, e, reply)
		return
	}
	if e.Kind == transport.KindLeave && e.Run == "" && s.o.Leave != nil {
		s.farewell(from, e, reply)
		return
	}
	r, ok := s.Run(e.Run)
	if !ok {
		refuse(e.Run, &transport.Failure{Code: transport.CodeUnknown, Message: "there is no such run"})
		return
	}
	if err := r.handle(from, m.Key.String(), e, req.Msg, func(b transport.Body) {
		if b == nil { // whatever the member has to do now
			b = r.duties(from, nil)
		}
		reply(r.spec.ID, b)
	}); err != nil {
		refuse(e.Run, &transport.Failure{Code: codeOf(err), Message: err.Error()})
	}
}

// farewell lets a member leave the federation.
func (s *Server) farewell(from string, e transport.Envelope, reply func(string, transport.Body)) {
	var b transport.Leave
	err := e.Decode(&b)
	if err == nil {
		err = s.o.Leave(from)
	}
	if err != nil {
		reply("", &transport.Failure{Code: codeOf(err), Message: err.Error()})
		return
	}
	why := "left the federation"
	if b.Reason != "" {
		why += ": " + b.Reason
	}
	for _, r := range s.Runs() {
		r.lose(from, why)
	}
	reply("", &transport.Verdict{Outcome: transport.Accepted})
}

// codeOf is the code of an error of package transport.
func codeOf(err error) transport.Code {
	switch {
	case errors.Is(err, transport.ErrVersion):
		return transport.CodeVersion
	case errors.Is(err, transport.ErrSignature):
		return transport.CodeSignature
	}
	return transport.CodeMalformed
}

func (s *Server) hello(from string, e transport.Envelope, reply func(string, transport.Body)) {
	var h transport.Hello
	if err := e.Decode(&h); err != nil {
		reply("", &transport.Failure{Code: codeOf(err), Message: err.Error()})
		return
	}
	if !slices.Contains(h.Versions, transport.Version) {
		reply("", &transport.Failure{Code: transport.CodeVersion, Message: fmt.Sprintf(
			"the member speaks versions %v of the protocol, the coordinator %d: update the older of the two", h.Versions, transport.Version)})
		return
	}
	s.mu.Lock()
	p := s.members[from]
	if p == nil { // the word that it is here comes another way, and may come later
		p = &presence{}
		s.members[from] = p
	}
	p.kernels, p.program, p.together = h.Kernels, h.Program, slices.Contains(h.Can, transport.CanTasks)
	s.mu.Unlock()
	w := &transport.Welcome{Version: transport.Version, You: from, Federation: s.o.Name, Program: s.o.Program, Runs: []string{}}
	for _, r := range s.Runs() {
		w.Runs = append(w.Runs, r.spec.ID)
	}
	reply("", w)
}

// handle answers a request that concerns the run. An error is a message that cannot be read.
func (r *Run) handle(from, key string, e transport.Envelope, msg []byte, reply func(transport.Body)) error {
	switch e.Kind {
	case transport.KindConsent:
		var b transport.Consent
		if err := e.Decode(&b); err != nil {
			return err
		}
		r.consent(from, key, &b, msg, reply)
		return nil
	case transport.KindSync:
		var b transport.Sync
		if err := e.Decode(&b); err != nil {
			return err
		}
		reply(r.duties(from, b.Holding))
		return nil
	case transport.KindLeave:
		var b transport.Leave
		if err := e.Decode(&b); err != nil {
			return err
		}
		why := "left"
		if b.Reason != "" {
			why += ": " + b.Reason
		}
		r.lose(from, why)
		reply(&transport.Verdict{Outcome: transport.Accepted})
		return nil
	}
	if done, err := r.handleRelay(from, e, msg, reply); done {
		return err
	}
	if _, ok := r.people.find(from); !ok {
		reply(&transport.Failure{Code: transport.CodeTerms, Message: "agree to the terms of the run first"})
		return nil
	}
	switch e.Kind {
	case transport.KindAsk:
		var b transport.Ask
		if err := e.Decode(&b); err != nil {
			return err
		}
		r.ask(from, &b, reply)
	case transport.KindResult:
		var b transport.Result
		if err := e.Decode(&b); err != nil {
			return err
		}
		r.result(from, e, &b, msg, reply)
	case transport.KindProgress:
		var b transport.Progress
		if err := e.Decode(&b); err != nil {
			return err
		}
		r.desk.note(from, b.Order, b.Part)
	default:
		reply(&transport.Failure{Code: transport.CodeMalformed, Message: fmt.Sprintf("a member does not send %s", e.Kind)})
	}
	return nil
}

// maxDuties bounds the messages inside one answer to a sync.
const maxDuties = transport.MaxMessage - 8<<10

// duties is what a member has to do now, given what it holds.
func (r *Run) duties(from string, holding []transport.Holding) *transport.Duties {
	d := &transport.Duties{Messages: []string{}}
	size := 0
	add := func(msg []byte) bool {
		n := len(msg) + strings.Count(string(msg), `"`) + strings.Count(string(msg), `\`) + 4 // as it is escaped
		if size+n > maxDuties && len(d.Messages) > 0 {
			d.More = true
			return false
		}
		size += n
		d.Messages = append(d.Messages, string(msg))
		return true
	}
	if !r.agrees(from) {
		add(r.terms)
		return d
	}
	if h, ok := r.keeper.closes.head(); ok {
		d.Head = &h
	}
	if !r.settle(from, holding, d, add) {
		return d
	}
	if end, ok := r.keeper.closes.final(); ok {
		if end.final != nil {
			r.srv.download(from, []transport.Ref{*end.final})
		}
		if msg, err := r.closeMessage(end, everybody); err == nil {
			add(msg)
		}
		return d
	}
	has := map[int]transport.Digest{}
	for _, h := range holding {
		has[h.Order] = h.Task
	}
	for _, x := range r.desk.openOf(from) {
		if err := r.desk.make(context.Background(), x); err != nil {
			continue // the driver is told
		}
		if has[x.ID] == x.digest {
			continue
		}
		if x.group != nil && !add(r.seatOf(x.Member)) || !add(x.task) {
			return d
		}
	}
	return d
}

// settle adds the ends of phases that concern what a member holds, and names what nobody waits for; false if there was no room.
func (r *Run) settle(from string, holding []transport.Holding, d *transport.Duties, add func([]byte) bool) bool {
	var forgotten federated.Indices
	told := map[transport.Digest]bool{}
	for _, h := range holding {
		if rec, ok := r.desk.awaits(h.Order); ok && rec.Member == from { // first: it is here or there
			continue
		}
		if r.foreign(from, h.Order) {
			forgotten = append(forgotten, h.Order)
			continue
		}
		if x, _ := r.desk.find(h.Order); x != nil {
			continue
		}
		if _, ok := r.desk.settles(h.Order); ok {
			continue
		}
		c, ok := r.keeper.closes.of(h.Order)
		if !ok && r.desk.coming(h.Order) {
			continue
		}
		if !ok {
			forgotten = append(forgotten, h.Order)
			continue
		}
		if told[c.head.Hash] {
			continue
		}
		told[c.head.Hash] = true
		msg, err := r.closeMessage(c, r.place(from))
		if err != nil {
			continue
		}
		if !add(msg) {
			return false
		}
	}
	slices.Sort(forgotten)
	text, _ := forgotten.MarshalText() // cannot fail
	d.Gone = string(text)
	return true
}

// closeMessage signs the end of a phase as the member in a place of the run is told of it.
func (r *Run) closeMessage(c closed, place int) ([]byte, error) {
	body, err := c.body(place)
	if err != nil {
		return nil, err
	}
	e := transport.Envelope{Fed: r.srv.fed, Run: r.spec.ID, Round: c.round, Step: c.phase}
	if c.final != nil {
		e.Refs = []transport.Ref{*c.final}
	}
	if err := e.Put(body); err != nil {
		return nil, err
	}
	return transport.Seal(r.srv.o.Key, e)
}

// announce tells all members that a phase has closed, and reports whether that is on its way.
func (r *Run) announce(c closed) bool {
	if c.Apart {
		return r.announceApart(c)
	}
	msg, err := r.closeMessage(c, everybody)
	if err == nil && !c.last && r.desk.tellsAll() {
		r.leave(msg)
		return true
	}
	r.part()
	if err == nil {
		err = r.srv.o.Hub.Broadcast(msg)
	}
	if err != nil { // they will ask
		r.log.Warn("the end of a phase could not be broadcast", "round", c.round, "phase", c.phase, "error", err)
	}
	return err == nil
}

// progress and closedRound tell those who watch.
func (r *Run) progress(phase string, answered, asked int) {
	r.answered.Store(int64(answered))
	r.asked.Store(int64(asked))
	r.phase.Store(&phase)
	r.moved()
}

func (r *Run) closedRound(round simulation.Round) {
	if o := r.spec.Observer; o != nil {
		o.Round(round)
	}
	r.moved()
	r.srv.tell(Event{Run: r.spec.ID, Text: fmt.Sprintf("round %d of %d closed", round.RoundClosed.Round+1, r.spec.Config.Rounds)})
}

// seal implements outbox.
func (r *Run) seal(o *federated.Order, t *transport.Task, refs []transport.Ref) ([]byte, error) {
	e := transport.Envelope{Fed: r.srv.fed, Run: r.spec.ID, Round: o.Round, Step: o.Phase, To: o.Member.Name, Refs: refs}
	if err := e.Put(t); err != nil {
		return nil, err
	}
	msg, err := transport.Seal(r.srv.o.Key, e)
	if err == nil && len(refs) > 0 {
		r.srv.download(o.Member.Name, refs)
	}
	return msg, err
}

// push implements outbox.
func (r *Run) push(member string, msg []byte) { r.srv.send(member, msg) }

// withdraw implements outbox.
func (r *Run) withdraw(member string, refs []transport.Ref) {
	if len(refs) > 0 {
		r.srv.o.Access.Done(member, refs)
	}
}

// here implements outbox.
func (r *Run) here(member string) bool {
	r.srv.mu.RLock()
	defer r.srv.mu.RUnlock()
	p := r.srv.members[member]
	return p != nil && p.connected()
}
