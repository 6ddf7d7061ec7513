package member_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/node/member"
	"github.com/cohort-learning/cohort/transport"
)

// Messages that are lost, repeated and late, and connections that break, cost time and nothing else.
func TestUnreliableNetwork(t *testing.T) {
	e := fedtest.Engine(t, "go")
	for _, method := range []string{"fedavg", "scaffold"} {
		s := newStudy(t, e, method)
		want := s.simulate(t)
		for seed := range uint64(5) {
			t.Run(fmt.Sprint(method, seed), func(t *testing.T) {
				x := survive(t, s, func(c *coordinator) {
					c.net.Set(transport.Faults{Seed: seed, Drop: 0.3, Duplicate: 0.3, Delay: 3 * time.Second})
					c.refuse = 2
					go func() {
						for range 5 {
							time.Sleep(7 * time.Second)
							c.net.Break(me)
						}
						c.net.Partition(me)
						time.Sleep(time.Minute)
						c.net.Heal()
					}()
				})
				x.compare(t, "unreliable", want)
			})
		}
	}
}

// A memory that the disk has lost is told as lost, and the member begins anew; one that is whole is used.
func TestLostMemory(t *testing.T) {
	s := newStudy(t, fedtest.Engine(t, "go"), "scaffold")
	c, p, _, err := play(t, s, func(c *coordinator, p *person) {
		c.onTask = func(o *assignment) [][]byte {
			if o.Phase == "train" && o.Round == 2 {
				if n := p.disk.spoil("/state/"); n != 1 {
					t.Errorf("%d files of memories", n)
				}
			}
			return [][]byte{o.task}
		}
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var versions []string
	for id := range len(c.orders) {
		if o := c.orders[id]; o.Phase == "train" {
			versions = append(versions, o.memory...)
		}
	}
	if want := []string{"", "0/0", "lost"}; !slices.Equal(versions, want) {
		t.Errorf("versions of the memory %q, want %q", versions, want)
	}
	p.say(t, member.EventMemory, "the memory of round 1/1 is lost")
}

// A result counts although its verdict was lost, nobody heard the end of its phase, and who offers it again is told that the phase is over:
// what a sync says decides, and the memory is the member's.
func TestLostVerdict(t *testing.T) {
	s := newStudy(t, fedtest.Engine(t, "go"), "large")
	c, _, _, err := play(t, s, func(c *coordinator, _ *person) {
		c.lose, c.hush = 1, true
		c.onClose = func([]byte) [][]byte { return nil }
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var versions []string
	for id := range len(c.orders) {
		if o := c.orders[id]; o.Phase == "train" {
			versions = append(versions, o.memory[0])
		}
	}
	if want := []string{"", "0/0"}; len(versions) < 2 || !slices.Equal(versions[:2], want) || c.stale == 0 {
		t.Errorf("versions of the memory %q, want %q first; told %d times that the phase is over", versions, want, c.stale)
	}
}

// Only what the terms name leaves, and only so much a day as the policy allows.
func TestWhatLeaves(t *testing.T) {
	s := newStudy(t, fedtest.Engine(t, "go"), "fedavg")
	t.Run("scalars", func(t *testing.T) {
		c, _, _, err := play(t, s, func(c *coordinator, _ *person) {
			b := &transport.Terms{}
			c.terms = c.change(c.terms, b, func(*transport.Envelope) {
				b.Metrics = []string{"train.examples", "batches", "examples", "correct", "loss", "password"}
			})
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range c.sent {
			for name := range r.Scalars {
				if name == "train.loss" || name == "train.steps" {
					t.Errorf("order %d sent %q", r.Order, name)
				}
			}
		}
	})
	t.Run("bytes of a day", func(t *testing.T) {
		c, p, _, _ := play(t, s, func(c *coordinator, _ *person) { c.lenient = true }, func(o *member.Options) { o.Policy.Upload = 10_000 })
		failed := 0
		for _, r := range c.sent {
			if strings.Contains(r.Failed, "policy allows 10.0 kB a day") {
				failed++
			}
		}
		if len(c.sent[0].Addends) == 0 || failed == 0 {
			t.Errorf("%d of %d results were held back", failed, len(c.sent))
		}
		p.say(t, member.EventFailed, "policy allows")
	})
	t.Run("reasons", func(t *testing.T) {
		c, _, _, err := play(t, s, func(c *coordinator, _ *person) {
			c.onTask = func(o *assignment) [][]byte {
				if o.ID == 0 {
					o.task = c.change(o.task, nil, func(e *transport.Envelope) { e.Step = "secret" })
				}
				return [][]byte{o.task}
			}
		}, func(o *member.Options) { o.Policy.Reasons = false })
		if err != nil || c.sent[0].Failed != "the task failed at this member" {
			t.Errorf("told %q, error %v", c.sent[0].Failed, err)
		}
	})
}

// A run that goes beyond the policy, or data that do not fit, are declined with reasons, and nothing else is sent.
func TestDeclines(t *testing.T) {
	s := newStudy(t, fedtest.Engine(t, "go"), "fedavg")
	for name, tt := range map[string]struct {
		change func(*member.Options)
		local  string
		told   string
	}{
		"policy": {func(o *member.Options) { o.Policy.Rounds, o.Policy.Epochs = 3, 1 },
			"30 rounds; allowed are at most 3; 2 epochs a round", "30 rounds; allowed are at most 3; 2 epochs a round"},
		"data": {func(o *member.Options) {
			o.Prepare = func(context.Context, member.Proposal) (*member.Part, error) {
				return nil, &member.PrivateError{Err: errors.New("/home/me/patients.csv: another kind of data"), Public: "another kind of data"}
			}
		}, "patients.csv", "another kind of data"},
	} {
		t.Run(name, func(t *testing.T) {
			c, p, _, err := play(t, s, func(*coordinator, *person) {}, tt.change)
			var declined *member.DeclinedError
			if !errors.As(err, &declined) || !strings.Contains(err.Error(), tt.local) {
				t.Errorf("error %v", err)
			}
			if !strings.HasPrefix(c.declined, tt.told) || strings.Contains(c.declined, "patients") || len(c.sent) > 0 || len(c.orders) > 0 {
				t.Errorf("told %q, sent %v", c.declined, c.sent)
			}
			p.say(t, member.EventDeclined, tt.local)
		})
	}
	if _, err := member.New(member.Options{Folder: &member.Folder{}, Can: []string{"train", "exec"}, Dial: func(context.Context) (transport.Link, error) { return nil, nil },
		Prepare: func(context.Context, member.Proposal) (*member.Part, error) { return nil, nil }}); err == nil || !strings.Contains(err.Error(), "exec: true") {
		t.Errorf("a program that the policy does not allow: %v", err)
	}
}

// A member that is stopped and started again goes on, as often as it likes; one whose data have changed does not.
func TestStopAndGoOn(t *testing.T) {
	s := newStudy(t, fedtest.Engine(t, "go"), "scaffold")
	want := s.simulate(t)
	x := &crashes{coordinator: newCoordinator(t, s, theFederation)}
	c := x.coordinator
	p := newPerson(c)
	x.person = p
	synctest.Test(t, func(t *testing.T) {
		c.open()
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		var stop chan struct{}
		pushes := 0
		c.onTask = func(o *assignment) [][]byte {
			if pushes++; stop != nil {
				close(stop)
				stop = nil
			}
			return [][]byte{o.task}
		}
		done := make(chan error, 1)
		go func() {
			var err error
			for n := 0; ; n++ {
				mine := make(chan struct{})
				c.mu.Lock()
				if n < 4 {
					stop = mine
				}
				c.mu.Unlock()
				err = p.run(ctx, nil, func(o *member.Options) { o.Stop = mine })
				if !errors.Is(err, federated.ErrStopped) {
					break
				}
				if n == 2 {
					err := p.run(ctx, nil, func(o *member.Options) {
						o.Prepare = func(context.Context, member.Proposal) (*member.Part, error) {
							part := s.part()
							part.Samples = 7
							return part, nil
						}
					})
					if err == nil || !strings.Contains(err.Error(), "the data are not those that were agreed on: 7 examples to train on and 3 to test on now, 8 and 3 then") {
						t.Errorf("other data: %v", err)
					}
				}
			}
			done <- err
		}()
		var err error
		x.state, err = c.run(ctx)
		if merr := <-done; err != nil || merr != nil {
			t.Errorf("coordinator: %v; member: %v", err, merr)
		}
	})
	x.compare(t, "stopped four times", want)
}

// The coordinator can pause, stop and revoke; the policy's hours hold work back.
func TestControl(t *testing.T) {
	s := newStudy(t, fedtest.Engine(t, "go"), "fedavg")
	tell := func(c *coordinator, action string) {
		if err := c.hub.Broadcast(c.seal(transport.Envelope{Run: theRun}, &transport.Control{Action: action, Reason: "because\nof tests"})); err != nil {
			t.Error(err)
		}
	}
	at := func(c *coordinator, order int, do func()) {
		c.onTask = func(o *assignment) [][]byte {
			if o.ID == order {
				do()
			}
			return [][]byte{o.task}
		}
	}
	t.Run("pause", func(t *testing.T) {
		var began time.Time
		_, p, _, err := play(t, s, func(c *coordinator, _ *person) {
			began = time.Now()
			at(c, 2, func() {
				tell(c, "pause")
				time.AfterFunc(10*time.Minute, func() { tell(c, "resume") })
			})
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		p.say(t, member.EventPaused, "because of tests")
		p.say(t, member.EventResumed, "goes on")
		if last := p.events[len(p.events)-1]; last.Time.Sub(began) < 10*time.Minute {
			t.Error("the pause took no time")
		}
	})
	t.Run("stop", func(t *testing.T) {
		c := newCoordinator(t, s, theFederation)
		p := newPerson(c)
		synctest.Test(t, func(t *testing.T) {
			c.open()
			ctx, cancel := context.WithCancel(context.Background())
			at(c, 2, func() { tell(c, "stop") })
			go func() { _, _ = c.run(ctx) }()
			if err := p.run(ctx, nil, nil); err != nil {
				t.Errorf("stopped: %v", err)
			}
			cancel()
		})
		p.say(t, member.EventStopped, "stopped by the coordinator")
	})
	t.Run("revoked", func(t *testing.T) {
		_, _, _, err := play(t, s, func(c *coordinator, _ *person) { at(c, 2, func() { tell(c, "revoked") }) }, nil)
		var revoked *member.RevokedError
		if !errors.As(err, &revoked) || !strings.Contains(err.Error(), "because of tests") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("hours", func(t *testing.T) {
		c, p, _, err := play(t, s, func(*coordinator, *person) {}, func(o *member.Options) {
			policy, err := member.ParsePolicy("p", []byte("hours: \"0:20-0:40\""))
			if err != nil {
				t.Error(err)
			}
			o.Policy.Hours = policy.Hours
			o.Now = func() time.Time { return time.Now().UTC() } // a bubble begins at midnight UTC
		})
		if err != nil {
			t.Fatal(err)
		}
		p.say(t, member.EventWaiting, "waits until 00:20, as the policy says")
		if len(c.sent) == 0 {
			t.Error("nothing was sent")
		}
	})
}

// A preview shows what would leave, and nothing but hello and sync does; withdrawing is told and remembered.
func TestPreviewAndWithdraw(t *testing.T) {
	s := newStudy(t, fedtest.Engine(t, "go"), "scaffold")
	c := newCoordinator(t, s, theFederation)
	p := newPerson(c)
	synctest.Test(t, func(t *testing.T) {
		c.open()
		m, err := member.New(p.options(p.disk))
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.Preview(t.Context())
		if err != nil || len(got) != 1 {
			t.Fatalf("%d previews, %v", len(got), err)
		}
		if c.agreed || len(c.sent) > 0 || len(p.records(t)) > 1 {
			t.Errorf("something was sent or written: %v", p.records(t))
		}
		v := got[0]
		if v.Run != theRun || v.Terms.Samples != 8 || v.Terms.Tests != 3 || len(v.Phases) != 2 {
			t.Fatalf("preview %+v", v)
		}
		train := v.Phases[0]
		if train.Phase != "train" || len(train.Tensors) != 12 || train.Keeps == 0 || !slices.Equal(train.Scalars, []string{"train.examples", "train.loss", "train.steps"}) {
			t.Errorf("train: %+v", train)
		}
		var bytes int64
		for _, x := range train.Tensors {
			bytes += x.Bytes
		}
		if bytes+24 != train.Bytes {
			t.Errorf("tensors of %d bytes and 3 numbers make %d", bytes, train.Bytes)
		}
		m, err = member.New(p.options(p.disk))
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Withdraw(t.Context(), "enough"); err != nil || c.left != me {
			t.Errorf("withdrawing: %v, left %q", err, c.left)
		}
		if err := p.run(t.Context(), nil, nil); !errors.Is(err, member.ErrLeft) {
			t.Errorf("joining again: %v", err)
		}
	})
}

// What a process reads back of its journal is what it knew: a journal with a wrong record, or of another member, is refused.
func TestJournalOfAnother(t *testing.T) {
	s := newStudy(t, fedtest.Engine(t, "go"), "fedavg")
	c := newCoordinator(t, s, theFederation)
	p := newPerson(c)
	j, err := journal.Create(p.folder.Dir, journal.Options{FS: p.disk, Run: "somebody@else"})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.run(t.Context(), nil, nil); err == nil || !strings.Contains(err.Error(), "somebody@else") {
		t.Errorf("error %v", err)
	}
}
