package federated

import (
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// External is an [Algorithm] whose training phase, "train", may be done by a program that a member brings along instead of
// our own loop: a function from weights to weights. Methods do not implement it whose members keep something of their own
// from round to round, or compute more than new weights.
type External interface {
	Algorithm
	// External returns why no program can do the training as the method is set up, or nil.
	External() error
	// Assignment says what a training task asks of a member beside the weights that it sends.
	Assignment(Task) (Assignment, error)
	// Reply returns what a member sends that has trained.
	Reply(Task, Trained) (Result, error)
}

// Assignment is what a program needs to know of a training task.
type Assignment struct {
	Level string  // of the member, e.g. "b"; empty where all members have the same model
	Rate  float64 // of the architecture that is sent: part of the hidden width
	// Scale is ρ: activations are divided by it in training (the Scaler of HeteroFL); 1 leaves them.
	Scale    float64
	Mask     train.Mask // what becomes of the outputs of classes that the member does not have
	Proximal float64    // μ: μ(w − w_received) is added to the gradients (FedProx)
}

// Trained is what a member's training gave.
type Trained struct {
	Weights  weights.Set // names and shapes as in the task's set "w"
	Examples uint64      // that the member has; its weight where members weigh by their examples
	Labels   []int32     // classes (of text: tokens) of these examples, sorted
	Report   train.Report
}
