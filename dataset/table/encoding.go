package table

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/dataset"
)

// Version is the version of an [Encoding]. One of a later version is refused.
const Version = 1

// Limits.
const (
	maxLevels  = 256 // words of a column before it is taken for an identifier or free text
	maxClasses = 1 << 12
	wholeMost  = 20  // whole numbers of a target before it is taken for a quantity
	rareShare  = 200 // a word that fewer than one row in so many holds is rare
	maxCells   = 1 << 28
)

// The kinds of column.
const (
	NumberKind   = "number"
	CategoryKind = "category"
	DateKind     = "date"
	OtherUse     = "used" // the key, the target, the column that says what is for testing
	DroppedKind  = "dropped"
)

// Encoding says how columns become features.
type Encoding struct {
	Version int      `json:"version"`
	Columns []Column `json:"columns"`
	Target  string   `json:"target,omitempty"`
	Task    string   `json:"task,omitempty"`
	Classes []string `json:"classes,omitempty"` // as the target column spells them; index = class
	Titles  []string `json:"titles,omitempty"`  // what to call them, if the file says so
	Header  bool     `json:"header"`            // columns are found by name; otherwise by place
}

// Column is one column of the file that the encoding was found out from.
type Column struct {
	Name   string   `json:"name"`
	Kind   string   `json:"kind"`
	Levels []string `json:"levels,omitempty"` // of a category: the words with a feature of their own
	Other  bool     `json:"other,omitempty"`  // of a category: rare words have a feature together
	Gaps   bool     `json:"gaps,omitempty"`   // some value is missing
	Layout string   `json:"layout,omitempty"` // of a date: how it is written, as package time writes layouts
	Clock  bool     `json:"clock,omitempty"`  // of a date: there are times of the day
}

// layouts of dates, in the order in which they are tried.
var layouts = []string{time.DateOnly, "2006-01-02 15:04:05", "2006-01-02 15:04", time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01", "2006/01/02",
	"02.01.2006", "02.01.2006 15:04", "01/02/2006", "02/01/2006", "01/02/2006 15:04", "02/01/2006 15:04"}

// turned are layouts that another one reads otherwise.
var turned = map[string]string{"01/02/2006": "02/01/2006", "01/02/2006 15:04": "02/01/2006 15:04"}

// Features returns the names of the features, in order.
func (e *Encoding) Features() (names []string) {
	for _, c := range e.Columns {
		names = append(names, c.features()...)
	}
	return names
}

func (c Column) features() (names []string) {
	switch c.Kind {
	case NumberKind:
		names = []string{c.Name}
	case DateKind:
		names = []string{c.Name, c.Name + " (year, cos)", c.Name + " (year, sin)", c.Name + " (week, cos)", c.Name + " (week, sin)"}
		if c.Clock {
			names = append(names, c.Name+" (day, cos)", c.Name+" (day, sin)")
		}
	case CategoryKind:
		for _, l := range c.Levels {
			names = append(names, c.Name+"="+l)
		}
		if c.Other {
			names = append(names, c.Name+"=other")
		}
	default:
		return nil
	}
	if c.Gaps {
		names = append(names, c.Name+" is missing")
	}
	return names
}

// Digest names the encoding: equal ones make equal features of equal rows.
func (e *Encoding) Digest() string {
	b, err := json.Marshal(e)
	if err != nil {
		panic("table: encoding: " + err.Error()) // strings and booleans only
	}
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// ParseEncoding reads the JSON of an encoding.
func ParseEncoding(b []byte) (*Encoding, error) {
	var e Encoding
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, fmt.Errorf("encoding of a table: %w", err)
	}
	if e.Version != Version {
		return nil, fmt.Errorf("encoding of a table: version %d; this program reads version %d", e.Version, Version)
	}
	for _, c := range e.Columns {
		switch c.Kind {
		case NumberKind, CategoryKind, OtherUse, DroppedKind:
		case DateKind:
			if !slices.Contains(layouts, c.Layout) {
				return nil, fmt.Errorf("encoding of a table: column %q: dates written as %q are unknown", c.Name, c.Layout)
			}
		default:
			return nil, fmt.Errorf("encoding of a table: column %q is of kind %q, which is unknown", c.Name, c.Kind)
		}
	}
	if len(e.Features()) == 0 {
		return nil, errors.New("encoding of a table: no column is a feature")
	}
	return &e, nil
}

