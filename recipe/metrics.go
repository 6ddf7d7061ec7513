package recipe

import (
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/record"
)

// preparing reports whether a metric is of traffic that only prepares or opens secure sums, such as "bytes.up.train.keys".
func preparing(name string) bool {
	for _, way := range []string{"bytes.up.", "bytes.down."} {
		if phase, ok := strings.CutPrefix(name, way); ok {
			_, step := federated.SplitPhase(phase)
			return !federated.Works(step)
		}
	}
	return false
}

// people are the metrics of a run as people like to read them: rounds count from 1, the traffic of phases that only measure
// is left out, that of the protocol of secure sums is one number, and the floating-point operations of training are there: for every client that trained, three forward passes
// of each of its examples.
type people struct {
	*record.Metrics
	levels   []Level
	examples float64 // that a client trains on in a round
}

const (
	flops    = "flops"
	protocol = "bytes.protocol" // both ways, of keys, shares and lists
)

// hidden reports whether a metric is of no interest beside others.
func hidden(name string) bool {
	return strings.HasPrefix(name, "clients") || name == "train.steps" ||
		strings.HasPrefix(name, "bytes.") && strings.Count(name, ".") > 1
}

// Names implements [report.Metrics].
func (p *people) Names() ([]string, error) {
	names, err := p.Metrics.Names()
	counted, secured := slices.Contains(names, "clients"), slices.ContainsFunc(names, preparing)
	names = slices.DeleteFunc(names, hidden)
	if counted {
		names = append(names, flops)
	}
	if secured {
		names = append(names, protocol)
	}
	slices.Sort(names)
	return names, err
}

// Keys implements [report.Metrics].
func (p *people) Keys(name string) ([]string, error) {
	switch name {
	case protocol:
		return []string{""}, nil
	case flops:
		name = "clients"
	}
	return p.Metrics.Keys(name)
}

// Series implements [report.Metrics].
func (p *people) Series(name, key string) ([]record.Point, error) {
	if name == protocol {
		return p.protocol()
	}
	factor := 1.0
	if name == flops {
		name = "clients"
		l, ok := findLevel(p.levels, key)
		if !ok && len(p.levels) > 0 {
			l = p.levels[0]
		}
		factor = 3 * l.FLOPs() * p.examples
	}
	points, err := p.Metrics.Series(name, key)
	for i := range points {
		points[i].Round++
		points[i].Value *= factor
	}
	return points, err
}

// protocol adds up what secure sums cost beside the sums themselves, by round.
func (p *people) protocol() ([]record.Point, error) {
	names, err := p.Metrics.Names()
	if err != nil {
		return nil, err
	}
	sum := map[int]float64{}
	for _, name := range names {
		if !preparing(name) {
			continue
		}
		keys, err := p.Metrics.Keys(name)
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			points, err := p.Metrics.Series(name, k)
			if err != nil {
				return nil, err
			}
			for _, x := range points {
				sum[x.Round] += x.Value
			}
		}
	}
	var out []record.Point
	for _, round := range slices.Sorted(maps.Keys(sum)) {
		out = append(out, record.Point{Round: round + 1, Value: sum[round]})
	}
	return out, nil
}

// Failures implements [report.Metrics].
func (p *people) Failures() ([]record.Failure, error) {
	f, err := p.Metrics.Failures()
	for i := range f {
		f[i].Last++
	}
	return f, err
}

// LastMetrics returns what the metrics of the whole of the run in dir came to, and how many rounds it has closed. Bytes are
// summed over rounds and levels: "bytes.up" and "bytes.down" of training, "bytes.protocol" of what secure sums need beside, such as
// keys, and "bytes.measuring" of everything else.
func LastMetrics(dir string) (last map[string]float64, rounds int, err error) {
	m, err := record.ReadMetrics(dir)
	if err != nil {
		return nil, 0, err
	}
	defer m.Close()
	names, err := m.Names()
	if err != nil {
		return nil, 0, err
	}
	last = map[string]float64{}
	for _, name := range names {
		points, err := m.Series(name, "")
		if err != nil {
			return nil, 0, err
		}
		if n := len(points); n > 0 {
			rounds = max(rounds, points[n-1].Round+1)
		}
		switch {
		case strings.HasPrefix(name, "bytes."):
			into := name
			switch {
			case preparing(name):
				into = protocol
			case hidden(name):
				into = "bytes.measuring"
			}
			keys, err := m.Keys(name)
			if err != nil {
				return nil, 0, err
			}
			for _, k := range keys {
				sum, err := Sum(m, name, k)
				if err != nil {
					return nil, 0, err
				}
				last[into] += sum
			}
		case hidden(name), len(points) == 0, math.IsNaN(points[len(points)-1].Value):
		default:
			last[name] = points[len(points)-1].Value
		}
	}
	return last, rounds, nil
}

// Sum adds up a metric over all rounds.
func Sum(m *record.Metrics, name, key string) (total float64, err error) {
	points, err := m.Series(name, key)
	for _, p := range points {
		total += p.Value
	}
	return total, err
}
