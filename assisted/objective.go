package assisted

import (
	"errors"
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"
)

// The overarching losses L1 that a sponsor may have. Each is a sum over the outputs of a row.
const (
	Squared      = "squared"       // (y − F)²
	Absolute     = "absolute"      // |y − F|
	CrossEntropy = "cross-entropy" // −log softmax(F)_y, for K ≥ 2 classes
	Logistic     = "logistic"      // log(1 + exp(F)) − yF, for two classes and one output
	Poisson      = "poisson"       // 2 (y log(y/μ) − y + μ), the deviance of counts y with the mean μ = exp(F)
	LogCosh      = "log-cosh"      // log cosh(y − F)
)

// Objective is the sponsor's overarching loss L1, summed over rows as in Diao, Ding and Tarokh (2022). Labels are an n×1
// matrix of classes 0…K−1 for the losses of classification, and n×K values for those of regression.
type Objective struct {
	Loss    string `yaml:"loss" json:"loss" doc:"squared, absolute, log-cosh, poisson, cross-entropy or logistic"`
	Classes int    `yaml:"classes,omitempty" json:"classes,omitempty" doc:"number of classes of cross-entropy"`
	// Smooth adds one to the count of every class in the initial value, so that a class without rows has a finite logit.
	Smooth bool `yaml:"smooth,omitempty" json:"smooth,omitempty" doc:"count every class once more in the initial value"`
}

// Validate returns an error that says what is wrong with the objective itself.
func (o Objective) Validate() error {
	switch o.Loss {
	case Squared, Absolute, LogCosh, Poisson:
		if o.Classes != 0 {
			return fmt.Errorf("a loss of regression, %s, has no classes: leave out classes (%d)", o.Loss, o.Classes)
		}
	case CrossEntropy:
		if o.Classes < 2 {
			return fmt.Errorf("cross-entropy of %d classes: need at least 2", o.Classes)
		}
	case Logistic:
		if o.Classes != 0 && o.Classes != 2 {
			return fmt.Errorf("the logistic loss is for 2 classes, not %d: take cross-entropy", o.Classes)
		}
	default:
		return fmt.Errorf("loss %q, expected squared, absolute, log-cosh, poisson, cross-entropy or logistic", o.Loss)
	}
	return nil
}

// Classifies reports whether labels are classes.
func (o Objective) Classifies() bool { return o.Loss == CrossEntropy || o.Loss == Logistic }

// classes is how many classes there are; 0 for regression.
func (o Objective) classes() int {
	if o.Loss == Logistic {
		return 2
	}
	return o.Classes
}

// Outputs is K, the number of columns of F, for labels y.
func (o Objective) Outputs(y *mat.Dense) int {
	switch o.Loss {
	case CrossEntropy:
		return o.Classes
	case Logistic:
		return 1
	}
	_, k := y.Dims()
	return k
}

// Check returns an error for labels that the objective is not for. In regression a row that is NaN throughout is masked: it
// is neither fitted nor scored.
func (o Objective) Check(y *mat.Dense) error {
	if err := o.Validate(); err != nil {
		return err
	}
	rows, columns := y.Dims()
	if o.Classifies() && columns != 1 {
		return fmt.Errorf("labels of classification have one column, these have %d", columns)
	}
	for i := range rows {
		masked := 0
		for j, v := range y.RawRowView(i) {
			switch {
			case o.Classifies() && !(v >= 0 && v < float64(o.classes()) && v == math.Trunc(v)):
				return fmt.Errorf("label %d is %v: expected a class of 0 to %d", i, v, o.classes()-1)
			case math.IsInf(v, 0):
				return fmt.Errorf("label %d, column %d is infinite", i, j)
			case o.Loss == Poisson && (v < 0 || v != math.Trunc(v) && !math.IsNaN(v)):
				return fmt.Errorf("label %d, column %d is %v: the loss poisson is for counts, 0, 1, 2 and so on", i, j, v)
			case math.IsNaN(v):
				masked++
			}
		}
		if masked > 0 && masked < columns {
			return fmt.Errorf("label %d is missing in %d of %d columns: give all of a row, or none to leave it out", i, masked, columns)
		}
	}
	return nil
}

// Masked reports whether row i of the labels is neither fitted nor scored.
func Masked(y *mat.Dense, i int) bool { return math.IsNaN(y.At(i, 0)) }

// unmasked is how many rows count.
func unmasked(y *mat.Dense) int {
	n, _ := y.Dims()
	for i := range n {
		if Masked(y, i) {
			n--
		}
	}
	return n
}

