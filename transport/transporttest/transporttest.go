// Package transporttest is the contract of a transport: what its [transport.Hub] and [transport.Link] must do, whatever carries
// the bytes. An implementation's test calls [Run] with a function that makes a fresh transport.
package transporttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/transport"
)

// Fixture is a transport under test. All its members' names are lower-case letters, digits and hyphens.
type Fixture struct {
	Hub transport.Hub
	// Dial returns a member's link. It is connected; the hub may learn of it a moment later.
	Dial func(t testing.TB, name string) transport.Link
	// Deny refuses a member from now on; its live connections go on.
	Deny func(name string)
	// Break loses a member's connection without a word to either end.
	Break func(name string)
	// Close ends everything that is not ended yet; the contract calls it at the end of each test.
	Close func()
	// Members is how many to have at once; 0: 200.
	Members int
	// Slack is how many goroutines more than before may be left after Close.
	Slack int
}

// patience is how long to wait for what must happen; nothing takes that long unless it is broken.
const patience = 20 * time.Second

// quiet is how long to wait for what must not happen, after everything before it is known to have arrived.
const quiet = 50 * time.Millisecond

// Run checks a transport.
func Run(t *testing.T, open func(testing.TB) Fixture) {
	for _, c := range []struct {
		name string
		test func(*testing.T, *bench)
	}{
		{"push", testPush},
		{"broadcast", testBroadcast},
		{"request", testRequest},
		{"late answer", testLate},
		{"answer to nobody", testGone},
		{"two answers", testTwice},
		{"no answer", testNoAnswer},
		{"order up", testOrderUp},
		{"order down", testOrderDown},
		{"sizes", testSizes},
		{"bytes are copied", testCopied},
		{"presence", testPresence},
		{"cut", testCut},
		{"denied", testDenied},
		{"reconnect", testReconnect},
		{"replaced", testReplaced},
		{"isolation", testIsolation},
		{"many", testMany},
		{"link closed", testLinkClosed},
		{"hub closed", testHubClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &bench{Fixture: open(t)}
			defer b.Close()
			b.Hub.Handle(b.serve)
			c.test(t, b)
		})
	}
	t.Run("leaks", func(t *testing.T) { testLeaks(t, open) })
}

// bench is a fixture with an answering coordinator: a request "echo X" is answered with "X", others by the handler of the test.
type bench struct {
	Fixture
	handle atomic.Pointer[func(transport.Request)]
}

func (b *bench) serve(r transport.Request) {
	if f := b.handle.Load(); f != nil {
		(*f)(r)
		return
	}
	if text, ok := strings.CutPrefix(string(r.Msg), "echo "); ok {
		r.Reply([]byte(r.From + ": " + text))
	}
}

func (b *bench) on(f func(transport.Request)) { b.handle.Store(&f) }

// dial connects a member and waits until the hub knows.
func (b *bench) dial(t testing.TB, name string) *member {
	t.Helper()
	m := &member{Link: b.Dial(t, name), name: name, got: make(chan string, 4096), states: make(chan bool, 64)}
	m.Receive(func(msg []byte) { m.got <- string(msg) })
	m.OnState(func(on bool) { m.states <- on })
	b.here(t, name, true)
	return m
}

func (b *bench) here(t testing.TB, name string, want bool) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s is here: %v", name, want), func() bool { return slices.Contains(b.Hub.Present(), name) == want })
}

type member struct {
	transport.Link
	name   string
	got    chan string
	states chan bool
}

func (m *member) want(t testing.TB, msg string) {
	t.Helper()
	select {
	case got := <-m.got:
		if got != msg {
			t.Fatalf("%s received %.80q, not %.80q", m.name, got, msg)
		}
	case <-time.After(patience):
		t.Fatalf("%s did not receive %.80q", m.name, msg)
	}
}

func (m *member) nothing(t testing.TB) {
	t.Helper()
	select {
	case got := <-m.got:
		t.Fatalf("%s received %.80q", m.name, got)
	case <-time.After(quiet):
	}
}

// state waits until the link says so.
func (m *member) state(t testing.TB, want bool) {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case got := <-m.states:
			if got == want {
				return
			}
		case <-timeout:
			t.Fatalf("%s was not told connected = %v", m.name, want)
		}
	}
}

func (m *member) ask(t testing.TB, msg string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b, err := m.Request(ctx, []byte(msg))
	if errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%s: no answer to %.80q", m.name, msg)
	}
	return string(b), err
}

func (m *member) echo(t testing.TB, text string) {
	t.Helper()
	got, err := m.ask(t, "echo "+text)
	if err != nil || got != m.name+": "+text {
		t.Fatalf("%s: echo %q: %.80q, %v", m.name, text, got, err)
	}
}

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not after %v: %s", patience, what)
		}
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
