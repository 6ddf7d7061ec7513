package private

import "fmt"

// Cause is what of a run does not go with secure sums or differential privacy.
type Cause string

// The causes of an [UnfitError].
const (
	Method      Cause = "method"      // the method itself
	Evaluation  Cause = "evaluation"  // members measure the model on their own data
	Statistics  Cause = "statistics"  // members compute the model's batch norm statistics
	Members     Cause = "members"     // too few take part in a round
	Drawing     Cause = "drawing"     // who takes part is drawn by secret coins
	Distributed Cause = "distributed" // members add the noise
	Scale       Cause = "scale"       // integers of noise that members add
)

// UnfitError says why secure sums or differential privacy cannot be put around a method on a problem, and what to do about it.
type UnfitError struct {
	Cause Cause
	Err   error
}

func (e *UnfitError) Error() string { return e.Err.Error() }
func (e *UnfitError) Unwrap() error { return e.Err }

func unfit(c Cause, format string, args ...any) error {
	return &UnfitError{c, fmt.Errorf(format, args...)}
}
