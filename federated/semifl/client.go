package semifl

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/dataset/augment"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

type client struct{ *Algorithm }

// Run does a member's part.
func (c client) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	if t.Phase == "eval" {
		if at.Test.Len() > 0 && at.Test.Data.Labels == nil { // nothing to compare with
			return federated.Result{Status: federated.Abstained}, nil
		}
		return c.Cycle.Run(ctx, at, t, keep)
	}
	var l task
	if err := json.Unmarshal(t.Params, &l); err != nil {
		return federated.Result{}, fmt.Errorf("task parameters: %w", err)
	}
	switch t.Phase {
	case "prepare", "stats":
		return c.measure(ctx, at, t, l)
	case "train":
		return c.train(ctx, at, t, l, keep)
	}
	return federated.Result{}, fmt.Errorf("phase %q is unknown to this client", t.Phase)
}

// train labels, trains on what was kept, and returns the change.
func (c client) train(ctx context.Context, at federated.Local, t federated.Task, l task, keep *weights.Set) (federated.Result, error) {
	if at.Train.Len() == 0 {
		return federated.Result{Status: federated.Abstained}, nil
	}
	if c.Loss != Labelled && c.Strong.Draws > 0 && !at.Train.Data.HasBytes(at.Skew) {
		return federated.Result{}, fmt.Errorf("strong augmentation is for images of bytes, and data %s are none (shape %v, noise %g): set strong.draws to 0",
			at.Train.Data.Name, at.Train.Data.Shape, at.Skew.Variance)
	}
	w := t.Sets["w"]
	var own *labels
	if c.relabels() {
		var err error
		if own, err = c.label(ctx, at, t.Round, l.Rate, w, t.Sets["stats"]); err != nil {
			return federated.Result{}, fmt.Errorf("labelling: %w", err)
		}
		if len(own.sure) == 0 {
			return federated.Result{Status: federated.Abstained}, nil
		}
	}
	f, err := c.begin(at, t, l, own, keep)
	if err != nil {
		return federated.Result{}, err
	}
	defer f.s.Close()
	if err := f.run(ctx); err != nil {
		return federated.Result{}, err
	}
	if f.report.Steps == 0 { // nothing was sure enough, or every batch was too small
		return federated.Result{Status: federated.Abstained}, nil
	}
	return f.result(w)
}

// fitting is one member's training in one round.
type fitting struct {
	client
	at     federated.Local
	round  int
	own    *labels // made before; nil where labels are the member's own, or made batch by batch
	tally  tally
	s      *train.Session
	step   *train.Spec
	ask    *train.Spec // FixBatch
	weak   dataset.Augment
	random map[string]*rng.Stream
	report train.Report
	total  float64 // loss of all examples
	bytes  []uint8 // scratch: one image
	x, y   []float32
	other  []float32
	labels []int32
}

func (c client) begin(at federated.Local, t federated.Task, l task, own *labels, keep *weights.Set) (*fitting, error) {
	f := &fitting{client: c, at: at, round: t.Round, own: own, weak: c.weak(at), random: map[string]*rng.Stream{}}
	if own != nil {
		f.tally = own.tally
	}
	var err error
	if c.mixes() {
		f.step, err = c.twinStep(l.Rate)
	} else {
		f.step, err = c.step(l.Rate)
	}
	if err == nil && c.Loss == FixBatch {
		f.ask, err = c.askStep(l.Rate)
	}
	if err != nil {
		return nil, err
	}
	var o train.Options
	if c.Decomposed {
		o.Extras = map[string]weights.Set{"other": t.Sets["sigma"]}
	}
	if keep != nil && !c.Forget && belongs(*keep, t.Sets["w"]) {
		o.OptimizerState = *keep
	}
	// Streams of their own, so that one augmentation more or less leaves the draws of the others as they are.
	for _, purpose := range []string{"fix", "mix", "strong", "weak", "mixed", "lambda"} {
		f.random[purpose] = at.Rand(t.Round, purpose)
	}
	f.bytes = make([]uint8, at.Train.Data.Size())
	f.s, err = at.Engine.Begin(f.step, t.Sets["w"], o)
	return f, err
}

