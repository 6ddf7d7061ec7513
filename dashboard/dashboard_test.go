package dashboard

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/record"
)

// A site is a dashboard behind TLS, and a browser without a script.
type site struct {
	*Dashboard
	t      testing.TB
	world  *world
	server *httptest.Server
	client *http.Client
	clock  *clock
}

type clock struct{ ahead time.Duration }

func (c *clock) now() time.Time { return time.Now().Add(c.ahead) }

func newSite(t testing.TB) *site {
	t.Helper()
	w, c := newWorld(t), &clock{}
	d := New(Options{Source: w, MetricsToken: "scraper's secret", Now: c.now})
	d.pace = 5 * time.Millisecond
	server := httptest.NewTLSServer(d)
	t.Cleanup(server.Close)
	t.Cleanup(d.Close)
	s := &site{d, t, w, server, nil, c}
	s.client = s.newClient()
	return s
}

func (s *site) newClient() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return &http.Client{Jar: jar, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}}}
}

func (s *site) enter() *site {
	s.t.Helper()
	if r, _ := s.get(s.Link()); r.StatusCode != http.StatusOK {
		s.t.Fatalf("login: %s", r.Status)
	}
	return s
}

func (s *site) do(method, path string, header ...string) (*http.Response, string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.server.URL+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	r, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return r, string(b)
}

func (s *site) get(path string, header ...string) (*http.Response, string) {
	s.t.Helper()
	return s.do(http.MethodGet, path, header...)
}

// paths are all that a site has.
var paths = []string{"/", "/events", "/runs/ward-images", "/runs/ward-images/events", "/runs/ward-images/report", "/runs/ward-images/model",
	"/runs/ward-images/metrics.csv", "/runs/ward-images/log.txt", "/assets/page.js", "/assets/style.css", "/metrics", "/nowhere", "/runs/none"}

// Whoever has no session is told how to come by one, wherever he knocks, and learns nothing else.
func TestNothingWithoutSession(t *testing.T) {
	s := newSite(t)
	s.world.rounds(1)
	for _, p := range paths {
		for name, value := range map[string]string{"X-None": "", "Cookie": cookieName + "=guessed", "Authorization": "Bearer guessed"} {
			r, body := s.get(p, name, value)
			if r.StatusCode != http.StatusUnauthorized || !strings.Contains(body, "cohort status --link") || strings.Contains(body, "ward") {
				t.Errorf("%s with %s: %s\n%s", p, name, r.Status, body)
			}
			if !strings.Contains(r.Header.Get("WWW-Authenticate"), "Bearer") {
				t.Errorf("%s: 401 without a challenge", p)
			}
		}
	}
}

func TestLogin(t *testing.T) {
	s := newSite(t)
	link := s.Link()
	if other := s.Link(); other == link {
		t.Fatal("the same link twice")
	}

	// Programs that look at links do not spend them.
	for _, try := range [][]string{{http.MethodHead}, {http.MethodGet, "Sec-Purpose", "prefetch;prerender"}, {http.MethodGet, "Purpose", "prefetch"}} {
		if r, _ := s.do(try[0], link, try[1:]...); r.StatusCode != http.StatusUnauthorized || r.Header.Get("Set-Cookie") != "" {
			t.Errorf("%v: %s, cookie %q", try, r.Status, r.Header.Get("Set-Cookie"))
		}
	}

	r, body := s.get(link)
	if r.StatusCode != http.StatusOK || !strings.Contains(body, `http-equiv="refresh" content="0;url=/"`) {
		t.Fatalf("%s\n%s", r.Status, body)
	}
	c := r.Cookies()[0]
	if !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" || !strings.HasPrefix(c.Name, "__Host-") {
		t.Errorf("cookie %v", c)
	}
	if strings.Contains(link, c.Value) || len(c.Value) < 43 {
		t.Errorf("the session is the link, or short: %q", c.Value)
	}
	if r, body := s.get("/"); r.StatusCode != http.StatusOK || !strings.Contains(body, "Ward images") {
		t.Errorf("signed in: %s\n%s", r.Status, body)
	}

	// Once more, by somebody else: spent. By the same: no harm.
	if r, _ := s.get(link); r.StatusCode != http.StatusOK {
		t.Errorf("the link again, signed in: %s", r.Status)
	}
	s.client = s.newClient()
	if r, body := s.get(link); r.StatusCode != http.StatusUnauthorized || r.Header.Get("Set-Cookie") != "" || !strings.Contains(body, "spent") {
		t.Errorf("the link again: %s\n%s", r.Status, body)
	}
	for _, bad := range []string{"/login", "/login?token=", "/login?token=x"} {
		if r, _ := s.get(bad); r.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: %s", bad, r.Status)
		}
	}

	// Ten minutes.
	late, intime := s.Link(), s.Link()
	s.clock.ahead = 9*time.Minute + 50*time.Second
	if r, _ := s.get(intime); r.StatusCode != http.StatusOK {
		t.Errorf("after nine minutes: %s", r.Status)
	}
	s.client = s.newClient()
	s.clock.ahead = 10*time.Minute + time.Second
	if r, _ := s.get(late); r.StatusCode != http.StatusUnauthorized {
		t.Errorf("after ten minutes: %s", r.Status)
	}
}

