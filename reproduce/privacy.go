package reproduce

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"runtime"
	"slices"
	"sync"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/secure/dp"
	"github.com/cohort-learning/cohort/weights"
	"gonum.org/v1/gonum/mathext"
)

func privacyExperiment() Experiment {
	return Experiment{
		Name:      "privacy",
		Summary:   "guesses whether a member took part, with and without noise, against the bound that epsilon sets",
		Synthetic: true,
		Scales: map[Scale]Study{
			Small: {"DP-FedAvg of softmax regression, 20 members, 8 rounds; 8,000 runs for each of four noises", "two minutes on 2 shared cores", func(ctx context.Context, l *Lab) error {
				return privacySmall(ctx, l, 8000)
			}},
		},
	}
}

// inference is membership inference at the level of a member: a game in which DP-FedAvg is run with a canary among its members or
// without, and an attacker guesses which from all models that were published. (ε, δ)-privacy bounds any such guess,
//
//	TPR ≤ e^ε·FPR + δ
//
// whatever the attacker knows about everybody else (Kairouz, Oh, Viswanath, ICML 2015, theorem 2.1).
type inference struct {
	central  dp.Central
	rounds   int
	features int
	classes  int
	others   [][]example // data of all members but the canary
}

type example struct {
	x     []float64
	label int
}

// newInference makes the data of others: classes are Gaussian clouds, and the last feature is 0, which only the canary has.
func newInference(seed uint64, members, rounds int, c dp.Central) *inference {
	g := &inference{central: c, rounds: rounds, features: 7, classes: 3}
	g.central.Members = members
	r := rng.New(seed, 0, "", "privacy data")
	centres := make([][]float64, g.classes)
	for k := range centres {
		centres[k] = normals(r, g.features-1, 1)
	}
	for range members - 1 {
		var data []example
		for i := range 8 {
			k := i % g.classes
			x := normals(r, g.features-1, 0.5)
			for j := range x {
				x[j] += centres[k][j]
			}
			data = append(data, example{append(x, 0), k})
		}
		g.others = append(g.others, data)
	}
	return g
}

// canary is the data of the member that is looked for, at their worst: one example with the feature that nobody else has, and the
// label that the model finds least likely. So its update is as long as clipping allows, and unlike those of others.
func (g *inference) canary(w []float64) []example {
	x := make([]float64, g.features)
	x[g.features-1] = 6
	p := make([]float64, g.classes)
	g.predict(p, w, x)
	return []example{{x, slices.Index(p, slices.Min(p))}}
}

func normals(r *rng.Stream, n int, deviation float64) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = deviation * r.NormFloat64()
	}
	return x
}

// update returns what a member sends: the change of the weights by two steps of gradient descent on its examples, clipped.
func (g *inference) update(w []float64, data []example) (weights.Set, error) {
	const rate, steps = 1, 2
	at := slices.Clone(w)
	p := make([]float64, g.classes)
	for range steps {
		gradient := make([]float64, len(w))
		for _, e := range data {
			g.predict(p, at, e.x)
			p[e.label]--
			for k, d := range p {
				for j, x := range e.x {
					gradient[k*g.features+j] += d * x / float64(len(data))
				}
			}
		}
		for i, d := range gradient {
			at[i] -= rate * d
		}
	}
	for i := range at {
		at[i] -= w[i]
	}
	var s weights.Set
	s.Put("w", weights.Of64(at, len(at)))
	clipped, _, err := dp.Clip(s, g.central.Clip)
	return clipped, err
}

// predict puts softmax(Wx) into p.
func (g *inference) predict(p, w, x []float64) {
	top := math.Inf(-1)
	for k := range p {
		p[k] = 0
		for j, v := range x {
			p[k] += w[k*g.features+j] * v
		}
		top = max(top, p[k])
	}
	var sum float64
	for k := range p {
		p[k] = math.Exp(p[k] - top)
		sum += p[k]
	}
	for k := range p {
		p[k] /= sum
	}
}

// scores are what two attackers make of one run; more means that the canary was there.
type scores struct {
	// informed knows every other member's part of each sum and lacks the noise and the canary's coin. It adds up the logarithms of
	// the likelihood ratio; no attack is better.
	informed float64
	// shadow knows the published models and the canary's data. It adds up how far each round moved towards the canary, and learns
	// from runs of its own what is far.
	shadow float64
}

