package main

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// Case is one thing that both sides do and that is timed. It travels to them as JSON.
type Case struct {
	Kind string `json:"kind"` // gemm, conv or train
	Name string `json:"name"`

	// gemm: C = A·B with A m×k and B k×n; TA and TB say that the operand lies transposed in memory.
	M  int  `json:"m,omitempty"`
	N  int  `json:"n,omitempty"` // conv: images
	K  int  `json:"k,omitempty"`
	TA bool `json:"ta"`
	TB bool `json:"tb"`

	// conv: images n×h×w×cin, kernel kh×kw, the same stride, padding and dilation on both axes.
	H        int  `json:"h,omitempty"`
	W        int  `json:"w,omitempty"`
	Cin      int  `json:"cin,omitempty"`
	Cout     int  `json:"cout,omitempty"`
	KH       int  `json:"kh,omitempty"`
	KW       int  `json:"kw,omitempty"`
	Stride   int  `json:"stride,omitempty"`
	Pad      int  `json:"pad"`
	Dil      int  `json:"dil,omitempty"`
	Groups   int  `json:"groups,omitempty"`
	Backward bool `json:"backward"` // also both gradients

	// train: one step of forward, backward, clipping and SGD with momentum.
	Model string  `json:"model,omitempty"`
	Rate  float64 `json:"rate,omitempty"` // width relative to the full model
	Batch int     `json:"batch,omitempty"`
}

// out is the length of an output axis of a convolution.
func (c Case) out(n, k int) int { return (n+2*c.Pad-c.Dil*(k-1)-1)/c.Stride + 1 }

// Flops is the number of floating-point operations: two for each multiply-add of products and
// convolutions, padding included, and three times as many with both gradients. Those of a training
// step are counted as if every layer needed both; everything but products and convolutions is free.
func (c Case) Flops() float64 {
	switch c.Kind {
	case "gemm":
		return 2 * float64(c.M) * float64(c.N) * float64(c.K)
	case "conv":
		f := 2 * float64(c.N) * float64(c.out(c.H, c.KH)*c.out(c.W, c.KW)) *
			float64(c.KH*c.KW) * float64(c.Cin/c.Groups) * float64(c.Cout)
		if c.Backward {
			f *= 3
		}
		return f
	case "train":
		m, _, err := trainCase(c)
		if err != nil {
			return 0
		}
		return 6 * float64(m.Cost().MACs) * float64(c.Batch)
	}
	return 0
}

func gemm(m, n, k int, ta, tb bool) Case {
	layout := map[[2]bool]string{{false, true}: " nt", {true, false}: " tn", {true, true}: " tt"}[[2]bool{ta, tb}]
	return Case{Kind: "gemm", Name: fmt.Sprintf("sgemm %d×%d×%d%s", m, n, k, layout), M: m, N: n, K: k, TA: ta, TB: tb}
}

func conv(n, size, cin, cout, kernel, stride int, backward bool) Case {
	c := Case{Kind: "conv", N: n, H: size, W: size, Cin: cin, Cout: cout, KH: kernel, KW: kernel,
		Stride: stride, Pad: kernel / 2, Dil: 1, Groups: 1, Backward: backward}
	c.name()
	return c
}

// name describes a convolution: batch, image, channels, kernel, and what is not 1.
func (c *Case) name() {
	what := "fwd"
	if c.Backward {
		what = "fwd+bwd"
	}
	c.Name = fmt.Sprintf("conv %d×%d×%d %d→%d %d×%d", c.N, c.H, c.W, c.Cin, c.Cout, c.KH, c.KW)
	if c.Stride > 1 {
		c.Name += fmt.Sprintf(" s%d", c.Stride)
	}
	if c.Dil > 1 {
		c.Name += fmt.Sprintf(" d%d", c.Dil)
	}
	if c.Groups > 1 {
		c.Name += fmt.Sprintf(" g%d", c.Groups)
	}
	if c.Pad != c.KH/2 {
		c.Name += fmt.Sprintf(" p%d", c.Pad)
	}
	c.Name += " " + what
}

func step(label, model string, rate float64, batch int) Case {
	return Case{Kind: "train", Name: fmt.Sprintf("train %s batch %d", label, batch), Model: model, Rate: rate, Batch: batch}
}