// tally is what is seen of a column.
type tally struct {
	rows, numbers, words, gaps int
	whole                      bool
	word                       string // the first that is no number
	line                       int
	values                     map[string]int // how many rows hold each
	many                       bool           // more values than are counted
	dates                      []bool         // by layout: every value can be read so
	clock                      bool
}

func (y *tally) add(text string, line int) {
	if y.values == nil {
		y.values, y.whole = map[string]int{}, true
		y.dates = slices.Repeat([]bool{true}, len(layouts))
	}
	y.rows++
	v, kind := dataset.ReadCell(text)
	switch kind {
	case dataset.Missing:
		y.gaps++
		return
	case dataset.Number:
		y.numbers++
		y.whole = y.whole && v == math.Trunc(v)
	default:
		if y.words++; y.words == 1 {
			y.word, y.line = strings.Clone(text), line
		}
	}
	if y.words > 0 || kind == dataset.Word {
		for i, layout := range layouts {
			if y.dates[i] {
				t, err := time.Parse(layout, text)
				y.dates[i] = err == nil
				y.clock = y.clock || err == nil && !t.Equal(t.Truncate(24*time.Hour))
			}
		}
	}
	if _, ok := y.values[text]; !ok {
		if y.many = y.many || len(y.values) >= maxClasses; y.many {
			return
		}
		text = strings.Clone(text)
	}
	y.values[text]++
}

// date returns the one layout in which every value is a date.
func (y *tally) date() (layout string, doubtful bool) {
	if y.numbers > 0 || y.words == 0 {
		return "", false
	}
	for i, l := range layouts {
		if y.dates[i] {
			other, ok := turned[l]
			return l, ok && y.dates[slices.Index(layouts, other)]
		}
	}
	return "", false
}

// sorted returns the values: numbers by size, then words by spelling.
func (y *tally) sorted() []string {
	out := make([]string, 0, len(y.values))
	for s := range y.values {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b string) int {
		va, ka := dataset.ReadCell(a)
		vb, kb := dataset.ReadCell(b)
		if ka != kb || ka != dataset.Number {
			return cmp.Or(cmp.Compare(ka, kb), strings.Compare(a, b))
		}
		return cmp.Or(cmp.Compare(va, vb), strings.Compare(a, b))
	})
	return out
}

