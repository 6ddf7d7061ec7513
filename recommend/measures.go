package recommend

import (
	"cmp"
	"math"
	"slices"
)

// Top is how many places of a ranking are looked at.
const Top = 10

// Scorer predicts: for the k-th user of a table, whose ratings it is told, it writes the scores of items to dst.
type Scorer interface {
	Score(k int, rated []int32, values []float32, items []int32, dst []float32)
}

// Test says what is measured.
type Test struct {
	Train, Held Table   // what users have rated, and what was held out
	Like        float32 // rating from which an item is relevant
	Implicit    bool    // scores are logits of liking an item, not ratings
	Batch       int     // users whose errors share a square root in the batched convention; 0: all
	Items       int     // of the catalogue; 0: rankings of the whole catalogue are not measured
	Known       []int32 // items, ascending, that count for the error among known ones; nil: none is measured
}

// Measures are sums over ratings and users, so that those of many members can be added. Each is a count or a sum of:
type Measures struct {
	Ratings  float64 // held-out ratings
	Squares  float64 // (score − rating)²
	Batched  float64 // n_b·√(mean of the squares of a batch of n_b ratings)
	Entropy  float64 // implicit: −log-likelihood of liking or not
	Known    float64 // held-out ratings of items that are known
	KnownSq  float64 // their squares
	Users    float64 // that have held-out ratings
	NDCG     float64 // of a user's held-out items
	NDCGBy   float64 // n_b·(mean of NDCG over the users of a batch)
	AP       float64 // average precision of a user's held-out items
	APBy     float64 // n_b·(mean of it over the users of a batch)
	Fans     float64 // users with a relevant held-out item
	FullNDCG float64 // of the whole catalogue without what the user has rated in training
	FullHits float64 // recall: part of a fan's relevant held-out items among the first Top of it
}

// Vector returns the sums in a fixed order.
func (m *Measures) Vector() []float64 {
	out := make([]float64, 0, Sums)
	for _, p := range m.fields() {
		out = append(out, *p)
	}
	return out
}

// Sums is the length of [Measures.Vector].
const Sums = 14

// FromVector is the inverse of [Measures.Vector]. It panics if the length is not [Sums].
func FromVector(v []float64) Measures {
	var m Measures
	for i, p := range m.fields() {
		*p = v[:Sums][i]
	}
	return m
}

func (m *Measures) fields() []*float64 {
	return []*float64{&m.Ratings, &m.Squares, &m.Batched, &m.Entropy, &m.Known, &m.KnownSq, &m.Users, &m.NDCG, &m.NDCGBy, &m.AP, &m.APBy,
		&m.Fans, &m.FullNDCG, &m.FullHits}
}

// Add adds the sums of other users.
func (m *Measures) Add(o Measures) {
	theirs := o.fields()
	for i, p := range m.fields() {
		*p += *theirs[i]
	}
}

// Value is a measure by name.
type Value struct {
	Name  string
	Value float64
}

// Values returns the measures, those that were measured:
//
//	rmse           √(Σ(score − rating)²/ratings), over all together
//	rmse.batched   Σ n_b·rmse_b/Σ n_b, the mean over batches that the authors of PersonalFR report; it is lower the smaller batches are
//	rmse.known     rmse over items that the member has in its training data
//	loss           mean −log-likelihood of implicit feedback
//	ndcg, map      mean over users; ….rating: over batches, weighted by ratings, as those authors report
//	catalogue.ndcg, catalogue.recall   mean over users with a relevant held-out item, of rankings of the whole catalogue
func (m Measures) Values(implicit bool) []Value {
	var out []Value
	add := func(name string, sum, count float64, f func(float64) float64) {
		if count > 0 {
			v := sum / count
			if f != nil {
				v = f(v)
			}
			out = append(out, Value{name, v})
		}
	}
	if implicit {
		add("loss", m.Entropy, m.Ratings, nil)
	} else {
		add("rmse", m.Squares, m.Ratings, math.Sqrt)
		add("rmse.batched", m.Batched, m.Ratings, nil)
		add("rmse.known", m.KnownSq, m.Known, math.Sqrt)
	}
	add("ndcg", m.NDCG, m.Users, nil)
	add("ndcg.rating", m.NDCGBy, m.Ratings, nil)
	add("map", m.AP, m.Users, nil)
	add("map.rating", m.APBy, m.Ratings, nil)
	if m.FullNDCG > 0 || m.FullHits > 0 {
		add("catalogue.ndcg", m.FullNDCG, m.Fans, nil)
		add("catalogue.recall", m.FullHits, m.Fans, nil)
	}
	return out
}