func TestSessions(t *testing.T) {
	s := newSite(t).enter()
	first := s.client
	s.client = s.newClient()
	s.enter()
	list := s.Sessions()
	if len(list) != 2 || list[0].ID == list[1].ID || list[0].Remote != "127.0.0.1" || !strings.HasPrefix(list[0].Agent, "Go-http") {
		t.Fatalf("%+v", list)
	}
	if !s.EndSession(list[1].ID) || s.EndSession(list[1].ID) || s.EndSession("") {
		t.Error("a session does not end once")
	}
	if r, _ := s.get("/"); r.StatusCode != http.StatusOK {
		t.Errorf("the other session: %s", r.Status)
	}
	second := s.client
	s.client = first
	if r, _ := s.get("/"); r.StatusCode != http.StatusUnauthorized {
		t.Errorf("an ended session: %s", r.Status)
	}
	s.client = second
	s.clock.ahead = 12*time.Hour + time.Second
	if r, _ := s.get("/"); r.StatusCode != http.StatusUnauthorized || len(s.Sessions()) != 0 {
		t.Errorf("after twelve hours: %s", r.Status)
	}
	// No number of links or sessions grows without bound, and the newest ones work.
	for range 3 * maxSessions {
		s.client = s.newClient()
		s.Link()
		s.enter()
	}
	if n := len(s.Sessions()); n != maxSessions {
		t.Errorf("%d sessions", n)
	}
	if r, _ := s.get("/"); r.StatusCode != http.StatusOK {
		t.Errorf("the newest session: %s", r.Status)
	}
	if n := s.EndSessions(); n != maxSessions || len(s.Sessions()) != 0 {
		t.Errorf("%d ended", n)
	}
}

func TestLogout(t *testing.T) {
	s := newSite(t).enter()
	for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://elsewhere.example"}} {
		if r, _ := s.do(http.MethodPost, "/logout", header...); r.StatusCode != http.StatusForbidden {
			t.Errorf("%v: %s", header, r.Status)
		}
	}
	if r, _ := s.get("/logout"); r.StatusCode != http.StatusMethodNotAllowed || r.Header.Get("Allow") != "POST" {
		t.Errorf("GET: %s", r.Status)
	}
	if r, _ := s.get("/"); r.StatusCode != http.StatusOK {
		t.Fatalf("still in: %s", r.Status)
	}
	if r, body := s.do(http.MethodPost, "/logout", "Sec-Fetch-Site", "same-origin"); r.StatusCode != http.StatusOK || !strings.Contains(body, "Signed out") {
		t.Errorf("%s\n%s", r.Status, body)
	}
	if r, _ := s.get("/"); r.StatusCode != http.StatusUnauthorized || len(s.Sessions()) != 0 {
		t.Errorf("after: %s", r.Status)
	}
}

