package coordinator

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/node/parcel"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/weights"
)

// split puts the members of a world behind two relays, but for one that joins the coordinator itself.
func (w *world) split() {
	var names []string
	for i := range w.fleet.Len() {
		names = append(names, w.fleet.Member(i).Name)
	}
	w.absent = patience // a relay says who is here, which may take a moment longer than a member's own connection
	w.behind("north", names[1:3]...)
	w.behind("south", names[3:]...)
}

// until waits for something to come true.
func (w *world) until(what func() bool) {
	w.t.Helper()
	for end := time.Now().Add(patience); !what(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatal(w.describe())
		}
	}
}

// TestRelayedBits: what members behind relays compute, with one that is behind none, is what the simulation computes; the journal
// names who was delegated, and the run can be computed again from it.
func TestRelayedBits(t *testing.T) {
	for _, method := range []string{"fedavg", "scaffold", "heterofl"} {
		t.Run(method, func(t *testing.T) {
			w := newWorld(t, method)
			w.split()
			w.undisturbed("behind relays")
			kinds := map[string]int{}
			for r, err := range journal.Read(w.fs, w.dir+"/run") {
				if err != nil {
					t.Fatal(err)
				}
				kinds[r.Kind]++
			}
			if kinds[KindPartial] == 0 || kinds[KindDelegated] != 2 || kinds[KindRefused] > 0 {
				t.Errorf("records %v", kinds)
			}
		})
	}
}

// TestFalseRelays lets a relay lie in every way that can be seen. Each lie is refused by its code, nothing of it counts, and the
// honest sum that follows does: the run ends in the bits of the simulation.
func TestFalseRelays(t *testing.T) {
	for _, c := range []struct {
		name string
		lie  func(w *world, s *stand, p *parcel.Partial, e *transport.Envelope)
		code transport.Code
		says string
	}{
		{"an invented leaf", func(w *world, s *stand, p *parcel.Partial, _ *transport.Envelope) {
			p.Leaves = append(p.Leaves, parcel.Leaf{Message: s.forge(s.key, "nobody", p.Leaves[0].Message)})
		}, transport.CodeSender, "not among those behind"},
		{"a leaf of another relay", func(w *world, s *stand, p *parcel.Partial, _ *transport.Envelope) {
			other := w.members[w.stands["north"].leaves[0]]
			p.Leaves = append(p.Leaves, parcel.Leaf{Message: s.forge(other.key, other.name, p.Leaves[0].Message)})
		}, transport.CodeSender, "not among those behind"},
		{"a forged inclusion", func(w *world, s *stand, p *parcel.Partial, _ *transport.Envelope) {
			p.Leaves[0].Message = s.forge(s.key, s.leaves[0], p.Leaves[0].Message)
		}, transport.CodeSignature, "signature"},
		{"a changed result", func(w *world, s *stand, p *parcel.Partial, _ *transport.Envelope) {
			p.Leaves[0].Message = bytes.Replace(p.Leaves[0].Message, []byte(`"order":`), []byte(`"order":1`), 1)
		}, transport.CodeSignature, "signature"},
		{"a leaf twice", func(w *world, s *stand, p *parcel.Partial, _ *transport.Envelope) {
			p.Leaves = append(p.Leaves, p.Leaves[0])
		}, transport.CodeConflict, "twice"},
		{"another's order", func(w *world, s *stand, p *parcel.Partial, _ *transport.Envelope) {
			m := w.members[s.leaves[0]]
			p.Leaves[0].Message = s.forgeOrder(m, p.Leaves[0].Message, 0)
		}, transport.CodeUnknown, "no such task"},
		{"an order that nobody had", func(w *world, s *stand, p *parcel.Partial, _ *transport.Envelope) {
			m := w.members[s.leaves[0]]
			p.Leaves[0].Message = s.forgeOrder(m, p.Leaves[0].Message, 1<<30)
		}, transport.CodeUnknown, "no such task"},
		{"another phase", func(w *world, s *stand, _ *parcel.Partial, e *transport.Envelope) { e.Step = "eval" }, transport.CodeTask, "the sum is of"},
		{"nobody", func(w *world, s *stand, p *parcel.Partial, _ *transport.Envelope) {
			p.Leaves = []parcel.Leaf{{Message: []byte("{}")}}
		}, transport.CodeMalformed, "malformed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, "fedavg")
			w.config.Rounds = 1
			w.split()
			want := w.simulated()
			s := w.stands["south"]
			lies := 0
			s.lie = func(p *parcel.Partial, e *transport.Envelope) {
				if lies++; lies == 1 {
					c.lie(w, s, p, e)
				}
			}
			if err := w.begin(); err != nil {
				t.Fatal(err)
			}
			w.joinAll()
			w.wait()
			w.end()
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.answers) < 2 || s.answers[0].Outcome != transport.Refused || s.answers[0].Code != c.code || !strings.Contains(s.answers[0].Reason, c.says) {
				t.Errorf("answered %+v, not %s: … %s …", s.answers, c.code, c.says)
			}
			if got := w.digest(); got != want {
				t.Errorf("with a lie refused the network ended in %.16s…, the simulation in %.16s…", got, want)
			}
			refused := 0
			for r, err := range journal.Decode[refusal](journal.Read(w.fs, w.dir+"/run", KindRefused)) {
				if err != nil {
					t.Fatal(err)
				}
				if r.Body.Member == "south" && r.Body.Code == c.code {
					refused++
				}
			}
			if refused != 1 {
				t.Errorf("the journal names the relay %d times", refused)
			}
		})
	}
}

