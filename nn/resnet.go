package nn

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/gomlx/gomlx/core/graph"
)

// buildResNet makes a residual network with pre-activation blocks (He et al. 2016, arXiv 1603.05027): a 3×3 convolution
// "conv1" without bias, stages "layer1" … of blocks whose first halves the image (not in stage 1), then Scaler, "norm",
// ReLU, the mean over positions and "linear".
//
// A block is x ↦ shortcut + conv2(a(norm2(conv1(a(norm1(x)))))) with a = ReLU. Where the block changes shape the shortcut is
// a 1×1 convolution "shortcut" of the activated input, else x itself. The Scaler stands on the input of every norm and not
// on the identity shortcut. A bottleneck has a third convolution, 1×1 to 4 times the width.
func buildResNet(c Config, rate float64) (*Model, error) {
	b := newBuilder("resnet", c, rate)
	b.act = activations["relu"]
	if len(c.Blocks) != len(c.Widths) {
		b.fail("%d stages of blocks %v for %d widths %v: give both for every stage",
			len(c.Blocks), c.Blocks, len(c.Widths), c.Widths)
		return b.done(nil)
	}
	expansion := 1
	if c.Bottleneck {
		expansion = 4
	}
	// The identity shortcuts add a block's input to its output, so that all outputs of a stage, and the stem's if stage 1
	// starts with an identity shortcut, share one axis.
	stage := func(i int) Dim { return scaled(fmt.Sprintf("layer%d", i+1), c.Widths[i]*expansion) }
	stem := scaled("conv1", c.Widths[0])
	if expansion == 1 {
		stem = stage(0)
	}
	return b.residualNet(stem, stage, c.Widths, c.Blocks, c.Bottleneck)
}

// buildWideResNet makes a wide residual network (Zagoruyko and Komodakis 2016, arXiv 1605.07146) as SemiFL uses it (Diao, Ding,
// Tarokh, arXiv 2106.01432): a 3×3 convolution to 16 channels, then stages of 16·k, 32·k, 64·k … channels, k = c.Widen, of
// buildResNet's blocks, of which all but the first stage halve the image, until its shorter side is 8 to 15 pixels: for a side of
// s there are G = ⌊log₂ s⌋ − 2 stages, at least 1, of ⌊((c.Depth−1)/G − 1)/2⌋ blocks. WRN-28-2 on 32×32 images has 3 stages of 4.
//
// Kernels of convolutions start as N(0, 2/fan_out) with fan_out = height·width·outputs (He et al. 2015), linear as in
// buildResNet.
func buildWideResNet(c Config, rate float64) (*Model, error) {
	b := newBuilder("wresnet", c, rate)
	b.act = activations["relu"]
	b.kernel = Init{Kind: Normal, FanOut: true}
	stages := max(1, bits.Len(uint(min(c.Input[0], c.Input[1])))-3)
	blocks := ((c.Depth-1)/stages - 1) / 2
	if blocks < 1 {
		b.fail("depth %d leaves no block for each of the %d stages that images of %d×%d have: give at least %d",
			c.Depth, stages, c.Input[0], c.Input[1], 3*stages+1)
		return b.done(nil)
	}
	widths := make([]int, stages)
	for i := range widths {
		widths[i] = 16 * c.Widen << i
	}
	stage := func(i int) Dim { return scaled(fmt.Sprintf("layer%d", i+1), widths[i]) }
	stem := scaled("conv1", 16)
	if widths[0] == 16 { // then the first shortcut is the identity
		stem = stage(0)
	}
	return b.residualNet(stem, stage, widths, slices.Repeat([]int{blocks}, stages), false)
}

// residualNet builds stem, stages and the end of a residual network: stage(i) is the output axis of stage i, of blocks[i] blocks
// of inner width widths[i].
func (b *builder) residualNet(stem Dim, stage func(i int) Dim, widths, blocks []int, bottleneck bool) (*Model, error) {
	conv, x := b.conv("conv1", b.input(), convolution{out: stem, kernel: 3, stride: 1})
	layers := []layer{conv}
	for i, n := range blocks {
		for j := range n {
			stride := 1
			if i > 0 && j == 0 {
				stride = 2
			}
			var l layer
			l, x = b.residual(fmt.Sprintf("layer%d.%d", i+1, j), x, stage(i), widths[i], stride, bottleneck)
			layers = append(layers, l)
		}
	}
	layers = append(layers, scaler, b.normalize("norm", x), b.act, globalMean, b.classifier("linear", x.dim))
	return b.done(chain(layers...))
}

// residual adds one block with the given output axis and inner width.
func (b *builder) residual(name string, in features, out Dim, width, stride int, bottleneck bool) (layer, features) {
	inner := func(i int) Dim { return scaled(fmt.Sprintf("%s.conv%d", name, i), width) }
	plan := []convolution{{out: inner(1), kernel: 3, stride: stride}, {out: out, kernel: 3, stride: 1}}
	if bottleneck {
		plan = []convolution{{out: inner(1), kernel: 1, stride: 1}, {out: inner(2), kernel: 3, stride: stride},
			{out: out, kernel: 1, stride: 1}}
	}
	x := in
	norms, convs := make([]layer, len(plan)), make([]layer, len(plan))
	for i, c := range plan {
		norms[i] = b.normalize(fmt.Sprintf("%s.norm%d", name, i+1), x)
		convs[i], x = b.conv(fmt.Sprintf("%s.conv%d", name, i+1), x, c)
	}
	var shortcut layer
	if stride != 1 || in.dim.Name != out.Name {
		shortcut, _ = b.conv(name+".shortcut", in, convolution{out: out, kernel: 1, stride: stride})
	}
	return func(p *Pass, in *graph.Node) *graph.Node {
		x, side := in, in
		for i := range plan {
			x = b.act(p, norms[i](p, scaler(p, x)))
			if i == 0 && shortcut != nil {
				side = shortcut(p, x)
			}
			x = convs[i](p, x)
		}
		return graph.Add(x, side)
	}, x
}
