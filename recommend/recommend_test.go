package recommend

import (
	"math"
	"slices"
	"testing"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func near(t *testing.T, what string, got, want, within float64) {
	t.Helper()
	if !(math.Abs(got-want) <= within) {
		t.Errorf("%s is %.7g, want %.7g", what, got, want)
	}
}

// TestRankings: scores (.9, .2, .7, .1) of items of which the second and third are relevant, by hand: ranks 2 and 3, so that DCG is
// 1/log₂3 + 1/log₂4, the ideal 1 + 1/log₂3, and AP (1/2 + 2/3)/2.
func TestRankings(t *testing.T) {
	scores, relevant := []float32{.9, .2, .7, .1}, []bool{false, true, true, false}
	near(t, "NDCG", NDCG(scores, relevant), .693426, 5e-7)
	near(t, "AP", AP(scores, relevant), .583333, 5e-7)
	if NDCG(scores, make([]bool, 4)) != 0 || AP(scores, make([]bool, 4)) != 0 {
		t.Error("nothing is relevant, and yet the ranking is good for something")
	}
	near(t, "NDCG of equal scores, which keep their order", NDCG(make([]float32, 3), []bool{false, true, false}), 1/math.Log2(3), 1e-12)
	long := make([]bool, 12)
	long[11] = true
	if NDCG(make([]float32, 12), long) != 0 {
		t.Error("the twelfth place counts")
	}
}

// fixed scores items by what it is told.
type fixed map[[2]int32]float32

func (f fixed) Score(k int, _ []int32, _ []float32, items []int32, dst []float32) {
	for i, item := range items {
		dst[i] = f[[2]int32{int32(k), item}]
	}
}

func view(rows ...[3]float32) dataset.View {
	e := &dataset.Examples{Shape: []int{2}}
	for _, r := range rows {
		e.Tok, e.Targets = append(e.Tok, int32(r[0]), int32(r[1])), append(e.Targets, r[2])
	}
	return e.All()
}

// TestErrors: errors (1, −1) of one user and (3) of another: √(11/3) over all, (2·1 + 1·3)/3 by batches of one user.
func TestErrors(t *testing.T) {
	held := Of(view([3]float32{4, 1, 2}, [3]float32{4, 0, 4}, [3]float32{9, 1, 1}))
	s := fixed{{0, 0}: 3, {0, 1}: 3, {1, 1}: 4}
	m := Test{Held: held, Like: 3.5, Batch: 1, Known: []int32{1}}.Measure(s)
	got := map[string]float64{}
	for _, v := range m.Values(false) {
		got[v.Name] = v.Value
	}
	near(t, "rmse", got["rmse"], 1.9148542, 1e-7)
	near(t, "rmse.batched", got["rmse.batched"], 5./3, 1e-12)
	near(t, "rmse.known", got["rmse.known"], math.Sqrt(5), 1e-12)
	together := Test{Held: held, Like: 3.5}.Measure(s)
	near(t, "rmse.batched of a single batch", together.Batched/together.Ratings, 1.9148542, 1e-7)
	if back := FromVector(m.Vector()); back != m {
		t.Errorf("%+v became %+v", m, back)
	}
	near(t, "users", m.Users, 2, 0)
	near(t, "NDCG", m.NDCG, 1, 1e-12) // 1 of the first, whose only relevant item ties and comes first; 0 of the second
	near(t, "NDCG by ratings", m.NDCGBy, 2, 1e-12)
}

// TestCatalogue: of five items the user has rated 0 in training; of the others 3 and 4 are held out and 3 is relevant.
func TestCatalogue(t *testing.T) {
	train, held := Of(view([3]float32{7, 0, 5})), Of(view([3]float32{7, 3, 5}, [3]float32{7, 4, 1}))
	s := fixed{{0, 0}: 9, {0, 1}: 3, {0, 2}: 1, {0, 3}: 2, {0, 4}: 0}
	m := Test{Train: train, Held: held, Like: 3.5, Items: 5}.Measure(s)
	near(t, "fans", m.Fans, 1, 0)
	near(t, "NDCG", m.FullNDCG, 1/math.Log2(3), 1e-12) // second, after item 1
	near(t, "recall", m.FullHits, 1, 0)
	if diff := cmp.Diff([]int32{1, 3}, Best([]float32{9, 3, 1, 2, 0}, []int32{0}, 2)); diff != "" {
		t.Error(diff)
	}
}

// TestEntropy against the formula, where that does not overflow.
func TestEntropy(t *testing.T) {
	for _, z := range []float64{-3, 0, 2.5} {
		p := 1 / (1 + math.Exp(-z))
		near(t, "entropy of a liked item", Entropy(z, 1), -math.Log(p), 1e-12)
		near(t, "entropy of another", Entropy(z, 0), -math.Log(1-p), 1e-12)
	}
	near(t, "entropy far out", Entropy(-1000, 1), 1000, 1e-9)
}

// TestTable: a table holds just the ratings of the view, by user and item; Best is the head of a stable sort.
func TestTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 30).Draw(t, "n")
		seen, rows := map[[2]int32]float32{}, [][3]float32{}
		for range n {
			pair := [2]int32{rapid.Int32Range(0, 5).Draw(t, "user"), rapid.Int32Range(0, 9).Draw(t, "item")}
			if _, ok := seen[pair]; ok {
				continue
			}
			v := rapid.Float32Range(1, 5).Draw(t, "rating")
			seen[pair] = v
			rows = append(rows, [3]float32{float32(pair[0]), float32(pair[1]), v})
		}
		table := Of(view(rows...))
		if !slices.IsSorted(table.Users) || len(table.Items) != len(seen) {
			t.Fatalf("%d of %d ratings, users %v", len(table.Items), len(seen), table.Users)
		}
		liked := table.Like(3)
		for k, u := range table.Users {
			items, values := table.Row(k)
			_, likes := liked.Row(k)
			if !slices.IsSorted(items) {
				t.Fatalf("items %v", items)
			}
			for i, item := range items {
				if seen[[2]int32{u, item}] != values[i] || (values[i] >= 3) != (likes[i] == 1) {
					t.Fatalf("user %d, item %d: %v", u, item, values[i])
				}
			}
		}
		scores := rapid.SliceOfN(rapid.Float32Range(0, 3), 0, 40).Draw(t, "scores")
		top := rapid.IntRange(1, 12).Draw(t, "top")
		var want []int32
		for _, i := range ranked(scores) {
			if i%3 != 0 && len(want) < top {
				want = append(want, int32(i))
			}
		}
		var without []int32
		for i := 0; i < len(scores); i += 3 {
			without = append(without, int32(i))
		}
		if got := Best(scores, without, top); !slices.Equal(got, want) {
			t.Fatalf("best of %v: %v, want %v", scores, got, want)
		}
	})
}
