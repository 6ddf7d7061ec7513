package program

import (
	"errors"
	"fmt"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/train"
)

// Version is the version of the contract. It changes when a program written for it would not work any more; fields may be
// added without.
const Version = 1

// Task is the content of task.json: what one member is to do in one round.
type Task struct {
	Version int    `json:"version"`
	Method  string `json:"method"`
	Round   int    `json:"round"` // from 0
	Member  string `json:"member"`
	Seed    uint64 `json:"seed"` // of this member and round, below 2⁵³
	Data    string `json:"data"` // as the user gave it

	Epochs      int       `json:"epochs"` // passes over the data; 0: Steps says when to end
	Steps       int       `json:"steps"`  // bound of the steps; 0: none
	Batch       int       `json:"batch"`  // examples a step; 0: all of them
	Rate        float64   `json:"rate"`   // learning rate of this round
	Clip        float64   `json:"clip"`   // bound of the gradient's global L2 norm; 0: none
	Optimizer   Optimizer `json:"optimizer"`
	Proximal    float64   `json:"proximal"` // μ: add μ(w − w_received) to the gradients (FedProx)
	Crop        int       `json:"crop"`     // pad images by so many pixels and crop at random
	Flip        bool      `json:"flip"`     // mirror half of the images
	SkipSingles bool      `json:"skip_singles"`

	Task    string   `json:"task"`              // classification, regression or masked language model
	Loss    string   `json:"loss"`              // cross-entropy or mean-squares
	Classes []string `json:"classes,omitempty"` // agreed names; index = label
	Labels  []int32  `json:"labels,omitempty"`  // classes that the member's data have, if they could be read
	// Mask says what becomes of the outputs of classes that the data do not have: none, zero or exclude (−∞).
	Mask string `json:"mask"`
	Hide *Hide  `json:"hide,omitempty"` // language models: tokens that are hidden

	Model Model        `json:"model"`
	Input recipe.Input `json:"input"` // what an example looks like and how it is normalised

	Weights string `json:"weights"` // files in the work folder
	Update  string `json:"update"`
	Result  string `json:"result"`
}

// Optimizer is a local optimiser as PyTorch defines it; it starts afresh every round.
type Optimizer struct {
	Name     string     `json:"name"` // sgd, adam or adamw
	Momentum float64    `json:"momentum"`
	Nesterov bool       `json:"nesterov"`
	Decay    float64    `json:"decay"` // weight decay
	Betas    [2]float64 `json:"betas"`
	Epsilon  float64    `json:"epsilon"`
}

// Model is the architecture whose weights were sent.
type Model struct {
	Architecture string  `json:"architecture"`
	Config       any     `json:"config"`          // its settings at rate 1, those that are not at their default
	Level        string  `json:"level,omitempty"` // of the member, where members differ
	Rate         float64 `json:"rate"`            // part of the hidden width that was sent
	Scale        float64 `json:"scale"`           // activations are divided by it in training (HeteroFL's Scaler); 1: not
}

// Hide hides each input token with a probability behind another one.
type Hide struct {
	Probability float64 `json:"probability"`
	Token       int32   `json:"token"`
}

// Names of the files of a work folder.
const (
	taskFile    = "task.json"
	weightsFile = "weights.safetensors"
	updateFile  = "update.safetensors"
	resultFile  = "result.json"
)

// task describes a training task for the program.
func (c *Client) task(at federated.Local, t federated.Task) (*Task, error) {
	as, err := c.method.Assignment(t)
	if err != nil {
		return nil, err
	}
	if _, ok := t.Sets["w"]; !ok {
		return nil, errors.New("a training task without weights")
	}
	p := c.plan.Problem
	tr := p.Training
	out := &Task{
		Version: Version, Method: c.plan.Recipe.Method, Round: t.Round, Member: at.Member.Name, Data: c.o.Data,
		Seed:   at.Rand(t.Round, "program").Uint64() >> 11,
		Epochs: tr.Epochs, Steps: tr.Steps, Batch: tr.Batch, Rate: tr.Rate.At(t.Round), Clip: tr.Clip, Proximal: as.Proximal,
		Crop: tr.Augment.CropPad, Flip: tr.Augment.FlipH, SkipSingles: tr.SkipSingles,
		Task: c.card.Task, Loss: "cross-entropy", Classes: c.card.Classes,
		Mask:    map[train.Mask]string{train.NoMask: "none", train.ZeroMask: "zero", train.InfMask: "exclude"}[as.Mask],
		Model:   Model{c.card.Architecture, c.card.Config, as.Level, as.Rate, as.Scale},
		Input:   c.card.Input,
		Weights: weightsFile, Update: updateFile, Result: resultFile,
	}
	if p.Loss == train.MeanSquares {
		out.Loss = "mean-squares"
	}
	if p.Hide.Prob > 0 {
		out.Hide = &Hide{p.Hide.Prob, p.Hide.ID}
	}
	if out.Optimizer, err = optimizer(tr.Optimizer); err != nil {
		return nil, err
	}
	if at.Train.Data != nil && p.Loss == train.CrossEntropy {
		m, err := p.Build(as.Rate)
		if err != nil {
			return nil, err
		}
		_, out.Labels = at.Labels(m.Classes)
	}
	return out, nil
}

func optimizer(o train.Optimizer) (Optimizer, error) {
	switch o := o.(type) {
	case nil:
		return Optimizer{Name: "sgd"}, nil
	case train.SGD:
		return Optimizer{Name: "sgd", Momentum: o.Momentum, Nesterov: o.Nesterov, Decay: o.Decay}, nil
	case train.Adam:
		return Optimizer{Name: "adam", Betas: o.Betas, Epsilon: epsilon(o.Eps), Decay: o.Decay}, nil
	case train.AdamW:
		return Optimizer{Name: "adamw", Betas: o.Betas, Epsilon: epsilon(o.Eps), Decay: o.Decay}, nil
	}
	return Optimizer{}, fmt.Errorf("a program cannot be told of the optimiser %T", o)
}

// epsilon is what the optimisers take 0 for.
func epsilon(e float64) float64 {
	if e == 0 {
		return 1e-8
	}
	return e
}
