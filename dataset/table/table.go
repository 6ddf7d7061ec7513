package table

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/dataset"
	"gonum.org/v1/gonum/mat"
)

// Table is a file, read.
type Table struct {
	Name     string     // the file
	Keys     []string   // of the rows, none twice
	Lines    []int      // of the rows, in the file
	Blocks   []string   // of the rows, where columns name them
	Compared [][]string // of the rows, the values of columns to compare; "" is missing
	Features *mat.Dense // n×d; NaN is missing
	Encoding *Encoding
	Target   []float64 // n values or class numbers, NaN where it is missing; nil: the file has no target
	Test     []bool    // which rows are for testing, if a column says so
	Left     int       // rows that were left out because their key was there before
	Strata   []string  // of the rows, the values of the column that strata are made of; missing ones are empty, numbers written alike
}

// Open reads a file. With an encoding, from an earlier table, rows become features as they did there; without, what the columns
// are is found out.
func Open(s Spec, e *Encoding) (*Table, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if e != nil && s.Header == "" {
		s.Header = "none"
		if e.Header {
			s.Header = "present"
		}
	}
	g, err := dataset.OpenGrid(s.Path, s.Header)
	if err != nil {
		return nil, err
	}
	return Read(g, s, e)
}

// Read is [Open] for a grid.
func Read(g *dataset.Grid, s Spec, e *Encoding) (*Table, error) {
	if e == nil {
		var err error
		if e, err = infer(g, s); err != nil {
			return nil, err
		}
	}
	t := &Table{Name: g.Name(), Encoding: e}
	return t, t.read(g, s)
}

// places says where in a file the columns of an encoding are, −1 where they are not.
type places struct {
	columns                   []int
	key, target, test, strata int
	blocks, compared          []int
}

func (e *Encoding) places(g *dataset.Grid, s Spec) (p places, err error) {
	p.columns = make([]int, len(e.Columns))
	for i, c := range e.Columns {
		p.columns[i] = i
		if e.Header {
			p.columns[i] = slices.Index(g.Names(), c.Name)
		} else if i >= len(g.Names()) {
			p.columns[i] = -1
		}
		if p.columns[i] < 0 && len(c.features()) > 0 {
			return p, fmt.Errorf("%s: column %q is missing; the table has %s", g.Name(), c.Name, strings.Join(g.Names(), ", "))
		}
	}
	if !e.Header && len(g.Names()) > len(e.Columns) {
		return p, fmt.Errorf("%s: %d columns, %d were expected", g.Name(), len(g.Names()), len(e.Columns))
	}
	p.key, p.target, p.test, p.strata = -1, -1, -1, -1
	if s.Key != "" {
		if p.key, err = g.Column(s.Key); err != nil {
			return p, fmt.Errorf("key: %w", err)
		}
	}
	all := func(names []string) (at []int) { // rows to predict for need none
		for _, name := range names {
			i, err := g.Column(name)
			if err != nil {
				return nil
			}
			at = append(at, i)
		}
		return at
	}
	p.blocks, p.compared = all(s.Blocks), all(s.Compare)
	if s.Test != "" {
		if p.test, err = g.Column(s.Test); err != nil {
			return p, fmt.Errorf("test: %w", err)
		}
	}
	if s.Strata != "" {
		if p.strata, err = g.Column(s.Strata); err != nil {
			return p, fmt.Errorf("strata: %w", err)
		}
	}
	if e.Target != "" { // rows to predict for need have none
		p.target = slices.IndexFunc(e.Columns, func(c Column) bool { return c.Name == e.Target })
		p.target = p.columns[p.target]
	}
	return p, nil
}