func TestOnlyReads(t *testing.T) {
	s := newSite(t).enter()
	for _, p := range append(paths, "/login") {
		for _, m := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions, "PROPFIND"} {
			if r, _ := s.do(m, p); r.StatusCode != http.StatusMethodNotAllowed || r.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %s, Allow %q", m, p, r.Status, r.Header.Get("Allow"))
			}
		}
		if r, body := s.do(http.MethodHead, p); body != "" || r.StatusCode >= 500 {
			t.Errorf("HEAD %s: %s %q", p, r.Status, body)
		}
	}
}

func TestHeaders(t *testing.T) {
	s := newSite(t).enter()
	s.world.end(Finished)
	for _, p := range append(paths, "/login") {
		r, _ := s.do(http.MethodHead, p)
		csp := r.Header.Get("Content-Security-Policy")
		if !strings.HasPrefix(csp, "default-src 'none'; ") || !strings.Contains(csp, "frame-ancestors 'none'") || !strings.Contains(csp, "base-uri 'none'") {
			t.Errorf("%s: policy %q", p, csp)
		}
		if strings.Contains(csp, "unsafe") && (p != "/runs/ward-images/report" || !strings.Contains(csp, "sandbox;")) {
			t.Errorf("%s: policy %q", p, csp)
		}
		if r.Header.Get("X-Content-Type-Options") != "nosniff" || r.Header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: headers %v", p, r.Header)
		}
		if cache := r.Header.Get("Cache-Control"); cache != "no-store" && !strings.HasPrefix(p, "/assets/") {
			t.Errorf("%s: Cache-Control %q", p, cache)
		}
	}
}

