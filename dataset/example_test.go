package dataset_test

import (
	"context"
	"fmt"
	"os"

	"github.com/cohort-learning/cohort/dataset"
)

// Draw characters, deal them to six clients of two classes each, and look at who holds what.
func Example() {
	split, err := dataset.Load(context.Background(), dataset.Spec{Name: "glyphs", Size: 8, Train: 600, Test: 60})
	if err != nil {
		fmt.Println(err)
		return
	}
	scheme := dataset.Scheme{Name: "pathological", Clients: 6, PerClient: 2}
	dealt, err := scheme.Deal(split.Train, split.Test, 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	dealt.Manifest(split.Train, split.Test).WriteText(os.Stdout, 3)

	mine := dealt.Train.View(split.Train, 0)
	batch := make([]float32, 10*split.Train.Size())
	split.Train.Fill(batch, mine.Rows[:10], dataset.Augment{}, nil)
	fmt.Println(mine.LabelSet(), len(batch))
	// Output:
	// glyphs, pathological per_client=2 clients=6, seed 1: 6 members hold 480 of 600 training samples and 48 of 60 test samples
	// sizes 50 to 120, median 90; label skew (EMD, 0 to 2) 1.500
	//
	//       member  train  test   EMD   0   1   2  3   4  5  6  7   8  9
	//   client-000     50     5  1.50  30   ·   ·  ·  20  ·  ·  ·   ·  ·
	//   client-001     80     8  1.50   ·  60   ·  ·  20  ·  ·  ·   ·  ·
	//   client-002     90     9  1.50   ·   ·  60  ·   ·  ·  ·  ·  30  ·
	// … and 3 more members
	// [0 4] 640
}
