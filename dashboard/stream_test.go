package dashboard

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cohort-learning/cohort/record"
)

// A reader is a browser's end of a stream.
type reader struct {
	t      testing.TB
	body   *bufio.Scanner
	cancel context.CancelFunc
	last   string // ID of the last event
}

type event struct {
	name, data string
}

// html returns every piece of HTML in an event.
func (e event) html() (list []string) {
	var v any
	if json.Unmarshal([]byte(e.data), &v) != nil {
		return nil
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, x := range v {
				if s, ok := x.(string); ok && slices.Contains([]string{"html", "legend", "numbers"}, k) {
					list = append(list, s)
				}
				walk(x)
			}
		case []any:
			for _, x := range v {
				walk(x)
			}
		}
	}
	walk(v)
	return list
}

func (s *site) follow(path, after string) *reader {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	s.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.server.URL+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if after != "" {
		req.Header.Set("Last-Event-ID", after)
	}
	r, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { r.Body.Close() })
	if r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "text/event-stream" {
		s.t.Fatalf("%s: %s %s", path, r.Status, r.Header.Get("Content-Type"))
	}
	sc := bufio.NewScanner(r.Body)
	sc.Buffer(nil, 16<<20)
	return &reader{s.t, sc, cancel, after}
}

// next returns the next event; its name is empty at the end of the stream.
func (r *reader) next() (e event) {
	id := ""
	for r.body.Scan() {
		key, value, _ := strings.Cut(r.body.Text(), ": ")
		switch key {
		case "event":
			e.name = value
		case "data":
			e.data = value
		case "id":
			id = value
		case "":
			if e.name == "" {
				continue
			}
			if id != "" {
				r.last = id
			}
			return e
		}
	}
	return event{}
}

// until returns the events up to one of that name, which must come.
func (r *reader) until(name string) (list []event) {
	r.t.Helper()
	for {
		e := r.next()
		if e.name == "" {
			r.t.Fatalf("the stream ended before %q", name)
		}
		list = append(list, e)
		if e.name == name {
			return list
		}
	}
}

// seek reads on until an event has a text.
func (r *reader) seek(text string) (list []event) {
	r.t.Helper()
	for {
		e := r.next()
		if e.name == "" {
			r.t.Fatalf("the stream ended before %q", text)
		}
		list = append(list, e)
		if strings.Contains(e.data, text) {
			return list
		}
	}
}

func names(list []event) (n []string) {
	for _, e := range list {
		n = append(n, e.name)
	}
	return n
}

func TestStream(t *testing.T) {
	s := newSite(t).enter()
	s.world.rounds(3)
	r := s.follow("/runs/ward-images/events", "")
	if got := fmt.Sprint(names(r.until("mark"))); got != "[figures logall part part part part mark]" {
		t.Errorf("at first: %s", got)
	}
	s.world.begin()
	r.seek("0 of 14 answered")
	s.world.answer(6)
	if got := r.seek("6 of 14 answered"); slices.Contains(names(got), "figures") || slices.Contains(names(got), "logall") {
		t.Errorf("progress sends %v", names(got))
	}
	s.world.finish(record.Event{Level: record.Warn, Client: "linz", Message: "train: gone fishing"})
	if got := r.seek("gone fishing"); got[len(got)-1].name != "log" && got[len(got)-1].name != "part" {
		t.Errorf("a failure comes as %s", got[len(got)-1].name)
	}
	r.until("mark")
	// What has not changed is not sent again.
	s.world.feed.Touch()
	s.world.set("jena", func(m *Member) { m.Presence = Gone })
	got := r.seek(`class=\"dot gone\"`)
	for _, e := range got {
		if e.name == "part" && !strings.Contains(e.data, `"id":"members"`) && !strings.Contains(e.data, `"id":"now"`) {
			t.Errorf("sent for nothing: %.60s", e.data)
		}
	}
	s.world.end(Finished)
	if got := r.until("end"); !strings.Contains(fmt.Sprint(got), "finished") {
		t.Errorf("at the end: %v", got)
	}
	if e := r.next(); e.name != "mark" {
		t.Errorf("after the end: %v", e)
	}
	if e := r.next(); e.name != "" {
		t.Errorf("after the end: %v", e)
	}
	// A run that has ended is sent whole, and ends.
	r = s.follow("/runs/trial-2/events", "")
	r.until("end")
}