func (t *Table) read(g *dataset.Grid, s Spec) error {
	e := t.Encoding
	at, err := e.places(g, s)
	if err != nil {
		return err
	}
	width := len(e.Features())
	classes := map[string]int{}
	for i, c := range e.Classes {
		classes[c] = i
	}
	levels := make([]map[string]int, len(e.Columns))
	for i, c := range e.Columns {
		levels[i] = map[string]int{}
		for k, l := range c.Levels {
			levels[i][l] = k
		}
	}
	first := map[string]int{} // line by key
	var values []float64
	err = g.Rows(func(line int, cells []string) error {
		key := strconv.Itoa(len(t.Keys) + t.Left + 1)
		if at.key >= 0 {
			if key = strings.TrimSpace(cells[at.key]); key == "" {
				return g.Errorf(line, at.key, "the key is missing; complete the row or take it out")
			}
		}
		if before, twice := first[key]; twice {
			if s.Duplicates == "first" {
				t.Left++
				return nil
			}
			return g.Errorf(line, at.key, "key %.60q stands in line %d already; take one of the rows out, or set duplicates to first", key, before)
		}
		key = strings.Clone(key)
		first[key] = line
		if len(values)+width > maxCells {
			return fmt.Errorf("%s: line %d: more than %d numbers", t.Name, line, maxCells)
		}
		t.Keys, t.Lines = append(t.Keys, key), append(t.Lines, line)
		if len(at.blocks) > 0 {
			block, err := blockOf(g, line, at.blocks, cells)
			if err != nil {
				return err
			}
			t.Blocks = append(t.Blocks, block)
		}
		if at.strata >= 0 {
			t.Strata = append(t.Strata, word(cells[at.strata]))
		}
		if len(at.compared) > 0 {
			t.Compared = append(t.Compared, words(at.compared, cells))
		}
		for i, c := range e.Columns {
			if len(c.features()) == 0 {
				continue
			}
			var err error
			if values, err = c.encode(values, g, line, at.columns[i], strings.TrimSpace(cells[at.columns[i]]), levels[i]); err != nil {
				return err
			}
		}
		if at.test >= 0 {
			is, err := truth(g, line, at.test, cells[at.test])
			if err != nil {
				return err
			}
			t.Test = append(t.Test, is)
		}
		if at.target < 0 {
			return nil
		}
		v, err := e.target(g, line, at.target, strings.TrimSpace(cells[at.target]), classes)
		t.Target = append(t.Target, v)
		return err
	})
	if err != nil {
		return err
	}
	if len(t.Keys) == 0 {
		return fmt.Errorf("%s: the table has no rows", t.Name)
	}
	t.Features = mat.NewDense(len(t.Keys), width, values)
	return nil
}

// words are the values of columns to compare, "" where one is missing.
func words(columns []int, cells []string) []string {
	out := make([]string, len(columns))
	for i, c := range columns {
		out[i] = word(cells[c])
	}
	return out
}

// blockOf names the block of a row.
func blockOf(g *dataset.Grid, line int, columns []int, cells []string) (string, error) {
	parts := make([]string, len(columns))
	for i, c := range columns {
		if parts[i] = strings.TrimSpace(cells[c]); parts[i] == "" {
			return "", g.Errorf(line, c, "the row has no block; complete it, or take the row out")
		}
	}
	return strings.Clone(strings.Join(parts, " / ")), nil
}

// word is the value of a cell, the same for equal numbers, and empty where it is missing.
func word(text string) string {
	text = strings.TrimSpace(text)
	switch v, kind := dataset.ReadCell(text); kind {
	case dataset.Missing:
		return ""
	case dataset.Number:
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	return strings.Clone(text)
}

// truth reads a cell that says whether a row is for testing.
func truth(g *dataset.Grid, line, at int, text string) (bool, error) {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "1", "true", "yes", "test":
		return true, nil
	case "0", "false", "no", "train", "":
		return false, nil
	}
	return false, g.Errorf(line, at, "%.40q does not say whether the row is for testing; expected 1, true, yes, test or 0, false, no, train", text)
}

