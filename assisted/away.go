package assisted

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/federated"
)

// Without notes of whom a phase had to do without: who was asked, and gave nothing or nothing that could be used.
func (c Course) Without(srv federated.Server, roll federated.Roll, answers []Answer) Course {
	missed := slices.Clone(c.Missed)
	for _, f := range roll.Failed {
		missed = append(missed, f.Member)
	}
	for _, g := range roll.Gathered {
		missed = append(missed, srv.Population.Member(g.Member).Name)
	}
	missed = slices.DeleteFunc(missed, func(name string) bool {
		return slices.ContainsFunc(answers, func(a Answer) bool { return a.Name == name })
	})
	slices.Sort(missed)
	c.Missed = slices.Compact(missed)
	return c
}

// missing closes a round for those that it had to do without, or that have left the run. They have weight 0 in it, and of each it
// says what it costs where predictions have to do without its earlier models, too: "away" is by how much the loss on the rows that
// organisations are compared on rises then. Notes say it when somebody goes and in the last round.
func (t *Table) missing(srv federated.Server, s federated.State, c Course, d *federated.Diagnostics, last bool) (Course, error) {
	for i, name := range c.Members {
		if srv.Population.Member(c.Indices[i]).Gone && !slices.Contains(c.Missed, name) {
			c.Missed = append(c.Missed, name)
		}
	}
	slices.Sort(c.Missed)
	away := map[string]int{}
	for _, name := range c.Missed {
		away[name] = c.Away[name] + 1
	}
	news := !maps.EqualFunc(away, c.Away, func(int, int) bool { return true }) // somebody came or went
	c.Missed, c.Away = nil, away
	if len(away) == 0 {
		c.Away = nil
		return c, nil
	}
	g, err := t.game(s, c)
	if err != nil {
		return c, err
	}
	all := make([]bool, len(g.names))
	for m := range all {
		all[m] = true
	}
	whole := g.loss(all)
	var names []string
	for _, name := range slices.Sorted(maps.Keys(away)) {
		names = append(names, fmt.Sprintf("%s (%d)", name, away[name]))
		cost := 0.0
		if m := slices.Index(g.names, name); m >= 0 {
			only := slices.Clone(all)
			only[m], all[m] = false, false
			cost = g.loss(only) - whole
		}
		d.Add("away", name, cost)
	}
	if news || last {
		d.Notes = append(d.Notes, fmt.Sprintf("away, with weight 0, and for how many rounds: %s. On %d rows set apart the loss is %.4g with the models that they fitted before and %.4g where these do not answer, either",
			strings.Join(names, ", "), t.Sponsor.Scored().Len(), whole, g.loss(all)))
	}
	return c, nil
}
