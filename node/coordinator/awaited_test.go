package coordinator

import (
	"testing"

	"github.com/cohort-learning/cohort/transport"
)

// TestAwaited asks a coordinator that has just been started again about a result that it accepted before, while the order is not
// issued again yet: the member must not be told that nobody waits for it, or it would give up a memory that is about to count.
func TestAwaited(t *testing.T) {
	w := newWorld(t, "scaffold")
	if err := w.begin(); err != nil {
		t.Fatal(err)
	}
	defer w.end()
	name := w.fleet.Member(0).Name
	msg := []byte("the result that was accepted")
	d := w.run.desk
	d.mu.Lock()
	d.highest = 7
	d.recorded[7] = &result{received: &received{Order: 7, Member: name, Message: transport.DigestOf(msg)}}
	d.mu.Unlock()
	ask := func(from string, order int, msg string) (v transport.Verdict) {
		w.run.result(from, transport.Envelope{}, &transport.Result{Order: order}, []byte(msg), func(b transport.Body) { v = *b.(*transport.Verdict) })
		return v
	}
	if v := ask(name, 7, string(msg)); v.Outcome != transport.Duplicate {
		t.Errorf("the same result again: %+v", v)
	}
	if v := ask(name, 7, "another"); v.Outcome != transport.Refused || v.Code != transport.CodeConflict {
		t.Errorf("another result: %+v", v)
	}
	if v := ask(w.fleet.Member(1).Name, 7, string(msg)); v.Outcome == transport.Duplicate {
		t.Errorf("somebody else: %+v", v)
	}
	if v := ask(name, 6, string(msg)); v.Outcome != transport.Late {
		t.Errorf("an order that was given up: %+v", v)
	}
	d.mu.Lock()
	d.behind = true
	d.mu.Unlock()
	if v := ask(name, 8, string(msg)); v.Outcome != transport.Refused || v.Code != transport.CodeBusy {
		t.Errorf("an order that may come again: %+v", v)
	}
	if v := ask(name, 6, string(msg)); v.Outcome != transport.Refused || v.Code != transport.CodeBusy {
		t.Errorf("an order before one that is recorded, which comes again before that one does: %+v", v)
	}
	var out transport.Duties
	w.run.settle(name, []transport.Holding{{Order: 6}, {Order: 7}, {Order: 8}}, &out, func([]byte) bool { return true })
	if out.Gone != "" {
		t.Errorf("told to forget %q, want none", out.Gone)
	}
	d.caughtUp()
	if v := ask(name, 6, string(msg)); v.Outcome != transport.Late {
		t.Errorf("an order that was given up: %+v", v)
	}
	if v := ask(name, 8, string(msg)); v.Outcome != transport.Refused || v.Code != transport.CodeUnknown {
		t.Errorf("an order that was never given: %+v", v)
	}
	out = transport.Duties{}
	w.run.settle(name, []transport.Holding{{Order: 8}}, &out, func([]byte) bool { return true })
	if out.Gone != "8" {
		t.Errorf("told to forget %q, want 8", out.Gone)
	}
}
