package recipe

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/private"
	"github.com/cohort-learning/cohort/secure/dp"
)

// Secure says that the server sees sums of many clients only; see package federated/private. Sums "" has no secure sums.
type Secure struct {
	Sums      string  `yaml:"sums,omitempty" doc:"masked: the server learns nothing but sums. plain: the same sums to the bit without masks, for simulations."`
	Members   int     `yaml:"members,omitempty" doc:"Fewest clients that a secure sum is begun with, else the round has none; 0 means 3, as of two each knows the other's result."`
	Threshold float64 `yaml:"threshold,omitempty" doc:"Part of a session's clients that can open its sum; 0 means the least that is safe, two thirds."`
	Holders   int     `yaml:"holders,omitempty" doc:"Fewest clients that must hold a part of the model for it to be sent; 0 means as many as the threshold."`
	Curious   bool    `yaml:"curious,omitempty" doc:"Trust the server to keep to the protocol: a threshold of half is enough then."`
	Sparse    bool    `yaml:"sparse,omitempty" doc:"Each client masks with some others instead of all; for rounds of hundreds."`
	Corrupt   float64 `yaml:"corrupt,omitempty" doc:"sparse: part of the clients that may work with the server; 0 means 0.1."`
	Dropout   float64 `yaml:"dropout,omitempty" doc:"sparse: part of the clients that may be lost in a round; 0 means 0.1."`
	Bits      int     `yaml:"bits,omitempty" doc:"Bits of a masked number, 32 or 64; 0 means 64."`
	Clip      float64 `yaml:"clip,omitempty" doc:"Numbers of an update are clipped to this magnitude; 0 means 8."`
	Levels    uint64  `yaml:"levels,omitempty" doc:"Values that a number is rounded to, at random; 0 means 2^22."`
	MaxWeight uint64  `yaml:"max_weight,omitempty" doc:"Greatest weight of a client; 0 means 2^20."`
}

func (s Secure) options() private.SecureOptions {
	o := private.SecureOptions{Members: s.Members, Curious: s.Curious, Threshold: s.Threshold, Holders: s.Holders, Sparse: s.Sparse, Corrupt: s.Corrupt,
		Dropout: s.Dropout, Bits: s.Bits, Clip: s.Clip, Levels: s.Levels, MaxWeight: s.MaxWeight, Plain: s.Sums == "plain"}
	if s.Sparse {
		o.Corrupt, o.Dropout = cmp.Or(s.Corrupt, 0.1), cmp.Or(s.Dropout, 0.1)
	}
	return o
}

// Privacy says that sums tell little of any one client: differential privacy; see package federated/private. Noise and Epsilon
// 0 has none.
type Privacy struct {
	Noise       float64 `yaml:"noise,omitempty" doc:"Noise multiplier z: the sum of updates gets noise of standard deviation z times clip."`
	Epsilon     float64 `yaml:"epsilon,omitempty" doc:"Instead of noise: what all rounds together may cost; see \"cohort privacy plan\"."`
	Delta       float64 `yaml:"delta,omitempty" doc:"Probability with which epsilon may not hold; 0 means 1e-5. Keep it below one in as many clients as there are."`
	Clip        float64 `yaml:"clip,omitempty" doc:"Bound of an update's L2 norm; with quantile the first one, and 0 means 0.1 then."`
	Quantile    float64 `yaml:"quantile,omitempty" doc:"Let the bound follow this quantile of the norms, usually 0.5; 0 keeps it."`
	Rate        float64 `yaml:"rate,omitempty" doc:"quantile: how fast the bound follows; 0 means 0.2."`
	CountNoise  float64 `yaml:"count_noise,omitempty" doc:"quantile: noise of the count that the bound follows; 0 means a twentieth of the clients of a round."`
	Distributed bool    `yaml:"distributed,omitempty" doc:"Clients add the noise in shares, so that the server is not trusted with it; needs secure sums and round.fraction 1."`
	Survivors   int     `yaml:"survivors,omitempty" doc:"distributed: fewest clients in a sum that is opened; 0 means two thirds of all."`
	Scale       float64 `yaml:"scale,omitempty" doc:"distributed: integers to a unit; 0 means as many as the noise allows, at most 2^20."`
	Accountant  string  `yaml:"accountant,omitempty" doc:"pld (default, tighter) or rdp."`
}

// on reports whether there is any privacy at all.
func (p Privacy) on() bool { return p.Noise != 0 || p.Epsilon != 0 }

