package reproduce

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/cohort-learning/cohort/assisted/mismatch"
	"github.com/cohort-learning/cohort/record/report"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

func mismatchExperiment() Experiment {
	return Experiment{
		Name:    "mismatch",
		Parts:   true,
		Summary: "Learning from labels that may belong to other rows, against ten rivals",
		Scales: map[Scale]Study{
			Small:  {"linear with up to 100,000 rows, Friedman's problem, digits and diabetes, up to 90 % of the links wrong", "5 minutes on 2 cores", mismatchSmall},
			Medium: {"linear with a million rows; a CNN on MNIST, up to 70 % of the links wrong", "half an hour on 2 cores", mismatchMedium},
			Paper: {"as medium, on MNIST and Fashion-MNIST with 5-fold cross-fitting: settings of our own, since the paper's could not be read",
				"half a day on 2 cores", mismatchPaper},
		},
	}
}

// Where the references come from: of the paper only the abstract could be read.
const prototype = "independent prototype of the reconstructed method, other random numbers"

// mismatched is a linear problem of which a share of the links is wrong.
type mismatched struct {
	x     *mat.Dense
	beta  []float64
	alpha float64
	p     mismatch.Problem
	seed  uint64
}

func (l *Lab) mismatched(n, d int, sigma, alpha float64, repeat int) mismatched {
	seed := l.Seed<<16 + uint64(repeat)
	r := rng.New(seed, 0, "", fmt.Sprintf("mismatch %d %d", n, d))
	x, y, beta := mismatch.LinearTable(n, d, sigma, r)
	return mismatched{x, beta, alpha, mismatch.Problem{Y: y, Own: mismatch.Shuffle(n, alpha, r)}, seed}
}

// rival is a method on linear problems; it returns what MSL says of the links, if it is MSL.
type rival struct {
	name string
	most int // repetitions, for slow methods; 0: all
	fit  func(ctx context.Context, m mismatched, f *mismatch.Linear) (*mismatch.Result, error)
}

// plain makes a rival of a method that says nothing of links. The method may be told the share of wrong ones.
func plain(name string, most int, told bool, f func(context.Context, mismatch.Problem, mismatch.Model, mismatch.Rival) error) rival {
	return rival{name, most, func(ctx context.Context, m mismatched, model *mismatch.Linear) (*mismatch.Result, error) {
		v := mismatch.Rival{}
		if told {
			v.Alpha = &m.alpha
		}
		return nil, f(ctx, m.p, model, v)
	}}
}

func msl(name string, o mismatch.Options) rival {
	return rival{name, 0, func(ctx context.Context, m mismatched, f *mismatch.Linear) (*mismatch.Result, error) {
		return mismatch.Fit(ctx, m.p, f, o)
	}}
}

var (
	oracle = rival{"oracle", 0, func(ctx context.Context, m mismatched, f *mismatch.Linear) (*mismatch.Result, error) {
		return nil, f.Fit(ctx, nil, m.p.Y, nil) // label i belongs to row i
	}}
	naiveFit         = plain("naive", 0, false, mismatch.Naive)
	huberFit         = plain("Huber", 0, false, mismatch.Huber)
	ladFit           = plain("LAD", 0, false, mismatch.LAD)
	twoStage         = plain("S–BD", 0, true, mismatch.TwoStage)
	hardEM           = plain("hard EM", 0, false, mismatch.HardEM)
	sorting          = plain("MSL-sort", 0, true, mismatch.Sort)
	lambdaAssignment = plain("λ-assignment", 3, false, mismatch.LambdaAssignment)
	mixture          = msl("mixture", mismatch.Options{Rounds: -1})
	mslFull          = msl("MSL-full", mismatch.Options{Plan: "full"})
	mslSinkhorn      = msl("MSL-full with Sinkhorn's entropy", mismatch.Options{Plan: "full", Sinkhorn: true})
	mslBin           = msl("MSL-bin", mismatch.Options{Plan: "bin"})
	greedy           = rival{"greedy", 2, func(ctx context.Context, m mismatched, f *mismatch.Linear) (*mismatch.Result, error) {
		return nil, mismatch.LocalSearch(ctx, m.p, m.x, f, mismatch.Rival{})
	}}
	stochasticEM = rival{"stochastic EM", 2, func(ctx context.Context, m mismatched, f *mismatch.Linear) (*mismatch.Result, error) {
		return nil, mismatch.StochasticEM(ctx, m.p, f, mismatch.Rival{}, rng.New(m.seed, 0, "", "chain"))
	}}
	contenders = []rival{oracle, naiveFit, huberFit, ladFit, twoStage, hardEM, stochasticEM, greedy,
		lambdaAssignment, sorting, mixture, mslFull, mslBin}
	scalable = []rival{oracle, naiveFit, huberFit, ladFit, twoStage, hardEM, sorting, mixture, mslBin}
)

