package linkage

import (
	"fmt"

	"github.com/cohort-learning/cohort/parallel"
)

// MostPairs is how many pairs of records are compared at most: each takes 2 bytes.
const MostPairs = 50_000_000

// Table is one side: by record the values of the compared fields, and by record its block; nil blocks are one for all.
type Table struct {
	Records [][]string
	Blocks  []int
}

// Pairs are the comparisons of all rows with all labels of their block.
type Pairs struct {
	fields int
	groups []group
	block  []int // of each row: place in groups, −1 if no label is of its block
	place  []int // of each row in its group
	most   float64
	counts map[Pattern]float64
}

// group is a block; patterns are rows·labels.
type group struct {
	rows, labels []int
	patterns     []Pattern
}

// Compare compares the rows of one table with the records of another, the labels, field by field.
func Compare(rows, labels Table) (*Pairs, error) {
	p := &Pairs{counts: map[Pattern]float64{}, block: make([]int, len(rows.Records)), place: make([]int, len(rows.Records))}
	for _, t := range []Table{rows, labels} {
		if len(t.Records) == 0 {
			return nil, fmt.Errorf("there are no records to compare")
		}
		if p.fields = len(t.Records[0]); p.fields == 0 || p.fields > MostFields {
			return nil, fmt.Errorf("%d fields are compared: 1 to %d can be", p.fields, MostFields)
		}
		if t.Blocks != nil && len(t.Blocks) != len(t.Records) {
			return nil, fmt.Errorf("%d blocks for %d records", len(t.Blocks), len(t.Records))
		}
	}
	for _, t := range []Table{rows, labels} {
		for i, r := range t.Records {
			if len(r) != p.fields {
				return nil, fmt.Errorf("record %d has %d fields, others have %d", i, len(r), p.fields)
			}
		}
	}
	if err := p.arrange(rows, labels); err != nil {
		return nil, err
	}
	matches := 0
	total := 0
	for g := range p.groups {
		b := &p.groups[g]
		p.compare(b, rows.Records, labels.Records)
		matches += min(len(b.rows), len(b.labels))
		total += len(b.patterns)
	}
	if total == 0 {
		return nil, fmt.Errorf("no row and no label share a block: are blocks written alike in both tables?")
	}
	p.most = float64(matches) / float64(total)
	return p, nil
}

// arrange sorts rows and labels into groups.
func (p *Pairs) arrange(rows, labels Table) error {
	at := map[int]int{}
	of := func(t Table, i int) int {
		if t.Blocks == nil {
			return 0
		}
		return t.Blocks[i]
	}
	for j := range labels.Records {
		name := of(labels, j)
		g, ok := at[name]
		if !ok {
			g = len(p.groups)
			at[name] = g
			p.groups = append(p.groups, group{})
		}
		p.groups[g].labels = append(p.groups[g].labels, j)
	}
	pairs := 0
	for i := range rows.Records {
		g, ok := at[of(rows, i)]
		if !ok {
			p.block[i] = -1
			continue
		}
		b := &p.groups[g]
		p.block[i], p.place[i] = g, len(b.rows)
		b.rows = append(b.rows, i)
		pairs += len(b.labels)
	}
	if pairs > MostPairs {
		return fmt.Errorf("%d pairs of rows would be compared, %d at most: name a block, a column in which rows that belong together surely agree, "+
			"such as the year of birth", pairs, MostPairs)
	}
	return nil
}

// compare fills the patterns of a group in. Values are compared once however often they occur.
func (p *Pairs) compare(b *group, rows, labels [][]string) {
	b.patterns = make([]Pattern, len(b.rows)*len(b.labels))
	for f := range p.fields {
		left, right := distinct(b.rows, rows, f), distinct(b.labels, labels, f)
		table := make([]Level, len(left.values)*len(right.values))
		parallel.Chunks(len(left.values), 16, 0, func(_, lo, hi int) {
			for x := lo; x < hi; x++ {
				for y, v := range right.values {
					table[x*len(right.values)+y] = Agree(left.values[x], v)
				}
			}
		})
		for r, x := range left.of {
			row, agree := b.patterns[r*len(b.labels):(r+1)*len(b.labels)], table[x*len(right.values):]
			for c, y := range right.of {
				row[c] = row[c].With(f, agree[y])
			}
		}
	}
	for _, pattern := range b.patterns {
		p.counts[pattern]++
	}
}

// column is a field's different values, and which of them each record has.
type column struct {
	values []string
	of     []int
}

func distinct(who []int, records [][]string, field int) column {
	c, at := column{of: make([]int, len(who))}, map[string]int{}
	for r, i := range who {
		v := Normal(records[i][field])
		k, ok := at[v]
		if !ok {
			k = len(c.values)
			at[v] = k
			c.values = append(c.values, v)
		}
		c.of[r] = k
	}
	return c
}

// Estimate finds the model from the pairs: see [Estimate].
func (p *Pairs) Estimate() *Model { return Estimate(p.counts, p.fields, p.most) }

// Pattern returns how a row and a label agree; false if they are of different blocks.
func (p *Pairs) Pattern(row, label int) (Pattern, bool) {
	g := p.block[row]
	if g < 0 {
		return 0, false
	}
	b := &p.groups[g]
	for c, j := range b.labels {
		if j == label {
			return b.patterns[p.place[row]*len(b.labels)+c], true
		}
	}
	return 0, false
}
