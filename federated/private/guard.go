package private

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/secure/dp"
	"github.com/cohort-learning/cohort/weights"
)

// GuardOptions are the terms of differential privacy that everybody agrees to before a run: client-level DP-FedAvg (McMahan et
// al., arXiv 1710.06963), with noise by the server or, under secure sums, by the members.
type GuardOptions struct {
	Clip        float64 // S: updates are clipped to this L2 norm, over all tensors together; with Quantile the first bound
	Noise       float64 // z: the sum's noise has standard deviation z·S
	Delta       float64 // δ at which the run states its ε; 0: 1e-5
	Fraction    float64 // q: the chance that a round asks a member
	Members     int     // K, all that are enrolled; 0: those of the population when the run begins
	Quantile    float64 // γ: the bound follows this quantile of the norms (Andrew et al., arXiv 1905.03871); 0: it stays
	Rate        float64 // η of the bound; 0: 0.2
	CountNoise  float64 // σ_b of the count that the bound follows; 0: qK/20
	Distributed bool    // members add the noise in shares, as integers; needs secure sums and q = 1
	Survivors   int     // Distributed: fewest members in a sum that is opened; 0: ⌊2K/3⌋+1
	Scale       float64 // Distributed: integers to a unit; 0: the finest at which a share of the noise can be drawn
	Accountant  dp.Accountant
}

// Validate returns an error that begins with the option that cannot be.
func (o GuardOptions) Validate() error {
	switch {
	case !(o.Clip > 0):
		return fmt.Errorf("clip %v: expected a positive number", o.Clip)
	case !(o.Noise >= 0) || math.IsInf(o.Noise, 1):
		return fmt.Errorf("noise %v: expected a multiplier of 0 or more", o.Noise)
	case o.Noise > 0 && math.IsInf(o.Clip, 1):
		return errors.New("clip inf: with noise, updates need a bound")
	case !(o.Delta >= 0 && o.Delta < 1):
		return fmt.Errorf("delta %v: expected a probability below 1", o.Delta)
	case !(o.Fraction > 0 && o.Fraction <= 1):
		return fmt.Errorf("fraction %v: expected a number in (0, 1]", o.Fraction)
	case o.Members < 0:
		return fmt.Errorf("members %d: expected 0 or more", o.Members)
	case !(o.Quantile >= 0 && o.Quantile < 1):
		return fmt.Errorf("quantile %v: expected a number in (0, 1), or 0 for a bound that stays", o.Quantile)
	case !(o.Rate >= 0) || !(o.CountNoise >= 0):
		return fmt.Errorf("rate %v, count noise %v: neither may be negative", o.Rate, o.CountNoise)
	case o.Quantile == 0 && (o.Rate != 0 || o.CountNoise != 0):
		return errors.New("quantile is 0: rate and count noise are for a bound that follows one")
	case !o.Distributed && (o.Survivors != 0 || o.Scale != 0):
		return errors.New("distributed is off: survivors and scale are for noise that members add")
	case o.Distributed && o.Quantile != 0:
		return errors.New("quantile: a bound that follows the norms needs the server's noise, not the members'")
	case o.Distributed && o.Fraction != 1:
		return errors.New("fraction: noise that members add has no advantage of being drawn: ask everybody")
	case o.Distributed && o.Noise == 0:
		return errors.New("noise 0: members have nothing to add")
	}
	return nil
}

func (o GuardOptions) delta() float64 { return cmp.Or(o.Delta, 1e-5) }

// Terms returns what a run of so many enrolled members announces, of updates of so many numbers; nil if it has no noise. Server
// is the name of whoever adds central noise.
func (o GuardOptions) Terms(members, size int, server string) *dp.Terms {
	if o.Noise == 0 {
		return nil
	}
	k := cmp.Or(o.Members, members)
	t := &dp.Terms{Mechanism: dp.CentralGaussian, Fraction: o.Fraction, Noise: o.Noise, Clip: o.Clip, Delta: o.delta(), Members: k,
		EveryEnrolledCharged: o.Fraction < 1, Trusts: server}
	if o.Distributed {
		s := o.skellam(k, size)
		t.Mechanism, t.Trusts, t.EveryEnrolledCharged = dp.DistributedSkellam, "", false
		t.Survivors, t.Scale, t.Dimension, t.Beta = s.Survivors, s.Scale, s.Dimension, s.Beta
	}
	return t
}

