package record_test

import (
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/journal/faultfs"
	"github.com/cohort-learning/cohort/record"
)

var start = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

func now() time.Time { return start }

type closed struct {
	record.Body
	Digest string `json:"digest"`
}

// finish plays a run of two rounds that goes on from what its journal holds.
func finish(r *record.Run) error {
	round := 1
	for _, err := range r.Journal().Records("round.closed") {
		if err != nil {
			return err
		}
		round++
	}
	for ; round <= 2; round++ {
		cp, err := r.Checkpoints().Save(round, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "model of round %d", round)
			return err
		})
		if err != nil {
			return err
		}
		if _, err := r.Journal().Append("round.closed", closed{record.Body{Round: round, Metrics: []record.Metric{
			{Name: "accuracy", Value: float64(round) / 10},
			{Name: "accuracy", Key: "a", Value: float64(round) / 5},
		}, Events: []record.Event{{Level: record.Warn, Client: "client-7", Message: "missed the deadline"}}}, cp.Digest.String()}); err != nil {
			return err
		}
		if err := r.Metrics().Update(r.Journal()); err != nil {
			return err
		}
	}
	return nil
}

func create(t *testing.T, dir string, o record.Options) *record.Run {
	t.Helper()
	o.Now = now
	r, err := record.Create(dir, record.Meta{Method: "fedavg", Seed: 7}, []byte("method: fedavg\n"), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func series(t *testing.T, m *record.Metrics, name, key string) string {
	t.Helper()
	s, err := m.Series(name, key)
	must(t, err)
	return fmt.Sprint(s)
}

func Example() {
	root, err := os.MkdirTemp("", "runs")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(root)
	dir := filepath.Join(root, "mnist-1")

	run, err := record.Create(dir, record.Meta{Method: "fedavg", Seed: 1}, []byte("method: fedavg\n"), record.Options{})
	if err != nil {
		panic(err)
	}
	for round, acc := range []float64{0.71, 0.84} {
		body := record.Body{Round: round + 1, Metrics: []record.Metric{{Name: "accuracy", Value: acc}}}
		if _, err := run.Journal().Append("round.closed", body); err != nil {
			panic(err)
		}
		if err := run.Metrics().Update(run.Journal()); err != nil {
			panic(err)
		}
	}
	if err := run.Close(record.Finished, nil); err != nil {
		panic(err)
	}

	runs, err := record.List(root)
	if err != nil {
		panic(err)
	}
	metrics, err := record.ReadMetrics(runs[0].Dir)
	if err != nil {
		panic(err)
	}
	defer metrics.Close()
	points, err := metrics.Series("accuracy", "")
	fmt.Println(runs[0].Meta.ID, runs[0].State, points, err)
	// Output:
	// mnist-1 finished [{1 0 0.71} {2 0 0.84}] <nil>
}

func TestLifeOfARun(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "r1")
	r := create(t, dir, record.Options{})
	if _, err := record.Create(dir, record.Meta{}, nil, record.Options{}); !errors.As(err, new(*journal.LockedError)) {
		t.Errorf("create over a running run: %v", err)
	}
	if err := record.Remove(dir); !errors.As(err, new(*journal.LockedError)) {
		t.Errorf("remove of a running run: %v", err)
	}
	list, err := record.List(root)
	if err != nil || len(list) != 1 || !list[0].Locked || list[0].State != record.Running || list[0].Holder == "" {
		t.Errorf("list of a running run: %+v %v", list, err)
	}
	must(t, finish(r))
	must(t, r.Close(record.Failed, errors.New("no more electricity")))

	if _, err := record.Create(dir, record.Meta{}, nil, record.Options{}); !errors.Is(err, journal.ErrExists) {
		t.Errorf("create over a run: %v", err)
	}
	want := record.Meta{Version: 1, ID: "r1", Method: "fedavg", State: record.Failed, Error: "no more electricity", Created: start, Ended: start, Seed: 7}
	meta, err := record.ReadMeta(dir)
	if d := cmp.Diff(want, meta); d != "" || err != nil {
		t.Errorf("meta %s %v", d, err)
	}

	if r, err = record.Resume(dir, record.Options{}); err != nil {
		t.Fatal(err)
	}
	if m := r.Meta(); m.State != record.Running || m.Error != "" || m.Resumed != 1 || m.Seed != 7 {
		t.Errorf("resumed: %+v", m)
	}
	if b, err := r.Recipe(); string(b) != "method: fedavg\n" || err != nil {
		t.Errorf("recipe %q %v", b, err)
	}
	if why := r.Metrics().Rebuilt(); why != "" {
		t.Errorf("metrics rebuilt: %s", why)
	}
	must(t, r.Close(record.Interrupted, nil))

	must(t, os.Mkdir(filepath.Join(root, "no run"), 0o755))
	must(t, os.Mkdir(filepath.Join(root, "broken"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "broken", record.MetaName), []byte("{"), 0o644))
	killed := filepath.Join(root, "killed")
	r = create(t, killed, record.Options{})
	must(t, r.Metrics().Close())
	must(t, r.Journal().Close()) // what the kernel does
	list, err = record.List(root)
	must(t, err)
	var states []string
	for _, e := range list {
		states = append(states, fmt.Sprintf("%s %s %v", filepath.Base(e.Dir), e.State, e.Err != nil))
	}
	if got, want := fmt.Sprint(states), "[broken  true killed interrupted false r1 interrupted false]"; got != want {
		t.Errorf("list %s, want %s", got, want)
	}

	if err := record.Remove(filepath.Join(root, "no run")); err == nil || !strings.Contains(err.Error(), "not the folder of a run") {
		t.Errorf("remove of something else: %v", err)
	}
	must(t, record.Remove(dir))
	must(t, record.Remove(killed))
	must(t, record.Remove(filepath.Join(root, "broken")))
	if list, err := record.List(root); len(list) != 0 || err != nil {
		t.Errorf("list after removal: %v %v", list, err)
	}
	if list, err := record.List(filepath.Join(root, "nowhere")); len(list) != 0 || err != nil {
		t.Errorf("list of nowhere: %v %v", list, err)
	}
}

// Whatever happens to the database, the metrics say what the journal says.
func TestMetricsAreMadeAgain(t *testing.T) {
	const want = "[{1 0 0.1} {2 0 0.2}]"
	for name, tt := range map[string]struct {
		damage func(t *testing.T, path string)
		why    string
	}{
		"untouched": {func(*testing.T, string) {}, ""},
		"lost":      {func(t *testing.T, path string) { must(t, os.Remove(path)) }, "lost"},
		"empty":     {func(t *testing.T, path string) { must(t, os.WriteFile(path, nil, 0o644)) }, "version 0"},
		"garbage": {func(t *testing.T, path string) {
			must(t, os.WriteFile(path, []byte(strings.Repeat("no database", 1000)), 0o644))
		}, "not a database"},
		"damaged pages": {func(t *testing.T, path string) {
			b, err := os.ReadFile(path)
			must(t, err)
			for i := 4096; i < len(b); i++ {
				b[i] ^= 0x5a
			}
			must(t, os.WriteFile(path, b, 0o644))
		}, "error code 11"}, // SQLITE_CORRUPT
		"truncated": {func(t *testing.T, path string) { must(t, os.Truncate(path, 5000)) }, "malformed"},
		"behind": {func(t *testing.T, path string) {
			alter(t, path, "DELETE FROM metrics; DELETE FROM events; UPDATE position SET seq = -1, hash = ''")
		}, ""},
		"of another journal": {func(t *testing.T, path string) {
			alter(t, path, "UPDATE metrics SET value = 9; UPDATE position SET hash = 'ff'")
		}, "does not belong"},
		"ahead of the journal": {func(t *testing.T, path string) {
			alter(t, path, "UPDATE metrics SET value = 9; UPDATE position SET seq = seq + 1")
		}, "does not belong"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a run?#%20") // a name that a URL has to escape
			r := create(t, dir, record.Options{})
			must(t, finish(r))
			if got := series(t, r.Metrics(), "accuracy", ""); got != want {
				t.Errorf("live: %s", got)
			}
			must(t, r.Close(record.Interrupted, nil))
			path := filepath.Join(dir, record.MetricsName)
			tt.damage(t, path)

			m, err := record.ReadMetrics(dir)
			must(t, err)
			if got := series(t, m, "accuracy", ""); got != want {
				t.Errorf("read: %s", got)
			}
			must(t, m.Close())
			r, err = record.Resume(dir, record.Options{})
			must(t, err)
			if got := series(t, r.Metrics(), "accuracy", ""); got != want {
				t.Errorf("resumed: %s", got)
			}
			if why := r.Metrics().Rebuilt(); tt.why == "" && why != "" || !strings.Contains(why, tt.why) {
				t.Errorf("rebuilt because %q, want %q", why, tt.why)
			}
			must(t, r.Close(record.Finished, nil))
		})
	}
}

