package mismatch

import (
	"cmp"
	"context"
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/parallel"
	"gonum.org/v1/gonum/mat"
)

// Result is what [Fit] knows about the links; the model has learned from it.
type Result struct {
	// Soft are the labels that the rows have in expectation, n×k: ȳ = P*y, of classes their probabilities. A row that can
	// have no label has its prediction.
	Soft *mat.Dense
	// Linked is by row the posterior probability that its own label is right: P_ii; 0 for rows that came without one.
	Linked []float64
	// Weight is by row the mass outside the dustbin: 1 where every row has a label.
	Weight []float64
	// Pair is by row the label of a hard pairing, −1 for none; nil unless it was asked for.
	Pair []int

	Alpha   float64 // α̂, the share of wrong links among the rows that came with a label and are in doubt; 1 if no row came with one
	Noise   float64 // σ̂² a coordinate; 1 for classes
	Margin  float64 // largest error of a row sum of the plan
	Entropy float64 // mean over the rows in doubt of −Σ_j P_ij log P_ij, natural log
	Rounds  int     // of all stages
	// Restarted tells that the transport had called every link right against the mixture, and began again with α held.
	Restarted bool
	Warnings  []string
}

// Fit fits m to the problem: MSL (after Xian, Hong, Ding, ICASSP 2022; reconstructed).
//
//	start      Huber's estimate from the given pairs, or labels averaged over blocks if no row came with one
//	mixture    density (1−α)N(y; f, σ²) + α N(y; ȳ, s²) of the given pairs; rows weigh by the posterior of a right link
//	transport  P ← Sinkhorn(log likelihood + log prior);  θ ← argmin Σ_ij P_ij ℓ(f_θ(x_i), y_j);
//	           σ² ← Σ P_ij‖y_j − f_i‖²/(nk);  α ← clip(1 − mean P_ii, 1/n, bound)
//
// After the last round the plan is computed once more, to the end; a [*MarginError] tells that it cannot be.
func Fit(ctx context.Context, p Problem, m Model, o Options) (*Result, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	l, err := p.layout()
	if err != nil {
		return nil, err
	}
	s := &search{Options: o, l: l, m: m, alpha: 0.5, noise: o.Noise}
	if err := s.prepare(); err != nil {
		return nil, err
	}
	if err := s.run(ctx); err != nil {
		return nil, err
	}
	return s.result()
}

// search is a fit under way.
type search struct {
	Options
	l     *layout
	m     Model
	plans []plan
	big   []bool // plans whose block is worked on by all threads
	post  *posterior
	f     *mat.Dense // predictions, n×k
	last  *mat.Dense

	alpha, noise float64
	held         bool // whether α stays as it is
	weighted     bool // whether rows lie in the dustbin
	made         int  // rounds
	restarted    bool
	worst        float64
}

func (s *search) prepare() error {
	l := s.l
	full := cmp.Or(s.Full, 500)
	if l.classes == nil && l.k > 1 {
		full = cmp.Or(s.Full, 3000)
	}
	if s.Plan == "full" {
		full = math.MaxInt
	}
	if s.Plan == "bin" || s.Plan == "" && l.classes != nil {
		full = 0
	}
	if l.classes == nil && l.k > 1 && l.largest() > full {
		return badInput("a block of %d rows with labels of %d numbers: vectors are matched by full plans only, of up to %d rows; divide the "+
			"rows into blocks, or raise the limit (memory is 16 bytes times the square)", l.largest(), l.k, full)
	}
	scratch := &pool{}
	for i := range l.blocks {
		b := &l.blocks[i]
		size := max(len(b.rows), len(b.labels))
		if s.Plan == "bin" && l.classes == nil && size < 20 {
			return badInput("a block of %d labels is too small for bins: leave the plan open, or ask for full", size)
		}
		if size > full {
			s.plans = append(s.plans, &binPlan{block: b, l: l})
		} else {
			s.plans = append(s.plans, &fullPlan{block: b, l: l, sinkhorn: s.Sinkhorn, scratch: scratch})
		}
		s.big = append(s.big, size >= 512)
	}
	if s.Alpha != nil {
		s.alpha, s.held = *s.Alpha, true
		if s.alpha == 0 && l.pairs < l.n {
			return badInput("no link is wrong (share 0), but %d rows came without a label", l.n-l.pairs)
		}
	}
	s.Bound = orElse64(s.Bound, 0.95)
	if l.pairs == 0 {
		s.alpha, s.held = 1, true
	}
	s.Tolerance = orElse64(s.Tolerance, 1e-6)
	if l.classes != nil {
		s.noise = 1
	}
	s.post = newPosterior(l.n, l.k)
	s.f, s.last = mat.NewDense(l.n, l.k, nil), mat.NewDense(l.n, l.k, nil)
	for i := range l.n {
		s.post.mass[i] = 1
	}
	for _, i := range l.settled {
		s.post.soft.SetRow(i, l.y.RawRowView(l.own[i]))
		s.post.own[i] = 1
	}
	for _, i := range l.lonely {
		s.post.mass[i], s.weighted = 0, true
	}
	for i := range l.blocks {
		if rows, _ := l.blocks[i].dust(s.Unmatched); rows > 0 {
			s.weighted = true
		}
	}
	return nil
}

