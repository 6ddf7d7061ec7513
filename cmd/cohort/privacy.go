package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cohort-learning/cohort/record/report"
	"github.com/cohort-learning/cohort/secure/dp"
	"github.com/spf13/cobra"
)

func newPrivacy(io streams, _ <-chan struct{}) *cobra.Command {
	c := &cobra.Command{
		Use:   "privacy",
		Short: "Plan how much noise hides a member, and show what was spent",
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(newPrivacyPlan(io), newPrivacyLedger(io))
	return c
}

type privacyPlan struct {
	dp.Plan
	accountant string
	rounds     int
	members    int
	noise      float64
	plot       string
	json       bool
}

func newPrivacyPlan(io streams) *cobra.Command {
	var o privacyPlan
	c := &cobra.Command{
		Use:   "plan",
		Short: "Say how much noise an epsilon needs, or what a noise costs",
		Long: `Say how much Gaussian noise keeps a run (epsilon, delta)-private for every member, and what that does to the mean of the
updates. With --noise it is the other way round: what that noise costs, and how many rounds it allows.

Each of the members takes part in a round with probability --fraction, by a coin of its own; updates are clipped to a bound S,
added, given noise of standard deviation z·S, and divided by fraction × members. A cohort of fixed size is not covered.`,
		Example: `  cohort privacy plan --epsilon 8 --delta 1e-5 --rounds 100 --fraction 0.1 --members 1000
  cohort privacy plan --noise 1.2 --rounds 500 --fraction 0.02 --members 10000
  cohort privacy plan --epsilon 2 --plot noise.png`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(io, cmd.Flags().Changed("noise"))
		},
	}
	f := c.Flags()
	f.Float64Var(&o.Epsilon, "epsilon", 8, "what the whole run may cost a member")
	f.Float64Var(&o.Delta, "delta", 1e-5, "with which probability it may cost more; below one in --members")
	f.IntVar(&o.rounds, "rounds", 100, "rounds of the run")
	f.Float64Var(&o.Fraction, "fraction", 0.1, "probability that a member takes part in a round")
	f.IntVar(&o.members, "members", 1000, "members that are enrolled, there or not")
	f.Float64Var(&o.noise, "noise", 0, "noise multiplier z to judge, instead of looking for one")
	f.Lookup("noise").DefValue = "0" // shown as no default
	f.StringVar(&o.accountant, "accountant", dp.PLD.String(), "how costs add up: pld (tighter) or rdp (quicker)")
	f.StringVar(&o.plot, "plot", "", "PNG file to draw noise against epsilon to")
	f.BoolVar(&o.json, "json", false, "print the result as JSON")
	return c
}

// planned is a cell of the table of plans; its noise is 0 if the accountant vouches for none.
type planned struct {
	Rounds  int     `json:"rounds"`
	Epsilon float64 `json:"epsilon"`
	Noise   float64 `json:"noise,omitempty"`
}

// planResult is what the command finds.
type planResult struct {
	Schema        int       `json:"schema"`
	Accountant    string    `json:"accountant"`
	Delta         float64   `json:"delta"`
	Rounds        int       `json:"rounds"`
	Fraction      float64   `json:"fraction"`
	Members       int       `json:"members"`
	Epsilon       float64   `json:"epsilon"`
	Noise         float64   `json:"noise"`
	Allowed       int       `json:"rounds_allowed,omitempty"`
	DeviationSum  float64   `json:"deviation_sum"`  // of a coordinate, in clip bounds
	DeviationMean float64   `json:"deviation_mean"` // of a coordinate, in clip bounds
	Table         []planned `json:"table"`
	Plot          string    `json:"plot,omitempty"`
}

func (o *privacyPlan) run(io streams, given bool) error {
	a, err := dp.ParseAccountant(o.accountant)
	if err != nil {
		return usageError{err}
	}
	o.Accountant = a
	switch {
	case o.plot != "" && filepath.Ext(o.plot) != ".png":
		return usagef("--plot %s: expected a name that ends in .png", o.plot)
	case o.members < 1 || !(o.Fraction > 0 && o.Fraction <= 1):
		return usagef("--members %d --fraction %v: expected members, and a probability above 0, at most 1", o.members, o.Fraction)
	case o.rounds < 1:
		return usagef("--rounds %d: expected at least 1", o.rounds)
	case given && !(o.noise >= 1e-3 && o.noise <= 1e6):
		return usagef("--noise %v: expected a number from 0.001 to a million", o.noise)
	case !(o.Epsilon > 0) || math.IsInf(o.Epsilon, 1):
		return usagef("--epsilon %v: expected a positive number", o.Epsilon)
	case !(o.Delta > 0 && o.Delta < 1):
		return usagef("--delta %v: expected a probability between 0 and 1", o.Delta)
	}
	if o.Delta*float64(o.members) >= 1 {
		io.note("delta %v with %s members: a mechanism that shows one member's data whole may have that much; choose less than %.1g",
			o.Delta, count(o.members), 1/float64(o.members))
	}
	r := planResult{Schema: schema, Accountant: a.String(), Delta: o.Delta, Rounds: o.rounds, Fraction: o.Fraction, Members: o.members,
		Epsilon: o.Epsilon, Noise: o.noise}
	if given {
		if r.Allowed, err = o.Plan.Rounds(o.noise); err != nil {
			return err
		}
	} else if r.Noise, err = o.Plan.Noise(o.rounds); err != nil {
		return err
	}
	if r.Epsilon, err = o.cost(r.Noise, o.rounds); err != nil {
		return err
	}
	c := dp.Central{Clip: 1, Noise: r.Noise, Fraction: o.Fraction, Members: o.members}
	r.DeviationSum, r.DeviationMean = r.Noise, c.Deviation()
	r.Table = o.table()
	if o.plot != "" {
		if err := o.draw(r.Table); err != nil {
			return err
		}
		r.Plot = o.plot
	}
	if o.json {
		return io.json(r)
	}
	o.say(io, r)
	return nil
}

