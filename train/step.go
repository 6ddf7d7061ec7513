package train

import (
	"fmt"

	"github.com/cohort-learning/cohort/rng"
	"github.com/gomlx/compute"
)

// Batch is a batch written by hand. Rows follow each other; a batch has one of X and Tokens, and one of Labels and
// Targets, as the spec's model and loss want.
type Batch struct {
	N       int       // examples
	X       []float32 // [N, Input…]
	Tokens  []int32   // [N, length]
	Labels  []int32   // [N] or [N, length]
	Targets []float32 // of the shape of the output
	// Random draws dropout masks; needed by models that have them. Tokens are not hidden.
	Random *rng.Stream
}

// everyGroup is the group of a shape that trains all of them.
const everyGroup = -1

// Step makes one step of all groups with the given learning rate and returns the mean loss before it. A loss that is not
// finite is a [*NonFiniteError].
func (s *Session) Step(b Batch, rate float64) (float64, error) {
	return s.stepBatch(b, everyGroup, rate)
}

// StepGroup makes one step of one group.
func (s *Session) StepGroup(name string, b Batch, rate float64) (float64, error) {
	g, err := s.l.groupIndex(name)
	if err != nil {
		return 0, err
	}
	return s.stepBatch(b, g, rate)
}

func (s *Session) stepBatch(b Batch, group int, rate float64) (float64, error) {
	l, err := s.load(stepKind, group, b)
	if err != nil {
		return 0, err
	}
	return s.step(l, group, rate)
}

// load finds the lane for a batch and fills it.
func (s *Session) load(k kind, group int, b Batch) (*lane, error) {
	spec := s.l.spec
	at := shape{kind: k, group: group, batch: b.N, masked: spec.Mask != NoMask}
	if spec.Model.Tokens && b.N > 0 {
		at.tokens = len(b.Tokens) / b.N
	}
	l, err := s.trainingLane(at)
	if err != nil {
		return nil, err
	}
	if len(b.X) != len(l.x) || len(b.Tokens) != len(l.tokens) || len(b.Labels) != len(l.labels) ||
		len(b.Targets) != len(l.values) {
		return nil, fmt.Errorf("batch of %d for %s: %d inputs, %d tokens, %d labels and %d targets, need %d, %d, %d and %d",
			b.N, spec.Model.Name, len(b.X), len(b.Tokens), len(b.Labels), len(b.Targets),
			len(l.x), len(l.tokens), len(l.labels), len(l.values))
	}
	copy(l.x, b.X)
	copy(l.tokens, b.Tokens)
	copy(l.labels, b.Labels)
	copy(l.values, b.Targets)
	if len(l.noise) > 0 && b.Random == nil {
		return nil, fmt.Errorf("batch for %s: dropout needs a random stream", spec.Model.Name)
	}
	l.drop(spec.Model, b.Random)
	return l, nil
}

// trainingLane returns the lane of a program that runs the model in training mode, with the label mask written.
func (s *Session) trainingLane(at shape) (*lane, error) {
	if s.broken != nil {
		return nil, s.broken
	}
	m := s.l.spec.Model
	if at.batch < max(1, m.MinBatch) {
		return nil, &BatchSizeError{Model: m.Name, Size: at.batch, Min: max(1, m.MinBatch)}
	}
	if at.masked && s.present == nil {
		return nil, fmt.Errorf("session of %s: its spec masks classes, so it needs a label mask", m.Name)
	}
	if at.kind == stepKind {
		if err := s.prepare(); err != nil {
			return nil, err
		}
	}
	l, err := s.lane(at)
	if err != nil {
		return nil, err
	}
	copy(l.mask, s.present)
	return l, nil
}

// BatchSizeError tells that a batch is too small: batch norm needs more than one value a channel.
type BatchSizeError struct {
	Model     string
	Size, Min int
}

func (e *BatchSizeError) Error() string {
	return fmt.Sprintf("a batch of %d for %s, whose batch norm needs at least %d: choose a batch size that leaves no such "+
		"remainder, or skip small batches", e.Size, e.Model, e.Min)
}

// step runs a filled lane.
func (s *Session) step(l *lane, group int, rate float64) (float64, error) {
	if err := l.checkLabels(); err != nil {
		return 0, err
	}
	s.writeRates(l, rate)
	results, err := s.run(l)
	if err != nil {
		return 0, err
	}
	s.count(group)
	loss, err := s.readLoss(results)
	if err != nil {
		return 0, err
	}
	if loss-loss != 0 {
		return loss, &NonFiniteError{Model: s.l.held.Name, Step: s.steps, Loss: loss}
	}
	return loss, nil
}

// writeRates writes the numbers of the next step that the program uses: rates, and those of optimisers and of the spec.
func (s *Session) writeRates(l *lane, rate float64) {
	p := l.p
	for j := range s.l.groups {
		if p.rates[j] < 0 {
			continue
		}
		g := &s.l.groups[j]
		l.set(p.rates[j], rate*g.Factor)
		s.scratch = g.Optimizer.Scalars(s.scratch[:0], s.counts[j]+1)
		for k, v := range s.scratch {
			l.set(p.special[j]+k, v)
		}
	}
	s.writeScalars(l)
}

// count notes a step of a group, or of all.
func (s *Session) count(group int) {
	s.steps++
	for j := range s.counts {
		if group < 0 || group == j {
			s.counts[j]++
		}
	}
}

// writeScalars writes the spec's scalars where the program uses them.
func (s *Session) writeScalars(l *lane) {
	for i, at := range l.p.scalars {
		if at >= 0 {
			l.set(at, s.scalars[i])
		}
	}
}

// readLoss reads the scalar that a program gives first and frees it.
func (s *Session) readLoss(results []compute.Buffer) (float64, error) {
	err := results[0].ToFlatData(s.lossAny)
	release(results)
	if err != nil {
		return 0, fmt.Errorf("reading the loss of %s: %w", s.l.held.Name, err)
	}
	if s.loss64 != nil {
		return s.loss64[0], nil
	}
	return float64(s.loss32[0]), nil
}
