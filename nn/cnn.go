package nn

import "fmt"

// buildCNN makes the convolutional network of HeteroFL (arXiv 2010.01264): for every width a 3×3 convolution with bias,
// Scaler, norm, activation and, except for the last, 2×2 max pooling; then the mean over positions and "linear".
// Convolutions are "conv1", "conv2" …, norms "norm1" ….
func buildCNN(c Config, rate float64) (*Model, error) {
	b := newBuilder("cnn", c, rate)
	body, last := b.convolutions(c.Widths)
	return b.done(chain(body, b.classifier("linear", last)))
}

// buildGALCNN makes the convolutional network of GAL (Diao, Ding and Tarokh, NeurIPS 2022, released code): that of HeteroFL with
// other initial values, γ from N(1, 0.02²) and the bias of "linear" as PyTorch draws it, and with batch norm unless another is asked for.
func buildGALCNN(c Config, rate float64) (*Model, error) {
	b := newBuilder("galcnn", c, rate)
	b.scale = Init{Kind: Normal, Mean: 1, Value: 0.02}
	body, last := b.convolutions(c.Widths)
	return b.done(chain(body, b.torchLinear("linear", last, fixed("classes", c.Classes), true)))
}

// convolutions are the layers of cnn before its last.
func (b *builder) convolutions(widths []int) (layer, Dim) {
	in := b.input()
	var layers []layer
	for i, width := range widths {
		name := fmt.Sprintf("conv%d", i+1)
		conv, out := b.conv(name, in, convolution{out: scaled(name, width), kernel: 3, stride: 1, bias: true})
		layers = append(layers, conv, scaler, b.normalize(fmt.Sprintf("norm%d", i+1), out), b.act)
		if i < len(widths)-1 {
			var pool layer
			pool, out = b.maxPool(fmt.Sprintf("pool%d", i+1), out)
			layers = append(layers, pool)
		}
		in = out
	}
	return chain(append(layers, globalMean)...), in.dim
}

// buildLeNet makes the convolutional network of the FedAvg paper (arXiv 1602.05629, section 3): two 5×5 convolutions
// "conv1" and "conv2", each with activation and 2×2 max pooling, hidden linear layers "linear1" …, and "linear". With the
// default widths on 28×28×1 it has the paper's 1,663,370 parameters. Scaler and norm follow every convolution and hidden
// linear layer.
func buildLeNet(c Config, rate float64) (*Model, error) {
	b := newBuilder("lenet", c, rate)
	in := b.input()
	var layers []layer
	norms := 0
	norm := func(f features) layer {
		norms++
		return b.normalize(fmt.Sprintf("norm%d", norms), f)
	}
	for i, width := range c.Widths {
		name := fmt.Sprintf("conv%d", i+1)
		conv, out := b.conv(name, in, convolution{out: scaled(name, width), kernel: 5, stride: 1, bias: true})
		layers = append(layers, conv, scaler, norm(out), b.act)
		var pool layer
		pool, in = b.maxPool(fmt.Sprintf("pool%d", i+1), out)
		layers = append(layers, pool)
	}
	flat, flatDim := flatten(in)
	layers = append(layers, flat)
	last := flatDim
	for i, width := range c.Hidden {
		out := scaled(fmt.Sprintf("linear%d", i+1), width)
		layers = append(layers, b.torchLinear(out.Name, last, out, false), scaler,
			norm(features{dim: out, height: 1, width: 1}), b.act)
		last = out
	}
	layers = append(layers, b.torchLinear("linear", last, fixed("classes", c.Classes), true))
	return b.done(chain(layers...))
}
