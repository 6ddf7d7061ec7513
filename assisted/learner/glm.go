package learner

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

// Generalised is a learner that fits generalised linear models with an offset.
type Generalised interface {
	Learner
	// FitGLM fits a linear predictor beside one that is given, o (n×1), to labels y (n×1):
	//
	//	min over b, β of Σ_i d(y_i, o_i + b + z_i β) + λ ‖β‖²
	//
	// with z the standardised features and d the unit deviance of one of [Families]. The model predicts b + xβ, without the offset. The linear
	// predictor o + b + zβ of counts and classes is taken for ±100 where it is beyond that, so that the fit ends where there is no finite
	// optimum, as of classes that are separable.
	FitGLM(ctx context.Context, x, y, o *mat.Dense, family string) (Model, error)
}

// family is a kind of generalised linear model.
type family struct {
	labels func(y float64) bool // which can be
	what   string               // they are
	// deviance is d(y, η); slope and weight are the first derivative of d/2 by η, and what takes the place of the second.
	deviance, slope, weight func(y, eta float64) float64
}

// mostPredictor bounds linear predictors whose exponential is taken.
const mostPredictor = 100

func capped(eta float64) float64 { return min(max(eta, -mostPredictor), mostPredictor) }

func probability(eta float64) float64 { return 1 / (1 + math.Exp(-capped(eta))) }

// families by name, which are those of the losses that a sponsor has:
//
//	squared   (y − η)²
//	logistic  2 (log(1 + exp η) − yη), y of 0 and 1
//	poisson   2 (y log(y/μ) − y + μ), μ = exp η, y of 0, 1, 2, …
//	log-cosh  2 log cosh(y − η): about squared near 0 and about 2|y − η| far from it. In place of its second derivative, which vanishes for
//	          large errors e, stands tanh(e)/e, with which no step raises the deviance
var families = map[string]family{
	"squared": {func(float64) bool { return true }, "numbers",
		func(y, eta float64) float64 { return (y - eta) * (y - eta) },
		func(y, eta float64) float64 { return eta - y },
		func(float64, float64) float64 { return 1 }},
	"logistic": {func(y float64) bool { return y == 0 || y == 1 }, "0 or 1",
		func(y, eta float64) float64 {
			eta = capped(eta)
			return 2 * (math.Max(eta, 0) + math.Log1p(math.Exp(-math.Abs(eta))) - float64(y*eta))
		},
		func(y, eta float64) float64 { return probability(eta) - y },
		func(_, eta float64) float64 { return probability(eta) * probability(-eta) }},
	"poisson": {func(y float64) bool { return y >= 0 && y == math.Trunc(y) }, "counts: 0, 1, 2, …",
		func(y, eta float64) float64 {
			eta = capped(eta)
			d := math.Exp(eta) - y
			if y > 0 {
				d += float64(y * (math.Log(y) - eta))
			}
			return 2 * d
		},
		func(y, eta float64) float64 { return math.Exp(capped(eta)) - y },
		func(_, eta float64) float64 { return math.Exp(capped(eta)) }},
	"log-cosh": {func(float64) bool { return true }, "numbers",
		func(y, eta float64) float64 {
			e := math.Abs(y - eta)
			return 2 * (e + math.Log1p(math.Exp(-2*e)) - math.Ln2)
		},
		func(y, eta float64) float64 { return -math.Tanh(y - eta) },
		func(y, eta float64) float64 {
			if e := math.Abs(y - eta); e > 1e-8 {
				return math.Tanh(e) / e
			}
			return 1
		}},
}

