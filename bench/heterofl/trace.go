package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/heterofl"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// Drawn is everything random about a run, and the settings that the peer needs.
type Drawn struct {
	Model     string      `json:"model"`
	Widths    []int       `json:"widths"`
	Blocks    []int       `json:"blocks,omitempty"`
	Norm      string      `json:"norm"`
	Data      string      `json:"data"`
	TrainRows []int32     `json:"train_rows"` // rows of the files; the others count from 0 in these
	TestRows  []int32     `json:"test_rows"`
	Train     [][]int32   `json:"train"` // by client
	Test      [][]int32   `json:"test"`
	Batch     int         `json:"batch"`
	Momentum  float64     `json:"momentum"`
	Decay     float64     `json:"decay"`
	Clip      float64     `json:"clip"`
	Crop      int         `json:"crop"`
	Flip      bool        `json:"flip"`
	Mask      string      `json:"mask"`
	Scaler    bool        `json:"scaler"`
	Rounds    []*DrawnFor `json:"rounds"`
	Logits    []int       `json:"logits"` // test rows whose outputs are in the logits files
}

// DrawnFor is what was drawn for one round, and what was measured in it.
type DrawnFor struct {
	Rate   float64    `json:"rate"`
	Tasks  []DrawnRun `json:"tasks"`
	Stats  []DrawnRun `json:"stats"` // client by client, or the server's alone
	Global *float64   `json:"global,omitempty"`
	Local  *float64   `json:"local,omitempty"`
}

// DrawnRun is a way through data: rows in order, epoch by epoch, and each row's crop and flip.
type DrawnRun struct {
	Client  int        `json:"client"`
	Level   string     `json:"level,omitempty"`
	Width   float64    `json:"width,omitempty"` // s, as a part of the widths in the recipe
	Rows    [][]int32  `json:"rows"`            // by epoch
	Windows [][][3]int `json:"windows,omitempty"`
}

// recorder is an algorithm that remembers what its members draw. Streams have names, so that drawing from them once more
// changes nothing.
type recorder struct {
	federated.Algorithm
	problem *federated.Problem
	mu      sync.Mutex
	drawn   *Drawn
	last    federated.State
}

// Client implements [federated.Algorithm].
func (r *recorder) Client() federated.Client { return recordingClient{r, r.Algorithm.Client()} }

// Finish implements [federated.Algorithm].
func (r *recorder) Finish(ctx context.Context, srv federated.Server, s federated.State, p federated.Phase,
	sums map[string]*federated.Sum, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	next, d, err := r.Algorithm.Finish(ctx, srv, s, p, sums, roll)
	r.last = next
	if p.Name == "test" && r.problem.Measuring.Pooled {
		r.add(s.Round, false, r.walk(srv.Train, 1, srv.Rand(s.Round, "stats")))
	}
	return next, d, err
}

type recordingClient struct {
	*recorder
	client federated.Client
}

// Run implements [federated.Client].
func (c recordingClient) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	switch t.Phase {
	case "train":
		var level struct{ Rate float64 }
		if err := json.Unmarshal(t.Params, &level); err != nil {
			return federated.Result{}, err
		}
		run := c.walk(at.Train, c.problem.Training.Epochs, at.Rand(t.Round, "batches"))
		run.Client, run.Level, run.Width = at.Member.Index, t.Tag, level.Rate
		c.add(t.Round, true, run)
	case "stats":
		run := c.walk(at.Train, 1, at.Rand(t.Round, "stats"))
		run.Client = at.Member.Index
		c.add(t.Round, false, run)
	}
	return c.client.Run(ctx, at, t, keep)
}

// walk draws what a pass over a view draws: the order of the rows from one stream, crops and flips from another.
func (r *recorder) walk(v dataset.View, epochs int, s *rng.Stream) DrawnRun {
	order, draws := s.Fork("batches"), s.Fork("draws")
	aug := r.problem.Training.Augment
	rows := slices.Clone(v.Rows)
	var run DrawnRun
	for range epochs {
		order.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
		run.Rows = append(run.Rows, slices.Clone(rows))
		if !aug.Random() {
			continue
		}
		var windows [][3]int
		for range rows {
			var w [3]int
			if pad := aug.CropPad; pad > 0 {
				w[0], w[1] = draws.IntN(2*pad+1)-pad, draws.IntN(2*pad+1)-pad
			}
			if aug.FlipH {
				w[2] = draws.IntN(2)
			}
			windows = append(windows, w)
		}
		run.Windows = append(run.Windows, windows)
	}
	return run
}

func (r *recorder) add(round int, training bool, run DrawnRun) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.drawn.Rounds) <= round {
		r.drawn.Rounds = append(r.drawn.Rounds, &DrawnFor{})
	}
	d := r.drawn.Rounds[round]
	if training {
		d.Tasks = append(d.Tasks, run)
	} else {
		d.Stats = append(d.Stats, run)
	}
}

// watcher writes the model of every round.
type watcher struct {
	*printer
	round func(simulation.Round)
}

// Round implements [simulation.Observer].
func (w watcher) Round(r simulation.Round) {
	w.printer.Round(r)
	w.round(r)
}

const logitRows = 1000

