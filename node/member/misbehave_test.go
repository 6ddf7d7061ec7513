package member_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/node/member"
	"github.com/cohort-learning/cohort/node/parcel"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/weights"
)

// play runs a study with a coordinator that setup makes lie, and returns the ends of both sides.
func play(t *testing.T, s *study, setup func(*coordinator, *person), change func(*member.Options)) (*coordinator, *person, federated.State, error) {
	t.Helper()
	c := newCoordinator(t, s, theFederation)
	p := newPerson(c)
	var state federated.State
	var end error
	synctest.Test(t, func(t *testing.T) {
		c.open()
		setup(c, p)
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		done := make(chan struct{})
		go func() {
			defer close(done)
			end = p.run(ctx, nil, change)
			if end != nil {
				cancel()
			}
		}()
		var err error
		if state, err = c.run(ctx); err != nil && ctx.Err() == nil && c.declined == "" {
			if !c.lenient {
				t.Errorf("coordinator: %v", err)
			}
			cancel()
		}
		<-done
	})
	return c, p, state, end
}

// say fails the test unless an event of the kind has a text.
func (p *person) say(t *testing.T, kind member.EventKind, text string) {
	t.Helper()
	heard := p.heard(kind)
	if !slices.ContainsFunc(heard, func(s string) bool { return strings.Contains(s, text) }) {
		t.Errorf("no %q event says %q: %q", kind, text, heard)
	}
	for _, s := range heard {
		if strings.ContainsAny(s, "\n\x1b") {
			t.Errorf("%q is not one line", s)
		}
	}
}

// What does not belong to a member changes nothing, however much of it comes: forged, of other runs, for others, replayed.
func TestMessagesOfStrangers(t *testing.T) {
	e := fedtest.Engine(t, "go")
	s := newStudy(t, e, "scaffold")
	want := s.simulate(t).Final.Digest()
	var old [][]byte
	c, p, got, err := play(t, s, func(c *coordinator, _ *person) {
		forger := newCoordinator(t, s, theMember)
		c.onTask = func(o *assignment) (msgs [][]byte) {
			if o.ID == 0 {
				for i := range 10_000 {
					msgs = append(msgs, fmt.Appendf(nil, `{"v":1,"junk":%d}`, i))
				}
				// The queue of a slow member is bounded: what is lost comes with a sync.
			}
			for _, f := range []func(*transport.Envelope){
				func(e *transport.Envelope) { e.Run = "another" },
				func(e *transport.Envelope) { e.To = "member-1" },
				func(e *transport.Envelope) { e.To = "" },
				func(e *transport.Envelope) { e.From = "member-1" },
				func(e *transport.Envelope) { e.Fed = theMember.Public().String() },
			} {
				msgs = append(msgs, c.change(o.task, nil, f))
			}
			msgs = append(msgs, forger.change(o.task, nil, func(*transport.Envelope) {}), o.task[:len(o.task)/2], bytes.Replace(o.task, []byte(`"round"`), []byte(`"Round"`), 1))
			msgs = append(msgs, c.seal(transport.Envelope{Run: theRun, To: me}, &transport.Verdict{Outcome: transport.Accepted}))
			msgs = append(msgs, old...)
			old = append(old, o.task)
			return append(msgs, o.task, o.task)
		}
		c.onClose = func(msg []byte) [][]byte {
			old = append(old, msg)
			return append(old, forger.change(msg, nil, func(*transport.Envelope) {}))
		}
	}, nil)
	if err != nil || got.Digest() != want {
		t.Errorf("another final state, error %v", err)
	}
	for id, o := range c.orders {
		if len(o.results) != 1 {
			t.Errorf("order %d: %d different results", id, len(o.results))
		}
	}
	p.say(t, member.EventIgnored, "did not sign")
	p.say(t, member.EventIgnored, "malformed")
	p.say(t, member.EventIgnored, "for another member")
	p.say(t, member.EventIgnored, "not agreed to")
	p.say(t, member.EventIgnored, "of another federation")
	p.say(t, member.EventIgnored, "not from the coordinator")
	p.say(t, member.EventIgnored, "of a kind that a coordinator does not push")
	if n := len(p.heard(member.EventIgnored)); n > 60 {
		t.Errorf("%d lines about ignored messages", n)
	}
}

// An order is one task: another one under its number is refused.
func TestOtherTask(t *testing.T) {
	s := newStudy(t, fedtest.Engine(t, "go"), "fedavg")
	want := s.simulate(t).Final.Digest()
	_, p, got, err := play(t, s, func(c *coordinator, _ *person) {
		c.onTask = func(o *assignment) [][]byte {
			return [][]byte{o.task, c.change(o.task, &transport.Task{}, func(e *transport.Envelope) { e.Round += 7 })}
		}
	}, nil)
	if err != nil || got.Digest() != want {
		t.Errorf("another final state, error %v", err)
	}
	p.say(t, member.EventIgnored, "another task for an order")
}

