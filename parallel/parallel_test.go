package parallel

import (
	"fmt"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

func TestEveryIndexOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, size := rapid.IntRange(0, 200).Draw(t, "n"), rapid.IntRange(1, 70).Draw(t, "size")
		seen, ranges := make([]int, n), make([]int, (n+size-1)/size)
		Chunks(n, size, rapid.IntRange(0, 9).Draw(t, "threads"), func(at, lo, hi int) {
			ranges[at]++
			if lo != at*size || hi-lo > size || hi <= lo {
				panic(fmt.Sprintf("range %d is [%d, %d)", at, lo, hi))
			}
			for i := lo; i < hi; i++ {
				seen[i]++
			}
		})
		for i, times := range append(seen, ranges...) {
			if times != 1 {
				t.Fatalf("%d was worked on %d times", i, times)
			}
		}
	})
}

// TestLeastError: whichever of several fails first in time, that of the least index is told, and later ones need not run.
func TestLeastError(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 300).Draw(t, "n")
		bad := rapid.SliceOfN(rapid.IntRange(0, n-1), 1, 5).Draw(t, "bad")
		fails, least := map[int]bool{}, n
		for _, i := range bad {
			fails[i], least = true, min(least, i)
		}
		var before atomic.Int64
		err := Try(n, rapid.IntRange(0, 9).Draw(t, "threads"), func(i int) error {
			if i < least {
				before.Add(1)
			}
			if fails[i] {
				return fmt.Errorf("%d", i)
			}
			return nil
		})
		if err == nil || err.Error() != fmt.Sprint(least) || before.Load() != int64(least) {
			t.Fatalf("of errors at %v %v was told, after %d calls before it", bad, err, before.Load())
		}
	})
	if err := Try(100, 3, func(int) error { return nil }); err != nil {
		t.Error(err)
	}
}
