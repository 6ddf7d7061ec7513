package worker

import (
	"container/list"
	"errors"
	"sync"

	"github.com/cohort-learning/cohort/blob"
)

// cache holds what a worker was sent, by hash, as long as there is room: what was used longest ago goes first, and nothing
// that a task at work needs. It outlives connections.
type cache struct {
	limit int64 // of bytes as they were sent

	mu      sync.Mutex
	used    int64
	entries map[blob.Hash]*entry
	idle    *list.List // entries that are here and in nobody's use, the one used last in front
}

// entry is a content that is here or on its way.
type entry struct {
	hash  blob.Hash
	here  chan struct{} // closed when the content has come, or will not
	users int
	value any // what was decoded from it
	bytes int64
	err   error
	at    *list.Element
}

// errLost says that a content did not come because the connection was lost.
var errLost = errors.New("the connection was lost")

func newCache(limit int64) *cache {
	return &cache{limit: limit, entries: map[blob.Hash]*entry{}, idle: list.New()}
}

// claim takes a content into use until it is released. If it is neither here nor on its way, mine is true and the caller has
// to ask for it.
func (c *cache) claim(h blob.Hash) (e *entry, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[h]
	if !ok {
		e = &entry{hash: h, here: make(chan struct{})}
		c.entries[h] = e
	}
	e.users++
	if e.at != nil {
		c.idle.Remove(e.at)
		e.at = nil
	}
	return e, !ok
}

// release ends a use.
func (c *cache) release(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.users--
	c.rest(e)
	c.trim()
}

// rest makes an entry one that can go, if nobody uses it. The caller holds the lock.
func (c *cache) rest(e *entry) {
	if e.users == 0 && e.at == nil && e.come() && c.entries[e.hash] == e {
		e.at = c.idle.PushFront(e)
	}
}

// come reports whether it is known what became of the entry.
func (e *entry) come() bool {
	select {
	case <-e.here:
		return true
	default:
		return false
	}
}

// put stores a content that was made here.
func (c *cache) put(h blob.Hash, v any, bytes int64) {
	e, _ := c.claim(h)
	c.deliver(h, v, bytes)
	c.release(e)
}

// deliver stores a content that somebody waits for; others are dropped.
func (c *cache) deliver(h blob.Hash, v any, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[h]
	if e == nil || e.come() {
		return
	}
	e.value, e.bytes = v, bytes
	close(e.here)
	c.used += bytes
	c.rest(e)
	c.trim()
}

// lose forgets everything that is on its way.
func (c *cache) lose() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for h, e := range c.entries {
		if !e.come() {
			e.err = errLost
			close(e.here)
			delete(c.entries, h)
		}
	}
}

// trim makes room. The caller holds the lock.
func (c *cache) trim() {
	for c.used > c.limit && c.idle.Len() > 0 {
		e := c.idle.Remove(c.idle.Back()).(*entry)
		e.at = nil
		c.used -= e.bytes
		delete(c.entries, e.hash)
	}
}