// mixes reports whether steps have the mix loss.
func (a *Algorithm) mixes() bool { return a.Loss == FixMix && a.Lambda > 0 }

// belongs reports whether the state of an optimiser is one of weights of these shapes: a member whose level has changed begins
// anew.
func belongs(state, w weights.Set) bool {
	for name, t := range state.All() {
		param, _, isSlot := strings.Cut(name, "/")
		if x, ok := w.Get(param); isSlot && ok && !slices.Equal(x.Shape, t.Shape) {
			return false
		}
	}
	return true
}

// run makes all steps.
func (f *fitting) run(ctx context.Context) error {
	if f.Loss == Labelled {
		fit := f.Fit(f.at, f.round)
		fit.Epochs, fit.Steps = f.length(fit.Data.Len(), cmp.Or(fit.Batch, fit.Data.Len()))
		var err error
		f.report, err = f.s.Fit(ctx, fit)
		return err
	}
	fix := make([]int, f.at.Train.Len()) // positions
	for i := range fix {
		fix[i] = i
	}
	var mix []int
	if f.own != nil {
		fix = slices.Clone(f.own.sure)
		if f.mixes() {
			mix = f.own.mixed(f.random["mix"])
		}
	}
	batch := f.Training.Batch
	if batch == 0 {
		batch = len(fix)
	}
	epochs, steps := f.length(len(fix), batch)
	if steps == 0 {
		steps = epochs * ((len(fix) + batch - 1) / batch)
	}
	for step := 0; step < steps; {
		shuffle(fix, f.random["fix"])
		shuffle(mix, f.random["mix"])
		for from := 0; from < len(fix) && step < steps; from += batch {
			step++
			if err := ctx.Err(); err != nil {
				return err
			}
			to := min(from+batch, len(fix))
			if n := to - from; n == 1 && f.DropSingle || n < f.step.Model.MinBatch && f.Training.SkipSingles {
				f.report.Skipped++
				continue
			}
			var err error
			switch {
			case f.ask != nil:
				err = f.askedStep(ctx, fix[from:to])
			case mix != nil:
				err = f.mixedStep(fix[from:to], mix[from:to])
			default:
				err = f.fixStep(fix[from:to], f.own.class)
			}
			if err != nil {
				return err
			}
		}
	}
	if f.report.Examples > 0 {
		f.report.Loss = f.total / float64(f.report.Examples)
	}
	return nil
}

func shuffle(list []int, r *rng.Stream) {
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
}

// length returns epochs or steps of a member with n examples in batches.
func (f *fitting) length(n, batch int) (whole, steps int) {
	if f.Epochs == 0 {
		return f.Training.Epochs, f.Training.Steps
	}
	return extent(f.Epochs, n, batch)
}

// extent returns how long so many epochs of n examples are: whole epochs, or ⌈part·batches⌉ steps.
func extent(epochs float64, n, batch int) (whole, steps int) {
	if epochs == math.Trunc(epochs) {
		return int(epochs), 0
	}
	return 0, int(math.Ceil(epochs*float64((n+batch-1)/batch) - 1e-9))
}

// fixStep is a step on strong views of the examples at positions, with their labels.
func (f *fitting) fixStep(positions []int, class []int32) error {
	size := f.at.Train.Data.Size()
	f.x = grow(f.x, len(positions)*size)
	f.labels = grow(f.labels, len(positions))
	for i, at := range positions {
		f.strong(f.x[i*size:(i+1)*size], at)
		f.labels[i] = class[at]
	}
	return f.descend(train.Batch{N: len(positions), X: f.x, Labels: f.labels})
}

