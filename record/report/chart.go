package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/cohort-learning/cohort/record/internal/axis"
)

// A Kind is a way to draw a chart.
type Kind int

const (
	// Lines draws each series as a line, with a band from Lo to Hi if given.
	// A value that is not finite is a gap.
	Lines Kind = iota
	// Stacked draws the series on top of each other, as steps around each X.
	// All series have the same X; values are not negative.
	Stacked
	// Steps draws histograms over each other: X holds the edges of the bins,
	// one more than Y has counts.
	Steps
)

// A Unit says how numbers are written.
type Unit string

// The units. Prefixes are those of powers of 1000.
const (
	Plain   Unit = ""
	Percent Unit = "%" // of fractions: 0.5 is 50 %
	Bytes   Unit = "B"
	FLOP    Unit = "FLOP"
	Seconds Unit = "s"
)

// An Axis is what an axis says.
type Axis struct {
	Label string
	Unit  Unit
}

// A Series is one curve of a chart.
type Series struct {
	Name   string // "" is the only one, or the whole
	X, Y   []float64
	Lo, Hi []float64 // band around Y, or nil
}

// A Chart is drawn into the page and into NAME.png, and written to NAME.csv.
type Chart struct {
	Name    string // file name without extension, unique in the report: "accuracy"
	Title   string
	Caption string // a sentence below the chart; may be empty
	Kind    Kind
	X, Y    Axis
	Series  []Series
}

// check panics if the lengths of a series do not fit; callers make charts, not users.
func (c Chart) check() {
	for _, s := range c.Series {
		want := len(s.Y)
		if c.Kind == Steps {
			want++
		}
		if len(s.X) != want || s.Lo != nil && (len(s.Lo) != len(s.Y) || len(s.Hi) != len(s.Y)) {
			panic(fmt.Sprintf("report: chart %q, series %q: %d x, %d y, %d lo, %d hi", c.Name, s.Name, len(s.X), len(s.Y), len(s.Lo), len(s.Hi)))
		}
	}
}

// empty reports whether there is nothing to draw.
func (c Chart) empty() bool {
	for _, s := range c.Series {
		for _, y := range s.Y {
			if finite(y) {
				return false
			}
		}
	}
	return true
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// A scale writes the numbers of an axis: v·mul/div, one of which is 1 so that
// round numbers stay round, with the unit in the label.
type scale struct {
	mul, div float64
	unit     string
}

func (s scale) of(v float64) float64 { return v * s.mul / s.div }

var prefixes = []string{"", "k", "M", "G", "T", "P", "E"}

// scaleFor chooses the scale for numbers up to top.
func scaleFor(u Unit, top float64) scale {
	switch u {
	case Percent:
		return scale{100, 1, "%"}
	case Bytes, FLOP:
		div, p := 1.0, 0
		for p+1 < len(prefixes) && top/div >= 1000 {
			div, p = div*1000, p+1
		}
		return scale{1, div, prefixes[p] + string(u)}
	}
	return scale{1, 1, string(u)}
}

// Format writes one number with its unit, to about four digits.
func (u Unit) Format(v float64) string {
	switch {
	case !finite(v):
		return strconv.FormatFloat(v, 'g', -1, 64)
	case u == Percent:
		return strconv.FormatFloat(100*v, 'f', 2, 64) + " %"
	}
	s := scaleFor(u, math.Abs(v))
	text := group(round(s.of(v)))
	if s.unit != "" {
		text += " " + s.unit
	}
	return text
}

// round writes v to four significant digits, but integers in full.
func round(v float64) string {
	switch a := math.Abs(v); {
	case a == math.Trunc(a) && a < 1e15:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a < 1e-3 || a >= 1e15:
		return strconv.FormatFloat(v, 'g', 4, 64)
	default:
		digits := max(0, 3-int(math.Floor(math.Log10(a))))
		return strconv.FormatFloat(v, 'f', digits, 64)
	}
}

// group sets thin gaps between thousands: 1234567 becomes 1 234 567.
func group(s string) string {
	end := len(s)
	for i, c := range s {
		if c == '.' || c == 'e' {
			end = i
			break
		}
	}
	start := 0
	if len(s) > 0 && s[0] == '-' {
		start = 1
	}
	if end-start < 5 {
		return s
	}
	for i := end - 3; i > start; i -= 3 {
		s = s[:i] + "\u202f" + s[i:] // narrow no-break space
	}
	return s
}

// tickLabels writes ticks with as many decimals as their distance needs.
func tickLabels(t []float64, s scale) []string {
	decimals := 0
	if len(t) > 1 {
		decimals = axis.Decimals(s.of(t[1] - t[0]))
	}
	labels := make([]string, len(t))
	for i, v := range t {
		labels[i] = strings.Replace(group(strconv.FormatFloat(s.of(v)+0, 'f', decimals, 64)), "-", "−", 1)
	}
	return labels
}

// thin keeps of a long series what can be seen: the least and the greatest
// value of each of n stretches.
func thin(s Series, n int) Series {
	if len(s.Y) <= 2*n || s.Lo != nil {
		return s
	}
	t := Series{Name: s.Name}
	for i := range n {
		from, to := i*len(s.Y)/n, (i+1)*len(s.Y)/n
		least, most := from, from
		for k := from; k < to; k++ {
			if s.Y[k] < s.Y[least] || !finite(s.Y[least]) {
				least = k
			}
			if s.Y[k] > s.Y[most] || !finite(s.Y[most]) {
				most = k
			}
		}
		a, b := min(least, most), max(least, most)
		t.X = append(t.X, s.X[a], s.X[b])
		t.Y = append(t.Y, s.Y[a], s.Y[b])
	}
	return t
}