// target reads the target; NaN if it is missing.
func (e *Encoding) target(g *dataset.Grid, line, at int, text string, classes map[string]int) (float64, error) {
	v, kind := dataset.ReadCell(text)
	switch class, known := classes[text]; {
	case kind == dataset.Missing:
		return math.NaN(), nil
	case e.Task == Classification && !known:
		return 0, g.Errorf(line, at, "%.40q is none of the classes %.200q", text, e.Classes)
	case e.Task == Classification:
		return float64(class), nil
	case kind == dataset.Word:
		return 0, g.Errorf(line, at, "%.40q is not a number", text)
	}
	return v, nil
}

// encode appends the features of a cell.
func (c Column) encode(out []float64, g *dataset.Grid, line, at int, text string, levels map[string]int) ([]float64, error) {
	v, kind := dataset.ReadCell(text)
	gone := kind == dataset.Missing
	switch c.Kind {
	case NumberKind:
		if kind == dataset.Word {
			return out, g.Errorf(line, at, "%.40q is not a number", text)
		}
		if gone {
			v = math.NaN()
		}
		out = append(out, v)
	case CategoryKind:
		from := len(out)
		out = append(out, make([]float64, len(c.Levels))...)
		k, known := levels[text]
		if known {
			out[from+k] = 1
		}
		if c.Other {
			out = append(out, one(!known && !gone))
		}
	case DateKind:
		out = append(out, slices.Repeat([]float64{math.NaN()}, 5)...)
		if c.Clock {
			out = append(out, math.NaN(), math.NaN())
		}
		if !gone {
			when, err := time.Parse(c.Layout, text)
			if err != nil {
				return out, g.Errorf(line, at, "%.40q is not a date written as %s", text, c.Layout)
			}
			c.date(out, when)
		}
	}
	if c.Gaps {
		out = append(out, one(gone))
	}
	return out, nil
}

// date writes the features of a date at the end of out.
func (c Column) date(out []float64, when time.Time) {
	n := 5
	if c.Clock {
		n = 7
	}
	out = out[len(out)-n:]
	seconds := float64(when.Unix()) + float64(when.Nanosecond())/1e9
	out[0] = seconds / 86400
	circle := func(k int, part float64) { out[k], out[k+1] = math.Cos(2*math.Pi*part), math.Sin(2*math.Pi*part) }
	circle(1, float64(when.YearDay()-1)/365.25)
	circle(3, float64(when.Weekday())/7)
	if c.Clock {
		circle(5, math.Mod(seconds, 86400)/86400)
	}
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Title is what class i is called.
func (e *Encoding) Title(i int) string {
	if e.Titles != nil {
		return e.Titles[i]
	}
	return e.Classes[i]
}

// Imbalance says how many rows each class has, in words; empty for a quantity.
func (t *Table) Imbalance() string {
	e := t.Encoding
	if e.Task != Classification || t.Target == nil {
		return ""
	}
	counts := make([]int, len(e.Classes))
	for _, v := range t.Target {
		if v == v {
			counts[int(v)]++
		}
	}
	var words []string
	for i, n := range counts {
		words = append(words, fmt.Sprintf("%s %d", e.Title(i), n))
	}
	return strings.Join(words, ", ")
}

// String says what the table is, in one line.
func (t *Table) String() string {
	kinds := map[string]int{}
	for _, c := range t.Encoding.Columns {
		kinds[c.Kind]++
	}
	var words []string
	for _, k := range []struct{ kind, one, many string }{{NumberKind, "number", "numbers"}, {CategoryKind, "category", "categories"}, {DateKind, "date", "dates"}} {
		switch n := kinds[k.kind]; n {
		case 0:
		case 1:
			words = append(words, "1 "+k.one)
		default:
			words = append(words, fmt.Sprintf("%d %s", n, k.many))
		}
	}
	_, width := t.Features.Dims()
	return fmt.Sprintf("%d rows of %s: %d features", len(t.Keys), strings.Join(words, ", "), width)
}
