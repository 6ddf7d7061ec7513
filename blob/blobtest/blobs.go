package blobtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"github.com/cohort-learning/cohort/blob"
)

func testBlobs(t *testing.T, f Fixture) {
	for i, n := range sizes() {
		t.Run(describe(n), func(t *testing.T) {
			seed := uint64(i)
			h, m, err := blob.Write(t.Context(), f.Store, iotest.HalfReader(Random(seed, n)))
			check(t, err)
			if m.Bytes != n || m.Hash() != h {
				t.Errorf("manifest of %d bytes named %v, blob %v", m.Bytes, m.Hash(), h)
			}
			again, _, err := blob.Write(t.Context(), f.Store, Random(seed, n))
			check(t, err)
			if again != h {
				t.Error("the same bytes got another name")
			}
			wantBlob(t, f.Store, h, seed, n)
			r, err := blob.Open(t.Context(), f.Store, h)
			check(t, err)
			defer r.Close()
			want := Bytes(seed, int(n))
			if n < 3*blob.ChunkSize { // it reads byte by byte
				check(t, iotest.TestReader(io.NewSectionReader(r, 0, min(n, 2000)), want[:min(n, 2000)]))
			}
			ranges(t, r, want)
		})
	}
}

// ranges reads at random places, from several goroutines.
func ranges(t *testing.T, r io.ReaderAt, want []byte) {
	var wg sync.WaitGroup
	for g := range 3 {
		wg.Go(func() {
			src := rand.New(rand.NewPCG(uint64(g), uint64(len(want))))
			for range 20 {
				off := src.IntN(len(want) + 1)
				p := make([]byte, src.IntN(len(want)-off+1)+src.IntN(2)*10)
				n, err := r.ReadAt(p, int64(off))
				end := min(len(want), off+len(p))
				if n != end-off || !bytes.Equal(p[:n], want[off:end]) || (n < len(p)) != (err == io.EOF) || err != nil && err != io.EOF {
					t.Errorf("%d bytes at %d of %d: %d, %v", len(p), off, len(want), n, err)
				}
			}
		})
	}
	wg.Wait()
}

func testMissing(t *testing.T, f Fixture) {
	s := f.Store
	h, m, err := blob.Write(t.Context(), s, io.MultiReader(Random(1, 2*blob.ChunkSize), Random(1, blob.ChunkSize)))
	check(t, err)
	lack, err := blob.Missing(t.Context(), s, m)
	check(t, err)
	if len(lack) != 0 || m.Chunks[0] != m.Chunks[2] {
		t.Fatalf("missing %v of %v", lack, m.Chunks)
	}
	for _, c := range m.Chunks {
		check(t, s.Delete(t.Context(), c))
	}
	lack, err = blob.Missing(t.Context(), s, m)
	check(t, err)
	if !slices.Equal(lack, m.Chunks[:2]) {
		t.Errorf("missing %v", lack)
	}
	r, err := blob.Open(t.Context(), s, h)
	check(t, err)
	if _, err := io.ReadAll(r); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("read of a missing chunk: %v", err)
	}
	if _, err := blob.Open(t.Context(), s, m.Chunks[0]); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("open of what is not there: %v", err)
	}
	put(t, s, Bytes(9, 100))
	if _, err := blob.Open(t.Context(), s, blob.Sum(Bytes(9, 100))); !errors.Is(err, blob.ErrNoManifest) {
		t.Errorf("open of a chunk: %v", err)
	}
}

