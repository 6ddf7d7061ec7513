package train

import (
	"context"
	"errors"
	"fmt"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/weights"
)

// Most methods change the gradient of a step within it, by [Spec.Adjust]. Those whose update is made of several gradients, at
// several weights, ask for each of them, combine them, and take the step by [Session.Descend].

// Gradient returns the mean loss over v and its raw gradient (no Adjust, no clipping) at the session's weights:
// Σ_b n_b·g_b / Σ_b n_b over batches b in training mode. With Pass.Batch 0 it is the gradient of FedSGD
// (arXiv 1602.05629) and SCAFFOLD's option I (arXiv 1910.06378).
func (s *Session) Gradient(ctx context.Context, v dataset.View, p Pass) (loss float64, grad weights.Set, err error) {
	if loss, grad, err = s.average(ctx, gradientKind, v, p); err != nil {
		err = fmt.Errorf("gradient of %s: %w", s.l.held.Name, err)
	}
	return loss, grad, err
}

// Curvature returns the product of the Hessian of the mean loss over v at the session's weights and a direction d, which has a
// tensor for every trained parameter:
//
//	∇²F(w; v)·d = ∇_w ⟨∇F(w; v), d⟩ at fixed d
//
// over batches as in [Session.Gradient]. It differentiates twice, which the engine cannot do through every operation; the error
// says so. The symmetric difference (∇F(w+δd) − ∇F(w−δd))/2δ of two gradients comes close for any model.
func (s *Session) Curvature(ctx context.Context, v dataset.View, p Pass, d weights.Set) (weights.Set, error) {
	err := s.setDirection(d)
	if err == nil {
		_, d, err = s.average(ctx, curvatureKind, v, p)
	}
	if err != nil {
		return weights.Set{}, fmt.Errorf("curvature of %s: %w", s.l.held.Name, err)
	}
	return d, nil
}

// Descend makes one step of all groups along a gradient g that the caller has made, which has a tensor for every trained
// parameter: through Adjust, clipping and the optimiser, as if g were the gradient of a batch.
func (s *Session) Descend(g weights.Set, rate float64) error {
	if s.broken != nil {
		return s.broken
	}
	err := s.setDirection(g)
	if err == nil {
		err = s.prepare()
	}
	if err != nil {
		return fmt.Errorf("step of %s along a given gradient: %w", s.l.held.Name, err)
	}
	l, err := s.lane(shape{kind: descendKind, group: everyGroup})
	if err != nil {
		return err
	}
	s.writeRates(l, rate)
	if _, err := s.run(l); err != nil {
		return err
	}
	s.count(everyGroup)
	return nil
}

// setDirection uploads a tensor for every trained parameter.
func (s *Session) setDirection(d weights.Set) error {
	if s.broken != nil {
		return s.broken
	}
	for j, i := range s.l.trained {
		t, ok := d.Get(s.l.params[i].Name)
		if !ok {
			return fmt.Errorf("tensor %q is missing", s.l.params[i].Name)
		}
		if err := s.l.checkTensor(t, i); err != nil {
			return err
		}
		if err := s.put(directionTable, j, len(s.l.trained), t); err != nil {
			return err
		}
	}
	return nil
}

// average runs a program that adds to a sum over the batches of v, and returns the mean loss and the mean of what was added.
// That of a single batch is exactly what the program gave.
func (s *Session) average(ctx context.Context, k kind, v dataset.View, p Pass) (loss float64, grad weights.Set, err error) {
	single := p.Batch == 0 || p.Batch >= v.Len()
	total := 0
	if err = s.clearGradient(); err == nil {
		err = s.walk(ctx, k, v, p, func(l *lane, n int) error {
			if single {
				n = 1
			}
			part, err := s.addGradient(l, n)
			loss += float64(part * float64(n))
			total += n
			return err
		})
	}
	if err == nil && total == 0 {
		err = errors.New("no batch is large enough")
	}
	if err == nil {
		grad, err = s.trainedSet(accTable)
	}
	if err != nil {
		return 0, weights.Set{}, err
	}
	if total > 1 {
		grad.Scale(1 / float64(total))
	}
	return loss / float64(total), grad, nil
}

// BatchGradient returns the mean loss of b and its raw gradient at the session's weights.
func (s *Session) BatchGradient(b Batch) (float64, weights.Set, error) {
	l, err := s.load(gradientKind, everyGroup, b)
	if err != nil {
		return 0, weights.Set{}, err
	}
	if err := s.clearGradient(); err != nil {
		return 0, weights.Set{}, err
	}
	s.writeScalars(l)
	loss, err := s.addGradient(l, 1)
	if err != nil {
		return 0, weights.Set{}, err
	}
	grad, err := s.trainedSet(accTable)
	return loss, grad, err
}

func (s *Session) clearGradient() error {
	if s.broken != nil {
		return s.broken
	}
	for j, i := range s.l.trained {
		if err := s.zero(accTable, j, len(s.l.trained), i); err != nil {
			return err
		}
	}
	return nil
}

// addGradient runs a filled lane that adds weight·gradient to the sum, and returns the loss.
func (s *Session) addGradient(l *lane, weight int) (float64, error) {
	if err := l.checkLabels(); err != nil {
		return 0, err
	}
	l.set(l.p.weight, float64(weight))
	results, err := s.run(l)
	if err != nil {
		return 0, err
	}
	return s.readLoss(results)
}
