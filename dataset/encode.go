package dataset

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

const (
	maxCategories = 256 // distinct words of a column before it is taken for an identifier or free text
	maxClasses    = 1 << 14
	maxIntClasses = 20 // distinct whole numbers of a target before it is taken for a quantity
)

// Encoding says how the columns of a table became features, so that later tables (to predict on, or of another member)
// are encoded alike. It is found out from the training file; write it to JSON to keep it with a model.
type Encoding struct {
	Columns []Column `json:"columns"`           // in the order of the file
	Task    string   `json:"task"`              // "classification" or "regression"
	Classes []string `json:"classes,omitempty"` // as the target column spells them, index = label
	Names   []string `json:"names,omitempty"`   // what to call them, if the file says so; else Classes
	Header  bool     `json:"header"`            // columns are found by name; otherwise by place
}

// Column is one column of a table.
//
// A number becomes one feature; a missing one the mean of the training rows. A category becomes one feature for each of
// its words, 1 where the row holds it and 0 elsewhere; a missing or unseen one is 0 everywhere.
type Column struct {
	Name       string   `json:"name"`
	Kind       string   `json:"kind"` // "number", "category", "target", "key" or "dropped"
	Categories []string `json:"categories,omitempty"`
	Fill       float64  `json:"fill,omitempty"` // of a number: what stands for a missing value
}

// features returns the names of the features, in order.
func (c *Encoding) features() []string {
	var names []string
	for _, col := range c.Columns {
		switch col.Kind {
		case "number":
			names = append(names, col.Name)
		case "category":
			for _, w := range col.Categories {
				names = append(names, col.Name+"="+w)
			}
		}
	}
	return names
}

// header says whether a table of this encoding has a line of names.
func (c *Encoding) header() string {
	if c.Header {
		return "present"
	}
	return "none"
}

// loadTable reads a table, finds out its encoding (unless given), and its test part or holds one out.
func loadTable(s Spec) (*Split, error) {
	if s.Encoding != nil && s.Header == "" {
		s.Header = s.Encoding.header()
	}
	t, err := openTable(s.Path, s.Header)
	if err != nil {
		return nil, err
	}
	enc := s.Encoding
	if enc == nil {
		if enc, err = infer(t, s); err != nil {
			return nil, err
		}
	}
	train, err := enc.encode(t, s.Name)
	if err != nil {
		return nil, err
	}
	var split *Split
	if s.TestPath == "" {
		split = s.holdOut(train)
	} else {
		u, err := openTable(s.TestPath, enc.header())
		if err != nil {
			return nil, err
		}
		split = &Split{Train: train}
		if split.Test, err = enc.encode(u, s.Name); err != nil {
			return nil, err
		}
	}
	if s.Encoding == nil {
		enc.fit(split.Train)
	}
	for _, e := range []*Examples{split.Train, split.Test} {
		if e != nil {
			enc.fill(e)
			e.Encoding = enc
		}
	}
	split.Train.Normalise(0)
	if split.Test != nil {
		split.Test.Mean, split.Test.Std = split.Train.Mean, split.Train.Std
	}
	return split, nil
}

