package al

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/federated"
	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/stat/distuv"
)

// Useful asks whether assistance is worth while before anything is fitted or any residual is sent: the test of usefulness of
// additive-effect assisted learning (Zhang, Yang and Ding). Every organisation that allows it tells a few random mixtures of its columns;
// the sponsor compares a generalised linear model of its labels on its own columns with one on the mixtures besides, by the likelihood
// ratio: twice the gain in log-likelihood is about χ² with as many degrees of freedom as parameters came in, if
// the organisation knows nothing that the sponsor does not. The released script counts an intercept too many. Small p-values
// speak for assistance.
//
// Counts are tested by the Poisson model, other quantities by the normal one, classes by the (multinomial) logistic one. It is one round.
type Useful struct {
	assisted.Table
	Mixtures int // of each organisation; 3 in the authors' code
	// Own are the sponsor's own columns, n×d, missing values allowed. nil: its own desk, which has to be open, is asked for them.
	Own *mat.Dense
}

// Check implements [federated.Algorithm].
func (u *Useful) Check(srv federated.Server) error {
	if err := u.Table.Check(srv); err != nil {
		return err
	}
	if u.Mixtures < 1 {
		return fmt.Errorf("%d mixtures: need at least 1", u.Mixtures)
	}
	if u.Own != nil {
		if rows, _ := u.Own.Dims(); rows != len(u.Sponsor.Keys) {
			return fmt.Errorf("%d rows of the sponsor's own columns for %d keys", rows, len(u.Sponsor.Keys))
		}
	} else if u.Sponsor.Own == "" {
		return errors.New("the test compares with the sponsor's own columns, and the sponsor does not say which member has them")
	}
	return nil
}

// Init implements [federated.Algorithm].
func (u *Useful) Init(_ context.Context, srv federated.Server) (federated.State, error) {
	return u.Begin(srv, true)
}

// Next implements [federated.Algorithm].
func (u *Useful) Next(s federated.State) (federated.Phase, bool) {
	c := assisted.MustCourse(s)
	p, step, rows := u.Table.Next(s, c)
	if rows {
		return p, true
	}
	return u.SketchPhase(c, u.asked), step == 0
}

// asked reports whether an organisation is asked for mixtures: not the sponsor's own where its columns are here.
func (u *Useful) asked(name string) bool { return u.Own == nil || name != u.Sponsor.Own }

// Task implements [federated.Algorithm].
func (u *Useful) Task(_ federated.State, p federated.Phase, _ federated.Member) (federated.Task, error) {
	if p.Name == assisted.Rows {
		return u.RowsTask()
	}
	return u.SketchTask(u.Mixtures)
}

// Finish implements [federated.Algorithm].
func (u *Useful) Finish(_ context.Context, srv federated.Server, s federated.State, p federated.Phase, _ map[string]*federated.Sum, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	c, err := assisted.CourseOf(s)
	if err != nil {
		return s, federated.Diagnostics{}, err
	}
	if p.Name == assisted.Rows {
		s, _, d, err := u.Told(srv, s, c, roll)
		return s, d, err
	}
	d, _, err := u.test(srv, c, roll)
	s.Version++
	return s, d, err
}

// test compares the organisations that have told mixtures, and returns who knows something that the sponsor does not.
func (u *Useful) test(srv federated.Server, c assisted.Course, roll federated.Roll) (d federated.Diagnostics, passed []string, err error) {
	d.Notes = assisted.Lost(roll, "is not tested")
	mixtures := map[string]*mat.Dense{}
	for _, g := range roll.Gathered {
		name := srv.Population.Member(g.Member).Name
		x, err := assisted.ReadMatrix(g.Attached)
		if err == nil {
			if rows, columns := x.Dims(); rows != len(u.Sponsor.Keys) || name != u.Sponsor.Own && columns != u.Mixtures {
				err = fmt.Errorf("%d×%d values, where %d×%d were asked for", rows, columns, len(u.Sponsor.Keys), u.Mixtures)
			}
		}
		if err != nil {
			d.Notes = append(d.Notes, fmt.Sprintf("%s is not tested: its answer is %v", name, err))
			continue
		}
		mixtures[name] = x
	}
	own := mixtures[u.Sponsor.Own]
	if u.Own != nil {
		own = mat.DenseCopyOf(u.Own)
		assisted.UnitColumns(own)
	}
	if own == nil {
		return d, nil, fmt.Errorf("the sponsor's own desk, %s, did not tell its columns: it has to be open for this test", u.Sponsor.Own)
	}
	for _, name := range c.Members {
		x, ok := mixtures[name]
		if !ok || name == u.Sponsor.Own {
			continue
		}
		test, err := Compare(u.Sponsor.Objective, u.Sponsor.Labels, own, x, u.Sponsor.Fit)
		if err != nil {
			d.Notes = append(d.Notes, fmt.Sprintf("%s is not tested: %v", name, err))
			continue
		}
		d.Add("useful.p", name, test.P)
		d.Add("useful.statistic", name, test.Statistic)
		d.Notes = append(d.Notes, fmt.Sprintf("%s: χ² = %.4g on %d degrees of freedom, p = %.3g: %s", name, test.Statistic, test.Freedom, test.P, Verdict(test.P)))
		if test.P < Level {
			passed = append(passed, name)
		}
	}
	return d, passed, nil
}