// mixedStep is a step on strong views of fix and on mixtures of weak views of fix and mix.
func (f *fitting) mixedStep(fix, mix []int) error {
	d := f.at.Train.Data
	size, classes := d.Size(), f.global.Classes
	lambda := f.random["lambda"].Beta(f.Beta, f.Beta)
	f.x, f.other = grow(f.x, 2*len(fix)*size), grow(f.other, size)
	f.y = grow(f.y, 2*len(fix)*classes)
	clear(f.y)
	for i := range fix {
		strong, mixed := f.x[2*i*size:(2*i+1)*size], f.x[(2*i+1)*size:(2*i+2)*size]
		f.strong(strong, fix[i])
		f.weakly(mixed, fix[i], "weak")
		f.weakly(f.other, mix[i], "mixed")
		for j, v := range f.other {
			mixed[j] = float32(float64(lambda*float64(mixed[j])) + float64((1-lambda)*float64(v)))
		}
		y := f.y[2*i*classes : (2*i+2)*classes]
		y[f.own.class[fix[i]]] = 1
		y[classes+int(f.own.class[fix[i]])] += float32(lambda)
		y[classes+int(f.own.class[mix[i]])] += float32(1 - lambda)
	}
	return f.descend(train.Batch{N: len(fix), X: f.x, Targets: f.y})
}

// askedStep labels weak views of the examples at positions with the model as it is, and steps on strong views of those that it is
// sure about.
func (f *fitting) askedStep(ctx context.Context, positions []int) error {
	d := f.at.Train.Data
	size := d.Size()
	f.x, f.other = grow(f.x, len(positions)*size), grow(f.other, len(positions)*size)
	for i, at := range positions {
		f.weakly(f.other[i*size:(i+1)*size], at, "weak")
	}
	if err := f.s.Switch(f.ask); err != nil {
		return err
	}
	z, err := f.s.Predict(ctx, seenAs(d, f.other), train.EvalOptions{Batch: len(positions)})
	if err := errors.Join(err, f.s.Switch(f.step)); err != nil {
		return err
	}
	f.labels = f.labels[:0]
	scratch := f.other[:size]
	for i, at := range positions {
		f.strong(scratch, at) // drawn for all, so that the draws do not depend on the labels
		class, p := surest(z, i)
		keep := p >= f.Threshold
		f.tally.count(class, truth(f.at.Train, at), keep)
		if keep {
			copy(f.x[len(f.labels)*size:], scratch)
			f.labels = append(f.labels, class)
		}
	}
	n := len(f.labels)
	if n == 0 || n < f.step.Model.MinBatch || n == 1 && f.DropSingle {
		f.report.Skipped++
		return nil
	}
	return f.descend(train.Batch{N: n, X: f.x[:n*size], Labels: f.labels})
}

func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// descend makes one step.
func (f *fitting) descend(b train.Batch) error {
	loss, err := f.s.Step(b, f.Training.Rate.At(f.round))
	if err != nil {
		return err
	}
	f.report.Steps++
	f.report.Examples += b.N
	f.report.Last = loss
	f.total += float64(loss * float64(b.N))
	return nil
}

// strong writes the strong view of an example.
func (f *fitting) strong(dst []float32, position int) {
	d, row := f.at.Train.Data, f.at.Train.Rows[position]
	if f.Strong.Draws == 0 {
		d.Fill(dst, []int32{row}, f.weak, f.random["strong"])
		return
	}
	d.Bytes(f.bytes, row, f.weak, f.random["strong"])
	f.Strong.Apply(augment.Image{Height: d.Shape[0], Width: d.Shape[1], Channels: d.Shape[2], Pix: f.bytes}, f.random["strong"])
	d.NormaliseBytes(dst, f.bytes)
}

// weakly writes a weak view of an example.
func (f *fitting) weakly(dst []float32, position int, stream string) {
	f.at.Train.Data.Fill(dst, []int32{f.at.Train.Rows[position]}, f.weak, f.random[stream])
}

// result is what the member sends and keeps.
func (f *fitting) result(w weights.Set) (federated.Result, error) {
	trained, err := f.s.Params()
	if err != nil {
		return federated.Result{}, err
	}
	r := federated.Result{Weight: 1, Addends: map[string]weights.Set{"w": trained.Sub(w)}, Scalars: federated.FitScalars(f.report)}
	if f.Loss != Labelled {
		f.tally.scalars(r.Scalars)
		if f.WeighKept {
			r.Weight = uint64(max(1, f.tally.kept))
		}
	}
	if !f.Forget {
		state, err := f.s.OptimizerState()
		if err != nil {
			return federated.Result{}, err
		}
		r.Keep = &state
	}
	return r, nil
}
