package mismatch

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/assisted/mismatch/linkage"
	"gonum.org/v1/gonum/mat"
)

// Problem is n rows and m labels that may have been mixed up. Labels are numbers, Y, or classes.
type Problem struct {
	// Y are the labels, m×k: one number a label, or a vector.
	Y *mat.Dense
	// Classes are the labels instead of Y, each from 0 to Count−1.
	Classes []int
	Count   int

	// Own names the label that came with each of the n rows, −1 for none. No label may come with two rows. Nil: label i came
	// with row i, n = m.
	Own []int
	// Blocks names the block of each row: a row's label is one of its block. Nil: all are one block.
	Blocks []int
	// LabelBlocks names the block of each label. Nil: that of the row that it came with, or all are one block.
	LabelBlocks []int
	// Certain marks rows whose own label is surely right.
	Certain []bool
	// Evidence, if not nil, is what else is known of links, such as how much names and dates agree.
	Evidence *linkage.Evidence
}

// InputError tells what of a problem or of the options cannot be.
type InputError struct{ What string }

func (e *InputError) Error() string { return "mismatch: " + e.What }

func badInput(format string, args ...any) error { return &InputError{fmt.Sprintf(format, args...)} }

// block is a set of rows whose labels are among a set of labels.
type block struct {
	rows, labels []int
	own          []int     // by position in rows: position in labels, or −1
	clues        [][]clue  // by position in rows, ascending; nil without evidence
	rest         []float64 // by position in rows: what is known of labels without a clue
}

// layout is a checked problem.
type layout struct {
	n, m, k int
	own     []int
	y       *mat.Dense // m×k; one-hot for classes
	classes []int      // nil for numbers
	counts  []float64  // labels of each class
	blocks  []block    // with something to find out
	settled []int      // rows that keep their own label
	lonely  []int      // rows of blocks without labels
	pairs   int        // rows with a label of their own
	free    int        // rows in blocks
	mean    []float64  // of the labels, by column
	spread  []float64  // their variances, by column
	scale   float64    // mean of spread
	// evidence tells whether something is known of links beside keys and blocks.
	evidence bool
}

func (p *Problem) sizes() (n, m int) {
	if p.Classes != nil {
		m = len(p.Classes)
	} else if p.Y != nil {
		m, _ = p.Y.Dims()
	}
	n = m
	if p.Own != nil {
		n = len(p.Own)
	}
	return n, m
}

// layout checks p and sorts rows and labels into blocks.
func (p *Problem) layout() (*layout, error) {
	if (p.Y == nil) == (p.Classes == nil) {
		return nil, badInput("labels are either numbers or classes: give one of Y and Classes")
	}
	l := &layout{}
	l.n, l.m = p.sizes()
	if l.n == 0 || l.m == 0 {
		return nil, badInput("%d rows and %d labels: there is nothing to match", l.n, l.m)
	}
	if err := l.read(p); err != nil {
		return nil, err
	}
	for what, have := range map[string]int{"Blocks": len(p.Blocks), "Certain": len(p.Certain)} {
		if have != 0 && have != l.n {
			return nil, badInput("%s has %d entries for %d rows", what, have, l.n)
		}
	}
	if p.LabelBlocks != nil && len(p.LabelBlocks) != l.m {
		return nil, badInput("LabelBlocks has %d entries for %d labels", len(p.LabelBlocks), l.m)
	}
	if err := l.readOwn(p); err != nil {
		return nil, err
	}
	if err := l.sort(p); err != nil {
		return nil, err
	}
	return l, l.readEvidence(p.Evidence)
}