// skellam is the noise of a member of K in an update of so many numbers.
func (o GuardOptions) skellam(members, size int) dp.Skellam {
	s := dp.Skellam{Clip: o.Clip, Scale: o.Scale, Dimension: size, Noise: o.Noise,
		Survivors: cmp.Or(o.Survivors, 2*members/3+1), Beta: math.Exp(-0.5)}
	if s.Scale == 0 {
		s.Scale = s.FinestScale()
	}
	return s
}

func (o GuardOptions) adaptive(members int) dp.Adaptive {
	a := dp.NewAdaptive(o.Fraction, members)
	a.Quantile = o.Quantile
	a.Rate = cmp.Or(o.Rate, a.Rate)
	a.CountNoise = cmp.Or(o.CountNoise, a.CountNoise)
	return a
}

// Guard is a method whose sums are differentially private: whether any one member took part hardly shows in what is published.
//
// In training every enrolled member is drawn by a secret coin of probability q; whoever is away counts as zero. A member clips
// its update to S, over all tensors together, and sends nothing else: no weight, no scalar, no cover. The server adds the noise
// and divides by qK, or for parts of models by q times the number of enrolled members that hold a coordinate, whoever came. What
// else would ask members is refused at the start.
type Guard struct {
	federated.Algorithm // the method
	o                   GuardOptions
}

// NewGuard wraps a method.
func NewGuard(a federated.Algorithm, o GuardOptions) *Guard { return &Guard{a, o} }

const (
	guardKey = "guard/at"
	bitFold  = "guard"
	learning = "train" // the phase that is guarded
)

// guardState is what a guard remembers: State.Attached["guard/at"].
type guardState struct {
	Members int   `json:"members"` // K
	Clip    bound `json:"clip"`    // S of the next round
	Rounds  int   `json:"rounds"`  // that were published
}

func (g *Guard) at(s federated.State) (guardState, error) {
	var at guardState
	if err := json.Unmarshal(s.Attached[guardKey], &at); err != nil {
		return at, fmt.Errorf("state of differential privacy: %w", err)
	}
	return at, nil
}

func (g *Guard) put(s federated.State, at guardState) (federated.State, error) {
	b, err := json.Marshal(at)
	return s.Attach(guardKey, b), err
}

// Check implements [federated.Algorithm]: whatever asks members besides training must be off.
func (g *Guard) Check(srv federated.Server) error {
	if err := g.Algorithm.Check(srv); err != nil {
		return err
	}
	if err := g.o.Validate(); err != nil {
		return err
	}
	if srv.Secret == nil && (g.o.Noise > 0 || g.o.Fraction < 1) {
		return errors.New("differential privacy needs secret coins and noise, and nobody here keeps secrets")
	}
	if g.o.Distributed && g.o.Scale > 0 {
		if err := g.o.skellam(cmp.Or(g.o.Members, srv.Population.Len()), 1).Validate(); err != nil {
			return &UnfitError{Scale, err}
		}
	}
	return g.Fits(srv)
}