func orElse64(v, otherwise float64) float64 {
	if v == 0 {
		return otherwise
	}
	return v
}

// run goes through the stages.
func (s *search) run(ctx context.Context) error {
	if s.Ready {
		if err := s.predict(ctx); err != nil {
			return err
		}
	} else if err := s.start(ctx); err != nil {
		return err
	}
	before := s.alpha
	var target *mat.Dense
	var weight []float64
	if s.l.pairs > 0 && !(s.held && s.alpha == 0) {
		var err error
		if target, weight, err = s.mixture(ctx); err != nil {
			return err
		}
		before = s.alpha
	}
	if s.Rounds < 0 {
		s.believe(target, weight)
		return nil
	}
	if err := s.transport(ctx); err != nil {
		return err
	}
	// The plan may hold labels that no prediction comes near to their own rows until every link looks right.
	if !s.held && target != nil && s.alpha < 2/float64(s.l.n) && before > 0.1 {
		s.alpha, s.held, s.restarted = before, true, true
		if err := s.fit(ctx, target, weight); err != nil {
			return err
		}
		if err := s.transport(ctx); err != nil {
			return err
		}
	}
	return s.settle()
}

// believe makes the mixture's posterior the result, where no transport was asked for: a wrong label is taken to be as predicted.
func (s *search) believe(target *mat.Dense, right []float64) {
	for i := range s.l.n {
		soft, f := s.post.soft.RawRowView(i), s.f.RawRowView(i)
		w := 0.0
		if right != nil {
			w = right[i]
		}
		for c := range soft {
			p := f[c]
			if s.l.classes != nil {
				p = math.Exp(p)
			}
			if soft[c] = (1 - w) * p; w > 0 {
				soft[c] += w * target.At(i, c)
			}
		}
		s.post.own[i], s.post.mass[i] = w, 1
	}
}

// fit makes a step of the model and predicts.
func (s *search) fit(ctx context.Context, t *mat.Dense, w []float64) error {
	s.made++
	if err := s.m.Fit(ctx, nil, t, w); err != nil {
		return fmt.Errorf("mismatch: fitting the model: %w", err)
	}
	return s.predict(ctx)
}

func (s *search) predict(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	s.f, s.last = s.last, s.f
	if err := s.m.Predict(ctx, nil, s.f); err != nil {
		return fmt.Errorf("mismatch: predicting: %w", err)
	}
	for i := range s.l.n {
		for _, v := range s.f.RawRowView(i) {
			if math.IsNaN(v) || math.IsInf(v, 0) && s.l.classes == nil {
				return fmt.Errorf("mismatch: the model predicts %v for row %d: lower its learning rate, or scale its features", v, i)
			}
		}
	}
	return nil
}

// moved tells by how much the last fit moved predictions, in standard deviations of the labels.
func (s *search) moved() float64 {
	a, b, sum := s.f.RawMatrix().Data, s.last.RawMatrix().Data, 0.0
	for i, v := range a {
		d := v - b[i]
		sum += d * d
	}
	return math.Sqrt(sum / float64(len(a)) / s.l.scale)
}

// still is how far a fit that is over may move.
const still = 1e-8

// say reports a round and tells whether the model has come to rest.
func (s *search) say(stage string, index int) bool {
	moved := s.moved()
	if s.Progress != nil {
		s.Progress(Round{stage, index, s.alpha, s.noise, moved})
	}
	return index > 0 && moved < still
}

// transport is the third stage.
func (s *search) transport(ctx context.Context) error {
	for i := range rounds(s.Rounds, 60) {
		if err := s.expect(false); err != nil {
			return err
		}
		if err := s.fit(ctx, s.post.soft, s.weights()); err != nil {
			return err
		}
		s.estimate()
		if s.say("transport", i) {
			break
		}
	}
	return nil
}

// weights returns the rows' masses if some lie in the dustbin.
func (s *search) weights() []float64 {
	if !s.weighted {
		return nil
	}
	return s.post.mass
}

