// Package termplot draws curves with characters, for terminals and logs.
//
//	fmt.Print(termplot.Plot(termplot.Auto(os.Stdout, os.Getenv), termplot.Series{Y: accuracy}))
//
// Each character of the Braille alphabet has 2×4 dots, so a plot of 60×12
// characters resolves 120×48 points. Where that cannot be shown there is
// [Options.ASCII]. A [Series] is labelled at the right, where it ends.
package termplot

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/cohort-learning/cohort/record/internal/axis"
)

// A Series is one curve.
type Series struct {
	Name string
	X    []float64 // 1, 2, 3, … if nil
	Y    []float64 // a value that is not finite is a gap
}

// Options say how to draw. The zero value is 72×14 characters of Braille
// without colours.
type Options struct {
	Title  string
	Width  int                  // columns of all, labels included; at least 24
	Height int                  // lines of all, title and axis included; at least 6
	ASCII  bool                 // only characters of ASCII
	Color  bool                 // escape sequences of ANSI terminals
	XLabel string               // such as "round"
	Format func(float64) string // writes the numbers of the vertical axis; nil: as short as is exact
}

// Auto returns options that suit a file: as wide as its terminal, up to 100
// columns; colours if it is a terminal and neither NO_COLOR nor TERM=dumb is
// set; ASCII unless the locale says UTF-8. Getenv is [os.Getenv] or like it.
func Auto(f *os.File, getenv func(string) string) Options {
	var o Options
	if fd := int(f.Fd()); term.IsTerminal(fd) {
		o.Color = getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"
		if w, _, err := term.GetSize(fd); err == nil && w > 0 {
			o.Width = min(w, 100)
		}
	}
	locale := getenv("LC_ALL")
	for _, name := range []string{"LC_CTYPE", "LANG"} {
		if locale == "" {
			locale = getenv(name)
		}
	}
	// Windows has no such variables, and its terminals have been able for years.
	set := strings.ToLower(strings.ReplaceAll(locale, "-", ""))
	o.ASCII = !strings.Contains(set, "utf8") && getenv("OS") != "Windows_NT"
	return o
}

const (
	defaultWidth, defaultHeight = 72, 14
	minWidth, minHeight         = 24, 6

	ascii = "*+ox#@%&"
	reset = "\x1b[0m"
)

// colours are those of the series, in order: bold in the terminal's own colour
// for the first, which often is the whole; then foregrounds that are readable
// on light and dark ground.
var colours = []string{"\x1b[1m", "\x1b[34m", "\x1b[33m", "\x1b[32m", "\x1b[35m", "\x1b[36m", "\x1b[31m"}

// A cell is one character of the plot: which dots are set, and by whom first.
type cell struct {
	dots   rune
	series int
}

