package kernel

// axis is one dimension of a convolution: output position o reads, through tap t,
// the input position
//
//	(o·alpha + beta + t·gamma) / delta
//
// if that is a whole number between 0 and in−1, and zero otherwise. The forward
// convolution has alpha = stride, beta = −padding, gamma = kernel dilation and
// delta = input dilation; the gradient with respect to the input has alpha = input
// dilation, beta = padding, gamma = −kernel dilation and delta = stride.
type axis struct {
	out, in, taps             int
	alpha, beta, gamma, delta int
}

// axisClass is the part of an axis where input position = base + offset with one
// base for each output and one offset for each tap. Its outputs are
// first, first+step, …, n of them, with bases base, base+baseStep, …
type axisClass struct {
	first, step, n int
	base, baseStep int
	taps, offs     []int
}

// classes splits an axis by the remainder modulo delta. The classes hold every
// output once. With trim, taps that read nothing but zeros are left out.
func (x axis) classes(trim bool) []axisClass {
	var list []axisClass
	for rest := range x.delta {
		c := axisClass{first: -1, step: 1, baseStep: 1}
		for o := range x.out {
			if mod(o*x.alpha+x.beta, x.delta) != rest {
				continue
			}
			base := (o*x.alpha + x.beta - rest) / x.delta
			switch {
			case c.n == 0:
				c.first, c.base = o, base
			case c.n == 1:
				c.step, c.baseStep = o-c.first, base-c.base
			}
			c.n++
		}
		if c.n == 0 {
			continue
		}
		for t := range x.taps {
			if mod(t*x.gamma+rest, x.delta) != 0 {
				continue
			}
			off := (t*x.gamma + rest) / x.delta
			if trim && !c.reads(off, x.in) {
				continue
			}
			c.taps, c.offs = append(c.taps, t), append(c.offs, off)
		}
		list = append(list, c)
	}
	return list
}

// reads reports whether some output of the class reads a real input through offset off.
func (c axisClass) reads(off, in int) bool {
	for i := range c.n {
		if at := c.base + i*c.baseStep + off; at >= 0 && at < in {
			return true
		}
	}
	return false
}

// offRange returns the least and the greatest offset.
func (c axisClass) offRange() (lo, hi int) {
	lo, hi = c.offs[0], c.offs[0]
	for _, o := range c.offs {
		lo, hi = min(lo, o), max(hi, o)
	}
	return lo, hi
}

// mod is the remainder of a by b > 0 in 0 … b−1.
func mod(a, b int) int { return (a%b + b) % b }
