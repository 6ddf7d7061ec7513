package federated

import "slices"

// Measured are the numbers beside tensors that members send, whatever the method: sums over their steps, batches or examples.
// Where members agree to a run, these are what they agree to send.
var Measured = []string{"train.loss", "train.examples", "train.steps", "batches", "examples", "loss", "correct",
	"personal.loss", "personal.correct", "personal.begun"}

// Measurer is an [Algorithm] whose members send sums of their own besides.
type Measurer interface {
	// Measures names them.
	Measures() []string
}

// MeasuredBy returns what members of a method send beside tensors: Measured, and what the method adds.
func MeasuredBy(a Algorithm) []string {
	m, ok := a.(Measurer)
	if !ok {
		return Measured
	}
	return append(slices.Clone(Measured), m.Measures()...)
}
