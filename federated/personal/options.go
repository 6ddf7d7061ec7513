package personal

import (
	"fmt"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedavg"
)

// Shared are the options of all methods whose server is FedAvg's.
type Shared struct {
	Weighting string `yaml:"weighting" doc:"How clients weigh in the average: examples or uniform."`
}

func (o Shared) weigh(a *fedavg.Algorithm) (err error) {
	a.Uniform, err = federated.UniformWeighting(o.Weighting)
	return err
}

// byExamples weighs as published.
func byExamples() Shared { return Shared{Weighting: "examples"} }

// Own are the options of work on a client's own model.
type Own struct {
	Epochs int     `yaml:"own_epochs,omitempty" doc:"Passes over the client's data for its own model; 0 means as many as for the global one."`
	Steps  int     `yaml:"own_steps,omitempty" doc:"Steps for the client's own model instead of epochs."`
	Rate   float64 `yaml:"own_rate,omitempty" doc:"Learning rate of the client's own model; 0 means that of the round."`
}

func (o Own) work() (Work, error) {
	switch {
	case o.Epochs < 0:
		return Work{}, fmt.Errorf("own_epochs: %d, expected 0 or more", o.Epochs)
	case o.Steps < 0:
		return Work{}, fmt.Errorf("own_steps: %d, expected 0 or more", o.Steps)
	case o.Steps > 0 && o.Epochs > 0:
		return Work{}, fmt.Errorf("own_steps: give either epochs or steps, not %d and %d", o.Epochs, o.Steps)
	case !(o.Rate >= 0):
		return Work{}, fmt.Errorf("own_rate: %g, expected 0 or more", o.Rate)
	}
	return Work(o), nil
}

// DittoOptions are those of Ditto in a recipe.
type DittoOptions struct {
	Shared `yaml:",inline"`
	Lambda float64 `yaml:"lambda" doc:"How strongly a client's own model is pulled to the global one; 0 lets clients learn alone. The paper tries 0.05 to 2."`
	Own    `yaml:",inline"`
}

// DittoDefaults returns Ditto with λ = 1.
func DittoDefaults() *DittoOptions { return &DittoOptions{Shared: byExamples(), Lambda: 1} }

// New returns Ditto on a problem.
func (o *DittoOptions) New(p *federated.Problem) (federated.Algorithm, error) {
	if !(o.Lambda >= 0) {
		return nil, fmt.Errorf("lambda: %g, expected 0 or more", o.Lambda)
	}
	a := NewDitto(p, o.Lambda)
	var err error
	if a.Work, err = o.work(); err != nil {
		return nil, err
	}
	return a, o.weigh(a.avg)
}

// PerFedAvgOptions are those of Per-FedAvg in a recipe.
type PerFedAvgOptions struct {
	Shared    `yaml:",inline"`
	Alpha     float64 `yaml:"alpha" doc:"Rate of the step that makes the model personal; the rate of training is beta."`
	Curvature string  `yaml:"curvature" doc:"Second derivative: first-order leaves it out (FO), difference takes that of two gradients (HF), exact differentiates twice (no convolutions)."`
	Delta     float64 `yaml:"delta,omitempty" doc:"difference: how far apart the two gradients are taken; 0 means 0.001."`
	Epochs    int     `yaml:"own_epochs,omitempty" doc:"Passes over its data by which a client makes the model personal; 0 means one step."`
}

// PerFedAvgDefaults returns Per-FedAvg (HF) with α = 0.01.
func PerFedAvgDefaults() *PerFedAvgOptions {
	return &PerFedAvgOptions{Shared: byExamples(), Alpha: 0.01, Curvature: string(Difference)}
}

