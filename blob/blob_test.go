package blob_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/blob/blobtest"
	"github.com/cohort-learning/cohort/journal"
)

func TestMemory(t *testing.T) {
	blobtest.TestStore(t, func(t *testing.T) blobtest.Fixture { return blobtest.Fixture{Store: blob.NewMemory()} })
}

func openDir(t testing.TB, dir string, fsys journal.FS) *blob.Dir {
	t.Helper()
	d, err := blob.OpenDir(dir, fsys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func path(dir string, h blob.Hash) string { return filepath.Join(dir, h.String()[:1], h.String()) }

// damage flips a bit in the middle of a file.
func damage(t testing.TB, name string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 4
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestDir(t *testing.T) {
	blobtest.TestStore(t, func(t *testing.T) blobtest.Fixture {
		dir := t.TempDir()
		d := openDir(t, dir, nil)
		return blobtest.Fixture{
			Store:  d,
			Damage: func(t *testing.T, h blob.Hash) { damage(t, path(dir, h)) },
			Reopen: func(t *testing.T) blob.Keeper {
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
				return openDir(t, dir, nil)
			},
		}
	})
}

func TestCopy(t *testing.T) {
	blobtest.TestCarrier(t, func(t *testing.T) blobtest.Carrier {
		from, to := openDir(t, t.TempDir(), nil), blob.NewMemory()
		return blobtest.Carrier{From: from, To: to, Move: func(ctx context.Context, h blob.Hash) error {
			return blob.Copy(ctx, to, from, h)
		}}
	})
}

func TestDirIsLocked(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir, nil)
	var locked *journal.LockedError
	if _, err := blob.OpenDir(dir, nil); !errors.As(err, &locked) {
		t.Fatalf("opened twice: %v", err)
	}
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
	data := []byte("late")
	if err := d.Put(t.Context(), blob.Sum(data), data); !errors.Is(err, blob.ErrClosed) {
		t.Errorf("put after close: %v", err)
	}
	openDir(t, dir, nil)
}

// A damaged object is kept for whoever wants to know why, in a file that the error names; so is one that was cut short.
func TestDamagedIsMovedAside(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir, nil)
	for i, spoil := range []func(string) error{
		func(name string) error { return os.Truncate(name, 10) },
		func(name string) error { return os.WriteFile(name, bytes.Repeat([]byte{7}, 5000), 0o644) },
	} {
		data := blobtest.Bytes(uint64(i), 1000)
		h := blob.Sum(data)
		if err := d.Put(t.Context(), h, data); err != nil {
			t.Fatal(err)
		}
		if err := spoil(path(dir, h)); err != nil {
			t.Fatal(err)
		}
		_, err := d.Get(t.Context(), h)
		var c *blob.CorruptError
		if !errors.As(err, &c) {
			t.Fatalf("get: %v", err)
		}
		if _, err := os.Stat(c.Aside); err != nil || filepath.Dir(c.Aside) != filepath.Join(dir, "corrupt") {
			t.Errorf("aside at %s: %v", c.Aside, err)
		}
		if !strings.Contains(err.Error(), h.String()) || !strings.Contains(err.Error(), c.Aside) {
			t.Errorf("the error does not say what and where: %v", err)
		}
	}
}

// Files that are not objects are left alone, and those in tmp are swept.
func TestOpenDirSweeps(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir, nil)
	data := blobtest.Bytes(1, 1000)
	st, err := d.Stage(t.Context(), blob.Sum(data), 1000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := st.Commit(t.Context()); !errors.Is(err, blob.ErrClosed) {
		t.Errorf("commit after close: %v", err)
	}
	strange := []string{"0/README", "0/" + strings.Repeat("f", 64), "1/" + strings.Repeat("1A", 32)}
	for _, s := range append(strange, "tmp/left") {
		if err := os.WriteFile(filepath.Join(dir, s), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d = openDir(t, dir, nil)
	if u := d.Usage(); u != (blob.Usage{}) {
		t.Errorf("usage %+v", u)
	}
	for _, s := range strange {
		if _, err := os.Stat(filepath.Join(dir, s)); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(filepath.Join(dir, "tmp")); err != nil || len(left) > 0 {
		t.Errorf("left in tmp: %v %v", left, err)
	}
}

func TestManifestIsCanonical(t *testing.T) {
	m := blob.Manifest{Bytes: blob.ChunkSize + 1, Chunks: []blob.Hash{{1}, {2}}}
	b := m.Encode()
	if want := fmt.Sprintf("%q", "cohortB1\x00\x00\x00\x00\x00\x10\x00\x01\x01"); fmt.Sprintf("%q", b[:17]) != want {
		t.Errorf("it begins %q", b[:17])
	}
	if m.ChunkLen(0) != blob.ChunkSize || m.ChunkLen(1) != 1 {
		t.Errorf("lengths of chunks: %d, %d", m.ChunkLen(0), m.ChunkLen(1))
	}
	for _, bad := range [][]byte{nil, b[:16], b[:len(b)-1], append(bytes.Clone(b), 0), append([]byte("cohortB2"), b[8:]...), bytes.Repeat([]byte{255}, 16)} {
		if _, err := blob.DecodeManifest(bad); !errors.Is(err, blob.ErrNoManifest) {
			t.Errorf("decoded %.40q: %v", bad, err)
		}
	}
	if blob.ManifestLen(blob.MaxBytes) > blob.MaxManifest || blob.ManifestLen(blob.MaxBytes+blob.ChunkSize) <= blob.MaxManifest {
		t.Error("the limits do not fit")
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte{})
	f.Add(blob.Manifest{}.Encode())
	f.Add(blob.Manifest{Bytes: 1, Chunks: []blob.Hash{{1}}}.Encode())
	f.Add(blob.Manifest{Bytes: 3 * blob.ChunkSize, Chunks: []blob.Hash{{1}, {2}, {1}}}.Encode())
	f.Add([]byte("cohortB1\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := blob.DecodeManifest(b)
		if err != nil {
			if !errors.Is(err, blob.ErrNoManifest) {
				t.Error(err)
			}
			return
		}
		if !bytes.Equal(m.Encode(), b) {
			t.Error("two encodings of one manifest")
		}
		if m.Hash() != blob.Sum(b) {
			t.Error("hash")
		}
	})
}

func TestHashText(t *testing.T) {
	h := blob.Sum([]byte("abc"))
	if h.String() != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" { // FIPS 180-2, appendix B.1
		t.Error(h)
	}
	got, err := blob.ParseHash(h.String())
	if err != nil || got != h {
		t.Errorf("%v %v", got, err)
	}
	for _, bad := range []string{"", h.String()[1:], strings.ToUpper(h.String()), h.String()[:63] + "g", h.String() + "0"} {
		if _, err := blob.ParseHash(bad); err == nil {
			t.Errorf("parsed %q", bad)
		}
	}
}

// A reader of many gigabytes holds a few chunks: it is asked for one byte of each.
func TestReaderIsFrugal(t *testing.T) {
	s := blob.NewMemory()
	h, _, err := blob.Write(t.Context(), s, blobtest.Random(1, 8*blob.ChunkSize))
	if err != nil {
		t.Fatal(err)
	}
	r, err := blob.Open(t.Context(), s, h)
	if err != nil {
		t.Fatal(err)
	}
	var one [1]byte
	read := func() {
		for i := range int64(8) {
			if _, err := r.ReadAt(one[:], i*blob.ChunkSize); err != nil {
				t.Fatal(err)
			}
		}
	}
	read()
	if n := testing.AllocsPerRun(3, read); n > 8 {
		t.Errorf("%v allocations for 8 chunks", n)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadAt(one[:], 0); err == nil {
		t.Error("read after close")
	}
}

func Example() {
	ctx := context.Background()
	member, server := blob.NewMemory(), blob.NewMemory()
	h, m, err := blob.Write(ctx, member, strings.NewReader("what was learned"))
	if err != nil {
		panic(err)
	}
	fmt.Println("blob", h.Short(), "has", m.Bytes, "bytes")
	if err := blob.Copy(ctx, server, member, h); err != nil {
		panic(err)
	}
	r, err := blob.Open(ctx, server, h)
	if err != nil {
		panic(err)
	}
	defer r.Close()
	p := make([]byte, 7)
	if _, err := r.ReadAt(p, 9); err != nil {
		panic(err)
	}
	fmt.Printf("%s\n", p)
	// Output:
	// blob 4be163de3623 has 16 bytes
	// learned
}
