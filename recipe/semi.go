package recipe

import "github.com/cohort-learning/cohort/federated"

// semiSupervised changes defaults to those of methods that learn without the clients' labels: a hundred labelled examples are the
// server's, images move a little, and the rate falls to nothing.
func (r *Recipe) semiSupervised() {
	r.Partition.Server = 100
	r.Train.Crop = 2
	r.Train.Optimizer = Optimizer{Name: "sgd", Rate: 0.03, Momentum: 0.9, Nesterov: true, Decay: 5e-4}
	r.Train.Schedule = Schedule{Kind: "cosine"}
	r.Round.Up = true
	r.Evaluate.Clients = false
}

// labels returns an error if the method learns from labels of the server alone, and a simulation sets none apart.
func (r *Recipe) labels(bare federated.Algorithm) error {
	needs, ok := bare.(interface{ NeedsLabels() bool })
	if ok && needs.NeedsLabels() && r.Partition.Server == 0 {
		return fieldf("partition.server", "0, and %s learns from labelled examples that no client has: say how many, such as 10 of each class", r.Method)
	}
	return nil
}

// unlabelled reports whether members may have data without labels.
func (r *Recipe) unlabelled() bool {
	o, ok := r.Options.(interface{ Unlabelled() bool })
	return ok && o.Unlabelled()
}
