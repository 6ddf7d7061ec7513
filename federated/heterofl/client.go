package heterofl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/gomlx/core/graph"
)

type client struct{ *Algorithm }

// Run trains the member's thin network and returns its change, to be averaged over the coordinates that count.
func (c client) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	if t.Phase != "train" {
		return c.Cycle.Run(ctx, at, t, keep)
	}
	var level task
	if err := json.Unmarshal(t.Params, &level); err != nil {
		return federated.Result{}, fmt.Errorf("task parameters: %w", err)
	}
	if at.Train.Len() == 0 {
		return federated.Result{Status: federated.Abstained}, nil
	}
	spec, err := c.spec(level.Rate)
	if err != nil {
		return federated.Result{}, err
	}
	mask, labels := at.Labels(spec.Model.Classes)
	var o train.Options
	if c.Mask != train.NoMask {
		o.LabelMask = mask
	}
	w := t.Sets["w"]
	s, err := at.Engine.Begin(spec, w, o)
	if err != nil {
		return federated.Result{}, err
	}
	defer s.Close()
	fit := c.Fit(at, t.Round)
	if c.Scheme == Ordered {
		if fit.Vary, err = c.widths(level.Rate, at, t.Round); err != nil {
			return federated.Result{}, err
		}
	}
	report, err := s.Fit(ctx, fit)
	if err != nil {
		return federated.Result{}, err
	}
	if report.Steps == 0 { // every batch was too small
		return federated.Result{Status: federated.Abstained}, nil
	}
	trained, err := s.Params()
	if err != nil {
		return federated.Result{}, err
	}
	return c.Reply(t, federated.Trained{Weights: trained, Examples: uint64(at.Train.Len()), Labels: labels, Report: report})
}

// External implements [federated.External]. FjORD's steps of changing width are not for others.
func (a *Algorithm) External() error {
	if a.Scheme == Ordered {
		return errors.New("fjord redraws the width of the model at every step, which only its own client does")
	}
	return nil
}

// Assignment implements [federated.External].
func (a *Algorithm) Assignment(t federated.Task) (federated.Assignment, error) {
	var level task
	if err := json.Unmarshal(t.Params, &level); err != nil {
		return federated.Assignment{}, fmt.Errorf("task parameters: %w", err)
	}
	out := federated.Assignment{Level: level.Level, Rate: level.Rate, Scale: 1, Mask: a.Mask}
	if !a.Unscaled {
		out.Scale = level.Rate / a.Rate
	}
	return out, nil
}

// Reply implements [federated.External]: the change of the member's slice, of which the rows of its own labels count.
func (a *Algorithm) Reply(t federated.Task, r federated.Trained) (federated.Result, error) {
	for _, l := range r.Labels {
		if l < 0 || int(l) >= a.global.Classes {
			return federated.Result{}, fmt.Errorf("label %d in a model of %d classes", l, a.global.Classes)
		}
	}
	return federated.Result{
		Addends: map[string]weights.Set{"w": r.Weights.Sub(t.Sets["w"])},
		Cover:   a.cover(t.Index, r.Labels),
		Scalars: federated.FitScalars(r.Report),
	}, nil
}

// Rows says which tensors have a row for each label, and how many labels there are: sums that nobody sees in part leave out
// the rows of labels that too few members have.
func (a *Algorithm) Rows(p federated.Phase) (tensors []string, labels int) {
	if p.Name != "train" {
		return nil, 0
	}
	for _, q := range a.global.Params {
		if q.Labels {
			tensors, labels = append(tensors, q.Name), max(labels, q.Dims[0].At(a.Rate))
		}
	}
	return tensors, labels
}

// Covers returns what the result of a training task will cover.
func (a *Algorithm) Covers(at federated.Local, t federated.Task) (weights.Index, error) {
	var level task
	if err := json.Unmarshal(t.Params, &level); err != nil {
		return nil, fmt.Errorf("task parameters: %w", err)
	}
	var labels []int32
	if at.Train.Len() > 0 {
		_, labels = at.Labels(a.global.Classes)
	}
	return a.cover(t.Index, labels), nil
}

// spec is the training step of one level: Scaler ρ = s/s_global and the mask.
func (c client) spec(rate float64) (*train.Spec, error) {
	return c.Spec("train", rate, func(s *train.Spec) {
		s.Mask = c.Mask
		if !c.Unscaled {
			s.Scale = rate / c.Rate
		}
	})
}

// cover is the part of a member's slice that counts: all of it, except that in tensors whose first axis is labels only the
// rows of the member's own labels do.
func (a *Algorithm) cover(ix weights.Index, labels []int32) weights.Index {
	cover := make(weights.Index, len(ix))
	for _, p := range a.global.Params {
		axes := ix[p.Name]
		if p.Labels {
			rows := labels
			if n := p.Dims[0].At(a.Rate); n > a.global.Classes && !a.Reference { // an embedding's row for the mask token
				rows = append(append([]int32(nil), labels...), int32(n-1))
			}
			with := make([]weights.Axis, len(p.Dims))
			copy(with, axes)
			with[0] = weights.List(rows)
			axes = with
		}
		cover[p.Name] = axes
	}
	return cover
}

// widths returns, for FjORD, the step at a width drawn anew from the levels up to the member's own: the leading slice of
// the member's weights, to which alone gradients flow.
func (c client) widths(own float64, at federated.Local, round int) (func(int) *train.Spec, error) {
	var specs []*train.Spec
	for _, l := range c.Mode {
		if l.Rate > own {
			continue
		}
		spec, err := c.ordered(own, l.Rate)
		if err != nil {
			return nil, err
		}
		specs = append(specs, spec)
	}
	r := at.Rand(round, "widths")
	return func(int) *train.Spec { return specs[r.IntN(len(specs))] }, nil
}

func (c client) ordered(own, rate float64) (*train.Spec, error) {
	if rate == own {
		return c.spec(own)
	}
	wide, err := c.Build(own)
	if err != nil {
		return nil, err
	}
	return c.Spec(fmt.Sprintf("ordered in %g", own), rate, func(s *train.Spec) {
		s.Mask = c.Mask
		if !c.Unscaled {
			s.Scale = rate / c.Rate
		}
		s.Holds = wide
		s.Derive = func(a *train.Adjust) map[string]*graph.Node {
			out := make(map[string]*graph.Node, len(wide.Params))
			for _, p := range wide.Params {
				out[p.Name] = leadingSlice(a.Params[p.Name], p, own, rate)
			}
			return out
		}
	})
}

// leadingSlice cuts the leading positions of every scaled axis of x, a parameter at rate own, for a model at a lower rate;
// of every head, where there are heads.
func leadingSlice(x *graph.Node, p nn.Param, own, rate float64) *graph.Node {
	for axis, d := range p.Dims {
		whole, keep := d.At(own), d.At(rate)
		if whole == keep {
			continue
		}
		if d.Heads == 0 {
			x = graph.SliceAxis(x, axis, graph.AxisRange(0, keep))
			continue
		}
		dims := x.Shape().Dimensions
		split := append(append(append([]int(nil), dims[:axis]...), d.Heads, whole/d.Heads), dims[axis+1:]...)
		x = graph.SliceAxis(graph.Reshape(x, split...), axis+1, graph.AxisRange(0, keep/d.Heads))
		joined := append(append(append([]int(nil), dims[:axis]...), keep), dims[axis+1:]...)
		x = graph.Reshape(x, joined...)
	}
	return x
}
