package learner

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/optimize"
)

// logistic fits classes by multinomial logistic regression with a ridge penalty: with z the standardised features and
// p = softmax(b + zβ), it minimises
//
//	−Σ_i w_i log p_{i,label_i} + λ/2 ‖β‖²
//
// by L-BFGS. The objective is convex; the intercepts, which are not penalised, sum to 0. The model's scores are b + xβ.
type logistic struct{ lambda float64 }

func newLogistic(s Spec) (Learner, error) {
	l := logistic{or(s.Lambda, 1)}
	if l.lambda <= 0 {
		return nil, fmt.Errorf("lambda: %g, expected more than 0: without a penalty there may be no finite solution", l.lambda)
	}
	return l, nil
}

// Fit refuses: the targets of assistance are numbers.
func (logistic) Fit(context.Context, *mat.Dense, *mat.Dense, []float64, *rng.Stream) (Model, error) {
	return nil, errors.New("logistic regression fits classes, and these targets are numbers: choose linear, ridge or another learner for residuals")
}

func (l logistic) FitClasses(ctx context.Context, x *mat.Dense, labels []int, k int, w []float64, _ *rng.Stream) (Model, error) {
	d, w, err := checkLabels(x, labels, k, w)
	if err != nil {
		return nil, err
	}
	if d == 0 {
		x = mat.NewDense(len(labels), 1, nil) // the intercepts are what is left to fit
	}
	s := standardise(x, w, true)
	f := &deviance{ctx: ctx, z: s.apply(x), labels: labels, w: w, k: k, lambda: l.lambda, total: floats.Sum(w)}
	p := make([]float64, (len(s.fill)+1)*k)
	result, err := optimize.Minimize(optimize.Problem{Func: f.value, Grad: f.gradient}, p,
		&optimize.Settings{GradientThreshold: 1e-8, Converger: optimize.NeverTerminate{}, MajorIterations: 1000}, &optimize.LBFGS{})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	// Near the optimum a line search may find nothing better in floating point: what counts is the gradient.
	if result == nil || !(norm(f, result.X) < 1e-5) {
		return nil, fmt.Errorf("logistic regression has not converged: %w", errors.Join(err, errors.New("its gradient is not small; give it a greater lambda")))
	}
	if d == 0 {
		return &Linear{Bias: result.X[k:]}, nil
	}
	m := &Linear{Bias: result.X[d*k:], Coefficients: mat.NewDense(d, k, result.X[:d*k]), Fill: s.fill, Center: s.center}
	m.unscale(s)
	return m, nil
}

// deviance is the objective divided by the sum of the weights; its parameters are β (d×k) above b.
type deviance struct {
	ctx           context.Context
	z             *mat.Dense
	labels        []int
	w             []float64
	k             int
	lambda, total float64
}

func (f *deviance) value(p []float64) float64 { return f.evaluate(nil, p) }

func (f *deviance) gradient(g, p []float64) { f.evaluate(g, p) }

// evaluate returns the value at p, and writes the gradient to g unless it is nil. It is NaN once the fit is called off.
func (f *deviance) evaluate(g, p []float64) float64 {
	if f.ctx.Err() != nil {
		return math.NaN()
	}
	n, d := f.z.Dims()
	beta, scores := p[:d*f.k], make([]float64, f.k)
	clear(g)
	var loss float64
	for i := range n {
		zi := f.z.RawRowView(i)
		affine(scores, zi, p)
		log := floats.LogSumExp(scores)
		loss += float64(f.w[i] * (log - scores[f.labels[i]]))
		if g == nil {
			continue
		}
		for c, v := range scores {
			scores[c] = f.w[i] * math.Exp(v-log)
		}
		scores[f.labels[i]] -= f.w[i]
		spread(g, zi, scores)
	}
	if g != nil {
		floats.AddScaled(g[:d*f.k], f.lambda, beta)
		floats.Scale(1/f.total, g)
	}
	return (loss + float64(f.lambda/2*floats.Dot(beta, beta))) / f.total
}

// norm returns the greatest entry of the gradient at p.
func norm(f *deviance, p []float64) float64 {
	g := make([]float64, len(p))
	f.gradient(g, p)
	return floats.Norm(g, math.Inf(1))
}
