package dashboard

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/cohort-learning/cohort/record"
)

// A browser is a real one, without a window. What it complains of is kept.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu         sync.Mutex
	complaints []string
	elsewhere  []string // requests to other hosts
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a browser")
	}
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		if os.Getenv("CI") == "true" && os.Getenv("COHORT_BROWSER") == "required" {
			t.Fatal("COHORT_BROWSER=required, and there is no chromium, chromium-browser or google-chrome in PATH")
		}
		t.Skip("there is no chromium, chromium-browser or google-chrome in PATH")
	}
	options := []chromedp.ExecAllocatorOption{chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.NoSandbox, chromedp.NoFirstRun,
		chromedp.NoDefaultBrowserCheck, chromedp.DisableGPU,
		chromedp.Headless, chromedp.IgnoreCertErrors, chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true), chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("hide-scrollbars", true), chromedp.Flag("no-proxy-server", true)}
	alloc, stop := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(func() {
		cancel()
		stop()
	})
	b := &browser{t: t, ctx: ctx}
	err := chromedp.Listen(ctx, func(e any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := e.(type) {
		case *runtime.EventConsoleAPICalled:
			for _, a := range e.Args {
				b.complaints = append(b.complaints, fmt.Sprintf("console.%s: %s", e.Type, a.Value))
			}
		case *runtime.EventExceptionThrown:
			b.complaints = append(b.complaints, e.ExceptionDetails.Text+" "+e.ExceptionDetails.Exception.Description)
		case *log.EventEntryAdded:
			b.complaints = append(b.complaints, fmt.Sprintf("%s: %s (%s)", e.Entry.Level, e.Entry.Text, e.Entry.URL))
		case *page.EventJavascriptDialogOpening:
			b.complaints = append(b.complaints, "a dialog: "+e.Message)
		case *network.EventRequestWillBeSent:
			if !strings.HasPrefix(e.Request.URL, "https://127.0.0.1:") && !strings.HasPrefix(e.Request.URL, "data:") {
				b.elsewhere = append(b.elsewhere, e.Request.URL)
			}
		}
	})
	if err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	call(b, network.Enable, network.EnableParams{})
	call(b, log.Enable, cdp.Empty{})
	return b
}

// call sends a command of the browser's protocol.
func call[P, R any](b *browser, c cdp.Command[P, R], params P) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, c, params); err != nil {
		b.t.Fatalf("%s: %v", c.Method, err)
	}
}

func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.t.Fatalf("%v; complaints: %q", err, b.complaints)
	}
}

// until waits for a condition in the page, or in the page that comes after it.
func (b *browser) until(condition string) {
	b.t.Helper()
	var ok bool
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok, err = chromedp.Run(b.ctx, chromedp.Evaluate[bool](condition)); ok {
			return
		}
	}
	b.t.Fatalf("does not come true: %s (%v); complaints: %q", condition, err, b.complaints)
}

func eval[T any](b *browser, js string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](js))
	if err != nil {
		b.t.Fatalf("%s: %v", js, err)
	}
	return v
}

func (b *browser) quiet() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.complaints {
		b.t.Errorf("the browser complains: %s", c)
	}
	for _, u := range b.elsewhere {
		b.t.Errorf("the page asks elsewhere: %s", u)
	}
	b.complaints = nil
}

// enter signs in by a link, as a person does.
func (b *browser) enter(s *site) {
	b.t.Helper()
	b.do(chromedp.Navigate(s.server.URL + s.Link()))
	b.until(`location.pathname === "/" && document.readyState === "complete"`)
}

func (b *browser) size(width, height int64, scheme string) {
	call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1})
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
}

// overflow names what is wider than the window.
const overflow = `(() => {
	const wide = [], limit = document.documentElement.clientWidth;
	if (document.documentElement.scrollWidth > limit) wide.push("the page: " + document.documentElement.scrollWidth);
	for (const e of document.querySelectorAll("body *")) {
		if (e.closest(".scroll, .skip, svg, .uplot, thead") || e.getClientRects().length === 0) continue;
		const r = e.getBoundingClientRect();
		if (r.right > limit + 0.5 || r.left < -0.5) wide.push(e.tagName + "." + e.className + " " + e.textContent.slice(0, 40));
		else if (e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0 && getComputedStyle(e).overflowX !== "visible") wide.push("cut: " + e.tagName + "." + e.className);
	}
	return wide;
})()`