// contested are means over repetitions, by method.
type contested struct{ off, alpha, noise, seconds map[string]float64 }

// rivals runs methods on the same problems.
func (l *Lab) rivals(ctx context.Context, n, d, repeats int, sigma, alpha float64, rivals ...rival) (contested, error) {
	s := contested{map[string]float64{}, map[string]float64{}, map[string]float64{}, map[string]float64{}}
	for repeat := range repeats {
		m := l.mismatched(n, d, sigma, alpha, repeat)
		for _, v := range rivals {
			of := repeats
			if v.most > 0 {
				of = min(v.most, repeats)
			}
			if repeat >= of {
				continue
			}
			model, err := mismatch.NewLinear(m.x, false, 0)
			if err != nil {
				return s, err
			}
			began := time.Now()
			r, err := v.fit(ctx, m, model)
			if err != nil {
				return s, fmt.Errorf("%s at α = %v: %w", v.name, alpha, err)
			}
			s.seconds[v.name] += time.Since(began).Seconds() / float64(of)
			s.off[v.name] += floats.Distance(mat.Col(nil, 0, model.Coefficients()), m.beta, 2) / float64(of)
			if r != nil {
				s.alpha[v.name] += r.Alpha / float64(of)
				s.noise[v.name] += r.Noise / float64(of)
			}
		}
	}
	return s, nil
}

// linearReference are the prototype's mean errors, n = 500, d = 10, σ = 0.1.
var linearReference = map[float64]map[string]float64{
	0:  {"oracle": .013, "naive": .013, "Huber": .014, "LAD": .018, "S–BD": .013, "hard EM": .044, "greedy": .038, "λ-assignment": .013, "MSL-sort": .013, "mixture": .013, "MSL-full": .013},
	.2: {"oracle": .013, "naive": .253, "Huber": .040, "LAD": .030, "S–BD": .016, "hard EM": .089, "greedy": .035, "λ-assignment": .014, "MSL-sort": .017, "mixture": .015, "MSL-full": .015, "stochastic EM": .40},
	.4: {"oracle": .013, "naive": .432, "Huber": .163, "LAD": .064, "S–BD": .031, "hard EM": .097, "greedy": .033, "λ-assignment": .024, "MSL-sort": .023, "mixture": .022, "MSL-full": .021},
	.5: {"oracle": .013, "naive": .540, "Huber": .376, "LAD": .121, "S–BD": .104, "hard EM": .212, "greedy": .042, "λ-assignment": .033, "MSL-sort": .026, "mixture": .025, "MSL-full": .023, "stochastic EM": .56},
	.6: {"oracle": .013, "naive": .644, "Huber": .567, "LAD": .325, "S–BD": .201, "hard EM": .262, "greedy": .060, "λ-assignment": .035, "MSL-sort": .040, "mixture": .031, "MSL-full": .026},
	.7: {"oracle": .013, "naive": .731, "Huber": .688, "LAD": .579, "S–BD": .312, "hard EM": .411, "greedy": .092, "λ-assignment": .047, "MSL-sort": .050, "mixture": .036, "MSL-full": .028},
	.8: {"oracle": .013, "naive": .835, "Huber": .817, "LAD": .783, "S–BD": .543, "hard EM": .551, "greedy": .374, "λ-assignment": .065, "MSL-sort": .459, "mixture": .056, "MSL-full": .044},
	.9: {"oracle": .013, "naive": .915, "Huber": .915, "LAD": .924, "S–BD": .860, "hard EM": .861, "greedy": .877, "λ-assignment": .620, "MSL-sort": .917, "mixture": .664, "MSL-full": .590},
}

// reference looks up a reference; NaN is none.
func reference[K comparable](table map[K]float64, of K) float64 {
	if v, ok := table[of]; ok {
		return v
	}
	return math.NaN()
}

// shares is a part of a study for each of several shares of wrong links.
type shares struct {
	of      string
	compute func(ctx context.Context, alpha float64) error
	alphas  []float64
}

func (l *Lab) shares(ctx context.Context, parts ...shares) error {
	for _, p := range parts {
		for _, alpha := range p.alphas {
			name := fmt.Sprintf("%s, α = %v", p.of, alpha)
			if err := l.part(ctx, name, func(ctx context.Context) error { return p.compute(ctx, alpha) }); err != nil {
				return err
			}
		}
	}
	return nil
}