// TestFalseSums: sums that do not fit the results that are said to be inside, or that are none, do not count, and their members
// are named. A sum that is wrong within what its results allow counts: a relay is trusted for it, and computing the run again
// from the members' data finds it.
func TestFalseSums(t *testing.T) {
	one := func(p *parcel.Partial) *weights.Acc { return p.Sums[""]["w"] }
	add := func(a *weights.Acc, v float32, weight uint64) {
		x := weights.NewSet(1)
		like := a.Mean(weights.Float32)
		for name, t := range like.All() {
			t = t.Clone()
			for i := range t.F32 {
				t.F32[i] = v
			}
			x.Put(name, t)
		}
		if err := a.Add(x, nil, nil, weight); err != nil {
			panic(err)
		}
	}
	lied := func(t *testing.T, lie func(p *parcel.Partial)) (w *world, lost int, reasons string) {
		w = newWorld(t, "fedavg")
		w.config.Rounds = 1
		w.split()
		s := w.stands["south"]
		s.lie = func(p *parcel.Partial, e *transport.Envelope) {
			if e.Step == "train" {
				lie(p)
			}
		}
		if err := w.begin(); err != nil {
			t.Fatal(err)
		}
		w.joinAll()
		w.wait()
		w.end()
		type ended struct {
			Phase  string            `json:"phase"`
			Lost   federated.Indices `json:"lost"`
			Events []record.Event    `json:"events"`
		}
		for r, err := range journal.Decode[ended](journal.Read(w.fs, w.dir+"/run", "phase.closed")) {
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range r.Body.Events {
				reasons += e.Client + ": " + e.Message + "\n"
			}
			lost += len(r.Body.Lost)
		}
		return w, lost, reasons
	}
	t.Run("a weight too many", func(t *testing.T) {
		_, lost, reasons := lied(t, func(p *parcel.Partial) { add(one(p), 0, 7) })
		if lost == 0 || strings.Count(reasons, "the results that are said to be in it have ") != lost {
			t.Errorf("%d members lost:\n%s", lost, reasons)
		}
	})
	t.Run("wrong within range", func(t *testing.T) {
		w, lost, reasons := lied(t, func(p *parcel.Partial) {
			weight := one(p).Weight()
			p.Sums[""]["w"] = weights.NewAcc(one(p).Mean(weights.Float32), false)
			add(one(p), 0.5, weight)
		})
		if lost > 0 {
			t.Fatalf("%d members lost:\n%s", lost, reasons)
		}
		if w.digest() == w.simulated() {
			t.Error("a wrong sum makes no difference")
		}
		if err := w.replayed(); err == nil {
			t.Error("computing the run again does not find the wrong sum")
		}
	})
}