// infer finds out what the columns of a file are.
func infer(g *dataset.Grid, s Spec) (*Encoding, error) {
	e := &Encoding{Version: Version, Header: g.Header(), Task: s.Task}
	for _, name := range g.Names() {
		e.Columns = append(e.Columns, Column{Name: name})
	}
	target := -1
	type use struct{ field, column, kind string }
	uses := []use{{"key", s.Key, OtherUse}, {"target", s.Target, OtherUse}, {"test", s.Test, OtherUse}}
	for _, name := range s.Blocks {
		uses = append(uses, use{"blocks", name, OtherUse})
	}
	for _, name := range s.Compare {
		if name != s.Key { // which may be compared as well
			uses = append(uses, use{"compare", name, OtherUse})
		}
	}
	for _, use := range uses {
		if use.column == "" {
			continue
		}
		i, err := g.Column(use.column)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", use.field, err)
		}
		if e.Columns[i].Kind != "" {
			return nil, fmt.Errorf("%s: column %q cannot be %s and something else", g.Name(), use.column, use.field)
		}
		if e.Columns[i].Kind = use.kind; use.field == "target" {
			target, e.Target = i, g.Names()[i]
		}
	}
	if err := e.choose(g, s); err != nil {
		return nil, err
	}
	seen := make([]tally, len(e.Columns))
	err := g.Rows(func(line int, cells []string) error {
		for i, c := range cells {
			if e.Columns[i].Kind == "" || i == target {
				seen[i].add(strings.TrimSpace(c), line)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range e.Columns {
		if e.Columns[i].Kind == "" {
			if err := e.Columns[i].infer(g, i, &seen[i]); err != nil {
				return nil, err
			}
		}
	}
	if len(e.Features()) == 0 {
		return nil, fmt.Errorf("%s: no column is left to learn from", g.Name())
	}
	if target < 0 {
		return e, nil
	}
	return e, e.inferTarget(g, target, &seen[target])
}

// choose marks the columns that are not learned from.
func (e *Encoding) choose(g *dataset.Grid, s Spec) error {
	named := map[int]bool{}
	for _, name := range slices.Concat(s.Columns, s.Drop) {
		i, err := g.Column(name)
		if err != nil {
			return err
		}
		if e.Columns[i].Kind != "" && len(s.Columns) > 0 {
			return fmt.Errorf("%s: column %q cannot be learned from: it is the key, the target, a block, or says what is for testing", g.Name(), name)
		}
		named[i] = true
	}
	for i := range e.Columns {
		if e.Columns[i].Kind == "" && named[i] == (len(s.Columns) == 0) && (len(s.Columns) > 0 || len(s.Drop) > 0) {
			e.Columns[i].Kind = DroppedKind
		}
	}
	return nil
}

// infer finds out what a column is.
func (c *Column) infer(g *dataset.Grid, at int, y *tally) error {
	c.Gaps = y.gaps > 0
	layout, doubtful := y.date()
	switch {
	case doubtful:
		return g.Errorf(y.line, at, "%q may be day/month or month/day; write dates as 2006-01-31, or drop the column", y.word)
	case layout != "":
		c.Kind, c.Layout, c.Clock = DateKind, layout, y.clock
	case y.words == 0:
		c.Kind = NumberKind
		if y.numbers == 0 {
			c.Kind = DroppedKind // nothing but gaps
		}
	case y.numbers >= 20 && y.numbers >= 19*y.words:
		return g.Errorf(y.line, at, "%.40q is not a number, while %d of %d values are; correct it, leave it empty, or drop the column", y.word, y.numbers, y.numbers+y.words)
	case y.many || len(y.values) > maxLevels:
		return g.Errorf(y.line, at, "more than %d different words (such as %.40q): an identifier or free text; drop the column, or make it the key", maxLevels, y.word)
	default:
		c.Kind = CategoryKind
		for _, v := range y.sorted() {
			if len(y.values) > 2 && y.values[v]*rareShare < y.rows {
				c.Other = true
				continue
			}
			c.Levels = append(c.Levels, v)
		}
	}
	return nil
}

// inferTarget decides between classes and a quantity: words are classes, and so are at most wholeMost different whole numbers.
func (e *Encoding) inferTarget(g *dataset.Grid, at int, y *tally) error {
	if e.Task == "" {
		e.Task = Regression
		if y.words > 0 || y.whole && len(y.values) <= wholeMost {
			e.Task = Classification
		}
	}
	if e.Task == Regression {
		if y.words > 0 {
			return g.Errorf(y.line, at, "the target of a regression must be a number, not %.40q", y.word)
		}
		return nil
	}
	if y.many {
		return fmt.Errorf("%s: target %q has more than %d classes; is it a quantity? then say task: regression", g.Name(), g.Names()[at], maxClasses)
	}
	e.Classes = y.sorted()
	if names := g.Classes(); len(names) == len(e.Classes) && y.words == 0 && at == len(e.Columns)-1 {
		for i := range e.Classes {
			if e.Classes[i] != strconv.Itoa(i) {
				names = nil
				break
			}
		}
		e.Titles = names
	}
	if len(e.Classes) < 2 {
		return fmt.Errorf("%s: target %q has %d different values; two classes are needed", g.Name(), g.Names()[at], len(e.Classes))
	}
	return nil
}
