package recipe

import (
	"fmt"
	"strings"

	"github.com/cohort-learning/cohort/assisted/learner"
)

// String says in a few lines what will be learned from what.
func (p *AssistPlan) String() string {
	var b strings.Builder
	s := p.Sponsor
	fmt.Fprintf(&b, "%s predicts %q (%s) from %s", p.Recipe.Sponsor, p.Table.Encoding.Target, s.Objective.Loss, p.Table)
	if classes := p.Table.Imbalance(); classes != "" {
		fmt.Fprintf(&b, "\nclasses: %s", classes)
	}
	if p.Without > 0 {
		fmt.Fprintf(&b, "\n%d rows have no target and are left out", p.Without)
	}
	if n := p.Table.Left; n > 0 {
		fmt.Fprintf(&b, "\n%d rows have a key that was there before and are left out", n)
	}
	fmt.Fprintf(&b, "\nrows: %d to fit", s.Fit)
	for _, part := range []struct {
		n    int
		what string
	}{{s.Solve, "to solve weights on"}, {s.Held, "held out"}, {s.Test, "to test on"}} {
		if part.n > 0 {
			fmt.Fprintf(&b, ", %d %s", part.n, part.what)
		}
	}
	if s.Strata != nil {
		fmt.Fprintf(&b, "\neach assistor fits a model for each of %d strata of %q: %s", s.Strata.Count, s.Strata.Column, s.Strata.Text(s.Stratum[:s.Fit]))
	}
	for i, t := range p.Others {
		o := p.Recipe.Organisations[i]
		known := map[string]bool{}
		for _, k := range t.Keys {
			known[k] = true
		}
		n := 0
		for _, k := range s.Keys {
			if known[k] {
				n++
			}
		}
		fmt.Fprintf(&b, "\n%s (%s) has %s; it knows %d of the sponsor's %d entities", o.Name, o.Learner.Name, t, n, len(s.Keys))
	}
	b.WriteString(p.medians())
	return b.String()
}

// medians warns of learners that fit medians of the residuals of classes.
func (p *AssistPlan) medians() string {
	if !p.Sponsor.Objective.Classifies() {
		return ""
	}
	var who []string
	note := func(name string, s learner.Spec) {
		if s.Power != nil && *s.Power < 1.5 {
			who = append(who, name)
		}
	}
	note(p.Recipe.Sponsor, p.Recipe.Learner)
	for _, o := range p.Recipe.Organisations {
		note(o.Name, o.Learner)
	}
	if len(who) == 0 {
		return ""
	}
	return fmt.Sprintf("\nlearner.power below 1.5 (%s) fits about the medians of residuals, which for classes are near 0: expect little of it; 2 is right for classes", strings.Join(who, ", "))
}
