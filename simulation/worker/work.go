package worker

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/train"
)

// Lent is how a machine is lent.
type Lent struct {
	Machine Machine
	Name    string // for people; empty: "worker"
	Threads int    // clients at work at a time
	Engine  *train.Engine
	// Build returns the clients of a run. An error is told to the host.
	Build func(Run) (federated.Client, error)
	// Cache is how many bytes of examples and models are held in memory; 0 means 1 GiB. What does not fit is sent again.
	Cache int64
	// Silence is how long the host may neither send nor take anything until the connection is given up; 0 means 20 seconds.
	Silence time.Duration
	// Patience is for how long a host that cannot be reached is tried again; 0 means 2 minutes, less not at all.
	Patience time.Duration
	// Tell, if not nil, is called with a line for people. Calls do not overlap.
	Tell func(line string)
}

// Validate returns an error that says which field is wrong.
func (l Lent) Validate() error {
	switch {
	case l.Threads < 1 || l.Threads > maxThreads:
		return fmt.Errorf("%d threads, expected 1 to %d", l.Threads, maxThreads)
	case l.Engine == nil || l.Build == nil:
		return errors.New("a worker needs an engine and a builder of clients")
	case l.Cache < 0 || l.Silence < 0:
		return fmt.Errorf("a cache of %d bytes and a silence of %v: neither may be negative", l.Cache, l.Silence)
	}
	return nil
}

// RefusedError says that host and worker do not go together, for good.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return "turned away: " + e.Reason }

// Work lends this machine to the simulation at an address until its run is over, when it returns nil, or ctx is done. A
// connection that is lost is made again; what has been sent before is kept in memory.
func Work(ctx context.Context, a Address, l Lent) error {
	if err := l.Validate(); err != nil {
		return err
	}
	if l.Silence == 0 {
		l.Silence = defaultSilence
	}
	if l.Cache == 0 {
		l.Cache = 1 << 30
	}
	if l.Patience == 0 {
		l.Patience = 2 * time.Minute
	}
	l.Machine = l.Machine.here()
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return err
	}
	cache := newCache(l.Cache)
	pause, since := firstPause, time.Now()
	for {
		v := &visit{Lent: l, id: hex.EncodeToString(id[:]), cache: cache}
		done, err := v.do(ctx, a)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case done:
			return err
		}
		if v.welcomed {
			pause, since = firstPause, time.Now()
		}
		if time.Since(since)+pause > l.Patience {
			return fmt.Errorf("the simulation at %s cannot be reached: %w", a.Host, err)
		}
		if l.Tell != nil {
			l.Tell(fmt.Sprintf("%v; trying again in %v", err, pause))
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, 16*firstPause)
	}
}

// firstPause is how long a worker waits before it tries again for the first time.
const firstPause = time.Second

// visit is one connection to a host.
type visit struct {
	Lent
	id       string
	cache    *cache
	welcomed bool

	link   *link
	run    welcome
	built  chan struct{} // closed when client is there
	client federated.Client
	wg     sync.WaitGroup

	mu        sync.Mutex
	cancel    map[uint64]context.CancelFunc // of tasks at work
	failed    error                         // why this machine cannot go on
	asked     uint64                        // questions so far
	questions map[uint64]chan told          // those without an answer
}

// do connects and works. The visit is done for good if there is no use in another.
func (v *visit) do(ctx context.Context, a Address) (done bool, err error) {
	c, err := dial(ctx, a)
	if err != nil {
		return errors.Is(err, ErrWrongHost), err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		_ = c.Close()
		v.cache.lose()
		v.wg.Wait()
	}()
	v.link, v.cancel, v.built = &link{c: c, silence: v.Silence}, map[uint64]context.CancelFunc{}, make(chan struct{})
	v.questions = map[uint64]chan told{}
	v.wg.Go(func() { v.leave(ctx, c) })
	if done, err = v.introduce(a, c); err != nil {
		return done, err
	}
	v.wg.Go(func() { v.link.keep(ctx.Done()) })
	v.wg.Go(func() { v.fail(v.build(ctx)) })
	v.welcomed = true
	for {
		k, b, err := v.link.receive(maxFrame)
		if err != nil {
			if failed := v.failure(); failed != nil {
				return true, failed
			}
			return false, inWords(err, v.Silence)
		}
		if ctx.Err() != nil { // nothing is done any more
			continue
		}
		if done, err := v.handle(ctx, k, b); done || err != nil {
			return done, err
		}
	}
}

// fail ends the visit if there is an error that another visit would not heal, and tells the host.
func (v *visit) fail(err error) {
	if err == nil || errors.Is(err, errLost) || errors.Is(err, context.Canceled) {
		return
	}
	v.mu.Lock()
	v.failed = errors.Join(v.failed, err)
	v.mu.Unlock()
	_ = v.link.send(kindRefusal, []byte(err.Error()))
	_ = v.link.c.Close()
}