// Fits returns an [UnfitError] if the method is none that can be guarded, or the problem asks members for more than training.
func (g *Guard) Fits(srv federated.Server) error {
	s, err := g.Algorithm.Init(context.Background(), srv)
	if err != nil {
		return err
	}
	p, ok := g.Algorithm.Next(s)
	if !ok || p.Name != learning || asksNobody(p) {
		return unfit(Method, "differential privacy guards methods that begin a round with training at the members")
	}
	size := 0
	for _, f := range p.Folds {
		size += f.Like.Size()
		if f.Undiscounted || f.Exact {
			return unfit(Method, "differential privacy: members send %q beside what is learned, and keep what must agree with it: one bound for both would tell too little of either", f.Name)
		}
		if g.o.Distributed && f.Indexed {
			return unfit(Distributed, "noise that members add needs members that hold the whole model; let the server add it")
		}
		for name, t := range f.Like.All() {
			if g.o.Distributed && t.F64 != nil {
				return fmt.Errorf("distributed: noise that members add is for float32, and %q is in float64; let the server add it", name)
			}
		}
	}
	if size == 0 {
		return unfit(Method, "differential privacy: members share nothing that they learn, so there is nothing to guard")
	}
	if len(p.Collect) > 0 || p.Gather || p.Attachments != nil {
		return unfit(Method, "differential privacy: the method needs numbers of single members")
	}
	for i := range min(srv.Population.Len(), 100) {
		t, err := g.Algorithm.Task(s, p, srv.Population.Member(i))
		if err != nil {
			return err
		}
		if t.Group != "" {
			return unfit(Method, "differential privacy: the method sums members in groups, whose sizes would have to be secret, too: the noise is for one sum of all")
		}
	}
	for s.Round = range 1000 {
		for s.Step = 1; s.Step < 8; s.Step++ {
			switch p, ok := g.Algorithm.Next(s); {
			case !ok:
				s.Step = 8
			case asksNobody(p):
			case p.Name == "eval":
				return unfit(Evaluation, "differential privacy: phase %q would ask members how well the model does on their data, which no noise hides: set evaluate.clients to false", p.Name)
			case p.Name == "stats":
				return unfit(Statistics, "differential privacy: phase %q would ask members for the statistics of batch norm, which no noise hides: choose a norm without them (model.norm: gn, ln, in or none), or pooled statistics, of data that the server has", p.Name)
			default:
				return unfit(Method, "differential privacy: phase %q would ask members for what no noise hides", p.Name)
			}
		}
	}
	return nil
}

// Init implements [federated.Algorithm].
func (g *Guard) Init(ctx context.Context, srv federated.Server) (federated.State, error) {
	s, err := g.Algorithm.Init(ctx, srv)
	if err != nil {
		return s, err
	}
	return g.put(s, guardState{Members: cmp.Or(g.o.Members, srv.Population.Len()), Clip: bound(g.o.Clip)})
}

// Next implements [federated.Algorithm].
func (g *Guard) Next(s federated.State) (federated.Phase, bool) {
	p, ok := g.Algorithm.Next(s)
	if !ok || p.Name != learning {
		return p, ok
	}
	at, err := g.at(s)
	eligible := p.Who.Eligible
	enrolled := func(m federated.Member) bool {
		return err == nil && m.Index < at.Members && (eligible == nil || eligible(m))
	}
	p.Who = federated.Selection{Fraction: g.o.Fraction, Coins: true, Eligible: enrolled}
	if g.o.Fraction == 1 {
		p.Who = federated.Selection{Everyone: true, Eligible: enrolled}
	}
	p.Always = true
	if g.o.Quantile > 0 {
		p.Folds = append(p.Folds[:len(p.Folds):len(p.Folds)], federated.Fold{Name: bitFold, Like: bit(0)})
	}
	return p, true
}

// bit is a set of one number.
func bit(v float64) weights.Set {
	s := weights.NewSet(1)
	s.Put("fits", weights.Of32([]float32{float32(v)}, 1))
	return s
}

// bound is a clip bound; its JSON form is null where there is none.
type bound float64

// MarshalJSON implements [json.Marshaler].
func (b bound) MarshalJSON() ([]byte, error) {
	if math.IsInf(float64(b), 1) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(b))
}

// UnmarshalJSON implements [json.Unmarshaler].
func (b *bound) UnmarshalJSON(text []byte) error {
	*b = bound(math.Inf(1))
	if string(text) == "null" {
		return nil
	}
	return json.Unmarshal(text, (*float64)(b))
}

// guarded is what a member is told.
type guarded struct {
	Clip   bound           `json:"clip"`
	Count  bool            `json:"count,omitempty"` // tell whether the update fitted
	Folds  []foldLayout    `json:"folds"`           // what a member sends that has nothing to say
	Params json.RawMessage `json:"params,omitempty"`
}

// Task implements [federated.Algorithm].
func (g *Guard) Task(s federated.State, p federated.Phase, m federated.Member) (federated.Task, error) {
	t, err := g.Algorithm.Task(s, p, m)
	if err != nil || p.Name != learning {
		return t, err
	}
	at, err := g.at(s)
	if err != nil {
		return t, err
	}
	o := guarded{Clip: at.Clip, Count: g.o.Quantile > 0, Params: t.Params}
	for _, f := range p.Folds {
		if f.Name == bitFold {
			continue
		}
		if f.Indexed && t.Index != nil {
			f.Like = t.Index.Like(f.Like)
		}
		o.Folds = append(o.Folds, foldsOf(federated.Phase{Folds: []federated.Fold{f}})...)
	}
	t.Params, err = json.Marshal(o)
	return t, err
}