// Tasks that cannot be right are failures that the coordinator is told of, in one line, and the member goes on.
func TestImpossibleTasks(t *testing.T) {
	s := newStudy(t, fedtest.Engine(t, "go"), "fedavg")
	// with puts other weights into a task.
	with := func(c *coordinator, o *assignment, f func(weights.Set) weights.Set) {
		w := f(o.made.Sets["w"].Clone())
		p := parcel.Packer{Store: c.store}
		in, err := p.Set(context.Background(), "w", w)
		if err != nil {
			t.Error(err)
		}
		body := &transport.Task{}
		o.task = c.change(o.task, body, func(e *transport.Envelope) { e.Refs, body.Inputs = p.Refs, []transport.Tensors{in} })
	}
	for name, tt := range map[string]struct {
		lie    func(*coordinator, *assignment)
		change func(*member.Options)
		says   string
	}{
		"NaN": {func(c *coordinator, o *assignment) {
			with(c, o, func(w weights.Set) weights.Set { w.Must(w.Names()[0]).SetAt(1, math.NaN()); return w })
		}, nil, "NaN"},
		"another shape": {func(c *coordinator, o *assignment) {
			with(c, o, func(w weights.Set) weights.Set {
				w.Put(w.Names()[0], weights.NewTensor(weights.Float32, 2000))
				return w
			})
		}, nil, ""},
		"no weights": {func(c *coordinator, o *assignment) {
			body := &transport.Task{}
			o.task = c.change(o.task, body, func(e *transport.Envelope) { e.Refs, body.Inputs = nil, nil })
		}, nil, ""},
		"parameters": {func(c *coordinator, o *assignment) {
			body := &transport.Task{}
			o.task = c.change(o.task, body, func(e *transport.Envelope) { body.Params = []byte(`["\u001b[2J"]`) })
		}, nil, ""},
		"unknown phase": {func(c *coordinator, o *assignment) {
			o.task = c.change(o.task, nil, func(e *transport.Envelope) { e.Step = "\u202egnirts" })
		}, nil, ""},
		"a round too many": {func(c *coordinator, o *assignment) {
			o.task = c.change(o.task, nil, func(e *transport.Envelope) { e.Round = 1000 })
		}, nil, "was agreed to for"},
		"garbage instead of tensors": {func(c *coordinator, o *assignment) {
			h, m, err := blob.Write(context.Background(), c.store, strings.NewReader(strings.Repeat("garbage", 100)))
			if err != nil {
				t.Error(err)
			}
			o.task = c.change(o.task, nil, func(e *transport.Envelope) { e.Refs = []transport.Ref{{Hash: transport.Digest(h), Bytes: m.Bytes}} })
		}, nil, "w"},
		"larger than declared": {func(c *coordinator, o *assignment) {
			o.task = c.change(o.task, nil, func(e *transport.Envelope) { e.Refs[0].Bytes = 100 })
		}, nil, "larger than was declared"},
		"smaller than declared": {func(c *coordinator, o *assignment) {
			o.task = c.change(o.task, nil, func(e *transport.Envelope) { e.Refs[0].Bytes += 5 })
		}, nil, "instead of"},
		"a terabyte": {func(c *coordinator, o *assignment) {
			o.task = c.change(o.task, nil, func(e *transport.Envelope) { e.Refs[0].Bytes = math.MaxInt64; e.Refs = append(e.Refs, e.Refs[0]) })
		}, nil, "policy allows"},
		"a blob that is not there": {func(c *coordinator, o *assignment) {
			o.task = c.change(o.task, nil, func(e *transport.Envelope) { e.Refs[0].Hash[3] ^= 1 })
		}, nil, "fetching"},
		"sealed to another": {func(c *coordinator, o *assignment) {
			o.task = c.change(o.task, nil, func(e *transport.Envelope) { e.Refs[0].SealedTo = "member-1" })
		}, nil, "encrypted"},
		"a blob with other bytes": {func(*coordinator, *assignment) {}, func(o *member.Options) {
			o.Blobs = &liar{Courier: o.Blobs}
		}, "changed on their way"},
	} {
		t.Run(name, func(t *testing.T) {
			c, p, _, err := play(t, s, func(c *coordinator, _ *person) {
				c.onTask = func(o *assignment) [][]byte {
					if o.ID == 0 {
						tt.lie(c, o)
					}
					return [][]byte{o.task}
				}
			}, tt.change)
			if err != nil {
				t.Errorf("the member ended: %v", err)
			}
			if r := c.sent[0]; r.Order != 0 || r.Failed == "" || !strings.Contains(r.Failed, tt.says) || len(r.Addends) > 0 || strings.ContainsAny(r.Failed, "\x1b\n\u202e") {
				t.Errorf("sent %+v, want a failure that says %q", r, tt.says)
			}
			p.say(t, member.EventFailed, "failed: ")
			if len(p.heard(member.EventCounted)) < 5 {
				t.Errorf("counted only %q", p.heard(member.EventCounted))
			}
		})
	}
}

