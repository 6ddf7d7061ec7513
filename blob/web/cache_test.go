package web

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cohort-learning/cohort/blob"
)

// TestCacheForgets lets a chunk go ten seconds after its last reader, and not while somebody reads.
func TestCacheForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loads := 0
		c := newCache(4*blob.ChunkSize, func(_ context.Context, h blob.Hash, buf []byte) ([]byte, error) {
			loads++
			return append(buf[:0], h[:]...), nil
		})
		get := func(n byte) func() {
			t.Helper()
			data, release, err := c.get(t.Context(), blob.Hash{n})
			if err != nil || data[0] != n {
				t.Fatalf("chunk %d: %v, %v", n, data, err)
			}
			return release
		}
		expect := func(when string, want, held int) {
			t.Helper()
			synctest.Wait()
			c.mu.Lock()
			defer c.mu.Unlock()
			if loads != want || len(c.m) != held {
				t.Errorf("%s: %d loads and %d chunks, want %d and %d", when, loads, len(c.m), want, held)
			}
		}
		reading := get(1)
		get(2)()
		time.Sleep(6 * time.Second)
		get(3)()
		expect("at six seconds", 3, 3)
		time.Sleep(5 * time.Second)
		expect("the second is idle for eleven seconds", 3, 2)
		time.Sleep(6 * time.Second)
		expect("and the third", 3, 1)
		reading()
		get(1)()
		expect("the first was held all the time", 3, 1)
		time.Sleep(11 * time.Second)
		expect("and is not any more", 3, 0)
		get(1)()
		expect("it is loaded again", 4, 1)
		time.Sleep(time.Minute)
		synctest.Wait()
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.timer != nil {
			t.Error("a timer runs for nothing")
		}
	})
}
