package simulation_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/weights"
)

type clientFunc func(ctx context.Context, at federated.Local) (federated.Result, error)

func (f clientFunc) Run(ctx context.Context, at federated.Local, _ federated.Task, _ *weights.Set) (federated.Result, error) {
	return f(ctx, at)
}

// pool returns a pool that runs f. Inside of a synctest bubble, a worker that is left behind fails the test.
func pool(ctx context.Context, workers int, c simulation.Conditions, f clientFunc) *simulation.Pool {
	local := func(m federated.Member) federated.Local { return federated.Local{Member: m} }
	return simulation.NewPool(ctx, f, local, simulation.NewRecall(), c, 1, workers, 0)
}

// issue sends n orders.
func issue(t *testing.T, p *simulation.Pool, n int, barrier bool) []*federated.Order {
	t.Helper()
	var orders []*federated.Order
	for i := range n {
		o := &federated.Order{ID: i, Member: federated.Member{Index: i, Name: fmt.Sprint("m", i)}, Phase: "train", Issued: p.Now(), Barrier: barrier,
			Make: func() (federated.Task, error) { return federated.Task{Tag: "x"}, nil }}
		orders = append(orders, o)
		if err := p.Issue(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	return orders
}

// Answers come in the order of the virtual clock, however long the work takes, and workers do not run far ahead.
func TestVirtualTime(t *testing.T) {
	for _, c := range []simulation.Conditions{{}, {Latency: time.Minute, Spread: 1, Jitter: 0.5}} {
		var first []int
		for _, workers := range []int{1, 3, 16} {
			synctest.Test(t, func(t *testing.T) {
				var done, taken, most atomic.Int64
				p := pool(t.Context(), workers, c, func(_ context.Context, at federated.Local) (federated.Result, error) {
					time.Sleep(time.Duration(97*at.Member.Index%31) * time.Second) // of the bubble's clock
					most.Store(max(most.Load(), done.Add(1)-taken.Load()))
					return federated.Result{}, nil
				})
				defer p.Close()
				const n = 60
				issue(t, p, n, false)
				var order []int
				last := time.Duration(0)
				for range n {
					a, err := p.Next(t.Context(), 0)
					if err != nil || a.Err != nil || a.Task.Tag != "x" {
						t.Fatal(a, err)
					}
					taken.Add(1)
					if p.Now() < last {
						t.Errorf("the clock goes back from %v to %v", last, p.Now())
					}
					last = p.Now()
					order = append(order, a.Order.ID)
				}
				if first == nil {
					first = order
				}
				if !slices.Equal(order, first) {
					t.Errorf("%d workers: order %v, want %v", workers, order, first)
				}
				if slices.IsSorted(order) != (c.Latency == 0) || (last == 0) != (c.Latency == 0) {
					t.Errorf("latency %v: order %v, clock %v", c.Latency, order, last)
				}
				if most.Load() > int64(3*workers) {
					t.Errorf("%d workers ran %d answers ahead", workers, most.Load())
				}
			})
		}
	}
}

// At the deadline Next returns nothing, and later what came later.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t.Context(), 2, simulation.Conditions{Latency: time.Minute}, func(context.Context, federated.Local) (federated.Result, error) {
			return federated.Result{}, nil
		})
		defer p.Close()
		issue(t, p, 1, false)
		if a, err := p.Next(t.Context(), 10*time.Second); a != nil || err != nil || p.Now() != 10*time.Second {
			t.Errorf("%v, %v at %v; want nothing at 10s", a, err, p.Now())
		}
		if a, err := p.Next(t.Context(), 2*time.Minute); a == nil || err != nil || p.Now() != time.Minute {
			t.Errorf("%v, %v at %v; want an answer at 1m", a, err, p.Now())
		}
	})
}

// Cancelling a run ends Next with an error, not with answers that tell of work cut short; no worker is left.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := pool(ctx, 3, simulation.Conditions{}, func(ctx context.Context, _ federated.Local) (federated.Result, error) {
			<-ctx.Done()
			return federated.Result{}, ctx.Err()
		})
		issue(t, p, 5, false)
		go func() {
			time.Sleep(time.Second)
			cancel()
		}()
		for range 3 {
			if a, err := p.Next(ctx, 0); a != nil || !errors.Is(err, context.Canceled) {
				t.Errorf("answer %v, error %v; want %v", a, err, context.Canceled)
			}
			synctest.Wait() // for workers to end what they are at
		}
		p.Close()
	})
}

