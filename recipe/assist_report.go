package recipe

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cohort-learning/cohort/assisted/al"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/record/report"
)

// Fact is a field of a recipe and what it says.
type Fact struct{ Label, Value string }

// Facts are the recipe's single fields, in its words.
func (r *Assist) Facts() (facts []Fact) {
	for line := range strings.Lines(string(r.YAML())) {
		if name, value, ok := strings.Cut(strings.TrimRight(line, "\n"), ": "); ok && !strings.HasPrefix(name, " ") && name != "version" {
			facts = append(facts, Fact{name, value})
		}
	}
	return append(facts, Fact{"target", r.Table.Target})
}

// reportAssist gathers what is known of a run among organisations.
func reportAssist(dir string, meta record.Meta) (report.Run, *record.Metrics, error) {
	r, err := AssistOfRun(dir)
	if err != nil {
		return report.Run{}, nil, err
	}
	metrics, err := record.ReadMetrics(dir)
	if err != nil {
		return report.Run{}, nil, err
	}
	out := report.Run{Meta: meta, Metrics: metrics, Among: true, Subtitle: fmt.Sprintf("%s among organisations, seed %d, %s", meta.Method, meta.Seed, meta.State)}
	for _, f := range r.Facts() {
		out.Settings = append(out.Settings, report.Fact{Label: f.Label, Value: f.Value})
	}
	tests, err := metrics.Keys("useful.p")
	if err != nil {
		return report.Run{}, nil, errors.Join(err, metrics.Close())
	}
	for _, who := range tests {
		points, err := metrics.Series("useful.p", who)
		if err != nil {
			return report.Run{}, nil, errors.Join(err, metrics.Close())
		}
		if n := len(points); n > 0 {
			out.Settings = append(out.Settings, report.Fact{Label: "is " + who + " of use?", Value: fmt.Sprintf("p = %.3g: %s", points[n-1].Value, al.Verdict(points[n-1].Value))})
		}
	}
	points, err := metrics.Series(al.Again, "")
	if err != nil {
		return report.Run{}, nil, errors.Join(err, metrics.Close())
	}
	for _, p := range points {
		out.Settings = append(out.Settings, report.Fact{Label: "run again on all rows", Value: fmt.Sprintf("%g rounds, from round %d on", p.Value, p.Round+2)})
	}
	if out.Digest, err = finalDigest(dir); err == nil {
		out.Bounds, err = boundsTable(dir)
	}
	if err != nil {
		return report.Run{}, nil, errors.Join(err, metrics.Close())
	}
	return out, metrics, nil
}
