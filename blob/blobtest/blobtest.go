// Package blobtest is the contract of package blob: what every store and every
// way of moving blobs must do. An implementation runs it from its own tests:
//
//	blobtest.TestStore(t, func(t *testing.T) blobtest.Fixture { return blobtest.Fixture{Store: blob.NewMemory()} })
//
// Contents are random bytes, from a seed, so that no mistake hides in zeros.
package blobtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/blob"
)

// BigEnv is the environment variable that, set to 1, lets tests move blobs of
// more than 2 GiB.
const BigEnv = "COHORT_BIG_TESTS"

// A Fixture is an empty store to be tested.
type Fixture struct {
	Store blob.Keeper
	// Damage flips a bit of an object behind the store's back; nil if that
	// cannot be done.
	Damage func(t *testing.T, h blob.Hash)
	// Reopen returns the store as a new process finds it; nil if it is gone
	// with the process.
	Reopen func(t *testing.T) blob.Keeper
}

// Random returns n bytes that depend on the seed.
func Random(seed uint64, n int64) io.Reader {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	return io.LimitReader(rand.NewChaCha8(key), n)
}

// Bytes is Random, read to its end.
func Bytes(seed uint64, n int) []byte {
	b, err := io.ReadAll(Random(seed, int64(n)))
	if err != nil {
		panic(err)
	}
	return b
}

// TestStore runs the contract; open is called for each of its parts.
func TestStore(t *testing.T, open func(t *testing.T) Fixture) {
	tests := []struct {
		name string
		run  func(t *testing.T, f Fixture)
	}{
		{"Objects", testObjects},
		{"Verifies", testVerifies},
		{"Damage", testDamage},
		{"Buffers", testBuffers},
		{"Concurrent", testConcurrent},
		{"List", testList},
		{"Cap", testCap},
		{"Stage", testStage},
		{"Context", testContext},
		{"Reopen", testReopen},
		{"Blobs", testBlobs},
		{"Missing", testMissing},
		{"WriteFails", testWriteFails},
		{"Idle", testIdle},
		{"Collect", testCollect},
		{"Discard", testDiscard},
		{"CollectWhileWriting", testCollectWhileWriting},
		{"Big", testBig},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, open(t)) })
	}
	t.Run("Model", func(t *testing.T) { testModel(t, open) })
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t testing.TB, s blob.Store, data []byte) blob.Hash {
	t.Helper()
	h := blob.Sum(data)
	check(t, s.Put(t.Context(), h, data))
	return h
}

func wantHas(t testing.TB, s blob.Store, h blob.Hash, want bool) {
	t.Helper()
	ok, err := s.Has(t.Context(), h)
	check(t, err)
	if ok != want {
		t.Errorf("Has(%s) = %v, want %v", h.Short(), ok, want)
	}
}

func wantGet(t testing.TB, s blob.Store, data []byte) {
	t.Helper()
	got, err := s.Get(t.Context(), blob.Sum(data))
	check(t, err)
	if !bytes.Equal(got, data) {
		t.Errorf("Get returned other bytes")
	}
}

func wantGone(t testing.TB, s blob.Store, h blob.Hash) {
	t.Helper()
	wantHas(t, s, h, false)
	if _, err := s.Get(t.Context(), h); !errors.Is(err, blob.ErrNotFound) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Get(%s): %v, want ErrNotFound", h.Short(), err)
	}
}

func testObjects(t *testing.T, f Fixture) {
	s := f.Store
	for i, n := range []int{0, 1, 31, 4096, 500_000, blob.ChunkSize, blob.ChunkSize + 1} {
		data := Bytes(uint64(i), n)
		h := blob.Sum(data)
		wantGone(t, s, h)
		put(t, s, data)
		wantHas(t, s, h, true)
		wantGet(t, s, data)
		put(t, s, data) // again
		wantGet(t, s, data)
		check(t, s.Delete(t.Context(), h))
		check(t, s.Delete(t.Context(), h))
		wantGone(t, s, h)
		put(t, s, data)
		wantGet(t, s, data)
	}
	if err := s.Put(t.Context(), blob.Hash{}, make([]byte, blob.MaxManifest+1)); err == nil {
		t.Error("an object above the limit was accepted")
	}
}

func testVerifies(t *testing.T, f Fixture) {
	data := Bytes(1, 1000)
	h := blob.Sum(Bytes(2, 1000))
	err := f.Store.Put(t.Context(), h, data)
	var m *blob.MismatchError
	if !errors.As(err, &m) || !errors.Is(err, blob.ErrMismatch) || m.Want != h || m.Got != blob.Sum(data) || m.Len != 1000 {
		t.Errorf("Put of other bytes: %v", err)
	}
	wantGone(t, f.Store, h)
	wantGone(t, f.Store, blob.Sum(data))
}