// An order that is dropped is not worked on any further, and its answer does not come.
func TestDrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t.Context(), 2, simulation.Conditions{}, func(ctx context.Context, at federated.Local) (federated.Result, error) {
			if at.Member.Index == 0 {
				<-ctx.Done() // for ever, were it not dropped
			}
			return federated.Result{}, ctx.Err()
		})
		defer p.Close()
		orders := issue(t, p, 6, false)
		synctest.Wait()
		p.Drop(orders[0]) // at work
		p.Drop(orders[1]) // answered
		p.Drop(orders[5]) // perhaps not begun
		p.Drop(orders[5]) // twice does nothing
		for _, want := range []int{2, 3, 4} {
			a, err := p.Next(t.Context(), 0)
			if err != nil || a.Order.ID != want || a.Err != nil {
				t.Errorf("answer %+v, error %v; want that of order %d", a, err, want)
			}
		}
	})
	// Workers are ahead by no fewer answers for what was dropped.
	synctest.Test(t, func(t *testing.T) {
		var done atomic.Int64
		p := pool(t.Context(), 2, simulation.Conditions{}, func(ctx context.Context, _ federated.Local) (federated.Result, error) {
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
				done.Add(1)
			}
			return federated.Result{}, ctx.Err()
		})
		defer p.Close()
		for range 5 {
			orders := issue(t, p, 2, false)
			synctest.Wait()
			for _, o := range orders {
				p.Drop(o)
			}
			synctest.Wait()
		}
		issue(t, p, 4, false)
		time.Sleep(time.Minute)
		if done.Load() != 4 {
			t.Errorf("%d of 4 tasks were worked on before anybody asked", done.Load())
		}
	})
}

func TestPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t.Context(), 1, simulation.Conditions{}, func(context.Context, federated.Local) (federated.Result, error) {
			panic("no such tensor")
		})
		defer p.Close()
		issue(t, p, 1, false)
		a, err := p.Next(t.Context(), 0)
		if err != nil || a.Err == nil || !strings.Contains(a.Err.Error(), "the client broke: no such tensor") {
			t.Errorf("answer %+v, error %v", a, err)
		}
	})
}

// Some members lose their connection, and some stall: until the deadline, or in phases without one not for ever.
func TestConditions(t *testing.T) {
	count := func(c simulation.Conditions, barrier bool, deadline time.Duration) (ok, lost, stalled int) {
		synctest.Test(t, func(t *testing.T) {
			p := pool(t.Context(), 4, c, func(context.Context, federated.Local) (federated.Result, error) { return federated.Result{}, nil })
			defer p.Close()
			const n = 1000
			issue(t, p, n, barrier)
			for range n {
				a, err := p.Next(t.Context(), deadline)
				switch {
				case err != nil:
					t.Fatal(err)
				case a == nil:
					stalled = n - ok - lost
					return
				case a.Err == nil:
					ok++
				case strings.Contains(a.Err.Error(), "stalled"):
					stalled++
				default:
					lost++
				}
				if a.Task.Tag != "x" && !strings.Contains(fmt.Sprint(a.Err), "no deadline") {
					t.Fatal("the task was sent, though its answer was lost")
				}
			}
		})
		return ok, lost, stalled
	}
	about := func(what string, got, want int) {
		t.Helper()
		if got < want-50 || got > want+50 {
			t.Errorf("%s: %d of 1000, want about %d", what, got, want)
		}
	}
	c := simulation.Conditions{Latency: time.Second, Dropout: 0.3, Stall: 0.2}
	for _, barrier := range []bool{false, true} {
		for _, deadline := range []time.Duration{0, time.Hour} {
			ok, lost, stalled := count(c, barrier, deadline)
			about("answers", ok, 560)
			about("lost", lost, 240)
			about("stalled", stalled, 200)
		}
	}
	if ok, _, _ := count(simulation.Conditions{}, false, 0); ok != 1000 {
		t.Errorf("%d of 1000 answer under perfect conditions", ok)
	}
	for _, c := range []simulation.Conditions{{Latency: -1}, {Spread: -1}, {Jitter: -1}, {Dropout: 1}, {Stall: -0.1}} {
		if c.Validate() == nil {
			t.Errorf("%+v: no error", c)
		}
	}
}

// elsewhere is a place that does so many orders, then is lost with the next.
type elsewhere struct {
	left atomic.Int64
	done atomic.Int64
}

func (x *elsewhere) Perform(_ context.Context, _ federated.Local, o *federated.Order, _ *weights.Set) (*federated.Answer, error) {
	time.Sleep(time.Second)
	if x.left.Add(-1) < 0 {
		return nil, errors.New("gone")
	}
	x.done.Add(1)
	return &federated.Answer{Order: o}, nil
}

// Places that are added take up orders; those of one that is lost go to others, and answers keep their order.
func TestPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t.Context(), 0, simulation.Conditions{}, nil)
		first, second := &elsewhere{}, &elsewhere{}
		first.left.Store(7)
		second.left.Store(1000)
		if !p.Add(first, 3) {
			t.Error("an open pool takes no places")
		}
		const n = 40
		issue(t, p, n, false)
		go func() {
			time.Sleep(time.Minute) // all slots of the first are lost by then
			p.Add(second, 2)
		}()
		for i := range n {
			a, err := p.Next(t.Context(), 0)
			if err != nil || a.Order.ID != i || a.Err != nil {
				t.Fatalf("answer %+v, error %v; want that of order %d", a, err, i)
			}
		}
		if first.done.Load() != 7 || second.done.Load() != n-7 {
			t.Errorf("%d orders were done at the first place and %d at the second", first.done.Load(), second.done.Load())
		}
		p.Close()
		if p.Add(second, 1) {
			t.Error("a closed pool takes places")
		}
	})
}
