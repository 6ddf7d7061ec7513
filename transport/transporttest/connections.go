package transporttest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/transport"
)

func testPresence(t *testing.T, b *bench) {
	type event struct {
		name string
		here bool
	}
	events := make(chan event, 64)
	var inside atomic.Int32
	b.Hub.Watch(func(name string, here bool) {
		if inside.Add(1) != 1 {
			t.Error("two calls at once")
		}
		if here { // whoever is told as here gets what is pushed
			if err := b.Hub.Push(name, []byte("welcome "+name)); err != nil {
				t.Error(err)
			}
		}
		events <- event{name, here}
		inside.Add(-1)
	})
	var second atomic.Int32
	b.Hub.Watch(func(string, bool) { second.Add(1) })
	next := func(want event) {
		t.Helper()
		select {
		case got := <-events:
			if got != want {
				t.Fatalf("%+v, not %+v", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("nobody said %+v", want)
		}
	}
	if got := b.Hub.Present(); len(got) != 0 {
		t.Errorf("at first: %v", got)
	}
	z := b.dial(t, "z")
	next(event{"z", true})
	z.want(t, "welcome z")
	a := b.dial(t, "a")
	next(event{"a", true})
	a.want(t, "welcome a")
	if got := b.Hub.Present(); !slices.Equal(got, []string{"a", "z"}) {
		t.Errorf("present: %v", got)
	}
	check(t, z.Close())
	next(event{"z", false})
	if got := b.Hub.Present(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("present: %v", got)
	}
	b.Break("a")
	next(event{"a", false})
	next(event{"a", true})
	a.want(t, "welcome a")
	eventually(t, "the second watcher is told as well", func() bool { return second.Load() == 5 })
}

func testCut(t *testing.T, b *bench) {
	a, c := b.dial(t, "a"), b.dial(t, "c")
	a.state(t, true)
	b.Hub.Cut("a")
	b.Hub.Cut("nobody")
	a.state(t, false)
	a.state(t, true) // nobody forbade it to come back
	b.here(t, "a", true)
	a.echo(t, "again")
	c.echo(t, "all the time")

	b.Deny("a")
	a.echo(t, "a live connection goes on")
	b.Hub.Cut("a")
	b.here(t, "a", false)
	eventually(t, "a revoked member is told so", func() bool {
		_, err := a.ask(t, "echo x")
		if err != nil && !errors.Is(err, transport.ErrDenied) && !errors.Is(err, transport.ErrDisconnected) {
			t.Fatal(err)
		}
		return errors.Is(err, transport.ErrDenied)
	})
	a.state(t, false)
	if err := a.Send([]byte("x")); !errors.Is(err, transport.ErrDenied) {
		t.Errorf("send: %v", err)
	}
	check(t, b.Hub.Push("a", []byte("x")))
	check(t, b.Hub.Broadcast([]byte("y")))
	c.want(t, "y")
	a.nothing(t)
}

func testDenied(t *testing.T, b *bench) {
	b.Deny("mallory")
	a := b.dial(t, "a")
	l := b.Dial(t, "mallory")
	defer l.Close()
	l.Receive(func(msg []byte) { t.Errorf("mallory received %q", msg) })
	eventually(t, "a denied member is told so", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, err := l.Request(ctx, []byte("echo x"))
		if err == nil {
			t.Fatal("a denied member was answered")
		}
		return errors.Is(err, transport.ErrDenied)
	})
	check(t, b.Hub.Broadcast([]byte("x")))
	check(t, b.Hub.Push("mallory", []byte("x")))
	a.want(t, "x")
	time.Sleep(quiet)
	if got := b.Hub.Present(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("present: %v", got)
	}
}

func testReconnect(t *testing.T, b *bench) {
	kept := make(chan transport.Request, 1)
	b.on(func(r transport.Request) {
		if string(r.Msg) == "keep" {
			kept <- r
			return
		}
		r.Reply([]byte(r.From + ": " + strings.TrimPrefix(string(r.Msg), "echo ")))
	})
	a := b.dial(t, "a")
	a.state(t, true)
	for range 3 {
		done := make(chan error, 1)
		go func() {
			_, err := a.Request(context.Background(), []byte("keep"))
			done <- err
		}()
		r := <-kept
		b.Break("a")
		a.state(t, false)
		select {
		case err := <-done:
			if !errors.Is(err, transport.ErrDisconnected) {
				t.Errorf("a request under way: %v", err)
			}
		case <-time.After(patience):
			t.Fatal("a request outlives its connection")
		}
		a.state(t, true)
		b.here(t, "a", true)
		r.Reply([]byte("too late"))
		a.echo(t, "again")
		check(t, b.Hub.Push("a", []byte("the handler stays")))
		a.want(t, "the handler stays")
	}
}

func testReplaced(t *testing.T, b *bench) {
	first, other := b.dial(t, "a"), b.dial(t, "b")
	first.state(t, true)
	second := b.dial(t, "a")
	first.state(t, false)
	second.echo(t, "second")
	other.echo(t, "other")
	eventually(t, "the first link knows why", func() bool {
		_, err := first.ask(t, "echo x")
		return errors.Is(err, transport.ErrReplaced)
	})
	check(t, b.Hub.Push("a", []byte("for the second")))
	second.want(t, "for the second")
	first.nothing(t)
	check(t, first.Close())
	second.echo(t, "still here")
	if got := b.Hub.Present(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("present: %v", got)
	}
}

func testIsolation(t *testing.T, b *bench) {
	// Names that are prefixes of one another, and look like parts of an address.
	names := []string{"a", "a-b", "a-b-c", "ab", "up", "down", "inbox"}
	var members []*member
	for _, name := range names {
		members = append(members, b.dial(t, name))
	}
	b.on(func(r transport.Request) { r.Reply([]byte("for " + r.From + " alone")) })
	for _, name := range names {
		check(t, b.Hub.Push(name, []byte("push for "+name)))
	}
	for _, m := range members {
		if got, err := m.ask(t, "x"); err != nil || got != "for "+m.name+" alone" {
			t.Errorf("%s: %q, %v", m.name, got, err)
		}
	}
	check(t, b.Hub.Broadcast([]byte("end")))
	for _, m := range members {
		m.want(t, "push for "+m.name)
		m.want(t, "end")
		m.nothing(t)
	}
}

func testMany(t *testing.T, b *bench) {
	n := b.Members
	if n == 0 {
		n = 200
	}
	var here atomic.Int32
	b.Hub.Watch(func(_ string, is bool) {
		if is {
			here.Add(1)
		} else {
			here.Add(-1)
		}
	})
	members := make([]*member, n)
	for i := range members {
		members[i] = &member{name: fmt.Sprintf("m%04d", i), got: make(chan string, 8), states: make(chan bool, 64)}
	}
	var wg sync.WaitGroup
	for _, m := range members {
		wg.Go(func() {
			m.Link = b.Dial(t, m.name)
			m.Receive(func(msg []byte) { m.got <- string(msg) })
		})
	}
	wg.Wait()
	eventually(t, "all are here", func() bool { return len(b.Hub.Present()) == n && int(here.Load()) == n })
	check(t, b.Hub.Broadcast([]byte("round")))
	for _, m := range members {
		wg.Go(func() {
			select {
			case <-m.got:
			case <-time.After(patience):
				t.Errorf("%s received nothing", m.name)
				return
			}
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if got, err := m.Request(ctx, []byte("echo x")); err != nil || string(got) != m.name+": x" {
				t.Errorf("%s: %q, %v", m.name, got, err)
			}
		})
	}
	wg.Wait()
	for _, m := range members {
		wg.Go(func() { m.Close() })
	}
	wg.Wait()
	eventually(t, "all are gone", func() bool { return len(b.Hub.Present()) == 0 && here.Load() == 0 })
}

func testLinkClosed(t *testing.T, b *bench) {
	a := b.dial(t, "a")
	a.state(t, true)
	check(t, a.Close())
	check(t, a.Close())
	a.state(t, false)
	b.here(t, "a", false)
	if _, err := a.ask(t, "echo x"); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("request: %v", err)
	}
	if err := a.Send([]byte("x")); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("send: %v", err)
	}
	check(t, b.Hub.Push("a", []byte("x")))
	a.nothing(t)
	again := b.dial(t, "a")
	again.echo(t, "a member may come back")
}

