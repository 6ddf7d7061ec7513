package dataset

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

const (
	maxTableBytes   = 1 << 30
	maxTableColumns = 1 << 16
	sniffed         = 50 // lines looked at to find the separator
)

// table is the text of a table whose layout has been found out. Its cells are read again for each pass, so that a table
// in memory costs no more than its file.
type table struct {
	name    string
	text    []byte
	comma   rune     // ' ' means any white space
	skip    int      // records before the first row: a line of sizes, a header
	names   []string // of the columns: from the header, or "column 1" …
	header  bool
	classes []string // class names from a line of sizes, or nil
}

// openTable reads a file and finds out its layout.
func openTable(path, header string) (*table, error) {
	s, err := open(path)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	text, err := s.rest(maxTableBytes)
	if err != nil {
		return nil, err
	}
	return newTable(path, text, header)
}

// newTable finds out separator, header and, in scikit-learn's bundled tables, the first line with sizes and class names.
// Header is "present", "none", or "" to find out.
func newTable(name string, text []byte, header string) (*table, error) {
	t := &table{name: name, text: bytes.TrimPrefix(text, []byte("\ufeff"))}
	t.comma = separator(t.text)
	var first, second []string
	records, fields := 0, 0
	err := t.records(func(line int, cells []string) error {
		switch records++; records {
		case 1:
			first = slices.Clone(cells)
		case 2:
			second = slices.Clone(cells)
			fields = len(cells)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	switch records {
	case 0:
		return nil, fmt.Errorf("%s: the table is empty", name)
	case 1:
		fields = len(first)
	}
	if fields > maxTableColumns {
		return nil, fmt.Errorf("%s: %d columns, at most %d are supported", name, fields, maxTableColumns)
	}
	if classes, names, ok := sizesLine(first, second, records, fields); ok {
		t.classes, t.skip, first = classes, 1, second
		if names {
			t.skip, t.header = 2, true
		}
	} else {
		switch header {
		case "present":
			t.header = true
		case "":
			t.header = records > 1 && t.looksLikeHeader(first)
		}
		if t.header {
			t.skip = 1
		}
	}
	t.names = make([]string, fields)
	for i := range t.names {
		t.names[i] = fmt.Sprintf("column %d", i+1)
		if t.header && i < len(first) && strings.TrimSpace(first[i]) != "" {
			t.names[i] = strings.TrimSpace(first[i])
		}
	}
	if t.header && len(first) != fields {
		return nil, fmt.Errorf("%s: the header has %d fields, the first row %d", name, len(first), fields)
	}
	if records == t.skip {
		return nil, fmt.Errorf("%s: the table has a header but no rows", name)
	}
	return t, nil
}

// separator chooses the one that gives most of the first lines the same number of fields, at least two.
func separator(text []byte) rune {
	var lines [][]byte
	for line := range bytes.Lines(text) {
		if len(bytes.TrimSpace(line)) > 0 {
			lines = append(lines, line)
		}
		if len(lines) == sniffed {
			break
		}
	}
	best, bestScore := ',', 0
	for _, comma := range []rune{',', '\t', ';', '|', ' '} {
		count := make(map[int]int)
		for _, line := range lines {
			n := 0
			if comma == ' ' {
				n = len(bytes.Fields(line))
			} else {
				n = unquotedCount(line, byte(comma)) + 1
			}
			count[n]++
		}
		for n, k := range count {
			if score := k*1000 + min(n, 999); n > 1 && score > bestScore {
				best, bestScore = comma, score
			}
		}
	}
	return best
}

func unquotedCount(line []byte, comma byte) int {
	n, quoted := 0, false
	for _, b := range line {
		switch {
		case b == '"':
			quoted = !quoted
		case b == comma && !quoted:
			n++
		}
	}
	return n
}

// sizesLine recognises the first line "rows,columns[,class names…]" of scikit-learn's bundled tables. It must agree with
// what follows: columns features and a target, and that many rows, after a line of names if there is one.
func sizesLine(first, second []string, records, fields int) (classes []string, names, ok bool) {
	if len(first) < 2 || len(second) == 0 {
		return nil, false, false
	}
	rows, err := strconv.Atoi(strings.TrimSpace(first[0]))
	if err != nil {
		return nil, false, false
	}
	columns, err := strconv.Atoi(strings.TrimSpace(first[1]))
	if err != nil || columns != fields-1 || rows < 2 || rows != records-1 && rows != records-2 {
		return nil, false, false
	}
	for _, c := range first[2:] {
		if c = strings.TrimSpace(c); c != "" {
			if _, err := strconv.ParseFloat(c, 64); err == nil {
				return nil, false, false
			}
			classes = append(classes, c)
		}
	}
	return classes, rows == records-2, len(classes) != 1
}

// looksLikeHeader reports whether the first record names columns: no number, no gap and no repetition in it, and either
// some column is numeric below it, or none of its words occurs again in its column.
func (t *table) looksLikeHeader(first []string) bool {
	seen := make(map[string]bool)
	for _, c := range first {
		c = strings.TrimSpace(c)
		if _, kind := cell(c); kind != word || seen[c] {
			return false
		}
		seen[c] = true
	}
	numeric := slices.Repeat([]bool{true}, len(first))
	some := make([]bool, len(first))
	repeated := false
	record := 0
	err := t.records(func(line int, cells []string) error {
		record++
		if record == 1 {
			return nil
		}
		for i, c := range cells[:min(len(cells), len(first))] {
			_, kind := cell(c)
			numeric[i] = numeric[i] && kind != word
			some[i] = some[i] || kind == number
			repeated = repeated || c == first[i]
		}
		return nil
	})
	if err != nil {
		return false
	}
	for i := range first {
		if numeric[i] && some[i] {
			return true
		}
	}
	return !repeated
}

// records calls f with every record and its line. The cells are valid until f returns.
func (t *table) records(f func(line int, cells []string) error) error {
	if t.comma == ' ' {
		line := 0
		for text := range bytes.Lines(t.text) {
			line++
			if cells := strings.Fields(string(text)); len(cells) > 0 {
				if err := f(line, cells); err != nil {
					return err
				}
			}
		}
		return nil
	}
	r := csv.NewReader(bytes.NewReader(t.text))
	r.Comma, r.ReuseRecord, r.FieldsPerRecord = t.comma, true, -1
	r.TrimLeadingSpace = t.comma != '\t'
	for {
		cells, err := r.Read()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		line, _ := r.FieldPos(0)
		if err := f(line, cells); err != nil {
			return err
		}
	}
}

// rows calls f with every row of data and its line, and fails at a row with too few or too many fields.
func (t *table) rows(f func(line int, cells []string) error) error {
	record := 0
	return t.records(func(line int, cells []string) error {
		if record++; record <= t.skip {
			return nil
		}
		if len(cells) != len(t.names) {
			return fmt.Errorf("%s: line %d has %d fields, the table has %d columns", t.name, line, len(cells), len(t.names))
		}
		return f(line, cells)
	})
}

// errf returns an error that names file, line and column.
func (t *table) errf(line, column int, format string, args ...any) error {
	return fmt.Errorf("%s: line %d, column %d (%q): %w", t.name, line, column+1, t.names[column], fmt.Errorf(format, args...))
}

// column returns the index of the column of a name or number (from 1).
func (t *table) column(name string) (int, error) {
	if i := slices.Index(t.names, name); i >= 0 {
		return i, nil
	}
	if n, err := strconv.Atoi(name); err == nil && n >= 1 && n <= len(t.names) {
		return n - 1, nil
	}
	return 0, fmt.Errorf("%s: %w", t.name, unknown("column", name, t.names))
}

// The kinds of cell.
const (
	missing = iota
	number
	word
)

// cell returns the kind of a cell and its value if it is a number. Missing is an empty cell, ?, NA, N/A, NaN, null, none.
func cell(s string) (float64, int) {
	s = strings.TrimSpace(s)
	switch strings.ToLower(s) {
	case "", "?", "na", "n/a", "nan", "null", "none":
		return 0, missing
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(v, 0) {
		return 0, word
	}
	return v, number
}