// trace runs a job in a run folder below dir and writes, into dir, trace.json (a [Drawn]), weights-N.safetensors (the global
// model and its statistics after N rounds), logits-N.safetensors (its outputs for the first test images), and
// model.safetensors, the model exported from the run folder.
func trace(ctx context.Context, dir, data string, plan *recipe.Plan, job *simulation.Job, engine *train.Engine, print *printer) error {
	if err := os.Mkdir(dir, 0o777); err != nil {
		return err
	}
	d, err := settings(ctx, plan, data)
	if err != nil {
		return err
	}
	rec := &recorder{Algorithm: job.Algorithm, problem: plan.Problem, drawn: d}
	job.Algorithm = rec
	start, err := rec.Init(ctx, job.Fleet.Server())
	if err != nil {
		return err
	}
	if err := weights.WriteFile(filepath.Join(dir, "weights-0.safetensors"), start.Sets["w"], nil); err != nil {
		return err
	}
	var failed error
	job.Observer = watcher{print, func(r simulation.Round) {
		if failed != nil {
			return
		}
		at := d.Rounds[r.RoundClosed.Round]
		at.Rate = plan.Problem.Training.Rate.At(r.RoundClosed.Round)
		if v := r.Metric("accuracy", ""); !math.IsNaN(v) {
			at.Global = &v
		}
		if v := r.Metric("accuracy.local", ""); !math.IsNaN(v) {
			at.Local = &v
		}
		slices.SortFunc(at.Tasks, func(a, b DrawnRun) int { return a.Client - b.Client })
		slices.SortFunc(at.Stats, func(a, b DrawnRun) int { return a.Client - b.Client })
		failed = writeRound(ctx, dir, r.RoundClosed.Round+1, plan, engine, rec.last)
	}}
	run, err := record.Create(filepath.Join(dir, "run"), record.Meta{ID: "trace", Method: plan.Recipe.Method, Seed: plan.Recipe.Seed},
		plan.Recipe.YAML(), record.Options{})
	if err != nil {
		return err
	}
	_, err = job.RunIn(ctx, run, journal.OS(), 1)
	if err == nil {
		err = failed
	}
	if e := run.Close(record.Finished, err); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	m, err := simulation.Model(filepath.Join(dir, "run"), "final")
	if err != nil {
		return err
	}
	if err := weights.WriteFile(filepath.Join(dir, "model.safetensors"), m.Export(), nil); err != nil {
		return err
	}
	text, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "trace.json"), text, 0o666)
}

// settings says what does not change from round to round.
func settings(ctx context.Context, plan *recipe.Plan, data string) (*Drawn, error) {
	r, split := plan.Recipe, plan.Split
	h, ok := r.Options.(*heterofl.Options)
	if !ok || !strings.HasPrefix(h.Mode, "a") {
		return nil, errors.New("a trace needs a recipe of heterofl with a global model of level a")
	}
	norm := string(r.Model.Norm)
	if norm == "" {
		norm = "sbn"
	}
	d := &Drawn{
		Model: r.Model.Name, Widths: r.Model.Widths, Blocks: r.Model.Blocks, Norm: norm, Data: r.Data.Name,
		Batch: r.Train.Batch, Momentum: r.Train.Optimizer.Momentum, Decay: r.Train.Optimizer.Decay, Clip: r.Train.Clip,
		Crop: r.Train.Crop, Flip: r.Train.Flip, Mask: h.Mask, Scaler: h.Scaler,
	}
	train, test := plan.Dealt.Train, plan.Dealt.Test
	for k := range train.Clients() {
		d.Train = append(d.Train, train.Rows(k))
		d.Test = append(d.Test, test.Rows(k))
	}
	for i := range min(logitRows, split.Test.Len()) {
		d.Logits = append(d.Logits, i)
	}
	spec := r.Data
	spec.Root, spec.Train, spec.Test = data, 0, 0
	whole, err := dataset.Load(ctx, spec)
	if err != nil {
		return nil, err
	}
	if d.TrainRows, err = rowsOf(split.Train, whole.Train); err == nil {
		d.TestRows, err = rowsOf(split.Test, whole.Test)
	}
	return d, err
}

// rowsOf finds part, some rows of whole in their order.
func rowsOf(part, whole *dataset.Examples) ([]int32, error) {
	size, at := whole.Size(), 0
	rows := make([]int32, 0, part.Len())
	for i := range part.Len() {
		want := part.U8[i*size : (i+1)*size]
		for at < whole.Len() && (whole.Labels[at] != part.Labels[i] || !bytes.Equal(whole.U8[at*size:(at+1)*size], want)) {
			at++
		}
		if at == whole.Len() {
			return nil, fmt.Errorf("row %d of %s is not in the files", i, part.Name)
		}
		rows = append(rows, int32(at))
		at++
	}
	return rows, nil
}

func writeRound(ctx context.Context, dir string, round int, plan *recipe.Plan, engine *train.Engine, s federated.State) error {
	w, stats := s.Sets["w"], s.Sets["stats"]
	all := w.Filter(func(string) bool { return true })
	measured := plan.Problem.Due(round - 1)
	if measured {
		all.Merge(stats.Convert(plan.Problem.DType))
	}
	if err := weights.WriteFile(filepath.Join(dir, fmt.Sprintf("weights-%d.safetensors", round)), all, nil); err != nil {
		return err
	}
	if !measured {
		return nil
	}
	model, err := plan.Problem.Build(1)
	if err != nil {
		return err
	}
	view := plan.Split.Test.All()
	view.Rows = view.Rows[:min(logitRows, view.Len())]
	z, err := engine.Predict(ctx, &train.Spec{Model: model, DType: plan.Problem.DType}, w, stats, view, train.EvalOptions{Batch: 100})
	if err != nil {
		return err
	}
	set := weights.NewSet(1)
	set.Put("logits", z)
	return weights.WriteFile(filepath.Join(dir, fmt.Sprintf("logits-%d.safetensors", round)), set, nil)
}
