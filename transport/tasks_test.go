package transport_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cohort-learning/cohort/transport"
)

// ranges writes ascending numbers as a list.
func ranges(sorted []int) string {
	var out []string
	for i := 0; i < len(sorted); {
		j := i
		for j+1 < len(sorted) && sorted[j+1] == sorted[j]+1 {
			j++
		}
		if i == j {
			out = append(out, fmt.Sprint(sorted[i]))
		} else {
			out = append(out, fmt.Sprintf("%d-%d", sorted[i], sorted[j]))
		}
		i = j + 1
	}
	return strings.Join(out, ",")
}

// TestTasksFor: each member that is asked finds its own order, and nobody else one.
func TestTasksFor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 40).Draw(t, "n")
		set := func(name string) []int {
			x := rapid.SliceOfNDistinct(rapid.IntRange(0, 99), n, n, rapid.ID[int]).Draw(t, name)
			slices.Sort(x)
			return x
		}
		orders, places := set("orders"), set("places")
		b := transport.Tasks{Orders: ranges(orders), Places: ranges(places), Task: transport.Task{Base: 3, Group: "g"}}
		if err := b.Validate(0); err != nil {
			t.Fatal(err)
		}
		for place := range 100 {
			got, ok := b.For(transport.Seat{Index: place, Samples: 9})
			at, want := slices.BinarySearch(places, place)
			if ok != want || ok && (got.Order != orders[at] || got.Index != place || got.Samples != 9 || got.Base != 3 || got.Group != "g") {
				t.Fatalf("place %d: %+v, %v", place, got, ok)
			}
		}
	})
}