// Client implements [federated.Algorithm].
func (g *Guard) Client() federated.Client { return g.Around(g.Algorithm.Client()) }

// Around returns the member's part of g around a client of the method, such as a program that a member brings along.
func (g *Guard) Around(c federated.Client) federated.Client { return &guardClient{g, c} }

type guardClient struct {
	*Guard
	method federated.Client
}

// Run clips what the method's client has computed, and leaves everything else out.
func (c *guardClient) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	if t.Phase != learning {
		return federated.Result{}, fmt.Errorf("the noise of this run hides %q only; phase %q is refused", learning, t.Phase)
	}
	var o guarded
	if err := json.Unmarshal(t.Params, &o); err != nil {
		return federated.Result{}, fmt.Errorf("task parameters: %w", err)
	}
	if !(o.Clip > 0) || c.o.Quantile == 0 && float64(o.Clip) != c.o.Clip {
		return federated.Result{}, fmt.Errorf("updates are to be clipped to %v, and %v was agreed", o.Clip, c.o.Clip)
	}
	own := t
	own.Params = o.Params
	r, err := c.method.Run(ctx, at, own, keep)
	if err != nil {
		return federated.Result{}, err
	}
	all := weights.NewSet(0)
	for _, f := range o.Folds {
		for _, l := range f.Tensors {
			x, ok := weights.Tensor{}, false
			if r.Status == federated.Abstained { // nobody shall see who did
				d := weights.Float32
				if l.Wide {
					d = weights.Float64
				}
				x, ok = weights.NewTensor(d, l.Shape...), true
			} else {
				x, ok = r.Addends[f.Name].Get(l.Name)
			}
			if !ok {
				return federated.Result{}, fmt.Errorf("the result has no tensor %q in %q", l.Name, f.Name)
			}
			all.Put(f.Name+"\x00"+l.Name, x)
		}
	}
	clipped, norm, err := dp.Clip(all, float64(o.Clip))
	if err != nil {
		return federated.Result{}, err
	}
	out := federated.Result{Weight: 1, Addends: map[string]weights.Set{}, Keep: r.Keep}
	for name, x := range clipped.All() {
		fold, tensor, _ := strings.Cut(name, "\x00")
		set := out.Addends[fold]
		set.Put(tensor, x)
		out.Addends[fold] = set
	}
	if o.Count {
		out.Addends[bitFold] = bit(dp.Bit(norm, float64(o.Clip)))
	}
	return out, nil
}

// Finish implements [federated.Algorithm].
func (g *Guard) Finish(ctx context.Context, srv federated.Server, s federated.State, p federated.Phase, sums map[string]*federated.Sum, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	if p.Name != learning {
		return g.Algorithm.Finish(ctx, srv, s, p, sums, roll)
	}
	at, err := g.at(s)
	if err != nil {
		return s, federated.Diagnostics{}, err
	}
	for group := range sums {
		if group != "" {
			return s, federated.Diagnostics{}, fmt.Errorf("differential privacy: results are summed in groups, %q among them", group)
		}
	}
	mean, err := g.publish(srv, s, p, sums[""], at)
	if err != nil {
		return s, federated.Diagnostics{}, fmt.Errorf("differential privacy: %w", err)
	}
	at.Rounds++
	next, d, err := g.Algorithm.Finish(ctx, srv, s, p, map[string]*federated.Sum{"": mean.sum}, roll)
	if err != nil {
		return s, d, err
	}
	if !math.IsInf(float64(at.Clip), 1) {
		d.Add("clip", "", float64(at.Clip))
	}
	if g.o.Quantile > 0 {
		clip, err := g.o.adaptive(at.Members).Next(mean.bits, float64(at.Clip), mean.fitted)
		if err != nil {
			return s, d, fmt.Errorf("differential privacy: %w", err)
		}
		at.Clip = bound(clip)
	}
	if g.o.Noise > 0 {
		e, err := g.epsilon(at, s, p)
		if err != nil {
			d.Notes = append(d.Notes, fmt.Sprintf("epsilon: %v", err))
		} else if !math.IsInf(e, 1) {
			d.Add("epsilon", "", e)
		}
	}
	next, err = g.put(next, at)
	return next, d, err
}

