package assisted

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/cohort-learning/cohort/federated"
	"gonum.org/v1/gonum/mat"
)

// Disclosure is what of the labels the sponsor lets others know.
//
// Residuals tell labels: those of cross-entropy in the first round are the one-hot label less the classes' shares, so that
// their largest entry is the label; with the absolute loss the sign is on which side of the mean a label lies, and with the squared
// loss residuals are labels but for a constant. Noise on residuals that are sent again and again only slows down whoever
// averages them. What lasts is randomised response: labels are exchanged once, at random, before anything is computed from them.
type Disclosure struct {
	Disclose string  `yaml:"disclose,omitempty" doc:"labels: residuals may be sent whatever they tell of labels"`
	Most     float64 `yaml:"max_label_recovery,omitempty" doc:"part of the labels that residuals may tell an organisation, by the built-in attack; else the run refuses to begin, unless disclose is labels"`
	Response float64 `yaml:"label_epsilon,omitempty" doc:"epsilon of randomised response: every label of training is exchanged once with probability (K−1)/(e^epsilon + K−1), and everything is computed from what comes of it; 0: labels are as they are"`
}

// Validate returns an error that says what cannot be.
func (d Disclosure) Validate() error {
	switch {
	case d.Disclose != "" && d.Disclose != "labels":
		return fmt.Errorf("disclose: %q, expected labels or nothing", d.Disclose)
	case !(d.Most >= 0 && d.Most <= 1):
		return fmt.Errorf("max_label_recovery: %g is outside [0, 1]", d.Most)
	case !(d.Response >= 0) || math.IsInf(d.Response, 0):
		return fmt.Errorf("label_epsilon: %g must be a number of at least 0", d.Response)
	}
	return nil
}

// Admit returns an error if residuals must not be sent to others, given what part of the labels they tell.
func (d Disclosure) Admit(recovery float64) error {
	if d.Disclose == "labels" || recovery <= d.Most {
		return nil
	}
	return fmt.Errorf("what is sent would tell an organisation %.1f %% of the labels it stands for, and at most %.1f %% are allowed: "+
		"set disclose: labels if they may know, raise max_label_recovery, or exchange labels at random with label_epsilon", 100*recovery, 100*d.Most)
}

// Likelihood says how likely it is, as a logarithm up to a constant, that v is sent of a residual r.
type Likelihood func(v, r float64) float64

// Recover returns the part of labels that an honest but curious organisation reads off the residuals of several rounds, all of
// which it takes for those of the first, at F⁰, whose shares of classes it knows.
//
//	classification  the class whose residuals make what was sent most likely; without noise (nil) the nearest ones
//	squared         F⁰ + mean r/2 is within a tenth of the labels' deviation of the label
//	absolute        the sign of mean r says on which side of F⁰ the label lies
//	poisson         exp F⁰ + mean r/2 is within a tenth of the labels' deviation of the label
//	log-cosh        F⁰ + artanh of mean r is
//
// Rows are those of the residuals; masked ones do not count. Of a row that is masked in some rounds the others tell; one that was never
// sent is taken for the most frequent class, or for F⁰.
func (o Objective) Recover(y *mat.Dense, start []float64, received []*mat.Dense, likely Likelihood) float64 {
	if likely == nil {
		likely = func(v, r float64) float64 { return -(v - r) * (v - r) }
	}
	rows, columns := received[0].Dims()
	width := 0.1 * o.deviation(y, start)
	told, all := 0, 0
	for i := range rows {
		if Masked(y, i) {
			continue
		}
		all++
		if o.Classifies() {
			told += b2i(o.guess(start, received, i, likely) == int(y.At(i, 0)))
			continue
		}
		mean := make([]float64, columns)
		sent := slices.DeleteFunc(slices.Clone(received), func(r *mat.Dense) bool { return Masked(r, i) })
		for _, r := range sent {
			for k, v := range r.RawRowView(i) {
				mean[k] += v / float64(len(sent))
			}
		}
		told += b2i(o.reads(y.RawRowView(i), start, mean, width))
	}
	return float64(told) / float64(all)
}

// guess is the class that makes what was sent of row i most likely.
func (o Objective) guess(start []float64, received []*mat.Dense, i int, likely Likelihood) int {
	best, most := 0, math.Inf(-1)
	expected := make([]float64, len(start))
	sent := slices.DeleteFunc(slices.Clone(received), func(r *mat.Dense) bool { return Masked(r, i) })
	if len(sent) == 0 {
		return o.Predict(start)
	}
	for class := range o.classes() {
		o.residual([]float64{float64(class)}, start, expected)
		sum := 0.0
		for _, r := range sent {
			for k, v := range r.RawRowView(i) {
				sum += likely(v, expected[k])
			}
		}
		if sum > most {
			best, most = class, sum
		}
	}
	return best
}