// expect computes plans and posteriors at the predictions.
func (s *search) expect(last bool) error {
	b := &belief{f: s.f, noise: s.noise, alpha: s.alpha, unmatched: s.Unmatched, sweeps: s.Sweeps, tolerance: s.Tolerance, last: last}
	worst, sweeps := make([]float64, len(s.plans)), make([]int, len(s.plans))
	threads := parallel.Threads()
	for i, p := range s.plans {
		if s.big[i] {
			worst[i], sweeps[i] = p.solve(b, s.post, threads)
		}
	}
	parallel.Do(len(s.plans), threads, func(i int) {
		if !s.big[i] {
			worst[i], sweeps[i] = s.plans[i].solve(b, s.post, 1)
		}
	})
	s.worst = 0
	for i, w := range worst {
		if s.worst = max(s.worst, w); math.IsNaN(w) || last && w > marginLimit {
			return &MarginError{w, sweeps[i]}
		}
	}
	for _, i := range s.l.settled {
		s.post.cost[i] = 0
		if s.l.classes == nil {
			s.post.cost[i] = distance(s.l.y.RawRowView(s.l.own[i]), s.f.RawRowView(i))
		}
	}
	for i, m := range s.post.mass {
		if m == 0 {
			s.post.soft.SetRow(i, s.f.RawRowView(i))
		}
	}
	return nil
}

// estimate moves σ² and α to what the plan says. The cost is that of the predictions after the fit:
// Σ_j P_ij‖y_j − f_i‖² changes by ‖f_new − ȳ‖² − ‖f_old − ȳ‖².
func (s *search) estimate() {
	if s.Noise == 0 && s.l.classes == nil {
		sum, mass := 0.0, 0.0
		for i, m := range s.post.mass {
			y := s.post.soft.RawRowView(i)
			sum += m * (s.post.cost[i] + distance(s.f.RawRowView(i), y) - distance(s.last.RawRowView(i), y))
			mass += m
		}
		s.noise = max(sum/(mass*float64(s.l.k)), 1e-8*s.l.scale)
	}
	if !s.held {
		s.alpha = s.clip(1 - s.meanOwn())
	}
}

// meanOwn returns the mean of P_ii over the rows in doubt that came with a label.
func (s *search) meanOwn() float64 {
	sum, n := 0.0, 0
	for _, b := range s.l.blocks {
		for r, i := range b.rows {
			if b.own[r] >= 0 {
				sum += s.post.own[i]
				n++
			}
		}
	}
	if n == 0 {
		return 1
	}
	return sum / float64(n)
}

func (s *search) clip(alpha float64) float64 {
	return min(max(alpha, 1/float64(s.l.n)), s.Bound)
}

// settle computes the last plan to the end.
func (s *search) settle() error {
	if err := s.expect(true); err != nil {
		return err
	}
	if !s.held {
		s.alpha = s.clip(1 - s.meanOwn())
	}
	return nil
}

func (s *search) result() (*Result, error) {
	r := &Result{Soft: s.post.soft, Linked: s.post.own, Weight: s.post.mass, Alpha: s.alpha, Noise: s.noise, Margin: s.worst,
		Rounds: s.made, Restarted: s.restarted}
	inDoubt, most := 0, 0.0
	for _, b := range s.l.blocks {
		for _, i := range b.rows {
			r.Entropy += s.post.entropy[i]
			most += 0.5 * math.Log(float64(len(b.labels)))
			inDoubt++
		}
	}
	if inDoubt > 0 {
		r.Entropy /= float64(inDoubt)
		most /= float64(inDoubt)
	}
	if len(s.l.blocks) == 0 {
		r.Alpha = 0
	}
	if s.Pair {
		r.Pair = s.pairs()
	}
	if s.l.pairs > 0 && inDoubt > 0 && s.alpha > 0.8 {
		r.Warnings = append(r.Warnings, fmt.Sprintf("%.0f %% of the links seem wrong: beyond 80 %% the fit may have settled anywhere; look for "+
			"a better key, or for blocks", 100*s.alpha))
	}
	if inDoubt > 0 && r.Entropy > most {
		r.Warnings = append(r.Warnings, fmt.Sprintf("the plan is undecided: a row's label is spread over about %.0f labels, more than the square "+
			"root of the choices; the features say little about the target", math.Exp(r.Entropy)))
	}
	if s.restarted {
		r.Warnings = append(r.Warnings, fmt.Sprintf("the plan had called every link right, against the mixture; the share of wrong links was held "+
			"at the mixture's %.2f", s.alpha))
	}
	return r, nil
}

// pairs returns the hard pairing.
func (s *search) pairs() []int {
	of := make([]int, s.l.n)
	for i := range of {
		of[i] = -1
	}
	for _, i := range s.l.settled {
		of[i] = s.l.own[i]
	}
	b := &belief{f: s.f, noise: s.noise, alpha: s.alpha, unmatched: s.Unmatched, sweeps: s.Sweeps, tolerance: s.Tolerance}
	for _, p := range s.plans {
		p.pair(b, of)
	}
	return of
}
