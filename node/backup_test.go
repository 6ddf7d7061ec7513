package node_test

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/blob/blobtest"
	"github.com/cohort-learning/cohort/node"
)

// Of the blobs a backup has the objects, and neither what is arriving, nor files of deleted objects that wait to be written over, nor one
// that was written over between its deletion and its turn.
func TestBackupOfBlobs(t *testing.T) {
	dir := t.TempDir()
	d, err := blob.OpenDir(filepath.Join(dir, "blobs"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	kept := blobtest.Bytes(1, 1000)
	for _, data := range [][]byte{kept, blobtest.Bytes(2, 1000)} {
		if err := d.Put(t.Context(), blob.Sum(data), data); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Delete(t.Context(), blob.Sum(blobtest.Bytes(2, 1000))); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "blobs", "tmp")); err != nil || len(left) != 1 {
		t.Fatalf("files to write over: %v, %v", left, err)
	}
	other := blob.Sum(blobtest.Bytes(3, 1000)).String()
	if err := os.WriteFile(filepath.Join(dir, "blobs", other[:1], other), blobtest.Bytes(4, 1000), 0o644); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := (&node.Book{Dir: dir}).Backup(&out); err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(&out)
	h, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	name := blob.Sum(kept).String()
	if content, err := io.ReadAll(r); err != nil || h.Name != "blobs/"+name[:1]+"/"+name || !bytes.Equal(content, kept) {
		t.Errorf("%s with %d bytes: %v", h.Name, len(content), err)
	}
	if h, err := r.Next(); err != io.EOF {
		t.Errorf("there is also %s: %v", h.Name, err)
	}
}
