package transport_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/transport/transporttest"
)

func TestMemory(t *testing.T) {
	transporttest.Run(t, func(testing.TB) transporttest.Fixture {
		m := transport.NewMemory()
		return transporttest.Fixture{
			Hub:   m.Hub(),
			Dial:  func(_ testing.TB, name string) transport.Link { return m.Dial(name) },
			Deny:  m.Deny,
			Break: m.Break,
			Close: func() { m.Hub().Close() },
		}
	})
}

// log is what happened, from any number of goroutines.
type log struct {
	mu    sync.Mutex
	lines []string
}

func (l *log) add(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
}

func (l *log) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}

// TestMemoryFaults runs the same busy exchange twice under one seed, and once under another.
func TestMemoryFaults(t *testing.T) {
	run := func(seed uint64) (all [][]string) {
		synctest.Test(t, func(t *testing.T) {
			m := transport.NewMemory()
			defer m.Hub().Close()
			names := []string{"a", "b", "c"}
			logs := map[string]*log{}
			m.Hub().Handle(func(r transport.Request) {
				logs[r.From].add("%v up %s", time.Now().UTC(), r.Msg)
				r.Reply(r.Msg)
			})
			m.Set(transport.Faults{Seed: seed, Drop: .2, Duplicate: .2, Delay: 100 * time.Millisecond})
			for _, name := range names {
				logs[name] = &log{}
				l := m.Dial(name)
				defer l.Close()
				l.Receive(func(msg []byte) { logs[name].add("%v down %s", time.Now().UTC(), msg) })
				for i := range 50 {
					if err := l.Send([]byte(strconv.Itoa(i))); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Millisecond)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				for range 20 {
					got, err := l.Request(ctx, []byte("question"))
					logs[name].add("%v answer %s %v", time.Now().UTC(), got, err)
				}
				cancel()
			}
			for i := range 50 {
				m.Hub().Push("a", []byte(strconv.Itoa(i)))
				m.Hub().Broadcast([]byte("all " + strconv.Itoa(i)))
			}
			time.Sleep(time.Second)
			synctest.Wait()
			for _, name := range names {
				all = append(all, slices.Sorted(slices.Values(logs[name].all())))
			}
		})
		return all
	}
	one, again, other := run(1), run(1), run(2)
	for i := range one {
		if !slices.Equal(one[i], again[i]) {
			t.Errorf("member %d: the same seed, another history", i)
		}
		if slices.Equal(one[i], other[i]) {
			t.Errorf("member %d: another seed, the same history", i)
		}
		// 50 messages up and 50 broadcasts: a fifth is lost, a fifth of the rest doubled.
		if n := len(one[i]); n < 60 || n > 260 {
			t.Errorf("member %d: %d events", i, n)
		}
	}
}

func TestMemoryDelayReorders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := transport.NewMemory()
		defer m.Hub().Close()
		m.Hub().Handle(func(transport.Request) {})
		l := m.Dial("a")
		var got log
		l.Receive(func(msg []byte) { got.add("%s", msg) })
		m.Set(transport.Faults{Seed: 3, Delay: time.Minute})
		for i := range 40 {
			m.Hub().Push("a", fmt.Appendf(nil, "%02d", i))
		}
		synctest.Wait()
		if len(got.all()) != 0 {
			t.Fatalf("at once: %v", got.all())
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(got.all()) != 40 || slices.IsSorted(got.all()) {
			t.Errorf("after a minute: %v", got.all())
		}
		// What is on its way when the connection is lost is lost too.
		m.Hub().Push("a", []byte("lost"))
		m.Break("a")
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(got.all()) != 40 {
			t.Errorf("after the break: %v", got.all()[40:])
		}
	})
}

func TestMemoryPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := transport.NewMemory()
		hub := m.Hub()
		defer hub.Close()
		hub.Handle(func(r transport.Request) { r.Reply(r.Msg) })
		a, b := m.Dial("a"), m.Dial("b")
		var states log
		a.OnState(func(on bool) { states.add("%v", on) })
		m.Partition("a", "late")
		synctest.Wait()
		if _, err := a.Request(t.Context(), nil); !errors.Is(err, transport.ErrDisconnected) {
			t.Errorf("cut off: %v", err)
		}
		if _, err := b.Request(t.Context(), nil); err != nil {
			t.Errorf("the other: %v", err)
		}
		late := m.Dial("late")
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := hub.Present(); !slices.Equal(got, []string{"b"}) {
			t.Errorf("present: %v", got)
		}
		m.Heal()
		synctest.Wait()
		if got := hub.Present(); !slices.Equal(got, []string{"a", "b", "late"}) {
			t.Errorf("healed: %v", got)
		}
		if _, err := late.Request(t.Context(), nil); err != nil {
			t.Error(err)
		}
		if !slices.Equal(states.all(), []string{"true", "false", "true"}) {
			t.Errorf("states: %v", states.all())
		}
	})
}

// TestMemorySlowMember pushes to a member that does not read: the hub does not wait, and what there is no room for is lost.
func TestMemorySlowMember(t *testing.T) {
	m := transport.NewMemory()
	hub := m.Hub()
	defer hub.Close()
	slow, quick := m.Dial("slow"), m.Dial("quick")
	release, n := make(chan bool), make(chan int, 10000)
	slow.Receive(func([]byte) { <-release; n <- 0 })
	got := make(chan bool, 1)
	quick.Receive(func(msg []byte) {
		if string(msg) == "end" {
			got <- true
		}
	})
	for range 5000 {
		if err := hub.Push("slow", bytes.Repeat([]byte("x"), 100)); err != nil {
			t.Fatal(err)
		}
	}
	hub.Push("quick", []byte("end"))
	<-got
	close(release)
	hub.Push("slow", []byte("end"))
	for range 1000 {
		<-n
	}
}