func alter(t *testing.T, path, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+strings.NewReplacer("?", "%3f", "#", "%23", "%", "%25").Replace(path))
	must(t, err)
	_, err = db.Exec(statement)
	must(t, err)
	must(t, db.Close())
}

func TestQueries(t *testing.T) {
	r := create(t, filepath.Join(t.TempDir(), "r"), record.Options{})
	j, m := r.Journal(), r.Metrics()
	add := func(kind string, body any) {
		t.Helper()
		_, err := j.Append(kind, body)
		must(t, err)
	}
	inf := math.Inf(1)
	add("evaluated", record.Body{Round: 1, Metrics: []record.Metric{
		{Name: "loss", Step: 1, Value: math.NaN()}, {Name: "loss", Step: 2, Value: inf}, {Name: "loss", Step: 3, Value: -inf},
		{Name: "loss", Round: 4, Value: 1.0 / 3}, {Name: "accuracy", Key: "b", Value: 0.5}, {Name: "accuracy", Key: "a", Value: 0.25}}})
	add("evaluated", record.Body{Round: 2, Metrics: []record.Metric{{Name: "accuracy", Key: "a", Value: 0.75}}})
	add("evaluated", record.Body{Round: 2, Metrics: []record.Metric{{Name: "accuracy", Key: "a", Value: 0.5}}}) // again, after a crash
	late := record.Event{Level: record.Warn, Client: "c2", Message: "late"}
	for round := range 3 {
		add("member.failed", record.Body{Round: round, Events: []record.Event{late}})
	}
	add("member.failed", record.Body{Round: 2, Events: []record.Event{late}}) // again
	add("member.failed", record.Body{Round: 2, Events: []record.Event{{Level: record.Error, Client: "c1", Message: "NaN"}, {Message: "done"}}})
	for _, other := range []any{nil, 7, "metrics", []string{"events"}, map[string]int{"round": 3}} {
		add("other", other)
	}
	must(t, m.Update(j))
	must(t, m.Update(j)) // nothing new

	s, err := m.Series("loss", "")
	must(t, err)
	if len(s) != 4 || !math.IsNaN(s[0].Value) || s[1].Value != inf || s[2].Value != -inf || s[3] != (record.Point{Round: 4, Value: 1.0 / 3}) {
		t.Errorf("loss %v", s)
	}
	if got := series(t, m, "accuracy", "a"); got != "[{1 0 0.25} {2 0 0.5}]" {
		t.Errorf("accuracy of a: %s", got)
	}
	names, err := m.Names()
	must(t, err)
	keys, err := m.Keys("accuracy")
	must(t, err)
	if got := fmt.Sprint(names, keys); got != "[accuracy loss] [a b]" {
		t.Errorf("names and keys %s", got)
	}
	if v, ok, err := m.Latest("accuracy", "a"); v != (record.Metric{Round: 2, Name: "accuracy", Key: "a", Value: 0.5}) || !ok || err != nil {
		t.Errorf("latest %+v %v %v", v, ok, err)
	}
	if _, ok, err := m.Latest("accuracy", ""); ok || err != nil {
		t.Errorf("latest of nothing: %v %v", ok, err)
	}
	events, err := m.Events()
	must(t, err)
	if len(events) != 5 || events[0].Message != "late" || events[0].Time != start || events[4] != (record.Event{Round: 2, Time: start, Level: record.Info, Message: "done"}) {
		t.Errorf("events %+v", events)
	}
	if events, err := m.Events(record.Error, record.Info); err != nil || len(events) != 2 {
		t.Errorf("events of two levels: %+v %v", events, err)
	}
	failures, err := m.Failures()
	if got, want := fmt.Sprint(failures, err), "[{c2 3 2 late} {c1 1 2 NaN}] <nil>"; got != want {
		t.Errorf("failures %s, want %s", got, want)
	}

	add("bad", map[string]any{"metrics": []string{"accuracy"}})
	if err := m.Update(j); err == nil || !strings.Contains(err.Error(), "(bad)") {
		t.Errorf("metrics of the wrong shape: %v", err)
	}
}

