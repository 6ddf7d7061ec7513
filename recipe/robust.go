package recipe

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/secure/robust"
)

// Robust says what takes the place of the mean in rounds some of whose clients may lie; see package robust.
type Robust struct {
	Rule       string  `yaml:"rule,omitempty" doc:"mean, median, trimmed, krum, multi-krum, bulyan, rfa, clip or centred; it reads single results, so secure sums are out of reach."`
	Trim       float64 `yaml:"trim,omitempty" doc:"trimmed: part dropped at either end, below 0.5; 0 means 0.1."`
	Liars      int     `yaml:"liars,omitempty" doc:"krum, multi-krum, bulyan: how many lying clients of a round to stand."`
	Keep       int     `yaml:"keep,omitempty" doc:"multi-krum: how many results are averaged; 0 means all but the liars."`
	Norm       float64 `yaml:"norm,omitempty" doc:"clip: greatest length of an update; centred: of its distance to the centre; 0 means the median of the round."`
	Iterations int     `yaml:"iterations,omitempty" doc:"rfa, centred: steps towards the centre; 0 means 3 and 1."`
	Weighted   bool    `yaml:"weighted,omitempty" doc:"mean, median, rfa, clip, centred: weigh clients by the examples that they claim, at most those that they declared."`
	Bucket     int     `yaml:"bucket,omitempty" doc:"Average random groups of this many results first, for clients whose data are unlike; 0 is none."`
	Spool      int64   `yaml:"spool,omitempty" doc:"Bytes that the results of a round may take on disk; 0 is 8 GiB."`
}

// robustRules are the rules by name, and the parameters that each of them has.
var robustRules = map[string]struct {
	fields []string
	method func(Robust) robust.Method
}{
	"mean":       {[]string{"weighted"}, func(r Robust) robust.Method { return robust.Mean{Weighted: r.Weighted} }},
	"median":     {[]string{"weighted"}, func(r Robust) robust.Method { return robust.Median{Weighted: r.Weighted} }},
	"trimmed":    {[]string{"trim"}, func(r Robust) robust.Method { return robust.TrimmedMean{Beta: cmp.Or(r.Trim, 0.1)} }},
	"krum":       {[]string{"liars"}, func(r Robust) robust.Method { return robust.Krum{Liars: r.Liars} }},
	"multi-krum": {[]string{"liars", "keep"}, func(r Robust) robust.Method { return robust.Krum{Liars: r.Liars, Multi: true, Keep: r.Keep} }},
	"bulyan":     {[]string{"liars"}, func(r Robust) robust.Method { return robust.Bulyan{Liars: r.Liars} }},
	"rfa": {[]string{"iterations", "weighted"}, func(r Robust) robust.Method {
		return robust.GeometricMedian{Iterations: r.Iterations, Weighted: r.Weighted}
	}},
	"clip": {[]string{"norm", "weighted"}, func(r Robust) robust.Method { return robust.NormClip{Norm: r.Norm, Weighted: r.Weighted} }},
	"centred": {[]string{"norm", "iterations", "weighted"}, func(r Robust) robust.Method {
		return robust.CentredClip{Radius: r.Norm, Iterations: r.Iterations, Weighted: r.Weighted}
	}},
}

// RobustRules returns the names of the rules, in the order in which they are told.
func RobustRules() []string {
	return []string{"mean", "median", "trimmed", "krum", "multi-krum", "bulyan", "rfa", "clip", "centred"}
}

func (r Robust) validate() error {
	if r == (Robust{}) {
		return nil
	}
	if r.Rule == "" {
		return fieldf("robust.rule", "is missing; expected one of %s", strings.Join(RobustRules(), ", "))
	}
	rule, ok := robustRules[r.Rule]
	if !ok {
		return fieldf("robust.rule", "there is no rule %q%s; expected one of %s", r.Rule, didYouMean(r.Rule, RobustRules()),
			strings.Join(RobustRules(), ", "))
	}
	for _, f := range []struct {
		name  string
		given bool
	}{{"trim", r.Trim != 0}, {"liars", r.Liars != 0}, {"keep", r.Keep != 0}, {"norm", r.Norm != 0}, {"iterations", r.Iterations != 0}, {"weighted", r.Weighted}} {
		if f.given && !slices.Contains(rule.fields, f.name) {
			return fieldf("robust."+f.name, "rule %s does not have it; remove it or use %s", r.Rule, strings.Join(rulesWith(f.name), ", "))
		}
	}
	if r.Spool < 0 {
		return fieldf("robust.spool", "%d, expected a number of bytes, or 0 for 8 GiB", r.Spool)
	}
	if err := r.rule().Validate(); err != nil {
		return within("robust", r, err)
	}
	return nil
}

func rulesWith(field string) (names []string) {
	for _, n := range RobustRules() {
		if slices.Contains(robustRules[n].fields, field) {
			names = append(names, n)
		}
	}
	return names
}

func (r Robust) rule() robust.Rule {
	return robust.Rule{Method: robustRules[r.Rule].method(r), Bucket: r.Bucket}
}

// driven is how the driver runs the recipe.
func (r *Recipe) driven() federated.Config {
	c := federated.Config{Rounds: r.Rounds, Pace: r.Round.pace()}
	if r.Robust.Rule != "" {
		c.Rule, c.Spool.Limit = r.Robust.rule(), r.Robust.Spool
	}
	return c
}

// fits returns an error, of a field, if the recipe's robust rule can never work on the method with these members.
func (r *Recipe) fits(ctx context.Context, a federated.Algorithm, srv federated.Server) error {
	if w, ok := a.(interface{ Enough(federated.Server) error }); ok {
		if err := w.Enough(srv); err != nil {
			return unsuited(err)
		}
	}
	if r.Robust.Rule == "" {
		return nil
	}
	s, err := a.Init(ctx, srv)
	if err != nil {
		return err
	}
	if err := r.driven().Fits(a, s, srv); err != nil {
		var fe *FieldError
		if errors.As(err, &fe) {
			return err
		}
		return within("robust", r.Robust, err)
	}
	return nil
}

// CheckMembers returns an error of the recipe if so many members are too few, or too many, for its robust rule, or if what it
// says of secure sums and privacy does not go with its method.
func (p *ServerPlan) CheckMembers(ctx context.Context, members int) error {
	a, err := p.Algorithm()
	if err != nil {
		return err
	}
	srv := p.Server(nil, anybody(members))
	if err := wraps(a, srv); err != nil {
		return p.Recipe.place(err)
	}
	return p.Recipe.place(p.Recipe.fits(ctx, a, srv))
}

// anybody is so many members of whom nothing is known.
type anybody int

func (n anybody) Len() int                      { return int(n) }
func (n anybody) Member(i int) federated.Member { return federated.Member{Index: i, Samples: 1} }