// play runs the game once.
func (g *inference) play(seed uint64, run int, there bool) (s scores, err error) {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	binary.LittleEndian.PutUint64(key[8:], uint64(run))
	noise := mathrand.NewChaCha8(key) // repeatable; whoever means it takes crypto/rand
	coins := rng.New(seed, run, "", "privacy coins")
	w := make([]float64, g.features*g.classes)
	c := g.central
	for range g.rounds {
		var like weights.Set
		like.Put("w", weights.Of64(w, len(w)))
		sum := weights.NewAcc(like, false)
		rest := make([]float64, len(w))
		for _, data := range g.others {
			if coins.Float64() >= c.Fraction {
				continue
			}
			u, err := g.update(w, data)
			if err != nil {
				return s, err
			}
			sum.MustAdd(u, nil, nil, 1)
			for i, v := range u.Must("w").F64 {
				rest[i] += v
			}
		}
		own, err := g.update(w, g.canary(w))
		if err != nil {
			return s, err
		}
		if coins.Float64() < c.Fraction && there {
			sum.MustAdd(own, nil, nil, 1)
		}
		published, err := c.Mean(noise, sum, weights.Float64)
		if err != nil {
			return s, err
		}
		moved := published.Must("w").F64
		s.add(c, moved, rest, own.Must("w").F64)
		for i, v := range moved {
			w[i] += v
		}
	}
	return s, nil
}

// add takes in one round: what was published, what others added, and what the canary would have.
func (s *scores) add(c dp.Central, moved, rest, own []float64) {
	var known, along, square float64
	for i, u := range own {
		known += (moved[i]*c.Denominator() - rest[i]) * u
		along += moved[i] * u
		square += u * u
	}
	s.shadow += along / math.Sqrt(square)
	if c.Noise == 0 {
		if known > square/2 { // it is there, and there is no doubt
			s.informed++
		}
		return
	}
	variance := c.Noise * c.Noise * c.Clip * c.Clip
	s.informed += math.Log1p(c.Fraction * math.Expm1((known-square/2)/variance))
}

// judged is what an attacker achieves.
type judged struct {
	tpr, fpr float64 // rates of right and wrong alarms
	tprLow   float64 // one-sided confidence bounds
	fprHigh  float64
}

// confidence of each of the two bounds, so that both hold together with 99 %.
const confidence = 0.995

// epsilon returns the least ε that would allow what was seen, at the confidence of the bounds; 0 if any would.
func (j judged) epsilon(delta float64) float64 {
	if j.tprLow <= delta {
		return 0
	}
	return max(0, math.Log((j.tprLow-delta)/j.fprHigh))
}

// excess is by how much the attacker beats the bound of ε, at the confidence of the bounds.
func (j judged) excess(epsilon, delta float64) float64 {
	return j.tprLow - (math.Exp(epsilon)*j.fprHigh + delta)
}

// judge chooses the threshold that does best in the first half of the runs, and counts with it in the second.
func judge(with, without []float64, delta float64) judged {
	half := len(with) / 2
	best, threshold := -1.0, math.Inf(1)
	candidates := slices.Concat(with[:half], without[:half])
	slices.Sort(candidates)
	in, out := slices.Sorted(slices.Values(with[:half])), slices.Sorted(slices.Values(without[:half]))
	for _, c := range slices.Compact(candidates) {
		if e := rate(above(in, c), half, above(out, c), half).epsilon(delta); e > best {
			best, threshold = e, c
		}
	}
	in, out = slices.Sorted(slices.Values(with[half:])), slices.Sorted(slices.Values(without[half:]))
	return rate(above(in, threshold), len(in), above(out, threshold), len(out))
}

// above counts the values of a sorted list that are at least c.
func above(sorted []float64, c float64) int {
	i, _ := slices.BinarySearch(sorted, c)
	return len(sorted) - i
}

// rate bounds two rates by Clopper and Pearson's exact intervals (Biometrika 26, 1934).
func rate(right, positives, wrong, negatives int) judged {
	j := judged{tpr: float64(right) / float64(positives), fpr: float64(wrong) / float64(negatives), fprHigh: 1}
	if right > 0 {
		j.tprLow = mathext.InvRegIncBeta(float64(right), float64(positives-right+1), 1-confidence)
	}
	if wrong < negatives {
		j.fprHigh = mathext.InvRegIncBeta(float64(wrong+1), float64(negatives-wrong), confidence)
	}
	return j
}

