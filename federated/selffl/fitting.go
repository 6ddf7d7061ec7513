package selffl

import (
	"context"
	"fmt"
	"slices"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
	"gonum.org/v1/gonum/mat"
)

// fitting is the steps of a visit, and what is measured on the way.
type fitting struct {
	*visit
	setting
	session *train.Session
	rate    float64 // that the optimiser is given
	trace   Moments // of what is measured, over the last half of the steps
	steps   int     // so far
	report  train.Report
	err     error // of what watches the steps
}

// fit trains and returns what the client keeps.
func (f *fitting) fit(ctx context.Context) (memory, error) {
	next := memory{round: f.t.Round, pass: f.before.pass, offset: f.before.offset, rate: f.Rate, past: f.before.past}
	if f.levels != nil {
		as, err := f.levels.Assignment(f.level)
		if err != nil {
			return next, err
		}
		next.rate = as.Rate
	}
	f.look()
	start, err := f.gradient(ctx)
	if err != nil {
		return next, err
	}
	if f.Steps > 0 { // the batches of federated averaging
		fit := f.Fit(f.at, f.t.Round)
		fit.Epochs, fit.Steps, fit.Rate, fit.Progress = 0, f.setting.steps, train.Constant(f.rate), f.watch
		f.report, err = f.session.Fit(ctx, fit)
	} else {
		err = f.passes(ctx, &next)
	}
	if err == nil {
		err = f.err
	}
	if err != nil || f.report.Steps == 0 {
		return next, err
	}
	if next.theta, err = f.session.Params(); err != nil {
		return next, err
	}
	end, err := f.gradient(ctx)
	if err != nil {
		return next, err
	}
	next.h = f.curvatures(start, end, next.theta)
	if f.Within == Rounds {
		next.past = append(slices.Clone(next.past), pick(next.theta, f.measured()))
		next.past = next.past[max(0, len(next.past)-RoundsKept):]
	}
	next.v, err = f.variances(ctx, next)
	next.mass = make([]float64, len(f.blocks))
	return next, err
}