func TestBrowser(t *testing.T) {
	b := newBrowser(t)
	s := newSite(t)
	s.pace = 50 * time.Millisecond
	s.world.rounds(8)
	s.world.members = append(s.world.members, Member{Name: "<script>alert(1)</script>", Presence: Here}, Member{Name: strings.Repeat("wide", 60), Presence: Gone})
	s.world.say(record.Event{Level: record.Warn, Client: "<script>alert(1)</script>", Message: "<img src=x onerror=alert(2)>"})
	b.size(360, 800, "light")
	b.enter(s)
	b.until(`document.querySelector("#link").textContent === "live"`)

	// From the list to the run, with the keyboard.
	b.do(chromedp.Focus(chromedp.CSS(`a[href="/runs/ward-images"]`)), chromedp.KeyEvent("\r"))
	b.until(`location.pathname === "/runs/ward-images" && document.querySelectorAll(".plot canvas").length >= 5`)
	b.until(`document.querySelector("#link").textContent === "live"`)
	b.do(chromedp.Evaluate[chromedp.Void](`window.same = true; window.shift = 0; new PerformanceObserver((l) => { for (const e of l.getEntries()) window.shift += e.value; }).observe({ type: "layout-shift", buffered: false }); true`))

	// A round comes in without a reload.
	const curve = `document.querySelector("#chart-accuracy canvas").toDataURL()`
	before := eval[string](b, curve)
	s.world.begin()
	b.until(`document.querySelector("#now").textContent.includes("0 of 14 answered")`)
	b.until(`[...document.querySelectorAll("#rows .where")].filter((e) => e.textContent.includes("working")).length === 14`)
	s.world.answer(9)
	b.until(`document.querySelector("progress.phase").value === 9`)
	if got := eval[string](b, `document.title`); !strings.HasPrefix(got, "9/60 ") {
		t.Errorf("title %q", got)
	}
	s.world.finish(record.Event{Level: record.Warn, Client: "passau", Message: "train: its disk is full"})
	b.until(`document.querySelector("#lines").textContent.includes("round 9 closed")`)
	b.until(`document.querySelector("#failures").textContent.includes("its disk is full")`)
	b.until(`document.querySelector("#chart-accuracy tbody th").textContent === "9"`)
	b.until(`document.querySelector("#cards").textContent.includes("after round 9")`)
	s.world.set("jena", func(m *Member) { m.Presence, m.Note = Gone, "since 12 s" })
	b.until(`document.querySelector("#member-jena .where").textContent.includes("gone since 12 s")`)
	if eval[string](b, curve) == before {
		t.Error("the curve of accuracy has not moved")
	}
	if !eval[bool](b, `window.same === true`) {
		t.Error("the page was loaded anew")
	}
	if shift := eval[float64](b, `window.shift`); shift > 0.02 {
		t.Errorf("the page jumps: cumulative layout shift %.3f", shift)
	}

	// Away and back: nothing is lost, and nothing stands there twice.
	s.server.CloseClientConnections()
	again := record.Body{Events: []record.Event{{Level: record.Info, Message: "aachen joined"}}} // told again, as after a crash
	s.world.feed.Tell(again, time.Now())
	s.world.say(record.Event{Message: "while away"})
	b.until(`document.querySelector("#lines").textContent.includes("while away")`)
	keys := `[...document.querySelectorAll("#lines li")].map((e) => e.dataset.key)`
	if n, m := eval[int](b, keys+`.length`), eval[int](b, `new Set(`+keys+`).size`); n != m || n < 30 {
		t.Errorf("%d lines, %d different ones", n, m)
	}
	b.mu.Lock()
	b.complaints = nil // the browser notes the connection that we cut
	b.mu.Unlock()

	// Narrow, in both schemes, without and with a script's curves.
	for _, path := range []string{"/runs/ward-images", "/", "/runs/ward-images?show=gone", "/runs/none", "/runs/trial-1"} {
		for _, width := range []int64{360, 768, 1280} {
			b.size(width, 800, map[bool]string{true: "light", false: "dark"}[width == 768])
			b.do(chromedp.Navigate(s.server.URL+path), chromedp.WaitReady(chromedp.CSS("h1")))
			if path == "/runs/ward-images" {
				b.until(`document.querySelectorAll(".plot canvas").length >= 5`)
			}
			for _, wide := range eval[[]string](b, overflow) {
				t.Errorf("%s at %d px: %s", path, width, wide)
			}
		}
	}
	b.mu.Lock()
	kept := b.complaints[:0]
	for _, c := range b.complaints { // the page that is not there
		if !strings.Contains(c, "404") {
			kept = append(kept, c)
		}
	}
	b.complaints = kept
	b.mu.Unlock()

	// Every control can be reached and has a name.
	b.do(chromedp.Navigate(s.server.URL + "/runs/ward-images"))
	b.until(`document.querySelectorAll(".plot canvas").length >= 5`)
	if bad := eval[[]string](b, `[...document.querySelectorAll("a, button, summary, progress, [tabindex]")].filter((e) => !(e.textContent.trim() || e.ariaLabel || e.getAttribute("aria-labelledby"))).map((e) => e.outerHTML)`); len(bad) > 0 {
		t.Errorf("without a name: %q", bad)
	}
	for _, scheme := range []string{"light", "dark"} {
		b.size(1280, 800, scheme)
		if bad := eval[[]string](b, contrast); len(bad) > 0 {
			t.Errorf("too faint in the %s scheme: %q", scheme, bad)
		}
	}

	// The run ends; the session ends.
	s.world.end(Finished)
	b.until(`document.querySelector("#link").textContent === "ended" && document.querySelector("h1").textContent.includes("finished")`)
	b.until(`document.querySelector("#away a[download]").href.endsWith("/model")`)
	b.quiet()
	b.do(chromedp.Navigate(s.server.URL + "/"))
	b.until(`document.querySelector("#link").textContent === "live"`)
	s.EndSessions()
	b.until(`document.querySelector("#link").textContent.startsWith("signed out")`)
}