// infer finds out the kinds of the columns and the classes.
func infer(t *table, s Spec) (*Encoding, error) {
	enc := &Encoding{Columns: make([]Column, len(t.names)), Header: t.header, Task: s.Task}
	for i, name := range t.names {
		enc.Columns[i].Name = name
	}
	target := len(t.names) - 1
	if s.Target != "" {
		var err error
		if target, err = t.column(s.Target); err != nil {
			return nil, err
		}
	}
	enc.Columns[target].Kind = "target"
	for name, kind := range roles(s) {
		i, err := t.column(name)
		if err != nil {
			return nil, err
		}
		if enc.Columns[i].Kind != "" {
			return nil, fmt.Errorf("%s: column %q cannot be both %s and %s", t.name, name, enc.Columns[i].Kind, kind)
		}
		enc.Columns[i].Kind = kind
	}
	seen := make([]tally, len(t.names))
	err := t.rows(func(line int, cells []string) error {
		for i, c := range cells {
			if kind := enc.Columns[i].Kind; kind == "" || kind == "target" {
				seen[i].add(strings.TrimSpace(c), line)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range enc.Columns {
		if enc.Columns[i].Kind != "" {
			continue
		}
		y := &seen[i]
		switch {
		case y.words == 0:
			enc.Columns[i].Kind = "number"
		case y.numbers >= 20 && y.numbers >= 19*y.words:
			return nil, t.errf(y.wordLine, i, "%.40q is not a number, while %d of %d values are; correct it, leave it empty, or drop the column",
				y.word, y.numbers, y.numbers+y.words)
		case len(y.distinct) > maxCategories:
			return nil, t.errf(y.wordLine, i, "more than %d different words (such as %.40q): an identifier or free text; drop the column",
				maxCategories, y.word)
		default:
			enc.Columns[i].Kind = "category"
			enc.Columns[i].Categories = y.sorted()
		}
	}
	if len(enc.features()) == 0 {
		return nil, fmt.Errorf("%s: no column is left to be a feature", t.name)
	}
	return enc, enc.inferTarget(t, target, &seen[target])
}

// roles maps the columns that the user named to their kind.
func roles(s Spec) map[string]string {
	m := make(map[string]string)
	for _, d := range s.Drop {
		m[d] = "dropped"
	}
	if s.Key != "" {
		m[s.Key] = "key"
	}
	return m
}

// inferTarget decides between classes and a quantity: words are classes, and so are at most maxIntClasses different
// whole numbers.
func (c *Encoding) inferTarget(t *table, target int, y *tally) error {
	if c.Task == "" {
		c.Task = "regression"
		if y.words > 0 || y.whole && len(y.distinct) <= maxIntClasses {
			c.Task = "classification"
		}
	}
	if c.Task == "regression" {
		if y.words > 0 {
			return t.errf(y.wordLine, target, "the target of a regression must be a number, not %.40q", y.word)
		}
		return nil
	}
	if y.overflow {
		return fmt.Errorf("%s: target %q has more than %d classes; is it a quantity? then say task: regression", t.name, t.names[target], maxClasses)
	}
	c.Classes = y.sorted()
	if n := len(t.classes); n > 0 && n == len(c.Classes) && y.words == 0 {
		c.Classes, c.Names = nil, t.classes // the rows number the classes that the first line names
		for i, name := range t.classes {
			if _, ok := y.distinct[strconv.Itoa(i)]; !ok {
				return fmt.Errorf("%s: no row of class %d (%s)", t.name, i, name)
			}
			c.Classes = append(c.Classes, strconv.Itoa(i))
		}
	}
	if len(c.Classes) < 2 {
		return fmt.Errorf("%s: target %q has %d different values; two classes are needed", t.name, t.names[target], len(c.Classes))
	}
	return nil
}

// tally collects what is needed to tell the kind of a column.
type tally struct {
	numbers, words, missing int
	whole                   bool // all numbers are integers
	word                    string
	wordLine                int // where the first word stands
	distinct                map[string]float64
	overflow                bool
}

func (y *tally) add(c string, line int) {
	if y.distinct == nil {
		y.distinct, y.whole = make(map[string]float64), true
	}
	v, kind := cell(c)
	switch kind {
	case missing:
		y.missing++
		return
	case number:
		y.numbers++
		y.whole = y.whole && v == math.Trunc(v)
	case word:
		if y.words++; y.words == 1 {
			y.word, y.wordLine = strings.Clone(c), line
		}
	}
	if len(y.distinct) > maxClasses {
		y.overflow = true
		return
	}
	if _, ok := y.distinct[c]; !ok {
		y.distinct[strings.Clone(c)] = v
	}
}

// sorted returns the distinct values: numbers by size, before words by spelling. Spellings of the same number ("1",
// "1.0") stay different.
func (y *tally) sorted() []string {
	out := make([]string, 0, len(y.distinct))
	for s := range y.distinct {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b string) int {
		_, ka := cell(a)
		_, kb := cell(b)
		switch va, vb := y.distinct[a], y.distinct[b]; {
		case ka != kb:
			return ka - kb
		case ka == number && va < vb:
			return -1
		case ka == number && va > vb:
			return 1
		}
		return strings.Compare(a, b)
	})
	return out
}

// encode turns the rows of a table into examples. Missing numbers become NaN for now. A table without the target column
// gives examples without labels.
func (c *Encoding) encode(t *table, name string) (*Examples, error) {
	at, err := c.locate(t)
	if err != nil {
		return nil, err
	}
	e := &Examples{Name: name, Features: c.features()}
	e.Shape = []int{len(e.Features)}
	if e.Classes = c.Names; e.Classes == nil {
		e.Classes = c.Classes
	}
	classOf := make(map[string]int32, len(c.Classes))
	for i, w := range c.Classes {
		classOf[w] = int32(i)
	}
	category := make([]map[string]int, len(c.Columns))
	for i, col := range c.Columns {
		category[i] = make(map[string]int, len(col.Categories))
		for j, w := range col.Categories {
			category[i][w] = j
		}
	}
	err = t.rows(func(line int, cells []string) error {
		if int64(len(e.F32)+len(e.Features))*4 > maxBytes {
			return fmt.Errorf("%s: line %d: the encoded table exceeds %d bytes", t.name, line, int64(maxBytes))
		}
		for i, col := range c.Columns {
			if at[i] < 0 {
				continue
			}
			text := strings.TrimSpace(cells[at[i]])
			v, kind := cell(text)
			switch col.Kind {
			case "number":
				switch kind {
				case missing:
					v = math.NaN()
				case word:
					return t.errf(line, at[i], "%.40q is not a number", text)
				}
				e.F32 = append(e.F32, float32(v))
				if f := e.F32[len(e.F32)-1]; kind == number && math.IsInf(float64(f), 0) {
					return t.errf(line, at[i], "%.40q is too large", text)
				}
			case "category":
				from := len(e.F32)
				e.F32 = append(e.F32, make([]float32, len(col.Categories))...)
				if j, ok := category[i][text]; ok {
					e.F32[from+j] = 1
				}
			case "key":
				e.Keys = append(e.Keys, strings.Clone(text))
			case "target":
				label, known := classOf[text]
				switch {
				case kind == missing:
					return t.errf(line, at[i], "the target is missing; complete the row or take it out")
				case c.Task == "classification" && !known:
					return t.errf(line, at[i], "%.40q is none of the classes %.200q", text, c.Classes)
				case c.Task == "classification":
					e.Labels = append(e.Labels, label)
				case kind == word:
					return t.errf(line, at[i], "%.40q is not a number", text)
				default:
					e.Targets = append(e.Targets, float32(v))
				}
			}
		}
		return nil
	})
	return e, err
}

// locate finds the place of each column in a table: by name if it has a header, by order if not. The target may be
// missing; without a header it must then be the last column.
func (c *Encoding) locate(t *table) ([]int, error) {
	at := make([]int, len(c.Columns))
	for i, col := range c.Columns {
		at[i] = i
		if c.Header {
			at[i] = slices.Index(t.names, col.Name)
		} else if i >= len(t.names) {
			at[i] = -1
		}
		if at[i] < 0 && col.Kind != "dropped" && col.Kind != "key" && col.Kind != "target" {
			return nil, fmt.Errorf("%s: column %q is missing; the table has %s", t.name, col.Name, strings.Join(t.names, ", "))
		}
	}
	if !c.Header && len(t.names) > len(c.Columns) {
		return nil, fmt.Errorf("%s: %d columns, %d were expected", t.name, len(t.names), len(c.Columns))
	}
	return at, nil
}

// fit sets what stands for missing numbers to the means of the examples, NaN aside.
func (c *Encoding) fit(e *Examples) {
	size := e.Size()
	j := 0
	for i := range c.Columns {
		switch col := &c.Columns[i]; col.Kind {
		case "category":
			j += len(col.Categories)
		case "number":
			sum, n := 0.0, 0
			for k := j; k < len(e.F32); k += size {
				if v := float64(e.F32[k]); !math.IsNaN(v) {
					sum, n = sum+v, n+1
				}
			}
			col.Fill = sum / float64(max(n, 1))
			j++
		}
	}
}

// fill replaces NaN by what stands for missing numbers.
func (c *Encoding) fill(e *Examples) {
	var with []float32
	for _, col := range c.Columns {
		switch col.Kind {
		case "number":
			with = append(with, float32(col.Fill))
		case "category":
			with = append(with, make([]float32, len(col.Categories))...)
		}
	}
	for k, v := range e.F32 {
		if v != v {
			e.F32[k] = with[k%len(with)]
		}
	}
}