// TestHomecoming: a leaf whose relay has its result, and hands it in later, goes to the coordinator with it: it counts once.
func TestHomecoming(t *testing.T) {
	w := newWorld(t, "fedavg")
	w.config.Rounds = 2
	w.split()
	want := w.simulated()
	s := w.stands["south"]
	slow := make(chan struct{})
	first := make(chan string, 1) // a leaf whose result is in the first sum
	told := false
	s.lie = func(p *parcel.Partial, e *transport.Envelope) {
		if told {
			return
		}
		told = true
		inside, err := transport.Peek(p.Leaves[0].Message)
		if err != nil {
			panic(err)
		}
		first <- inside.From
		<-slow
	}
	if err := w.begin(); err != nil {
		t.Fatal(err)
	}
	w.joinAll()
	leaf := w.members[<-first]
	leaf.mu.Lock()
	leaf.behind = nil
	leaf.link = w.bus.Dial(leaf.name)
	link := leaf.link
	leaf.mu.Unlock()
	link.Receive(leaf.receive)
	leaf.sync() // delivers what was kept
	w.until(func() bool {
		w.run.desk.mu.Lock()
		defer w.run.desk.mu.Unlock()
		for _, x := range w.run.desk.orders {
			if x.Member.Name == leaf.name && x.state >= acceptedState {
				return true
			}
		}
		return false
	})
	close(slow)
	w.wait()
	w.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	if in := s.answers[0]; in.Outcome == transport.Accepted || in.Outcome == transport.Refused && (in.Counted == "" || in.Out != "") {
		t.Errorf("the relay's sum with a result that has come another way is answered %+v", in)
	}
	times := map[int]int{} // by order
	for r, err := range journal.Read(w.fs, w.dir+"/run", KindReceived, KindPartial) {
		var x received
		var c combined
		if err == nil {
			err = errors.Join(json.Unmarshal(r.Body, &x), json.Unmarshal(r.Body, &c))
		}
		if err != nil {
			t.Fatal(err)
		}
		if r.Kind == KindReceived {
			times[x.Order]++
		}
		for _, l := range c.Leaves {
			times[l.Order]++
		}
	}
	for id, n := range times {
		if n != 1 {
			t.Errorf("order %d counts %d times", id, n)
		}
	}
	if got := w.digest(); got != want {
		t.Errorf("the run ended in %.16s…, the simulation in %.16s…", got, want)
	}
}

// forge makes a message like another, from somebody else, with a key.
func (s *stand) forge(k identity.Key, name string, like []byte) []byte {
	return s.reseal(k, name, like, func(*transport.Result) {})
}

// forgeOrder makes a leaf's result one of another order.
func (s *stand) forgeOrder(m *puppet, like []byte, order int) []byte {
	return s.reseal(m.key, m.name, like, func(r *transport.Result) { r.Order = order })
}

func (s *stand) reseal(k identity.Key, name string, like []byte, change func(*transport.Result)) []byte {
	e, err := transport.Peek(like)
	var body transport.Result
	if err == nil {
		err = e.Decode(&body)
	}
	if err == nil {
		change(&body)
		e.From = name
		err = e.Put(&body)
	}
	var msg []byte
	if err == nil {
		msg, err = transport.Seal(k, e)
	}
	if err != nil {
		panic(err)
	}
	return msg
}

// TestComing: after a restart a result of an order that the driver has not come to again is neither late nor unknown, and its
// member is not told to forget it; once the driver is past it, or the phase is over, it is.
func TestComing(t *testing.T) {
	w := newWorld(t, "fedavg")
	d := newDesk(nil, nil, nil, nil, 1, time.Minute, 0, nil)
	srv := New(Options{Key: w.key, Hub: w.bus.Hub()})
	t.Cleanup(srv.Close)
	r := &Run{srv: srv, desk: d, keeper: &keeper{closes: &closes{}}}
	d.behind, d.highest, d.issued = true, 9, 4
	r.keeper.closes.add(closed{closing: closing{Orders: federated.Indices{2, 3}, State: transport.Digest{}.String()}})
	for id, want := range map[int]transport.Code{3: transport.CodeStale, 4: transport.CodeStale, 7: transport.CodeBusy, 12: transport.CodeBusy} {
		if _, no := r.claim("m", id, transport.Digest{}); no == nil || no.Code != want {
			t.Errorf("order %d: %v, want %s", id, no, want)
		}
	}
	duties := &transport.Duties{}
	if r.settle("m", []transport.Holding{{Order: 4}, {Order: 7}}, duties, func([]byte) bool { return true }); duties.Gone != "4" {
		t.Errorf("to be forgotten: %q", duties.Gone)
	}
	d.caughtUp()
	if _, no := r.claim("m", 7, transport.Digest{}); no.Code != transport.CodeStale {
		t.Errorf("when the phase is over: %v", no)
	}
	if _, no := r.claim("m", 12, transport.Digest{}); no.Code != transport.CodeUnknown {
		t.Errorf("when the phase is over: %v", no)
	}
}