func testWriteFails(t *testing.T, f Fixture) {
	broken := errors.New("broken")
	_, _, err := blob.Write(t.Context(), f.Store, io.MultiReader(Random(1, 5*blob.ChunkSize/2), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) {
		t.Errorf("Write from a broken reader: %v", err)
	}
	if u := f.Store.Usage(); u.Objects > 3 {
		t.Errorf("usage %+v", u)
	}
	h, _, err := blob.Write(t.Context(), f.Store, Random(1, 5*blob.ChunkSize/2))
	check(t, err)
	wantBlob(t, f.Store, h, 1, 5*blob.ChunkSize/2)
}

func testIdle(t *testing.T, f Fixture) {
	s := f.Store
	h := put(t, s, Bytes(1, 1000))
	idle := func(before time.Time, want int64) {
		t.Helper()
		n, err := s.DeleteIdle(t.Context(), h, before)
		check(t, err)
		if n != want {
			t.Errorf("%d bytes freed, want %d", n, want)
		}
	}
	idle(time.Now().Add(-time.Hour), 0)
	unpin, second := s.Pin(h), s.Pin(h)
	idle(time.Now().Add(time.Hour), 0)
	unpin()
	unpin() // counts once
	idle(time.Now().Add(time.Hour), 0)
	now := time.Now()
	second()
	idle(now, 0)
	idle(time.Now().Add(time.Hour), 1000)
	wantGone(t, s, h)
	idle(time.Now().Add(time.Hour), 0)
	unpin = s.Pin(h) // before it is there
	put(t, s, Bytes(1, 1000))
	idle(time.Now().Add(time.Hour), 0)
	unpin()
	now = time.Now()
	wantHas(t, s, h, true)
	idle(now, 0)
	now = time.Now()
	put(t, s, Bytes(1, 1000))
	idle(now, 0)
}

// collectNow collects as if everything had been unused for long.
func collectNow(t *testing.T, s blob.Keeper, live func(blob.Hash) bool) blob.Freed {
	t.Helper()
	f, err := blob.CollectOlder(t.Context(), s, live, -time.Hour)
	check(t, err)
	return f
}

func testCollect(t *testing.T, f Fixture) {
	s := f.Store
	shared := Bytes(1, blob.ChunkSize)
	keep, _, err := blob.Write(t.Context(), s, io.MultiReader(bytes.NewReader(shared), Random(2, 1000)))
	check(t, err)
	drop, m, err := blob.Write(t.Context(), s, io.MultiReader(bytes.NewReader(shared), Random(3, 2000)))
	check(t, err)
	alone := put(t, s, Bytes(4, 48)) // as long as a manifest, but none
	live := func(h blob.Hash) bool { return h == keep || h == alone }
	freed, err := blob.Collect(t.Context(), s, live)
	check(t, err)
	if freed != (blob.Freed{}) {
		t.Errorf("what is new was freed: %+v", freed)
	}
	unpin := s.Pin(m.Chunks[1])
	if freed := collectNow(t, s, live); freed != (blob.Freed{Objects: 1, Bytes: blob.ManifestLen(m.Bytes)}) {
		t.Errorf("freed %+v", freed)
	}
	unpin()
	if freed := collectNow(t, s, live); freed != (blob.Freed{Objects: 1, Bytes: 2000}) {
		t.Errorf("freed %+v", freed)
	}
	wantGone(t, s, drop)
	wantGone(t, s, m.Chunks[1])
	wantHas(t, s, alone, true)
	r, err := blob.Open(t.Context(), s, keep)
	check(t, err)
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Error(err)
	}
	if f.Damage != nil {
		f.Damage(t, keep)
		if _, err := blob.CollectOlder(t.Context(), s, live, -time.Hour); !errors.Is(err, blob.ErrCorrupt) {
			t.Errorf("collection without a live manifest: %v", err)
		}
		wantHas(t, s, m.Chunks[0], true)
	}
}

func testDiscard(t *testing.T, f Fixture) {
	s := f.Store
	shared := Bytes(1, blob.ChunkSize)
	write := func(seed uint64) (blob.Hash, blob.Manifest) {
		h, m, err := blob.Write(t.Context(), s, io.MultiReader(bytes.NewReader(shared), Random(seed, 1000)))
		check(t, err)
		return h, m
	}
	a, ma := write(2)
	b, mb := write(3)
	time.Sleep(time.Millisecond) // what was used since the call began is spared
	discard := func(want int64, live blob.Hash, blobs ...blob.Hash) {
		t.Helper()
		freed, err := blob.Discard(t.Context(), s, func(h blob.Hash) bool { return h == live }, blobs...)
		check(t, err)
		if freed.Bytes != want {
			t.Errorf("freed %+v, want %d bytes", freed, want)
		}
	}
	discard(0, a, a)
	discard(1000+blob.ManifestLen(ma.Bytes), blob.Hash{}, a, a) // b counts though it is not live
	wantGone(t, s, a)
	discard(0, blob.Hash{}, a)
	discard(1000+blob.ChunkSize+blob.ManifestLen(mb.Bytes), blob.Hash{}, b)
	if u := s.Usage(); u.Objects != 0 {
		t.Errorf("usage %+v", u)
	}
}

