package kernel

// A tap at the border of the kernel sees some output pixels whose input lies
// outside the image. In small images that are many, so the pixels of a band are
// sorted such that those that a tap needs follow each other in a few runs.

// gradOrder is the pixels of a band in that order, image by image in each, and
// the steps that sum them.
type gradOrder struct {
	pixel, out []int32 // like those of bands
	steps      []gradStep
}

// gradStep sums runs of pixels for some rows (taps and channels) that follow each other.
type gradStep struct {
	first, rows int
	runs        []gradRun
}

// gradRun is the pixels k … k+n−1 of the order.
type gradRun struct{ k, n int }

const (
	gradChannels   = 16  // rows of a tap that are worth a step
	gradImages     = 8   // images from which on it pays to leave out a pixel at the cost of one more run
	gradSmall      = 200 // pixels of an image whose bands hold more
	gradSmallBand  = 640 // pixels, so that runs are long
	gradRunsOfBand = maxKBlock
)

// newGradOrder sorts the pixels of some rows of some images of a band, for taps
// of so many channels, if all taps need some.
func newGradOrder(b *bands, row, rows, images, channels int) (o *gradOrder, work int) {
	o = &gradOrder{}
	perImage := b.rows * b.w.n
	for i := range rows * b.w.n {
		for img := range images {
			o.pixel = append(o.pixel, b.pixel[img*perImage+i])
			o.out = append(o.out, b.out[img*perImage+i])
		}
	}
	byColumn := images >= gradImages
	line := b.w.n * images // pixels of a row
	var last [4]int
	for i := range b.h.taps {
		i0, i1 := b.h.needs(i, row, rows, b.inH)
		for j := range b.w.taps {
			j0, j1 := 0, b.w.n
			if byColumn {
				j0, j1 = b.w.needs(j, 0, b.w.n, b.inW)
			}
			if i0 >= i1 || j0 >= j1 {
				return nil, 0
			}
			work += (i1 - i0) * (j1 - j0)
			at := (i*len(b.w.taps) + j) * channels
			if reach := [4]int{i0, i1, j0, j1}; len(o.steps) == 0 || reach != last {
				last = reach
				o.steps = append(o.steps, gradStep{first: at, runs: runsOf(i0, i1, j0, j1, line, images)})
			}
			o.steps[len(o.steps)-1].rows += channels
		}
	}
	return o, work
}

// multiplyBorder sums a band with an order.
func (g *weightGrad) multiplyBorder(p *weightGradPart, o *gradOrder, s *Scratch, panelBuf []float32) {
	m, pan := &s.product, &s.panel
	nr := g.t.nr
	pan.a, pan.b, pan.ldb, pan.next, pan.ahead = m.a, panelBuf, nr, nil, 0
	for j := 0; j < m.n; j += nr {
		pan.n, pan.c = min(nr, m.n-j), m.c[j:]
		g.t.pack(panelBuf, m.b[j:], o.out, pan.n, nr, nr, 1)
		for i := range o.steps {
			step := &o.steps[i]
			pan.ro, pan.co, pan.rows, pan.add = p.ro[step.first:], p.co[step.first:], step.rows, m.add
			for _, r := range step.runs {
				pan.ko, pan.b = o.pixel[r.k:][:r.n], panelBuf[r.k*nr:]
				g.t.run(pan)
				pan.add = true
			}
		}
	}
}

// runsOf lists the pixels of rows i0 … i1−1 and columns j0 … j1−1, in pieces
// whose sums are worth a load and a store.
func runsOf(i0, i1, j0, j1, line, images int) []gradRun {
	var runs []gradRun
	add := func(k, n int) {
		block := blockOf(n, gradRunsOfBand, 1)
		for at := 0; at < n; at += block {
			runs = append(runs, gradRun{k + at, min(block, n-at)})
		}
	}
	if (j1-j0)*images == line {
		add(i0*line, (i1-i0)*line)
		return runs
	}
	for i := i0; i < i1; i++ {
		add(i*line+j0*images, (j1-j0)*images)
	}
	return runs
}