// Level is the p-value below which the test speaks for assistance.
const Level = 0.05

// Verdict says in words what a p-value of the test means.
func Verdict(p float64) string {
	if p < Level {
		return "it knows something that the sponsor does not"
	}
	return "nothing speaks for its assistance"
}

// Client implements [federated.Algorithm].
func (u *Useful) Client() federated.Client { return u.Desks }

var _ federated.Algorithm = (*Useful)(nil)

// Test is the outcome of a likelihood-ratio test.
type Test struct {
	Statistic float64 // twice the gain in log-likelihood
	Freedom   int     // parameters that came in
	P         float64 // chance of at least this gain where there is nothing to gain
}

// Compare tests whether columns more tell something of labels beside columns own, on the first rows of them that are complete.
func Compare(o assisted.Objective, y, own, more *mat.Dense, rows int) (Test, error) {
	var both mat.Dense
	if a, _ := own.Dims(); a < rows {
		return Test{}, fmt.Errorf("%d rows of features for %d labels", a, rows)
	}
	if a, _ := more.Dims(); a < rows {
		return Test{}, fmt.Errorf("%d rows of mixtures for %d labels", a, rows)
	}
	both.Augment(own.Slice(0, rows, 0, columnsOf(own)), more.Slice(0, rows, 0, columnsOf(more)))
	var complete []int
	for i := range rows {
		whole := !assisted.Masked(y, i)
		for _, v := range both.RawRowView(i) {
			whole = whole && !math.IsNaN(v) && !math.IsInf(v, 0)
		}
		if whole {
			complete = append(complete, i)
		}
	}
	small, large := design(&both, complete, columnsOf(own)), design(&both, complete, columnsOf(&both))
	freedom := assisted.Rank(large) - assisted.Rank(small)
	if freedom == 0 {
		return Test{P: 1}, nil // what came in was there before
	}
	fit := normal
	switch {
	case o.Classifies():
		fit = multinomial(max(2, o.Classes))
		freedom *= max(2, o.Classes) - 1
	case o.Loss == assisted.Poisson:
		fit = counts(o)
		freedom *= columnsOf(y)
	default:
		freedom *= columnsOf(y)
	}
	if len(complete) <= columnsOf(large)+1 {
		return Test{}, fmt.Errorf("%d complete rows do not suffice for %d columns", len(complete), columnsOf(large))
	}
	labels := assisted.Pick(y, complete)
	gain := max(0, 2*(fit(large, labels)-fit(small, labels)))
	return Test{gain, freedom, distuv.ChiSquared{K: float64(freedom)}.Survival(gain)}, nil
}

func columnsOf(x *mat.Dense) int { _, c := x.Dims(); return c }

// design is a column of ones beside the first columns of some rows.
func design(x *mat.Dense, rows []int, columns int) *mat.Dense {
	out := mat.NewDense(len(rows), columns+1, nil)
	for i, row := range rows {
		out.Set(i, 0, 1)
		copy(out.RawRowView(i)[1:], x.RawRowView(row)[:columns])
	}
	return out
}

// normal is the largest log-likelihood of labels that are normal around a linear function, up to a constant: −(n/2) log RSS for each
// column.
func normal(x, y *mat.Dense) (l float64) {
	var svd mat.SVD
	if !svd.Factorize(x, mat.SVDThin) {
		return math.Inf(-1)
	}
	rank := assisted.Rank(x)
	var u, inside mat.Dense
	svd.UTo(&u)
	basis := u.Slice(0, columnLength(x), 0, rank).(*mat.Dense)
	inside.Mul(basis.T(), y)
	var fitted, left mat.Dense
	fitted.Mul(basis, &inside)
	left.Sub(y, &fitted)
	n := float64(columnLength(x))
	for k := range columnsOf(y) {
		rss := math.Pow(mat.Norm(left.ColView(k), 2), 2)
		l -= n / 2 * math.Log(max(rss, 1e-300))
	}
	return l
}

