package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/node/coordinator"
	"github.com/cohort-learning/cohort/node/member"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/weights"
)

// patience bounds tests that hang; nothing is measured by it.
const patience = 3 * time.Minute

// federation is a coordinator on loopback and its members, all in this process, over real connections.
type federation struct {
	t      *testing.T
	host   *Host
	recipe *recipe.Recipe
	shares string
	closed chan error
	stop   context.CancelFunc
	people sync.WaitGroup
	hold   chan struct{} // if not nil, members wait for it before they compute
}

func newFederation(t *testing.T, text string, bus ...*NATS) *federation {
	t.Helper()
	f := &federation{t: t, shares: filepath.Join(t.TempDir(), "shares")}
	var err error
	if f.recipe, err = recipe.Parse("test.yaml", []byte(text)); err != nil {
		t.Fatal(err)
	}
	split, dealt, err := f.recipe.Deal(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dealt.Export(t.Context(), f.shares, split.Train, split.Test); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	o := Options{Dir: dir, Name: "Clinics of the north", Listen: "127.0.0.1:0", URL: "https://127.0.0.1:1", Program: "test"}
	if len(bus) > 0 {
		o.NATS = bus[0]
	}
	if f.host, err = Open(o); err != nil {
		t.Fatal(err)
	}
	f.host.URL = "https://" + f.host.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	f.stop, f.closed = cancel, make(chan error, 1)
	go func() { f.closed <- f.host.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-f.closed; err != nil {
			t.Error(err)
		}
		f.people.Wait()
	})
	return f
}

// start begins the run.
func (f *federation) start() *coordinator.Run {
	f.t.Helper()
	run, err := f.host.Start(f.t.Context(), f.recipe, RunOptions{ID: "glyphs"})
	if err != nil {
		f.t.Fatal(err)
	}
	return run
}

// join has a member take part with the share of an index.
func (f *federation) join(name string, share int) {
	f.t.Helper()
	f.run(f.enrol(name), share)
}

