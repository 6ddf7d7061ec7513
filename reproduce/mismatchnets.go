package reproduce

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/assisted/mismatch"
	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/stat"
)

// net builds an architecture.
func net(name string, c nn.Config) (*nn.Model, error) {
	build, err := nn.New(name, c)
	if err != nil {
		return nil, err
	}
	return build(1)
}

// mismatchFriedman is a network on Friedman's problem, without cross-fitting: 150 epochs.
func (l *Lab) mismatchFriedman(ctx context.Context, alpha float64) error {
	const n, epochs, seeds = 1000, 150, 3
	references := map[float64][]float64{
		.2: {.62, 1.88, 1.08, 1.46, 1.07, 1.08, 1.01}, .4: {.62, 2.96, 1.91, 2.01, 1.51, 1.31, 1.29}, .6: {.62, 3.83, 3.32, 2.68, 2.23, 1.96, 1.96}}
	names := []string{"oracle", "naive", "LAD", "hard EM", "MSL-sort", "mixture", "MSL"}
	errs := make([]float64, len(names))
	for seed := range seeds {
		r := rng.New(l.Seed<<16+uint64(seed), 0, "", "friedman")
		x, y, _ := mismatch.Friedman(n, 10, 1, r)
		xt, _, clean := mismatch.Friedman(n, 10, 0, r)
		p := mismatch.Problem{Y: y, Own: mismatch.Shuffle(n, alpha, r)}
		data, test := unscaled("friedman", x), unscaled("friedman test", xt)
		straight := p
		straight.Own = nil
		told := mismatch.Rival{Alpha: &alpha, Rounds: epochs - 20, Ready: true}
		fits := []func(m *mismatch.Neural) error{
			func(m *mismatch.Neural) error {
				return mismatch.Naive(ctx, straight, m, mismatch.Rival{Rounds: epochs})
			},
			func(m *mismatch.Neural) error { return mismatch.Naive(ctx, p, m, mismatch.Rival{Rounds: epochs}) },
			func(m *mismatch.Neural) error { return mismatch.LAD(ctx, p, m, mismatch.Rival{Rounds: epochs}) },
			func(m *mismatch.Neural) error {
				return errors.Join(mismatch.Huber(ctx, p, m, mismatch.Rival{Rounds: 20}), mismatch.HardEM(ctx, p, m, told))
			},
			func(m *mismatch.Neural) error {
				return errors.Join(mismatch.Huber(ctx, p, m, mismatch.Rival{Rounds: 20}), mismatch.Sort(ctx, p, m, told))
			},
			func(m *mismatch.Neural) error {
				_, err := mismatch.Fit(ctx, p, m, mismatch.Options{Warm: 20, Mixture: epochs - 20, Rounds: -1})
				return err
			},
			func(m *mismatch.Neural) error {
				_, err := mismatch.Fit(ctx, p, m, mismatch.Options{Warm: 20, Mixture: 70, Rounds: 60})
				return err
			},
		}
		for c, fit := range fits {
			model, err := net("mlp", nn.Config{Input: []int{10}, Classes: 1, Hidden: []int{64, 64}})
			if err != nil {
				return err
			}
			m, err := mismatch.NewNeural(l.Engine, model, data, false, mismatch.Training{Total: epochs}, rng.New(l.Seed, seed, "", "friedman net"))
			if err != nil {
				return err
			}
			err = fit(m)
			var f *mat.Dense
			if err == nil {
				f, err = m.On(ctx, test.All())
			}
			m.Close()
			if err != nil {
				return fmt.Errorf("%s on Friedman's problem: %w", names[c], err)
			}
			sum := 0.0
			for i, v := range clean {
				sum += (f.At(i, 0) - v) * (f.At(i, 0) - v) / n
			}
			errs[c] += math.Sqrt(sum) / seeds
		}
	}
	for c, name := range names {
		l.report(fmt.Sprintf("Friedman, α = %v: %s, test RMSE", alpha, name), references[alpha][c], prototype, errs[c])
	}
	l.require(fmt.Sprintf("Friedman, α = %v: MSL over naive", alpha), references[alpha][6]/references[alpha][1], prototype, errs[6]/errs[1], "<=", .6)
	l.require(fmt.Sprintf("Friedman, α = %v: MSL less the mixture", alpha), references[alpha][6]-references[alpha][5], prototype, errs[6]-errs[5], "<=", .05)
	return nil
}

// unscaled are rows for networks as they are.
func unscaled(name string, x *mat.Dense) *dataset.Examples {
	e := mismatch.Rows(name, x)
	e.Mean, e.Std = nil, nil
	return e
}