// Plot draws the series into one text of several lines, each ended by a line
// feed. Without any finite value it says so in one line.
func Plot(o Options, series ...Series) string {
	width, height := defaultWidth, defaultHeight
	if o.Width != 0 {
		width = max(o.Width, minWidth)
	}
	if o.Height != 0 {
		height = max(o.Height, minHeight)
	}
	x0, x1, y0, y1 := bounds(series)
	if x0 > x1 {
		return clip(join(o.Title, "no values to draw"), width) + "\n"
	}
	rows := height - 2 // axis and its numbers
	if o.Title != "" {
		rows--
	}
	ticks := axis.Ticks(y0, y1, max(1, min(5, rows/2)), false)
	y0, y1 = ticks[0], ticks[len(ticks)-1]
	labels, left := o.labels(ticks, width/3)
	right := 0
	if len(series) > 1 {
		for i, s := range series {
			right = max(right, utf8.RuneCountInString(o.tag(i, s))+1)
		}
		right = min(right, width/3)
	}
	g := newGrid(width-left-2-right, rows, o.ASCII)
	ends := make([]int, len(series)) // the row in which each series ends, or -1
	for i := len(series) - 1; i >= 0; i-- {
		ends[i] = g.series(i, series[i], x0, x1, y0, y1)
	}

	var b strings.Builder
	if o.Title != "" {
		b.WriteString(clip(o.Title, width) + "\n")
	}
	tags := spread(ends, rows)
	for row := range rows {
		label, corner := "", o.char('│', '|')
		for i, t := range ticks {
			if g.row(t, y0, y1) == row {
				label, corner = labels[i], o.char('┤', '+')
			}
		}
		line := strings.Repeat(" ", left-utf8.RuneCountInString(label)) + label + " " + string(corner)
		line += o.paint(g.cells[row])
		if i := slices.Index(tags, row); i >= 0 && right > 0 {
			line += " " + o.colour(i, clip(o.tag(i, series[i]), right-1))
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	b.WriteString(strings.Repeat(" ", left+1) + string(o.char('└', '+')) + strings.Repeat(string(o.char('─', '-')), g.width) + "\n")
	b.WriteString(strings.Repeat(" ", left+2) + under(g.width, number(x0), o.XLabel, number(x1)) + "\n")
	return b.String()
}

func join(title, text string) string {
	if title == "" {
		return text
	}
	return title + ": " + text
}

func (o Options) char(pretty, plain rune) rune {
	if o.ASCII {
		return plain
	}
	return pretty
}

// tag is what stands where series i ends.
func (o Options) tag(i int, s Series) string {
	if o.ASCII {
		return string(ascii[i%len(ascii)]) + " " + s.Name
	}
	return s.Name
}

func (o Options) colour(i int, text string) string {
	if !o.Color {
		return text
	}
	return colours[i%len(colours)] + text + reset
}

// labels writes the ticks, at most so wide, and returns the width of the longest.
func (o Options) labels(ticks []float64, most int) (labels []string, width int) {
	format := o.Format
	if format == nil {
		decimals := axis.Decimals(ticks[1] - ticks[0])
		format = func(v float64) string {
			if a := math.Abs(v); a >= 1e7 || a > 0 && a < 1e-6 {
				return strconv.FormatFloat(v, 'g', 3, 64)
			}
			return strconv.FormatFloat(v, 'f', decimals, 64)
		}
	}
	for _, t := range ticks {
		l := clip(format(t), most)
		labels = append(labels, l)
		width = max(width, utf8.RuneCountInString(l))
	}
	return labels, width
}

// paint writes one row of cells.
func (o Options) paint(cells []cell) string {
	var b strings.Builder
	for i := 0; i < len(cells); {
		n := i + 1
		for n < len(cells) && cells[n].series == cells[i].series && (cells[n].dots != 0) == (cells[i].dots != 0) {
			n++
		}
		var run strings.Builder
		for _, c := range cells[i:n] {
			switch {
			case c.dots == 0:
				run.WriteByte(' ')
			case o.ASCII:
				run.WriteByte(ascii[c.series%len(ascii)])
			default:
				run.WriteRune(0x2800 + c.dots)
			}
		}
		if cells[i].dots == 0 {
			b.WriteString(run.String())
		} else {
			b.WriteString(o.colour(cells[i].series, run.String()))
		}
		i = n
	}
	return b.String()
}

func clip(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return strings.TrimRight(string([]rune(s)[:max(0, width)]), " ")
}

// under writes the numbers at both ends of the axis and its name between them.
func under(width int, first, name, last string) string {
	gap := width - len(first) - len(last)
	if gap < 1 {
		return clip(first, width)
	}
	if n := utf8.RuneCountInString(name); n > 0 && n+2 <= gap {
		before := (gap - n) / 2
		return first + strings.Repeat(" ", before) + name + strings.Repeat(" ", gap-n-before) + last
	}
	return first + strings.Repeat(" ", gap) + last
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }

func bounds(series []Series) (x0, x1, y0, y1 float64) {
	x0, x1, y0, y1 = math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	for _, s := range series {
		if s.X != nil && len(s.X) != len(s.Y) {
			panic(fmt.Sprintf("termplot: series %q: %d x, %d y", s.Name, len(s.X), len(s.Y)))
		}
		for i, y := range s.Y {
			if x := s.x(i); finite(x) && finite(y) {
				x0, x1, y0, y1 = min(x0, x), max(x1, x), min(y0, y), max(y1, y)
			}
		}
	}
	return x0, x1, y0, y1
}

func (s Series) x(i int) float64 {
	if s.X == nil {
		return float64(i + 1)
	}
	return s.X[i]
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// A grid is the area of the plot, of cells that have px×py dots each.
type grid struct {
	width, height, px, py int
	cells                 [][]cell
}

func newGrid(width, height int, plain bool) grid {
	g := grid{width, height, 2, 4, make([][]cell, height)}
	if plain {
		g.px, g.py = 1, 1
	}
	for i := range g.cells {
		g.cells[i] = make([]cell, width)
	}
	return g
}

// row is the row of cells in which a value lies.
func (g grid) row(y, y0, y1 float64) int { return g.doty(y, y0, y1) / g.py }

func (g grid) doty(y, y0, y1 float64) int {
	n := g.height*g.py - 1
	return n - place(y, y0, y1, n)
}

// place maps lo…hi to 0…n.
func place(v, lo, hi float64, n int) int {
	if !(hi > lo) {
		return 0
	}
	f := (v/2 - lo/2) / (hi/2 - lo/2) // halves, since the difference may overflow
	return min(n, max(0, int(math.Round(f*float64(n)))))
}

// series draws one curve and returns the row in which it ends, or -1.
func (g grid) series(i int, s Series, x0, x1, y0, y1 float64) (end int) {
	end = -1
	var px, py int
	gap := true
	for k, v := range s.Y {
		if x := s.x(k); !finite(x) || !finite(v) {
			gap = true
			continue
		}
		x, y := place(s.x(k), x0, x1, g.width*g.px-1), g.doty(v, y0, y1)
		if gap {
			px, py, gap = x, y, false
		}
		g.line(i, px, py, x, y)
		px, py = x, y
		end = y / g.py
	}
	return end
}

// line sets the dots between two, by Bresenham's algorithm.
func (g grid) line(series, x, y, toX, toY int) {
	dx, dy := max(toX-x, x-toX), -max(toY-y, y-toY)
	sx, sy := 1, 1
	if x > toX {
		sx = -1
	}
	if y > toY {
		sy = -1
	}
	for e := dx + dy; ; {
		g.set(series, x, y)
		if x == toX && y == toY {
			return
		}
		e2 := 2 * e
		if e2 >= dy {
			e += dy
			x += sx
		}
		if e2 <= dx {
			e += dx
			y += sy
		}
	}
}

// brailleDots are the bits of a Braille character's dots, by row and column.
var brailleDots = [4][2]rune{{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}}

func (g grid) set(series, x, y int) {
	c := &g.cells[y/g.py][x/g.px]
	c.dots |= brailleDots[y%g.py][x%g.px]
	c.series = series // those drawn later, which come first in the order, win
}

// spread gives every series that ends somewhere a row of its own for its name,
// near its end, from the top down; -1 where there is no more room.
func spread(ends []int, rows int) []int {
	order := make([]int, 0, len(ends))
	for i, e := range ends {
		if e >= 0 {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return ends[a] - ends[b] })
	tags := slices.Repeat([]int{-1}, len(ends))
	next := 0
	for k, i := range order {
		row := max(ends[i], next)
		row = min(row, rows-(len(order)-k)) // leaves room for those below
		if row < next {
			row = next
		}
		if row >= rows {
			break
		}
		tags[i], next = row, row+1
	}
	return tags
}