// enrol makes the folder of a new member.
func (f *federation) enrol(name string) *member.Folder {
	f.t.Helper()
	tokens, err := f.host.Tokens(time.Hour, name)
	if err != nil {
		f.t.Fatal(err)
	}
	folder, err := member.Enrol(f.t.Context(), filepath.Join(f.t.TempDir(), name), tokens[0], member.EnrolOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	return folder
}

// run has the member that lives in a folder take part, until it is quit.
func (f *federation) run(folder *member.Folder, share int) (quit func()) {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f.t.Cleanup(cancel)
	study := &member.Study{Data: filepath.Join(f.shares, fmt.Sprintf("member-%03d", share)), Dir: folder.Dir, Threads: 1}
	o := member.Options{Folder: folder, Policy: member.DefaultPolicy(), Program: "test", Kernels: "cpu/go", Can: []string{"train"}, Prepare: study.Prepare}
	if f.hold != nil {
		o.Prepare = func(ctx context.Context, p member.Proposal) (*member.Part, error) {
			part, err := study.Prepare(ctx, p)
			if err == nil {
				part.Client = slowly{part.Client, f.hold}
			}
			return part, err
		}
	}
	if err := folder.Network(&o); err != nil {
		f.t.Fatal(err)
	}
	m, err := member.New(o)
	if err != nil {
		f.t.Fatal(err)
	}
	done := make(chan struct{})
	f.people.Go(func() {
		defer close(done)
		defer study.Close()
		if err := m.Run(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, transport.ErrDenied) {
			f.t.Errorf("%s: %v", folder.Card.Name, err)
		}
	})
	return func() { cancel(); <-done }
}

func (f *federation) wait(run *coordinator.Run) {
	f.t.Helper()
	select {
	case <-run.Done():
	case <-time.After(patience):
		f.t.Fatalf("the run does not end: %+v", run.Now())
	}
	if err := run.Err(); err != nil {
		f.t.Fatal(err)
	}
}

// visitor is somebody with a browser that trusts the federation's authority.
func (f *federation) visitor() *http.Client {
	pool := x509.NewCertPool()
	pem, err := os.ReadFile(filepath.Join(f.host.Dir, caCertName))
	if err != nil || !pool.AppendCertsFromPEM(pem) {
		f.t.Fatal("no authority", err)
	}
	jar, _ := cookiejar.New(nil) // cannot fail
	c := &http.Client{Jar: jar, Timeout: patience, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	f.t.Cleanup(c.CloseIdleConnections)
	return c
}

func (f *federation) get(c *http.Client, path string, header ...string) (int, string) {
	f.t.Helper()
	if !strings.HasPrefix(path, "https:") {
		path = f.host.URL + path
	}
	req, err := http.NewRequestWithContext(f.t.Context(), http.MethodGet, path, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	if len(header) == 2 {
		req.Header.Set(header[0], header[1])
	}
	res, err := c.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

const twoSites = `method: fedavg
rounds: 3
data: {name: glyphs, size: 8, train: 120, test: 60}
partition: {name: iid, clients: 2}
model: {name: cnn, widths: [4, 8]}
round: {fraction: 1}
`

// TestPage: what a coordinator shows is what happened, to those who may see it.
func TestPage(t *testing.T) {
	f := newFederation(t, twoSites)
	if _, err := f.host.Tokens(time.Hour, "east"); err != nil {
		t.Fatal(err)
	}
	run := f.start()
	v := f.visitor()
	if status, _ := f.get(v, "/"); status != http.StatusUnauthorized {
		t.Errorf("a stranger gets status %d", status)
	}
	admin := NewAdmin(f.host.Dir)
	link, err := admin.Link(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if status, text := f.get(v, link); status != http.StatusOK || !strings.Contains(text, "Signed in") {
		t.Fatalf("the link gives status %d: %s", status, text)
	}
	if status, _ := f.get(f.visitor(), link); status != http.StatusUnauthorized {
		t.Errorf("the link works twice: status %d", status)
	}
	f.shows(v, "/runs/glyphs", "waiting: 0 of 2 members have agreed", `id="member-east"`, "invited")

	f.join("north", 0)
	f.join("south", 1)
	f.wait(run)
	// The page reads the journal on its own, a moment later.
	f.shows(v, "/runs/glyphs", "<b>Round 3</b> of 3", "finished", "round 3 closed: 2 of 2 results counted", "agreed to the terms, with 60 examples",
		"the run has ended after 3 rounds", `id="member-north"`, "Settings", "model.widths")
	row := regexp.MustCompile(`(?s)id="member-south">.*?</tr>`).FindString(f.page(v, "/runs/glyphs"))
	for _, want := range []string{`data-label="rounds folded">3<`, `data-label="samples">60<`} {
		if !strings.Contains(row, want) {
			t.Errorf("the row of south lacks %s: %s", want, row)
		}
	}
	f.shows(v, "/", `href="/runs/glyphs"`, "round 3 of 3", "Clinics of the north")
	if status, text := f.get(v, "/runs/glyphs/metrics.csv"); status != http.StatusOK || !strings.Contains(text, "accuracy") {
		t.Errorf("numbers: status %d: %.200s", status, text)
	}
	if status, text := f.get(v, "/runs/glyphs/report"); status != http.StatusOK || !strings.Contains(text, "<svg") {
		t.Errorf("report: status %d: %.200s", status, text)
	}
	if status, text := f.get(v, "/runs/glyphs/model"); status != http.StatusOK || !strings.Contains(text, `"format":"pt"`) {
		t.Errorf("model: status %d: %.200q", status, text)
	}
	if status, _ := f.get(v, "/runs/none"); status != http.StatusNotFound {
		t.Errorf("a run that is not there: status %d", status)
	}
}

func (f *federation) page(c *http.Client, path string) string {
	status, text := f.get(c, path)
	if status != http.StatusOK {
		f.t.Fatalf("%s: status %d: %s", path, status, text)
	}
	return text
}

// shows waits until a page holds all texts.
func (f *federation) shows(c *http.Client, path string, texts ...string) {
	f.t.Helper()
	missing := ""
	for end := time.Now().Add(patience / 3); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		page := f.page(c, path)
		missing = ""
		for _, want := range texts {
			if !strings.Contains(page, want) {
				missing = want
			}
		}
		if missing == "" {
			return
		}
	}
	f.t.Errorf("%s never shows %q:\n%s", path, missing, f.page(c, path))
}

// TestMetrics: a program with the token reads the counters; they tell of results, journals, connections and members.
func TestMetrics(t *testing.T) {
	f := newFederation(t, twoSites)
	run := f.start()
	f.join("north", 0)
	f.join("south", 1)
	f.wait(run)
	v := f.visitor()
	if status, _ := f.get(v, "/metrics", "Authorization", "Bearer wrong"); status != http.StatusUnauthorized {
		t.Errorf("a wrong token: status %d", status)
	}
	token, err := MetricsToken(f.host.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(f.host.Dir, tokenName)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the token's file: %v, %v", info.Mode(), err)
	}
	status, text := f.get(v, "/metrics", "Authorization", "Bearer "+token)
	if status != http.StatusOK {
		t.Fatalf("status %d: %s", status, text)
	}
	value := func(series string) string {
		m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindStringSubmatch(text)
		if m == nil {
			t.Errorf("there is no %s", series)
			return ""
		}
		return m[1]
	}
	for series, want := range map[string]string{
		`cohort_results_total{code="",verdict="accepted"}`:         "18", // two members: training, statistics, measuring; three rounds
		`cohort_results_total{code="",verdict="late"}`:             "0",
		`cohort_runs{state="finished"}`:                            "1",
		`cohort_connections_refused_total{reason="not_member"}`:    "0",
		`cohort_build_info{federation="Clinics of the north",go="`: "",
	} {
		if want == "" {
			if !strings.Contains(text, series) {
				t.Errorf("there is no %s", series)
			}
		} else if got := value(series); got != want {
			t.Errorf("%s is %s, want %s", series, got, want)
		}
	}
	for _, series := range []string{"cohort_journal_appends_total", "cohort_journal_syncs_total", "cohort_journal_sync_seconds_total", "cohort_connections",
		"go_goroutines"} {
		if got := value(series); got == "0" {
			t.Errorf("%s is 0", series)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// TestPageAfterRestart: runs of earlier processes lie in the folder and are shown.
func TestPageAfterRestart(t *testing.T) {
	f := newFederation(t, twoSites)
	run := f.start()
	f.join("north", 0)
	f.join("south", 1)
	f.wait(run)
	f.host.Farewell(t.Context(), patience)
	dir := f.host.Dir
	f.stop()
	if err := <-f.closed; err != nil {
		t.Fatal(err)
	}
	f.closed <- nil
	host, err := Open(Options{Dir: dir, Listen: "127.0.0.1:0", Program: "test"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	closed := make(chan error, 1)
	go func() { closed <- host.Serve(ctx) }()
	defer func() {
		cancel()
		if err := <-closed; err != nil {
			t.Error(err)
		}
	}()
	host.URL = "https://" + host.Addr().String()
	f.host = host
	v := f.visitor()
	if status, _ := f.get(v, host.Link()); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	f.shows(v, "/", "round 3 of 3", "finished")
	f.shows(v, "/runs/glyphs", "round 3 closed: 2 of 2 results counted", `id="member-north"`, `data-label="rounds folded">3<`)
	if status, _ := f.get(v, "/runs/glyphs/model"); status != http.StatusOK {
		t.Errorf("model: status %d", status)
	}
}

// TestAgo: times are told in steps, so that the page does not change all the time.
func TestAgo(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0 s ago", 44 * time.Second: "40 s ago", 3 * time.Minute: "3 min ago", 5 * time.Hour: "5 h ago"} {
		if got := ago(time.Now().Add(-d)); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

// slowly computes when it is let.
type slowly struct {
	federated.Client
	hold chan struct{}
}

// Run implements [federated.Client].
func (s slowly) Run(ctx context.Context, at federated.Local, t federated.Task, m *weights.Set) (federated.Result, error) {
	select {
	case <-s.hold:
	case <-ctx.Done():
		return federated.Result{}, ctx.Err()
	}
	return s.Client.Run(ctx, at, t, m)
}
