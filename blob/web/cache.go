package web

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cohort-learning/cohort/blob"
)

type counter = atomic.Int64

// parseRange reads the header Range for n bytes: from ≤ i < to are asked for. It
// obeys a single range and takes what it does not understand for no range, as
// RFC 9110, section 14.2, allows.
func parseRange(header string, n int64) (from, to int64, status int) {
	spec, ok := strings.CutPrefix(header, "bytes=")
	first, last, dash := strings.Cut(spec, "-")
	if !ok || !dash || strings.Contains(spec, ",") {
		return 0, n, http.StatusOK
	}
	a, errA := strconv.ParseUint(first, 10, 62)
	b, errB := strconv.ParseUint(last, 10, 62)
	switch {
	case first == "" && errB == nil: // the last b bytes
		from, to = max(0, n-int64(b)), n
	case errA == nil && last == "":
		from, to = int64(a), n
	case errA == nil && errB == nil && a <= b:
		from, to = int64(a), min(n, int64(b)+1)
	default:
		return 0, n, http.StatusOK
	}
	if from >= to {
		return 0, 0, http.StatusRequestedRangeNotSatisfiable
	}
	return from, to, http.StatusPartialContent
}

// A cache shares chunks between those who read them: a model that goes to ten
// thousand members is read, verified and held once. It takes no more than its
// bound, and lets those wait who need a chunk beyond it. A chunk that nobody has
// read for a while is let go: most likely there is another model by now.
type cache struct {
	max  int64
	load func(ctx context.Context, h blob.Hash, buf []byte) ([]byte, error)

	mu    sync.Mutex
	m     map[blob.Hash]*cached
	idle  []*cached     // nobody reads these; oldest first
	freed chan struct{} // closed and replaced when a chunk becomes idle
	timer *time.Timer   // for what is idle; nil: nothing is
}

// forget is after how long a chunk is let go that nobody reads.
const forget = 10 * time.Second

type cached struct {
	hash  blob.Hash
	ready chan struct{} // closed when loaded
	data  []byte
	err   error
	refs  int
	since time.Time // when the last reader went
}

func newCache(bytes int64, load func(context.Context, blob.Hash, []byte) ([]byte, error)) *cache {
	return &cache{
		max:   max(1, bytes/blob.ChunkSize),
		load:  load,
		m:     make(map[blob.Hash]*cached),
		freed: make(chan struct{}),
	}
}

// get returns a chunk, which must not be changed, and stays until release is called.
func (c *cache) get(ctx context.Context, h blob.Hash) (data []byte, release func(), err error) {
	for {
		c.mu.Lock()
		e := c.m[h]
		if e != nil {
			c.use(e)
			c.mu.Unlock()
			release := func() { c.release(e) }
			select {
			case <-e.ready:
			case <-ctx.Done():
				release()
				return nil, nil, ctx.Err()
			}
			if e.err != nil {
				release()
				return nil, nil, e.err
			}
			return e.data, release, nil
		}
		var buf []byte
		if int64(len(c.m)) >= c.max {
			if len(c.idle) == 0 {
				freed := c.freed
				c.mu.Unlock()
				select {
				case <-freed:
					continue
				case <-ctx.Done():
					return nil, nil, ctx.Err()
				}
			}
			old := c.idle[0]
			c.idle = c.idle[1:]
			delete(c.m, old.hash)
			buf = old.data
		}
		e = &cached{hash: h, ready: make(chan struct{}), refs: 1}
		c.m[h] = e
		c.mu.Unlock()
		if cap(buf) < blob.ChunkSize {
			buf = make([]byte, blob.ChunkSize)
		}
		// Others may wait for it, so it does not end with the one who came first.
		e.data, e.err = c.load(context.WithoutCancel(ctx), h, buf[:blob.ChunkSize])
		close(e.ready)
		if e.err != nil {
			c.release(e)
			return nil, nil, e.err
		}
		return e.data, func() { c.release(e) }, nil
	}
}

// use notes a reader. The caller holds mu.
func (c *cache) use(e *cached) {
	e.refs++
	for i, o := range c.idle {
		if o == e {
			c.idle = append(c.idle[:i:i], c.idle[i+1:]...)
			return
		}
	}
}

func (c *cache) release(e *cached) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.refs--; e.refs > 0 {
		return
	}
	if e.err != nil {
		delete(c.m, e.hash)
	} else {
		e.since = time.Now()
		c.idle = append(c.idle, e)
		if c.timer == nil {
			c.timer = time.AfterFunc(forget, c.age)
		}
	}
	close(c.freed)
	c.freed = make(chan struct{})
}

// age lets the chunks go that have been idle for long.
func (c *cache) age() {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for n < len(c.idle) && time.Since(c.idle[n].since) >= forget {
		delete(c.m, c.idle[n].hash)
		n++
	}
	c.idle = slices.Delete(c.idle, 0, n)
	c.timer = nil
	if len(c.idle) > 0 {
		c.timer = time.AfterFunc(forget-time.Since(c.idle[0].since), c.age)
	}
}

// lists keeps the manifests that were asked for last.
type lists struct {
	store blob.Store
	mu    sync.Mutex
	m     map[blob.Hash]*listing
	order []blob.Hash
	n     int // chunks in all of them
}

const maxListed = 1 << 18 // chunks: about 20 MB

func (l *lists) get(ctx context.Context, h blob.Hash) (*listing, error) {
	l.mu.Lock()
	e := l.m[h]
	l.mu.Unlock()
	if e != nil {
		return e, nil
	}
	m, err := blob.ReadManifest(ctx, l.store, h)
	if err != nil {
		return nil, err
	}
	e = newListing(m)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.m[h] == nil {
		l.m[h] = e
		l.order = append(l.order, h)
		l.n += len(m.Chunks) + 1
	}
	for l.n > maxListed && len(l.order) > 1 {
		old := l.order[0]
		l.order = l.order[1:]
		l.n -= len(l.m[old].Chunks) + 1
		delete(l.m, old)
	}
	return e, nil
}