func mismatchSmall(ctx context.Context, l *Lab) error {
	err := l.shares(ctx,
		shares{"n = 500", l.mismatchTable, tableShares},
		shares{"n = 1000", l.mismatchPlans, []float64{.3, .5, .7, .8}},
		shares{"n = 10000", l.mismatchLarge(10_000), []float64{.3, .5, .7}},
		shares{"n = 100000", l.mismatchLarge(100_000), largeShares},
		shares{"ROBOT", l.mismatchROBOT, []float64{.5}},
		shares{"Friedman's problem", l.mismatchFriedman, []float64{.2, .4, .6}},
		shares{"two organisations", l.mismatchAssist, []float64{.3}},
		shares{"digits", l.mismatchDigits, []float64{0, .2, .4, .6, .8}},
		shares{"diabetes", l.mismatchDiabetes, []float64{.3, .5}})
	if err != nil {
		return err
	}
	return l.draw("Mismatched supervised learning",
		mistakes("mismatch-pairs", "Methods that begin with the pairs as they came, 500 rows", "n = 500", "mean ", tableShares,
			naiveFit, huberFit, ladFit, twoStage, sorting, mixture, mslFull, oracle),
		mistakes("mismatch-permutations", "Methods that search for a permutation, 500 rows", "n = 500", "mean ", tableShares,
			hardEM, stochasticEM, greedy, lambdaAssignment, mslFull, oracle),
		mistakes("mismatch-large", "A hundred thousand rows", "n = 100000", "", largeShares, scalable...),
		mistakes("mismatch-large-near", "A hundred thousand rows, the nearest", "n = 100000", "", largeShares,
			hardEM, sorting, twoStage, mixture, mslBin, oracle))
}

// The shares of wrong links that curves are drawn over.
var (
	tableShares = []float64{0, .2, .4, .5, .6, .7, .8, .9}
	largeShares = []float64{.3, .5, .7}
)

// mistakes is the curve of the errors of rivals over the share of wrong links.
func mistakes(name, title, of, mean string, alphas []float64, rivals ...rival) curve {
	c := curve{name: name, title: title, percent: true, x: report.Axis{Label: "wrong links, percent"}, y: report.Axis{Label: "‖β̂ − β‖"}, xs: alphas,
		part: func(alpha float64) string { return fmt.Sprintf("%s, α = %v", of, alpha) },
		claim: func(alpha float64, series string) string {
			return fmt.Sprintf("%s, α = %v: %s, %s‖β̂−β‖", of, alpha, series, mean)
		}}
	for _, v := range rivals {
		c.series = append(c.series, v.name)
	}
	return c
}

func mismatchMedium(ctx context.Context, l *Lab) error {
	return l.shares(ctx,
		shares{"n = 1000000", l.mismatchMillion, []float64{.5}},
		shares{"mnist", l.mismatchImages("mnist", 2, 8), []float64{.5, .2, .7}})
}

func mismatchPaper(ctx context.Context, l *Lab) error {
	return l.shares(ctx,
		shares{"mnist", l.mismatchImages("mnist", 5, 16), []float64{.5, .2, .7}},
		shares{"fashion-mnist", l.mismatchImages("fashion-mnist", 5, 16), []float64{.5, .2, .7}})
}

// mismatchTable is every method against the share of wrong links.
func (l *Lab) mismatchTable(ctx context.Context, alpha float64) error {
	s, err := l.rivals(ctx, 500, 10, 6, .1, alpha, contenders...)
	if err != nil {
		return err
	}
	for _, v := range contenders {
		l.report(fmt.Sprintf("n = 500, α = %v: %s, mean ‖β̂−β‖", alpha, v.name), reference(linearReference[alpha], v.name), prototype, s.off[v.name])
	}
	full := s.off["MSL-full"]
	if alpha <= .7 {
		l.require(fmt.Sprintf("n = 500, α = %v: MSL-full over the oracle", alpha), math.NaN(), prototype, full/s.off["oracle"], "<=", 2.3)
	}
	if alpha <= .8 {
		l.require(fmt.Sprintf("n = 500, α = %v: MSL-full less the mixture", alpha), math.NaN(), prototype, full-s.off["mixture"], "<=", .002)
	}
	if alpha >= .5 && alpha <= .8 {
		l.require(fmt.Sprintf("n = 500, α = %v: Huber over MSL-full", alpha), math.NaN(), prototype, s.off["Huber"]/full, ">=", 5)
	}
	return nil
}

