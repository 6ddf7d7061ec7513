package dashboard

import (
	"cmp"
	"fmt"
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/record/report"
)

// A place is the chart that a metric belongs to.
type place struct {
	chart, title, note string
	unit               report.Unit
}

// places are the charts that every run has room for, in the order of the page, by the names of their metrics; package report
// says what the names mean.
var places = []struct {
	metric string
	place
}{
	{"accuracy", place{"accuracy", "Accuracy on the test set", "", report.Percent}},
	{"loss", place{"loss", "Loss on the test set", "nats", report.Plain}},
	{"accuracy.local", place{"accuracy.local", "Accuracy on the members’ own test data", "", report.Percent}},
	{"accuracy.local.mean", place{"accuracy.local.mean", "Mean of the members’ own accuracies", "", report.Percent}},
	{"accuracy.local.worst", place{"accuracy.local.worst", "Mean over the worst tenth of the members", "", report.Percent}},
	{"accuracy.personal", place{"accuracy.personal", "Accuracy of the members’ own models on their own test data", "", report.Percent}},
	{"accuracy.personal.mean", place{"accuracy.personal.mean", "Mean of the accuracies of the members’ own models", "", report.Percent}},
	{"accuracy.personal.worst", place{"accuracy.personal.worst", "Mean over the worst tenth of the members’ own models", "", report.Percent}},
	{"loss.local", place{"loss.local", "Loss on the members’ own test data", "nats", report.Plain}},
	{"loss.personal", place{"loss.personal", "Loss of the members’ own models on their own test data", "nats", report.Plain}},
	{"loss.train", place{"loss.train", "Training loss", "nats", report.Plain}},
	{"perplexity", place{"perplexity", "Perplexity", "", report.Plain}},
	{"rmse", place{"rmse", "RMSE of held-out ratings", "", report.Plain}},
	{"ndcg", place{"ndcg", "NDCG@10 of held-out items", "", report.Plain}},
	{"catalogue.ndcg", place{"catalogue.ndcg", "NDCG@10 of the whole catalogue", "", report.Plain}},
	{"compression", place{"compression", "Times less traffic than FedAvg’s", "", report.Plain}},
	{"updates.mean", place{"updates.mean", "Members that trained a coordinate", "by level", report.Plain}},
	{"updates.stale", place{"updates.stale", "Coordinates that nobody trained", "", report.Percent}},
	{"epsilon", place{"epsilon", "Privacy spent", "ε so far", report.Plain}},
	{"clip", place{"clip", "Bound of updates", "L2 norm", report.Plain}},
	{"secure.members", place{"secure.members", "Members in a secure sum", "", report.Plain}},
	{"secure.sent", place{"secure.sent", "Part of the model that enough members held", "", report.Percent}},
	{"bytes.up", place{"bytes", "Bytes in each round", "", report.Bytes}},
	{"bytes.down", place{"bytes", "Bytes in each round", "", report.Bytes}},
}

// amongPlaces are what charts are called in runs among organisations, where that is something else, and those that no other run has.
var amongPlaces = map[string]place{
	"accuracy":       {"accuracy", "Accuracy on the rows to test on", "", report.Percent},
	"loss":           {"loss", "Loss on the rows to test on", "", report.Plain},
	"loss.train":     {"loss.train", "Loss on the rows to fit", "", report.Plain},
	"loss.held":      {"loss.held", "Loss on held-out rows", "", report.Plain},
	"rmse":           {"rmse", "RMSE on the rows to test on", "", report.Plain},
	"mad":            {"mad", "Mean absolute error on the rows to test on", "", report.Plain},
	"auroc":          {"auroc", "Area under the ROC curve on the rows to test on", "", report.Plain},
	"log-loss":       {"log-loss", "Log loss on the rows to test on", "nats", report.Plain},
	"weight":         {"weight", "Weight of each organisation", "", report.Plain},
	"rate":           {"rate", "Learning rate", "", report.Plain},
	"contribution":   {"contribution", "Rise of the loss without an organisation", "", report.Plain},
	"shapley":        {"shapley", "What each organisation contributes", "Shapley value", report.Plain},
	"away":           {"away", "Rise of the loss where who is away predicts nothing, either", "", report.Plain},
	"rows":           {"rows", "Rows of the run that an organisation has", "", report.Plain},
	"label-recovery": {"label-recovery", "Labels that all that is planned to be sent would tell", "", report.Percent},
	"links.wrong":    {"links.wrong", "Links by key that seem wrong", "", report.Percent},
}

