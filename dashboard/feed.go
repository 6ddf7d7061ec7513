package dashboard

import (
	"crypto/rand"
	"encoding/hex"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/record"
)

// FeedSize is how many metrics and events a [Feed] remembers. A reader that is further behind is sent the whole page anew.
const FeedSize = 2048

// A Feed carries what happens in a living run to whoever looks at it. The coordinator tells it; telling never blocks and never
// fails, however many or slow the readers are, and the memory of a Feed is bounded. Its methods may be called from many
// goroutines.
type Feed struct {
	epoch string

	mu    sync.Mutex
	items []item // ring: item n is items[n%len(items)]
	next  uint64 // number of the next item
	moved uint64 // how often anything was told or touched
	wake  chan struct{}
	ended bool
}

// An item is one metric or one event.
type item struct {
	metric *record.Metric
	event  *record.Event
}

// NewFeed returns the feed of a run that is about to live in this process.
func NewFeed() *Feed {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return &Feed{epoch: hex.EncodeToString(b[:]), items: make([]item, 0, 64), wake: make(chan struct{})}
}

// Tell passes on what a journal record says, after it is durable. Rounds and times that the body leaves out are filled in as
// [record.Metrics] does: from the body's round and from at, the record's time.
func (f *Feed) Tell(b record.Body, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range b.Metrics {
		if m.Round == 0 {
			m.Round = b.Round
		}
		f.add(item{metric: &m})
	}
	for _, e := range b.Events {
		if e.Round == 0 {
			e.Round = b.Round
		}
		if e.Time.IsZero() {
			e.Time = at
		}
		if e.Level == "" {
			e.Level = record.Info
		}
		e.Message, e.Client = clean(e.Message, maxMessage), clean(e.Client, maxName)
		f.add(item{event: &e})
	}
	f.signal()
}

// add appends to the ring, which grows up to FeedSize.
func (f *Feed) add(i item) {
	if len(f.items) < FeedSize {
		f.items = append(f.items, i)
	} else {
		f.items[f.next%FeedSize] = i
	}
	f.next++
}

// Touch says that what Run or Members of the [Source] return has changed: progress of a phase, a member that came or went.
func (f *Feed) Touch() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.signal()
}

// End says that nothing more will be told.
func (f *Feed) End() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	f.signal()
}

func (f *Feed) signal() {
	f.moved++
	close(f.wake)
	f.wake = make(chan struct{})
}

// A position is how far a feed has come.
type position struct {
	next  uint64
	moved uint64
	wake  <-chan struct{} // closed when something more was told
	ended bool
}

func (f *Feed) position() position {
	f.mu.Lock()
	defer f.mu.Unlock()
	return position{f.next, f.moved, f.wake, f.ended}
}

// since returns the items from number n on, and how far the feed has come with them; false if some of them are forgotten, or
// are none of this feed.
func (f *Feed) since(n uint64) (list []item, p position, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p = position{f.next, f.moved, f.wake, f.ended}
	if n > f.next || f.next-n > uint64(len(f.items)) {
		return nil, p, false
	}
	for ; n < f.next; n++ {
		list = append(list, f.items[n%FeedSize])
	}
	return list, p, true
}
