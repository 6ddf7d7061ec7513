package federated

// Measured are the numbers beside tensors that members send, whatever the method: sums over their steps, batches or examples.
// Where members agree to a run, these are what they agree to send.
var Measured = []string{"train.loss", "train.examples", "train.steps", "batches", "examples", "loss", "correct",
	"personal.loss", "personal.correct", "personal.begun"}