// attack plays the game so many times with the canary and as often without, and judges both attackers.
func (g *inference) attack(ctx context.Context, seed uint64, runs int, delta float64, stop <-chan struct{}) (informed, shadow judged, err error) {
	all := make([]scores, 2*runs)
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	errs := make([]error, workers)
	for k := range workers {
		wg.Go(func() {
			for i := k; i < len(all) && errs[k] == nil; i += workers {
				select {
				case <-ctx.Done():
					errs[k] = ctx.Err()
				case <-stop:
					errs[k] = federated.ErrStopped
				default:
					all[i], errs[k] = g.play(seed, i, i < runs)
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return informed, shadow, err
		}
	}
	pick := func(list []scores, f func(scores) float64) []float64 {
		out := make([]float64, len(list))
		for i, s := range list {
			out[i] = f(s)
		}
		return out
	}
	best := func(s scores) float64 { return s.informed }
	blind := func(s scores) float64 { return s.shadow }
	informed = judge(pick(all[:runs], best), pick(all[runs:], best), delta)
	shadow = judge(pick(all[:runs], blind), pick(all[runs:], blind), delta)
	return informed, shadow, nil
}

// The run that is attacked. The noise is planned for ε = 1.5 at δ = 1e-5; the attack is held against another point of the same
// guarantee, the ε that the accountant gives at δ = 0.01, because an event of probability 1e-5 is not seen in thousands of runs, and
// what rests on such events would never be tested.
const (
	privacyEpsilon = 1.5
	privacyDelta   = 1e-5
	attackDelta    = 1e-2
	privacyRounds  = 8
	privacyMembers = 20
)

// privacyRun returns the noise that the plan asks for, and ε at attackDelta.
func privacyRun() (c dp.Central, epsilon float64, err error) {
	c = dp.Central{Clip: 0.5, Fraction: 0.5, Members: privacyMembers}
	if c.Noise, err = (dp.Plan{Epsilon: privacyEpsilon, Delta: privacyDelta, Fraction: c.Fraction}).Noise(privacyRounds); err != nil {
		return c, 0, err
	}
	epsilon, err = dp.PLD.Epsilon(attackDelta, dp.Release{Fraction: c.Fraction, Noise: c.Noise, Rounds: privacyRounds})
	return c, epsilon, err
}

// strengths are the noises that are tried, and whether the bound of the whole noise must hold with them.
var strengths = []struct {
	name  string
	part  float64
	holds bool
}{{"noise as planned", 1, true}, {"half of it", 0.5, false}, {"a quarter of it", 0.25, false}, {"no noise", 0, false}}

func privacySmall(ctx context.Context, l *Lab, runs int) error {
	const source = "accountant PLD at δ = 0.01"
	c, epsilon, err := privacyRun()
	if err != nil {
		return err
	}
	l.report(fmt.Sprintf("noise multiplier for ε = %v at δ = %v", privacyEpsilon, privacyDelta), math.NaN(), "", c.Noise)
	l.report("the same noise: ε at δ = 0.01", math.NaN(), "", epsilon)
	for _, s := range strengths {
		if l.Say != nil {
			l.Say(s.name)
		}
		weaker := c
		weaker.Noise *= s.part
		informed, shadow, err := newInference(l.Seed, privacyMembers, privacyRounds, weaker).attack(ctx, l.Seed, runs, attackDelta, l.Stop)
		if err != nil {
			return err
		}
		for _, a := range []struct {
			name string
			judged
		}{{"informed", informed}, {"shadow", shadow}} {
			l.report(fmt.Sprintf("%s, %s attack: right alarms %%", s.name, a.name), math.NaN(), "", 100*a.tpr)
			l.report(fmt.Sprintf("%s, %s attack: wrong alarms %%", s.name, a.name), math.NaN(), "", 100*a.fpr)
			l.report(fmt.Sprintf("%s, %s attack: least ε that allows it", s.name, a.name), epsilon, source, a.epsilon(attackDelta))
			claim := fmt.Sprintf("%s, %s attack: right alarms above the bound, %%", s.name, a.name)
			excess := 100 * a.excess(epsilon, attackDelta)
			switch {
			case s.holds:
				l.require(claim, 0, source, excess, "<=", 0)
			case s.part <= 0.25:
				l.require(claim, 0, source, excess, ">=", 0.01)
			default: // close to what so many runs can tell
				l.report(claim, 0, source, excess)
			}
		}
	}
	return nil
}
