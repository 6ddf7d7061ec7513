package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/record/termplot"
	"github.com/cohort-learning/cohort/simulation/worker"
	"github.com/cohort-learning/cohort/train"
)

// execution is a plan that runs in a folder.
type execution struct {
	io     streams
	stop   <-chan struct{}
	plan   *recipe.Plan
	engine *train.Engine
	info   backend.Info
	dir    string
	quiet  bool
	data   string // folder of real data, if it was named in the command

	resume       bool
	fromLastGood bool
	lending      *lending // nil: this machine alone
	brief        bool     // part of something larger, which says itself how to go on
}

// result is what a run came to.
type result struct {
	Schema  int                `json:"schema"`
	Run     string             `json:"run"`
	State   record.State       `json:"state"`
	Method  string             `json:"method"`
	Seed    uint64             `json:"seed"`
	Rounds  int                `json:"rounds"`  // closed so far
	Metrics map[string]float64 `json:"metrics"` // last values of the whole; bytes are sums over rounds
	Levels  []levelResult      `json:"levels"`
	Workers []worker.Tally     `json:"workers,omitempty"`
	Privacy *recipe.Noise      `json:"privacy,omitempty"` // nil: no differential privacy; what was spent is the metric "epsilon"
	Digest  string             `json:"digest,omitempty"`
	Report  string             `json:"report"`
	Seconds float64            `json:"seconds"` // of this process

	curves map[string]curve
}

type levelResult struct {
	recipe.Level
	Up   float64 `json:"bytes_up"`   // by its clients, all rounds of training
	Down float64 `json:"bytes_down"` // to its clients
}

// introduce says what is about to run.
func (x *execution) introduce() {
	p, r := x.plan, x.plan.Recipe
	test := 0
	if p.Split.Test != nil {
		test = p.Split.Test.Len()
	}
	verb := "running"
	if x.resume {
		verb = "resuming"
	}
	x.io.note("%s %s (%s) in %s", verb, r.Method, p.Method.Title, x.dir)
	x.io.note("%d clients share %s training examples of %s by %s; %s to test on", p.Dealt.Train.Clients(), count(p.Split.Train.Len()),
		p.Split.Train.Name, r.Partition.Name, count(test))
	x.io.note("model %s, %d rounds, engine %s", r.Model.Name, r.Rounds, x.info)
	if r.Secure.Sums == "plain" {
		x.io.note("secure sums without masks: the same bits, and nothing is hidden")
	} else if r.Secure.Sums != "" {
		x.io.note("secure sums: the server sees what many clients sent together, and nothing of one")
	}
	if noise, err := r.Noise(); err == nil && noise != nil { // the plan has been made with it
		x.io.note("differential privacy: %s", noise)
	}
}

// do runs the plan in its folder and returns what came of it, also if it was stopped. Any error comes with the command
// that takes the run up again, if it can be.
func (x *execution) do(ctx context.Context) (result, error) {
	began := time.Now()
	meta := record.Meta{Engine: x.info.Engine, Kernels: x.info.Path, Threads: x.info.Threads, Cohort: version(), Command: commandLine()}
	o := record.Options{FromLastGood: x.fromLastGood}
	open := x.plan.Create
	if x.resume {
		open = x.plan.Resume
	}
	run, err := open(x.dir, meta, o)
	if err != nil {
		return result{}, folderError(x.dir, err)
	}
	if found := run.Journal().Recovery().String(); found != "" {
		x.io.note("%s", found)
	}
	state, err := x.drive(ctx, run)
	if e := x.lending.settle(x.dir); e != nil {
		x.io.note("%v", e)
	}
	if e := run.Close(state, err); e != nil {
		err = errors.Join(err, e)
	}
	res, e := summarise(x.dir)
	if e == nil {
		res.Report, e = recipe.WriteReport(x.dir)
	}
	res.Seconds = time.Since(began).Seconds()
	switch {
	case err == nil:
		err = e
	case x.brief:
	case state == record.Interrupted:
		x.io.note("stopped after %d of %d rounds; go on with:\n  %s", res.Rounds, x.plan.Recipe.Rounds, x.again())
	case diskFull(err):
		err = fmt.Errorf("the disk of %s is full: free some space; nothing that was closed is lost. Go on with:\n  %s", x.dir, x.again())
	default:
		err = fmt.Errorf("%w\nwhat was closed is kept; go on with:\n  %s", err, x.again())
	}
	return res, err
}

