package recipe_test

import "github.com/cohort-learning/cohort/simulation"

// lastAccuracy remembers the accuracy of the last round.
type lastAccuracy struct{ accuracy float64 }

// Progress implements [simulation.Observer].
func (*lastAccuracy) Progress(int, string, int, int) {}

// Round implements [simulation.Observer].
func (l *lastAccuracy) Round(r simulation.Round) { l.accuracy = r.Metric("accuracy", "") }