func testHubClosed(t *testing.T, b *bench) {
	a := b.dial(t, "a")
	a.state(t, true)
	check(t, b.Hub.Close())
	check(t, b.Hub.Close())
	a.state(t, false)
	if _, err := a.ask(t, "echo x"); !errors.Is(err, transport.ErrDisconnected) {
		t.Errorf("request: %v", err)
	}
	if err := b.Hub.Push("a", []byte("x")); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("push: %v", err)
	}
	if err := b.Hub.Broadcast([]byte("x")); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("broadcast: %v", err)
	}
	b.Hub.Cut("a")
	if got := b.Hub.Present(); len(got) != 0 {
		t.Errorf("present: %v", got)
	}
	check(t, a.Close())
}

func testLeaks(t *testing.T, open func(testing.TB) Fixture) {
	round := func() int {
		b := &bench{Fixture: open(t)}
		b.Hub.Handle(b.serve)
		var members []*member
		for i := range 10 {
			members = append(members, b.dial(t, fmt.Sprintf("m%d", i)))
			members[i].echo(t, "x")
		}
		for _, m := range members[:5] {
			m.Close()
		}
		b.Hub.Close()
		for _, m := range members {
			m.Close()
		}
		b.Close()
		return b.Slack
	}
	round() // what a program starts once
	before := runtime.NumGoroutine()
	slack := round() + round()
	eventually(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= before+slack })
}
