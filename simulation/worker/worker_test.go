package worker

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/weights"
)

// A run comes out to the same bits whether its clients are here, on two workers, or on both; every content goes to a worker
// once.
func TestSameBits(t *testing.T) {
	e := fedtest.Engine(t, "go")
	for kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			want := digest(t, job(t, e, kind))
			for _, here := range []int{-1, 1} {
				j := job(t, e, kind)
				j.Workers = here
				h, _ := host(t, j, 0)
				_, one := start(t, h, lent(t, e, kind, "one", 1))
				_, two := start(t, h, lent(t, e, kind, "two", 3))
				if got := digest(t, j); got != want {
					t.Errorf("workers here %d: digest %s, want %s", here, got, want)
				}
				clients := 0
				for _, l := range h.Tallies() {
					clients += l.Clients
				}
				if here < 0 && clients == 0 {
					t.Errorf("nobody did anything: %+v", h.Tallies())
				}
				if err := h.Close(); err != nil {
					t.Fatal(err)
				}
				for _, c := range []<-chan error{one, two} {
					// Whoever comes when all is done meets nobody.
					if err := result1(t, c); err != nil && here < 0 && !strings.Contains(err.Error(), "cannot be reached") {
						t.Errorf("a worker ended with %v", err)
					}
				}
			}
		})
	}
}

// What a worker was sent, or has made, is not sent again.
func TestSentOnce(t *testing.T) {
	e := fedtest.Engine(t, "go")
	j := job(t, e, "scaffold")
	j.Workers = -1
	h, said := host(t, j, 0)
	asked := map[blob.Hash]int{}
	h.sending = func(hash blob.Hash) { asked[hash]++ } // of the one connection there is
	start(t, h, lent(t, e, "scaffold", "one", 2))
	said.await(t, "worker one is here: 2 threads")
	digest(t, j)
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	// What all examples are like, those of six clients to train and to test on, and in a round the model and the control
	// before, the model after, and its statistics. What clients keep came from there and is there.
	if want := 1 + 2*6 + rounds*3 + 1; len(asked) > want || len(asked) < want-2 {
		t.Errorf("%d contents were sent, want %d or, of clients that were not asked, less", len(asked), want)
	}
	for hash, n := range asked {
		if n != 1 {
			t.Errorf("content %s was sent %d times", hash, n)
		}
	}
}

// A worker that is cut off in the middle of its work takes nothing with it, and one that comes later takes part.
func TestLost(t *testing.T) {
	e := fedtest.Engine(t, "go")
	for _, kind := range []string{"scaffold", "asynchronous", "secure"} {
		want := digest(t, job(t, e, kind))
		j := job(t, e, kind)
		j.Workers = -1
		h, said := host(t, j, 0)
		bad := lent(t, e, kind, "bad", 2)
		var runs atomic.Int64
		reached := make(chan struct{})
		inner := bad.Build
		bad.Build = func(r Run) (federated.Client, error) {
			client, err := inner(r)
			return clientFunc(func(ctx context.Context, at federated.Local, task federated.Task, keep *weights.Set) (federated.Result, error) {
				if runs.Add(1) == 4 {
					close(reached)
				}
				if runs.Load() >= 4 {
					<-ctx.Done() // for ever, were it not stopped
					return federated.Result{}, ctx.Err()
				}
				return client.Run(ctx, at, task, keep)
			}), err
		}
		stop, ended := start(t, h, bad)
		go func() {
			<-reached
			stop()
			said.await(t, "worker bad is gone: it was stopped there; its")
			start(t, h, lent(t, e, kind, "good", 1))
		}()
		if got := digest(t, j); got != want {
			t.Errorf("%s: digest %s, want %s", kind, got, want)
		}
		if err := result1(t, ended); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: the worker that was stopped: %v", kind, err)
		}
		l := h.Tallies()
		if len(l) != 2 || l[0].Clients < 2 || l[0].Given < 1 || l[1].Clients == 0 || l[1].Sent == 0 || l[1].Received == 0 {
			t.Errorf("%s: tallies %+v", kind, l)
		}
	}
}