// Measure scores the held-out ratings. Users without any are skipped; one whose held-out items are all irrelevant has NDCG 0, and
// counts.
func (t Test) Measure(s Scorer) Measures {
	var m Measures
	batch := t.Batch
	if batch <= 0 {
		batch = max(1, t.Held.Len())
	}
	var scores []float32
	var catalogue *catalogue
	if t.Items > 0 {
		catalogue = newCatalogue(t.Items)
	}
	for from := 0; from < t.Held.Len(); from += batch {
		var b Measures
		for k := from; k < min(from+batch, t.Held.Len()); k++ {
			rated, values := t.input(t.Held.Users[k])
			items, truth := t.Held.Row(k)
			scores = slices.Grow(scores[:0], len(items))[:len(items)]
			s.Score(k, rated, values, items, scores)
			t.errors(&b, items, scores, truth)
			relevant := relevance(truth, t.Like)
			b.Users++
			b.NDCG += NDCG(scores, relevant)
			b.AP += AP(scores, relevant)
			if catalogue != nil && slices.Contains(relevant, true) {
				b.Fans++
				ndcg, recall := catalogue.rank(s, k, rated, values, items, relevant)
				b.FullNDCG, b.FullHits = b.FullNDCG+ndcg, b.FullHits+recall
			}
		}
		if b.Ratings > 0 {
			b.Batched = b.Ratings * math.Sqrt(b.Squares/b.Ratings)
			b.NDCGBy, b.APBy = b.Ratings*b.NDCG/b.Users, b.Ratings*b.AP/b.Users
		}
		m.Add(b)
	}
	return m
}

// input returns what a user has rated in training: nothing, if it is cold.
func (t Test) input(user int32) ([]int32, []float32) {
	k, ok := t.Train.Find(user)
	if !ok {
		return nil, nil
	}
	items, values := t.Train.Row(k)
	return items, values
}

func relevance(truth []float32, like float32) []bool {
	out := make([]bool, len(truth))
	for i, v := range truth {
		out[i] = v >= like
	}
	return out
}

func (t Test) errors(m *Measures, items []int32, scores, truth []float32) {
	for i, s := range scores {
		m.Ratings++
		if t.Implicit {
			y := 0.0
			if truth[i] >= t.Like {
				y = 1
			}
			m.Entropy += Entropy(float64(s), y)
			continue
		}
		d := float64(s) - float64(truth[i])
		m.Squares += d * d
		if _, known := slices.BinarySearch(t.Known, items[i]); known {
			m.Known++
			m.KnownSq += d * d
		}
	}
}

// Entropy returns −y·log σ(z) − (1−y)·log(1−σ(z)), without overflow.
func Entropy(z, y float64) float64 {
	return max(z, 0) - z*y + math.Log1p(math.Exp(-math.Abs(z)))
}

// ranked returns the places of scores from the greatest on; equal ones keep their order.
func ranked(scores []float32) []int {
	order := make([]int, len(scores))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(scores[b], scores[a]) })
	return order
}

// discount is 1/log₂(rank + 1), for ranks from 1.
func discount(rank int) float64 { return 1 / math.Log2(float64(rank+1)) }

// NDCG returns Σ rel/log₂(rank + 1) over the first [Top] by score, divided by what the best order would give; 0 if nothing is
// relevant (Järvelin and Kekäläinen, TOIS 20(4), 2002, with binary gains).
func NDCG(scores []float32, relevant []bool) float64 {
	var got float64
	for rank, i := range ranked(scores) {
		if rank < Top && relevant[i] {
			got += discount(rank + 1)
		}
	}
	n := 0
	for _, r := range relevant {
		if r {
			n++
		}
	}
	return normalised(got, n)
}

func normalised(got float64, relevant int) float64 {
	var best float64
	for rank := 1; rank <= min(relevant, Top); rank++ {
		best += discount(rank)
	}
	if best == 0 {
		return 0
	}
	return got / best
}

// AP returns Σ precision@rank·rel/Σ rel over the first [Top] by score; 0 if none of them is relevant.
func AP(scores []float32, relevant []bool) float64 {
	var sum, hits float64
	for rank, i := range ranked(scores) {
		if rank < Top && relevant[i] {
			hits++
			sum += hits / float64(rank+1)
		}
	}
	return sum / (hits + 1e-10)
}

// catalogue ranks all items for one user after the other.
type catalogue struct {
	all    []int32
	scores []float32
}

func newCatalogue(items int) *catalogue {
	c := &catalogue{all: make([]int32, items), scores: make([]float32, items)}
	for i := range c.all {
		c.all[i] = int32(i)
	}
	return c
}

// rank returns NDCG and recall of the first Top items that the user has not rated in training.
func (c *catalogue) rank(s Scorer, k int, rated []int32, values []float32, held []int32, relevant []bool) (ndcg, recall float64) {
	s.Score(k, rated, values, c.all, c.scores)
	fans := 0
	for i := range held {
		if relevant[i] {
			fans++
		}
	}
	var got, hits float64
	for rank, item := range Best(c.scores, rated, Top) {
		if i, ok := slices.BinarySearch(held, item); ok && relevant[i] {
			got += discount(rank + 1)
			hits++
		}
	}
	return normalised(got, fans), hits / float64(fans)
}

// Best returns the n items of the greatest scores, best first, leaving out some, which ascend. Of equal ones the lower item comes
// first.
func Best(scores []float32, without []int32, n int) []int32 {
	var best []int32
	for i, s := range scores {
		if _, out := slices.BinarySearch(without, int32(i)); out {
			continue
		}
		if len(best) == n && s <= scores[best[n-1]] {
			continue
		}
		at, _ := slices.BinarySearchFunc(best, s, func(b int32, s float32) int {
			if scores[b] >= s {
				return -1
			}
			return 1
		})
		best = slices.Insert(best, at, int32(i))
		best = best[:min(n, len(best))]
	}
	return best
}