// The page is complete without a script, refers to nothing elsewhere, and has nothing inline that the policy would forbid.
func TestPage(t *testing.T) {
	s := newSite(t).enter()
	s.world.rounds(21)
	s.world.set("jena", func(m *Member) { m.Presence, m.Note = Slow, "asked 48 s ago" })
	s.world.set("ulm", func(m *Member) { m.Presence = Revoked })
	s.world.begin()
	s.world.answer(5)
	r, body := s.get("/runs/ward-images")
	if r.StatusCode != http.StatusOK {
		t.Fatal(r.Status)
	}
	for _, want := range []string{"Ward images, first federation", "heterofl", "Round 22", "of 60", "training</b>: 5 of 14 answered", "deadline",
		"charité-berlin", "northern-district-hospital", "asked 48 s ago", "slow", "revoked", "avx512", "missed the deadline of 90 s", "the connection was lost",
		"round 21 closed", "aachen joined", "<svg", "Accuracy on the test set", "Loss on the test set", "Bytes in each round", "local epochs", "data-stream=\"/runs/ward-images/events\""} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, bad := range []string{" style=", "<style", "onclick", "javascript:", "http://", "https://", "ZgotmplZ", "NaN", "<no value>"} {
		if strings.Contains(body, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if n := strings.Count(body, "<script"); n != strings.Count(body, `<script src="/assets/`) {
		t.Errorf("inline scripts")
	}
	if _, body := s.get("/runs/ward-images?show=revoked"); !strings.Contains(body, `<bdi>ulm</bdi></th>`) || strings.Contains(body, `<bdi>basel</bdi></th>`) {
		t.Error("members are not narrowed down")
	}
	if r, _ := s.get("/runs/ward-images?show=<x>&page=-7&page=99999999999999999999"); r.StatusCode != http.StatusOK {
		t.Error(r.Status)
	}
	// A run without records has a page, too.
	if r, body := s.get("/runs/trial-1"); r.StatusCode != http.StatusOK || !strings.Contains(body, "images are 32 × 32") {
		t.Errorf("%s\n%s", r.Status, body)
	}
	if r, _ := s.get("/runs/none"); r.StatusCode != http.StatusNotFound {
		t.Errorf("no such run: %s", r.Status)
	}
	_, body = s.get("/")
	for _, want := range []string{"Hospitals of the north", "trial-1", "trial-2", "finished", "failed", "running", `href="/runs/ward-images"`} {
		if !strings.Contains(body, want) {
			t.Errorf("the list lacks %q", want)
		}
	}
}

// What strangers write is shown as text, wherever it is shown.
func TestStrangers(t *testing.T) {
	s := newSite(t)
	const script = `<script>alert(1)</script>`
	names := []string{script, `"><img src=x onerror=alert(2)>`, `' onmouseover='alert(3)`, "</title><svg onload=alert(4)>", "{{.}}", "javascript:alert(5)",
		"turn\u202eround", "bell\a\x1b[31mred", "two\nlines", strings.Repeat("long ", 2000), "bro\xffken", "-->", "=cmd|' /C calc'!A0"}
	for i, n := range names {
		s.world.members = append(s.world.members, Member{Name: n, Presence: Slow, Note: n, Level: n, Kernels: n})
		s.world.say(record.Event{Level: record.Warn, Client: n, Message: n})
		s.world.tell(record.Body{Round: i, Metrics: []record.Metric{{Name: "accuracy", Key: n, Value: 0.5}, {Name: n, Value: 1}}})
	}
	s.world.state.Title, s.world.state.Error, s.world.state.Method, s.world.state.Reason = script, script, script, script
	s.enter()
	check := func(what, body string) {
		t.Helper()
		if !strings.Contains(body, "alert(1)") {
			t.Errorf("%s does not have the name at all", what)
		}
		for _, bad := range []string{"<script>alert", "<img", "<svg onload", "onmouseover='", "\u202e", "\a", "\x1b", "\xff", "bro\xff"} {
			if strings.Contains(body, bad) {
				t.Errorf("%s has %q", what, bad)
			}
		}
		if strings.Contains(body, strings.Repeat("long ", 200)) {
			t.Errorf("%s has a name of 10,000 characters", what)
		}
	}
	_, body := s.get("/runs/ward-images")
	check("the page", body)
	_, body = s.get("/")
	check("the list", body)
	st := s.follow("/runs/ward-images/events", "")
	var all strings.Builder
	for _, e := range st.until("mark") {
		for _, html := range e.html() {
			all.WriteString(html)
		}
	}
	check("the stream", all.String())
	_, body = s.get("/runs/ward-images/log.txt")
	for _, bad := range []string{"\u202e", "\a", "\x1b", "\xff"} {
		if strings.Contains(body, bad) {
			t.Errorf("the log has %q", bad)
		}
	}
	if n := strings.Count(body, "\n"); n != len(names)+20 {
		t.Errorf("the log has %d lines", n)
	}
	_, body = s.get("/runs/ward-images/metrics.csv")
	if strings.Contains(body, ",=cmd") {
		t.Error("the numbers have a formula")
	}
	if _, body := s.get("/metrics"); strings.Contains(body, "\x1b") {
		t.Error("metrics have control characters")
	}
}

func TestDownloads(t *testing.T) {
	s := newSite(t).enter()
	for _, p := range []string{"/runs/ward-images/model", "/runs/ward-images/report", "/runs/none/model", "/runs/none/log.txt", "/runs/none/metrics.csv", "/runs/none/events"} {
		if r, _ := s.get(p); r.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", p, r.Status)
		}
	}
	s.world.rounds(2)
	s.world.end(Finished)
	r, body := s.get("/runs/ward-images/model", "Range", "bytes=5-9")
	if r.StatusCode != http.StatusPartialContent || body != "model" || r.Header.Get("Content-Disposition") != `attachment; filename=ward-images.safetensors` {
		t.Errorf("%s %q %q", r.Status, body, r.Header.Get("Content-Disposition"))
	}
	if r, body := s.get("/runs/ward-images/report"); !strings.HasPrefix(body, "report") || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/html") {
		t.Errorf("%s %.20q", r.Status, body)
	}
	_, body = s.get("/runs/ward-images/metrics.csv")
	for _, want := range []string{"round,step,metric,key,value\n", "1,0,accuracy,,", "1,0,accuracy,e,", "2,0,bytes.up,a,"} {
		if !strings.Contains(body, want) {
			t.Errorf("numbers lack %q:\n%s", want, body)
		}
	}
	if got := attachment("a/b\\c\"d\n.txt"); got != "attachment; filename=a-b-c-d-.txt" {
		t.Error(got)
	}
}