// Families are the names of the kinds of generalised linear models.
func Families() []string {
	var names []string
	for name := range families {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// FitGLM implements [Generalised] by iteratively reweighted least squares: with g the slope and w the weight of each row at η, the next
// predictor is the weighted least squares fit of η − o − g/w, and the step to it is halved while the deviance rises.
func (l leastSquares) FitGLM(ctx context.Context, x, y, o *mat.Dense, name string) (Model, error) {
	f, ok := families[name]
	if !ok {
		return nil, fmt.Errorf("generalised linear models of family %.40q: expected one of %s", name, strings.Join(Families(), ", "))
	}
	n, d, k, w, err := checkFit(x, y, nil)
	if err != nil {
		return nil, err
	}
	if rows, columns := o.Dims(); rows != n || columns != 1 || k != 1 {
		return nil, &ShapeError{"offsets", rows, columns, fmt.Sprintf("%d×1, as labels; these have %d columns", n, k)}
	}
	for i := range n {
		if !f.labels(y.At(i, 0)) {
			return nil, &ValueError{"labels", i, 0, y.At(i, 0), f.what}
		}
	}
	g := &glm{family: f, leastSquares: l, y: y, o: o, eta: mat.DenseCopyOf(o), m: &Linear{Bias: []float64{0}}}
	var s scaling
	if d > 0 {
		s = standardise(x, w, l.intercept)
		g.z = s.apply(x)
		g.m.Fill, g.m.Center, g.m.Coefficients = s.fill, s.center, mat.NewDense(d, 1, nil)
	}
	if err := g.descend(ctx); err != nil {
		return nil, err
	}
	if d > 0 {
		g.m.unscale(s)
	}
	return g.m, nil
}

// glm is a fit under way.
type glm struct {
	family
	leastSquares
	z, y, o *mat.Dense
	eta     *mat.Dense // o + b + zβ
	m       *Linear    // b and β, of standardised features
}

// Fits end after so many steps, or when a step lowers the objective by less than this part of it, or moves no predictor by more than that part
// of the greatest.
const (
	glmSteps     = 200
	glmTolerance = 1e-14
	glmStill     = 1e-12
)

func (g *glm) descend(ctx context.Context) error {
	value := g.objective(g.m, g.eta)
	for range glmSteps {
		if err := ctx.Err(); err != nil {
			return err
		}
		next, err := g.step()
		if err != nil {
			return err
		}
		lower := false
		for range 40 {
			eta := g.predictor(next)
			if floats.Distance(eta.RawMatrix().Data, g.eta.RawMatrix().Data, math.Inf(1)) <= glmStill*(1+floats.Norm(eta.RawMatrix().Data, math.Inf(1))) {
				break
			}
			v := g.objective(next, eta)
			if v < value {
				lower = value-v > glmTolerance*math.Abs(value)
				g.m, g.eta, value = next, eta, v
				break
			}
			next = g.between(next)
		}
		if !lower {
			return nil
		}
	}
	return nil
}

// step is the weighted least squares fit that IRLS goes to.
func (g *glm) step() (*Linear, error) {
	n, _ := g.y.Dims()
	w, t := make([]float64, n), mat.NewDense(n, 1, nil)
	for i := range n {
		y, eta := g.y.At(i, 0), g.eta.At(i, 0)
		w[i] = max(g.weight(y, eta), 1e-10)
		t.Set(i, 0, eta-g.o.At(i, 0)-g.slope(y, eta)/w[i])
	}
	next := &Linear{Bias: []float64{0}, Fill: g.m.Fill, Center: g.m.Center}
	var centre []float64
	if g.intercept {
		next.Bias = columnMeans(t, w)
		if g.z != nil {
			centre = columnMeans(g.z, w)
		}
	}
	if g.z == nil {
		return next, nil
	}
	_, d := g.z.Dims()
	a := mat.NewDense(n, d, nil)
	for i := range n {
		root := math.Sqrt(w[i])
		for j, v := range g.z.RawRowView(i) {
			if centre != nil {
				v -= centre[j]
			}
			a.Set(i, j, v*root)
		}
		t.Set(i, 0, (t.At(i, 0)-next.Bias[0])*root)
	}
	var err error
	if next.Coefficients, err = solve(a, t, g.lambda); err != nil {
		return nil, err
	}
	for j := range centre {
		next.Bias[0] -= float64(centre[j] * next.Coefficients.At(j, 0))
	}
	return next, nil
}

// between is half-way from where the fit is to next.
func (g *glm) between(next *Linear) *Linear {
	out := &Linear{Bias: []float64{(g.m.Bias[0] + next.Bias[0]) / 2}, Fill: g.m.Fill, Center: g.m.Center}
	if g.z != nil {
		out.Coefficients = new(mat.Dense)
		out.Coefficients.Add(g.m.Coefficients, next.Coefficients)
		out.Coefficients.Scale(0.5, out.Coefficients)
	}
	return out
}

func (g *glm) predictor(m *Linear) *mat.Dense {
	eta := mat.DenseCopyOf(g.o)
	if g.z != nil {
		var part mat.Dense
		part.Mul(g.z, m.Coefficients)
		eta.Add(eta, &part)
	}
	eta.Apply(func(_, _ int, v float64) float64 { return v + m.Bias[0] }, eta)
	return eta
}

func (g *glm) objective(m *Linear, eta *mat.Dense) float64 {
	sum := 0.0
	for i, v := range eta.RawMatrix().Data {
		sum += g.deviance(g.y.At(i, 0), v)
	}
	if g.z != nil {
		for _, b := range m.Coefficients.RawMatrix().Data {
			sum += float64(g.lambda * b * b)
		}
	}
	return sum
}

var _ Generalised = leastSquares{}
