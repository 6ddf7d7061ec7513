package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/cohort-learning/cohort/record"
)

// A Group is what is compared: one setting, run with several seeds.
type Group struct {
	Name string
	Runs []Run
}

// Compare lays groups of runs side by side: every metric of the whole (key "")
// as mean over the runs of a group, with a band of one standard deviation; and
// in a table the last value, or of costs the sum over rounds, as mean ±
// standard deviation. The deviation is that of a sample, √(Σ(x−x̄)²/(n−1)); one
// run has none. A round counts where all runs of the group have a value.
func Compare(title string, groups []Group) (Report, error) {
	var names []string
	for _, g := range groups {
		for _, r := range g.Runs {
			n, err := r.Metrics.Names()
			if err != nil {
				return Report{}, fmt.Errorf("compare %s: %w", r.Meta.ID, err)
			}
			names = append(names, n...)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	slices.SortStableFunc(names, func(a, b string) int { return rank(a) - rank(b) })

	final := Table{Name: "final", Title: "Mean ± standard deviation over runs",
		Columns: []Column{{"setting", false}, {"runs", true}, {"rounds", true}}}
	rows := make([][]string, len(groups))
	rounds := make([]float64, len(groups))
	runs := Table{Name: "runs", Columns: []Column{{"setting", false}, {"run", false}, {"seed", true}, {"state", false}, {"engine", false}, {"version", false}}}
	for _, g := range groups {
		for _, r := range g.Runs {
			runs.Rows = append(runs.Rows, []string{g.Name, r.Meta.ID, strconv.FormatUint(r.Meta.Seed, 10), string(r.Meta.State), r.Meta.Engine, r.Meta.Cohort})
		}
	}
	var charts []Chart
	for _, name := range names {
		c := Chart{Name: name, Title: name, X: Axis{Label: "round"}, Y: Axis{Label: name}}
		for _, k := range known {
			if k.name == name {
				c.Title, c.Y = k.title, Axis{k.label, k.unit}
			}
		}
		cells := make([]string, len(groups))
		for i, g := range groups {
			s, ends, err := g.mean(name)
			if err != nil {
				return Report{}, fmt.Errorf("compare: %w", err)
			}
			cells[i] = "–"
			if n := len(s.Y); n > 0 {
				c.Series = append(c.Series, s)
				rounds[i] = max(rounds[i], s.X[n-1])
				cells[i] = plusMinus(c.Y.Unit, ends)
			}
		}
		if c.empty() {
			continue
		}
		charts = append(charts, c)
		head := name + ", last"
		if isCost(name) {
			head = name + ", sum"
		}
		final.Columns = append(final.Columns, Column{head, true})
		for i := range groups {
			rows[i] = append(rows[i], cells[i])
		}
	}
	for i, g := range groups {
		head := []string{g.Name, strconv.Itoa(len(g.Runs)), strconv.Itoa(int(rounds[i]))}
		final.Rows = append(final.Rows, append(head, rows[i]...))
	}
	return Report{
		Title:    title,
		Subtitle: fmt.Sprintf("%d settings, %d runs", len(groups), len(runs.Rows)),
		Sections: []Section{
			{Title: "Results", Tables: []Table{final}},
			{Title: "Curves", Text: "Lines are means over runs, bands one standard deviation to either side.", Charts: charts},
			{Title: "Runs", Tables: []Table{runs}},
		},
	}, nil
}

// rank orders metrics as they stand in known, others behind.
func rank(name string) int {
	for i, k := range known {
		if k.name == name {
			return i
		}
	}
	return len(known)
}

// isCost reports whether the values of a metric's rounds add up.
func isCost(name string) bool { return rank(name) >= learned && rank(name) < len(known) }

// plusMinus writes mean and deviation of a sample with one unit.
func plusMinus(u Unit, sample []float64) string {
	mean, sd := meanSD(sample)
	if len(sample) < 2 || !finite(mean) {
		return u.Format(mean)
	}
	s := scaleFor(u, math.Abs(mean))
	digits := 2
	if u != Percent {
		digits = 3
	}
	text := fmt.Sprintf("%.*f ± %.*f", digits, s.of(mean), digits, s.of(sd))
	if s.unit != "" {
		text += " " + s.unit
	}
	return text
}

// mean returns a metric of the whole as mean over runs, with the band of one
// standard deviation if there are several, and what each run ended with.
func (g Group) mean(name string) (out Series, ends []float64, err error) {
	values := make(map[float64][]float64)
	for _, r := range g.Runs {
		points, err := wholeSeries(r.Metrics, name)
		if err != nil {
			return Series{}, nil, fmt.Errorf("%s: %w", r.Meta.ID, err)
		}
		s := line("", points)
		for i, x := range s.X {
			values[x] = append(values[x], s.Y[i])
		}
	}
	out.Name = g.Name
	for x, v := range values {
		if len(v) == len(g.Runs) {
			out.X = append(out.X, x)
		}
	}
	slices.Sort(out.X)
	ends = make([]float64, len(g.Runs))
	for _, x := range out.X {
		m, sd := meanSD(values[x])
		out.Y = append(out.Y, m)
		if len(g.Runs) > 1 {
			out.Lo, out.Hi = append(out.Lo, m-sd), append(out.Hi, m+sd)
		}
		for i, v := range values[x] {
			if isCost(name) {
				v += ends[i]
			}
			ends[i] = v
		}
	}
	return out, ends, nil
}

// wholeSeries returns a metric of the whole; if a run has it only by level, the sum.
func wholeSeries(m Metrics, name string) ([]record.Point, error) {
	points, err := m.Series(name, "")
	if err != nil || len(points) > 0 || !isCost(name) {
		return points, err
	}
	keys, err := m.Keys(name)
	if err != nil {
		return nil, err
	}
	sum := make(map[int]float64)
	for _, k := range keys {
		part, err := m.Series(name, k)
		if err != nil {
			return nil, err
		}
		for _, p := range part {
			sum[p.Round] += p.Value
		}
	}
	for round, v := range sum {
		points = append(points, record.Point{Round: round, Value: v})
	}
	slices.SortFunc(points, func(a, b record.Point) int { return a.Round - b.Round })
	return points, nil
}

// meanSD returns mean and standard deviation of a sample; sd is 0 for one value.
func meanSD(v []float64) (mean, sd float64) {
	for _, x := range v {
		mean += x
	}
	mean /= float64(len(v))
	if len(v) < 2 {
		return mean, 0
	}
	for _, x := range v {
		sd += (x - mean) * (x - mean)
	}
	return mean, math.Sqrt(sd / float64(len(v)-1))
}