// numbers reads a compressed table of numbers without a header.
func (l *Lab) numbers(path ...string) (*mat.Dense, error) {
	name := filepath.Join(append([]string{l.Data}, path...)...)
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &recipe.MissingDataError{Err: fmt.Errorf("%s is missing: name the folder of real data sets with COHORT_DATA or --data-dir", name)}
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var all []float64
	rows := 0
	for s := bufio.NewScanner(z); s.Scan(); rows++ {
		for _, field := range strings.FieldsFunc(s.Text(), func(r rune) bool { return r == ',' || r == ' ' }) {
			v, err := strconv.ParseFloat(field, 64)
			if err != nil {
				return nil, fmt.Errorf("%s, line %d: %w", name, rows+1, err)
			}
			all = append(all, v)
		}
	}
	if rows == 0 || len(all)%rows != 0 {
		return nil, fmt.Errorf("%s: %d numbers in %d rows", name, len(all), rows)
	}
	return mat.NewDense(rows, len(all)/rows, all), nil
}

// vision is a problem of classes: which rows are tested, the network and how it learns.
type vision struct {
	train, test *dataset.Examples
	classes     int
	model       func() (*nn.Model, error)
	folds       int
	learn       mismatch.Training // of a fold in a round
	final       int               // epochs of the last model
	rounds      int
}

// guessed is what became of a problem of classes.
type guessed struct{ naive, msl, forward, teaching, repaired, alpha, seconds float64 }

// guess measures the naive fit, MSL with cross-fitting and, if asked for, the rivals for classes. Accuracies are in percent.
func (l *Lab) guess(ctx context.Context, v vision, alpha float64, seed int, rivals bool) (g guessed, err error) {
	n := v.train.Len()
	p := mismatch.Problem{Count: v.classes, Own: mismatch.Shuffle(n, alpha, rng.New(l.Seed, seed, "", "links"))}
	for _, c := range v.train.Labels {
		p.Classes = append(p.Classes, int(c))
	}
	make := func(t mismatch.Training, tag string) (*mismatch.Neural, error) {
		m, err := v.model()
		if err != nil {
			return nil, err
		}
		return mismatch.NewNeural(l.Engine, m, v.train, true, t, rng.New(l.Seed, seed, "", tag))
	}
	last := v.learn
	last.Epochs, last.Fresh = v.final, false
	score := func(tag string, t mismatch.Training, fit func(m *mismatch.Neural) error) (float64, error) {
		m, err := make(t, tag)
		if err != nil {
			return 0, err
		}
		defer m.Close()
		if err := fit(m); err != nil {
			return 0, err
		}
		f, err := m.On(ctx, v.test.All())
		if err != nil {
			return 0, err
		}
		return hits(f, v.test.Labels), nil
	}
	if g.naive, err = score("last", last, func(m *mismatch.Neural) error { return m.Fit(ctx, nil, onehot(p), nil) }); err != nil {
		return g, err
	}
	began := time.Now()
	var folds []*mismatch.Neural
	cross, err := mismatch.NewCrossFit(n, v.folds, rng.New(l.Seed, seed, "", "folds"), func(f int) (mismatch.Model, error) {
		m, err := make(v.learn, fmt.Sprint("fold ", f))
		folds = append(folds, m)
		return m, err
	})
	defer func() {
		for _, m := range folds {
			if m != nil {
				m.Close()
			}
		}
	}()
	if err != nil {
		return g, err
	}
	r, err := mismatch.Fit(ctx, p, cross, mismatch.Options{Warm: 1, Mixture: 2, Rounds: v.rounds})
	if err != nil {
		return g, err
	}
	if g.msl, err = score("last", last, func(m *mismatch.Neural) error { return m.Fit(ctx, nil, r.Soft, nil) }); err != nil {
		return g, err
	}
	g.repaired, g.alpha, g.seconds = hits(r.Soft, v.train.Labels), r.Alpha, time.Since(began).Seconds()
	if !rivals {
		return g, nil
	}
	one := last
	one.Epochs = 1
	told := mismatch.Rival{Alpha: &alpha, Rounds: v.final}
	if g.forward, err = score("last", one, func(m *mismatch.Neural) error { return mismatch.ForwardCorrection(ctx, p, m, told) }); err != nil {
		return g, err
	}
	peer, err := make(one, "peer")
	if err != nil {
		return g, err
	}
	defer peer.Close()
	g.teaching, err = score("last", one, func(m *mismatch.Neural) error { return mismatch.CoTeaching(ctx, p, m, peer, told) })
	return g, err
}