func testCollectWhileWriting(t *testing.T, f Fixture) {
	var mu sync.Mutex
	roots := map[blob.Hash]bool{}
	live := func(h blob.Hash) bool {
		mu.Lock()
		defer mu.Unlock()
		return roots[h]
	}
	ctx, cancel := context.WithCancel(t.Context())
	var collector, writers sync.WaitGroup
	collector.Go(func() {
		for ctx.Err() == nil {
			if _, err := blob.CollectOlder(t.Context(), f.Store, live, 0); err != nil {
				t.Errorf("collect: %v", err)
			}
		}
	})
	for g := range 4 {
		writers.Go(func() {
			for i := range 8 {
				// All share the first chunk, and drop it again and again.
				n := int64(blob.ChunkSize + 100*g + i)
				r := func() io.Reader {
					return io.MultiReader(Random(0, blob.ChunkSize), Random(uint64(g), n-blob.ChunkSize))
				}
				var m blob.Manifest
				var h blob.Hash
				var unpin func()
				var err error
				if i%2 == 0 { // its name is known beforehand, as that of an upload
					m = manifest(r())
					h = m.Hash()
					unpin = f.Store.Pin(h)
					_, _, err = blob.Write(t.Context(), f.Store, r())
				} else {
					h, m, unpin, err = blob.WritePinned(t.Context(), f.Store, r())
				}
				if err != nil {
					t.Errorf("write: %v", err)
				}
				mu.Lock()
				roots[h] = true
				mu.Unlock()
				unpin()
				if lack, err := blob.Missing(t.Context(), f.Store, m); err != nil || len(lack) > 0 {
					t.Errorf("collected too much: %v %v", lack, err)
				}
				mu.Lock()
				delete(roots, h)
				mu.Unlock()
			}
		})
	}
	writers.Wait()
	cancel()
	collector.Wait()
}

// manifest returns the manifest that Write would make.
func manifest(r io.Reader) blob.Manifest {
	data, err := io.ReadAll(r)
	if err != nil {
		panic(err)
	}
	m := blob.Manifest{Bytes: int64(len(data))}
	for c := range slices.Chunk(data, blob.ChunkSize) {
		m.Chunks = append(m.Chunks, blob.Sum(c))
	}
	return m
}

// testModel compares a store with a map, for random operations.
func testModel(t *testing.T, open func(t *testing.T) Fixture) {
	s := open(t).Store
	rapid.Check(t, func(rt *rapid.T) {
		ctx := t.Context()
		model := map[blob.Hash][]byte{}
		for info, err := range s.List(ctx) {
			if err := errors.Join(err, s.Delete(ctx, info.Hash)); err != nil {
				rt.Fatal(err)
			}
		}
		object := rapid.Custom(func(t *rapid.T) []byte {
			return Bytes(rapid.Uint64Range(0, 5).Draw(t, "seed"), rapid.IntRange(0, 3).Draw(t, "KiB")*1024)
		})
		rt.Repeat(map[string]func(*rapid.T){
			"put": func(rt *rapid.T) {
				d := object.Draw(rt, "object")
				if err := s.Put(ctx, blob.Sum(d), d); err != nil {
					rt.Fatal(err)
				}
				model[blob.Sum(d)] = d
			},
			"delete": func(rt *rapid.T) {
				h := blob.Sum(object.Draw(rt, "object"))
				if err := s.Delete(ctx, h); err != nil {
					rt.Fatal(err)
				}
				delete(model, h)
			},
			"get": func(rt *rapid.T) {
				h := blob.Sum(object.Draw(rt, "object"))
				got, err := s.Get(ctx, h)
				want, ok := model[h]
				if ok != (err == nil) || !ok && !errors.Is(err, blob.ErrNotFound) || !bytes.Equal(got, want) {
					rt.Fatalf("get %v: %v, in the model %v", h, err, ok)
				}
			},
			"": func(rt *rapid.T) {
				var bytes int64
				for h, d := range model {
					if ok, err := s.Has(ctx, h); !ok || err != nil {
						rt.Fatalf("has %v: %v, %v", h, ok, err)
					}
					bytes += int64(len(d))
				}
				if u := s.Usage(); u.Objects != int64(len(model)) || u.Bytes != bytes {
					rt.Fatalf("usage %+v, in the model %d bytes in %d objects", u, bytes, len(model))
				}
			},
		})
	})
}

