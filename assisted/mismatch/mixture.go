package mismatch

import (
	"context"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
)

// given returns the rows' own labels as targets, and 1 for the rows that have one.
func (s *search) given() (*mat.Dense, []float64) {
	t, w := mat.NewDense(s.l.n, s.l.k, nil), make([]float64, s.l.n)
	for i, j := range s.l.own {
		if j >= 0 {
			t.SetRow(i, s.l.y.RawRowView(j))
			w[i] = 1
		}
	}
	return t, w
}

// start is the first stage.
func (s *search) start(ctx context.Context) error {
	if s.l.pairs == 0 {
		return s.startFromBlocks(ctx)
	}
	t, w := s.given()
	if s.l.pairs == s.l.n {
		w = nil
	}
	for i := range max(1, rounds(s.Warm, 50)) {
		if err := s.fit(ctx, t, w); err != nil {
			return err
		}
		if s.l.classes == nil {
			w = s.huber(t)
		}
		if s.say("start", i) {
			break
		}
	}
	return nil
}

// huber returns the weights of Huber's estimate at the current predictions, min(1, c·s/|r|) with c = 1.345 and s = median|r|/0.6745
// of the given pairs, and begins σ² with s². Of vector labels |r| is the norm over √k.
func (s *search) huber(t *mat.Dense) []float64 {
	r, known := make([]float64, s.l.n), make([]float64, 0, s.l.pairs)
	for i, j := range s.l.own {
		if j >= 0 {
			r[i] = math.Sqrt(distance(t.RawRowView(i), s.f.RawRowView(i)) / float64(s.l.k))
			known = append(known, r[i])
		}
	}
	scale := max(median(known)/0.6745, 1e-9*math.Sqrt(s.l.scale))
	if s.Noise == 0 {
		s.noise = max(scale*scale, 1e-8*s.l.scale)
	}
	w := make([]float64, s.l.n)
	for i, j := range s.l.own {
		if j >= 0 {
			w[i] = min(1, 1.345*scale/max(r[i], math.SmallestNonzeroFloat64))
		}
	}
	return w
}

// median returns the median of v, which it sorts.
func median(v []float64) float64 {
	slices.Sort(v)
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// startFromBlocks fits labels averaged over blocks, weighted by what the evidence says of them: the plan of a model that knows nothing.
func (s *search) startFromBlocks(ctx context.Context) error {
	t := mat.NewDense(s.l.n, s.l.k, nil)
	for k := range s.l.blocks {
		b := &s.l.blocks[k]
		mean := make([]float64, s.l.k)
		for _, j := range b.labels {
			for c, v := range s.l.y.RawRowView(j) {
				mean[c] += v / float64(len(b.labels))
			}
		}
		for r, i := range b.rows {
			s.l.lean(t.RawRowView(i), b, r, mean)
		}
	}
	for i := range max(1, rounds(s.Warm, 50)) {
		if err := s.fit(ctx, t, s.weights()); err != nil {
			return err
		}
		if s.say("start", i) {
			break
		}
	}
	if s.Noise == 0 && s.l.classes == nil {
		s.noise = s.l.scale
	}
	return nil
}

// lean writes the mean of a block's labels, weighted by the evidence of its r-th row.
func (l *layout) lean(out []float64, b *block, r int, mean []float64) {
	copy(out, mean)
	if b.clues == nil {
		return
	}
	// exp s over exp rest: 1 for all, and more or less for labels with a clue.
	top := 0.0
	for _, c := range b.clues[r] {
		top = max(top, c.odds-b.rest[r])
	}
	total := float64(len(b.labels)) * math.Exp(-top)
	for c := range out {
		out[c] *= total
	}
	for _, at := range b.clues[r] {
		w := math.Exp(at.odds-b.rest[r]-top) - math.Exp(-top)
		total += w
		for c, v := range l.y.RawRowView(b.labels[at.at]) {
			out[c] += w * v
		}
	}
	for c := range out {
		out[c] /= total
	}
}

// mixture is the second stage: EM for the density (1−α)·N(y; f, σ²) + α·g(y) of the given pairs, with g = N(ȳ, s²) by column
// (after Slawski, Diao and Ben-David); for classes (1−α)·p_θ(y|x) + α·n_y/n. With w_i the posterior of a right link:
// θ ← weighted fit, σ² = Σw‖r‖²/(kΣw), α = 1 − mean w. Evidence about a link multiplies the odds of its being right. It returns what
// the model was last fitted to.
func (s *search) mixture(ctx context.Context) (*mat.Dense, []float64, error) {
	t, _ := s.given()
	w := s.right()
	s.fromRight(w)
	for i := range rounds(s.Mixture, 200) {
		if err := s.fit(ctx, t, w); err != nil {
			return nil, nil, err
		}
		w = s.right()
		s.fromRight(w)
		if s.say("mixture", i) {
			break
		}
	}
	return t, w, nil
}

// right returns by row the posterior of a right link under the mixture: 1 for certain rows, 0 for those without a label.
func (s *search) right() []float64 {
	w := make([]float64, s.l.n)
	for _, i := range s.l.settled {
		w[i] = 1
	}
	for _, b := range s.l.blocks {
		for r, i := range b.rows {
			if b.own[r] < 0 {
				continue
			}
			j, f := s.l.own[i], s.f.RawRowView(i)
			var fit float64
			if s.l.classes != nil {
				fit = f[s.l.classes[j]]
			} else {
				fit = -distance(s.l.y.RawRowView(j), f) / (2 * s.noise)
			}
			own, others := b.known(r)
			odds := math.Log(s.alpha/(1-s.alpha)) + s.l.background(j, s.noise) - fit + others - own
			w[i] = 1 / (1 + math.Exp(odds))
		}
	}
	return w
}

// fromRight moves σ² and α to what the posteriors say.
func (s *search) fromRight(w []float64) {
	sum, total, doubtful, n := 0.0, 0.0, 0.0, 0
	for i, j := range s.l.own {
		if j >= 0 {
			sum += w[i] * distance(s.l.y.RawRowView(j), s.f.RawRowView(i))
			total += w[i]
		}
	}
	for _, b := range s.l.blocks {
		for r, i := range b.rows {
			if b.own[r] >= 0 {
				doubtful += w[i]
				n++
			}
		}
	}
	if s.Noise == 0 && s.l.classes == nil && total > 0 {
		s.noise = max(sum/(total*float64(s.l.k)), 1e-8*s.l.scale)
	}
	if !s.held && n > 0 {
		s.alpha = s.clip(1 - doubtful/float64(n))
	}
}