// guard returns the terms of differential privacy of a run.
func (r *Recipe) guard() (private.GuardOptions, error) {
	p := r.Privacy
	o := private.GuardOptions{Clip: p.Clip, Noise: p.Noise, Delta: p.Delta, Fraction: r.Round.Fraction, Quantile: p.Quantile, Rate: p.Rate,
		CountNoise: p.CountNoise, Distributed: p.Distributed, Survivors: p.Survivors, Scale: p.Scale}
	if p.Quantile > 0 && p.Clip == 0 {
		o.Clip = dp.FirstClip
	}
	var err error
	if p.Accountant != "" {
		if o.Accountant, err = dp.ParseAccountant(p.Accountant); err != nil {
			return o, fmt.Errorf("accountant: %w", err)
		}
	}
	if p.Epsilon == 0 {
		return o, nil
	}
	plan := dp.Plan{Epsilon: p.Epsilon, Delta: cmp.Or(p.Delta, 1e-5), Fraction: r.Round.Fraction, Accountant: o.Accountant}
	if o.Noise, err = plan.Noise(r.Rounds); err != nil {
		return o, fmt.Errorf("epsilon: %w", err)
	}
	return o, nil
}

func (r *Recipe) validatePrivacy() error {
	p, s := r.Privacy, r.Secure
	secure := s.Sums != ""
	switch {
	case secure && s.Sums != "masked" && s.Sums != "plain":
		return fieldf("secure.sums", "%q%s, expected masked or plain", s.Sums, didYouMean(s.Sums, []string{"masked", "plain"}))
	case !secure && s != (Secure{}):
		return fieldf("secure.sums", "is missing; expected masked or plain")
	case secure && r.Round.Staleness > 0:
		return clashf("round.staleness", "secure", "a secure sum is of one round: set it to 0")
	case secure && r.Robust.Rule != "":
		return fieldf("robust.rule", "%s reads single results, and secure sums show none: leave out robust or secure", r.Robust.Rule)
	case secure && r.Clients.Attack != "" && r.Clients.Attack != "label-flip":
		return fieldf("clients.attack", "%s changes results on their way, and those of secure sums are masked: only label-flip can be simulated with them", r.Clients.Attack)
	}
	if secure {
		if err := s.options().Validate(); err != nil {
			return within("secure", s, err)
		}
	}
	switch {
	case !p.on() && p != (Privacy{}):
		return fieldf("privacy.noise", "is missing; give noise, or the epsilon that all rounds may cost")
	case !p.on():
		return nil
	case p.Noise != 0 && p.Epsilon != 0:
		return fieldf("privacy.epsilon", "give either noise or epsilon, not both")
	case p.Noise != 0 && !(p.Noise >= 1e-3):
		return fieldf("privacy.noise", "%g, expected at least 0.001: less hides nothing", p.Noise)
	case p.Epsilon < 0:
		return fieldf("privacy.epsilon", "%g, expected more than 0", p.Epsilon)
	case p.Clip == 0 && p.Quantile == 0:
		return fieldf("privacy.clip", "is missing; give the longest that an update may be, or a quantile of their lengths that the bound follows")
	case p.Distributed && !secure:
		return fieldf("privacy.distributed", "needs secure.sums: a single client's share of the noise hides nothing")
	case p.Distributed && r.Round.Fraction != 1:
		return clashf("round.fraction", "privacy.distributed", "%g, and noise that clients add needs all of them: set it to 1", r.Round.Fraction)
	case p.Distributed && p.Epsilon != 0:
		return fieldf("privacy.epsilon", "with noise that clients add, give the noise; \"cohort privacy plan\" helps")
	case r.Robust.Rule != "":
		return clashf("robust.rule", "privacy", "the noise is for sums of clipped updates: leave out robust or privacy")
	case r.Round.Staleness > 0:
		return clashf("round.staleness", "privacy", "a private round is drawn and closed once: set it to 0")
	case r.Round.Quorum != 0 && r.Round.Quorum != 1:
		return clashf("round.quorum", "privacy", "a private round must not depend on who answers first: leave the quorum out, and give round.deadline to wait for nobody too long")
	case r.Evaluate.Clients:
		return clashf("evaluate.clients", "privacy", "clients would tell how well the model does on their data, which no noise hides: set it to false")
	}
	o, err := r.guard()
	if err == nil {
		err = o.Validate()
	}
	if err != nil {
		return within("privacy", p, err)
	}
	return nil
}

// unsuited names the field that keeps a method from being run: the method, unless secure sums or privacy do not go with another.
func unsuited(err error) error {
	var unfit *private.UnfitError
	if !errors.As(err, &unfit) {
		return &FieldError{Field: "method", Err: err}
	}
	field, ok := map[private.Cause]FieldError{
		private.Evaluation:  {Field: "evaluate.clients", With: "privacy"},
		private.Statistics:  {Field: "evaluate.statistics", With: "privacy"},
		private.Members:     {Field: "secure.members"},
		private.Drawing:     {Field: "round.fraction", With: "secure"},
		private.Distributed: {Field: "privacy.distributed"},
		private.Scale:       {Field: "privacy.scale"},
	}[unfit.Cause]
	if !ok {
		field.Field = "method"
	}
	field.Err = err
	return &field
}