// counts is the largest log-likelihood of counts by a Poisson model, up to a constant: minus half the deviance, for each column.
func counts(o assisted.Objective) func(x, y *mat.Dense) float64 {
	return func(x, y *mat.Dense) (l float64) {
		n := columnLength(x)
		for k := range columnsOf(y) {
			labels := assisted.Columns(y, []int{k})
			m, err := model.FitGLM(context.Background(), x, labels, mat.NewDense(n, 1, nil), o.Loss)
			var eta *mat.Dense
			if err == nil {
				eta, err = m.Predict(x)
			}
			if err != nil {
				return math.Inf(-1)
			}
			l -= float64(n) / 2 * o.Value(labels, eta)
		}
		return l
	}
}

// model fits generalised linear models; the column of ones among the features is its intercept's.
var model = linear()

func linear() learner.Generalised {
	l, err := learner.Spec{Name: "linear"}.New()
	if err != nil {
		panic("al: " + err.Error()) // it has no options
	}
	return l.(learner.Generalised)
}

func columnLength(x *mat.Dense) int { r, _ := x.Dims(); return r }

// multinomial is the largest log-likelihood of classes by a logistic model, by Newton's method with a trace of a penalty, which keeps it
// finite where classes are separable; the linear predictor stays within ±100.
func multinomial(classes int) func(x, y *mat.Dense) float64 {
	const penalty, most = 1e-6, 100
	return func(x, y *mat.Dense) float64 {
		n, d := x.Dims()
		free := classes - 1 // class 0 has predictor 0
		beta := mat.NewVecDense(free*d, nil)
		p := make([]float64, classes)
		value := func(b *mat.VecDense, visit func(i, class int, p []float64)) (l float64) {
			for i := range n {
				row, sum, top := x.RawRowView(i), 0.0, 0.0
				for c := range p {
					p[c] = 0
					for j := 0; c > 0 && j < d; j++ {
						p[c] += float64(b.AtVec((c-1)*d+j) * row[j])
					}
					p[c] = min(max(p[c], -most), most)
					top = max(top, p[c])
				}
				class := int(y.At(i, 0))
				at := p[class]
				for c := range p {
					p[c] = math.Exp(p[c] - top)
					sum += p[c]
				}
				l += at - top - math.Log(sum)
				for c := range p {
					p[c] /= sum
				}
				if visit != nil {
					visit(i, class, p)
				}
			}
			return l - penalty/2*mat.Dot(b, b)
		}
		last := value(beta, nil)
		for range 50 {
			slope, curve := mat.NewVecDense(free*d, nil), mat.NewSymDense(free*d, nil)
			slope.ScaleVec(-penalty, beta)
			for i := range free * d {
				curve.SetSym(i, i, penalty)
			}
			value(beta, func(i, class int, p []float64) {
				row := x.RawRowView(i)
				for a := 1; a < classes; a++ {
					r := -p[a]
					if a == class {
						r++
					}
					for j, v := range row {
						k := (a-1)*d + j
						slope.SetVec(k, slope.AtVec(k)+float64(r*v))
					}
					for b := a; b < classes; b++ {
						w := -p[a] * p[b]
						if a == b {
							w += p[a]
						}
						for j, v := range row {
							for l, u := range row {
								if k, m := (a-1)*d+j, (b-1)*d+l; k <= m {
									curve.SetSym(k, m, curve.At(k, m)+float64(w*v*u))
								}
							}
						}
					}
				}
			})
			var ch mat.Cholesky
			var step mat.VecDense
			if !ch.Factorize(curve) || ch.SolveVecTo(&step, slope) != nil {
				break
			}
			moved := false
			for t := 1.0; t > 1e-6; t /= 2 {
				var at mat.VecDense
				at.AddScaledVec(beta, t, &step)
				if v := value(&at, nil); v > last {
					moved = v-last > 1e-10*(1+math.Abs(last))
					beta.CopyVec(&at)
					last = v
					break
				}
			}
			if !moved {
				break
			}
		}
		return last
	}
}