func (v *visit) failure() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.failed
}

// leave says that the connection ends when ctx is done. The host closes it: were it closed here while something of the host's
// is unread, the system would break it off and the host might never read the last words. A host that does not is not waited for.
func (v *visit) leave(ctx context.Context, c *tls.Conn) {
	<-ctx.Done()
	time.AfterFunc(grace, func() { _ = c.Close() })
	_ = v.link.send(kindBye, []byte("it was stopped there"))
	_ = c.CloseWrite()
}

// introduce says who this is and hears what is to be done.
func (v *visit) introduce(a Address, c *tls.Conn) (done bool, err error) {
	proof, err := prove(a.Secret, c)
	if err != nil {
		return true, err
	}
	b, err := json.Marshal(hello{Protocol: Protocol, Machine: v.Machine, Name: v.Name, ID: v.id, Threads: v.Threads})
	if err != nil {
		return true, err
	}
	if err := v.link.send(kindHello, proof, b); err != nil {
		return false, err
	}
	k, b, err := v.link.receive(maxFrame)
	switch {
	case err != nil:
		return false, inWords(err, v.Silence)
	case k == kindRefusal:
		return true, &RefusedError{presentableLine(b)}
	case k == kindBye:
		return true, nil
	case k != kindWelcome:
		return true, fmt.Errorf("the simulation answered with a frame of kind %d", k)
	}
	v.run, err = decodeWelcome(b)
	return err != nil, err
}

// build makes the clients.
func (v *visit) build(ctx context.Context) error {
	r := Run{Seed: v.run.Seed, Recipe: []byte(v.run.Recipe), Like: v.run.Like.empty()}
	if v.run.Start != nil {
		n := v.needs(0)
		defer n.release()
		n.add(*v.run.Start)
		if err := n.fetch(ctx); err != nil {
			return err
		}
		start, err := n.set(*v.run.Start)
		if err != nil {
			return err
		}
		r.Start = &start
	}
	client, err := v.Build(r)
	if err != nil {
		return fmt.Errorf("the clients of this run cannot be made here: %w", err)
	}
	v.client = client
	close(v.built)
	if v.Tell != nil {
		v.Tell(fmt.Sprintf("at work on the simulation at %s", v.link.c.RemoteAddr()))
	}
	return nil
}

// handle does what the host says.
func (v *visit) handle(ctx context.Context, k kind, b []byte) (done bool, err error) {
	switch k {
	case kindPing:
		return false, nil
	case kindBye:
		return true, nil
	case kindRefusal:
		return true, &RefusedError{presentableLine(b)}
	case kindContent:
		if len(b) < len(blob.Hash{}) {
			return true, errors.New("a content without a name")
		}
		h := blob.Hash(b[:len(blob.Hash{})])
		if b = b[len(h):]; blob.Sum(b) != h {
			return false, fmt.Errorf("content %s came damaged", h.Short())
		}
		v.cache.deliver(h, &content{raw: b}, int64(len(b)))
		return false, nil
	case kindDrop:
		id, err := decodeNumber(b)
		if err != nil {
			return true, err
		}
		v.mu.Lock()
		if stop := v.cancel[id]; stop != nil {
			stop()
		}
		v.mu.Unlock()
		return false, nil
	case kindTell:
		return false, v.hear(b)
	case kindTask:
		t, err := decodeTask(b)
		if err != nil {
			return true, err
		}
		return v.begin(ctx, t)
	}
	return true, fmt.Errorf("the simulation sent a frame of kind %d", k)
}

// begin starts the work on a task, which waits for the clients to be made. A host may send more tasks than there are threads
// only while some are being dropped.
func (v *visit) begin(visit context.Context, t task) (done bool, err error) {
	ctx, cancel := context.WithCancel(visit)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.cancel[t.ID] != nil || len(v.cancel) > 4*v.Threads+16 {
		cancel()
		return true, fmt.Errorf("task %d is one too many: %d are at work", t.ID, len(v.cancel))
	}
	v.cancel[t.ID] = cancel
	v.wg.Go(func() {
		select {
		case <-v.built:
			v.fail(v.answer(visit, ctx, t))
		case <-visit.Done():
		}
		v.mu.Lock()
		delete(v.cancel, t.ID)
		v.mu.Unlock()
		cancel()
	})
	return false, nil
}

func presentableLine(b []byte) string {
	const most = 500
	s := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, string(b[:min(len(b), 4*most)]))
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return s
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func encodeNumber(id uint64) []byte { return binary.BigEndian.AppendUint64(nil, id) }

func decodeNumber(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, fmt.Errorf("a number of %d bytes", len(b))
	}
	return binary.BigEndian.Uint64(b), nil
}
