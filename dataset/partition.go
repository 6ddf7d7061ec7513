package dataset

import (
	"fmt"
	"math"
	"slices"
)

// Partition says which rows of a data set belong to which client. Lists are disjoint and ascending; what no client holds
// is dropped and counted. It costs 4 bytes a sample and 4 bytes a client; label sets, histograms and feature skews are
// computed when asked for.
type Partition struct {
	Scheme  Scheme // how it was made
	Seed    uint64
	Samples int // rows of the data set that was dealt

	offsets []int32  // client k holds rows[offsets[k]:offsets[k+1]]
	rows    []int32  // all lists, one after the other
	names   []string // natural keys of the clients, or nil
}

// Dealt is a training and a test set dealt to the same clients: no client is tested on a class that it does not hold
// for training. Test is nil if there was no test set. Server holds the rows of the training set that are the server's, ascending;
// nil: it has none to itself.
type Dealt struct {
	Train, Test *Partition
	Server      []int32
}

// nobody owns a dropped row.
const nobody = -1

// fromOwners makes the partition in which row i belongs to client owner[i].
func fromOwners(owner []int32, clients int) *Partition {
	p := &Partition{Samples: len(owner), offsets: make([]int32, clients+1)}
	for _, k := range owner {
		if k != nobody {
			p.offsets[k+1]++
		}
	}
	for k := range clients {
		p.offsets[k+1] += p.offsets[k]
	}
	p.rows = make([]int32, p.offsets[clients])
	for i, k := range owner { // offsets[k] serves as the cursor of client k …
		if k != nobody {
			p.rows[p.offsets[k]] = int32(i)
			p.offsets[k]++
		}
	}
	copy(p.offsets[1:], p.offsets) // … and ends where client k+1 begins
	p.offsets[0] = 0
	return p
}

// NewPartition makes a partition from explicit lists, for splits that come from elsewhere. It fails if a row is outside
// 0..samples−1 or in two lists. Names, one per list, may be nil.
func NewPartition(lists [][]int32, samples int, names []string) (*Partition, error) {
	if names != nil && len(names) != len(lists) {
		return nil, fmt.Errorf("partition: %d names for %d clients", len(names), len(lists))
	}
	owner := make([]int32, samples)
	for i := range owner {
		owner[i] = nobody
	}
	for k, list := range lists {
		for _, r := range list {
			if r < 0 || int(r) >= samples {
				return nil, fmt.Errorf("partition: client %d holds row %d, outside 0..%d", k, r, samples-1)
			}
			if owner[r] != nobody {
				return nil, fmt.Errorf("partition: row %d belongs to clients %d and %d", r, owner[r], k)
			}
			owner[r] = int32(k)
		}
	}
	p := fromOwners(owner, len(lists))
	p.names = names
	return p, nil
}

// Clients returns the number of clients.
func (p *Partition) Clients() int { return len(p.offsets) - 1 }

// Rows returns the rows of a client, ascending. The slice is part of p and must not be changed.
func (p *Partition) Rows(client int) []int32 {
	from, to := p.offsets[client], p.offsets[client+1]
	return p.rows[from:to:to]
}

// Size returns the number of samples that a client holds.
func (p *Partition) Size(client int) int { return int(p.offsets[client+1] - p.offsets[client]) }

// Dropped returns the number of samples that neither a client nor the server holds.
func (p *Partition) Dropped() int { return p.Samples - len(p.rows) - p.Scheme.Server }

// Name returns the natural key of a client, or its number as "client-007".
func (p *Partition) Name(client int) string {
	if p.names != nil {
		return p.names[client]
	}
	width := len(fmt.Sprint(max(p.Clients()-1, 0)))
	return fmt.Sprintf("client-%0*d", max(width, 3), client)
}

// View returns a client's share of the data set that was dealt.
func (p *Partition) View(e *Examples, client int) View { return View{Data: e, Rows: p.Rows(client)} }

// LabelSet returns the sorted distinct labels that a client holds.
func (p *Partition) LabelSet(e *Examples, client int) []int32 {
	return labelSet(e.Labels, p.Rows(client))
}

// Histogram counts a client's samples of each class.
func (p *Partition) Histogram(e *Examples, client int) []int { return histogram(e, p.Rows(client)) }

// Skew returns the feature skew of a client, to be put into [Augment]; the zero Skew unless the scheme is "noise" or
// "rotation".
func (p *Partition) Skew(client int) Skew { return p.Scheme.skew(client, p.Clients(), p.Seed) }

// EMD returns how far a client's class mix is from that of all dealt samples: Σ_c |n_kc/n_k − n_c/n|, between 0 (the
// same mix) and 2 (Zhao et al., arXiv 1806.00582, section 3.2, call it the earth mover's distance). An empty client has
// distance 0. Overall is the histogram of all dealt samples, see [Partition.Overall].
func EMD(hist, overall []int) float64 {
	var n, total int
	for c := range hist {
		n += hist[c]
		total += overall[c]
	}
	if n == 0 || total == 0 {
		return 0
	}
	var d float64
	for c := range hist {
		d += math.Abs(float64(hist[c])/float64(n) - float64(overall[c])/float64(total))
	}
	return d
}

// Overall counts the dealt samples of each class.
func (p *Partition) Overall(e *Examples) []int { return histogram(e, p.rows) }

// byClass sorts the rows by label, stably. Class c has rows[start[c]:start[c+1]].
func byClass(labels []int32, classes int) (rows []int32, start []int32) {
	start = make([]int32, classes+1)
	for _, l := range labels {
		start[l+1]++
	}
	for c := range classes {
		start[c+1] += start[c]
	}
	rows = make([]int32, len(labels))
	cursor := slices.Clone(start)
	for i, l := range labels {
		rows[cursor[l]] = int32(i)
		cursor[l]++
	}
	return rows, start
}

// unowned returns n owners, all nobody.
func unowned(n int) []int32 {
	owner := make([]int32, n)
	for i := range owner {
		owner[i] = nobody
	}
	return owner
}

// identity returns 0, 1, … n−1.
func identity(n int) []int32 {
	rows := make([]int32, n)
	for i := range rows {
		rows[i] = int32(i)
	}
	return rows
}

// MeanEMD returns the mean of the clients' EMD, weighted by their sizes.
func (p *Partition) MeanEMD(e *Examples) float64 {
	overall := p.Overall(e)
	var sum float64
	for k := range p.Clients() {
		sum += float64(p.Size(k)) * EMD(p.Histogram(e, k), overall)
	}
	return sum / float64(max(len(p.rows), 1))
}