// A reader that comes back with the ID of the last event that it got is sent all lines and points since, in order, and of the
// rest nothing but what it needs; one that is too far behind, or comes from another life of the coordinator, is sent everything.
func TestReconnection(t *testing.T) {
	s := newSite(t).enter()
	s.world.rounds(2)
	r := s.follow("/runs/ward-images/events", "")
	r.until("mark")
	r.cancel()
	for _, m := range []string{"one", "two", "three"} {
		s.world.say(record.Event{Message: "message " + m})
	}
	for _, how := range []string{"header", "query"} {
		again := &reader{}
		if how == "header" {
			again = s.follow("/runs/ward-images/events", r.last)
		} else {
			again = s.follow("/runs/ward-images/events?after="+r.last, "")
		}
		got := again.until("mark")
		if slices.Contains(names(got), "logall") || slices.Contains(names(got), "figures") {
			t.Errorf("%s: everything is sent again: %v", how, names(got))
		}
		log := got[slices.Index(names(got), "log")].html()[0]
		one, two, three := strings.Index(log, "message one"), strings.Index(log, "message two"), strings.Index(log, "message three")
		if !(0 <= three && three < two && two < one) || strings.Contains(log, "round 2 closed") {
			t.Errorf("%s: missed lines are not sent, newest first:\n%s", how, log)
		}
		again.cancel()
	}
	// A round while nobody looks: its points come with the figures.
	s.world.rounds(1)
	again := s.follow("/runs/ward-images/events", r.last)
	if got := again.until("mark"); !slices.Contains(names(got), "figures") || !strings.Contains(fmt.Sprint(got), "round 3 closed") {
		t.Errorf("after a missed round: %v", names(got))
	}
	again.cancel()
	for _, stale := range []string{"0123456789abcdef-1", "nonsense", "-", s.world.feed.epoch + "-999999", s.world.feed.epoch + "-", s.world.feed.epoch + "--1"} {
		again := s.follow("/runs/ward-images/events", stale)
		if got := again.until("mark"); !slices.Contains(names(got), "logall") || !slices.Contains(names(got), "figures") {
			t.Errorf("%q: not everything is sent: %v", stale, names(got))
		}
		again.cancel()
	}
	for i := range FeedSize + 10 {
		s.world.say(record.Event{Message: fmt.Sprintf("flood %d", i)})
	}
	again = s.follow("/runs/ward-images/events", r.last)
	got := again.until("mark")
	if !slices.Contains(names(got), "logall") || !strings.Contains(fmt.Sprint(got), fmt.Sprintf("flood %d<", FeedSize+9)) {
		t.Errorf("far behind: %v", names(got))
	}
}

// However often a reader is cut off, and at whatever events, the lines that it has got are all there are.
func TestNothingLost(t *testing.T) {
	s := newSite(t).enter()
	round := 0
	rapid.Check(t, func(t *rapid.T) {
		round++
		have, want, last := map[string]bool{}, 0, ""
		for i := range rapid.IntRange(1, 6).Draw(t, "lives") {
			for range rapid.IntRange(0, 4).Draw(t, "lines") {
				s.world.say(record.Event{Message: fmt.Sprintf("story %d line %d.", round, want)})
				want++
			}
			r := s.follow("/runs/ward-images/events", last)
			for range rapid.IntRange(0, 9).Draw(t, "events") {
				// After the end of what there is the stream is silent; so one line more.
				s.world.say(record.Event{Message: fmt.Sprintf("story %d line %d.", round, want)})
				want++
				gather(r.next(), have)
			}
			last = r.last
			r.cancel()
			_ = i
		}
		s.world.say(record.Event{Message: fmt.Sprintf("story %d the end", round)})
		r := s.follow("/runs/ward-images/events", last)
		for !have[fmt.Sprintf("story %d the end", round)] {
			gather(r.next(), have)
		}
		r.cancel()
		for i := range want {
			if m := fmt.Sprintf("story %d line %d.", round, i); !have[m] {
				t.Fatalf("%q is lost", m)
			}
		}
	})
}

// gather notes the messages of the lines in an event.
func gather(e event, have map[string]bool) {
	if e.name != "log" && e.name != "logall" {
		return
	}
	for _, html := range e.html() {
		for _, part := range strings.Split(html, "<bdi>")[1:] {
			message, _, _ := strings.Cut(part, "</bdi>")
			have[message] = true
		}
	}
}

