package recommend

// Means predicts the mean rating of an item, and of items without ratings the mean of all: what every recommender should beat.
type Means struct {
	items []float32
	all   float32
}

// MeansOf returns the means of the ratings of a table.
func MeansOf(t Table, items int) *Means {
	sum, count := make([]float64, items), make([]float64, items)
	var total float64
	for k, i := range t.Items {
		sum[i] += float64(t.Values[k])
		count[i]++
		total += float64(t.Values[k])
	}
	m := &Means{items: make([]float32, items)}
	if len(t.Items) > 0 {
		m.all = float32(total / float64(len(t.Items)))
	}
	for i := range m.items {
		m.items[i] = m.all
		if count[i] > 0 {
			m.items[i] = float32(sum[i] / count[i])
		}
	}
	return m
}

// Overall predicts the mean of all ratings for every item.
func (m *Means) Overall() *Means {
	o := &Means{items: make([]float32, len(m.items)), all: m.all}
	for i := range o.items {
		o.items[i] = m.all
	}
	return o
}

// Score implements [Scorer].
func (m *Means) Score(_ int, _ []int32, _ []float32, items []int32, dst []float32) {
	for k, i := range items {
		dst[k] = m.items[i]
	}
}
