package transporttest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/transport"
)

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