// read checks the labels and describes them.
func (l *layout) read(p *Problem) error {
	if p.Classes != nil {
		if p.Count < 2 {
			return badInput("%d classes: at least 2 are needed", p.Count)
		}
		l.k, l.classes = p.Count, p.Classes
		l.y, l.counts = mat.NewDense(l.m, l.k, nil), make([]float64, l.k)
		for j, c := range p.Classes {
			if c < 0 || c >= l.k {
				return badInput("label %d is class %d: classes are 0 to %d", j, c, l.k-1)
			}
			l.y.Set(j, c, 1)
			l.counts[c]++
		}
	} else {
		l.y = p.Y
		_, l.k = p.Y.Dims()
		for j := range l.m {
			for _, v := range l.y.RawRowView(j) {
				if v-v != 0 {
					return badInput("label %d is %v: every label needs finite numbers", j, v)
				}
			}
		}
	}
	l.mean, l.spread = make([]float64, l.k), make([]float64, l.k)
	for c := range l.k {
		for j := range l.m {
			l.mean[c] += l.y.At(j, c) / float64(l.m)
		}
		for j := range l.m {
			d := l.y.At(j, c) - l.mean[c]
			l.spread[c] += d * d / float64(l.m)
		}
		l.scale += l.spread[c] / float64(l.k)
	}
	if !(l.scale > 0) {
		return badInput("all labels are the same: links cannot be told from such a target")
	}
	return nil
}

func (l *layout) readOwn(p *Problem) error {
	l.own = p.Own
	if l.own == nil {
		l.own = make([]int, l.n)
		for i := range l.own {
			l.own[i] = i
		}
	}
	taken := make([]bool, l.m)
	for i, j := range l.own {
		switch {
		case j == -1:
			if p.Certain != nil && p.Certain[i] {
				return badInput("row %d is certain but came with no label", i)
			}
			continue
		case j < -1 || j >= l.m:
			return badInput("row %d came with label %d: labels are 0 to %d, or -1 for none", i, j, l.m-1)
		case taken[j]:
			return badInput("label %d came with two rows, one of them row %d", j, i)
		}
		taken[j] = true
		l.pairs++
	}
	return nil
}

// sort fills the blocks, in the order of their names.
func (l *layout) sort(p *Problem) error {
	of := func(blocks []int, i int) int {
		if blocks == nil {
			return 0
		}
		return blocks[i]
	}
	labelBlock := make([]int, l.m)
	if p.LabelBlocks != nil {
		copy(labelBlock, p.LabelBlocks)
	} else if p.Blocks != nil {
		if l.pairs < l.m {
			return badInput("%d labels came with no row: LabelBlocks has to tell their blocks", l.m-l.pairs)
		}
		for i, j := range l.own {
			if j >= 0 {
				labelBlock[j] = p.Blocks[i]
			}
		}
	}
	byName := map[int]*block{}
	get := func(name int) *block {
		if byName[name] == nil {
			byName[name] = &block{}
		}
		return byName[name]
	}
	settled := make([]bool, l.m) // labels of rows that keep them
	for i, j := range l.own {
		if p.Certain != nil && p.Certain[i] {
			l.settled = append(l.settled, i)
			settled[j] = true
		}
	}
	place := make([]int, l.m) // of a label in its block
	for j := range l.m {
		if settled[j] {
			continue
		}
		b := get(labelBlock[j])
		place[j] = len(b.labels)
		b.labels = append(b.labels, j)
	}
	for i, j := range l.own {
		if p.Certain != nil && p.Certain[i] {
			continue
		}
		name := of(p.Blocks, i)
		b, own := get(name), -1
		if j >= 0 {
			if labelBlock[j] != name {
				return badInput("row %d of block %d came with label %d of block %d", i, name, j, labelBlock[j])
			}
			own = place[j]
		}
		b.rows, b.own = append(b.rows, i), append(b.own, own)
	}
	names := make([]int, 0, len(byName))
	for name := range byName {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		b := byName[name]
		switch {
		case len(b.rows) == 0:
		case len(b.labels) == 0:
			l.lonely = append(l.lonely, b.rows...)
		case len(b.rows) == 1 && len(b.labels) == 1 && b.own[0] == 0:
			l.settled = append(l.settled, b.rows[0])
		default:
			l.blocks = append(l.blocks, *b)
			l.free += len(b.rows)
		}
	}
	slices.Sort(l.settled)
	return nil
}