// epsilon is what the published rounds cost a member.
func (g *Guard) epsilon(at guardState, s federated.State, p federated.Phase) (float64, error) {
	if g.o.Distributed {
		size := 0
		for _, f := range p.Folds {
			size += f.Like.Size()
		}
		return g.o.skellam(at.Members, size).Curve(at.Rounds).Epsilon(g.o.delta()), nil
	}
	return g.o.Accountant.Epsilon(g.o.delta(), dp.Release{Fraction: g.o.Fraction, Noise: g.o.Noise, Rounds: at.Rounds})
}

// published is what a round says.
type published struct {
	sum    *federated.Sum
	fitted float64   // the sum of bits
	bits   io.Reader // randomness for their noise
}

// publish adds the noise and divides.
func (g *Guard) publish(srv federated.Server, s federated.State, p federated.Phase, sum *federated.Sum, at guardState) (out published, err error) {
	c := dp.Central{Clip: float64(at.Clip), Noise: g.o.Noise, Fraction: g.o.Fraction, Members: at.Members}
	if g.o.Distributed {
		c.Noise = 0 // it is in there
	}
	if g.o.Quantile > 0 {
		if c.Noise, err = g.o.adaptive(at.Members).UpdateNoise(c.Noise); err != nil {
			return out, err
		}
	}
	secret := func(what string) (io.Reader, error) {
		if srv.Secret == nil {
			return nil, nil
		}
		key, err := srv.Secret(s.Round, learning+"/"+what)
		if err != nil {
			return nil, fmt.Errorf("secret noise: %w", err)
		}
		return rand.NewChaCha8(key), nil
	}
	out.sum = &federated.Sum{Total: map[string]*weights.Acc{}, Scalars: map[string]float64{}, Weight: 1, N: 1, Unit: 1}
	for _, f := range p.Folds {
		acc := weights.NewAcc(f.Like, false)
		if sum != nil {
			acc = sum.Total[f.Name]
		}
		if f.Name == bitFold {
			out.fitted = acc.Total("fits", 0)
			continue
		}
		noise, err := secret("noise/" + f.Name)
		if err != nil {
			return out, err
		}
		if g.o.Distributed && acc.Weight() > uint64(at.Members) {
			return out, fmt.Errorf("%d members in a sum of %d", acc.Weight(), at.Members)
		}
		mean, err := c.Mean(noise, acc, weights.Float64)
		if err != nil {
			return out, err
		}
		counts, err := g.holders(srv, s, p, f, mean, at)
		if err != nil {
			return out, err
		}
		fixed := weights.NewAcc(f.Like, f.Counts)
		if err := fixed.AddEach(mean, counts, 1); err != nil {
			return out, err
		}
		out.sum.Total[f.Name] = fixed
	}
	out.bits, err = secret("bits")
	return out, err
}

// holders multiplies a mean over all members by K over the number of enrolled members that hold a coordinate, where members hold
// parts of the model, and returns which coordinates anybody holds.
func (g *Guard) holders(srv federated.Server, s federated.State, p federated.Phase, f federated.Fold, mean weights.Set, at guardState) (map[string][]uint64, error) {
	if !f.Indexed {
		return nil, nil
	}
	held := weights.NewAcc(f.Like, true)
	for i := range min(at.Members, srv.Population.Len()) {
		t, err := g.Algorithm.Task(s, p, srv.Population.Member(i))
		if err != nil {
			return nil, err
		}
		like := f.Like
		if t.Index != nil {
			like = t.Index.Like(f.Like)
		}
		if err := held.Add(like.Zeros(), t.Index, nil, 1); err != nil {
			return nil, err
		}
	}
	counts := map[string][]uint64{}
	for name, x := range mean.All() {
		c := make([]uint64, len(x.F64))
		for i := range c {
			if n := held.Count(name, i); n > 0 {
				c[i] = 1
				x.F64[i] *= float64(at.Members) / float64(n)
			}
		}
		counts[name] = c
	}
	return counts, nil
}
