package blob_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/blob/blobtest"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/journal/faultfs"
)

// work puts, deletes and puts again; it returns what was promised to be there when it failed.
func work(t *testing.T, dir string, fsys journal.FS) (promised map[blob.Hash]bool, err error) {
	promised = map[blob.Hash]bool{}
	d, err := blob.OpenDir(dir, fsys)
	if err != nil {
		return promised, err
	}
	defer func() { _ = d.Close() }()
	put := func(seed uint64, n int) error {
		data := blobtest.Bytes(seed, n)
		err := d.Put(t.Context(), blob.Sum(data), data)
		if err == nil {
			promised[blob.Sum(data)] = true
		}
		return err
	}
	for i := range uint64(3) {
		if err := put(i, 1000*int(i)); err != nil {
			return promised, err
		}
	}
	h, m, err := blob.Write(t.Context(), d, blobtest.Random(9, blob.ChunkSize+5000))
	if err != nil {
		return promised, err
	}
	for _, h := range append(m.Chunks, h) {
		promised[h] = true
	}
	gone := blob.Sum(blobtest.Bytes(1, 1000))
	delete(promised, gone)
	if err := d.Delete(t.Context(), gone); err != nil {
		return promised, err
	}
	data := blobtest.Bytes(20, 3000)
	st, err := d.Stage(t.Context(), blob.Sum(data), 3000)
	if err != nil {
		return promised, err
	}
	for _, p := range [][]byte{data[:1234], data[1234:]} {
		if _, err := st.Write(p); err != nil {
			return promised, errors.Join(err, st.Abort())
		}
	}
	if err := st.Commit(t.Context()); err != nil {
		return promised, err
	}
	promised[blob.Sum(data)] = true
	// The file of the object that is gone is written over, but not before its folder has been synced.
	for _, there := range []bool{false, true, false, false} {
		seed := uint64(100 + len(promised))
		for blob.Sum(blobtest.Bytes(seed, 1000)).String()[0] == gone.String()[0] != there {
			seed += 100
		}
		if err := put(seed, 1000); err != nil {
			return promised, err
		}
	}
	return promised, put(1, 1000)
}

// wantSound opens what a failure left: all that was promised is there, all that is there is whole, and nothing else lies
// about.
func wantSound(t *testing.T, dir string, promised map[blob.Hash]bool) {
	t.Helper()
	d, err := blob.OpenDir(dir, faultfs.New(journal.OS()))
	if err != nil {
		t.Errorf("open again: %v", err)
		return
	}
	defer func() { _ = d.Close() }()
	for h := range promised {
		if ok, err := d.Has(t.Context(), h); !ok || err != nil {
			t.Errorf("lost %s: %v", h.Short(), err)
		}
	}
	var bytes int64
	for info, err := range d.List(t.Context()) {
		if err != nil {
			t.Error(err)
		}
		if _, err := d.Get(t.Context(), info.Hash); err != nil {
			t.Error(err)
		}
		bytes += info.Bytes
	}
	if u := d.Usage(); u.Bytes != bytes {
		t.Errorf("usage %+v, listed %d bytes", u, bytes)
	}
	for _, f := range []string{"tmp", "corrupt"} {
		if left, err := os.ReadDir(filepath.Join(dir, f)); err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v %v", f, left, err)
		}
	}
}

// At every operation on the disk, in every way to crash: nothing that Put promised is lost, nothing is half there, and
// the same work goes through afterwards.
func TestCrashAnywhere(t *testing.T) {
	f := faultfs.New(journal.OS())
	if _, err := work(t, t.TempDir(), f); err != nil {
		t.Fatal(err)
	}
	events := f.Events()
	if len(events) < 40 {
		t.Fatalf("only %d operations", len(events))
	}
	for n, e := range events {
		for _, crash := range []faultfs.Crash{faultfs.PowerLoss, faultfs.PowerLossAfterMetadata, faultfs.Kill} {
			for _, rule := range []faultfs.Rule{{}, {After: true}, {Part: e.Bytes / 2}} {
				if rule.Part > 0 && e.Op != faultfs.Write {
					continue
				}
				rule.N, rule.Crash = n+1, crash
				t.Run(fmt.Sprintf("%d-%s-%d-%v-%d", n, e.Op, crash, rule.After, rule.Part), func(t *testing.T) {
					t.Parallel()
					dir := t.TempDir()
					f := faultfs.New(journal.OS())
					f.Add(rule)
					promised, err := work(t, dir, f)
					if err == nil && !f.Crashed() {
						t.Fatal("it did not crash")
					}
					wantSound(t, dir, promised)
					promised, err = work(t, dir, faultfs.New(journal.OS()))
					if err != nil {
						t.Fatalf("the same work after the crash: %v", err)
					}
					wantSound(t, dir, promised)
				})
			}
		}
	}
}