// contrast names texts that stand out less than WCAG AA asks for (4.5, or 3 for large ones).
const contrast = `(() => {
	const rgb = (c) => { const m = c.match(/[\d.]+/g).map(Number); return m.length > 3 && m[3] === 0 ? null : m; };
	const lum = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
	const bad = [];
	for (const e of document.querySelectorAll("body *")) {
		if (e.closest("svg, .uplot") || ![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
		let p = e, back = null;
		while (p && !(back = rgb(getComputedStyle(p).backgroundColor))) p = p.parentElement;
		const s = getComputedStyle(e), a = lum(rgb(s.color)), b = lum(back ?? [255, 255, 255]);
		const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
		if (ratio < (parseFloat(s.fontSize) >= 24 ? 3 : 4.5)) bad.push(e.tagName + "." + e.className + " " + ratio.toFixed(2));
	}
	return [...new Set(bad)];
})()`

// TestPictures takes pictures of the page for people to look at, into the folder that COHORT_PICTURES names.
func TestPictures(t *testing.T) {
	dir := os.Getenv("COHORT_PICTURES")
	if dir == "" {
		t.Skip("COHORT_PICTURES names no folder")
	}
	b := newBrowser(t)
	s := newSite(t)
	s.world.rounds(23)
	s.world.set("jena", func(m *Member) { m.Presence, m.Note, m.Seen = Slow, "asked 48 s ago", time.Now().Add(-7*time.Second) })
	s.world.set("oldenburg", func(m *Member) { m.Presence, m.Seen = Gone, time.Now().Add(-14*time.Minute) })
	s.world.set("passau", func(m *Member) { m.Presence = Revoked })
	s.world.say(record.Event{Level: record.Error, Client: "passau", Message: "revoked by the coordinator: its key was used from two places at once"})
	s.world.say(record.Event{Level: record.Info, Message: "deadline extended by 12 s: the coordinator was restarted"})
	s.world.begin()
	s.world.answer(9)
	b.enter(s)
	for _, v := range []struct {
		name, scheme, path string
		width, height      int64
	}{{"light", "light", "/runs/ward-images", 1180, 0}, {"dark", "dark", "/runs/ward-images", 1180, 0}, {"phone", "light", "/runs/ward-images", 360, 0},
		{"home", "light", "/", 900, 0}, {"page", "light", "/runs/ward-images", 1100, 900}, {"notice", "dark", "/login", 500, 400}} {
		b.size(v.width, 900, v.scheme)
		b.do(chromedp.Navigate(s.server.URL + v.path))
		if v.path == "/runs/ward-images" {
			b.until(`document.querySelectorAll(".plot canvas").length >= 5 && document.querySelector("#link").textContent === "live"`)
		}
		height := v.height
		if height == 0 {
			height = eval[int64](b, `document.documentElement.scrollHeight`)
		}
		b.size(v.width, height, v.scheme)
		b.picture(dir, v.name)
	}
	// Without a script.
	b.size(1180, 900, "light")
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	b.do(chromedp.Navigate(s.server.URL + "/runs/ward-images"))
	b.size(1180, 2600, "light")
	b.picture(dir, "noscript")
}

func (b *browser) picture(dir, name string) {
	b.t.Helper()
	b.do(chromedp.Sleep(300 * time.Millisecond))
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}
