package dataset

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// cifarPlanes returns n records' pixels: plane p of pixel i of record k is 64·p + i + k, modulo 256.
func cifarPlanes(n int) []byte {
	out := make([]byte, 0, n*cifarPixels)
	for k := range n {
		for p := range 3 {
			for i := range 1024 {
				out = append(out, byte(64*p+i+k))
			}
		}
	}
	return out
}

func cifarBinary(n, classes int) []byte {
	var out []byte
	planes := cifarPlanes(n)
	for k := range n {
		if classes == 100 {
			out = append(out, 3)
		}
		out = append(out, byte(k%classes))
		out = append(out, planes[k*cifarPixels:(k+1)*cifarPixels]...)
	}
	return out
}

// cifarPickle writes a batch as Python 2's cPickle wrote the official ones, protocol 2.
func cifarPickle(n int, key string) []byte {
	var b bytes.Buffer
	b.WriteString("\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03")
	fmt.Fprintf(&b, "U%c%s]q\x04(", len(key), key)
	for k := range n {
		b.Write([]byte{'K', byte(k % 10)})
	}
	b.WriteString("eU\x04dataq\x05cnumpy.core.multiarray\n_reconstruct\nq\x06cnumpy\nndarray\nq\x07K\x00\x85U\x01b\x87Rq\x08(K\x01")
	fmt.Fprintf(&b, "K%cM\x00\x0c\x86cnumpy\ndtype\nq\x09U\x02u1K\x00K\x01\x87Rq\x0a(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89", n)
	raw := cifarPlanes(n)
	b.Write([]byte{'T', byte(len(raw)), byte(len(raw) >> 8), byte(len(raw) >> 16), 0})
	b.Write(raw)
	b.WriteString("tbu.")
	return b.Bytes()
}

func checkCIFAR(t *testing.T, s *Split, train, test int) {
	t.Helper()
	if s.Train.Len() != train || s.Test.Len() != test {
		t.Fatalf("%d and %d examples, expected %d and %d", s.Train.Len(), s.Test.Len(), train, test)
	}
	for _, e := range []*Examples{s.Train, s.Test} {
		if err := e.Validate(); err != nil {
			t.Fatal(err)
		}
	}
	// Record 1, row 2, column 3 is pixel 67: NHWC puts its three colours side by side.
	at := cifarPixels + 3*67
	if diff := cmp.Diff([]uint8{68, 132, 196}, s.Test.U8[at:at+3]); diff != "" {
		t.Error(diff)
	}
	if s.Test.Labels[1] != 1 {
		t.Errorf("label %d", s.Test.Labels[1])
	}
}

// TestLoadCIFAR reads the layouts in which people have CIFAR: both versions, packed and not, in folders and archives.
func TestLoadCIFAR(t *testing.T) {
	archive := func(files map[string][]byte) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		w := tar.NewWriter(z)
		for name, content := range files {
			w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg})
			w.Write(content)
		}
		w.Close()
		z.Close()
		return b.Bytes()
	}
	load := func(name, path string) *Split {
		t.Helper()
		s, err := Load(context.Background(), Spec{Name: name, Path: path})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	dir := t.TempDir()
	write(t, dir, "data_batch_1.bin.gz", cifarBinary(5, 10))
	write(t, dir, "cifar-10-batches-bin/data_batch_1.bin.gz", cifarBinary(5, 10))
	write(t, dir, "cifar-10-batches-bin/data_batch_3.bin", cifarBinary(6, 10))
	write(t, dir, "cifar-10-batches-bin/test_batch.bin", cifarBinary(3, 10))
	write(t, dir, "cifar-10-batches-bin/batches.meta.txt", []byte("airplane automobile bird cat deer dog frog horse ship truck\n\n"))
	s := load("cifar10", dir)
	checkCIFAR(t, s, 11, 3)
	if s.Train.Classes[9] != "truck" {
		t.Errorf("classes %q", s.Train.Classes)
	}
	dir = t.TempDir()
	write(t, dir, "data_batch_2", cifarPickle(4, "labels"))
	write(t, dir, "test_batch.gz", cifarPickle(2, "labels"))
	checkCIFAR(t, load("cifar10", dir), 4, 2)
	dir = t.TempDir()
	write(t, dir, "train.bin", cifarBinary(7, 100))
	write(t, dir, "test.bin", cifarBinary(2, 100))
	checkCIFAR(t, load("cifar100", dir), 7, 2)
	dir = t.TempDir()
	write(t, dir, "cifar-100-python/train", cifarPickle(7, "fine_labels"))
	write(t, dir, "cifar-100-python/test", cifarPickle(2, "fine_labels"))
	checkCIFAR(t, load("cifar100", dir), 7, 2)
	dir = t.TempDir()
	path := filepath.Join(dir, "cifar-10-python.tar.gz")
	os.WriteFile(path, archive(map[string][]byte{
		"cifar-10-batches-py/data_batch_1": cifarPickle(4, "labels"), "cifar-10-batches-py/test_batch": cifarPickle(2, "labels"),
		"cifar-10-batches-py/readme.html": []byte("x"),
	}), 0o644)
	checkCIFAR(t, load("cifar10", dir), 4, 2)
	checkCIFAR(t, load("cifar10", path), 4, 2)
}