// liar brings other bytes than were asked for, five times.
type liar struct {
	member.Courier
	times int
}

func (l *liar) Download(ctx context.Context, to blob.Store, h blob.Hash) error {
	if l.times++; l.times > 5 {
		return l.Courier.Download(ctx, to, h)
	}
	return to.Put(ctx, h, []byte("what is this?"))
}

// A coordinator that contradicts what it signed ends the member, with words.
func TestContradictions(t *testing.T) {
	s := newStudy(t, fedtest.Engine(t, "go"), "fedavg")
	for name, lie := range map[string]func(*transport.Close){
		"another state":   func(b *transport.Close) { b.State[0] ^= 1 },
		"not counted":     func(b *transport.Close) { b.Folded, b.Lost = b.Lost, b.Folded },
		"both":            func(b *transport.Close) { b.Lost = "0-999" },
		"another history": func(b *transport.Close) { b.Head.Hash[5] ^= 1 },
	} {
		t.Run(name, func(t *testing.T) {
			_, _, _, err := play(t, s, func(c *coordinator, _ *person) {
				c.onClose = func(msg []byte) [][]byte {
					b := &transport.Close{}
					return [][]byte{msg, c.change(msg, b, func(*transport.Envelope) { lie(b) })}
				}
			}, nil)
			var conflict *member.ConflictError
			var rollback *member.RollbackError
			if !errors.As(err, &conflict) && !errors.As(err, &rollback) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// The coordinator's journal must continue what was seen. When it does not, both heads are named, and nothing is sent, unless
// the owner accepts it.
func TestRollback(t *testing.T) {
	s := newStudy(t, fedtest.Engine(t, "go"), "fedavg")
	stop := func(c *coordinator, o *member.Options, after int) { // stops the member at a close
		stop := make(chan struct{})
		o.Stop = stop
		n := 0
		c.onClose = func(msg []byte) [][]byte {
			if n++; n == after {
				close(stop)
			}
			return [][]byte{msg}
		}
	}
	for name, tt := range map[string]struct {
		lie  func(*coordinator, transport.Head)
		says string
	}{
		"shorter": {func(c *coordinator, _ transport.Head) {
			c.heads = func(h transport.Head) transport.Head { return transport.Head{Hash: transport.Digest{7}} }
		}, "it is shorter"},
		"another": {func(c *coordinator, seen transport.Head) {
			seen.Hash[0] ^= 1
			c.heads = func(h transport.Head) transport.Head { return seen }
		}, "the same record reads otherwise"},
		"not linked": {func(c *coordinator, _ transport.Head) {
			c.heads = func(h transport.Head) transport.Head { h.Hash[0] ^= 1; return h }
		}, "do not link"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCoordinator(t, s, theFederation)
			p := newPerson(c)
			synctest.Test(t, func(t *testing.T) {
				c.open()
				ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
				defer cancel()
				ended := make(chan struct{})
				go func() {
					_, _ = c.run(ctx) // it waits for the member for ever, or until the end
					close(ended)
				}()
				if err := p.run(ctx, nil, func(o *member.Options) { stop(c, o, 2) }); !errors.Is(err, federated.ErrStopped) {
					t.Fatalf("stopped: %v", err)
				}
				for range 3 { // so that there is something to prove
					if _, err := c.chain.Append("nothing", 1); err != nil {
						t.Error(err)
					}
				}
				var seen transport.Head
				for r, err := range journal.Decode[struct{ Head transport.Head }](journal.Read(p.disk, p.folder.Dir, member.KindHead)) {
					if err != nil {
						t.Fatal(err)
					}
					seen = r.Body.Head
				}
				tt.lie(c, seen)
				before := len(c.sent)
				err := p.run(ctx, nil, nil)
				var rollback *member.RollbackError
				if !errors.As(err, &rollback) || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), rollback.Seen.Hash.String()) ||
					!strings.Contains(err.Error(), rollback.Offered.Hash.String()) || !strings.Contains(err.Error(), "--accept-rollback") {
					t.Errorf("error %v", err)
				}
				if len(c.sent) != before {
					t.Error("something was sent")
				}
				old := c.heads
				c.heads = nil
				if name == "not linked" {
					if err := p.run(ctx, nil, nil); err != nil {
						t.Errorf("with the right journal again: %v", err)
					}
				} else {
					c.heads = func(h transport.Head) transport.Head { // goes on from there
						if h.Seq < 9 {
							return old(h)
						}
						return h
					}
					if err := p.run(ctx, nil, func(o *member.Options) {
						o.AcceptRollback = true
					}); err != nil {
						t.Errorf("accepted: %v", err)
						for _, e := range p.events {
							t.Log(e.Time, e.Kind, e.Text)
						}
					}
					p.say(t, member.EventRollback, "accepted a journal")
				}
				cancel()
				<-ended
			})
		})
	}
}
