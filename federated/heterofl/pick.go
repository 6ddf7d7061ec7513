package heterofl

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/weights"
)

// Scheme chooses which coordinates a thin member trains. It is all in which HeteroFL, FedRolex and random sub-models differ;
// FjORD shares HeteroFL's and redraws the width at every local step besides.
type Scheme string

// The schemes.
const (
	// Leading keeps the first channels of every axis: HeteroFL (arXiv 2010.01264).
	Leading Scheme = "leading"
	// Rolling keeps a window of neighbouring channels whose start moves on by one every round and wraps around, so that
	// every channel is trained in turn: FedRolex (NeurIPS 2022). Windows of all layers move together, as published, so a
	// weight between two channels that are further apart than the window stays to wider members.
	Rolling Scheme = "rolling"
	// Random keeps a random subset of the channels, drawn anew for each member and round: federated dropout
	// (arXiv 1812.07210).
	Random Scheme = "random"
	// Ordered keeps the first channels and redraws the width, up to the member's own, at every local step: FjORD
	// (NeurIPS 2021).
	Ordered Scheme = "ordered"
)

// Schemes lists them all.
func Schemes() []Scheme { return []Scheme{Leading, Rolling, Random, Ordered} }

func (s Scheme) validate() error {
	if s == "" || slices.Contains(Schemes(), s) {
		return nil
	}
	names := make([]string, 0, 4)
	for _, k := range Schemes() {
		names = append(names, string(k))
	}
	return fmt.Errorf("there is no scheme %q; the schemes are %s", s, strings.Join(names, ", "))
}

// pick returns the scheme's choice of positions for one member in one round.
func (s Scheme) pick(seed uint64, round int, member string) nn.Pick {
	switch s {
	case Rolling:
		return func(d nn.Dim, whole, keep int) weights.Axis {
			return perHead(d, whole, keep, func(w, k int) []int {
				p := make([]int, k)
				for i := range p {
					p[i] = (round + i) % w
				}
				slices.Sort(p)
				return p
			})
		}
	case Random:
		return func(d nn.Dim, whole, keep int) weights.Axis {
			r := rng.New(seed, round, member, "channels/"+d.Name)
			return perHead(d, whole, keep, func(w, k int) []int {
				p := r.Sample(w, k)
				slices.Sort(p)
				return p
			})
		}
	}
	return nn.Leading
}

// perHead applies a choice of features to each head of an axis, or to the whole of an axis without heads.
func perHead(d nn.Dim, whole, keep int, choose func(whole, keep int) []int) weights.Axis {
	heads := max(1, d.Heads)
	w, k := whole/heads, keep/heads
	list := make([]int32, 0, keep)
	for h := range heads {
		for _, i := range choose(w, k) {
			list = append(list, int32(h*w+i))
		}
	}
	return weights.List(list)
}