func testDamage(t *testing.T, f Fixture) {
	if f.Damage == nil {
		t.Skip("this store cannot be damaged")
	}
	data := Bytes(1, 100_000)
	h := put(t, f.Store, data)
	before := f.Store.Usage()
	f.Damage(t, h)
	_, err := f.Store.Get(t.Context(), h)
	var c *blob.CorruptError
	if !errors.As(err, &c) || !errors.Is(err, blob.ErrCorrupt) || c.Hash != h {
		t.Fatalf("Get of a damaged object: %v", err)
	}
	wantGone(t, f.Store, h)
	put(t, f.Store, data)
	wantGet(t, f.Store, data)
	if u := f.Store.Usage(); u != before {
		t.Errorf("usage %+v after damage and repair, %+v before", u, before)
	}
}

func testBuffers(t *testing.T, f Fixture) {
	data := Bytes(1, 1000)
	h := put(t, f.Store, data)
	clear(data) // the store must not have kept it
	data = Bytes(1, 1000)
	got, err := f.Store.Get(t.Context(), h)
	check(t, err)
	clear(got)
	wantGet(t, f.Store, data)
	for _, n := range []int{0, 999, 1000, 2000} {
		got, err := blob.GetInto(t.Context(), f.Store, h, make([]byte, n))
		check(t, err)
		if !bytes.Equal(got, data) {
			t.Errorf("GetInto of a buffer of %d bytes returned other bytes", n)
		}
	}
}

func testConcurrent(t *testing.T, f Fixture) {
	const objects, each = 5, 8
	var wg sync.WaitGroup
	for i := range objects {
		data := Bytes(uint64(i), 10_000+i)
		h := blob.Sum(data)
		for range each {
			wg.Go(func() {
				if err := f.Store.Put(t.Context(), h, data); err != nil {
					t.Errorf("put: %v", err)
					return
				}
				got, err := f.Store.Get(t.Context(), h)
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("get after put: %v", err)
				}
			})
		}
	}
	wg.Wait()
	if u := f.Store.Usage(); u.Objects != objects || u.Bytes != 50_010 {
		t.Errorf("usage %+v", u)
	}
}

func testList(t *testing.T, f Fixture) {
	want := map[blob.Hash]int64{}
	for i := range 20 {
		want[put(t, f.Store, Bytes(uint64(i), i*100))] = int64(i) * 100
	}
	var last blob.Hash
	n := 0
	for info, err := range f.Store.List(t.Context()) {
		check(t, err)
		if b, ok := want[info.Hash]; !ok || b != info.Bytes {
			t.Errorf("listed %+v", info)
		}
		if n > 0 && last.Compare(info.Hash) >= 0 {
			t.Error("not by hash")
		}
		if age := time.Since(info.Used); age > time.Hour || age < -time.Hour {
			t.Errorf("used at %v", info.Used)
		}
		last = info.Hash
		n++
		check(t, f.Store.Delete(t.Context(), info.Hash)) // while listing
	}
	if n != len(want) {
		t.Errorf("%d of %d objects listed", n, len(want))
	}
	for range f.Store.List(t.Context()) {
		t.Fatal("something is left")
	}
	if u := f.Store.Usage(); u != (blob.Usage{}) {
		t.Errorf("usage of an empty store: %+v", u)
	}
}

func testCap(t *testing.T, f Fixture) {
	s := f.Store
	s.SetCap(2500)
	a := put(t, s, Bytes(1, 1000))
	put(t, s, Bytes(2, 1000))
	third := Bytes(3, 1000)
	err := s.Put(t.Context(), blob.Sum(third), third)
	var full *blob.FullError
	if !errors.As(err, &full) || !errors.Is(err, blob.ErrFull) || full.Want != 1000 || full.Usage != (blob.Usage{Objects: 2, Bytes: 2000, Cap: 2500}) {
		t.Fatalf("Put above the cap: %v", err)
	}
	put(t, s, Bytes(1, 1000)) // is there already
	put(t, s, Bytes(4, 500))  // exactly
	check(t, s.Delete(t.Context(), a))
	put(t, s, third)
	if _, _, err := blob.Write(t.Context(), s, Random(5, 3<<20)); !errors.Is(err, blob.ErrFull) {
		t.Errorf("Write above the cap: %v", err)
	}
	s.SetCap(0)
	put(t, s, Bytes(6, 1000))
}