// A Carrier moves blobs from one store to another.
type Carrier struct {
	From, To blob.Keeper
	Move     func(ctx context.Context, h blob.Hash) error
}

// TestCarrier is the contract of whatever moves blobs; open is called for each
// of its parts.
func TestCarrier(t *testing.T, open func(t *testing.T) Carrier) {
	for i, n := range sizes() {
		t.Run(describe(n), func(t *testing.T) {
			c := open(t)
			h, _, err := blob.Write(t.Context(), c.From, Random(uint64(i), n))
			check(t, err)
			for range 2 { // the second time there is nothing to do
				check(t, c.Move(t.Context(), h))
				wantBlob(t, c.To, h, uint64(i), n)
			}
		})
	}
	t.Run("Resume", func(t *testing.T) {
		c := open(t)
		h, m, err := blob.Write(t.Context(), c.From, Random(1, 4*blob.ChunkSize))
		check(t, err)
		first, err := c.From.Get(t.Context(), m.Chunks[0])
		check(t, err)
		put(t, c.To, first) // left by a transfer that broke off
		check(t, c.Move(t.Context(), h))
		wantBlob(t, c.To, h, 1, 4*blob.ChunkSize)
	})
	t.Run("Repeated", func(t *testing.T) { // chunks that occur twice
		c := open(t)
		data := bytes.Repeat(Bytes(1, blob.ChunkSize), 3)
		h, _, err := blob.Write(t.Context(), c.From, bytes.NewReader(data))
		check(t, err)
		check(t, c.Move(t.Context(), h))
		r, err := blob.Open(t.Context(), c.To, h)
		check(t, err)
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
			t.Errorf("other bytes arrived: %v", err)
		}
	})
	t.Run("Many", func(t *testing.T) {
		c := open(t)
		var wg sync.WaitGroup
		for i := range 16 {
			h, _, err := blob.Write(t.Context(), c.From, Random(uint64(i/2), 300_000)) // pairs are equal
			check(t, err)
			wg.Go(func() {
				if err := c.Move(t.Context(), h); err != nil {
					t.Errorf("move: %v", err)
					return
				}
				wantBlob(t, c.To, h, uint64(i/2), 300_000)
			})
		}
		wg.Wait()
	})
	t.Run("Gone", func(t *testing.T) {
		c := open(t)
		h, m, err := blob.Write(t.Context(), c.From, Random(1, 2*blob.ChunkSize))
		check(t, err)
		check(t, c.From.Delete(t.Context(), m.Chunks[1]))
		if err := c.Move(t.Context(), h); err == nil {
			t.Error("a blob with a hole was moved")
		}
		wantHas(t, c.To, h, false)
	})
	t.Run("Cancelled", func(t *testing.T) {
		c := open(t)
		h, _, err := blob.Write(t.Context(), c.From, Random(1, 2*blob.ChunkSize))
		check(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.Move(ctx, h); !errors.Is(err, context.Canceled) {
			t.Errorf("moved with an ended context: %v", err)
		}
		wantHas(t, c.To, h, false)
	})
	t.Run("Big", func(t *testing.T) {
		n := big(t)
		c := open(t)
		h, _, err := blob.Write(t.Context(), c.From, Random(1, n))
		check(t, err)
		check(t, c.Move(t.Context(), h))
		wantBlob(t, c.To, h, 1, n)
	})
}
