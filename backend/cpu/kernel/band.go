package kernel

// bands cuts the outputs of a pair of axis classes into bands of rows, and knows
// the offsets inside the part of the input that a band reads: the image itself if
// the class reads nothing outside it, or else a copy with a border of zeros.
//
// A band is some rows of one image, or all rows of some images. All bands have the
// same tables; the last one uses the beginning of them.
type bands struct {
	h, w           axisClass
	images         int // in the batch
	inH, inW, inC  int
	outH, outW     int
	ch             int     // channels that a copy holds: those of a group, or of a part of it
	direct         bool    // no copy
	perImage       int     // bands of an image, 0 if a band holds whole images
	rows, perBand  int     // rows and images of a band
	loH, loW       int     // least offsets of the taps
	spanH, spanW   int     // rows and columns of a copied image
	count          int     // bands
	pixel          []int32 // input offset of each output pixel of a band
	out            []int32 // its output offset
	pixelsPerImage int
}

// maxBand is the number of values a copied band may have: half of a second-level cache of 512 KiB.
const maxBand = 1 << 16

// newBands cuts into bands of about pixels outputs, and of at most limit copied values if that can be. The class must have taps.
func newBands(h, w axisClass, images, inH, inW, inC, outH, outW, outC, ch, pixels, limit int) *bands {
	b := &bands{h: h, w: w, images: images, inH: inH, inW: inW, inC: inC, outH: outH, outW: outW, ch: ch}
	b.pixelsPerImage = h.n * w.n
	loH, hiH := h.offRange()
	loW, hiW := w.offRange()
	b.loH, b.loW = loH, loW
	b.direct = h.inside(loH, hiH, inH) && w.inside(loW, hiW, inW)
	b.spanW = (w.n-1)*w.baseStep + hiW - loW + 1
	span := func(rows int) int { return (rows-1)*h.baseStep + hiH - loH + 1 }

	b.rows, b.perBand = h.n, 1
	if b.pixelsPerImage > pixels {
		b.rows = blockOf(h.n, max(pixels/w.n, 1), 1)
	} else {
		b.perBand = blockOf(images, max(pixels/b.pixelsPerImage, 1), 1)
	}
	if !b.direct {
		for b.perBand > 1 && b.perBand*span(b.rows)*b.spanW*ch > limit {
			b.perBand = ceilDiv(b.perBand, 2)
		}
		for b.rows > 1 && span(b.rows)*b.spanW*ch > limit {
			b.rows = ceilDiv(b.rows, 2)
		}
	}
	b.spanH = span(b.rows)
	if b.rows < h.n {
		b.perImage = ceilDiv(h.n, b.rows)
		b.count = images * b.perImage
	} else {
		b.count = ceilDiv(images, b.perBand)
	}

	stepH, stepW, stepImage := b.spanW*ch, ch, b.spanH*b.spanW*ch
	if b.direct {
		stepH, stepW, stepImage = inW*inC, inC, inH*inW*inC
	}
	n := b.perBand * b.rows * w.n
	b.pixel, b.out = make([]int32, 0, n), make([]int32, 0, n)
	for img := range b.perBand {
		for i := range b.rows {
			for j := range w.n {
				b.pixel = append(b.pixel, offset32(img*stepImage+i*h.baseStep*stepH+j*w.baseStep*stepW))
				b.out = append(b.out, offset32(((img*outH+i*h.step)*outW+j*w.step)*outC))
			}
		}
	}
	return b
}

// tapOffset is the input offset of the taps number i and j of the classes.
func (b *bands) tapOffset(i, j int) int {
	row, col := b.h.offs[i]-b.loH, b.w.offs[j]-b.loW
	if b.direct {
		return (row*b.inW + col) * b.inC
	}
	return (row*b.spanW + col) * b.ch
}

// inside reports whether all outputs of the class read real inputs through all
// offsets from lo to hi.
func (c axisClass) inside(lo, hi, in int) bool {
	return c.base+lo >= 0 && c.base+(c.n-1)*c.baseStep+hi < in
}

// bufferLen is the number of values of a copied band.
func (b *bands) bufferLen() int {
	if b.direct {
		return 0
	}
	return b.perBand * b.spanH * b.spanW * b.ch
}

// place is where a band lies: its first image, its first row of the class, and how
// many images, rows and pixels it has.
func (b *bands) place(band int) (image, row, images, rows, pixels int) {
	if b.perImage > 0 {
		image, row = band/b.perImage, band%b.perImage*b.rows
		images, rows = 1, min(b.rows, b.h.n-row)
	} else {
		image = band * b.perBand
		images, rows = min(b.perBand, b.images-image), b.rows
	}
	return image, row, images, rows, images * rows * b.w.n
}

// input returns the values that the tables pixel and tap refer to, for channels
// from channel on: a part of x, or the copy in buf.
func (b *bands) input(x, buf []float32, band, channel int) []float32 {
	image, row, images, rows, _ := b.place(band)
	row0 := b.h.base + row*b.h.baseStep + b.loH
	col0 := b.w.base + b.loW
	if b.direct {
		return x[((image*b.inH+row0)*b.inW+col0)*b.inC+channel:]
	}
	height := (rows-1)*b.h.baseStep + b.spanH - (b.rows-1)*b.h.baseStep
	pitch := b.spanW * b.ch
	for i := range images {
		at := buf[i*b.spanH*pitch:]
		for r := range height {
			b.copyRow(at[r*pitch:][:pitch], x, image+i, row0+r, col0, channel)
		}
	}
	return buf
}

// copyRow copies spanW pixels of a row of x, zeros where they lie outside.
func (b *bands) copyRow(dst, x []float32, image, row, col, channel int) {
	lo := min(max(0, -col), b.spanW)
	hi := max(lo, min(b.spanW, b.inW-col))
	if row < 0 || row >= b.inH || lo == hi {
		clear(dst)
		return
	}
	clear(dst[:lo*b.ch])
	clear(dst[hi*b.ch:])
	src := x[((image*b.inH+row)*b.inW+col+lo)*b.inC+channel:]
	if b.ch == b.inC {
		copy(dst[lo*b.ch:hi*b.ch], src)
		return
	}
	for i := range hi - lo {
		copy(dst[(lo+i)*b.ch:][:b.ch], src[i*b.inC:])
	}
}

// output is the offset of the first output pixel of a band, in pixels.
func (b *bands) output(band int) int {
	image, row, _, _, _ := b.place(band)
	return (image*b.outH+b.h.first+row*b.h.step)*b.outW + b.w.first
}
