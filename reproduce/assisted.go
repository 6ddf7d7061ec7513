package reproduce

import (
	"compress/gzip"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/train"
	"github.com/goccy/go-yaml"
	"gonum.org/v1/gonum/mat"
)

// sheet is a table with a label.
type sheet struct {
	name      string
	x, y      *mat.Dense
	objective assisted.Objective
}

// division is how a sheet is given to organisations.
type division struct {
	sheet
	columns [][]int // of each organisation; the sponsor's are the first
	shares  assisted.Shares
	seed    uint64
	learner learner.Spec
	others  []learner.Spec  // of the organisations, if they do not all have that one
	noise   map[int]float64 // by organisation
	order   []int           // of the rows, if they are not to be shuffled: the last ones are for the test

	checkpoint int // rounds from one to the next; 0: 1
}

func organisation(m int) string { return fmt.Sprintf("organisation %d", m+1) }

// sponsor is the first organisation, with the rows divided.
func (d division) sponsor() (*assisted.Sponsor, error) {
	n, _ := d.y.Dims()
	s := assisted.Sponsor{Objective: d.objective, Keys: make([]string, n), Labels: d.y, Own: organisation(0)}
	for i := range s.Keys {
		s.Keys[i] = strconv.Itoa(i)
	}
	order, fit, solve, held, test, err := d.shares.Deal(n, rng.New(d.seed, 0, "", "rows"))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.name, err)
	}
	if d.order != nil {
		order = d.order
	}
	return s.Arrange(order, fit, solve, held, test), nil
}

// pooled is the same with all columns at one organisation.
func (d division) pooled() division {
	d.columns = [][]int{slices.Concat(d.columns...)}
	d.noise, d.others = nil, nil
	return d
}

// only is the same with one of the organisations alone.
func (d division) only(m int) division {
	d.columns = d.columns[m : m+1]
	d.noise = nil
	return d
}

// spec is the learner of organisation m.
func (d division) spec(m int) learner.Spec {
	if d.others != nil {
		return d.others[m]
	}
	return d.learner
}

// desks are the organisations, with stores in memory, or in dir where it is not empty; networks compute on e.
func (d division) desks(s *assisted.Sponsor, dir string, e *train.Engine) (assisted.Desks, *simulation.Fleet, error) {
	keys := make([]string, len(s.Keys))
	for i := range keys {
		keys[i] = strconv.Itoa(i)
	}
	desks, fleet := assisted.Desks{}, &simulation.Fleet{Seed: d.seed}
	for m, columns := range d.columns {
		l, err := d.spec(m).New()
		if err != nil {
			return nil, nil, err
		}
		store := assisted.NewStore()
		if dir != "" {
			if store, err = journal.OpenValues(nil, filepath.Join(dir, "organisations", strconv.Itoa(m+1))); err != nil {
				return nil, nil, err
			}
		}
		name := organisation(m)
		desks[name] = &assisted.Desk{Keys: keys, Features: assisted.Columns(d.x, columns), Learner: learner.On(l, e), Store: store, Noise: d.noise[m]}
		fleet.Own = append(fleet.Own, simulation.Holder{Name: name})
	}
	return desks, fleet, nil
}

// assisting makes a method for a sponsor and its organisations.
type assisting func(rounds int, s *assisted.Sponsor, desks federated.Client) (federated.Algorithm, error)