// onehot are the classes that the rows came with.
func onehot(p mismatch.Problem) *mat.Dense {
	t := mat.NewDense(len(p.Own), p.Count, nil)
	for i, j := range p.Own {
		t.Set(i, p.Classes[j], 1)
	}
	return t
}

// hits returns the percentage of rows whose largest entry is their label's.
func hits(f *mat.Dense, labels []int32) float64 {
	right := 0
	for i, c := range labels {
		row, best := f.RawRowView(i), 0
		for k, v := range row {
			if v > row[best] {
				best = k
			}
		}
		if best == int(c) {
			right++
		}
	}
	return 100 * float64(right) / float64(len(labels))
}

// mismatchDigits is a network on scikit-learn's digits.
func (l *Lab) mismatchDigits(ctx context.Context, alpha float64) error {
	const part = 1400
	all, err := l.numbers("sklearn-tables", "digits.csv.gz")
	if err != nil {
		return err
	}
	references := map[float64][2]float64{0: {98.2, 97.7}, .2: {94.0, 96.1}, .4: {87.6, 94.1}, .6: {72.7, 89.1}, .8: {45.6, 71.6}}
	n, _ := all.Dims()
	x := mat.NewDense(n, 64, nil)
	labels := make([]int32, n)
	for i, from := range rng.New(l.Seed, 0, "", "digits").Perm(n) {
		row := all.RawRowView(from)
		x.SetRow(i, row[:64])
		labels[i] = int32(row[64])
	}
	v := vision{classes: 10, folds: 5, final: 60, rounds: 16,
		train: unscaled("digits", mat.DenseCopyOf(x.Slice(0, part, 0, 64))), test: unscaled("digits test", mat.DenseCopyOf(x.Slice(part, n, 0, 64))),
		model: func() (*nn.Model, error) {
			return net("mlp", nn.Config{Input: []int{64}, Classes: 10, Hidden: []int{128}})
		},
		learn: mismatch.Training{Epochs: 25, Rate: .002, Fresh: true}}
	v.train.Labels, v.test.Labels = labels[:part], labels[part:]
	g, err := l.guess(ctx, v, alpha, 0, true)
	if err != nil {
		return err
	}
	l.reportGuess(fmt.Sprintf("digits, α = %v: ", alpha), references[alpha], g)
	for at, gain := range map[float64]float64{.4: 4, .6: 12, 0: -1} {
		if at == alpha {
			l.require(fmt.Sprintf("digits, α = %v: MSL less naive, points", alpha), references[alpha][1]-references[alpha][0], prototype, g.msl-g.naive, ">=", gain)
		}
	}
	return nil
}

// reportGuess adds the rows of a problem of classes; what was not measured is 0.
func (l *Lab) reportGuess(of string, reference [2]float64, g guessed) {
	l.report(of+"naive, accuracy", reference[0], prototype, g.naive)
	l.report(of+"MSL, accuracy", reference[1], prototype, g.msl)
	if g.forward > 0 {
		l.report(of+"forward correction, accuracy", math.NaN(), prototype, g.forward)
		l.report(of+"co-teaching, accuracy", math.NaN(), prototype, g.teaching)
	}
	l.report(of+"labels that MSL puts right, percent", math.NaN(), prototype, g.repaired)
	l.report(of+"α̂", math.NaN(), prototype, g.alpha)
	l.report(of+"seconds of MSL", math.NaN(), "this machine", g.seconds)
}

