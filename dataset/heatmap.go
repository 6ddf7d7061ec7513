package dataset

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
)

const (
	mapRows   = 400 // more members than this share rows
	mapCells  = 440 // pixels that the classes share across
	mapLeft   = 76
	mapTop    = 66
	mapBars   = 110 // width of the bars of sizes
	mapBottom = 46
	mapText   = 13
)

// Heatmap draws the training lists: a row for each member, a column for each class, the darker the more samples, and on
// the right a bar for the size of the list. More than 400 members share rows, which then show means.
func (m *Manifest) Heatmap() (image.Image, error) {
	parsed, err := opentype.Parse(goregular.TTF)
	if err != nil {
		return nil, fmt.Errorf("heat map: font: %w", err)
	}
	face, err := opentype.NewFace(parsed, &opentype.FaceOptions{Size: mapText, DPI: 72})
	if err != nil {
		return nil, fmt.Errorf("heat map: font: %w", err)
	}
	defer face.Close()

	columns := max(len(m.Classes), 1)
	rows := min(len(m.Members), mapRows)
	cellW := max(mapCells/columns, 2)
	cellH := min(max(mapRows/max(rows, 1), 1), 24)
	width, height := columns*cellW, rows*cellH
	img := image.NewRGBA(image.Rect(0, 0, mapLeft+width+20+mapBars+16, mapTop+height+mapBottom))
	draw.Draw(img, img.Bounds(), image.White, image.Point{}, draw.Src)
	p := painter{img, face}

	counts, sizes := m.mapCounts(rows, columns)
	var most, largest float64
	for r := range rows {
		largest = max(largest, sizes[r])
		for _, v := range counts[r] {
			most = max(most, v)
		}
	}
	for r := range rows {
		y := mapTop + r*cellH
		for c, v := range counts[r] {
			p.fill(mapLeft+c*cellW, y, cellW, cellH, shade(v/max(most, 1)))
		}
		bar := int(sizes[r] / max(largest, 1) * mapBars)
		p.fill(mapLeft+width+20, y, max(bar, 1), max(cellH-1, 1), color.RGBA{120, 120, 120, 255})
	}
	p.frame(mapLeft-1, mapTop-1, width+2, height+2)

	p.text(mapLeft, 22, fmt.Sprintf("%s: %s", m.Data, m.Scheme))
	note := fmt.Sprintf("%d members, %d samples dealt, %d dropped", len(m.Members), m.Train.Samples-m.Train.Dropped, m.Train.Dropped)
	if m.Classes != nil {
		note += fmt.Sprintf(", EMD %.3f", m.Train.EMD)
	}
	p.text(mapLeft, 40, note)
	p.text(mapLeft+width+20, mapTop-8, fmt.Sprintf("size, up to %.0f", largest))

	p.right(mapLeft-8, mapTop+mapText, fmt.Sprint(0))
	if rows > 1 {
		p.right(mapLeft-8, mapTop+height, fmt.Sprint(len(m.Members)-1))
	}
	p.right(mapLeft-8, mapTop+height/2+mapText/2, "member")
	every := 1
	for widest := p.widest(m.Classes); every*cellW < widest+6; every++ {
	}
	for c := 0; c < len(m.Classes); c += every {
		p.centre(mapLeft+c*cellW+cellW/2, mapTop+height+18, shorten(m.Classes[c]))
	}
	p.text(mapLeft, mapTop+height+38, fmt.Sprintf("class; darkest cell %.0f samples", most))
	return img, nil
}

// WritePNG draws the heat map as a PNG file.
func (m *Manifest) WritePNG(w io.Writer) error {
	img, err := m.Heatmap()
	if err != nil {
		return err
	}
	return png.Encode(w, img)
}

// mapCounts averages the members' histograms and sizes over the rows of the picture.
func (m *Manifest) mapCounts(rows, columns int) (counts [][]float64, sizes []float64) {
	counts, sizes = make([][]float64, rows), make([]float64, rows)
	members := make([]float64, rows)
	for r := range counts {
		counts[r] = make([]float64, columns)
	}
	for k, member := range m.Members {
		r := k * rows / len(m.Members)
		members[r]++
		sizes[r] += float64(member.Train)
		if member.Histogram == nil {
			counts[r][0] += float64(member.Train)
		}
		for c, n := range member.Histogram {
			counts[r][c] += float64(n)
		}
	}
	for r, n := range members {
		sizes[r] /= n
		for c := range counts[r] {
			counts[r][c] /= n
		}
	}
	return counts, sizes
}

// shade maps 0 … 1 to white … dark blue; any sample at all is visibly not white.
func shade(v float64) color.RGBA {
	if v <= 0 {
		return color.RGBA{255, 255, 255, 255}
	}
	v = 0.08 + 0.92*v
	mix := func(from, to float64) uint8 { return uint8(from + (to-from)*v) }
	return color.RGBA{mix(235, 8), mix(243, 48), mix(250, 107), 255}
}

func shorten(s string) string {
	if r := []rune(s); len(r) > 9 {
		return string(r[:8]) + "…"
	}
	return s
}

type painter struct {
	img  *image.RGBA
	face font.Face
}

func (p painter) fill(x, y, w, h int, c color.Color) {
	draw.Draw(p.img, image.Rect(x, y, x+w, y+h), image.NewUniform(c), image.Point{}, draw.Src)
}

func (p painter) frame(x, y, w, h int) {
	grey := color.RGBA{160, 160, 160, 255}
	p.fill(x, y, w, 1, grey)
	p.fill(x, y+h-1, w, 1, grey)
	p.fill(x, y, 1, h, grey)
	p.fill(x+w-1, y, 1, h, grey)
}

func (p painter) width(s string) int { return font.MeasureString(p.face, s).Ceil() }

func (p painter) widest(words []string) int {
	w := 0
	for _, s := range words {
		w = max(w, p.width(shorten(s)))
	}
	return w
}

// text writes s with its left end at x and its base line at y; right and centre place the other points of it at x.
func (p painter) text(x, y int, s string) {
	d := font.Drawer{Dst: p.img, Src: image.Black, Face: p.face, Dot: fixed.P(x, y)}
	d.DrawString(s)
}

func (p painter) right(x, y int, s string)  { p.text(x-p.width(s), y, s) }
func (p painter) centre(x, y int, s string) { p.text(x-p.width(s)/2, y, s) }
