package coordinator

import (
	"sync"
	"time"

	"github.com/cohort-learning/cohort/journal"
)

// appender writes journal records in groups, one sync for all that have come meanwhile. Whoever hands one in is called when it
// is durable, in the order of the records.
type appender struct {
	j     *journal.Journal
	pause func() time.Duration // before each group, for more to come
	seal  func(*journal.Entry) // hides what members are not to know
	spool *spool
	mu    sync.Mutex
	queue []pending
	wake  chan struct{}
	done  chan struct{}
	ended bool
}

// Where thousands are asked, a record waits a microsecond for each of them, up to mostPause: syncs are then a hundred a second and
// not a thousand.
const (
	leastPause = time.Millisecond
	mostPause  = 10 * time.Millisecond
)

type pending struct {
	entry  journal.Entry
	result *received // whose message goes to the spool first
	msg    []byte
	then   func(journal.Record, error)
}

func newAppender(j *journal.Journal, sp *spool, seal func(*journal.Entry), pause func() time.Duration) *appender {
	a := &appender{j: j, pause: pause, seal: seal, spool: sp, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go a.run()
	return a
}

// add hands in a record; then is called by another goroutine.
func (a *appender) add(kind string, body any, then func(journal.Record, error)) {
	a.put(pending{entry: journal.Entry{Kind: kind, Body: body}, then: then})
}

// addResult hands in a result, whose message becomes durable before its record.
func (a *appender) addResult(rec *received, msg []byte, then func(journal.Record, error)) {
	a.put(pending{entry: journal.Entry{Kind: KindReceived, Body: rec}, result: rec, msg: msg, then: then})
}

// addPartial hands in a relay's sum, which is durable as a blob.
func (a *appender) addPartial(rec *combined, then func(seq uint64, err error)) {
	a.add(KindPartial, rec, func(r journal.Record, err error) { then(r.Seq, err) })
}

// ignored is for records that nobody waits for: if one cannot be written, neither can the next.
func ignored(journal.Record, error) {}

func (a *appender) put(p pending) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		go p.then(journal.Record{}, journal.ErrClosed)
		return
	}
	a.queue = append(a.queue, p)
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *appender) run() {
	defer close(a.done)
	for range a.wake {
		if d := a.pause(); d >= leastPause {
			time.Sleep(d)
		}
		a.mu.Lock()
		batch := a.queue
		a.queue = nil
		ended := a.ended
		a.mu.Unlock()
		a.write(batch)
		if ended {
			return
		}
	}
}

func (a *appender) write(batch []pending) {
	if len(batch) == 0 {
		return
	}
	err := a.spool.write(batch)
	entries := make([]journal.Entry, len(batch))
	for i, p := range batch {
		entries[i] = p.entry
		a.seal(&entries[i])
	}
	var recs []journal.Record
	if err == nil {
		recs, err = a.j.AppendAll(entries)
	}
	for i, p := range batch {
		if err != nil {
			p.then(journal.Record{}, err)
			continue
		}
		p.then(recs[i], nil)
	}
}

// close writes what has been handed in and ends.
func (a *appender) close() {
	a.mu.Lock()
	a.ended = true
	select {
	case a.wake <- struct{}{}:
	default:
	}
	a.mu.Unlock()
	<-a.done
}