// diskFull reports whether there was no space for a file, or for a table of the metrics.
func diskFull(err error) bool {
	return journal.IsFull(err) || strings.Contains(err.Error(), "disk is full")
}

// again is the command that takes the run up.
func (x *execution) again() string {
	words := []string{"cohort", "run", "--resume", quote(x.dir)}
	if x.data != "" {
		words = append(words, "--data", quote(x.data))
	}
	return strings.Join(words, " ")
}

// quote writes a word for a shell.
func quote(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:+,=@%", r))
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func (x *execution) drive(ctx context.Context, run *record.Run) (record.State, error) {
	job, err := x.plan.Job(x.engine)
	if err != nil {
		return record.Failed, err
	}
	p := newProgress(x.io, x.plan.Recipe.Rounds, x.quiet)
	job.Observer = p
	job.Config.Stop = x.stop
	x.lending.furnish(job)
	_, err = job.RunIn(ctx, run, journal.OS(), x.plan.Recipe.Run.Checkpoint)
	p.wipe()
	return stateAfter(err), err
}

// stateAfter is the state that a run is left in by what it ended with.
func stateAfter(err error) record.State {
	switch {
	case err == nil:
		return record.Finished
	case errors.Is(err, federated.ErrStopped), errors.Is(err, context.Canceled):
		return record.Interrupted
	}
	return record.Failed
}

// folderError adds to the errors of opening a run what to do about them.
func folderError(dir string, err error) error {
	var damaged *journal.DamageError
	var locked *journal.LockedError
	switch {
	case errors.Is(err, journal.ErrExists):
		command := "run"
		if recipe.AmongOrganisations(dir) {
			command = "assist"
		}
		return usagef("%s holds a run already; choose another --name or --dir, or go on with \"cohort %s --resume %s\"", dir, command, quote(dir))
	case errors.As(err, &locked):
		return fmt.Errorf("%s: another process is at work on this run: %w", dir, err)
	case errors.As(err, &damaged):
		return fmt.Errorf("%w\nadd --from-last-good to go on from the record before it; what follows is moved aside", err)
	}
	return err
}

// summarise reads what the run in dir has come to.
func summarise(dir string) (result, error) {
	run, metrics, err := recipe.Report(dir)
	if err != nil {
		return result{}, err
	}
	defer metrics.Close()
	res := result{Schema: schema, Run: dir, State: run.Meta.State, Method: run.Meta.Method, Seed: run.Meta.Seed, Digest: run.Digest,
		curves: map[string]curve{}}
	if res.Metrics, res.Rounds, err = recipe.LastMetrics(dir); err != nil {
		return res, err
	}
	for name := range res.Metrics {
		points, err := run.Metrics.Series(name, "")
		if err != nil {
			return res, err
		}
		var c curve
		for _, p := range points {
			c.x, c.y = append(c.x, float64(p.Round)), append(c.y, p.Value)
		}
		res.curves[name] = c
	}
	r, err := recipe.OfRun(dir)
	if err != nil {
		return res, err
	}
	if res.Privacy, err = r.Noise(); err != nil {
		return res, err
	}
	if res.Workers, err = recipe.Workers(dir); err != nil {
		return res, err
	}
	card, err := recipe.CardOfRun(dir)
	if err != nil {
		return res, err
	}
	for _, l := range card.Levels {
		row := levelResult{Level: l}
		if row.Up, err = recipe.Sum(metrics, "bytes.up", l.Name); err != nil {
			return res, err
		}
		if row.Down, err = recipe.Sum(metrics, "bytes.down", l.Name); err != nil {
			return res, err
		}
		res.Levels = append(res.Levels, row)
	}
	return res, nil
}

// print tells people what came of a run.
func (r result) print(io streams) {
	if _, ok := r.Metrics["accuracy"]; ok || r.Metrics["accuracy.personal"] > 0 {
		plotCurves(io, accuracyPlot, r.curves["accuracy"].as("global"), r.curves["accuracy.local"].as("at clients"),
			r.curves["accuracy.personal"].as("own models"))
	} else {
		plotCurves(io, lossPlot, r.curves["loss.train"].as("training"), r.curves["loss"].as("test"))
	}
	r.printLevels(io)
	io.say("")
	t := newTable("", ">")
	for _, m := range shown {
		if v, ok := r.Metrics[m.name]; ok {
			t.add(r.words(m.name, m.words), m.format(v))
		}
	}
	for _, d := range []struct{ name, words string }{
		{"bytes.up", "sent by clients to train"}, {"bytes.down", "sent to clients to train"},
		{"bytes.protocol", "sent both ways for keys, shares and lists"}, {"bytes.measuring", "sent both ways to measure"}} {
		if v := r.Metrics[d.name]; v > 0 {
			t.add(d.words, inBytes(v))
		}
	}
	t.body(io.out)
	r.printWorkers(io)
	io.say("\nrun     %s\nreport  %s", r.Run, r.Report)
}

// words adds to the words for a metric what they mean in this run.
func (r result) words(metric, words string) string {
	if metric == "epsilon" && r.Privacy != nil {
		return fmt.Sprintf("%s, at δ = %g", words, r.Privacy.Delta)
	}
	return words
}

func (r result) printLevels(io streams) {
	t := newTable("level", ">width", ">clients", ">parameters", ">MACs", ">model", ">sent up", ">sent down")
	for _, l := range r.Levels {
		name := l.Name
		if name == "" {
			name = "all"
		}
		t.add(name, fmt.Sprintf("%g", l.Rate), count(l.Clients), count(l.Params), count(l.MACs),
			inBytes(float64(l.Bytes)), inBytes(l.Up), inBytes(l.Down))
	}
	t.write(io.out)
}

func (r result) printWorkers(io streams) {
	if len(r.Workers) == 0 {
		return
	}
	io.say("")
	t := newTable("worker", ">threads", ">clients", ">given to others", ">sent to it", ">received")
	for _, w := range r.Workers {
		t.add(w.Name, fmt.Sprint(w.Threads), count(w.Clients), count(w.Given), inBytes(float64(w.Sent)), inBytes(float64(w.Received)))
	}
	t.write(io.out)
}

// curve is a series of a run, by rounds.
type curve struct {
	name string
	x, y []float64
}

// as returns the curve with a label.
func (c curve) as(name string) curve { c.name = name; return c }

// What curves show.
var (
	accuracyPlot = termplot.Options{Title: "accuracy", XLabel: "round", Format: func(v float64) string { return fmt.Sprintf("%.0f %%", 100*v) }}
	lossPlot     = termplot.Options{Title: "loss", XLabel: "round"}
)

// plotCurves draws those curves that have at least two points.
func plotCurves(io streams, what termplot.Options, curves ...curve) {
	var series []termplot.Series
	for _, c := range curves {
		if len(c.y) > 1 {
			series = append(series, termplot.Series{Name: c.name, X: c.x, Y: c.y})
		}
	}
	if len(series) == 0 {
		return
	}
	what.Width, what.ASCII, what.Color = io.plot.Width, io.plot.ASCII, io.plot.Color
	io.say("%s", termplot.Plot(what, series...))
}