// A machine that stops at any operation of a run, from making the folder to
// closing it, leaves something that can be gone on with, and ends the same.
func TestCrashAtEveryOperation(t *testing.T) {
	run := func(dir string, fsys journal.FS) error {
		o := record.Options{FS: fsys, Now: now}
		r, err := record.Resume(dir, o)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, journal.ErrEmpty) {
			r, err = record.Create(dir, record.Meta{Method: "fedavg"}, []byte("method: fedavg\n"), o)
		}
		if err != nil {
			return err
		}
		err = finish(r)
		return errors.Join(err, r.Close(record.Finished, err))
	}
	clean := faultfs.New(journal.OS())
	must(t, run(filepath.Join(t.TempDir(), "run"), clean))
	if n := len(clean.Events()); n < 30 {
		t.Fatalf("only %d operations", n)
	}
	for i, e := range clean.Events() {
		rules := []faultfs.Rule{ // before it is after the one before
			{N: i + 1, Crash: faultfs.PowerLoss, After: true},
			{N: i + 1, Crash: faultfs.PowerLossAfterMetadata, After: true},
			{N: i + 1, Crash: faultfs.Kill, After: true},
		}
		if e.Op == faultfs.Write {
			rules = append(rules, faultfs.Rule{N: i + 1, Crash: faultfs.PowerLoss, Part: 9})
		}
		t.Run(fmt.Sprint(i+1), func(t *testing.T) {
			t.Parallel()
			for _, rule := range rules {
				crashAndGoOn(t, run, rule)
			}
		})
	}
}