func testStage(t *testing.T, f Fixture) {
	s := f.Store
	data := Bytes(1, 300_000)
	h := blob.Sum(data)
	begin := func(n int64) blob.Stage {
		t.Helper()
		st, err := blob.NewStage(t.Context(), s, h, n)
		check(t, err)
		return st
	}
	write := func(st blob.Stage, p []byte) {
		t.Helper()
		n, err := st.Write(p)
		check(t, err)
		if n != len(p) {
			t.Fatalf("%d of %d bytes taken", n, len(p))
		}
	}
	st := begin(300_000) // given up
	write(st, data[:100_000])
	check(t, st.Abort())
	check(t, st.Abort())

	st = begin(300_000) // too short
	write(st, data[:299_999])
	if err := st.Commit(t.Context()); !errors.Is(err, blob.ErrMismatch) {
		t.Errorf("commit of a part: %v", err)
	}
	st = begin(1000) // too long
	write(st, data[:1000])
	if _, err := st.Write(data[1000:1001]); err == nil {
		t.Error("more was taken than announced")
	}
	check(t, st.Abort())
	st = begin(300_000) // wrong
	write(st, Bytes(2, 300_000))
	if err := st.Commit(t.Context()); !errors.Is(err, blob.ErrMismatch) {
		t.Errorf("commit of other bytes: %v", err)
	}
	wantGone(t, s, h)
	if u := s.Usage(); u != (blob.Usage{}) {
		t.Errorf("usage %+v", u)
	}
	st, second := begin(300_000), begin(300_000) // two at once
	for p := range slices.Chunk(data, 70_000) {
		write(st, p)
		write(second, p)
	}
	if st.Len() != 300_000 {
		t.Errorf("%d bytes are counted", st.Len())
	}
	check(t, st.Commit(t.Context()))
	check(t, second.Commit(t.Context()))
	check(t, st.Abort())
	wantGet(t, s, data)
	s.SetCap(300_100) // what stages reserve is given back
	if u := s.Usage(); u.Bytes != 300_000 {
		t.Errorf("usage %+v", u)
	}
	put(t, s, Bytes(3, 100))
}

func testContext(t *testing.T, f Fixture) {
	data := Bytes(1, 100)
	h := put(t, f.Store, data)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err1 := f.Store.Get(ctx, h)
	_, err2 := f.Store.Has(ctx, h)
	_, _, err3 := blob.Write(ctx, f.Store, Random(2, 100))
	var err4 error
	for _, err4 = range f.Store.List(ctx) {
		break
	}
	for i, err := range []error{err1, err2, err3, err4} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("call %d with an ended context: %v", i+1, err)
		}
	}
}

func testReopen(t *testing.T, f Fixture) {
	if f.Reopen == nil {
		t.Skip("this store ends with its process")
	}
	h, _, err := blob.Write(t.Context(), f.Store, Random(1, 2_500_000))
	check(t, err)
	gone := put(t, f.Store, Bytes(2, 10))
	check(t, f.Store.Delete(t.Context(), gone))
	before := f.Store.Usage()
	s := f.Reopen(t)
	if u := s.Usage(); u != before {
		t.Errorf("usage %+v, before %+v", u, before)
	}
	wantGone(t, s, gone)
	wantBlob(t, s, h, 1, 2_500_000)
}

// wantBlob checks that s holds the blob Random(seed, n) under the name h.
func wantBlob(t testing.TB, s blob.Store, h blob.Hash, seed uint64, n int64) {
	t.Helper()
	r, err := blob.Open(t.Context(), s, h)
	check(t, err)
	defer r.Close()
	if r.Size() != n {
		t.Errorf("blob has %d bytes, want %d", r.Size(), n)
	}
	got, want := sha256.New(), sha256.New()
	if _, err := io.Copy(got, r); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(want, Random(seed, n)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Error("blob has other bytes")
	}
}

func big(t *testing.T) int64 {
	if testing.Short() || os.Getenv(BigEnv) != "1" {
		t.Skipf("moves more than 2 GiB; set %s=1 to run it", BigEnv)
	}
	return 2<<30 + 12_345
}

func testBig(t *testing.T, f Fixture) {
	n := big(t)
	h, m, err := blob.Write(t.Context(), f.Store, Random(1, n))
	check(t, err)
	if m.Bytes != n {
		t.Errorf("%d bytes written", m.Bytes)
	}
	wantBlob(t, f.Store, h, 1, n)
}

func sizes() []int64 {
	return []int64{0, 1, blob.ChunkSize - 1, blob.ChunkSize, blob.ChunkSize + 1, 3*blob.ChunkSize + 777}
}

func describe(n int64) string { return fmt.Sprintf("%d bytes", n) }
