package blob_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/blob/blobtest"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/journal/faultfs"
)

// spares is a store of which a number of objects have been deleted, after which one more has been stored in every folder, so that
// the files of the deleted may be written over.
func spares(t *testing.T, dir string, fsys journal.FS, n int) *blob.Dir {
	t.Helper()
	d := openDir(t, dir, fsys)
	var all []blob.Hash
	for i := range n {
		data := blobtest.Bytes(uint64(i), 1000)
		all = append(all, blob.Sum(data))
		if err := d.Put(t.Context(), blob.Sum(data), data); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range all {
		if err := d.Delete(t.Context(), h); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[byte]bool{}
	for seed := uint64(1000); len(seen) < 16; seed++ {
		data := blobtest.Bytes(seed, 10)
		if h := blob.Sum(data); !seen[h[0]>>4] {
			seen[h[0]>>4] = true
			if err := d.Put(t.Context(), h, data); err != nil {
				t.Fatal(err)
			}
		}
	}
	return d
}

func inTmp(t *testing.T, dir string) int {
	t.Helper()
	all, err := os.ReadDir(filepath.Join(dir, "tmp"))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// Files of deleted objects are written over by those of the same length, and no others; what is there is theirs alone.
func TestSpares(t *testing.T) {
	dir, f := t.TempDir(), faultfs.New(journal.OS())
	d := spares(t, dir, f, 8)
	if n := inTmp(t, dir); n != 8 {
		t.Fatalf("%d spares, want 8", n)
	}
	before := len(f.Events())
	kept := map[blob.Hash][]byte{}
	for i, n := range []int{1000, 1000, 999, 1000} {
		data := blobtest.Bytes(uint64(2000+i), n)
		if err := d.Put(t.Context(), blob.Sum(data), data); err != nil {
			t.Fatal(err)
		}
		kept[blob.Sum(data)] = data
	}
	made := 0
	for _, e := range f.Events()[before:] {
		if e.Op == faultfs.Create {
			made++
		}
	}
	if made != 1 || inTmp(t, dir) != 5 {
		t.Errorf("%d files were made and %d spares are left; want 1, for the only object of that length, and 5", made, inTmp(t, dir))
	}
	for h, data := range kept {
		if got, err := d.Get(t.Context(), h); err != nil || string(got) != string(data) {
			t.Errorf("%s: %v", h.Short(), err)
		}
	}
	if err := d.Close(); err != nil || inTmp(t, dir) != 0 {
		t.Errorf("closed: %v; %d files are left", err, inTmp(t, dir))
	}
}

// Spares go when the disk is full, or when they would take more than the store may have.
func TestSparesMakeRoom(t *testing.T) {
	dir, f := t.TempDir(), faultfs.New(journal.OS())
	d := spares(t, dir, f, 8)
	f.Add(faultfs.Rule{Op: faultfs.Write, N: 1, Err: syscall.ENOSPC})
	data := blobtest.Bytes(1, 5000)
	if err := d.Put(t.Context(), blob.Sum(data), data); err == nil || inTmp(t, dir) != 0 {
		t.Errorf("the disk was full: %v, and %d spares are left", err, inTmp(t, dir))
	}
	for cap, want := range map[int64]int{3500: 3, 300: 0} {
		t.Run(fmt.Sprint(cap), func(t *testing.T) {
			dir := t.TempDir()
			d := spares(t, dir, faultfs.New(journal.OS()), 0)
			for i := range uint64(6) {
				data := blobtest.Bytes(i, 1000)
				if err := d.Put(t.Context(), blob.Sum(data), data); err != nil {
					t.Fatal(err)
				}
			}
			d.SetCap(cap)
			for i := range uint64(6) {
				if err := d.Delete(t.Context(), blob.Sum(blobtest.Bytes(i, 1000))); err != nil {
					t.Fatal(err)
				}
			}
			if n := inTmp(t, dir); n != want {
				t.Errorf("%d spares, want %d", n, want)
			}
			data := blobtest.Bytes(1, int(cap-200)) // beside which none may stay
			if err := d.Put(t.Context(), blob.Sum(data), data); err != nil && cap > 200 || inTmp(t, dir) != 0 {
				t.Errorf("%v, and %d spares are left", err, inTmp(t, dir))
			}
		})
	}
}

// Spares that nobody needs go after a while.
func TestSparesAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		d := spares(t, dir, faultfs.New(journal.OS()), 3)
		time.Sleep(90 * time.Second)
		data := blobtest.Bytes(50, 1000)
		if err := d.Put(t.Context(), blob.Sum(data), data); err != nil {
			t.Fatal(err)
		}
		if n := inTmp(t, dir); n != 2 {
			t.Errorf("%d spares, want 2", n)
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if n := inTmp(t, dir); n != 0 {
			t.Errorf("%d spares are left", n)
		}
	})
}