// A reader that does not read holds up nobody: telling never waits, others are served, and it is let go of.
func TestSlowReader(t *testing.T) {
	s := newSite(t).enter()
	s.patient = 50 * time.Millisecond
	// The same handler without TLS, whose answer is never read.
	plain := &http.Server{Handler: s.Dashboard, ConnState: func(c net.Conn, state http.ConnState) {
		if state == http.StateNew { // what lies in buffers need not be much
			_ = c.(*net.TCPConn).SetWriteBuffer(4096)
		}
	}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = plain.Serve(l) }()
	defer plain.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	cookie := s.cookie()
	fmt.Fprintf(c, "GET /runs/ward-images/events HTTP/1.1\r\nHost: x\r\nCookie: %s\r\n\r\n", cookie)
	for len(s.streams) == 0 {
		time.Sleep(time.Millisecond)
	}
	good := s.follow("/runs/ward-images/events", "")
	good.until("mark")
	for i := range 400 {
		s.world.feed.Tell(record.Body{Events: []record.Event{{Message: fmt.Sprintf("line %d %s", i, strings.Repeat("x", 500))}}}, time.Now())
	}
	good.seek("line 399 ")
	for i := 0; len(s.streams) > 1; i++ { // let go of
		s.world.feed.Tell(record.Body{Events: []record.Event{{Message: fmt.Sprintf("more %d %s", i, strings.Repeat("y", 500))}}}, time.Now())
		time.Sleep(time.Millisecond)
	}
	s.world.say(record.Event{Message: "still there"})
	good.seek("still there")
	if n := len(s.world.feed.items); n > FeedSize {
		t.Errorf("the feed has grown to %d", n)
	}
}

func (s *site) cookie() string {
	s.t.Helper()
	req, err := http.NewRequest(http.MethodGet, s.server.URL, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	c := s.client.Jar.Cookies(req.URL)
	return c[0].Name + "=" + c[0].Value
}

// A stream ends with its session, and with the server.
func TestStreamEnds(t *testing.T) {
	s := newSite(t).enter()
	r := s.follow("/runs/ward-images/events", "")
	home := s.follow("/events", "")
	r.until("mark")
	home.until("mark")
	s.EndSessions()
	for r.next().name != "" {
	}
	for home.next().name != "" {
	}
	s.enter()
	r = s.follow("/runs/ward-images/events", "")
	r.until("mark")
	s.Close()
	for r.next().name != "" {
	}
}

// No more pages are open at a time than there is room for.
func TestCrowd(t *testing.T) {
	s := newSite(t).enter()
	s.Dashboard.streams = make(chan struct{}, 2)
	a := s.follow("/runs/ward-images/events", "")
	s.follow("/events", "").until("mark")
	if r, _ := s.get("/runs/ward-images/events"); r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" {
		t.Errorf("a third stream: %s", r.Status)
	}
	a.cancel()
	for len(s.Dashboard.streams) > 1 {
		time.Sleep(time.Millisecond)
	}
	s.follow("/runs/ward-images/events", "").until("mark")
}

// A quiet stream gives signs of life.
func TestBeat(t *testing.T) {
	s := newSite(t).enter()
	s.beat = time.Millisecond
	r := s.follow("/runs/ward-images/events", "")
	for beats := 0; beats < 3 && r.body.Scan(); {
		if strings.HasPrefix(r.body.Text(), ":") {
			beats++
		}
	}
}

func TestHomeStream(t *testing.T) {
	s := newSite(t).enter()
	r := s.follow("/events", "")
	r.seek("round 0 of 60")
	s.world.begin()
	r.seek("round 1 of 60")
}

// What the page says after any sequence of events is what it says when it is loaded anew.
func TestBookFollows(t *testing.T) {
	s := newSite(t).enter()
	old := &book{words: membersWords}
	if _, err := old.read(s.world, "ward-images", s.world.feed); err != nil {
		t.Fatal(err)
	}
	for range 12 {
		s.world.rounds(1)
		if _, err := old.read(s.world, "ward-images", s.world.feed); err != nil {
			t.Fatal(err)
		}
		// The same again, as after a crash, changes nothing.
		s.world.say(record.Event{Level: record.Warn, Client: "linz", Message: "the same"}, record.Event{Level: record.Warn, Client: "linz", Message: "the same"})
	}
	fresh := &book{words: membersWords}
	for _, b := range []*book{old, fresh} {
		if _, err := b.read(s.world, "ward-images", s.world.feed); err != nil {
			t.Fatal(err)
		}
	}
	a, b := old.digest(), fresh.digest()
	page := func(d digest) string {
		list, err := parts(d.figures, "figures")
		if err != nil {
			t.Fatal(err)
		}
		lines := []string{}
		for _, l := range d.lines {
			lines = append(lines, l.Key+l.Message)
		}
		slices.Sort(lines)
		return fmt.Sprint(list, lines, d.total, d.failures, d.failed)
	}
	if page(a) != page(b) {
		t.Errorf("grown:\n%s\nread:\n%s", page(a), page(b))
	}
	if a.failures[0].Client != "linz" || a.failures[0].Count != 13 { // once in each round, and a lost connection
		t.Errorf("%+v", a.failures)
	}
}

func TestClean(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, n := rapid.String().Draw(t, "s"), rapid.IntRange(1, 50).Draw(t, "n")
		c := clean(s, n)
		if strings.ContainsFunc(c, odd) || len([]rune(c)) > n+1 || clean(c, n+1) != c {
			t.Fatalf("%q to %d becomes %q", s, n, c)
		}
	})
}