// A connection that breaks is made again, and the worker is known when it comes back. A worker that is silent is given up.
func TestComesBack(t *testing.T) {
	e := fedtest.Engine(t, "go")
	want := digest(t, job(t, e, "scaffold"))
	j := job(t, e, "scaffold")
	j.Workers = -1
	h, said := host(t, j, 0)
	l := lent(t, e, "scaffold", "one", 1)
	l.Patience = time.Minute
	var runs atomic.Int64
	inner := l.Build
	l.Build = func(r Run) (federated.Client, error) {
		client, err := inner(r)
		return clientFunc(func(ctx context.Context, at federated.Local, task federated.Task, keep *weights.Set) (federated.Result, error) {
			if runs.Add(1) == 5 {
				h.mu.Lock()
				for _, g := range h.guests {
					_ = g.link.c.Close()
				}
				h.mu.Unlock()
			}
			return client.Run(ctx, at, task, keep)
		}), err
	}
	_, ended := start(t, h, l)
	if got := digest(t, j); got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
	if !said.has("worker one is gone: ") || !said.has("worker one is back: 1 thread") {
		t.Errorf("told: %q", said.all)
	}
	if n := len(h.Tallies()); n != 1 {
		t.Errorf("%d workers", n)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if err := result1(t, ended); err != nil {
		t.Error(err)
	}
}

func TestSilence(t *testing.T) {
	e := fedtest.Engine(t, "go")
	want := digest(t, job(t, e, "fedavg"))
	j := job(t, e, "fedavg")
	j.Workers = -1
	h, said := host(t, j, 400*time.Millisecond)
	// It comes, takes a task, and says nothing any more.
	c, err := dial(t.Context(), h.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	mute := &visit{Lent: lent(t, e, "fedavg", "mute", 1), id: "mute", link: &link{c: c, silence: time.Minute}}
	mute.Machine = mute.Machine.here()
	if done, err := mute.introduce(h.Address(), c); done || err != nil {
		t.Fatal(done, err)
	}
	said.await(t, "worker mute is here")
	ran := make(chan string)
	go func() { ran <- digest(t, j) }()
	said.await(t, "worker mute is gone: not a sign of life for 400ms")
	l := lent(t, e, "fedavg", "one", 1)
	l.Silence = 400 * time.Millisecond
	start(t, h, l)
	if got := <-ran; got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
}

// Nobody takes part who does not have the token, and nobody who would compute other bits; both sides are named.
func TestTurnedAway(t *testing.T) {
	e := fedtest.Engine(t, "go")
	h, said := host(t, job(t, e, "fedavg"), 0)
	good := h.Address()
	for name, c := range map[string]struct {
		change  func(*Address, *Lent)
		err     string
		told    string
		refused bool
	}{
		"token": {func(a *Address, _ *Lent) { a.Secret[0]++ }, "the token is not that of this simulation", "wrong token", true},
		"fingerprint": {func(a *Address, _ *Lent) { a.Fingerprint = identity.Fingerprint{1} },
			"its certificate has another fingerprint", "", false},
		"version": {func(_ *Address, l *Lent) { l.Machine.Version = "2" },
			"the simulation runs cohort 1, the worker 2", "worker w was turned away: the simulation runs cohort 1", true},
		"engine": {func(_ *Address, l *Lent) { l.Machine.Engine = "cpu" },
			"engine go (portable), the worker with cpu (portable)", "start the worker with --backend go", true},
		"kernels": {func(_ *Address, l *Lent) { l.Machine.Kernels = "avx2" },
			"the kernels portable on", "the worker with avx2 on", true},
		"processor": {func(_ *Address, l *Lent) { l.Machine.Arch = "mips" }, "the worker with portable on mips", "on mips", true},
		"client": {func(_ *Address, l *Lent) { l.Build = func(Run) (federated.Client, error) { return nil, errTest } },
			"the clients of this run cannot be made here: no such thing", "it cannot take part: the clients of this run", false},
	} {
		a, l := good, lent(t, e, "fedavg", "w", 1)
		c.change(&a, &l)
		err := Work(t.Context(), a, l)
		var refused *RefusedError
		if err == nil || !strings.Contains(err.Error(), c.err) || errors.As(err, &refused) != c.refused {
			t.Errorf("%s: error %v, want %s", name, err, c.err)
		}
		if c.told != "" && name != "token" { // of strangers only the first is told
			said.await(t, c.told)
		}
	}
	if n := len(h.Tallies()); n != 1 { // the one whose clients could not be made
		t.Errorf("%d workers took part", n)
	}
	if err := (Lent{}).Validate(); err == nil {
		t.Error("a worker of nothing is valid")
	}
	l := lent(t, e, "fedavg", "w", 1)
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Work(t.Context(), good, l); err == nil || !strings.Contains(err.Error(), "cannot be reached") {
		t.Errorf("a host that has gone: %v", err)
	}
}

// Without a token there is nothing to be had, and nothing to be blocked for long.
func TestStrangers(t *testing.T) {
	e := fedtest.Engine(t, "go")
	h, said := host(t, job(t, e, "fedavg"), 0)
	for _, frame := range []struct {
		k kind
		b []byte
	}{{kindTask, []byte("{}")}, {kindHello, nil}, {kindHello, make([]byte, maxHello+1)}, {kindHello, make([]byte, 64)}, {99, nil}} {
		c, err := dial(t.Context(), h.Address())
		if err != nil {
			t.Fatal(err)
		}
		l := &link{c: c, silence: 10 * time.Second}
		_ = l.send(frame.k, frame.b)
		if k, b, err := l.receive(maxFrame); err == nil {
			t.Errorf("a frame of kind %d is answered by %d, %q", frame.k, k, b)
		}
		_ = c.Close()
	}
	said.await(t, "was turned away: it began with a frame of kind 4")
	if n := len(h.Tallies()); n != 0 {
		t.Errorf("%d workers took part", n)
	}
}

// A worker whose answers have other names or shapes than its tasks ask for is put out, and its clients are computed anew.
func TestLiar(t *testing.T) {
	e := fedtest.Engine(t, "go")
	want := digest(t, job(t, e, "heterofl"))
	for name, lie := range map[string]func(*federated.Result){
		"shape": func(r *federated.Result) {
			s := weights.NewSet(1)
			for n, x := range r.Addends["w"].All() {
				s.Put(n, weights.NewTensor(weights.Float32, append([]int{1}, x.Shape...)...))
			}
			r.Addends["w"] = s
		},
		"missing": func(r *federated.Result) { r.Addends = nil },
		"more":    func(r *federated.Result) { r.Addends["x"] = r.Addends["w"] },
		"renamed": func(r *federated.Result) { r.Addends = map[string]weights.Set{"x": r.Addends["w"]} },
		"cover":   func(r *federated.Result) { r.Cover = weights.Index{"head.weight": {weights.Prefix(99), weights.All()}} },
		"status":  func(r *federated.Result) { r.Status = 7 },
		"one more": func(r *federated.Result) {
			s := r.Addends["w"].Clone()
			s.Put("y", s.Must(s.Names()[0]))
			r.Addends["w"] = s
		},
	} {
		j := job(t, e, "heterofl")
		j.Workers = -1
		h, said := host(t, j, 0)
		bad := lent(t, e, "heterofl", "liar", 1)
		inner := bad.Build
		bad.Build = func(r Run) (federated.Client, error) {
			client, err := inner(r)
			return clientFunc(func(ctx context.Context, at federated.Local, task federated.Task, keep *weights.Set) (federated.Result, error) {
				res, err := client.Run(ctx, at, task, keep)
				if name == "cover" && err == nil {
					for n := range res.Addends["w"].All() {
						res.Cover = weights.Index{n: {weights.Prefix(1 << 20), weights.All(), weights.All()}}
						return res, nil
					}
				}
				if err == nil {
					lie(&res)
				}
				return res, err
			}), err
		}
		_, ended := start(t, h, bad)
		ran := make(chan string)
		go func() { ran <- digest(t, j) }()
		said.await(t, "worker liar is gone: it sent what no worker sends: the answer for ")
		start(t, h, lent(t, e, "heterofl", "one", 2))
		if got := <-ran; got != want {
			t.Errorf("%s: digest %s, want %s", name, got, want)
		}
		var refused *RefusedError
		if err := result1(t, ended); !errors.As(err, &refused) {
			t.Errorf("%s: the liar ended with %v", name, err)
		}
		_ = h.Close()
	}
}

// What goes wrong at a client goes wrong in the same words elsewhere: failures are part of a run's record. Values that are no
// numbers come through to the driver, which refuses them.
func TestFailures(t *testing.T) {
	e := fedtest.Engine(t, "go")
	broken := func(client federated.Client) federated.Client {
		return clientFunc(func(ctx context.Context, at federated.Local, task federated.Task, keep *weights.Set) (federated.Result, error) {
			if task.Phase == "train" {
				switch at.Member.Index {
				case 0:
					return federated.Result{}, errTest
				case 4:
					panic("index out of range")
				case 2:
					return federated.Result{Status: federated.Abstained}, nil
				}
			}
			r, err := client.Run(ctx, at, task, keep)
			if at.Member.Index == 3 && err == nil && task.Phase == "train" {
				r.Scalars["train.loss"] = math.NaN()
			}
			return r, err
		})
	}
	reasons := func(elsewhere bool) (string, string) {
		j := job(t, e, "fedavg")
		var o failures
		j.Observer = &o
		j.Algorithm = withClient{j.Algorithm, broken}
		if elsewhere {
			j.Workers = -1
			h, _ := host(t, j, 0)
			l := lent(t, e, "fedavg", "one", 2)
			l.Build = func(Run) (federated.Client, error) { return broken(algorithm(t, "fedavg").Client()), nil }
			start(t, h, l)
		}
		d := digest(t, j)
		return d, o.String()
	}
	wantDigest, want := reasons(false)
	gotDigest, got := reasons(true)
	if got != want || gotDigest != wantDigest {
		t.Errorf("elsewhere:\n%s\nhere:\n%s", got, want)
	}
	for _, part := range []string{"no such thing", "the client broke: index out of range", "NaN"} {
		if !strings.Contains(want, part) {
			t.Errorf("%q is not among the failures:\n%s", part, want)
		}
	}
}

// Cancelling a run ends it at once, whatever its workers are at, and the workers with it.
func TestCancelled(t *testing.T) {
	e := fedtest.Engine(t, "go")
	j := job(t, e, "fedavg")
	j.Workers = -1
	h, _ := host(t, j, 0)
	l := lent(t, e, "fedavg", "one", 2)
	ctx, cancel := context.WithCancel(t.Context())
	l.Build = func(Run) (federated.Client, error) {
		return clientFunc(func(ctx context.Context, _ federated.Local, _ federated.Task, _ *weights.Set) (federated.Result, error) {
			cancel()
			<-ctx.Done() // the task is dropped
			return federated.Result{}, ctx.Err()
		}), nil
	}
	_, ended := start(t, h, l)
	if _, err := j.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("the run ended with %v", err)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if err := result1(t, ended); err != nil {
		t.Errorf("the worker ended with %v", err)
	}
}
