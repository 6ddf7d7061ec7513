// Package recommend has what all recommenders share: ratings by user ([Table]), and how good their scores are ([Measures]).
//
// Scores are measured as the literature on federated recommenders does, in both of its conventions where there are two, and on
// the whole catalogue besides, since ranking only what a user has rated says little of what a user would be shown.
package recommend

import (
	"slices"

	"github.com/cohort-learning/cohort/dataset"
)

// Table is the ratings of some users, a row a user, by ascending user; the items of a row ascend.
type Table struct {
	Users  []int32 // as the data number them
	Start  []int32 // row k is Items[Start[k]:Start[k+1]]
	Items  []int32
	Values []float32
}

// Of returns the table of a view of ratings.
func Of(v dataset.View) Table {
	var t Table
	if len(v.Rows) == 0 {
		t.Start = []int32{0}
		return t
	}
	rows := slices.Clone(v.Rows)
	tok := v.Data.Tok
	slices.SortFunc(rows, func(a, b int32) int {
		if d := tok[2*a] - tok[2*b]; d != 0 {
			return int(d)
		}
		return int(tok[2*a+1] - tok[2*b+1])
	})
	t.Items, t.Values = make([]int32, len(rows)), make([]float32, len(rows))
	for k, row := range rows {
		if u := tok[2*row]; len(t.Users) == 0 || t.Users[len(t.Users)-1] != u {
			t.Users, t.Start = append(t.Users, u), append(t.Start, int32(k))
		}
		t.Items[k], t.Values[k] = tok[2*row+1], v.Data.Targets[row]
	}
	t.Start = append(t.Start, int32(len(rows)))
	return t
}

// Len returns the number of users.
func (t Table) Len() int { return len(t.Users) }

// Row returns the items that the k-th user has rated, and the ratings.
func (t Table) Row(k int) (items []int32, values []float32) {
	return t.Items[t.Start[k]:t.Start[k+1]], t.Values[t.Start[k]:t.Start[k+1]]
}

// Find returns the place of a user, and whether it is there.
func (t Table) Find(user int32) (int, bool) { return slices.BinarySearch(t.Users, user) }

// Rated returns the items that anybody has rated, ascending.
func (t Table) Rated() []int32 {
	items := slices.Clone(t.Items)
	slices.Sort(items)
	return slices.Compact(items)
}

// Like returns a table whose values are 1 where the rating is at least like, and else 0: implicit feedback.
func (t Table) Like(like float32) Table {
	values := make([]float32, len(t.Values))
	for i, v := range t.Values {
		if v >= like {
			values[i] = 1
		}
	}
	t.Values = values
	return t
}
