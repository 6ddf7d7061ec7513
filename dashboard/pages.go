package dashboard

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/record"
)

// home is the list of runs.
func (d *Dashboard) home(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	d.execute(w, "home", d.homeView())
}

// run is the page of one run.
func (d *Dashboard) run(w http.ResponseWriter, r *http.Request) {
	run, ok := d.source.Run(r.PathValue("id"))
	if !ok {
		d.notice(w, r, http.StatusNotFound, notFound)
		return
	}
	feed := d.source.Feed(run.ID)
	b := d.book(run, feed)
	if _, err := b.read(d.source, run.ID, feed); err != nil {
		d.log.Error("records not read", "run", run.ID, "error", err)
		d.notice(w, r, http.StatusInternalServerError, broken)
		return
	}
	v := d.glance(run, b, parseFilter(r.URL.Query()))
	v.digest = b.digest()
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	d.execute(w, "run", v)
}

// download hands out an artifact. The report is a page of its own with its own styles; it is shown in a sandbox.
func (d *Dashboard) download(what Artifact) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("id")
		f, err := d.source.Open(id, what)
		if errors.Is(err, fs.ErrNotExist) {
			d.notice(w, r, http.StatusNotFound, notFound)
			return
		}
		if err != nil {
			d.log.Error("not opened", "run", id, "what", what, "error", err)
			d.notice(w, r, http.StatusInternalServerError, broken)
			return
		}
		defer f.Content.Close()
		if what == Report {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		} else {
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("Content-Disposition", attachment(f.Name))
		}
		http.ServeContent(w, r, "", f.Changed, f.Content)
	}
}

// attachment makes a browser save what it gets under the name.
func attachment(name string) string {
	name = strings.Map(func(r rune) rune {
		if odd(r) || strings.ContainsRune(`/\:*?"<>|`, r) {
			return '-'
		}
		return r
	}, name)
	if s := mime.FormatMediaType("attachment", map[string]string{"filename": name}); s != "" {
		return s
	}
	return "attachment"
}

// writeCSV writes all metrics: round (from 1), step, name, key, value.
func writeCSV(w io.Writer, h History) error {
	c := csv.NewWriter(w)
	_ = c.Write([]string{"round", "step", "metric", "key", "value"}) // Error below tells of it
	all := func(string) bool { return true }
	err := eachMetric(h, all, func(m record.Metric) {
		_ = c.Write([]string{strconv.Itoa(m.Round + 1), strconv.Itoa(m.Step), harmless(m.Name), harmless(m.Key), strconv.FormatFloat(m.Value, 'g', -1, 64)})
	})
	if err != nil {
		return err
	}
	c.Flush()
	return c.Error()
}

// harmless keeps a spreadsheet from taking a text for a formula.
func harmless(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}

// glance lays out what changes all the time; figures and log are left out.
func (d *Dashboard) glance(r Run, b *book, f filter) runView {
	members := d.source.Members(r.ID)
	v := runView{About: d.source.About(), Run: r, Base: base(r.ID), Stream: base(r.ID) + "/events" + f.query(),
		Cards: b.cards(r, members), Roster: newRoster(base(r.ID), members, f)}
	b.mu.Lock()
	defer b.mu.Unlock()
	v.failures, v.failed = b.failed()
	return v
}

// metricsCSV writes every number of a run.
func (d *Dashboard) metricsCSV(w http.ResponseWriter, r *http.Request) {
	d.export(w, r, "csv", "text/csv; charset=utf-8", func(out io.Writer, h History) error { return writeCSV(out, h) })
}

// logText writes every line of a run's log.
func (d *Dashboard) logText(w http.ResponseWriter, r *http.Request) {
	d.export(w, r, "txt", "text/plain; charset=utf-8", func(out io.Writer, h History) error {
		events, err := h.Events()
		for _, e := range events {
			l := newLine(e)
			round, level, client := "", "", ""
			if l.Round > 0 {
				round = "round " + strconv.Itoa(l.Round) + "  "
			}
			if e.Level != record.Info {
				level = string(e.Level) + "  "
			}
			if l.Client != "" {
				client = l.Client + ": "
			}
			fmt.Fprintf(out, "%s  %s%s%s%s\n", e.Time.UTC().Format(time.RFC3339), round, level, client, l.Message)
		}
		return err
	})
}

func (d *Dashboard) export(w http.ResponseWriter, r *http.Request, ext, media string, write func(io.Writer, History) error) {
	id := r.PathValue("id")
	if _, ok := d.source.Run(id); !ok {
		d.notice(w, r, http.StatusNotFound, notFound)
		return
	}
	h, done, err := d.source.History(id)
	if errors.Is(err, ErrNoHistory) {
		d.notice(w, r, http.StatusNotFound, notFound)
		return
	}
	var b bytes.Buffer
	if err == nil {
		err = write(&b, h)
		if done != nil {
			done()
		}
	}
	if err != nil {
		d.log.Error("records not read", "run", id, "error", err)
		d.notice(w, r, http.StatusInternalServerError, broken)
		return
	}
	w.Header().Set("Content-Type", media)
	w.Header().Set("Content-Disposition", attachment(id+"."+ext))
	_, _ = w.Write(b.Bytes())
}