// standardCases are the shapes of the models that the project trains, and square products.
// Products are named m×n×k; nt is a product with a transposed second operand (a linear layer
// whose weight is stored output first), tn the gradient of such a weight.
func standardCases() []Case {
	var cs []Case
	for _, n := range []int{64, 128, 256, 512, 1024, 2048} {
		cs = append(cs, gemm(n, n, n, false, false))
	}
	cs = append(cs,
		gemm(10, 200, 784, false, true), // MLP, batch 10: forward, weight gradient, output layer
		gemm(200, 784, 10, true, false),
		gemm(10, 10, 200, false, true),
		gemm(20, 2600, 650, false, true), // LSTM: one time step, its input gradient and weight gradient
		gemm(20, 650, 2600, false, false),
		gemm(2600, 650, 700, true, false),
		gemm(700, 10000, 650, false, true), // LSTM: all positions to the vocabulary
		gemm(1, 1024, 1024, false, false),
	)
	for _, batch := range []int{10, 128} {
		for _, backward := range []bool{false, true} {
			for _, s := range []struct{ size, cin, cout, kernel, stride int }{
				{28, 1, 64, 3, 1}, {14, 64, 128, 3, 1}, {7, 128, 256, 3, 1}, {3, 256, 512, 3, 1}, // CNN
				{32, 3, 64, 3, 1}, {32, 64, 64, 3, 1}, {32, 64, 128, 3, 2}, {32, 64, 128, 1, 2}, // ResNet
				{16, 128, 128, 3, 1}, {8, 256, 256, 3, 1}, {4, 512, 512, 3, 1},
				{32, 16, 16, 3, 1}, {8, 64, 64, 3, 1}, // level c
			} {
				cs = append(cs, conv(batch, s.size, s.cin, s.cout, s.kernel, s.stride, backward))
			}
		}
	}
	return append(cs,
		step("mlp 784-200-10", "mlp", 1, 10),
		step("cnn a 28×28", "cnn", 1, 10),
		step("cnn a 28×28", "cnn", 1, 128),
		step("resnet a 32×32", "resnet", 1, 10),
		step("resnet a 32×32", "resnet", 1, 128),
		step("resnet c 32×32", "resnet", 0.25, 10),
		step("resnet c 32×32", "resnet", 0.25, 128),
		step("lstm 2×650 35 steps", "lstm", 1, 20),
		step("wrn-28-2 32×32", "wrn", 1, 10),
	)
}

// quickCases leave out what takes long or says little beyond its neighbours, and begin with whole
// steps, because the time may run out.
func quickCases() []Case {
	var cs []Case
	for _, kind := range []string{"train", "gemm", "conv"} {
		for _, c := range standardCases() {
			switch {
			case c.Kind != kind:
			case kind == "conv" && (c.N == 128 || !c.Backward):
			case kind == "gemm" && c.M == 2048:
			case kind == "train" && c.Model == "resnet" && c.Rate == 1 && c.Batch == 128:
			default:
				cs = append(cs, c)
			}
		}
	}
	return cs
}

// randomCases draws n products and convolutions (with both gradients) that nobody has tuned for,
// of up to about 4 GFLOP each.
func randomCases(n int, seed uint64) []Case {
	r := rand.New(rand.NewPCG(seed, 0))
	// log draws between lo and hi with a uniform logarithm, so that small sizes are as frequent as large ones.
	log := func(lo, hi int) int {
		return int(math.Round(float64(lo) * math.Pow(float64(hi)/float64(lo), r.Float64())))
	}
	var cs []Case
	for len(cs) < n {
		var c Case
		if len(cs)%5 < 2 {
			c = gemm(log(1, 3000), log(1, 3000), log(4, 3000), r.IntN(3) == 0, r.IntN(3) == 0)
		} else {
			g := 1
			if r.IntN(6) == 0 {
				g = 1 << (1 + r.IntN(3))
			}
			c = Case{Kind: "conv", N: log(1, 64), H: log(4, 48), W: log(4, 48), Cin: g * log(1, 256/g), Cout: g * log(4, 256/g),
				KH: 1 + r.IntN(5), KW: 1 + r.IntN(5), Stride: 1 + r.IntN(4)/3, Dil: 1 + r.IntN(6)/5, Groups: g, Backward: true}
			if c.Stride > 1 { // GoMLX has no gradient for both, nor for wider padding
				c.Dil = 1
			}
			c.Pad = r.IntN(c.Dil*(min(c.KH, c.KW)-1)/2 + 1)
			if c.H+2*c.Pad <= c.Dil*(c.KH-1) || c.W+2*c.Pad <= c.Dil*(c.KW-1) {
				continue
			}
			c.name()
		}
		if f := c.Flops(); f >= 1e5 && f < 4e9 {
			cs = append(cs, c)
		}
	}
	return cs
}