// New returns Per-FedAvg on a problem.
func (o *PerFedAvgOptions) New(p *federated.Problem) (federated.Algorithm, error) {
	switch c := Curvature(o.Curvature); {
	case !(o.Alpha >= 0):
		return nil, fmt.Errorf("alpha: %g, expected 0 or more", o.Alpha)
	case c != FirstOrder && c != Difference && c != Exact:
		return nil, fmt.Errorf("curvature: %q, expected %s, %s or %s", o.Curvature, FirstOrder, Difference, Exact)
	case !(o.Delta >= 0):
		return nil, fmt.Errorf("delta: %g, expected more than 0, or 0 for 0.001", o.Delta)
	case o.Delta != 0 && c != Difference:
		return nil, fmt.Errorf("delta: it is for curvature difference, not for %s", c)
	case o.Epochs < 0:
		return nil, fmt.Errorf("own_epochs: %d, expected 0 or more", o.Epochs)
	}
	a := NewPerFedAvg(p, o.Alpha, Curvature(o.Curvature))
	a.Delta, a.Epochs = o.Delta, o.Epochs
	return a, o.weigh(a.avg)
}

// PFedMeOptions are those of pFedMe in a recipe.
type PFedMeOptions struct {
	Shared   `yaml:",inline"`
	Lambda   float64 `yaml:"lambda" doc:"How strongly a client's own model is pulled to the global one; times the learning rate it must stay below 1."`
	OwnRate  float64 `yaml:"own_rate" doc:"Learning rate of the client's own model; times lambda it must stay below 2."`
	Inner    int     `yaml:"inner" doc:"Steps on the own model for each batch."`
	Beta     float64 `yaml:"beta,omitempty" doc:"How far the server moves to the clients' average; 0 means 1, all the way."`
	TrainAll bool    `yaml:"train_all,omitempty" doc:"Clients that were not drawn train their own models, too, as in the authors' code."`
}

// PFedMeDefaults returns pFedMe with the values of the authors' code.
func PFedMeDefaults() *PFedMeOptions {
	return &PFedMeOptions{Shared: byExamples(), Lambda: 15, OwnRate: 0.05, Inner: 5}
}

// New returns pFedMe on a problem.
func (o *PFedMeOptions) New(p *federated.Problem) (federated.Algorithm, error) {
	switch {
	case !(o.Lambda > 0):
		return nil, fmt.Errorf("lambda: %g, expected more than 0", o.Lambda)
	case !(o.OwnRate > 0):
		return nil, fmt.Errorf("own_rate: %g, expected more than 0", o.OwnRate)
	case o.OwnRate*o.Lambda >= 2:
		return nil, fmt.Errorf("own_rate: %g times lambda %g is %g, and the own model diverges; expected less than 2", o.OwnRate, o.Lambda, o.OwnRate*o.Lambda)
	case o.Inner < 1:
		return nil, fmt.Errorf("inner: %d, expected at least 1", o.Inner)
	case !(o.Beta >= 0):
		return nil, fmt.Errorf("beta: %g, expected more than 0, or 0 for 1", o.Beta)
	}
	a := NewPFedMe(p)
	a.Lambda, a.Rate, a.Inner, a.Average, a.All = o.Lambda, o.OwnRate, o.Inner, o.Beta, o.TrainAll
	return a, o.weigh(a.avg)
}

// APFLOptions are those of APFL in a recipe.
type APFLOptions struct {
	Shared   `yaml:",inline"`
	Alpha    float64 `yaml:"alpha" doc:"Part of the own model in the mixture that a client uses, in [0, 1]."`
	Adaptive bool    `yaml:"adaptive,omitempty" doc:"Let alpha follow its gradient, client by client."`
	Mix      string  `yaml:"mix" doc:"What is mixed: parameters, or outputs of the two networks."`
}

// APFLDefaults returns APFL with α = 0.5.
func APFLDefaults() *APFLOptions {
	return &APFLOptions{Shared: byExamples(), Alpha: 0.5, Mix: "parameters"}
}

