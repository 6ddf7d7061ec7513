package report

import (
	"bytes"
	"fmt"
	"image/color"
	"io"
	"math"
	"regexp"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/cohort-learning/cohort/record/internal/axis"
)

// Size of a chart in points, and how many pixels an inch of a PNG has.
const (
	chartWidth  = 480
	chartHeight = 280
	pngDPI      = 192

	textSize  = 11.5
	centre    = 1.2 // what centring by the line's height leaves digits too low
	titleSize = 14
)

// Colours of the light page. In the SVG each becomes a CSS variable of the same
// order (--c0 is the ink of the whole, --c1 … the series), so that the dark page
// can have its own. The hues differ for all common kinds of colour vision when
// taken in order.
var (
	inkColour  = rgb(0x4b5563) // --ink: labels
	gridColour = rgb(0xe3e6ea) // --grid
	wholeColor = rgb(0x1f2937) // --c0
	palette    = []color.NRGBA{
		rgb(0x2563c9), rgb(0xd9731a), rgb(0x1f9268), rgb(0x9a4fc0),
		rgb(0xb8930b), rgb(0xcf3f4f), rgb(0x2a9bb8), rgb(0x7a6a55),
	}
)

func rgb(v uint32) color.NRGBA {
	return color.NRGBA{uint8(v >> 16), uint8(v >> 8), uint8(v), 255}
}

func faint(c color.NRGBA, alpha float64) color.NRGBA {
	c.A = uint8(alpha * 255)
	return c
}

// colours gives every name of a report its colour, in the order of appearance.
type colours map[string]int

func (c colours) of(name string) color.NRGBA {
	if name == "" || name == wholeName {
		return wholeColor
	}
	i, ok := c[name]
	if !ok {
		i = len(c)
		c[name] = i
	}
	return palette[i%len(palette)]
}

// manySeries is how many lines can be told apart; more are drawn as a crowd.
const manySeries = 14

// svg draws a chart for the page: no title, colours by CSS.
func (c Chart) svg(cols colours) string {
	canvas := vgsvg.New(chartWidth, chartHeight)
	c.draw(draw.New(canvas), cols)
	var buf bytes.Buffer
	if _, err := canvas.WriteTo(&buf); err != nil {
		panic(fmt.Sprintf("report: writing to memory: %v", err))
	}
	s := buf.String()
	s = s[strings.Index(s, "<svg"):]
	s = svgHead.ReplaceAllString(s, fmt.Sprintf(`<svg viewBox="0 0 %d %d" role="img" aria-label="%s" xmlns`, chartWidth, chartHeight, attribute(c.Title)))
	s = svgFont.ReplaceAllString(s, "")
	s = svgColour.ReplaceAllStringFunc(s, variable)
	return strings.ReplaceAll(s, "\n\t", " ")
}

var (
	svgHead   = regexp.MustCompile(`(?s)<svg width=.*?xmlns`)
	svgColour = regexp.MustCompile(`#[0-9A-F]{6}\b`)
	svgFont   = regexp.MustCompile(`font-family:[^;"]*;font-variant:[^;"]*;font-weight:normal;font-style:normal;`)
)

func attribute(s string) string {
	return strings.NewReplacer("&", "&amp;", `"`, "&quot;", "<", "&lt;").Replace(s)
}

// variable returns the CSS variable of a colour of the light page. The SVG
// writer divides by the opacity again, so a colour may come out one less.
func variable(hex string) string {
	var r, g, b uint8
	if _, err := fmt.Sscanf(hex, "#%02X%02X%02X", &r, &g, &b); err != nil {
		return hex
	}
	near := func(c color.NRGBA) bool {
		return absDiff(c.R, r) <= 2 && absDiff(c.G, g) <= 2 && absDiff(c.B, b) <= 2
	}
	switch {
	case near(inkColour):
		return "var(--ink)"
	case near(gridColour):
		return "var(--grid)"
	case near(wholeColor):
		return "var(--c0)"
	}
	for i, c := range palette {
		if near(c) {
			return fmt.Sprintf("var(--c%d)", i+1)
		}
	}
	return hex
}

func absDiff(a, b uint8) uint8 { return max(a, b) - min(a, b) }

