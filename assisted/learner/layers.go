package learner

import (
	"math"

	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

// layer is one step of a network on a batch: rows are examples, columns their values, of images by row, column and channel.
// It keeps what backward needs, so that a network belongs to one goroutine.
type layer interface {
	forward(x *mat.Dense, train bool) *mat.Dense
	// backward writes the gradients of the layer's parameters, given that of its output, and returns that of its input.
	backward(g *mat.Dense) *mat.Dense
	// start draws the parameters, as PyTorch does unless something else is said.
	start(r *rng.Stream)
}

// slab gives out parts of the flat vectors that hold a network's parameters, their gradients, and running statistics.
type slab struct{ values, grads, stats []float64 }

func (s *slab) take(n int) (values, grads []float64) {
	values, grads = s.values[:n:n], s.grads[:n:n]
	s.values, s.grads = s.values[n:], s.grads[n:]
	return values, grads
}

func (s *slab) keep(n int) (stats []float64) {
	stats = s.stats[:n:n]
	s.stats = s.stats[n:]
	return stats
}

func uniform(r *rng.Stream, v []float64, bound float64) {
	for i := range v {
		v[i] = r.Uniform(-bound, bound)
	}
}

// dense is y = xW + b.
type dense struct {
	w, gw *mat.Dense
	b, gb []float64
	x     *mat.Dense
}

func newDense(s *slab, in, out int) *dense {
	w, gw := s.take(in * out)
	b, gb := s.take(out)
	return &dense{w: mat.NewDense(in, out, w), gw: mat.NewDense(in, out, gw), b: b, gb: gb}
}

func (l *dense) start(r *rng.Stream) {
	in, _ := l.w.Dims()
	l.draw(r, 1/math.Sqrt(float64(in)))
}

func (l *dense) draw(r *rng.Stream, bound float64) {
	uniform(r, l.w.RawMatrix().Data, bound)
	uniform(r, l.b, bound)
}

func (l *dense) forward(x *mat.Dense, _ bool) *mat.Dense {
	l.x = x
	y := new(mat.Dense)
	y.Mul(x, l.w)
	n, _ := y.Dims()
	for i := range n {
		floats.Add(y.RawRowView(i), l.b)
	}
	return y
}

func (l *dense) backward(g *mat.Dense) *mat.Dense {
	l.gw.Mul(l.x.T(), g)
	clear(l.gb)
	n, _ := g.Dims()
	for i := range n {
		floats.Add(l.gb, g.RawRowView(i))
	}
	in := new(mat.Dense)
	in.Mul(g, l.w.T())
	return in
}

// relu is max(x, 0).
type relu struct{ y *mat.Dense }

func (l *relu) start(*rng.Stream) {}

func (l *relu) forward(x *mat.Dense, _ bool) *mat.Dense {
	l.y = x
	data := x.RawMatrix().Data
	for i, v := range data {
		data[i] = max(v, 0)
	}
	return x
}

func (l *relu) backward(g *mat.Dense) *mat.Dense {
	data := g.RawMatrix().Data
	for i, v := range l.y.RawMatrix().Data {
		if v <= 0 {
			data[i] = 0
		}
	}
	return g
}

// image is the shape of what a layer of a convolutional network gets.
type image struct{ height, width, channels int }

func (m image) size() int { return m.height * m.width * m.channels }

// conv is a 3×3 convolution with padding 1 and bias: a dense layer on the 9 neighbours of every position.
type conv struct {
	image
	*dense
	rows int
}

func newConv(s *slab, in image, out int) *conv {
	return &conv{image: in, dense: newDense(s, 9*in.channels, out)}
}

// each calls do for every neighbour that lies in the image: its place among the columns of patch row at, and in the image.
func (l *conv) each(do func(at, column, pixel int)) {
	for row := range l.height {
		for column := range l.width {
			for k := range 9 {
				y, x := row+k/3-1, column+k%3-1
				if y >= 0 && y < l.height && x >= 0 && x < l.width {
					do(row*l.width+column, k*l.channels, (y*l.width+x)*l.channels)
				}
			}
		}
	}
}

func (l *conv) forward(x *mat.Dense, train bool) *mat.Dense {
	l.rows, _ = x.Dims()
	positions := l.height * l.width
	patches := mat.NewDense(l.rows*positions, 9*l.channels, nil)
	parallel(l.rows, func(i int) {
		from := x.RawRowView(i)
		l.each(func(at, column, pixel int) {
			copy(patches.RawRowView(i*positions + at)[column:][:l.channels], from[pixel:])
		})
	})
	y := l.dense.forward(patches, train)
	return mat.NewDense(l.rows, positions*len(l.b), y.RawMatrix().Data)
}

func (l *conv) backward(g *mat.Dense) *mat.Dense {
	positions := l.height * l.width
	patches := l.dense.backward(mat.NewDense(l.rows*positions, len(l.b), g.RawMatrix().Data))
	in := mat.NewDense(l.rows, l.size(), nil)
	parallel(l.rows, func(i int) {
		to := in.RawRowView(i)
		l.each(func(at, column, pixel int) {
			floats.Add(to[pixel:][:l.channels], patches.RawRowView(i*positions + at)[column:][:l.channels])
		})
	})
	return in
}

// pool is the maximum over 2×2 squares; a last odd row or column is left out.
type pool struct {
	image
	from [][]int // by row, the pixel that each output came from
}

func (l *pool) start(*rng.Stream) {}

func (l *pool) forward(x *mat.Dense, _ bool) *mat.Dense {
	n, _ := x.Dims()
	h, w := l.height/2, l.width/2
	y := mat.NewDense(n, h*w*l.channels, nil)
	l.from = make([][]int, n)
	parallel(n, func(i int) {
		from, to := x.RawRowView(i), y.RawRowView(i)
		l.from[i] = make([]int, len(to))
		for at := range to {
			c, column, row := at%l.channels, at/l.channels%w, at/l.channels/w
			best := ((2*row)*l.width+2*column)*l.channels + c
			for _, other := range [3]int{best + l.channels, best + l.width*l.channels, best + (l.width+1)*l.channels} {
				if from[other] > from[best] {
					best = other
				}
			}
			to[at], l.from[i][at] = from[best], best
		}
	})
	return y
}

func (l *pool) backward(g *mat.Dense) *mat.Dense {
	n, _ := g.Dims()
	in := mat.NewDense(n, l.size(), nil)
	for i := range n {
		to := in.RawRowView(i)
		for at, v := range g.RawRowView(i) {
			to[l.from[i][at]] += v
		}
	}
	return in
}

// average is the mean over positions.
type average struct{ image }

func (l average) start(*rng.Stream) {}

func (l average) forward(x *mat.Dense, _ bool) *mat.Dense {
	n, _ := x.Dims()
	y := mat.NewDense(n, l.channels, nil)
	for i := range n {
		for at, v := range x.RawRowView(i) {
			y.RawRowView(i)[at%l.channels] += v / float64(l.height*l.width)
		}
	}
	return y
}

func (l average) backward(g *mat.Dense) *mat.Dense {
	n, _ := g.Dims()
	in := mat.NewDense(n, l.size(), nil)
	for i := range n {
		to := in.RawRowView(i)
		for at := range to {
			to[at] = g.At(i, at%l.channels) / float64(l.height*l.width)
		}
	}
	return in
}

// batchNorm standardises every channel by its batch in training and by running statistics afterwards (Ioffe and Szegedy
// 2015), with ε = 10⁻⁵ and momentum 0.1, and scales and shifts it.
type batchNorm struct {
	channels       int
	gamma, dGamma  []float64
	beta, dBeta    []float64
	mean, variance []float64 // running
	z              *mat.Dense
	deviation      []float64
}

func newBatchNorm(s *slab, channels int) *batchNorm {
	l := &batchNorm{channels: channels, mean: s.keep(channels), variance: s.keep(channels)}
	l.gamma, l.dGamma = s.take(channels)
	l.beta, l.dBeta = s.take(channels)
	return l
}

// start draws γ from N(1, 0.02²), as the network of GAL does.
func (l *batchNorm) start(r *rng.Stream) {
	for c := range l.channels {
		l.gamma[c], l.beta[c] = 1+0.02*r.NormFloat64(), 0
		l.mean[c], l.variance[c] = 0, 1
	}
}

const normEpsilon = 1e-5

func (l *batchNorm) forward(x *mat.Dense, train bool) *mat.Dense {
	data := x.RawMatrix().Data
	mean, variance := l.mean, l.variance
	if train {
		mean, variance = l.statistics(data)
	}
	l.deviation = make([]float64, l.channels)
	for c, v := range variance {
		l.deviation[c] = math.Sqrt(v + normEpsilon)
	}
	n, d := x.Dims()
	l.z = mat.NewDense(n, d, nil)
	z := l.z.RawMatrix().Data
	for at, v := range data {
		c := at % l.channels
		z[at] = (v - mean[c]) / l.deviation[c]
		data[at] = float64(l.gamma[c]*z[at]) + l.beta[c]
	}
	return x
}

// statistics returns the mean and the variance of every channel, and lets the running ones follow.
func (l *batchNorm) statistics(data []float64) (mean, variance []float64) {
	mean, variance = make([]float64, l.channels), make([]float64, l.channels)
	n := float64(len(data) / l.channels)
	for at, v := range data {
		mean[at%l.channels] += v
	}
	floats.Scale(1/n, mean)
	for at, v := range data {
		c := at % l.channels
		variance[c] += float64((v - mean[c]) * (v - mean[c]))
	}
	floats.Scale(1/n, variance)
	for c := range mean {
		l.mean[c] += 0.1 * (mean[c] - l.mean[c])
		l.variance[c] += 0.1 * (variance[c]*n/max(n-1, 1) - l.variance[c])
	}
	return mean, variance
}

func (l *batchNorm) backward(g *mat.Dense) *mat.Dense {
	data, z := g.RawMatrix().Data, l.z.RawMatrix().Data
	clear(l.dGamma)
	clear(l.dBeta)
	for at, v := range data {
		c := at % l.channels
		l.dGamma[c] += float64(v * z[at])
		l.dBeta[c] += v
	}
	n := float64(len(data) / l.channels)
	for at, v := range data {
		c := at % l.channels
		data[at] = l.gamma[c] / l.deviation[c] * (v - l.dBeta[c]/n - float64(z[at]*l.dGamma[c])/n)
	}
	return g
}