// passes steps through the client's data pass by pass, each in an order of its own, from where the last round ended.
func (f *fitting) passes(ctx context.Context, next *memory) error {
	n, batch, left := f.at.Train.Len(), f.batch(), f.setting.steps
	random := f.at.Rand(f.t.Round, "batches")
	var total float64
	for left > 0 {
		if next.offset >= n {
			next.pass, next.offset = next.pass+1, 0
		}
		rows := slices.Clone(f.at.Train.Rows)
		f.at.Rand(next.pass, "pass").Shuffle(n, func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
		rest := rows[next.offset:]
		steps := min(left, (len(rest)+batch-1)/batch)
		fit := f.Fit(f.at, f.t.Round)
		fit.Data, fit.Epochs, fit.Steps, fit.Batch, fit.Rate = f.rowsOf(rest), 0, steps, batch, train.Constant(f.rate)
		fit.Ordered, fit.Random, fit.Progress = true, random, f.watch
		r, err := f.session.Fit(ctx, fit)
		if err != nil {
			return err
		}
		f.report.Steps += r.Steps
		f.report.Examples += r.Examples
		f.report.Skipped += r.Skipped
		f.report.Last = r.Last
		total += float64(r.Loss * float64(r.Examples))
		next.offset += steps * batch
		left -= steps
	}
	if f.report.Examples > 0 {
		f.report.Loss = total / float64(f.report.Examples)
	}
	return nil
}

// watch looks at the model where the last half of the steps begins, and after each step from there on. So even a single step
// shows two models. A client that took one and learned nothing of its uncertainty from it would stay uncertain, and take one
// step, for ever.
func (f *fitting) watch(int, float64) {
	f.steps++
	f.look()
}

func (f *fitting) look() {
	if f.steps < f.setting.steps/2 || f.Within != Trajectory && f.Within != Calibrated || f.err != nil {
		return
	}
	w, err := f.session.Params()
	if err != nil {
		f.err = err
		return
	}
	observe(&f.trace, pick(w, f.measured()))
}

func observe(m *Moments, s weights.Set) {
	narrow, wide := parts(s)
	if wide != nil {
		Observe(m, wide...)
	} else {
		Observe(m, narrow...)
	}
}

// parts returns the elements of a set's tensors; the second is nil unless they are in float64.
func parts(s weights.Set) (narrow [][]float32, wide [][]float64) {
	for _, t := range s.All() {
		if t.F64 != nil {
			wide = append(wide, t.F64)
		}
		narrow = append(narrow, t.F32)
	}
	return narrow, wide
}

// gradientRows is how many of a client's examples curvature is measured on.
const gradientRows = 1024

// sample is the examples that gradients are taken of: whole batches of the first ones.
func (f *fitting) sample() (dataset.View, int) {
	n, batch := min(f.at.Train.Len(), gradientRows), f.batch()
	if n > batch {
		n -= n % batch
	}
	return f.rowsOf(f.at.Train.Rows[:n]), min(batch, n)
}

// gradient returns that of the client's loss at the session's weights; empty if no curvature is measured.
func (f *fitting) gradient(ctx context.Context) (weights.Set, error) {
	if f.Curvature == One {
		return weights.Set{}, nil
	}
	return f.gradientHere(ctx)
}

func (f *fitting) gradientHere(ctx context.Context) (weights.Set, error) {
	view, batch := f.sample()
	p := train.Pass{Batch: batch, Random: f.at.Rand(f.t.Round, "curvature"), SkipSmall: true}
	p.Augment.Skew = f.at.Skew
	_, g, err := f.session.Gradient(ctx, view, p)
	return g, err
}

// curvatures returns h_m of each block: measured, or the old one, or 1.
func (f *fitting) curvatures(start, end, theta weights.Set) []float64 {
	h := make([]float64, len(f.blocks))
	for i, b := range f.blocks {
		h[i] = f.curvature(i)
		if f.Curvature == One {
			continue
		}
		var now float64
		var ok bool
		if _, wide := parts(theta); wide != nil {
			now, ok = secant(start, end, f.init, theta, b, func(s weights.Set) [][]float64 { _, w := parts(s); return w })
		} else {
			now, ok = secant(start, end, f.init, theta, b, func(s weights.Set) [][]float32 { n, _ := parts(s); return n })
		}
		if ok {
			h[i] = now + f.decay()
		}
	}
	return h
}

func secant[F Float](start, end, init, theta weights.Set, b block, elements func(weights.Set) [][]F) (float64, bool) {
	of := func(s weights.Set) [][]F { return elements(pick(s, b.measured)) }
	return Secant(of(start), of(end), of(init), of(theta))
}

// variances returns v_m of each block after this round.
func (f *fitting) variances(ctx context.Context, next memory) ([]float64, error) {
	fresh, err := f.measure(ctx, next)
	if err != nil {
		return nil, err
	}
	v := make([]float64, len(f.blocks))
	for i := range v {
		if f.known {
			v[i] = f.before.v[i]
		}
		if fresh != nil {
			v[i] = Smooth(v[i], fresh[i])
		}
	}
	return v, nil
}

// measure returns v_m of each block as this round shows it; nil if it does not show it.
func (f *fitting) measure(ctx context.Context, next memory) ([]float64, error) {
	trace := &f.trace
	switch f.Within {
	case Sandwich, Fisher:
		return f.information(ctx)
	case Rounds:
		trace = &Moments{}
		for _, s := range next.past {
			observe(trace, s)
		}
	}
	if trace.Len() < 2 {
		return nil, nil
	}
	out := make([]float64, len(f.blocks))
	lo := 0
	for i, b := range f.blocks {
		hi := lo + pick(next.theta, b.measured).Size()
		out[i], _ = trace.Variance(lo, hi)
		if f.Within == Calibrated {
			out[i] *= Calibration(f.batch(), f.at.Train.Len(), f.curvature(i), f.rates[i])
		}
		lo = hi
	}
	return out, nil
}

// mostParameters is for how many parameters matrices of all of them are computed.
const mostParameters = 1024

// information returns the mean diagonals of H⁻¹CH⁻¹/n from gradients of single examples. H comes from differences of the
// gradient, (∇F(θ + εe_j) − ∇F(θ − εe_j))/2ε, or is the mean of g·gᵀ.
func (f *fitting) information(ctx context.Context) ([]float64, error) {
	theta, err := f.session.Params()
	if err != nil {
		return nil, err
	}
	names := f.trainedNames()
	at := flat(theta, names)
	d := len(at)
	view, _ := f.sample()
	second, mean := mat.NewSymDense(d, nil), mat.NewVecDense(d, nil)
	one := &fitting{visit: f.visit, session: f.session}
	for _, row := range view.Rows {
		p := train.Pass{Random: f.at.Rand(f.t.Round, fmt.Sprint("example ", row))}
		p.Augment.Skew = f.at.Skew
		_, g, err := f.session.Gradient(ctx, f.rowsOf([]int32{row}), p)
		if err != nil {
			return nil, err
		}
		x := mat.NewVecDense(d, flat(g, names))
		second.SymRankOne(second, 1, x)
		mean.AddVec(mean, x)
	}
	n := float64(view.Len())
	second.ScaleSym(1/n, second)
	h := second
	c := mat.NewSymDense(d, nil)
	c.CopySym(second)
	if f.Within == Sandwich {
		c.SymRankOne(c, -1/(n*n), mean)
		if h, err = one.hessian(ctx, theta, names, at); err != nil {
			return nil, err
		}
	}
	all, err := SandwichVariance(h, c, f.at.Train.Len())
	if err != nil {
		return nil, fmt.Errorf("uq %s: %w", f.Within, err)
	}
	out := make([]float64, len(f.blocks))
	place, lo := map[string][2]int{}, 0
	for _, name := range names {
		hi := lo + theta.Must(name).Len()
		place[name] = [2]int{lo, hi}
		lo = hi
	}
	for i, b := range f.blocks {
		count := 0
		for _, name := range b.measured {
			for _, x := range all[place[name][0]:place[name][1]] {
				out[i] += x
				count++
			}
		}
		out[i] /= float64(count)
	}
	return out, nil
}

// hessian returns that of the client's loss, and leaves the session's weights as they were.
func (f *fitting) hessian(ctx context.Context, theta weights.Set, names []string, at []float64) (*mat.SymDense, error) {
	d := len(at)
	h := mat.NewSymDense(d, nil)
	const eps = 1e-2
	side := func(j int, by float64) ([]float64, error) {
		moved := theta.Clone()
		k := j
		for _, name := range names {
			t := moved.Must(name)
			if k < t.Len() {
				t.SetAt(k, t.At(k)+by)
				break
			}
			k -= t.Len()
		}
		if err := f.session.SetParams(moved); err != nil {
			return nil, err
		}
		g, err := f.gradientHere(ctx)
		return flat(g, names), err
	}
	for j := range d {
		up, err := side(j, eps)
		if err != nil {
			return nil, err
		}
		down, err := side(j, -eps)
		if err != nil {
			return nil, err
		}
		for i := range up { // both triangles are measured; their mean is symmetric
			h.SetSym(i, j, h.At(i, j)+(up[i]-down[i])/(2*eps)*half(i, j))
		}
	}
	for j := range d {
		h.SetSym(j, j, h.At(j, j)+f.decay())
	}
	return h, f.session.SetParams(theta)
}

func half(i, j int) float64 {
	if i == j {
		return 1
	}
	return 0.5
}

// trainedNames are the tensors that are trained.
func (a *Algorithm) trainedNames() (names []string) {
	for _, b := range a.blocks {
		names = append(names, b.governed...)
	}
	return names
}

// flat returns the elements of the named tensors one after the other.
func flat(s weights.Set, names []string) []float64 {
	var out []float64
	for _, n := range names {
		t := s.Must(n)
		for i := range t.Len() {
			out = append(out, t.At(i))
		}
	}
	return out
}

var _ federated.Client = client{}