// png writes a chart as a picture that stands for itself: with its title.
func (c Chart) png(w io.Writer, cols colours) error {
	const title = 26
	canvas := vgimg.NewWith(vgimg.UseWH(chartWidth, chartHeight+title), vgimg.UseDPI(pngDPI), vgimg.UseBackgroundColor(color.White))
	dc := draw.New(canvas)
	dc.FillText(style(titleSize, wholeColor, text.XLeft, text.YTop), vg.Point{X: 6, Y: dc.Max.Y - 8}, c.Title)
	c.draw(draw.Crop(dc, 0, 0, 0, -title), cols)
	_, err := vgimg.PngCanvas{Canvas: canvas}.WriteTo(w)
	return err
}

func style(size vg.Length, c color.Color, x text.XAlignment, y text.YAlignment) text.Style {
	return text.Style{
		Color: c, XAlign: x, YAlign: y, Handler: plot.DefaultTextHandler,
		Font: font.Font{Typeface: "Liberation", Variant: "Sans", Size: size},
	}
}

// A frame is the area of a chart within its axes.
type frame struct {
	draw.Canvas
	x0, x1, y0, y1 float64 // what its edges stand for
}

func (f frame) at(x, y float64) vg.Point {
	return vg.Point{
		X: f.Min.X + f.Size().X*vg.Length((x-f.x0)/(f.x1-f.x0)),
		Y: f.Min.Y + f.Size().Y*vg.Length((y-f.y0)/(f.y1-f.y0)),
	}
}

// A tag is a name at the right of the curve that bears it.
type tag struct {
	text   string
	y      vg.Length
	colour color.NRGBA
}

func (c Chart) draw(dc draw.Canvas, cols colours) {
	series := make([]Series, len(c.Series))
	for i, s := range c.Series {
		series[i] = s
		if c.Kind == Lines {
			series[i] = thin(s, 500)
		}
	}
	b := c.bounds(series)
	yScale, xScale := scaleFor(c.Y.Unit, b.y1), scaleFor(c.X.Unit, b.x1)
	yTicks := axis.Ticks(b.y0, b.y1, 5, false)
	b.y0, b.y1 = yTicks[0], yTicks[len(yTicks)-1]
	yLabels := tickLabels(yTicks, yScale)
	xTicks := axis.Ticks(b.x0, b.x1, 7, true)
	xLabels := tickLabels(xTicks, xScale)

	ink := style(textSize, inkColour, text.XLeft, text.YBottom)
	left := vg.Length(0)
	for _, l := range yLabels {
		left = max(left, ink.Width(l))
	}
	right := vg.Length(14)
	tagged := c.Kind != Steps && len(series) > 1 && len(series) <= manySeries
	if tagged {
		for _, s := range series {
			right = max(right, ink.Width(seriesName(s.Name))+16)
		}
	}
	f := frame{draw.Crop(dc, left+14, -min(right, chartWidth/3), 34, -28), b.x0, b.x1, b.y0, b.y1}

	ink.XAlign, ink.YAlign = text.XLeft, text.YTop
	dc.FillText(ink, vg.Point{X: dc.Min.X + 6, Y: dc.Max.Y - 5}, axisLabel(c.Y, yScale))
	ink.XAlign, ink.YAlign = text.XCenter, text.YBottom
	dc.FillText(ink, vg.Point{X: f.Center().X, Y: dc.Min.Y + 3}, axisLabel(c.X, xScale))
	ink.XAlign, ink.YAlign = text.XRight, text.YCenter
	for i, t := range yTicks {
		p := f.at(b.x0, t)
		f.StrokeLine2(draw.LineStyle{Color: gridColour, Width: 0.8}, f.Min.X, p.Y, f.Max.X, p.Y)
		dc.FillText(ink, vg.Point{X: p.X - 6, Y: p.Y + centre}, yLabels[i])
	}
	ink.XAlign, ink.YAlign = text.XCenter, text.YTop
	for i, t := range xTicks {
		if t < b.x0 || t > b.x1 {
			continue
		}
		p := f.at(t, b.y0)
		f.StrokeLine2(draw.LineStyle{Color: inkColour, Width: 0.6}, p.X, p.Y, p.X, p.Y-3)
		dc.FillText(ink, vg.Point{X: p.X, Y: p.Y - 5}, xLabels[i])
	}

	var tags []tag
	switch c.Kind {
	case Lines:
		tags = f.lines(series, cols)
	case Stacked:
		tags = f.stacked(series, cols)
	case Steps:
		f.steps(series, cols)
		c.legend(dc, series, cols)
	}
	if tagged {
		f.tags(tags)
	}
}