// mismatchDiabetes is least squares on diabetes: 20 splits, mean squared error over the variance of the target.
func (l *Lab) mismatchDiabetes(ctx context.Context, alpha float64) error {
	const part, splits = 354, 20
	x, err := l.numbers("sklearn-tables", "diabetes_data.csv.gz")
	if err != nil {
		return err
	}
	y, err := l.numbers("sklearn-tables", "diabetes_target.csv.gz")
	if err != nil {
		return err
	}
	n, d := x.Dims()
	mean, variance := mat.Sum(y)/float64(n), 0.0
	for i := range n {
		variance += (y.At(i, 0) - mean) * (y.At(i, 0) - mean) / float64(n)
	}
	names := []rival{oracle, naiveFit, huberFit, twoStage, hardEM, mixture, msl("MSL", mismatch.Options{})}
	references := map[float64][]float64{.3: {.529, .584, .569, .562, .698, .554, .559}, .5: {.529, .683, .666, .621, .783, .625, .622}}
	errs, bySplit := make([]float64, len(names)), make([][]float64, len(names))
	for c := range bySplit {
		bySplit[c] = make([]float64, splits)
	}
	for split := range splits {
		r := rng.New(l.Seed, split, "", "diabetes")
		order := r.Perm(n)
		xt, yt := mat.NewDense(part, d, nil), mat.NewDense(part, 1, nil)
		for i := range part {
			xt.SetRow(i, x.RawRowView(order[i]))
			yt.Set(i, 0, y.At(order[i], 0))
		}
		m := mismatched{x: xt, alpha: alpha, p: mismatch.Problem{Y: yt, Own: mismatch.Shuffle(part, alpha, r)}}
		for c, v := range names {
			f, err := mismatch.NewLinear(xt, true, 0)
			if err != nil {
				return err
			}
			if _, err := v.fit(ctx, m, f); err != nil {
				return fmt.Errorf("%s on diabetes: %w", v.name, err)
			}
			coef := f.Coefficients()
			for _, i := range order[part:] {
				at := coef.At(d, 0)
				for k, v := range x.RawRowView(i) {
					at += v * coef.At(k, 0)
				}
				bySplit[c][split] += (at - y.At(i, 0)) * (at - y.At(i, 0)) / variance / float64(n-part)
			}
			errs[c] += bySplit[c][split] / splits
		}
	}
	for c, v := range names {
		l.report(fmt.Sprintf("diabetes, α = %v: %s, test error over the variance", alpha, v.name), references[alpha][c], prototype, errs[c])
	}
	l.require(fmt.Sprintf("diabetes, α = %v: MSL less naive", alpha), references[alpha][6]-references[alpha][1], prototype, errs[6]-errs[1], "<=", -.02)
	gains := make([]float64, splits)
	floats.SubTo(gains, bySplit[6], bySplit[1])
	l.report(fmt.Sprintf("diabetes, α = %v: standard error of MSL less naive over splits", alpha), math.NaN(), "", stat.StdErr(stat.StdDev(gains, nil), splits))
	return nil
}

// mismatchMillion is MSL-bin on a million rows.
func (l *Lab) mismatchMillion(ctx context.Context, alpha float64) error {
	s, err := l.rivals(ctx, 1_000_000, 20, 1, .3, alpha, oracle, naiveFit, mslBin)
	if err != nil {
		return err
	}
	of := fmt.Sprintf("n = 1,000,000, α = %v: ", alpha)
	for _, v := range []rival{oracle, naiveFit, mslBin} {
		l.report(of+v.name+", ‖β̂−β‖", math.NaN(), prototype, s.off[v.name])
	}
	l.require(of+"MSL-bin over the oracle", math.NaN(), prototype, s.off["MSL-bin"]/s.off["oracle"], "<=", 1.6)
	l.report(of+"α̂ of MSL-bin", alpha, "as drawn", s.alpha["MSL-bin"])
	l.report(of+"σ̂² of MSL-bin", .09, "as drawn", s.noise["MSL-bin"])
	l.require(of+"minutes of MSL-bin", math.NaN(), "this machine", s.seconds["MSL-bin"]/60, "<=", 15)
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	l.require(of+"GiB of memory, with the data", math.NaN(), "this machine", float64(mem.Sys)/(1<<30), "<=", 4)
	return nil
}

// mismatchImages is a small CNN on 28×28 images.
func (l *Lab) mismatchImages(name string, folds, rounds int) func(context.Context, float64) error {
	return func(ctx context.Context, alpha float64) error {
		split, err := dataset.Load(ctx, dataset.Spec{Name: name, Root: l.Data, Seed: l.Seed})
		if errors.Is(err, fs.ErrNotExist) {
			return &recipe.MissingDataError{Err: err}
		}
		if err != nil {
			return err
		}
		v := vision{train: split.Train, test: split.Test, classes: 10, folds: folds, final: 20, rounds: rounds,
			model: func() (*nn.Model, error) {
				return net("lenet", nn.Config{Input: []int{28, 28, 1}, Classes: 10, Widths: []int{8, 16}, Hidden: []int{64}})
			},
			learn: mismatch.Training{Epochs: 1, Rate: .002}}
		g, err := l.guess(ctx, v, alpha, 0, false)
		if err != nil {
			return err
		}
		of := fmt.Sprintf("%s, α = %v: ", name, alpha)
		l.reportGuess(of, [2]float64{math.NaN(), math.NaN()}, g)
		if name == "mnist" && alpha == .5 {
			l.require(of+"MSL, accuracy", math.NaN(), "target of the medium scale", g.msl, ">=", 97)
		}
		l.require(of+"MSL less naive, points", math.NaN(), "target of the medium scale", g.msl-g.naive, ">=", 1)
		return nil
	}
}
