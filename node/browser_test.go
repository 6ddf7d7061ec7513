package node

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// browser is a real one, without a window. What it complains of is kept.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu         sync.Mutex
	complaints []string
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a browser")
	}
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		if os.Getenv("COHORT_BROWSER") == "required" {
			t.Fatal("COHORT_BROWSER=required, and there is no chromium, chromium-browser or google-chrome in PATH")
		}
		t.Skip("there is no chromium, chromium-browser or google-chrome in PATH")
	}
	alloc, stop := chromedp.NewExecAllocator(context.Background(), chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.NoSandbox,
		chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.DisableGPU, chromedp.Headless, chromedp.IgnoreCertErrors,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("hide-scrollbars", true),
		chromedp.Flag("no-proxy-server", true))
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(func() {
		cancel()
		stop()
	})
	b := &browser{t: t, ctx: ctx}
	if err := chromedp.Listen(ctx, func(e any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := e.(type) {
		case *runtime.EventExceptionThrown:
			b.complaints = append(b.complaints, e.ExceptionDetails.Text+" "+e.ExceptionDetails.Exception.Description)
		case *log.EventEntryAdded:
			b.complaints = append(b.complaints, fmt.Sprintf("%s: %s (%s)", e.Entry.Level, e.Entry.Text, e.Entry.URL))
		}
	}); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return b
}

func (b *browser) visit(url string) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, chromedp.Navigate(url)); err != nil {
		b.t.Fatal(err)
	}
}

// until waits for a condition in the page, or in the page that comes after it.
func (b *browser) until(condition string) {
	b.t.Helper()
	var ok bool
	var err error
	for end := time.Now().Add(patience / 2); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok, err = chromedp.Run(b.ctx, chromedp.Evaluate[bool](condition)); ok {
			return
		}
	}
	text, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.body.innerText`))
	b.t.Fatalf("does not come true: %s (%v); complaints: %q\n%s", condition, err, b.complaints, text)
}

func (b *browser) shows(selector, text string) {
	b.t.Helper()
	b.until(fmt.Sprintf(`document.querySelector(%q)?.textContent.includes(%q)`, selector, text))
}

// TestBrowser watches a run of two members while it happens.
func TestBrowser(t *testing.T) {
	b := newBrowser(t)
	f := newFederation(t, twoSites)
	f.hold = make(chan struct{})
	run := f.start()
	b.visit(f.host.Link())
	b.until(`location.pathname === "/" && document.readyState === "complete"`)
	b.visit(f.host.URL + "/runs/glyphs")
	b.until(`document.querySelector("#link").textContent === "live"`)
	b.until(`window.same = true`)
	b.shows("#progress", "0 of 2 members have agreed")

	f.join("north", 0)
	f.join("south", 1)
	b.shows("#progress", "training: 0 of 2 answered")
	b.shows("#lines", "south agreed to the terms")
	b.shows("#member-north .where", "working")
	b.shows("#member-south .where", "working")
	f.hold <- struct{}{} // one of them computes, the other takes long
	b.shows("#progress", "training: 1 of 2 answered")
	b.until(`["slow", "here"].sort().join() === [...document.querySelectorAll("#rows .where .dot")].map((e) => e.className.split(" ")[1]).sort().join()`)
	for range 5 { // the rest of the first round: training, statistics, measuring
		f.hold <- struct{}{}
	}
	b.shows("#progress", "Round 2 of 3")
	b.shows("#lines", "round 1 closed: 2 of 2 results counted")
	b.until(`document.querySelector("#chart-accuracy tbody th").textContent === "1"`)
	close(f.hold)
	f.wait(run)
	b.shows("#top", "finished")
	b.shows("#lines", "the run has ended after 3 rounds")
	b.until(`document.querySelector("#chart-accuracy tbody th").textContent === "3"`)
	b.until(`document.querySelector("#away a[download]").href.endsWith("/model")`)
	b.until(`window.same === true`) // it was never loaded anew
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.complaints {
		t.Errorf("the browser complains: %s", c)
	}
}

// TestPicture takes a picture of a run for people to look at, into the folder that COHORT_PICTURES names.
func TestPicture(t *testing.T) {
	dir := os.Getenv("COHORT_PICTURES")
	if dir == "" {
		t.Skip("COHORT_PICTURES names no folder")
	}
	b := newBrowser(t)
	f := newFederation(t, `name: Ward images
method: heterofl
rounds: 30
data: {name: glyphs, size: 12, train: 2400, test: 400}
partition: {name: dirichlet, alpha: 0.8, clients: 8}
model: {name: cnn, widths: [8, 16, 32]}
train: {epochs: 2, batch: 20, optimizer: {name: sgd, rate: 0.05, momentum: 0.9}}
round: {fraction: 0.75, deadline: 90s}
evaluate: {clients: false}
options: {mode: a1-b1-c1-d1}
`)
	names := []string{"aachen", "basel", "dresden", "erlangen", "jena", "linz", "trier", "ulm"}
	f.hold = make(chan struct{}, 1<<12)
	run := f.start()
	if _, err := f.host.Tokens(time.Hour, names...); err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		f.join(name, i)
	}
	if _, err := f.host.Tokens(time.Hour, "zurich"); err != nil {
		t.Fatal(err)
	}
	b.visit(f.host.Link())
	b.until(`location.pathname === "/" && document.readyState === "complete"`)
	over := make(chan struct{})
	go func() { // members compute as long as the run is in its first rounds
		defer close(over)
		for run.Now().Round < 18 {
			select {
			case f.hold <- struct{}{}:
			case <-run.Done():
				return
			default:
				time.Sleep(time.Millisecond)
			}
		}
		for {
			select {
			case <-f.hold:
			default:
				return
			}
		}
	}()
	<-over
	if err := f.host.Revoke("jena", "its key was used from two places"); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		f.hold <- struct{}{}
	}
	time.Sleep(6 * time.Second) // the others become slow
	for _, v := range []struct {
		name, scheme, path string
		width, height      int64
	}{{"network-page", "light", "/runs/glyphs", 1100, 0}, {"network-dark", "dark", "/runs/glyphs", 1100, 0}, {"network-phone", "light", "/runs/glyphs", 360, 0},
		{"network-home", "light", "/", 800, 500}} {
		b.size(v.width, 900, v.scheme)
		b.visit(f.host.URL + v.path)
		b.until(`document.querySelector("#link").textContent === "live"`)
		if v.height == 0 {
			b.until(`document.querySelectorAll(".plot canvas").length >= 4`)
			h, err := chromedp.Run(b.ctx, chromedp.Evaluate[int64](`document.documentElement.scrollHeight`))
			if err != nil {
				t.Fatal(err)
			}
			v.height = h
		}
		b.size(v.width, v.height, v.scheme)
		time.Sleep(300 * time.Millisecond)
		png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, v.name+".png"), png, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	close(f.hold)
	f.wait(run)
}

func (b *browser) size(width, height int64, scheme string) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1})
	if err == nil {
		_, err = chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
	}
	if err != nil {
		b.t.Fatal(err)
	}
}