// New returns APFL on a problem.
func (o *APFLOptions) New(p *federated.Problem) (federated.Algorithm, error) {
	switch {
	case !(o.Alpha >= 0 && o.Alpha <= 1):
		return nil, fmt.Errorf("alpha: %g, expected a number in [0, 1]", o.Alpha)
	case o.Mix != "parameters" && o.Mix != "outputs":
		return nil, fmt.Errorf("mix: %q, expected parameters or outputs", o.Mix)
	case o.Adaptive && o.Mix == "outputs":
		return nil, fmt.Errorf("adaptive: alpha follows its gradient where parameters are mixed; leave it out, or set mix to parameters")
	}
	a := NewAPFL(p, o.Alpha)
	a.Adaptive, a.Outputs = o.Adaptive, o.Mix == "outputs"
	return a, o.weigh(a.avg)
}

// SplitOptions are those of FedPer in a recipe.
type SplitOptions struct {
	Shared     `yaml:",inline"`
	HeadEpochs int      `yaml:"head_epochs" doc:"Passes over its data by which a client trains a new head on the body: FedRep in every round, FedPer when a client that has not trained is tested."`
	Final      int      `yaml:"final_epochs,omitempty" doc:"Further passes on the head before the last test."`
	Head       []string `yaml:"head,omitempty" doc:"Parameters of the head; left out, those of the last dense layer."`
}

// FedPerDefaults returns FedPer.
func FedPerDefaults() *SplitOptions { return &SplitOptions{Shared: byExamples(), HeadEpochs: 10} }

// New returns FedPer on a problem.
func (o *SplitOptions) New(p *federated.Problem) (federated.Algorithm, error) {
	a := NewFedPer(p)
	return a, o.fill(a)
}

func (o *SplitOptions) fill(a *Split) (err error) {
	if a.Uniform, err = federated.UniformWeighting(o.Weighting); err != nil {
		return err
	}
	switch {
	case o.HeadEpochs < 0:
		return fmt.Errorf("head_epochs: %d, expected 0 or more", o.HeadEpochs)
	case o.Final < 0:
		return fmt.Errorf("final_epochs: %d, expected 0 or more", o.Final)
	}
	a.HeadEpochs, a.Final, a.Heads = o.HeadEpochs, o.Final, o.Head
	return nil
}

// FedRepOptions are those of FedRep in a recipe.
type FedRepOptions struct {
	SplitOptions `yaml:",inline"`
	BodyEpochs   int `yaml:"body_epochs" doc:"Passes over the client's data for the shared body; 0 means as train says."`
}

// FedRepDefaults returns FedRep with ten epochs on the head and one on the body.
func FedRepDefaults() *FedRepOptions {
	return &FedRepOptions{SplitOptions: *FedPerDefaults(), BodyEpochs: 1}
}

// New returns FedRep on a problem.
func (o *FedRepOptions) New(p *federated.Problem) (federated.Algorithm, error) {
	if o.BodyEpochs < 0 {
		return nil, fmt.Errorf("body_epochs: %d, expected 0 or more", o.BodyEpochs)
	}
	a := NewFedRep(p)
	a.BodyEpochs = o.BodyEpochs
	return a, o.fill(a)
}

// FineTuneOptions are those of FedAvg with fine-tuning in a recipe.
type FineTuneOptions struct {
	Shared `yaml:",inline"`
	Own    `yaml:",inline"`
	Layers string `yaml:"layers" doc:"What a client trains on for itself: all layers, or head, the last one."`
}

// FineTuneDefaults returns fine-tuning of all layers for five epochs.
func FineTuneDefaults() *FineTuneOptions {
	return &FineTuneOptions{Shared: byExamples(), Own: Own{Epochs: 5}, Layers: "all"}
}

// New returns FedAvg with fine-tuning on a problem.
func (o *FineTuneOptions) New(p *federated.Problem) (federated.Algorithm, error) {
	if o.Layers != "all" && o.Layers != "head" {
		return nil, fmt.Errorf("layers: %q, expected all or head", o.Layers)
	}
	a := NewFineTune(p, 0)
	var err error
	if a.Work, err = o.work(); err != nil {
		return nil, err
	}
	a.Head = o.Layers == "head"
	return a, o.weigh(a.avg)
}
