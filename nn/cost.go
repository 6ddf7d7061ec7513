package nn

import "fmt"

// Module is one layer with parameters, as the cost of a model is counted. Counts are for one example.
type Module struct {
	Name   string
	Params []string // the parameters that gradients change
	// MACs is the number of multiply-accumulate operations: convolutions and linear layers only.
	MACs int64
	// Ops is MACs plus one addition an output for a convolution's bias, and 2·elements for a norm layer: the operations
	// that the counter of the HeteroFL paper sees.
	Ops int64
}

// Cost is the size of a model and the work of one forward pass of one example.
type Cost struct {
	Params int64 // scalars that gradients change
	Bytes  int64 // 4 bytes for every scalar, running statistics included: what travels one way
	MACs   int64 // multiply-accumulate operations of convolutions and linear layers
	// FLOPs follows the counter behind the tables of HeteroFL (arXiv 2010.01264): Σ over modules of Ops times the number of
	// parameter tensors of the module, so that a convolution with bias, a norm and a linear layer count double.
	// Activations, pooling and the Scaler count 0.
	FLOPs int64
}

// MiB returns the bytes of c in units of 2²⁰.
func (c Cost) MiB() float64 { return float64(c.Bytes) / (1 << 20) }

// Cost counts m at its width.
func (m *Model) Cost() Cost {
	var c Cost
	for _, p := range m.Params {
		n := int64(1)
		for _, d := range p.Shape(m.Rate) {
			n *= int64(d)
		}
		if p.Trained() {
			c.Params += n
		}
		c.Bytes += 4 * n
	}
	for _, md := range m.Modules {
		c.MACs += md.MACs
		c.FLOPs += md.Ops * int64(len(md.Params))
	}
	return c
}

// MixtureRatio returns the mean number of parameters of a population of models, of which share[i] (any positive unit) have
// rate rates[i], divided by the parameters of the largest: the column "Ratio" of the tables of HeteroFL. Nil shares are
// equal. It returns the first error of build.
func MixtureRatio(build Builder, rates, shares []float64) (float64, error) {
	if len(rates) == 0 || (shares != nil && len(shares) != len(rates)) {
		return 0, fmt.Errorf("a mixture of %d rates and %d shares: give one share a rate", len(rates), len(shares))
	}
	var sum, total, largest float64
	for i, r := range rates {
		m, err := build(r)
		if err != nil {
			return 0, err
		}
		share := 1.0
		if shares != nil {
			share = shares[i]
		}
		n := float64(m.Cost().Params)
		sum += share * n
		total += share
		largest = max(largest, n)
	}
	return sum / (total * largest), nil
}
