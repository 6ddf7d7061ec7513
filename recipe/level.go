package recipe

import (
	"math"
	"slices"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/heterofl"
	"github.com/cohort-learning/cohort/federated/semifl"
	"github.com/cohort-learning/cohort/nn"
)

// Level is a size of model in the fleet.
type Level struct {
	Name    string  `json:"name,omitempty"` // empty if all clients have the same model
	Rate    float64 `json:"rate"`           // part of the hidden width
	Clients int     `json:"clients"`        // that have it; if levels are redrawn, on average
	Params  int64   `json:"parameters"`
	MACs    int64   `json:"macs"`  // multiply-accumulate operations of a forward pass of one example
	Bytes   int64   `json:"bytes"` // of the model, one way
}

// FLOPs returns the floating-point operations of a forward pass of one example: a multiplication and an addition for each
// of MACs. Training one example takes about three times as many.
func (l Level) FLOPs() float64 { return 2 * float64(l.MACs) }

// Levels returns the sizes of model in the plan's fleet; the first is the global model's.
func (p *Plan) Levels() ([]Level, error) {
	a, err := p.Recipe.bare(p.Problem)
	if err != nil {
		return nil, err
	}
	return levelsOf(a, p.Problem.Build, p.Dealt.Train.Clients())
}

func levelsOf(a federated.Algorithm, build nn.Builder, clients int) ([]Level, error) {
	mode, dynamic := modeOf(a)
	if mode == nil {
		l, err := newLevel(build, "", 1)
		l.Clients = clients
		return []Level{l}, err
	}
	var out []Level
	for _, m := range mode {
		l, err := newLevel(build, m.Name, m.Rate)
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	for i, n := range deal(mode, dynamic, clients) {
		out[i].Clients = n
	}
	return out, nil
}

// modeOf returns the levels of a method, nil if it has none, and whether they are redrawn every round.
func modeOf(a federated.Algorithm) (heterofl.Mode, bool) {
	switch a := a.(type) {
	case *heterofl.Algorithm:
		return a.Mode, a.Dynamic
	case *semifl.Algorithm:
		return a.Mode, a.Dynamic
	}
	return nil, false
}

// deal returns how many of n clients have each level of a mode; on average, if levels are redrawn every round.
func deal(mode heterofl.Mode, dynamic bool, n int) []int {
	counts := make([]int, len(mode))
	if !dynamic {
		for i := range n {
			counts[mode.Fixed(i, n)]++
		}
		return counts
	}
	shares := 0
	for _, m := range mode {
		shares += m.Share
	}
	for i, m := range mode {
		counts[i] = int(math.Round(float64(n*m.Share) / float64(max(1, shares))))
	}
	return counts
}

func newLevel(build nn.Builder, name string, rate float64) (Level, error) {
	m, err := build(rate)
	if err != nil {
		return Level{}, err
	}
	c := m.Cost()
	return Level{Name: name, Rate: rate, Params: c.Params, MACs: c.MACs, Bytes: c.Bytes}, nil
}

// findLevel returns the level of a name.
func findLevel(levels []Level, name string) (Level, bool) {
	i := slices.IndexFunc(levels, func(l Level) bool { return l.Name == name })
	if i < 0 {
		return Level{}, false
	}
	return levels[i], true
}