func TestManyMembers(t *testing.T) {
	s := newSite(t).enter()
	for i := range 250 {
		s.world.members = append(s.world.members, Member{Name: "client-" + string(rune('a'+i%3)) + strings.Repeat("0", i%2) + url.QueryEscape("x"), Presence: Gone})
	}
	_, body := s.get("/runs/ward-images?show=gone&page=3")
	if !strings.Contains(body, "201 to 250 of 250") || !strings.Contains(body, "/runs/ward-images?page=2&amp;show=gone#members") || strings.Contains(body, ">Next<") {
		t.Error("the third page of 250 members is wrong")
	}
	if _, body := s.get("/runs/ward-images?show=gone&page=77"); !strings.Contains(body, "201 to 250 of 250") {
		t.Error("a page behind the last is not the last")
	}
	names := []string{"client-10", "client-9", "client-1", "ana", "client", "client-099"}
	slices.SortFunc(names, natural)
	if got := strings.Join(names, " "); got != "ana client client-1 client-9 client-10 client-099" {
		t.Error(got)
	}
}

func TestScrape(t *testing.T) {
	s := newSite(t)
	s.world.rounds(3)
	s.world.begin()
	s.world.answer(4)
	s.world.set("ulm", func(m *Member) { m.Presence = Gone })
	r, body := s.get("/metrics", "Authorization", "Bearer scraper's secret")
	if r.StatusCode != http.StatusOK {
		t.Fatal(r.Status)
	}
	for _, want := range []string{
		`cohort_build_info{federation="Hospitals of the north",go="go1.`, `cohort_runs{state="running"} 1`, `cohort_runs{state="paused"} 0`,
		`cohort_run_round{run="ward-images"} 4`, `cohort_run_rounds_closed_total{run="ward-images"} 3`, `cohort_run_rounds_planned{run="ward-images"} 60`,
		`cohort_run_phase_asked{phase="train",run="ward-images"} 14`, `cohort_run_phase_answered{phase="train",run="ward-images"} 4`,
		`cohort_run_members{run="ward-images",state="gone"} 1`, `cohort_run_members{run="ward-images",state="slow"} 0`, `cohort_run_members{run="ward-images",state="invited"} 1`,
		`cohort_run_bytes_total{direction="up",run="trial-2"} 8.1e+07`, `cohort_results_total{code="",verdict="accepted"} 42`, `cohort_results_total{code="shape",verdict="refused"} 2`,
		`cohort_results_total{code="",verdict="duplicate"} 0`, `cohort_results_unfolded 0`, `cohort_permits_waiting 0`, `cohort_journal_appends_total 46`, `cohort_journal_sync_seconds_total 0.008`,
		`cohort_connections_refused_total{reason="rate"} 41`, `cohort_connections 22`, `go_goroutines`, `process_resident_memory_bytes`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if len(s.Sessions()) != 0 {
		t.Error("scraping made a session")
	}
	// The token opens nothing else.
	if r, _ := s.get("/", "Authorization", "Bearer scraper's secret"); r.StatusCode != http.StatusUnauthorized {
		t.Errorf("the token opens the page: %s", r.Status)
	}
	if r, _ := s.enter().get("/metrics"); r.StatusCode != http.StatusOK {
		t.Errorf("with a session: %s", r.Status)
	}
	// Without a token only sessions scrape.
	d := New(Options{Source: s.world})
	for _, header := range []string{"", "Bearer ", "Bearer x"} {
		req := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		req.Header.Set("Authorization", header)
		w := httptest.NewRecorder()
		d.ServeHTTP(w, req)
		if w.Code != http.StatusUnauthorized {
			t.Errorf("no token is set, %q: %d", header, w.Code)
		}
	}
}