// suits returns an error, of a field, if a method on a small problem of its own shows that it does not go with secure sums or
// privacy. What depends on the model and the data comes out when the run is planned.
func (r *Recipe) suits(bare federated.Algorithm) error {
	a, err := r.wrapped(bare)
	if err != nil {
		return err
	}
	return wraps(a, federated.Server{Population: anybody(4)})
}

// wraps returns an error, of a field, if what is wrapped around a method does not go with it.
func wraps(a federated.Algorithm, srv federated.Server) error {
	if w, ok := a.(interface{ Fits(federated.Server) error }); ok {
		if err := w.Fits(srv); err != nil {
			return unsuited(err)
		}
	}
	return nil
}

// Noise is the noise of a run with differential privacy, as it is told to people.
type Noise struct {
	Multiplier  float64 `json:"noise"` // z: the sum's noise has standard deviation z times the bound of updates
	Delta       float64 `json:"delta"`
	Chosen      bool    `json:"chosen"`            // for the epsilon of the recipe, which says no noise itself
	Epsilon     float64 `json:"epsilon,omitempty"` // that of the recipe: what all rounds may cost
	Distributed bool    `json:"distributed"`       // members add it
}

// Noise returns the noise of the recipe's differential privacy, nil if it has none.
func (r *Recipe) Noise() (*Noise, error) {
	if !r.Privacy.on() {
		return nil, nil
	}
	o, err := r.guard()
	if err != nil {
		return nil, within("privacy", r.Privacy, err)
	}
	p := r.Privacy
	return &Noise{o.Noise, cmp.Or(o.Delta, 1e-5), p.Noise == 0, p.Epsilon, p.Distributed}, nil
}

// String says the noise in a line.
func (n *Noise) String() string {
	s := fmt.Sprintf("noise multiplier %.4g", n.Multiplier)
	if n.Chosen {
		s += fmt.Sprintf(", chosen for ε = %g at δ = %g", n.Epsilon, n.Delta)
	}
	if n.Distributed {
		return s + ", added by the clients"
	}
	return s + ", added by the server"
}

// wrapped returns a method with what the recipe says of secure sums and privacy.
func (r *Recipe) wrapped(a federated.Algorithm) (federated.Algorithm, error) {
	if r.Privacy.on() {
		o, err := r.guard()
		if err != nil {
			return nil, within("privacy", r.Privacy, err)
		}
		a = private.NewGuard(a, o)
	}
	if r.Secure.Sums != "" {
		a = private.NewSecure(a, r.Secure.options())
	}
	return a, nil
}

// Bare returns the recipe's method without what is wrapped around it.
func (p *MemberPlan) Bare() (federated.Algorithm, error) { return p.Recipe.bare(p.Problem) }

// Around returns the member's part of secure sums and privacy around a client of the method, such as a program that the member
// brings along.
func (p *MemberPlan) Around(c federated.Client) (federated.Client, error) {
	a, err := p.Algorithm()
	if err != nil {
		return nil, err
	}
	if w, ok := a.(interface {
		Around(federated.Client) federated.Client
	}); ok {
		return w.Around(c), nil
	}
	return c, nil
}

// Hidden reports whether anything beside sums may leave a member: how many examples it has, why it failed.
func (r *Recipe) Hidden() bool { return r.Secure.Sums == "masked" || r.Privacy.on() }

// PrivacyTerms returns what a run of so many members announces about its differential privacy, nil if it has none. The schema
// of the data says how large the model is, which noise that members add depends on. Server is who adds central noise.
func (r *Recipe) PrivacyTerms(schema *dataset.Schema, members int, server string) (*dp.Terms, error) {
	if !r.Privacy.on() {
		return nil, nil
	}
	o, err := r.guard()
	if err != nil {
		return nil, err
	}
	size := 0
	if o.Distributed {
		if schema == nil {
			return nil, errors.New("the run does not say what its data are, on which the noise depends")
		}
		p, err := r.problem(schema.Like())
		if err != nil {
			return nil, err
		}
		m, err := p.Build(1)
		if err != nil {
			return nil, err
		}
		for _, q := range m.Params {
			n := 1
			for _, d := range q.Dims {
				n *= d.At(1)
			}
			size += n
		}
	}
	return o.Terms(members, size, server), nil
}
