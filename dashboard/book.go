package dashboard

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/record"
)

// A book is what the records of one run say, in memory: read from its History once and kept up to its Feed since. What stands
// in both is the same metric or event, and is kept once.
type book struct {
	words vocabulary

	mu       sync.Mutex
	loaded   bool
	next     uint64 // of the feed
	charts   map[string]*chart
	seen     map[uint64]bool // keys of all events
	lines    []line          // the newest, in order
	total    int             // how many lines there were
	failures map[string]*failure
}

// keptLines is how many lines of the log a book keeps at least; pageLines is how many the page shows.
const (
	keptLines = 600
	pageLines = 200
)

// A line is one line of the log.
type line struct {
	Key     string // identity: two lines with the same key are one
	Time    time.Time
	Round   int // counted from 1; 0 is not shown
	Level   record.Level
	Client  string
	Message string
}

// A failure is what warnings and errors say of one member.
type failure struct {
	Client  string
	Count   int
	Last    int // round, counted from 1
	Message string
	order   int
}

// eventKey is what makes an event the same one, as for [record.Metrics]: round, level, member and message.
func eventKey(e record.Event) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d\x00%s\x00%s\x00%s", e.Round, e.Level, e.Client, e.Message)
	return h.Sum64()
}

// read brings the book up to the run's records; f may be nil. It returns how far along the feed that is.
func (b *book) read(s Source, id string, f *Feed) (next uint64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.loaded && f != nil {
		if items, p, ok := f.since(b.next); ok {
			b.apply(items)
			b.next = p.next
			return b.next, nil
		}
	}
	if b.loaded && f == nil {
		return b.next, nil
	}
	// The position first: what is told meanwhile may come twice, but not be missed.
	if f != nil {
		b.next = f.position().next
	}
	if err := b.load(s, id); err != nil {
		return 0, err
	}
	b.loaded = true
	return b.next, nil
}

func (b *book) load(s Source, id string) error {
	b.charts, b.seen, b.failures = map[string]*chart{}, map[uint64]bool{}, map[string]*failure{}
	b.lines, b.total = nil, 0
	h, done, err := s.History(id)
	if errors.Is(err, ErrNoHistory) {
		return nil
	}
	if err != nil {
		return err
	}
	if done != nil {
		defer done()
	}
	drawn := func(name string) bool {
		_, _, _, ok := b.words.put(record.Metric{Name: name})
		return ok
	}
	if err := eachMetric(h, drawn, b.metric); err != nil {
		return err
	}
	events, err := h.Events()
	if err != nil {
		return err
	}
	for _, e := range events {
		b.event(e)
	}
	return nil
}

func (b *book) apply(items []item) {
	for _, i := range items {
		if i.metric != nil {
			b.metric(*i.metric)
		} else {
			b.event(*i.event)
		}
	}
}

func (b *book) metric(m record.Metric) {
	p, name, part, ok := b.words.put(m)
	if !ok {
		return
	}
	c := b.charts[p.chart]
	if c == nil {
		c = &chart{p, map[string]*series{}}
		b.charts[p.chart] = c
	}
	c.set(name, part, at(m), m.Value)
}

func (b *book) event(e record.Event) {
	l := newLine(e)
	key := eventKey(record.Event{Round: e.Round, Level: e.Level, Client: l.Client, Message: l.Message})
	if b.seen[key] {
		return
	}
	b.seen[key] = true
	b.total++
	b.lines = append(b.lines, l)
	if len(b.lines) > 2*keptLines {
		b.lines = slices.Clone(b.lines[keptLines:])
	}
	if e.Client != "" && e.Level != record.Info {
		f := b.failures[l.Client]
		if f == nil {
			f = &failure{Client: l.Client}
			b.failures[l.Client] = f
		}
		f.Count++
		f.Last, f.Message, f.order = e.Round+1, l.Message, b.total
	}
}

// newLine makes a line of an event. Round 0 is both the first round and no round at all; only what went wrong in it says so.
func newLine(e record.Event) line {
	l := line{Time: e.Time, Level: e.Level, Client: clean(e.Client, maxName), Message: clean(e.Message, maxMessage)}
	if e.Round > 0 || e.Level != record.Info && e.Client != "" {
		l.Round = e.Round + 1
	}
	l.Key = strconv.FormatUint(eventKey(record.Event{Round: e.Round, Level: e.Level, Client: l.Client, Message: l.Message}), 36)
	return l
}

// A digest is what the page takes from a book at one instant.
type digest struct {
	figures  []figure
	lines    []line // the newest first
	total    int
	failures []failure // the most frequent first
	failed   int       // how many there are
	next     uint64
}

// shownFailures is how many members that failed the page names.
const shownFailures = 50

func (b *book) failed() (list []failure, total int) {
	for _, f := range b.failures {
		list = append(list, *f)
	}
	slices.SortFunc(list, func(x, y failure) int {
		return cmp.Or(cmp.Compare(y.Count, x.Count), cmp.Compare(y.order, x.order))
	})
	return list[:min(len(list), shownFailures)], len(list)
}

func (b *book) digest() digest {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := digest{figures: b.words.figures(b.charts), total: b.total, next: b.next}
	d.failures, d.failed = b.failed()
	for _, l := range slices.Backward(b.lines[max(0, len(b.lines)-pageLines):]) {
		d.lines = append(d.lines, l)
	}
	return d
}

// last returns the newest value of a series; false if there is none.
func (b *book) last(chart, series string) (point, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.charts[chart]
	if c == nil || c.series[series] == nil {
		return point{}, false
	}
	best, ok := point{}, false
	for x, y := range c.series[series].parts[""] {
		if !ok || x > best.x {
			best, ok = point{x, y}, true
		}
	}
	return best, ok
}

// count is how many lines the log has.
func (b *book) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.total
}

// A shelved is a book and the run that it tells of.
type shelved struct {
	book *book
	feed *Feed
	run  Run
	used time.Time
}

// maxBooks is how many books of ended runs are kept open.
const maxBooks = 8

// book returns the records of a run, in memory. Those of runs that have ended are read once, and again when the run has changed.
func (d *Dashboard) book(run Run, feed *Feed) *book {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.books[run.ID]
	if s == nil || s.feed != feed || s.run.State != run.State && feed == nil || !s.run.Ended.Equal(run.Ended) && feed == nil {
		s = &shelved{book: &book{words: run.words()}, feed: feed, run: run}
		d.books[run.ID] = s
	}
	s.used = time.Now()
	for ended := d.endedBooks(); len(ended) > maxBooks; ended = d.endedBooks() {
		oldest := ended[0]
		for _, id := range ended {
			if d.books[id].used.Before(d.books[oldest].used) {
				oldest = id
			}
		}
		delete(d.books, oldest)
	}
	return s.book
}

func (d *Dashboard) endedBooks() (ids []string) {
	for id, s := range d.books {
		if s.feed == nil {
			ids = append(ids, id)
		}
	}
	return ids
}