func crashAndGoOn(t *testing.T, run func(string, journal.FS) error, rule faultfs.Rule) {
	dir := filepath.Join(t.TempDir(), "run")
	f := faultfs.New(journal.OS())
	f.Add(rule)
	if err := run(dir, f); !errors.Is(err, faultfs.ErrCrashed) {
		t.Fatalf("%+v: %v", rule, err)
	}
	if err := run(dir, faultfs.New(journal.OS())); err != nil {
		t.Fatalf("%+v: going on: %v", rule, err)
	}
	meta, err := record.ReadMeta(dir)
	must(t, err)
	m, err := record.ReadMetrics(dir)
	must(t, err)
	recipe, err := record.ReadRecipe(dir)
	must(t, err)
	cp, ok, bad, err := record.Checkpoints{Dir: filepath.Join(dir, "checkpoints")}.Latest()
	if got := series(t, m, "accuracy", "a"); got != "[{1 0 0.2} {2 0 0.4}]" || meta.State != record.Finished ||
		string(recipe) != "method: fedavg\n" || !ok || cp.Round != 2 || len(bad) != 0 || err != nil {
		t.Errorf("%+v: %s, %+v, %q, %+v, %v, %v", rule, got, meta, recipe, cp, bad, err)
	}
	must(t, m.Close())
}