// vocabulary is how a page calls what a run is about.
type vocabulary struct {
	among              bool
	whole              string   // the curve of no member
	from, to           string   // the curves of bytes
	one, many, capital string   // whoever takes part
	samples            string   // what they have, in a table's head
	always             []string // the charts that are there before their first value, so that the page does not jump when it comes
}

var (
	membersWords       = vocabulary{false, "global", "from members", "to members", "member", "members", "Members", "samples", []string{"accuracy", "loss", "bytes"}}
	organisationsWords = vocabulary{true, "all together", "from organisations", "to organisations", "organisation", "organisations", "Organisations", "rows", []string{"loss", "bytes"}}
)

// words is how the page calls what the run is about.
func (r Run) words() vocabulary {
	if r.Among {
		return organisationsWords
	}
	return membersWords
}

// One is what whoever takes part is called: member or organisation.
func (r Run) One() string { return r.words().one }

// Many is the plural of [Run.One].
func (r Run) Many() string { return r.words().many }

// Capital is [Run.Many] at the beginning of a line.
func (r Run) Capital() string { return r.words().capital }

// Samples is what they have: samples or rows.
func (r Run) Samples() string { return r.words().samples }

// put says where a metric belongs: its chart, the series of the chart, and the part of the series, all parts of which are
// added up. False means that it is of no interest beside others.
func (v vocabulary) put(m record.Metric) (p place, series, part string, ok bool) {
	if strings.HasPrefix(m.Name, "clients") || m.Name == "train.steps" || strings.HasPrefix(m.Name, "bytes.") && strings.Count(m.Name, ".") > 1 {
		return place{}, "", "", false
	}
	if k, ok := amongPlaces[m.Name]; ok && v.among {
		return k, v.seriesName(m.Key), "", true
	}
	for _, k := range places {
		if k.metric != m.Name {
			continue
		}
		if k.chart == "bytes" {
			series = v.from
			if m.Name == "bytes.down" {
				series = v.to
			}
			return k.place, series, m.Key, true
		}
		return k.place, v.seriesName(m.Key), "", true
	}
	name := clean(m.Name, maxName)
	return place{name, name, "", report.Plain}, v.seriesName(m.Key), "", true
}

// seriesName is how the curve of a level, an organisation, or of the whole, is called.
func (v vocabulary) seriesName(key string) string {
	if key == "" {
		return v.whole
	}
	return clean(key, maxName)
}

// at is where a value stands on the axis of rounds, which people count from 1. Steps within a round lie between it and the next.
func at(m record.Metric) float64 {
	return float64(m.Round+1) + float64(m.Step)/float64(m.Step+1)
}

// A chart is the curves of one picture.
type chart struct {
	place
	series map[string]*series
}

// A series is one curve: for every part, values by place on the axis.
type series struct {
	name  string
	parts map[string]map[float64]float64
}

func (c *chart) set(name, part string, x, y float64) {
	s := c.series[name]
	if s == nil {
		s = &series{name, map[string]map[float64]float64{}}
		c.series[name] = s
	}
	if s.parts[part] == nil {
		s.parts[part] = map[float64]float64{}
	}
	s.parts[part][x] = y
}

// A point is a value at its place.
type point struct{ x, y float64 }

// points returns the curve of a series, in order.
func (s *series) points() []point {
	sum := map[float64]float64{}
	for _, part := range s.parts {
		for x, y := range part {
			sum[x] += y
		}
	}
	list := make([]point, 0, len(sum))
	for x, y := range sum {
		list = append(list, point{x, y})
	}
	slices.SortFunc(list, func(a, b point) int { return cmp.Compare(a.x, b.x) })
	return list
}

// A figure is a chart as the page and its script get it.
type figure struct {
	ID     string // fit for an HTML id
	Name   string
	Title  string
	Note   string // the unit in words
	Unit   string // "%", "B" or empty
	Curves []curve
}

// A curve is a series of a figure.
type curve struct {
	Name   string
	Colour int // class c0 … c8, the same for a name in all figures
	Last   string
	points []point
	parts  map[string][][2]any
}