func (o *privacyPlan) cost(noise float64, rounds int) (float64, error) {
	return o.Accountant.Epsilon(o.Delta, dp.Release{Fraction: o.Fraction, Noise: noise, Rounds: rounds})
}

// The table has so many times the asked rounds and epsilon.
var (
	roundFactors   = []float64{0.25, 1, 4}
	epsilonFactors = []float64{0.25, 0.5, 1, 2}
)

func (o *privacyPlan) table() (out []planned) {
	last := 0
	for _, r := range roundFactors {
		rounds := max(1, int(math.Round(r*float64(o.rounds))))
		if rounds == last {
			continue
		}
		last = rounds
		for _, e := range epsilonFactors {
			p := o.Plan
			p.Epsilon *= e
			cell := planned{Rounds: rounds, Epsilon: p.Epsilon}
			if z, err := p.Noise(cell.Rounds); err == nil { // the answer itself was found; its neighbours may be out of reach
				cell.Noise = z
			}
			out = append(out, cell)
		}
	}
	return out
}

func (o *privacyPlan) say(io streams, r planResult) {
	t := newTable("", "")
	t.add("epsilon", fmt.Sprintf("%s at delta %v after %s rounds, by %s", digits(r.Epsilon), r.Delta, count(r.Rounds), r.Accountant))
	t.add("noise multiplier", digits(r.Noise))
	if r.Allowed > 0 {
		t.add("rounds allowed", fmt.Sprintf("%s within epsilon %v", count(r.Allowed), o.Epsilon))
	}
	t.add("deviation of the sum", digits(r.DeviationSum)+" S a coordinate")
	t.add("deviation of the mean", fmt.Sprintf("%s S a coordinate, of %s members expected",
		digits(r.DeviationMean), digits(r.Fraction*float64(r.Members))))
	t.body(io.out)
	io.say("\nNoise multiplier, and in brackets the deviation of the mean in S")
	head := []string{">rounds"}
	for _, e := range epsilonFactors {
		head = append(head, ">epsilon "+digits(e*o.Epsilon))
	}
	t = newTable(head...)
	var row []string
	for i, c := range r.Table {
		if i%len(epsilonFactors) == 0 {
			row = []string{count(c.Rounds)}
		}
		cell := "none found"
		if c.Noise > 0 {
			cell = fmt.Sprintf("%s (%s)", digits(c.Noise), digits(c.Noise/(r.Fraction*float64(r.Members))))
		}
		row = append(row, cell)
		if len(row) == len(head) {
			t.add(row...)
		}
	}
	t.write(io.out)
	if r.Plot != "" {
		io.say("\nplot: %s", r.Plot)
	}
}

// draw plots the noise multiplier against epsilon, a curve for each number of rounds of the table.
func (o *privacyPlan) draw(cells []planned) error {
	c := report.Chart{
		Name: "privacy-plan", Title: fmt.Sprintf("Noise for privacy: delta %v, fraction %v, by %v", o.Delta, o.Fraction, o.Accountant),
		X: report.Axis{Label: "epsilon of the whole run"}, Y: report.Axis{Label: "noise multiplier"},
	}
	const between = 8 // points from one cell of a row to the next
	n := len(epsilonFactors)
	for ; len(cells) >= n; cells = cells[n:] {
		s := report.Series{Name: count(cells[0].Rounds) + " rounds"}
		for i, cell := range cells[:n] {
			if cell.Noise == 0 {
				continue
			}
			s.X, s.Y = append(s.X, cell.Epsilon), append(s.Y, cell.Noise)
			for k := 1; k < between && i+1 < n; k++ {
				z := cell.Noise * math.Pow(cells[i+1].Noise/cell.Noise, float64(k)/between)
				e, err := o.cost(z, cell.Rounds)
				if err != nil {
					return err
				}
				s.X, s.Y = append(s.X, e), append(s.Y, z)
			}
		}
		c.Series = append(c.Series, s)
	}
	picture, err := c.PNG()
	if err != nil {
		return err
	}
	return os.WriteFile(o.plot, picture, 0o644)
}

// digits writes a number to about three digits.
func digits(v float64) string {
	if a := math.Abs(v); a >= 100 && a < 1e15 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