func axisLabel(a Axis, s scale) string {
	if s.unit == "" {
		return a.Label
	}
	return a.Label + " (" + s.unit + ")"
}

// seriesName is how a series is called where it stands beside others.
func seriesName(name string) string {
	if name == "" {
		return wholeName
	}
	return name
}

const wholeName = "global"

// bounds are the least and greatest coordinates.
func (c Chart) bounds(series []Series) frame {
	b := frame{x0: math.Inf(1), x1: math.Inf(-1), y0: math.Inf(1), y1: math.Inf(-1)}
	add := func(lo, hi *float64, v float64) {
		if finite(v) {
			*lo, *hi = min(*lo, v), max(*hi, v)
		}
	}
	for _, s := range series {
		for _, x := range s.X {
			add(&b.x0, &b.x1, x)
		}
		for _, list := range [][]float64{s.Y, s.Lo, s.Hi} {
			for _, y := range list {
				add(&b.y0, &b.y1, y)
			}
		}
	}
	if c.Kind == Stacked {
		b.y0, b.y1 = 0, 0
		for i := range longest(series) {
			b.y1 = max(b.y1, total(series, i))
		}
		w := stepWidth(series)
		b.x0, b.x1 = b.x0-w/2, b.x1+w/2
	}
	if c.Kind == Steps || c.Y.Unit == Bytes || c.Y.Unit == FLOP {
		b.y0 = min(b.y0, 0)
	}
	if math.IsInf(b.x0, 0) {
		b.x0, b.x1 = 0, 1
	}
	if math.IsInf(b.y0, 0) {
		b.y0, b.y1 = 0, 1
	}
	if b.x1 <= b.x0 {
		b.x0, b.x1 = b.x0-0.5, b.x1+0.5
	}
	if b.y1 <= b.y0 {
		b.y1 = b.y0 + max(1e-9, math.Abs(b.y0)*0.1)
	}
	return b
}

func longest(series []Series) (n int) {
	for _, s := range series {
		n = max(n, len(s.Y))
	}
	return n
}

func total(series []Series, i int) (sum float64) {
	for _, s := range series {
		if i < len(s.Y) && finite(s.Y[i]) {
			sum += s.Y[i]
		}
	}
	return sum
}

// stepWidth is the least distance of two values of X.
func stepWidth(series []Series) float64 {
	w := math.Inf(1)
	for _, s := range series {
		for i := 1; i < len(s.X); i++ {
			w = min(w, math.Abs(s.X[i]-s.X[i-1]))
		}
	}
	if math.IsInf(w, 0) || w == 0 {
		return 1
	}
	return w
}

func (f frame) lines(series []Series, cols colours) (tags []tag) {
	width, alpha := vg.Length(1.8), 1.0
	if len(series) > manySeries {
		width, alpha = 0.8, 0.35
	}
	for _, s := range series {
		if s.Lo == nil {
			continue
		}
		f.SetColor(faint(cols.of(s.Name), 0.18))
		f.band(s)
	}
	for _, s := range series {
		col := cols.of(s.Name)
		if len(series) > manySeries {
			col = palette[0]
		}
		ls := draw.LineStyle{Color: faint(col, alpha), Width: width}
		var run []vg.Point
		flush := func() {
			if len(run) == 1 { // a point between gaps
				f.DrawGlyph(draw.GlyphStyle{Color: ls.Color, Radius: 2, Shape: draw.CircleGlyph{}}, run[0])
			}
			for len(run) > 1 { // the rasteriser is quadratic in a path's length
				n := min(len(run), 100)
				f.StrokeLines(ls, run[:n])
				run = run[n-1:]
			}
			run = nil
		}
		last := vg.Length(math.NaN())
		for i, y := range s.Y {
			if !finite(y) || !finite(s.X[i]) {
				flush()
				continue
			}
			p := f.at(s.X[i], y)
			run, last = append(run, p), p.Y
		}
		flush()
		if !math.IsNaN(float64(last)) {
			tags = append(tags, tag{seriesName(s.Name), last, col})
		}
	}
	return tags
}

