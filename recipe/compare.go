package recipe

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/record/report"
)

// Comparison is runs side by side, grouped by setting: recipes that differ in nothing but seed, name and the way in which
// they are computed.
type Comparison struct {
	Settings []Compared `json:"settings"`
}

// Compared is the runs of one setting and what they came to.
type Compared struct {
	Name    string          `json:"name"` // what tells it from the others, such as "method=fedavg"
	Runs    []string        `json:"runs"` // folders
	Rounds  int             `json:"rounds"`
	Metrics map[string]Mean `json:"metrics"` // last values of the whole; bytes are sums over the rounds
}

// Mean is a mean over seeds and the standard deviation of the sample.
type Mean struct {
	Mean float64 `json:"mean"`
	SD   float64 `json:"sd"` // 0 if there is one
	N    int     `json:"n"`
}

// Compare reads the runs in folders.
func Compare(dirs []string) (*Comparison, error) {
	settings := map[string][]Setting{}
	var order []string
	runs := map[string][]string{}
	for _, dir := range dirs {
		r, err := OfRun(dir)
		if err != nil {
			return nil, err
		}
		mine := slices.DeleteFunc(r.Settings(), func(s Setting) bool { return strings.HasPrefix(s.Field, "run.") })
		key := fmt.Sprint(mine)
		if _, ok := settings[key]; !ok {
			order = append(order, key)
		}
		settings[key] = mine
		if !slices.Contains(runs[key], dir) {
			runs[key] = append(runs[key], dir)
		}
	}
	c := new(Comparison)
	names := tell(order, settings)
	for i, key := range order {
		s := Compared{Name: names[i], Runs: runs[key]}
		if err := s.read(); err != nil {
			return nil, err
		}
		c.Settings = append(c.Settings, s)
	}
	return c, nil
}

// tell names settings by the fields in which they differ.
func tell(order []string, settings map[string][]Setting) []string {
	values := map[string]map[string]bool{} // by field
	for _, key := range order {
		for _, s := range settings[key] {
			if values[s.Field] == nil {
				values[s.Field] = map[string]bool{}
			}
			values[s.Field][s.Value] = true
		}
	}
	has := func(key, field string) bool {
		return slices.ContainsFunc(settings[key], func(s Setting) bool { return s.Field == field })
	}
	for field := range values {
		for _, key := range order {
			if !has(key, field) {
				values[field][""] = true
			}
		}
	}
	short := map[string]int{} // how many of the fields that differ end in a word
	for field, v := range values {
		if len(v) > 1 {
			short[lastWord(field)]++
		}
	}
	var names []string
	for _, key := range order {
		var words []string
		for _, s := range settings[key] {
			if len(values[s.Field]) < 2 {
				continue
			}
			field := s.Field
			if short[lastWord(field)] == 1 {
				field = lastWord(field)
			}
			words = append(words, field+"="+s.Value)
		}
		if len(words) == 0 && len(order) == 1 {
			for _, s := range settings[key] {
				if s.Field == "method" {
					words = append(words, s.Value)
				}
			}
		}
		if len(words) == 0 {
			words = []string{"default"}
		}
		names = append(names, strings.Join(words, " "))
	}
	return names
}

// lastWord returns "batch" of "train.batch", but a name with its section.
func lastWord(field string) string {
	if w := field[strings.LastIndexByte(field, '.')+1:]; w != "name" {
		return w
	}
	return strings.TrimSuffix(field, ".name")
}

// read fills in the metrics.
func (c *Compared) read() error {
	samples := map[string][]float64{}
	for _, dir := range c.Runs {
		last, rounds, err := LastMetrics(dir)
		if err != nil {
			return err
		}
		c.Rounds = max(c.Rounds, rounds)
		for name, v := range last {
			samples[name] = append(samples[name], v)
		}
	}
	c.Metrics = map[string]Mean{}
	for name, v := range samples {
		c.Metrics[name] = meanOf(v)
	}
	return nil
}

func meanOf(v []float64) Mean {
	m := Mean{N: len(v)}
	for _, x := range v {
		m.Mean += x / float64(len(v))
	}
	for _, x := range v {
		m.SD += (x - m.Mean) * (x - m.Mean) / float64(max(1, len(v)-1))
	}
	m.SD = math.Sqrt(m.SD)
	return m
}

// WriteReport writes the report of the comparison into a folder and returns its path.
func (c *Comparison) WriteReport(dir string) (path string, err error) {
	var groups []report.Group
	var open []*record.Metrics
	defer func() {
		for _, m := range open {
			err = errors.Join(err, m.Close())
		}
	}()
	runs := 0
	for _, s := range c.Settings {
		g := report.Group{Name: s.Name}
		for _, d := range s.Runs {
			run, metrics, err := Report(d)
			if err != nil {
				return "", err
			}
			open = append(open, metrics)
			g.Runs = append(g.Runs, run)
			runs++
		}
		groups = append(groups, g)
	}
	page, err := report.Compare(fmt.Sprintf("Comparison of %d runs", runs), groups)
	if err != nil {
		return "", err
	}
	if err := journal.OS().MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	files, err := page.Write(journal.OS(), dir)
	if err != nil {
		return "", err
	}
	return filepath.Clean(files[0]), nil
}