// mismatchPlans compares the two plans on the same problems.
func (l *Lab) mismatchPlans(ctx context.Context, alpha float64) error {
	references := map[float64][3]float64{.3: {.0562, .0567, .0575}, .5: {.0696, .0708, .0720}, .7: {.1448, .1448, .1493}, .8: {.2169, .2188, .2601}}
	s, err := l.rivals(ctx, 1000, 20, 3, .3, alpha, mslFull, mslSinkhorn, mslBin, mixture)
	if err != nil {
		return err
	}
	for c, name := range []string{"MSL-full", "MSL-bin", "mixture"} {
		l.report(fmt.Sprintf("n = 1000, α = %v: %s, mean ‖β̂−β‖", alpha, name), references[alpha][c], prototype, s.off[name])
	}
	l.require(fmt.Sprintf("n = 1000, α = %v: MSL-bin over MSL-full", alpha), references[alpha][1]/references[alpha][0], prototype, s.off["MSL-bin"]/s.off["MSL-full"], "<=", 1.05)
	l.report(fmt.Sprintf("n = 1000, α = %v: %s, mean ‖β̂−β‖", alpha, mslSinkhorn.name), references[alpha][0], prototype, s.off[mslSinkhorn.name])
	for _, name := range []string{"MSL-full", "MSL-bin"} {
		if alpha <= .7 {
			l.require(fmt.Sprintf("n = 1000, α = %v: |α̂ − α| of %s", alpha, name), math.NaN(), prototype, math.Abs(s.alpha[name]-alpha), "<=", .05)
		}
	}
	l.report(fmt.Sprintf("n = 1000, α = %v: α̂ of MSL-full", alpha), alpha, "as drawn", s.alpha["MSL-full"])
	l.report(fmt.Sprintf("n = 1000, α = %v: α̂ of %s", alpha, mslSinkhorn.name), math.NaN(), prototype, s.alpha[mslSinkhorn.name])
	return nil
}

// mismatchLarge is MSL-bin where an n×n plan would not fit, beside the rivals that can do so many rows.
func (l *Lab) mismatchLarge(n int) func(context.Context, float64) error {
	references := map[int]map[string]map[float64]float64{
		10_000: {"MSL-bin": {.3: .0151, .5: .0219, .7: .0305}, "mixture": {.3: .0154, .5: .0222, .7: .0328}},
		100_000: {"MSL-bin": {.3: .0050, .5: .0072, .7: .0115}, "mixture": {.3: .0051, .5: .0072, .7: .0119},
			"S–BD": {.3: .020, .5: .017, .7: .026}, "hard EM": {.3: .050, .5: .055, .7: .056}},
	}
	return func(ctx context.Context, alpha float64) error {
		s, err := l.rivals(ctx, n, 20, 1, .3, alpha, scalable...)
		if err != nil {
			return err
		}
		of := fmt.Sprintf("n = %d, α = %v: ", n, alpha)
		for _, v := range scalable {
			l.report(of+v.name+", ‖β̂−β‖", reference(references[n][v.name], alpha), prototype, s.off[v.name])
		}
		l.require(of+"|α̂ − α| of MSL-bin", math.NaN(), prototype, math.Abs(s.alpha["MSL-bin"]-alpha), "<=", .01)
		l.report(of+"σ̂² of MSL-bin", .09, prototype, s.noise["MSL-bin"])
		l.report(of+"seconds of MSL-bin", math.NaN(), "this machine", s.seconds["MSL-bin"])
		return nil
	}
}

// mismatchROBOT is ROBOT in its published setting, which draws x ~ N(1, 1): of features around 0 the sorted labels tell hardly more
// than the length of β.
func (l *Lab) mismatchROBOT(ctx context.Context, alpha float64) error {
	for _, d := range []int{2, 5} {
		var off, with float64
		for repeat := range 2 {
			m := l.mismatched(200, d, 0, alpha, repeat)
			r := rng.New(m.seed, 0, "", "robot")
			for c := range m.beta {
				m.beta[c] = r.NormFloat64()
			}
			norm := floats.Norm(m.beta, 2)
			for i := range 200 {
				x := m.x.RawRowView(i)
				floats.AddConst(1, x)
				m.p.Y.Set(i, 0, floats.Dot(x, m.beta)+norm/10*r.NormFloat64())
			}
			beta, err := mismatch.ROBOT(ctx, m.x, m.p.Y.RawMatrix().Data, mismatch.Robot{Rounds: 100}, r)
			if err != nil {
				return err
			}
			off += floats.Distance(beta, m.beta, 2) / norm / 2
			f, err := mismatch.NewLinear(m.x, false, 0)
			if err != nil {
				return err
			}
			if _, err := mismatch.Fit(ctx, m.p, f, mismatch.Options{}); err != nil {
				return err
			}
			with += floats.Distance(mat.Col(nil, 0, f.Coefficients()), m.beta, 2) / norm / 2
		}
		of := fmt.Sprintf("n = 200, d = %d, x ~ N(1, 1), α = %v: ", d, alpha)
		l.report(of+"ROBOT, ‖β̂−β‖/‖β‖", .055, prototype+" (d = 5)", off)
		l.report(of+"MSL, ‖β̂−β‖/‖β‖", .021, prototype+" (d = 5)", with)
	}
	return nil
}