// assist runs a method among organisations, under a name that is unique in the experiment. Options are written down with the run.
func (l *Lab) assist(ctx context.Context, name, method string, options any, rounds int, d division, make assisting) (outcome, error) {
	written := map[string]any{"method": method, "options": options, "rounds": rounds, "seed": d.seed,
		"table": d.name, "columns": d.columns, "rows": d.shares, "learner": d.learner, "noise": d.noise}
	if d.others != nil {
		written["learners"] = d.others
	}
	text, err := yaml.Marshal(written)
	if err != nil {
		return outcome{}, err
	}
	o, err := l.perform(ctx, paper{name, method, d.seed, text, max(1, d.checkpoint)}, func(dir string) (*simulation.Job, error) {
		s, err := d.sponsor()
		if err != nil {
			return nil, err
		}
		desks, fleet, err := d.desks(s, dir, l.Engine)
		if err != nil {
			return nil, err
		}
		a, err := make(rounds, s, desks)
		return &simulation.Job{Algorithm: a, Fleet: fleet, Config: federated.Config{Rounds: rounds}}, err
	})
	if err != nil {
		return o, fmt.Errorf("%s: %w", name, err)
	}
	return o, nil
}

// readSheet reads one of the tables that come with scikit-learn, with so many lines before the rows; the class is the last column.
func (l *Lab) readSheet(name, file string, header, classes int) (sheet, error) {
	lines, err := l.readLines(filepath.Join("sklearn-tables", file), ',')
	if err != nil {
		return sheet{}, err
	}
	return newSheet(name, lines[header:], classes)
}

// newSheet takes the last column as the label; classes 0 is regression.
func newSheet(name string, lines [][]string, classes int) (sheet, error) {
	d := len(lines[0]) - 1
	s := sheet{name: name, x: mat.NewDense(len(lines), d, nil), y: mat.NewDense(len(lines), 1, nil)}
	s.objective = assisted.Objective{Loss: assisted.Absolute}
	if classes > 0 {
		s.objective = assisted.Objective{Loss: assisted.CrossEntropy, Classes: classes}
	}
	for i, line := range lines {
		for j, field := range line {
			v, err := strconv.ParseFloat(strings.TrimSpace(field), 64)
			if err != nil {
				return s, fmt.Errorf("%s: row %d, column %d: %w", name, i+1, j+1, err)
			}
			if j == d {
				s.y.Set(i, 0, v)
			} else {
				s.x.Set(i, j, v)
			}
		}
	}
	return s, nil
}

// readLines reads a table, compressed or not.
func (l *Lab) readLines(file string, comma rune) (lines [][]string, err error) {
	f, err := os.Open(filepath.Join(l.Data, file))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var in io.Reader = f
	if strings.HasSuffix(file, ".gz") {
		z, err := gzip.NewReader(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		in = z
	}
	r := csv.NewReader(in)
	r.Comma, r.FieldsPerRecord, r.LazyQuotes = comma, -1, true
	if lines, err = r.ReadAll(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(lines) < 2 {
		return nil, fmt.Errorf("%s: %w", file, errors.New("there are no rows"))
	}
	return lines, nil
}

// diabetes reads features and labels, which lie in two files.
func (l *Lab) diabetes() (sheet, error) {
	x, err := l.readLines("sklearn-tables/diabetes_data.csv.gz", ' ')
	if err != nil {
		return sheet{}, err
	}
	y, err := l.readLines("sklearn-tables/diabetes_target.csv.gz", ' ')
	if err != nil {
		return sheet{}, err
	}
	if len(x) != len(y) {
		return sheet{}, fmt.Errorf("diabetes: %d rows of features, %d labels", len(x), len(y))
	}
	for i := range x {
		x[i] = append(x[i], y[i][0])
	}
	return newSheet("diabetes", x, 0)
}

// qsar reads the biodegradation table, whose classes are words.
func (l *Lab) qsar() (sheet, error) {
	lines, err := l.readLines("uci-tables/biodeg.csv", ',')
	if err != nil {
		return sheet{}, err
	}
	lines = lines[1:]
	for i, line := range lines {
		last := len(line) - 1
		class, ok := map[string]string{"RB": "1", "NRB": "0"}[line[last]]
		if !ok {
			return sheet{}, fmt.Errorf("qsar: row %d has class %q", i+1, line[last])
		}
		line[last] = class
	}
	return newSheet("qsar", lines, 2)
}