// largest returns the most rows or labels of a block.
func (l *layout) largest() int {
	most := 0
	for _, b := range l.blocks {
		most = max(most, len(b.rows), len(b.labels))
	}
	return most
}

// Options says how [Fit] goes about it. The zero value is right for models that are fitted exactly.
type Options struct {
	// Plan is "full" for n×n plans, "bin" for plans by bins of alike labels or by classes; "": full for blocks of up to Full rows
	// of numbers, bins else. Bins give the same accuracy in a hundredth of the time.
	Plan string
	Full int // 0: 500, or 3000 of vector labels, for which there are no bins
	// Sinkhorn makes full plans those of the specification: −Σ P log P for entropy, and α/(n−1) for the prior weight of a wrong link. It
	// takes mass off right links, and α̂ is about 0.1 too high (docs/results/mismatch.md). Left out, own links are counted rightly.
	Sinkhorn bool

	// Alpha fixes the share of wrong links among the rows that are in doubt, 0 ≤ α < 1; nil: estimated. Bound keeps the
	// estimate at or below it; 0: 0.95.
	Alpha *float64
	Bound float64
	// Noise fixes σ²; 0: estimated.
	Noise float64
	// Unmatched is the share ρ of the rows of every block that may have no label at all, beside the surplus of rows over
	// labels: the dustbin's width. 0 ≤ ρ < 1.
	Unmatched float64

	// Warm, Mixture and Rounds bound the rounds of the three stages; 0: 50, 200, 60, and a model that is fitted exactly stops
	// when it moves no more. Negative: none; without transport the result is that of the mixture.
	Warm, Mixture, Rounds int
	// Ready tells that the model is already fitted, so that there is no robust start.
	Ready bool
	// Sweeps bounds the Sinkhorn sweeps of a round, 0: 50 (10 for bins), and Tolerance the row sums' error at which they stop,
	// 0: 1e-6.
	Sweeps    int
	Tolerance float64

	// Pair asks for a hard pairing.
	Pair bool
	// Progress, if not nil, hears every round.
	Progress func(Round)
}

// Round is what a round found.
type Round struct {
	Stage        string // "start", "mixture" or "transport"
	Index        int    // within the stage, from 0
	Alpha, Noise float64
	Moved        float64 // root mean square by which predictions moved, in standard deviations of the labels
}

// Validate reports the first option that cannot be.
func (o Options) Validate() error {
	switch {
	case o.Plan != "" && o.Plan != "full" && o.Plan != "bin":
		return badInput("plan %q: it is full, bin or empty", o.Plan)
	case o.Alpha != nil && !(*o.Alpha >= 0 && *o.Alpha < 1):
		return badInput("the share of wrong links is %v: it is at least 0 and below 1", *o.Alpha)
	case !(o.Bound >= 0 && o.Bound < 1):
		return badInput("the bound of the share of wrong links is %v: it is at least 0 and below 1", o.Bound)
	case !(o.Noise >= 0) || math.IsInf(o.Noise, 1):
		return badInput("noise variance %v: it is a positive number, or 0 to estimate it", o.Noise)
	case !(o.Unmatched >= 0 && o.Unmatched < 1):
		return badInput("share of rows without a label %v: it is at least 0 and below 1", o.Unmatched)
	case !(o.Tolerance >= 0 && o.Tolerance < 1):
		return badInput("tolerance %v: it is at least 0 and below 1", o.Tolerance)
	case o.Sweeps < 0 || o.Full < 0:
		return badInput("%d sweeps, full plans to %d rows: neither may be negative", o.Sweeps, o.Full)
	}
	return nil
}

// rounds is a bound of rounds with its default.
func rounds(n, otherwise int) int {
	if n < 0 {
		return 0
	}
	return cmp.Or(n, otherwise)
}