// figures lays out all charts, those of always first of all even if they are empty.
func (v vocabulary) figures(charts map[string]*chart) []figure {
	var names []string
	for name := range charts {
		names = append(names, name)
	}
	for _, name := range v.always {
		if charts[name] == nil {
			names = append(names, name)
		}
	}
	rank := func(name string) int {
		return slices.IndexFunc(places, func(p struct {
			metric string
			place
		}) bool {
			return p.chart == name
		})
	}
	slices.SortFunc(names, func(a, b string) int {
		// Unknown ones have rank −1 and come last.
		return cmp.Or(cmp.Compare(uint(rank(a)), uint(rank(b))), cmp.Compare(a, b))
	})
	colours := v.colouring(charts)
	var list []figure
	for _, name := range names {
		c := charts[name]
		if c == nil {
			p, _, _, _ := v.put(record.Metric{Name: places[rank(name)].metric})
			c = &chart{place: p}
		}
		if c.idle() && !slices.Contains(v.always, name) {
			continue
		}
		list = append(list, c.figure(colours))
	}
	return list
}

// idle reports whether every value is 0: there is nothing to see.
func (c *chart) idle() bool {
	for _, s := range c.series {
		for _, p := range s.points() {
			if p.y != 0 {
				return false
			}
		}
	}
	return true
}

