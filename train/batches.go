package train

import (
	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/rng"
)

// Batches deals the rows of a view out in batches, pass after pass without end: in the order of [Session.Fit] with the same
// stream, for methods that do more with a batch than a step.
type Batches struct {
	turn turn
	size int
}

// NewBatches begins to deal v, which must have rows, in batches of size; 0 is all rows at once. Random reshuffles in every
// pass; nil keeps the order of the view.
func NewBatches(v dataset.View, size int, random *rng.Stream) *Batches {
	if v.Len() == 0 || size < 0 {
		panic("train: batches of no rows, or of less than none")
	}
	b := &Batches{turn: turn{data: v.Data, rows: append([]int32(nil), v.Rows...)}, size: size}
	if random != nil {
		b.turn.random = random.Fork("batches")
	}
	b.turn.shuffle()
	return b
}

// Next returns the next batch. It is good until the call that begins the next pass.
func (b *Batches) Next() dataset.View {
	t := &b.turn
	if t.next == len(t.rows) {
		t.shuffle()
	}
	return dataset.View{Data: t.data, Rows: t.take(b.size)}
}

// Steps returns how many batches so many passes are.
func (b *Batches) Steps(passes int) int {
	if b.size == 0 {
		return passes
	}
	return passes * ((len(b.turn.rows) + b.size - 1) / b.size)
}
