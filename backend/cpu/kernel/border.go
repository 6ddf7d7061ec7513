package kernel

import "slices"

// A pixel at the border of an image reads nothing through some of the taps. In
// small images that is much of the work (five ninths of the corner of a 3×3
// kernel), so the rows of a band are sorted by the taps they reach, and each
// summand is added to the rows that it belongs to only.

// borderOrder is the rows of a band in that order, and the steps that compute them.
type borderOrder struct {
	pixel, out []int32 // like those of bands
	passes     []borderPass
}

// borderPass is computed for one panel of columns after the other.
type borderPass struct {
	channel, channels int // of each tap
	steps             []borderStep
}

// borderStep adds the summands k … k+n−1 of the plan to some ranges of rows. In
// a panel of the channels of its pass only, the first of them is at.
type borderStep struct {
	k, n, at int
	ranges   []borderRange
}

// borderRange is some rows that follow each other in the order; with add, they
// hold sums already.
type borderRange struct {
	first, rows int
	add         bool
}

// borderGroup is the rows that reach the taps h0 … h1−1 and w0 … w1−1, by number
// in the axis classes.
type borderGroup struct {
	h0, h1, w0, w1 int
	first, rows    int
}

// reach returns the first tap through which output i of the class reads an
// input, and the one behind the last.
func (c axisClass) reach(i, in int) (lo, hi int) {
	return span(len(c.offs), func(t int) bool { return c.inImage(i, t, in) })
}

// needs returns the first of the outputs row … row+n−1, counted from row, that
// reads an input through tap t, and the one behind the last.
func (c axisClass) needs(t, row, n, in int) (lo, hi int) {
	return span(n, func(i int) bool { return c.inImage(row+i, t, in) })
}

// inImage tells whether output i reads an input through tap t.
func (c axisClass) inImage(i, t, in int) bool {
	at := c.base + i*c.baseStep + c.offs[t]
	return at >= 0 && at < in
}

// span returns the first run of numbers below n that are in.
func span(n int, in func(int) bool) (lo, hi int) {
	for lo < n && !in(lo) {
		lo++
	}
	for hi = lo; hi < n && in(hi); hi++ {
	}
	return lo, hi
}

const (
	borderChannels = 32  // fewer make steps too short to be worth it
	tapChannels    = 192 // from here on a step is one tap
	tapBlock       = 256 // channels of such a step at most
)

// newBorderOrder sorts the pixels of some rows of some images of a band, with so
// many input channels, if all pixels read something.
func newBorderOrder(b *bands, row, rows, images, channels int) (o *borderOrder, work int) {
	groups := map[[4]int][]int{} // pixels of the first image
	for i := range rows {
		h0, h1 := b.h.reach(row+i, b.inH)
		for j := range b.w.n {
			w0, w1 := b.w.reach(j, b.inW)
			if h0 == h1 || w0 == w1 {
				return nil, 0
			}
			key := [4]int{h0, h1, w0, w1}
			groups[key] = append(groups[key], i*b.w.n+j)
			work += (h1 - h0) * (w1 - w0)
		}
	}
	keys := make([][4]int, 0, len(groups))
	for key := range groups {
		keys = append(keys, key)
	}
	// Neighbours in this order share taps, so that ranges span several groups.
	slices.SortFunc(keys, func(x, y [4]int) int {
		for d := range x {
			if x[d] != y[d] {
				return y[d] - x[d]
			}
		}
		return 0
	})
	o = &borderOrder{}
	perImage := b.rows * b.w.n
	var list []borderGroup
	for _, key := range keys {
		g := borderGroup{key[0], key[1], key[2], key[3], len(o.pixel), len(groups[key]) * images}
		list = append(list, g)
		for img := range images {
			for _, pixel := range groups[key] {
				o.pixel = append(o.pixel, b.pixel[img*perImage+pixel])
				o.out = append(o.out, b.out[img*perImage+pixel])
			}
		}
	}
	if channels >= tapChannels {
		o.byTap(b, list, channels)
	} else {
		o.byGroup(b, list, channels)
	}
	return o, work
}

// ordersOf makes an order for each band that is unlike the others: for each of
// an image, or for a full one and for the last if that holds fewer images. one
// also returns how many pairs of a pixel and a tap its order computes, or none if
// there cannot be one. The result is nil then, and if next to nothing is saved.
func ordersOf[T any](b *bands, one func(row, rows, images int) (order *T, work int)) []*T {
	var list []*T
	all, work := 0, 0
	try := func(row, rows, images int) bool {
		o, n := one(row, rows, images)
		list = append(list, o)
		work += n * images
		all += rows * b.w.n * images * len(b.h.taps) * len(b.w.taps)
		return o != nil
	}
	ok := true
	if b.perImage > 0 {
		for row := 0; ok && row < b.h.n; row += b.rows {
			ok = try(row, min(b.rows, b.h.n-row), 1)
		}
	} else {
		ok = try(0, b.rows, b.perBand)
		if rest := b.images % b.perBand; ok && rest > 0 {
			ok = try(0, b.rows, rest)
		}
	}
	if !ok || all-work < all/64 {
		return nil
	}
	return list
}