// Initial returns F⁰, the constant row that everybody is predicted before the first round: the mean of the labels in
// regression, also for the absolute loss, of counts its logarithm, and the logarithm of the classes' shares in classification, log(n_k/n).
func (o Objective) Initial(y *mat.Dense) ([]float64, error) {
	n, columns := y.Dims()
	if unmasked(y) == 0 {
		return nil, errors.New("there is no row to fit: every label is missing")
	}
	if !o.Classifies() {
		mean := make([]float64, columns)
		for i := range n {
			if Masked(y, i) {
				continue
			}
			for j, v := range y.RawRowView(i) {
				mean[j] += v
			}
		}
		for j := range mean {
			mean[j] /= float64(unmasked(y))
			if o.Loss == Poisson {
				if mean[j] == 0 {
					return nil, errors.New("of the rows to fit none has a count above 0, so that the logarithm of their mean would be −∞")
				}
				mean[j] = math.Log(mean[j])
			}
		}
		return mean, nil
	}
	count := make([]float64, o.classes())
	all := float64(n)
	for i := range n {
		count[int(y.At(i, 0))]++
	}
	for k := range count {
		if o.Smooth {
			count[k]++
			all++
		}
		if count[k] == 0 {
			return nil, fmt.Errorf("class %d has no row among those to fit, so that its first logit would be −∞: leave the class out, or set smooth", k)
		}
	}
	if o.Loss == Logistic {
		return []float64{math.Log(count[1] / count[0])}, nil
	}
	for k := range count {
		count[k] = math.Log(count[k] / all)
	}
	return count, nil
}

// Residual returns the pseudo-residuals r = −∂L1(y,F)/∂F, n×K, of the loss summed over rows:
//
//	squared        2(y − F)
//	absolute       sign(y − F), 0 where equal
//	cross-entropy  onehot(y) − softmax(F)
//	logistic       y − 1/(1 + exp(−F))
//	poisson        2(y − exp(F))
//	log-cosh       tanh(y − F)
//
// Masked rows are NaN throughout.
func (o Objective) Residual(y, f *mat.Dense) *mat.Dense {
	rows, columns := f.Dims()
	r := mat.NewDense(rows, columns, nil)
	for i := range rows {
		o.residual(y.RawRowView(i), f.RawRowView(i), r.RawRowView(i))
	}
	return r
}

func (o Objective) residual(y, f, r []float64) {
	switch o.Loss {
	case Squared:
		for k := range r {
			r[k] = 2 * (y[k] - f[k])
		}
	case Absolute:
		for k := range r {
			switch e := y[k] - f[k]; {
			case e > 0:
				r[k] = 1
			case e < 0:
				r[k] = -1
			case math.IsNaN(e):
				r[k] = e
			}
		}
	case CrossEntropy:
		softmax(f, r)
		for k := range r {
			r[k] = -r[k]
		}
		r[int(y[0])]++
	case Logistic:
		r[0] = y[0] - sigmoid(f[0])
	case Poisson:
		for k := range r {
			r[k] = 2 * (y[k] - o.Expect(f[k]))
		}
	case LogCosh:
		for k := range r {
			r[k] = math.Tanh(y[k] - f[k])
		}
	}
}

// mostLog bounds F of counts, so that their means are finite numbers.
const mostLog = 100

// Expect returns the number that F stands for in regression: of counts their mean exp(F), else F itself.
func (o Objective) Expect(f float64) float64 {
	if o.Loss == Poisson {
		return math.Exp(min(f, mostLog))
	}
	return f
}

// Value returns the mean of L1 over rows that are not masked.
func (o Objective) Value(y, f *mat.Dense) float64 {
	rows, _ := f.Dims()
	sum, n := 0.0, 0
	for i := range rows {
		if Masked(y, i) {
			continue
		}
		sum += o.loss(y.RawRowView(i), f.RawRowView(i))
		n++
	}
	return sum / float64(n)
}

func (o Objective) loss(y, f []float64) (l float64) {
	switch o.Loss {
	case Squared:
		for k := range f {
			e := y[k] - f[k]
			l += float64(e * e)
		}
	case Absolute:
		for k := range f {
			l += math.Abs(y[k] - f[k])
		}
	case CrossEntropy:
		l = logSumExp(f) - f[int(y[0])]
	case Logistic:
		l = softplus(f[0]) - float64(y[0]*f[0])
	case Poisson:
		for k := range f {
			at := min(f[k], mostLog)
			d := math.Exp(at) - y[k]
			if y[k] > 0 {
				d += float64(y[k] * (math.Log(y[k]) - at))
			}
			l += 2 * d
		}
	case LogCosh:
		for k := range f {
			e := math.Abs(y[k] - f[k])
			l += e + math.Log1p(math.Exp(-2*e)) - math.Ln2
		}
	}
	return l
}

// Constant returns n rows that are all alike.
func Constant(n int, row []float64) *mat.Dense {
	x := mat.NewDense(n, len(row), nil)
	for i := range n {
		x.SetRow(i, row)
	}
	return x
}

// softmax sets p to exp(f_k)/Σ exp(f_l).
func softmax(f, p []float64) {
	z := logSumExp(f)
	for k := range f {
		p[k] = math.Exp(f[k] - z)
	}
}

func logSumExp(f []float64) float64 {
	most := math.Inf(-1)
	for _, v := range f {
		most = math.Max(most, v)
	}
	sum := 0.0
	for _, v := range f {
		sum += math.Exp(v - most)
	}
	return most + math.Log(sum)
}

func sigmoid(v float64) float64 {
	if v >= 0 {
		return 1 / (1 + math.Exp(-v))
	}
	e := math.Exp(v)
	return e / (1 + e)
}

// softplus returns log(1 + exp(v)).
func softplus(v float64) float64 { return math.Max(v, 0) + math.Log1p(math.Exp(-math.Abs(v))) }
