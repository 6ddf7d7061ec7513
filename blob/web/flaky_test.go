package web_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/blob/web"
)

// countingStore counts how many chunks are being read at once.
type countingStore struct {
	*blob.Memory
	now, most atomic.Int64
}

func (c *countingStore) GetInto(ctx context.Context, h blob.Hash, buf []byte) ([]byte, error) {
	n := c.now.Add(1)
	defer c.now.Add(-1)
	for m := c.most.Load(); n > m && !c.most.CompareAndSwap(m, n); m = c.most.Load() {
	}
	return c.Memory.GetInto(ctx, h, buf)
}

// A proxy passes connections on, each until a number of bytes has gone through in either direction; then it does its worst.
type proxy struct {
	l    net.Listener
	to   string
	mu   sync.Mutex
	src  *rand.Rand
	most int64 // bytes until the worst
	mode func(src *rand.Rand) mode
	wg   sync.WaitGroup
	hits atomic.Int64
	end  chan struct{}
}

type mode int

const (
	cut mode = iota
	flip
	stall
	pass
)

func newProxy(t *testing.T, to string, most int64, mode func(*rand.Rand) mode) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	p := &proxy{l: l, to: to, src: rand.New(rand.NewPCG(1, 2)), most: most, mode: mode, end: make(chan struct{})}
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		close(p.end)
		_ = l.Close()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) serve(c net.Conn) {
	defer c.Close()
	s, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer s.Close()
	p.mu.Lock()
	m, budget, up := p.mode(p.src), p.src.Int64N(p.most), p.src.IntN(2) == 0
	p.mu.Unlock()
	closed := make(chan struct{}, 2)
	move := func(dst, src net.Conn, mine bool) {
		defer func() { closed <- struct{}{} }()
		buf := make([]byte, 8<<10)
		var n int64
		for {
			k, err := src.Read(buf)
			if mine && m == flip && k < len(buf) { // only where there is nothing but payload
				budget = max(budget, n+int64(k))
			}
			if mine && m != pass && n+int64(k) > budget {
				p.hits.Add(1)
				switch m {
				case cut:
					_, _ = dst.Write(buf[:budget-n])
					return
				case stall:
					<-p.end
					return
				case flip:
					buf[budget-n] ^= 1
					budget = 1 << 62
				}
			}
			n += int64(k)
			if _, err := dst.Write(buf[:k]); err != nil {
				return
			}
			if err != nil {
				return
			}
		}
	}
	go move(s, c, up)
	go move(c, s, !up)
	select {
	case <-closed:
	case <-p.end:
	}
}

// Through a line that breaks, lies and stalls, blobs arrive whole, both ways. Without TLS, so that lies reach us.
func TestFlakyLine(t *testing.T) {
	for name, f := range map[string]func(*rand.Rand) mode{
		"cut":   func(*rand.Rand) mode { return cut },
		"flip":  func(*rand.Rand) mode { return flip },
		"stall": func(src *rand.Rand) mode { return []mode{stall, pass, pass}[src.IntN(3)] },
		"mixed": func(src *rand.Rand) mode { return []mode{cut, cut, cut, flip, pass}[src.IntN(5)] },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newPlainWorld(t, openDir(t), web.HandlerOptions{Stall: 200 * time.Millisecond})
			p := newProxy(t, w.server.Listener.Addr().String(), 3*blob.ChunkSize/2, f)
			from, to := blob.NewMemory(), blob.NewMemory()
			const n = 12*blob.ChunkSize + 99
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			// Which connections carry how much is a matter of luck; all may be good ones. Then others are made.
			for try := uint64(1); p.hits.Load() == 0; try++ {
				if try > 20 {
					t.Fatal("the line was good")
				}
				h, _ := write(t, from, try, n)
				w.permit(from, "anna", h)
				w.permits.Grant("anna", h, time.Time{})
				c := w.client(t, "anna", "http://"+p.l.Addr().String())
				c.Stall = 200 * time.Millisecond
				c.Attempts = 100
				check(t, c.Upload(ctx, from, h))
				wantSame(t, w.store, h, try, n)
				check(t, c.Download(ctx, to, h))
				wantSame(t, to, h, try, n)
				t.Logf("%d faults, %d bytes sent and %d received for %d", p.hits.Load(), c.Sent(), c.Received(), n)
			}
		})
	}
}

// Over TLS, too; and a chunk that broke off goes on in its middle, or lines that break within every chunk would never
// carry one.
func TestBreaksWithinEveryChunk(t *testing.T) {
	w := newWorld(t, openDir(t), web.HandlerOptions{})
	p := newProxy(t, w.server.Listener.Addr().String(), 400<<10, func(*rand.Rand) mode { return cut })
	from, to := blob.NewMemory(), blob.NewMemory()
	const n = 3 * blob.ChunkSize
	h, _ := write(t, from, 1, n)
	w.permit(from, "anna", h)
	w.permits.Grant("anna", h, time.Time{})
	c := w.client(t, "anna", "https://"+p.l.Addr().String())
	c.Attempts = 100
	check(t, c.Upload(t.Context(), from, h))
	wantSame(t, w.store, h, 1, n)
	check(t, c.Download(t.Context(), to, h))
	wantSame(t, to, h, 1, n)
}

// A server that is gone is given up after so many attempts; a context that ends, at once.
func TestClientGivesUp(t *testing.T) {
	w := newWorld(t, blob.NewMemory(), web.HandlerOptions{})
	from := blob.NewMemory()
	h, _ := write(t, from, 1, 1000)
	c := w.client(t, "anna", "")
	if err := c.Upload(t.Context(), from, h); !errors.Is(err, web.ErrDenied) {
		t.Errorf("without a permit: %v", err)
	}
	if err := c.Download(t.Context(), from, blob.Sum(nil)); !errors.Is(err, web.ErrDenied) {
		t.Errorf("without a permit: %v", err)
	}
	w.server.Close()
	c.Attempts = 3
	if err := c.Upload(t.Context(), from, h); err == nil || errors.Is(err, web.ErrDenied) {
		t.Errorf("without a server: %v", err)
	}
	c.Attempts, c.MinPause, c.MaxPause = 1000, time.Hour, time.Hour
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("enough")
	time.AfterFunc(20*time.Millisecond, func() { cancel(reason) })
	if err := c.Download(ctx, from, h); !errors.Is(err, reason) {
		t.Errorf("cancelled: %v", err)
	}
}

// A server that goes away while a member uploads, and comes back without knowing the manifest.
func TestServerForgets(t *testing.T) {
	store, from := openDir(t), blob.NewMemory()
	h, _ := write(t, from, 1, 8*blob.ChunkSize)
	w := newWorld(t, store, web.HandlerOptions{})
	w.permit(from, "anna", h)
	c := w.client(t, "anna", "")
	c.Parallel = 1
	once := sync.OnceFunc(func() {
		w.permits.Revoke("anna", h)
		w.permit(from, "anna", h)
	})
	check(t, c.UploadProgress(t.Context(), from, h, func(done, total int64) {
		if done > total/2 {
			once()
		}
	}))
	wantSame(t, store, h, 1, 8*blob.ChunkSize)
}