// orderOf returns the order of a band.
func orderOf[T any](b *bands, orders []*T, band int) *T {
	switch image, _, images, _, _ := b.place(band); {
	case b.perImage > 0:
		return orders[band-image*b.perImage]
	case images < b.perBand:
		return orders[1]
	}
	return orders[0]
}

// planBorder chooses where a part with orders reads its weights from.
func (c *correlation) planBorder(p *correlationPart) {
	for tap := 0; tap < len(p.wo); tap += c.s.in {
		p.tapWo = append(p.tapWo, p.wo[tap])
	}
	p.source = bPhase
	scratch := p.b.bufferLen()
	if p.b.count == 1 && c.s.in >= tapChannels {
		p.source = bTask
		scratch += len(p.tapWo) * blockOf(c.s.in, tapBlock, 1) * c.t.nr
	}
	c.scratchLen = max(c.scratchLen, scratch)
}

// byTap makes steps of one tap each, for all groups that reach it.
func (o *borderOrder) byTap(b *bands, list []borderGroup, channels int) {
	kw := len(b.w.taps)
	block := blockOf(channels, tapBlock, 1)
	known := make([]bool, len(list)) // groups that hold sums
	for c := 0; c < channels; c += block {
		n := min(block, channels-c)
		pass := borderPass{channel: c, channels: n}
		for _, tap := range fromMiddle(len(b.h.taps) * kw) {
			i, j := tap/kw, tap%kw
			step := borderStep{k: tap*channels + c, n: n, at: tap * n}
			for x, g := range list {
				if i < g.h0 || i >= g.h1 || j < g.w0 || j >= g.w1 {
					continue
				}
				if l := len(step.ranges); l > 0 {
					last := &step.ranges[l-1]
					if last.add == known[x] && last.first+last.rows == g.first {
						last.rows += g.rows
						known[x] = true
						continue
					}
				}
				step.ranges = append(step.ranges, borderRange{g.first, g.rows, known[x]})
				known[x] = true
			}
			if len(step.ranges) > 0 {
				pass.steps = append(pass.steps, step)
			}
		}
		o.passes = append(o.passes, pass)
	}
}

// fromMiddle lists 0 … n−1 from the middle on, so that the first step reaches
// all rows if one does.
func fromMiddle(n int) []int {
	list := []int{n / 2}
	for i := range n {
		if i != n/2 {
			list = append(list, i)
		}
	}
	return list
}

// byGroup makes steps of one group each, for as many taps as follow each other.
func (o *borderOrder) byGroup(b *bands, list []borderGroup, channels int) {
	kw := len(b.w.taps)
	for _, g := range list {
		add := false
		sum := func(first, taps int) {
			end := (first + taps) * channels
			block := blockOf(taps*channels, maxKBlock, 1)
			for k := first * channels; k < end; k += block {
				step := borderStep{k: k, n: min(block, end-k), at: k, ranges: []borderRange{{g.first, g.rows, add}}}
				o.passes = append(o.passes, borderPass{channels: channels, steps: []borderStep{step}})
				add = true
			}
		}
		if g.w1-g.w0 == kw {
			sum(g.h0*kw, (g.h1-g.h0)*kw)
			continue
		}
		for i := g.h0; i < g.h1; i++ {
			sum(i*kw+g.w0, g.w1-g.w0)
		}
	}
}

// multiplyBorder is multiply for a band with an order.
func (c *correlation) multiplyBorder(p *correlationPart, o *borderOrder, s *Scratch, panelBuf []float32) {
	m, pan := &s.product, &s.panel
	nr := m.t.nr
	pan.a, pan.ldb, pan.next, pan.ahead = m.a, nr, nil, 0
	for i := range o.passes {
		pass := &o.passes[i]
		for j := 0; j < m.n; j += nr {
			pan.n, pan.c = min(nr, m.n-j), m.c[j:]
			packed := panelBuf
			if m.source == bPhase {
				packed = m.packed[j/nr*len(m.ko)*nr:]
			} else {
				c.packTaps(p, packed, m.b[j*m.bStride:], pass.channel, pass.channels, pan.n)
			}
			for x := range pass.steps {
				step := &pass.steps[x]
				pan.ko = m.ko[step.k:][:step.n]
				pan.b = packed[step.at*nr:]
				if m.source == bPhase {
					pan.b = packed[step.k*nr:]
				}
				for _, r := range step.ranges {
					pan.ro, pan.co, pan.rows, pan.add = o.pixel[r.first:], o.out[r.first:], r.rows, r.add
					m.t.run(pan)
				}
			}
		}
	}
}

// packTaps packs n columns of the weights of some input channels of all taps of
// a part: rows tap by tap, and channel by channel in each.
func (c *correlation) packTaps(p *correlationPart, dst, w []float32, channel, channels, n int) {
	nr, in := c.t.nr, c.s.in
	taps := len(p.wo) / in
	// Where the taps of a channel lie side by side, they become rows far apart.
	if follow := taps >= 4 && runLength(p.tapWo) == taps && c.s.weight.out > 1; follow && c.t.transpose != nil {
		for ch := range channels {
			c.t.transpose(dst[ch*nr:], w[p.wo[channel+ch]:], taps, n, nr, channels*nr, c.s.weight.out)
		}
		return
	}
	for tap := range taps {
		c.t.pack(dst[tap*channels*nr:], w, p.wo[tap*in+channel:][:channels], n, nr, nr, c.s.weight.out)
	}
}
