package linkage

import (
	"math"
	"slices"
)

// MostFields is how many fields may be compared.
const MostFields = 8

// Pattern is the levels of a pair's fields: two bits a field, the first field lowest.
type Pattern uint16

// Level returns the level of a field.
func (p Pattern) Level(field int) Level { return Level(p >> (2 * field) & 3) }

// With returns p with a field's level set; it was [Missing].
func (p Pattern) With(field int, l Level) Pattern { return p | Pattern(l)<<(2*field) }

// Model is what a comparison is worth.
type Model struct {
	// Share is λ, the share of pairs that belong together.
	Share float64
	// M and U are by field the probabilities of each [Level] for pairs that belong together and for others, given that both
	// values are there; of Missing they are 1.
	M, U [][levels]float64
	// Rounds is how many it took.
	Rounds int
}

// Rounds of expectation maximisation, how little a probability moves when they are over, and how much it counts, against what is
// seen, that every row has a partner.
const (
	mostRounds = 1000
	stillMoves = 1e-8
	partnered  = 0.1
)

// usual is m where nothing is known of a field. It counts as much as one pair, so that what has not been seen is rare and not impossible.
var usual = [levels]float64{Missing: 1, Different: .03, Close: .07, Exact: .9}

// Estimate finds the model by expectation maximisation (Winkler 1988). Counts tells how many pairs have each pattern of so many
// fields, and most is the largest share of pairs that may belong together: with n rows of one table and m of the other, min(n, m)/(nm)
// if each has at most one partner. With g(γ) the probability that a pair of pattern γ belongs together,
//
//	g(γ) = λ Π_f m_f(γ_f) / (λ Π_f m_f(γ_f) + (1−λ) Π_f u_f(γ_f))
//	λ = min(most, (Σ_γ n_γ g(γ)/Σ_γ n_γ + 0.1·most)/1.1)
//	m_f(l) ∝ Σ_{γ: γ_f = l} n_γ g(γ) + usual(l),  u_f(l) ∝ Σ_{γ: γ_f = l} n_γ (1 − g(γ)) + (how frequent l is among all pairs)
//
// It begins with λ = most, m = usual, 0.9, 0.07, 0.03 for exact, close and different, and u so that levels are as frequent as they are.
// Where few fields leave it open how many pairs belong together and how they agree, it stays about there. In the end m and u
// are at least what half a pair would be: that none of so many agreed, or differed, may be by chance.
func Estimate(counts map[Pattern]float64, fields int, most float64) *Model {
	m := &Model{Share: most, M: make([][levels]float64, fields), U: make([][levels]float64, fields)}
	patterns := make([]Pattern, 0, len(counts))
	for p := range counts {
		patterns = append(patterns, p)
	}
	slices.Sort(patterns) // sums in an order of their own
	of := make([]float64, len(patterns))
	m.count(patterns, counts, of, nil)
	frequent := slices.Clone(m.U)
	for f := range fields {
		m.M[f] = usual
		for l := Different; l < levels; l++ {
			m.U[f][l] = max(frequent[f][l]-most*usual[l], frequent[f][l]/10)
		}
		m.U[f] = shares(m.U[f], [levels]float64{})
	}
	m.Share = most
	for m.Rounds = 1; m.Rounds <= mostRounds; m.Rounds++ {
		for i, p := range patterns {
			of[i] = m.Probability(p)
		}
		before := m.flat()
		m.count(patterns, counts, of, frequent)
		m.Share = min(most, (m.Share+partnered*most)/(1+partnered))
		moved := 0.0
		for i, v := range m.flat() {
			moved = max(moved, math.Abs(v-before[i]))
		}
		if moved < stillMoves {
			break
		}
	}
	all := 0.0
	for _, n := range counts {
		all += n
	}
	for f := range m.U {
		for l := Different; l < levels; l++ {
			m.M[f][l], m.U[f][l] = max(m.M[f][l], 0.5/max(1, most*all)), max(m.U[f][l], 0.5/all)
		}
	}
	return m
}

// count is the M-step: of[i] is the probability that a pair of the i-th pattern belongs together; frequent is how frequent levels are
// among all pairs, nil if that is what is asked.
func (m *Model) count(patterns []Pattern, counts map[Pattern]float64, of []float64, frequent [][levels]float64) {
	together, all := 0.0, 0.0
	for i, p := range patterns {
		together += counts[p] * of[i]
		all += counts[p]
	}
	m.Share = together / all
	for f := range m.M {
		var matched, other [levels]float64
		for i, p := range patterns {
			matched[p.Level(f)] += counts[p] * of[i]
			other[p.Level(f)] += counts[p] * (1 - of[i])
		}
		prior := [levels]float64{Different: rare, Close: rare, Exact: rare}
		if frequent != nil {
			prior = frequent[f]
		}
		m.M[f], m.U[f] = shares(matched, usual), shares(other, prior)
	}
}

// rare is what a level that no pair has counts among all pairs.
const rare = 0.01

// shares turns counts of levels, and what counts beside them, into probabilities given that both values are there.
func shares(counts, more [levels]float64) (p [levels]float64) {
	sum := 0.0
	for l := Different; l < levels; l++ {
		sum += counts[l] + more[l]
	}
	for l := Different; l < levels; l++ {
		p[l] = (counts[l] + more[l]) / sum
	}
	p[Missing] = 1
	return p
}

// flat lists all numbers.
func (m *Model) flat() []float64 {
	all := []float64{m.Share}
	for f := range m.M {
		all = append(append(all, m.M[f][:]...), m.U[f][:]...)
	}
	return all
}

// LogOdds returns what a pattern says: Σ_f log m_f(γ_f)/u_f(γ_f), natural logarithm.
func (m *Model) LogOdds(p Pattern) float64 {
	sum := 0.0
	for f := range m.M {
		l := p.Level(f)
		sum += math.Log(m.M[f][l] / m.U[f][l])
	}
	return sum
}

// Probability returns the probability that a pair of the pattern belongs together, by its fields alone.
func (m *Model) Probability(p Pattern) float64 {
	return 1 / (1 + math.Exp(math.Log(1/m.Share-1)-m.LogOdds(p)))
}
