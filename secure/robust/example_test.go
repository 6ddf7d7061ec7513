package robust_test

import (
	"context"
	"fmt"

	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/secure/robust"
	"github.com/cohort-learning/cohort/weights"
)

// Five members send an update of one coordinate; the last one lies.
func Example() {
	like := weights.NewSet(1)
	like.Put("w", weights.NewTensor(weights.Float32, 1))
	spool, err := robust.NewSpool(like, "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer spool.Close()
	for i, x := range []float64{1, 2, 3, 4, 1000} {
		update := weights.NewSet(1)
		update.Put("w", weights.Of64([]float64{x}, 1))
		if err := spool.Append(i, fmt.Sprint("member ", i), 0, update, nil, nil, 1); err != nil {
			fmt.Println(err)
			return
		}
	}
	for _, m := range []robust.Method{robust.Mean{}, robust.Median{}, robust.TrimmedMean{Beta: 0.2}, robust.Krum{Liars: 1}, robust.Krum{Liars: 2}} {
		c, err := robust.Rule{Method: m}.Combine(context.Background(), spool, nil, rng.New(0, 0, "", "buckets"))
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(m, c.Value.Must("w").At(0))
	}
	// Output:
	// mean 202
	// median 3
	// trimmed mean 0.2 3
	// krum (f=1) 2
	// krum (f=2) needs at least 2f+3 = 7 results, there are 5: ask more members or set liars to 1
}
