// Package transporttest is the contract of a transport: what its [transport.Hub] and [transport.Link] must do, whatever carries
// the bytes. An implementation's test calls [Run] with a function that makes a fresh transport.
package transporttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
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

func testPush(t *testing.T, b *bench) {
	a := b.dial(t, "a")
	check(t, b.Hub.Push("a", []byte("hello")))
	a.want(t, "hello")
	check(t, b.Hub.Push("a", []byte("\x00 \r\n any bytes \xff")))
	a.want(t, "\x00 \r\n any bytes \xff")
	if err := b.Hub.Push("nobody", []byte("hello")); err != nil {
		t.Errorf("push to a member that is not here: %v", err)
	}
	a.nothing(t)
}

func testBroadcast(t *testing.T, b *bench) {
	members := []*member{b.dial(t, "a"), b.dial(t, "b"), b.dial(t, "c-3")}
	check(t, b.Hub.Broadcast([]byte("all of you")))
	for _, m := range members {
		m.want(t, "all of you")
	}
	for _, m := range members {
		m.nothing(t)
	}
}

func testRequest(t *testing.T, b *bench) {
	a, c := b.dial(t, "a"), b.dial(t, "c")
	a.echo(t, "one")
	c.echo(t, "two")
	var wg sync.WaitGroup
	for i := range 50 {
		for _, m := range []*member{a, c} {
			wg.Go(func() {
				text := strconv.Itoa(i)
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				if got, err := m.Request(ctx, []byte("echo "+text)); err != nil || string(got) != m.name+": "+text {
					t.Errorf("%s: echo %s: %q, %v", m.name, text, got, err)
				}
			})
		}
	}
	wg.Wait()
}

func testLate(t *testing.T, b *bench) {
	var kept []transport.Request
	var mu sync.Mutex
	b.on(func(r transport.Request) {
		mu.Lock()
		defer mu.Unlock()
		kept = append(kept, r)
		if len(kept) < 10 {
			return
		}
		go func() { // the last question is answered first
			for _, r := range slices.Backward(kept) {
				r.Reply(append([]byte("re "), r.Msg...))
			}
		}()
	})
	a := b.dial(t, "a")
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			text := strconv.Itoa(i)
			if got, err := a.Request(ctx, []byte(text)); err != nil || string(got) != "re "+text {
				t.Errorf("%s: %q, %v", text, got, err)
			}
		})
	}
	wg.Wait()
}

func testGone(t *testing.T, b *bench) {
	kept := make(chan transport.Request, 1)
	b.on(func(r transport.Request) { kept <- r })
	a := b.dial(t, "a")
	done := make(chan error, 1)
	go func() {
		_, err := a.Request(context.Background(), []byte("question"))
		done <- err
	}()
	r := <-kept
	check(t, a.Close())
	if err := <-done; !errors.Is(err, transport.ErrClosed) {
		t.Errorf("request of a link that is closed meanwhile: %v", err)
	}
	b.here(t, "a", false)
	r.Reply([]byte("nobody hears this"))
	r.Reply([]byte("nor this"))

	c := b.dial(t, "c")
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-kept; cancel() }()
	if _, err := c.Request(ctx, []byte("question")); !errors.Is(err, context.Canceled) {
		t.Errorf("request whose context was cancelled: %v", err)
	}
}

func testTwice(t *testing.T, b *bench) {
	b.on(func(r transport.Request) {
		r.Reply([]byte("first " + string(r.Msg)))
		r.Reply([]byte("second " + string(r.Msg)))
	})
	a := b.dial(t, "a")
	for i := range 20 {
		text := strconv.Itoa(i)
		if got, err := a.ask(t, text); err != nil || got != "first "+text {
			t.Fatalf("%q, %v", got, err)
		}
	}
	a.nothing(t)
}

func testNoAnswer(t *testing.T, b *bench) {
	got := make(chan string, 1)
	b.on(func(r transport.Request) {
		r.Reply([]byte("unasked for"))
		got <- r.From + " " + string(r.Msg)
	})
	a := b.dial(t, "a")
	check(t, a.Send([]byte("news")))
	select {
	case msg := <-got:
		if msg != "a news" {
			t.Errorf("%q", msg)
		}
	case <-time.After(patience):
		t.Fatal("what was sent did not arrive")
	}
	a.nothing(t)
}

