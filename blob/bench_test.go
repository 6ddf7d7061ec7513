package blob_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/blob/blobtest"
)

// BenchmarkDirPut puts different objects, durably, so many at once.
func BenchmarkDirPut(b *testing.B) {
	for _, size := range []int{4 << 10, 512 << 10, 1 << 20} {
		for _, parallel := range []int{1, 4, 64, 1000} {
			b.Run(fmt.Sprintf("%dKiB/%d", size>>10, parallel), func(b *testing.B) {
				d := openDir(b, b.TempDir(), nil)
				random := blobtest.Bytes(1, size)
				b.SetBytes(int64(size))
				b.ResetTimer()
				var next atomic.Uint64
				var wg sync.WaitGroup
				for range parallel {
					wg.Go(func() {
						data := append([]byte{}, random...)
						for i := next.Add(1); i <= uint64(b.N); i = next.Add(1) {
							copy(data, fmt.Appendf(nil, "%16d", i))
							if err := d.Put(b.Context(), blob.Sum(data), data); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
			})
		}
	}
}

func BenchmarkDirGet(b *testing.B) {
	d := openDir(b, b.TempDir(), nil)
	var all []blob.Hash
	for i := range uint64(64) {
		data := blobtest.Bytes(i, blob.ChunkSize)
		all = append(all, blob.Sum(data))
		if err := d.Put(b.Context(), blob.Sum(data), data); err != nil {
			b.Fatal(err)
		}
	}
	buf := make([]byte, blob.ChunkSize)
	b.SetBytes(blob.ChunkSize)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := blob.GetInto(b.Context(), d, all[i%len(all)], buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDirWrite(b *testing.B) {
	d := openDir(b, b.TempDir(), nil)
	const n = 64 * blob.ChunkSize
	b.SetBytes(n)
	b.ReportAllocs()
	seed := uint64(0)
	for b.Loop() {
		seed++
		if _, _, err := blob.Write(b.Context(), d, blobtest.Random(seed, n)); err != nil {
			b.Fatal(err)
		}
	}
}
