package web_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/blob/web"
)

// BenchmarkUploads has a thousand members upload half a megabyte each, so many at a time, over TLS to a folder; client and
// server share the machine. The bytes are those of the models.
func BenchmarkUploads(b *testing.B) {
	const members, size = 1000, 500_000
	from := make([]*blob.Memory, members)
	names := make([]blob.Hash, members)
	for i := range from {
		from[i] = blob.NewMemory()
		names[i], _ = write(b, from[i], uint64(i), size)
	}
	for _, parallel := range []int{1, 16, 64, 1000} {
		b.Run(fmt.Sprint(parallel), func(b *testing.B) {
			b.SetBytes(members * size)
			for b.Loop() {
				b.StopTimer()
				w := newWorld(b, openDir(b), web.HandlerOptions{})
				tr := w.transport()
				tr.MaxIdleConnsPerHost = parallel
				next := make(chan int)
				var wg sync.WaitGroup
				for i := range from {
					w.permit(from[i], fmt.Sprint(i), names[i])
				}
				b.StartTimer()
				for range parallel {
					wg.Go(func() {
						for i := range next {
							c := web.NewClient(&http.Client{Transport: as{fmt.Sprint(i), tr}}, w.server.URL)
							if err := c.Upload(b.Context(), from[i], names[i]); err != nil {
								b.Error(err)
							}
						}
					})
				}
				for i := range from {
					next <- i
				}
				close(next)
				wg.Wait()
				b.StopTimer()
				tr.CloseIdleConnections()
				w.server.Close()
				b.StartTimer()
			}
		})
	}
}

// BenchmarkDownload has one member fetch one blob into memory, and BenchmarkDownloads 64 members the same half megabyte.
func BenchmarkDownload(b *testing.B) {
	w := newWorld(b, openDir(b), web.HandlerOptions{})
	const n = 64 * blob.ChunkSize
	h, _ := write(b, w.store, 1, n)
	w.permits.Grant("anna", h, time.Time{})
	c := w.client(b, "anna", "")
	b.SetBytes(n)
	for b.Loop() {
		if err := c.Download(b.Context(), blob.NewMemory(), h); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDownloads(b *testing.B) {
	w := newWorld(b, openDir(b), web.HandlerOptions{})
	const members, n = 64, 500_000
	h, _ := write(b, w.store, 1, n)
	tr := w.transport()
	tr.MaxIdleConnsPerHost = members
	for i := range members {
		w.permits.Grant(fmt.Sprint(i), h, time.Time{})
	}
	b.SetBytes(members * n)
	for b.Loop() {
		var wg sync.WaitGroup
		for i := range members {
			wg.Go(func() {
				c := web.NewClient(&http.Client{Transport: as{fmt.Sprint(i), tr}}, w.server.URL)
				if err := c.Download(b.Context(), blob.NewMemory(), h); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
	}
	tr.CloseIdleConnections()
}