// reads reports whether a label of regression is read off its mean residual.
func (o Objective) reads(y, start, r []float64, width float64) bool {
	for k, v := range r {
		guess := start[k] + v/2
		switch o.Loss {
		case Poisson:
			guess = o.Expect(start[k]) + v/2
		case LogCosh:
			guess = start[k] + math.Atanh(v)
		}
		if o.Loss != Absolute && !(math.Abs(guess-y[k]) <= width) {
			return false
		}
		if o.Loss == Absolute && (v > 0) != (y[k] > start[k]) {
			return false
		}
	}
	return true
}

// deviation is the root mean square of labels around F⁰.
func (o Objective) deviation(y *mat.Dense, start []float64) float64 {
	if o.Classifies() {
		return 0
	}
	rows, columns := y.Dims()
	sum, n := 0.0, 0
	for i := range rows {
		if Masked(y, i) {
			continue
		}
		for k := range columns {
			e := y.At(i, k) - o.Expect(start[k])
			sum += float64(e * e)
			n++
		}
	}
	return math.Sqrt(sum / float64(n))
}

// respond returns labels of which each is kept with probability e^ε/(e^ε + K − 1) and otherwise exchanged for one of the others, all
// alike: randomised response (Warner 1965), which is ε-differentially private for each label, however often the outcome is used.
func (o Objective) respond(random *rand.Rand, y *mat.Dense, epsilon float64) *mat.Dense {
	k := o.classes()
	keep := 1 / (1 + float64(float64(k-1)*math.Exp(-epsilon)))
	out := mat.DenseCopyOf(y)
	rows, _ := y.Dims()
	for i := range rows {
		if random.Float64() < keep {
			continue
		}
		out.Set(i, 0, float64((int(y.At(i, 0))+1+random.IntN(k-1))%k))
	}
	return out
}

// told is the set of the labels that everything is computed from, where they are not the sponsor's own.
const told = "labels"

// exchange returns the labels that a run computes with: those of the rows to test on as they are, others after randomised response.
// Coins are the coordinator's secrets.
func (t *Table) exchange(srv federated.Server) (*mat.Dense, error) {
	if srv.Secret == nil {
		return nil, fmt.Errorf("label_epsilon: labels are to be exchanged in secret, and nobody here keeps secrets")
	}
	key, err := srv.Secret(0, "labels")
	if err != nil {
		return nil, fmt.Errorf("label_epsilon: %w", err)
	}
	y := t.Sponsor.Objective.respond(rand.New(rand.NewChaCha8(key)), t.Sponsor.Labels, t.Response)
	for i := t.Sponsor.Tested().From; i < t.Sponsor.Tested().To; i++ {
		y.SetRow(i, t.Sponsor.Labels.RawRowView(i))
	}
	return y, nil
}

// Labels returns the labels that a run computes with.
func (t *Table) Labels(s federated.State) (*mat.Dense, error) {
	if t.Response == 0 {
		return t.Sponsor.Labels, nil
	}
	return Matrix(s, told)
}

// Here reports whether all organisations are in this process, so that nothing is disclosed to anybody.
func (t *Table) Here() bool {
	_, here := t.Desks.(Desks)
	return here
}

// Gate returns an error if residuals would tell others too much of the labels: a method's Check ends with it. Where all
// organisations are in this process nothing is asked.
func (t *Table) Gate(recovery func() (float64, error)) error {
	t.recovery = nil
	if t.Here() {
		return nil
	}
	told, err := recovery()
	if err != nil {
		return err
	}
	t.recovery = &told
	return t.Admit(told)
}

// Tell puts on record what part of the labels residuals tell, before any is sent. Recovery is asked only where [Table.Gate] has
// not asked before.
func (t *Table) Tell(d *federated.Diagnostics, recovery func() (float64, error)) error {
	if t.recovery == nil {
		told, err := recovery()
		if err != nil {
			return err
		}
		t.recovery = &told
	}
	told := *t.recovery
	d.Add("label-recovery", "", told)
	d.Notes = append(d.Notes, fmt.Sprintf("residuals of all planned rounds would tell an organisation that takes part %.1f %% of the labels", 100*told))
	if t.Here() {
		return nil
	}
	return t.Admit(told)
}
