package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/cohort-learning/cohort/record/report"
)

// table is text in columns. A column whose title begins with ">" is written to the right.
type table struct {
	head []string
	rows [][]string
}

func newTable(head ...string) *table { return &table{head: head} }

// add appends a row.
func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// write prints the table, two spaces between columns.
func (t *table) write(w io.Writer) { t.print(w, true) }

// body prints it without the titles.
func (t *table) body(w io.Writer) { t.print(w, false) }

func (t *table) print(w io.Writer, titles bool) {
	right := make([]bool, len(t.head))
	head := make([]string, len(t.head))
	for i, h := range t.head {
		head[i], right[i] = strings.CutPrefix(h, ">")
	}
	all := t.rows
	if titles {
		all = append([][]string{head}, t.rows...)
	}
	widths := make([]int, len(head))
	for _, row := range all {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	for _, row := range all {
		var b strings.Builder
		for i, c := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c))
			if right[i] {
				c = pad + c
			} else {
				c += pad
			}
			b.WriteString(c + "  ")
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}

// The formats of numbers.

func inBytes(v float64) string   { return plain(report.Bytes.Format(v)) }
func inFLOPs(v float64) string   { return plain(report.FLOP.Format(v)) }
func inPercent(v float64) string { return report.Percent.Format(v) }

// plain replaces the narrow gaps between thousands, which terminals may not know.
func plain(s string) string { return strings.ReplaceAll(s, "\u202f", ",") }

// count writes a whole number with commas between thousands.
func count[T int | int64](n T) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