// colouring gives every series its colour: the whole has ink, levels have the palette in the order of their names.
func (v vocabulary) colouring(charts map[string]*chart) map[string]int {
	var names []string
	for _, c := range charts {
		if c.chart == "bytes" {
			continue
		}
		for name := range c.series {
			if name != v.whole && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	colours := map[string]int{v.whole: 0, v.from: 7, v.to: 8}
	for i, n := range names {
		colours[n] = i%8 + 1
	}
	return colours
}

func (c *chart) figure(colours map[string]int) figure {
	f := figure{ID: "chart-" + identifier(c.chart), Name: c.chart, Title: c.title, Note: c.note, Unit: string(c.unit)}
	for _, s := range c.series {
		v := curve{Name: s.name, Colour: colours[s.name], points: s.points(), parts: map[string][][2]any{}}
		if n := len(v.points); n > 0 {
			v.Last = c.unit.Format(v.points[n-1].y)
		}
		for part, values := range s.parts {
			list := make([][2]any, 0, len(values))
			for x, y := range values {
				list = append(list, [2]any{x, orNull(y)})
			}
			v.parts[part] = list
		}
		f.Curves = append(f.Curves, v)
	}
	slices.SortFunc(f.Curves, func(a, b curve) int {
		return cmp.Or(-cmp.Compare(btoi(a.Colour == 0), btoi(b.Colour == 0)), cmp.Compare(a.Name, b.Name))
	})
	return f
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// orNull is v, or nil if JSON has no number for it: a gap in the curve.
func orNull(v float64) any {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return v
}

// identifier makes a name fit for an HTML id; different names get different ones.
func identifier(name string) string {
	var b strings.Builder
	for _, r := range name {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			b.WriteRune(r)
			continue
		}
		fmt.Fprintf(&b, "_%x_", r)
	}
	return b.String()
}

// Size of a picture for browsers without a script.
const (
	svgWidth, svgHeight = 520, 240
	svgLeft, svgBottom  = 52, 26
	svgTop, svgRight    = 12, 14
)

// SVG draws the figure without a script. Colours are classes, because the page allows no style in elements.
func (f figure) SVG() template.HTML {
	x0, x1, y0, y1 := math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	for _, c := range f.Curves {
		for _, p := range c.points {
			if orNull(p.y) != nil {
				x0, x1, y0, y1 = min(x0, p.x), max(x1, p.x), min(y0, p.y), max(y1, p.y)
			}
		}
	}
	if x0 > x1 {
		return ""
	}
	if f.Unit == "B" {
		y0 = 0
	}
	if x1 <= x0 {
		x0, x1 = x0-0.5, x1+0.5
	}
	ticks := ticks(y0, y1, 4)
	y0, y1 = ticks[0], ticks[len(ticks)-1]
	px := func(x float64) float64 { return svgLeft + (x-x0)/(x1-x0)*(svgWidth-svgLeft-svgRight) }
	py := func(y float64) float64 { return svgHeight - svgBottom - (y-y0)/(y1-y0)*(svgHeight-svgTop-svgBottom) }

	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %d" aria-hidden="true">`, svgWidth, svgHeight)
	for _, t := range ticks {
		fmt.Fprintf(&b, `<path class="grid" d="M%d %.1fH%d"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`,
			svgLeft, py(t), svgWidth-svgRight, svgLeft-6, py(t)+4, template.HTMLEscapeString(tickText(t, report.Unit(f.Unit))))
	}
	for _, t := range xTicks(x0, x1) {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`, px(t), svgHeight-8, strconv.FormatFloat(t, 'f', -1, 64))
	}
	for _, c := range f.Curves { // the whole first and broad, so that it is seen below a level that is the same
		class := "curve s" + strconv.Itoa(c.Colour)
		if c.Colour == 0 && len(f.Curves) > 1 {
			class += " broad"
		}
		b.WriteString(`<path class="` + class + `" d="`)
		pen := "M"
		drawn := 0
		for _, p := range thin(c.points, svgWidth) {
			if orNull(p.y) == nil {
				pen = "M"
				continue
			}
			fmt.Fprintf(&b, "%s%.1f %.1f", pen, px(p.x), py(p.y))
			pen = "L"
			drawn++
		}
		if drawn == 1 { // a lone point is drawn as a dot: a line of no length with round ends
			b.WriteString("h0")
		}
		b.WriteString(`"/>`)
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String())
}

// thin keeps about n points: enough to see.
func thin(points []point, n int) []point {
	if len(points) <= 2*n {
		return points
	}
	list := make([]point, 0, n+1)
	for i := range n {
		list = append(list, points[i*len(points)/n])
	}
	return append(list, points[len(points)-1])
}

// tickText writes a number at an axis.
func tickText(v float64, u report.Unit) string {
	if u == report.Percent {
		return strconv.FormatFloat(math.Round(v*1e4)/100, 'f', -1, 64) + " %"
	}
	if u == report.Plain {
		return strconv.FormatFloat(v, 'g', 6, 64)
	}
	return u.Format(math.Round(v*1e9) / 1e9)
}

// ticks returns round numbers, about n, that span lo to hi.
func ticks(lo, hi float64, n int) []float64 {
	if hi-lo <= math.Abs(hi)*1e-9 {
		lo, hi = lo-max(1e-6, math.Abs(lo)*0.05), hi+max(1e-6, math.Abs(hi)*0.05)
	}
	step := math.Pow(10, math.Floor(math.Log10((hi-lo)/float64(n))))
	for _, m := range []float64{1, 2, 5, 10} {
		if (hi-lo)/(step*m) <= float64(n) {
			step *= m
			break
		}
	}
	var list []float64
	for i := math.Floor(lo/step + 1e-9); ; i++ {
		list = append(list, i*step)
		if i*step >= hi-step*1e-9 || len(list) > 20 {
			return list
		}
	}
}

// xTicks returns rounds within x0 to x1.
func xTicks(x0, x1 float64) (list []float64) {
	for _, t := range ticks(x0, x1, 6) {
		if t >= x0 && t <= x1 && t == math.Trunc(t) {
			list = append(list, t)
		}
	}
	return list
}

// A numbersRow is one round of the table below a figure.
type numbersRow struct {
	Round string
	Cells []string
}

// numbers is how many rounds the table below a figure shows, the newest.
const numbers = 20

// Numbers is the figure as a table, for whoever does not see it.
func (f figure) Numbers() (rows []numbersRow) {
	var xs []float64
	values := make([]map[float64]float64, len(f.Curves))
	for i, c := range f.Curves {
		values[i] = make(map[float64]float64, len(c.points))
		for _, p := range c.points[max(0, len(c.points)-numbers):] {
			values[i][p.x] = p.y
			xs = append(xs, p.x)
		}
	}
	slices.Sort(xs)
	xs = slices.Compact(xs)
	for _, x := range slices.Backward(xs[max(0, len(xs)-numbers):]) {
		row := numbersRow{Round: strconv.FormatFloat(math.Floor(x*100)/100, 'f', -1, 64)}
		for i := range f.Curves {
			cell := "–"
			if v, ok := values[i][x]; ok {
				cell = report.Unit(f.Unit).Format(v)
			}
			row.Cells = append(row.Cells, cell)
		}
		rows = append(rows, row)
	}
	return rows
}

// wire is the figure for the script.
func (f figure) wire() map[string]any {
	curves := []any{}
	for _, c := range f.Curves {
		curves = append(curves, map[string]any{"name": c.Name, "colour": c.Colour, "parts": c.parts})
	}
	return map[string]any{"id": f.ID, "title": f.Title, "unit": f.Unit, "curves": curves}
}