// An operation fails and the process goes on: the error reaches the caller, the store stays sound without being opened
// again, and gives back what it had reserved.
func TestFailAnywhere(t *testing.T) {
	f := faultfs.New(journal.OS())
	if _, err := work(t, t.TempDir(), f); err != nil {
		t.Fatal(err)
	}
	for n, e := range f.Events() {
		for _, fault := range []error{syscall.EIO, syscall.ENOSPC} {
			dir := t.TempDir()
			f := faultfs.New(journal.OS())
			f.Add(faultfs.Rule{N: n + 1, Part: e.Bytes / 2, Err: fault})
			promised, err := work(t, dir, f)
			spare := filepath.Base(filepath.Dir(e.Name)) == "tmp" && (e.Op == faultfs.Rename || e.Op == faultfs.Remove) // a loss of time only
			if !errors.Is(err, fault) && (err != nil || !spare) {
				t.Errorf("operation %d (%s %s) failed, and the error is %v", n, e.Op, e.Name, err)
			}
			if fault == syscall.ENOSPC && e.Op == faultfs.Write && !errors.Is(err, blob.ErrFull) {
				t.Errorf("the disk is full, and the error is %v", err)
			}
			wantSound(t, dir, promised)
		}
	}
	dir := t.TempDir()
	f = faultfs.New(journal.OS())
	d := openDir(t, dir, f)
	for _, op := range []faultfs.Op{faultfs.Create, faultfs.Write, faultfs.Sync, faultfs.Rename, faultfs.SyncDir} {
		count := 0
		for _, e := range f.Events() {
			if e.Op == op {
				count++
			}
		}
		f.Add(faultfs.Rule{Op: op, N: 1, Err: syscall.ENOSPC})
		data := blobtest.Bytes(uint64(count), 1000)
		if err := d.Put(t.Context(), blob.Sum(data), data); !errors.Is(err, blob.ErrFull) {
			t.Errorf("%s without room: %v", op, err)
		}
		if ok, err := d.Has(t.Context(), blob.Sum(data)); ok || err != nil {
			t.Errorf("%s failed, and the object is there: %v", op, err)
		}
	}
	d.SetCap(1000)
	data := blobtest.Bytes(77, 1000)
	if err := d.Put(t.Context(), blob.Sum(data), data); err != nil {
		t.Errorf("after failures: %v", err)
	}
}

// Folders are synced for many at once: once the first sync has begun, all who come share the next.
func TestSyncsAreShared(t *testing.T) {
	const n = 64
	f := faultfs.New(journal.OS())
	d := openDir(t, t.TempDir(), f)
	before := len(f.Events())
	var wg sync.WaitGroup
	for i := range uint64(n) {
		wg.Go(func() {
			data := blobtest.Bytes(i, 1000)
			if err := d.Put(t.Context(), blob.Sum(data), data); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	syncs := map[faultfs.Op]int{}
	for _, e := range f.Events()[before:] {
		syncs[e.Op]++
	}
	if syncs[faultfs.Sync] != n || syncs[faultfs.SyncDir] > n || syncs[faultfs.SyncDir] == 0 {
		t.Errorf("%v for %d objects", syncs, n)
	}
}

// What OpenDir reports is durable even if the process before it was killed between rename and sync of the folder.
func TestOpenDirSyncs(t *testing.T) {
	dir := t.TempDir()
	f := faultfs.New(journal.OS())
	d := openDir(t, dir, f)
	data := blobtest.Bytes(1, 1000)
	h := blob.Sum(data)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	w, err := f.OpenFile(path(dir, h), os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Sync(), w.Close()); err != nil { // and no sync of the folder
		t.Fatal(err)
	}
	d = openDir(t, dir, f)
	if err := d.Put(t.Context(), h, data); err != nil { // it is there, so nothing is done
		t.Fatal(err)
	}
	if err := f.Crash(faultfs.PowerLoss); err != nil {
		t.Fatal(err)
	}
	wantSound(t, dir, map[blob.Hash]bool{h: true})
}

// The real thing: a process that is killed while it writes.
func TestKilledProcess(t *testing.T) {
	if dir := os.Getenv("BLOB_TEST_DIR"); dir != "" {
		f := faultfs.New(journal.OS())
		var n int
		if _, err := fmt.Sscan(os.Getenv("BLOB_TEST_KILL"), &n); err != nil {
			t.Fatal(err)
		}
		f.Add(faultfs.Rule{N: n, After: true, Hook: func(faultfs.Event) {
			p, err := os.FindProcess(os.Getpid())
			if err != nil {
				panic(err)
			}
			_ = p.Kill()
			select {}
		}})
		_, err := work(t, dir, f)
		t.Fatalf("survived: %v", err)
	}
	for _, n := range []int{20, 22, 25, 30, 37} {
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledProcess$")
		cmd.Env = append(os.Environ(), "BLOB_TEST_DIR="+dir, fmt.Sprint("BLOB_TEST_KILL=", n))
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Exited() {
			t.Fatalf("not killed: %v\n%s", err, out)
		}
		wantSound(t, dir, nil)
	}
}
