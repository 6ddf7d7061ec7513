package nn

// Module is one layer with parameters, as the cost of a model is counted.
type Module struct {
	Name   string
	Params []string
	// MACs is the number of multiply-accumulate operations of one example: convolutions and linear layers only.
	MACs func(rate float64) int64
	// Ops is MACs plus one addition an output for a convolution's bias, and 2·elements for a norm layer: the operations
	// that the HeteroFL paper's counter sees.
	Ops func(rate float64) int64
}