func TestCIFARDamaged(t *testing.T) {
	whole := cifarBinary(2, 10)
	for _, c := range []struct {
		raw  []byte
		want string
	}{
		{nil, "x: byte 0: no records"},
		{whole[:4000], "x: byte 3073: record 1 is cut off: 927 of 3073 bytes"},
		{slices.Concat([]byte{10}, whole[1:]), "x: byte 0: record 0 has label 10, outside 0..9"},
	} {
		if _, _, err := ReadCIFAR(bytes.NewReader(c.raw), "x", 10); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, expected %q", err, c.want)
		}
	}
	good := cifarPickle(2, "labels")
	for _, c := range []struct {
		raw  []byte
		want string
	}{
		{good[:900], "the pickle ends early"},
		{[]byte("K\x01."), "holds a int64, not a dictionary"},
		{cifarPickle(2, "lapels"), "no byte array data and list labels"},
		{bytes.Replace(good, []byte("(K\x00K\x01e"), []byte("(K\x00K\x0be"), 1), "label 1 is 11"},
		{bytes.Replace(good, []byte("(K\x00K\x01e"), []byte("(K\x00K\x01K\x01e"), 1), "6144 bytes of pixels for 3 labels"},
		{bytes.Replace(good, []byte("numpy\nndarray"), []byte("posix\nsystem"), 1), `asks for "system" of module "posix", which is refused`},
	} {
		_, err := readCIFARPython(&source{r: bytes.NewReader(c.raw), name: "x"}, 10)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, expected %q", err, c.want)
		}
	}
	dir := t.TempDir()
	write(t, dir, "test_batch.bin", whole)
	if _, err := Load(context.Background(), Spec{Name: "cifar10", Path: dir}); err == nil || !strings.Contains(err.Error(), "no training batch") {
		t.Errorf("no training batch: %v", err)
	}
	write(t, dir, "data_batch_1.bin.gz", whole)
	if err := os.Truncate(filepath.Join(dir, "data_batch_1.bin.gz"), 100); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(context.Background(), Spec{Name: "cifar10", Path: dir}); err == nil || !strings.Contains(err.Error(), "data_batch_1.bin.gz: byte") {
		t.Errorf("cut gzip file: %v", err)
	}
}

// TestRealCIFAR reads the test batch (unpacking all of it takes long) and checks its class counts.
func TestRealCIFAR(t *testing.T) {
	root := realData(t)
	if testing.Short() {
		t.Skip("unpacking bzip2 takes seconds")
	}
	path, err := find(filepath.Join(root, "cifar10"), "test_batch.bin")
	if err != nil {
		t.Fatal(err)
	}
	s, err := open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b, err := readCIFAR(s, 10)
	if err != nil {
		t.Fatal(err)
	}
	counts := make([]int, 10)
	for _, l := range b.labels {
		counts[l]++
	}
	want := []int{1000, 1000, 1000, 1000, 1000, 1000, 1000, 999, 969, 1000}
	if full := slices.Repeat([]int{1000}, 10); !slices.Equal(counts, want) && !slices.Equal(counts, full) {
		t.Errorf("class counts %v", counts)
	}
}

// FuzzCIFAR feeds both readers; what they accept has one label for each image. So that inputs stay short, the word
// PIXELS in them stands for the 3072 bytes of an image.
func FuzzCIFAR(f *testing.F) {
	pixels := cifarPlanes(1)
	short := func(raw []byte) []byte { return bytes.ReplaceAll(raw, pixels, []byte("PIXELS")) }
	f.Add(short(cifarBinary(1, 10)), false, false)
	f.Add([]byte("\x03\x01PIXELS\x03\x63PIXELS"), true, false)
	f.Add(short(cifarPickle(1, "labels")), false, true)
	f.Add(short(cifarPickle(1, "fine_labels")), true, true)
	f.Add([]byte("\x01PIXEL"), false, false)
	f.Fuzz(func(t *testing.T, raw []byte, hundred, python bool) {
		classes := 10
		if hundred {
			classes = 100
		}
		read := readCIFAR
		if python {
			read = readCIFARPython
		}
		raw = bytes.ReplaceAll(raw, []byte("PIXELS"), pixels)
		b, err := read(&source{r: bytes.NewReader(raw), name: "fuzz"}, classes)
		if err == nil && (len(b.labels) == 0 || len(b.pixels) != len(b.labels)*cifarPixels) {
			t.Fatalf("%d bytes for %d labels", len(b.pixels), len(b.labels))
		}
	})
}