func testOrderUp(t *testing.T, b *bench) {
	const n = 300
	var mu sync.Mutex
	seen := map[string][]string{}
	b.on(func(r transport.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen[r.From] = append(seen[r.From], string(r.Msg))
		r.Reply(nil)
	})
	members := []*member{b.dial(t, "a"), b.dial(t, "b")}
	var wg sync.WaitGroup
	for _, m := range members {
		wg.Go(func() {
			for i := range n {
				if err := m.Send([]byte(strconv.Itoa(i))); err != nil {
					t.Error(err)
					return
				}
			}
			m.ask(t, "end")
		})
	}
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	for _, m := range members {
		if got := seen[m.name]; len(got) != n+1 || !slices.IsSortedFunc(got[:n], numerically) {
			t.Errorf("%d messages of %s arrived: %.200q", len(got), m.name, got)
		}
	}
}

func testOrderDown(t *testing.T, b *bench) {
	const n = 300
	a, c := b.dial(t, "a"), b.dial(t, "c")
	for i := range n {
		text := []byte(strconv.Itoa(i))
		if i%3 == 0 { // pushes and broadcasts keep their common order
			check(t, b.Hub.Broadcast(text))
			continue
		}
		check(t, b.Hub.Push("a", text))
		check(t, b.Hub.Push("c", text))
	}
	for i := range n {
		a.want(t, strconv.Itoa(i))
		c.want(t, strconv.Itoa(i))
	}
}

func numerically(a, b string) int {
	i, _ := strconv.Atoi(a)
	j, _ := strconv.Atoi(b)
	return i - j
}

func testSizes(t *testing.T, b *bench) {
	largest := bytes.Repeat([]byte{'x'}, transport.MaxMessage)
	tooLarge := append(slices.Clone(largest), 'x')
	b.on(func(r transport.Request) {
		switch {
		case len(r.Msg) > transport.MaxMessage:
			t.Errorf("a request of %d bytes arrived", len(r.Msg))
		case string(r.Msg) == "too large":
			r.Reply(tooLarge)
		default:
			r.Reply(r.Msg)
		}
	})
	a := b.dial(t, "a")
	got, err := a.ask(t, string(largest))
	if err != nil || got != string(largest) {
		t.Errorf("request of %d bytes: %d bytes, %v", len(largest), len(got), err)
	}
	if got, err := a.ask(t, ""); err != nil || got != "" {
		t.Errorf("empty request: %q, %v", got, err)
	}
	if _, err := a.ask(t, string(tooLarge)); !errors.Is(err, transport.ErrTooLarge) {
		t.Errorf("request of %d bytes: %v", len(tooLarge), err)
	}
	if err := a.Send(tooLarge); !errors.Is(err, transport.ErrTooLarge) {
		t.Errorf("send of %d bytes: %v", len(tooLarge), err)
	}
	check(t, b.Hub.Push("a", largest))
	a.want(t, string(largest))
	check(t, b.Hub.Broadcast(largest))
	a.want(t, string(largest))
	if err := b.Hub.Push("a", tooLarge); !errors.Is(err, transport.ErrTooLarge) {
		t.Errorf("push of %d bytes: %v", len(tooLarge), err)
	}
	if err := b.Hub.Broadcast(tooLarge); !errors.Is(err, transport.ErrTooLarge) {
		t.Errorf("broadcast of %d bytes: %v", len(tooLarge), err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), quiet)
	defer cancel()
	if got, err := a.Request(ctx, []byte("too large")); err == nil {
		t.Errorf("an answer of %d bytes arrived", len(got))
	}
	if got, err := a.ask(t, "still here"); err != nil || got != "still here" {
		t.Errorf("after all that: %q, %v", got, err)
	}
}

func testCopied(t *testing.T, b *bench) {
	a := b.dial(t, "a")
	buf := []byte("0")
	for i := range 10 {
		buf[0] = byte('0' + i)
		check(t, b.Hub.Push("a", buf))
	}
	for i := range 10 {
		a.want(t, strconv.Itoa(i))
	}
}

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
