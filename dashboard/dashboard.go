package dashboard

import (
	"crypto/sha256"
	"crypto/subtle"
	"embed"
	"encoding/base64"
	"encoding/hex"
	"html/template"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Options say how to make a Dashboard. Only Source must be set.
type Options struct {
	Source Source
	// MetricsToken lets a program read /metrics: it sends "Authorization: Bearer TOKEN". Empty means that only a session does.
	MetricsToken string
	// SessionLife is how long a session lasts; 0 means 12 hours.
	SessionLife time.Duration
	// Log takes what goes wrong; nil means nowhere.
	Log *slog.Logger
	// Now is the clock of links and sessions; nil means [time.Now].
	Now func() time.Time
}

// A Dashboard is the site. Make it with New and Close it before the server shuts down.
type Dashboard struct {
	source      Source
	log         *slog.Logger
	door        *door
	token       [32]byte
	hasToken    bool
	crossOrigin *http.CrossOriginProtection
	mux         *http.ServeMux
	metrics     http.Handler

	pace    time.Duration // least time between two events' batches
	beat    time.Duration // between signs of life of a quiet stream
	patient time.Duration // how long a reader may take to take what is written
	streams chan struct{} // one for every open stream
	closing chan struct{}
	once    sync.Once

	mu    sync.Mutex
	books map[string]*shelved
	views map[string]*shared
}

// maxStreams is how many pages may be open at a time.
const maxStreams = 128

// New makes the site of o.Source. It panics if there is none.
func New(o Options) *Dashboard {
	if o.Source == nil {
		panic("dashboard: Options.Source is nil")
	}
	if o.SessionLife == 0 {
		o.SessionLife = 12 * time.Hour
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	d := &Dashboard{
		source:      o.Source,
		log:         o.Log,
		door:        &door{now: o.Now, life: o.SessionLife, links: map[[32]byte]time.Time{}, sessions: map[[32]byte]*entry{}},
		token:       sha256.Sum256([]byte(o.MetricsToken)),
		hasToken:    o.MetricsToken != "",
		crossOrigin: http.NewCrossOriginProtection(),
		mux:         http.NewServeMux(),
		pace:        250 * time.Millisecond,
		beat:        15 * time.Second,
		patient:     20 * time.Second,
		streams:     make(chan struct{}, maxStreams),
		closing:     make(chan struct{}),
		books:       map[string]*shelved{},
		views:       map[string]*shared{},
	}
	d.metrics = promhttp.HandlerFor(newRegistry(o.Source), promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
	d.mux.HandleFunc("GET /{$}", d.home)
	d.mux.HandleFunc("GET /events", d.homeEvents)
	d.mux.HandleFunc("GET /runs/{id}", d.run)
	d.mux.HandleFunc("GET /runs/{id}/events", d.runEvents)
	d.mux.HandleFunc("GET /runs/{id}/report", d.download(Report))
	d.mux.HandleFunc("GET /runs/{id}/model", d.download(Model))
	d.mux.HandleFunc("GET /runs/{id}/metrics.csv", d.metricsCSV)
	d.mux.HandleFunc("GET /runs/{id}/log.txt", d.logText)
	d.mux.HandleFunc("GET /assets/{name}", d.asset)
	d.mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) { d.notice(w, r, http.StatusNotFound, notFound) })
	return d
}

// Close ends all open streams, so that a server that shuts down need not wait for them.
func (d *Dashboard) Close() { d.once.Do(func() { close(d.closing) }) }

// ServeHTTP implements [http.Handler].
func (d *Dashboard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer") // the link's token must not travel
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	path := r.URL.Path
	switch {
	case path == "/logout" && r.Method == http.MethodPost:
		d.logout(w, r)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead || path == "/logout":
		h.Set("Allow", "GET, HEAD")
		if path == "/logout" {
			h.Set("Allow", "POST")
		}
		d.notice(w, r, http.StatusMethodNotAllowed, readOnly)
		return
	case path == "/login":
		d.login(w, r)
		return
	case path == "/metrics" && d.bearer(r):
		d.metrics.ServeHTTP(w, r)
		return
	}
	e := d.door.who(r)
	if e == nil {
		h.Set("WWW-Authenticate", `Bearer realm="cohort"`)
		d.notice(w, r, http.StatusUnauthorized, signIn)
		return
	}
	if path == "/metrics" {
		d.metrics.ServeHTTP(w, r)
		return
	}
	d.mux.ServeHTTP(w, r.WithContext(withEntry(r.Context(), e)))
}

func (d *Dashboard) bearer(r *http.Request) bool {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	got := sha256.Sum256([]byte(token))
	return ok && d.hasToken && subtle.ConstantTimeCompare(got[:], d.token[:]) == 1
}

// policy is the content security policy of pages: nothing but what this handler serves. The library for charts sets styles
// through the object model, which the policy does not concern.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// A notice is a page that says one thing, to whoever has no session as well.
type notice struct {
	Title, Text, Command string
	Onward               bool // goes on to the list of runs
}

var (
	signIn = notice{"Sign in", "This page opens with a link that works once. On the machine of the coordinator, run the command " +
		"below and open the link that it prints within ten minutes.", "cohort status --link", false}
	spent = notice{"This link is spent", "A link works once and for ten minutes. On the machine of the coordinator, run the command " +
		"below for a new one.", "cohort status --link", false}
	signedIn  = notice{"Signed in", "Going on to the runs.", "", true}
	signedOut = notice{"Signed out", "To come back, run the command below on the machine of the coordinator.", "cohort status --link", false}
	notFound  = notice{"Not here", "There is no such page. The run may have been removed.", "", false}
	readOnly  = notice{"This page only reads", "To change something, use the command line on the machine of the coordinator.", "", false}
	crowded   = notice{"Too many pages are open", "Close some of them and try again.", "", false}
	broken    = notice{"This cannot be read", "The records of the run could not be read; the coordinator’s log says why.", "", false}
)

func (d *Dashboard) notice(w http.ResponseWriter, r *http.Request, status int, n notice) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", noticePolicy)
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	d.execute(w, "notice", struct {
		notice
		Style template.CSS
	}{n, template.CSS(noticeStyle)})
}

