package reproduce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/record/report"
)

// keptPart is a part's rows, as they lie in the folder of an experiment.
type keptPart struct {
	Name string `json:"name"`
	Seed uint64 `json:"seed"`
	Rows []Row  `json:"rows"`
}

// part computes one of an experiment's parts, unless another is asked for. With a folder its rows are kept there, and read instead of
// computed again.
func (l *Lab) part(ctx context.Context, name string, compute func(context.Context) error) error {
	l.names = append(l.names, name)
	if l.Only != "" && l.Only != name {
		return nil
	}
	kept, err := l.keptPart(name)
	if err != nil {
		return err
	}
	if kept != nil {
		l.rows = append(l.rows, kept.Rows...)
		return nil
	}
	if l.Say != nil {
		l.Say(name)
	}
	before := len(l.rows)
	if err := compute(ctx); err != nil || l.Dir == "" {
		return err
	}
	if err := os.MkdirAll(l.Dir, 0o755); err != nil {
		return err
	}
	return journal.WriteFile(journal.OS(), l.partPath(name), func(w io.Writer) error {
		return json.NewEncoder(w).Encode(keptPart{name, l.Seed, l.rows[before:]})
	})
}

func (l *Lab) partPath(name string) string { return filepath.Join(l.Dir, slug(name)+".json") }

// keptPart returns what the folder has of a part, nil if it has nothing.
func (l *Lab) keptPart(name string) (*keptPart, error) {
	if l.Dir == "" {
		return nil, nil
	}
	text, err := os.ReadFile(l.partPath(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var k keptPart
	if err := json.Unmarshal(text, &k); err != nil {
		return nil, fmt.Errorf("%s: %w; remove it to compute the part again", l.partPath(name), err)
	}
	if k.Name != name || k.Seed != l.Seed {
		return nil, fmt.Errorf("%s holds %q with seed %d; remove it, or choose another folder", l.partPath(name), k.Name, k.Seed)
	}
	return &k, nil
}

// curve is a chart of what several parts have measured: a line for each series over the parts' values of x. Of the parts that the
// folder has not got, nothing is drawn.
type curve struct {
	name, title string
	x, y        report.Axis
	xs          []float64
	percent     bool // x are shares, drawn as percentages: the axis has whole numbers
	part        func(x float64) string
	series      []string
	claim       func(x float64, series string) string
}

// draw draws curves into the experiment's folder, if there is one: FOLDER/report.html, and as FOLDER/report/NAME.png and .csv.
func (l *Lab) draw(title string, curves ...curve) error {
	if l.Dir == "" {
		return nil
	}
	s := report.Section{Title: "Curves"}
	for _, c := range curves {
		chart := report.Chart{Name: c.name, Title: c.title, X: c.x, Y: c.y}
		for _, name := range c.series {
			line := report.Series{Name: name}
			for _, x := range c.xs {
				kept, err := l.keptPart(c.part(x))
				if err != nil {
					return err
				}
				if kept == nil {
					continue
				}
				for _, row := range kept.Rows {
					if row.Claim == c.claim(x, name) && row.Measured != nil {
						at := x
						if c.percent {
							at = math.Round(1000*x) / 10
						}
						line.X, line.Y = append(line.X, at), append(line.Y, *row.Measured)
					}
				}
			}
			chart.Series = append(chart.Series, line)
		}
		s.Charts = append(s.Charts, chart)
	}
	_, err := report.Report{Title: title, Sections: []report.Section{s}}.Write(journal.OS(), l.Dir)
	return err
}
