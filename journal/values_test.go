package journal_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/journal/faultfs"
)

// Whoever puts under one name at the same time leaves one of the values, whole.
func TestValuesTogether(t *testing.T) {
	v, err := journal.OpenValues(nil, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 20 {
				if err := v.Put("count", bytes.Repeat([]byte{byte('a' + i)}, 1000*(i+1))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b, err := v.Get("count")
	if err != nil || len(b) != 1000*int(b[0]-'a'+1) || !bytes.Equal(b, bytes.Repeat(b[:1], len(b))) {
		t.Errorf("%d bytes of %.10q: %v", len(b), b, err)
	}
}

// A value is there after a loss of power once Put has returned; before that, what was there. Names lead nowhere else.
func TestValues(t *testing.T) {
	dir := t.TempDir()
	f := faultfs.New(journal.OS())
	v, err := journal.OpenValues(f, filepath.Join(dir, "models"))
	if err != nil {
		t.Fatal(err)
	}
	const name = "../a run/of two"
	if _, err := v.Get(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing is there, and the error is %v", err)
	}
	if err := v.Put(name, []byte("first")); err != nil {
		t.Fatal(err)
	}
	f.Add(faultfs.Rule{Op: faultfs.Rename, N: 1, Crash: faultfs.PowerLoss})
	if err := v.Put(name, []byte("second")); err == nil {
		t.Error("the machine crashed, and Put says nothing of it")
	}
	v, err = journal.OpenValues(nil, filepath.Join(dir, "models"))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := v.Get(name); string(b) != "first" || err != nil {
		t.Errorf("after the crash there is %q: %v", b, err)
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
		t.Errorf("the folder has %v: %v", all, err)
	}
}