//go:embed assets
var files embed.FS

//go:embed page.html.tmpl
var pageText string

// noticeStyle stands in the notice itself, because style.css needs a session like everything else.
const noticeStyle = `:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--line:#e3e6ea;--text:#1f2937;--ink:#4b5563;--link:#2563c9}` +
	`@media (prefers-color-scheme:dark){:root{--page:#14171b;--card:#1c2026;--line:#2c323a;--text:#e6e8eb;--ink:#a4adb8;--link:#6ea0f5}}` +
	`body{margin:0;background:var(--page);color:var(--text);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif}` +
	`main{max-width:30rem;margin:0 auto;padding:20vh 1.25rem 2rem}h1{font-size:1.5rem;line-height:1.2;margin:0 0 .5rem}` +
	`p{color:var(--ink);margin:0 0 1rem}pre{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.8rem 1rem;margin:0;` +
	`overflow-x:auto;font:.9rem/1.5 ui-monospace,"Liberation Mono",Menlo,Consolas,monospace}a{color:var(--link)}`

var noticePolicy = func() string {
	sum := sha256.Sum256([]byte(noticeStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}()

// An assetFile is a file that pages refer to, under a name that changes with its content.
type assetFile struct {
	url, media string
	content    []byte
}

var assets = func() map[string]assetFile {
	list := map[string]assetFile{}
	for name, media := range map[string]string{
		"style.css":               "text/css; charset=utf-8",
		"page.js":                 "text/javascript; charset=utf-8",
		"icon.svg":                "image/svg+xml",
		"uplot/uPlot.min.css":     "text/css; charset=utf-8",
		"uplot/uPlot.iife.min.js": "text/javascript; charset=utf-8",
	} {
		b, err := files.ReadFile("assets/" + name)
		if err != nil {
			panic(err) // it is embedded
		}
		sum := sha256.Sum256(b)
		base := name[strings.LastIndexByte(name, '/')+1:]
		list[base] = assetFile{"/assets/" + base + "?" + hex.EncodeToString(sum[:6]), media, b}
	}
	return list
}()

func (d *Dashboard) asset(w http.ResponseWriter, r *http.Request) {
	a, ok := assets[r.PathValue("name")]
	if !ok {
		d.notice(w, r, http.StatusNotFound, notFound)
		return
	}
	w.Header().Set("Content-Type", a.media)
	w.Header().Set("Cache-Control", "private, max-age=31536000, immutable")
	_, _ = w.Write(a.content)
}

// execute renders a template; what cannot be written to a reader that has gone is nobody's concern.
func (d *Dashboard) execute(w io.Writer, name string, data any) {
	if err := pages.ExecuteTemplate(w, name, data); err != nil {
		d.log.Debug("page not written", "page", name, "error", err)
	}
}