func (f frame) band(s Series) {
	var upper, lower []vg.Point
	fill := func() {
		slices.Reverse(lower)
		if len(upper) > 1 {
			f.Fill(polygon(append(upper, lower...)))
		}
		upper, lower = nil, nil
	}
	for i, x := range s.X {
		if !finite(s.Lo[i]) || !finite(s.Hi[i]) {
			fill()
			continue
		}
		upper, lower = append(upper, f.at(x, s.Hi[i])), append(lower, f.at(x, s.Lo[i]))
	}
	fill()
}

func polygon(pts []vg.Point) (p vg.Path) {
	p.Move(pts[0])
	for _, q := range pts[1:] {
		p.Line(q)
	}
	p.Close()
	return p
}

func (f frame) stacked(series []Series, cols colours) (tags []tag) {
	w := stepWidth(series)
	base := make([]float64, longest(series))
	for _, s := range series {
		var upper, lower []vg.Point
		var middle vg.Length
		for i, y := range s.Y {
			if !finite(y) {
				y = 0
			}
			a, b := s.X[i]-w/2, s.X[i]+w/2
			lower = append(lower, f.at(a, base[i]), f.at(b, base[i]))
			upper = append(upper, f.at(a, base[i]+y), f.at(b, base[i]+y))
			middle = f.at(0, base[i]+y/2).Y
			base[i] += y
		}
		if len(upper) == 0 {
			continue
		}
		slices.Reverse(lower)
		f.SetColor(faint(cols.of(s.Name), 0.8))
		f.Fill(polygon(append(upper, lower...)))
		tags = append(tags, tag{seriesName(s.Name), middle, cols.of(s.Name)})
	}
	return tags
}

func (f frame) steps(series []Series, cols colours) {
	for _, s := range series {
		if len(s.Y) == 0 {
			continue
		}
		pts := []vg.Point{f.at(s.X[0], 0)}
		for i, y := range s.Y {
			pts = append(pts, f.at(s.X[i], y), f.at(s.X[i+1], y))
		}
		pts = append(pts, f.at(s.X[len(s.Y)], 0))
		f.SetColor(faint(cols.of(s.Name), 0.15))
		f.Fill(polygon(pts))
		f.StrokeLines(draw.LineStyle{Color: cols.of(s.Name), Width: 1.5}, pts)
	}
}

// tags writes the names at the right, pushed apart where they would overlap.
func (f frame) tags(tags []tag) {
	const gap = textSize + 2
	slices.SortStableFunc(tags, func(a, b tag) int {
		if a.y < b.y {
			return -1
		}
		if a.y > b.y {
			return 1
		}
		return 0
	})
	for i := 1; i < len(tags); i++ { // upwards
		tags[i].y = max(tags[i].y, tags[i-1].y+gap)
	}
	top := f.Max.Y + 4
	for i := len(tags) - 1; i >= 0; i-- { // and back down from the top
		tags[i].y = min(tags[i].y, top)
		top = tags[i].y - gap
	}
	for _, t := range tags {
		f.FillText(style(textSize, t.colour, text.XLeft, text.YCenter), vg.Point{X: f.Max.X + 7, Y: t.y + centre}, t.text)
	}
}

// legend writes the names at the top right, for charts without line ends.
func (c Chart) legend(dc draw.Canvas, series []Series, cols colours) {
	if len(series) < 2 {
		return
	}
	x := dc.Max.X - 12
	for _, s := range slices.Backward(series) {
		st := style(textSize, cols.of(s.Name), text.XRight, text.YTop)
		dc.FillText(st, vg.Point{X: x, Y: dc.Max.Y - 5}, seriesName(s.Name))
		x -= st.Width(seriesName(s.Name)) + 10
	}
}
