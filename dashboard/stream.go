package dashboard

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

type entryKey struct{}

func withEntry(ctx context.Context, e *entry) context.Context {
	return context.WithValue(ctx, entryKey{}, e)
}

// A stream is one open page.
type stream struct {
	d    *Dashboard
	w    http.ResponseWriter
	rc   *http.ResponseController
	r    *http.Request
	over *time.Timer     // when the session expires
	gone <-chan struct{} // when it is ended
	sent map[string]uint64
	out  bytes.Buffer

	wrote time.Time // when something was written last
}

var seed = maphash.MakeSeed()

// open begins a stream, or answers the request otherwise and returns nil.
func (d *Dashboard) open(w http.ResponseWriter, r *http.Request) *stream {
	select {
	case d.streams <- struct{}{}:
	default:
		w.Header().Set("Retry-After", "10")
		d.notice(w, r, http.StatusServiceUnavailable, crowded)
		return nil
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // a proxy in between must not collect events
	s := &stream{d: d, w: w, rc: http.NewResponseController(w), r: r, sent: map[string]uint64{}}
	e := r.Context().Value(entryKey{}).(*entry)
	s.gone = e.gone
	s.over = time.NewTimer(e.Expires.Sub(d.door.now()))
	s.out.WriteString("retry: 1000\n\n")
	return s
}

func (s *stream) close() {
	s.over.Stop()
	<-s.d.streams
}

// event adds an event to what is written next.
func (s *stream) event(name string, data any) {
	fmt.Fprintf(&s.out, "event: %s\ndata: ", name)
	enc := json.NewEncoder(&s.out) // puts no line feed but the last
	enc.SetEscapeHTML(false)
	if err := enc.Encode(data); err != nil {
		panic(fmt.Sprintf("dashboard: event %s: %v", name, err)) // made of strings and finite numbers
	}
	s.out.WriteByte('\n')
}

// parts adds those that are new to the reader.
func (s *stream) parts(list []part) {
	for _, p := range list {
		h := maphash.String(seed, p.HTML)
		if old, ok := s.sent[p.ID]; !ok || old != h {
			s.sent[p.ID] = h
			s.event("part", p)
		}
	}
}

// flush writes what has been added, with the position that the reader comes back with. The position stands in the last event,
// so that a reader that got half of a batch is sent all of it again.
func (s *stream) flush(id string) error {
	if s.out.Len() == 0 {
		return nil
	}
	if id != "" {
		fmt.Fprintf(&s.out, "id: %s\nevent: mark\ndata: 0\n\n", id)
	}
	// A server may have a deadline for whole answers; a stream has one for each piece.
	if err := s.rc.SetWriteDeadline(time.Now().Add(s.d.patient)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := s.w.Write(s.out.Bytes()); err != nil {
		return err
	}
	s.out.Reset()
	if err := s.rc.Flush(); err != nil {
		return err
	}
	// Over HTTP/2 a deadline that passes ends the stream even if nothing waits to be written.
	if err := s.rc.SetWriteDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	s.wrote = time.Now()
	return nil
}

// errOver says that a stream has come to its end.
var errOver = errors.New("stream is over")

// wait returns when wake is closed or t has passed; it gives a sign of life when nothing was written for a while, however often
// it is called.
func (s *stream) wait(wake <-chan struct{}, t <-chan time.Time) error {
	beat := time.NewTimer(s.d.beat - time.Since(s.wrote))
	defer beat.Stop()
	for {
		select {
		case <-wake:
			return nil
		case <-t:
			return nil
		case <-beat.C:
			s.out.WriteString(": \n\n")
			if err := s.flush(""); err != nil {
				return err
			}
			beat.Reset(s.d.beat)
		case <-s.r.Context().Done():
			return errOver
		case <-s.gone:
			return errOver
		case <-s.over.C:
			return errOver
		case <-s.d.closing:
			return errOver
		}
	}
}

// homeEvents sends the list of runs when it has changed.
func (d *Dashboard) homeEvents(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead {
		return
	}
	s := d.open(w, r)
	if s == nil {
		return
	}
	defer s.close()
	for {
		list, err := parts(d.homeView(), "runs")
		if err != nil {
			d.log.Error("list of runs", "error", err)
			return
		}
		s.parts(list)
		if s.flush("0") != nil || s.wait(nil, time.After(4*d.pace)) != nil {
			return
		}
	}
}

// runEvents sends what happens in a run.
func (d *Dashboard) runEvents(w http.ResponseWriter, r *http.Request) {
	run, ok := d.source.Run(r.PathValue("id"))
	if !ok {
		d.notice(w, r, http.StatusNotFound, notFound)
		return
	}
	if r.Method == http.MethodHead {
		return
	}
	s := d.open(w, r)
	if s == nil {
		return
	}
	defer s.close()
	err := s.follow(run, parseFilter(r.URL.Query()))
	if err != nil && !errors.Is(err, errOver) {
		d.log.Debug("stream of a run ended", "run", run.ID, "error", err)
	}
}

// follow sends the whole of the run, unless the reader says that it has it, and then what changes.
func (s *stream) follow(run Run, f filter) error {
	feed := s.d.source.Feed(run.ID)
	b := s.d.book(run, feed)
	shown, cursor, resumed := map[string]bool(nil), uint64(0), false
	if feed != nil {
		cursor, resumed = s.cursor(feed)
	}
	for {
		p := position{ended: true}
		var items []item
		whole := !resumed
		if feed != nil && resumed {
			var ok bool
			if items, p, ok = feed.since(cursor); !ok {
				whole = true
			}
		}
		if feed != nil && whole {
			p = feed.position()
		}
		next, err := b.read(s.d.source, run.ID, feed)
		if err != nil {
			return fmt.Errorf("records: %w", err)
		}
		if whole {
			dg := b.digest()
			shown = s.figures(dg.figures)
			s.lines("logall", dg.lines, dg.total)
			// What was read may be further than p; what comes twice changes nothing.
			p.next = min(next, dg.next)
		} else {
			shown = s.items(items, b, shown)
		}
		cursor, resumed = p.next, true
		list, err := s.d.shared(run.ID, feed, f).parts(s.d, run, b, p.moved)
		if err != nil {
			return err
		}
		s.parts(list)
		id := ""
		if feed != nil {
			id = feed.epoch + "-" + strconv.FormatUint(cursor, 10)
		}
		if p.ended {
			s.event("end", 0)
		}
		if err := s.flush(id); err != nil || p.ended {
			return err
		}
		if err := s.wait(p.wake, nil); err != nil {
			return err
		}
		if err := s.wait(nil, time.After(s.d.pace)); err != nil { // what comes now goes together
			return err
		}
	}
}

// cursor returns how far along the feed the reader says it has come, in the header of a reconnection or in the query.
func (s *stream) cursor(f *Feed) (uint64, bool) {
	id := s.r.Header.Get("Last-Event-ID")
	if id == "" {
		id = s.r.URL.Query().Get("after")
	}
	epoch, number, ok := strings.Cut(id, "-")
	n, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil || epoch != f.epoch {
		return 0, false
	}
	_, _, ok = f.since(n)
	return n, ok
}

// figures sends all figures and returns which curves they have.
func (s *stream) figures(list []figure) map[string]bool {
	shown := map[string]bool{}
	wires := []any{}
	for _, f := range list {
		wires = append(wires, f.wire())
		for _, c := range f.Curves {
			shown[f.Name+"\x00"+c.Name] = true
		}
	}
	html, err := parts(list, "figures")
	if err != nil {
		s.d.log.Error("figures", "error", err)
		return shown
	}
	s.event("figures", map[string]any{"html": html[0].HTML, "figures": wires})
	return shown
}

func (s *stream) lines(event string, list []line, total int) {
	html, err := parts(list, "lines")
	if err != nil {
		s.d.log.Error("log", "error", err)
		return
	}
	s.event(event, map[string]any{"html": html[0].HTML, "total": total})
}

// items sends metrics and events. If a metric begins a curve, or the page's curves are not known, all figures are sent.
func (s *stream) items(items []item, b *book, shown map[string]bool) map[string]bool {
	var news []line
	var points []any
	charts, fresh := map[string]bool{}, false
	for _, i := range items {
		if i.event != nil {
			news = append([]line{newLine(*i.event)}, news...)
			continue
		}
		p, curve, sub, ok := b.words.put(*i.metric)
		if !ok {
			continue
		}
		if !shown[p.chart+"\x00"+curve] {
			fresh = fresh || shown == nil || i.metric.Value != 0
			continue
		}
		charts[p.chart] = true
		points = append(points, map[string]any{"figure": "chart-" + identifier(p.chart), "curve": curve, "part": sub,
			"x": at(*i.metric), "y": orNull(i.metric.Value)})
	}
	if len(news) > 0 {
		s.lines("log", news[:min(len(news), pageLines)], b.count())
	}
	switch {
	case fresh:
		return s.figures(b.digest().figures)
	case len(points) > 0:
		var sides []any
		for _, f := range b.digest().figures {
			if !charts[f.Name] {
				continue
			}
			html, err := parts(f, "legend", "numbers")
			if err != nil {
				s.d.log.Error("figure", "error", err)
				continue
			}
			sides = append(sides, map[string]any{"figure": f.ID, "legend": html[0].HTML, "numbers": html[1].HTML})
		}
		s.event("points", map[string]any{"points": points, "sides": sides})
	}
	return shown
}

// A shared is the parts of a page that change all the time, rendered once for all who look at the same.
type shared struct {
	f    filter
	used time.Time

	mu    sync.Mutex
	moved uint64
	ready bool
	at    time.Time
	list  []part
}

// shared returns the parts of a run's page under a filter. Those that nobody has asked for lately are forgotten.
func (d *Dashboard) shared(id string, feed *Feed, f filter) *shared {
	key := id + f.query()
	if feed != nil {
		key = feed.epoch + key
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	v := d.views[key]
	if v == nil {
		for k, old := range d.views {
			if len(d.views) >= maxStreams && now.Sub(old.used) > time.Minute {
				delete(d.views, k)
			}
		}
		v = &shared{f: f}
		d.views[key] = v
	}
	v.used = now
	return v
}

// parts returns the parts as they were when the feed had moved so often, or later.
func (v *shared) parts(d *Dashboard, run Run, b *book, moved uint64) ([]part, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ready && moved != 0 && v.moved >= moved {
		return v.list, nil
	}
	if rest := d.pace - time.Since(v.at); v.ready && moved != 0 && rest > 0 {
		time.Sleep(rest) // others that wait for the lock are served by the same rendering
	}
	feed := d.source.Feed(run.ID)
	if feed != nil {
		moved = max(moved, feed.position().moved) // before asking: what is rendered is at least as new
	}
	if now, ok := d.source.Run(run.ID); ok {
		run = now
	}
	list, err := parts(d.glance(run, b, v.f), "top", "now", "members", "failures")
	if err != nil {
		return nil, err
	}
	v.list, v.moved, v.ready, v.at = list, moved, true, time.Now()
	return list, nil
}
