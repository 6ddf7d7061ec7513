package main

import (
	"fmt"
	"strings"

	"github.com/cohort-learning/cohort/dataset"
)

// shades are the characters of a heat map, empty to full.
var (
	shades      = []rune(" ░▒▓█")
	shadesASCII = []rune(" .:+#")
)

// drawHeatmap draws clients against classes with characters: the fuller, the more of a client's examples are of the class.
// Where there are more clients than lines, each line shows the mean of several neighbours.
func drawHeatmap(io streams, m *dataset.Manifest) {
	const lines = 24
	marks := shades
	if io.plot.ASCII {
		marks = shadesASCII
	}
	wide := 1
	if len(m.Classes) <= 24 {
		wide = 2
	}
	rows := min(lines, len(m.Members))
	most := 0.0
	parts := make([][]float64, rows)
	for i := range rows {
		parts[i] = make([]float64, len(m.Classes))
		from, to := i*len(m.Members)/rows, (i+1)*len(m.Members)/rows
		for _, member := range m.Members[from:to] {
			for c, n := range member.Histogram {
				if member.Train > 0 {
					parts[i][c] += float64(n) / float64(member.Train) / float64(to-from)
				}
			}
		}
		for _, v := range parts[i] {
			most = max(most, v)
		}
	}
	io.say("clients ↓ classes →%s darkest %s of a client's examples", strings.Repeat(" ", 3), inPercent(most))
	for i, row := range parts {
		var b strings.Builder
		for _, v := range row {
			k := 0
			if v > 0 {
				k = 1 + min(len(marks)-2, int(v/most*float64(len(marks)-1)))
			}
			b.WriteString(strings.Repeat(string(marks[k]), wide))
		}
		fmt.Fprintf(io.out, "%-12s│%s│\n", clip(m.Members[i*len(m.Members)/rows].Name, 12), b.String())
	}
}
