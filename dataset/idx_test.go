package dataset

import (
	"bytes"
	"compress/gzip"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// realData returns the folder of real data sets that COHORT_DATA names.
func realData(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("COHORT_DATA")
	if dir == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("COHORT_DATA is not set")
		}
		t.Skip("COHORT_DATA names no folder of real data sets")
	}
	return dir
}

// write makes a file below a temporary folder, packed if its name ends in .gz.
func write(t testing.TB, dir, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(name, ".gz") {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write(content)
		z.Close()
		content = b.Bytes()
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func idxBytes(t testing.TB, x *IDX) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := x.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestIDXRoundTrip(t *testing.T) {
	for _, x := range []*IDX{
		{Dims: []int{2, 3}, U8: []uint8{0, 1, 2, 253, 254, 255}},
		{Dims: []int{3}, I32: []int32{-1 << 31, 0, 1<<31 - 1}},
		{Dims: []int{2, 1, 1}, F32: []float32{-1.5e-40, 3.25}},
	} {
		got, err := ReadIDX(bytes.NewReader(idxBytes(t, x)), "x")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(x, got); diff != "" {
			t.Error(diff)
		}
	}
	for raw, want := range map[string]*IDX{
		"\x00\x00\x09\x01\x00\x00\x00\x02\xff\x05":                         {Dims: []int{2}, I32: []int32{-1, 5}},
		"\x00\x00\x0b\x01\x00\x00\x00\x02\xff\xfe\x01\x00":                 {Dims: []int{2}, I32: []int32{-2, 256}},
		"\x00\x00\x0e\x01\x00\x00\x00\x01\x3f\xf8\x00\x00\x00\x00\x00\x00": {Dims: []int{1}, F32: []float32{1.5}},
	} {
		got, err := ReadIDX(strings.NewReader(raw), "x")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

// TestIDXDamaged: each error names the file and the byte.
func TestIDXDamaged(t *testing.T) {
	for raw, want := range map[string]string{
		"":                             "x: byte 0: the file ends inside the IDX header",
		"\x1f\x8b\x08\x00":             "not an IDX file: it begins with 1f 8b",
		"\x00\x00\x07\x01":             "x: byte 4: unknown IDX type 0x07",
		"\x00\x00\x08\x00":             "0 dimensions",
		"\x00\x00\x08\xff":             "255 dimensions",
		"\x00\x00\x08\x02\x00\x00\x00": "ends inside the IDX dimensions",
		"\x00\x00\x08\x02\xff\xff\xff\xff\xff\xff\xff\xff": "ask for more than",
		"\x00\x00\x08\x01\x00\x00\x00\x05abc":              "x: byte 11: the file ends inside the IDX values: 3 of 5",
		"\x00\x00\x08\x01\x00\x00\x00\x03abcd":             "goes on after its last value",
	} {
		if _, err := ReadIDX(strings.NewReader(raw), "x"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, expected %q", raw, err, want)
		}
	}
}

// TestIDXNoHugeAllocation: a header that promises 3 GiB costs what the file really holds.
func TestIDXNoHugeAllocation(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := ReadIDX(strings.NewReader("\x00\x00\x08\x01\xc0\x00\x00\x00abc"), "x")
	runtime.ReadMemStats(&after)
	if err == nil {
		t.Error("accepted")
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 4<<20 {
		t.Errorf("%d bytes allocated", got)
	}
}

func TestLoadIDXFolder(t *testing.T) {
	dir := t.TempDir()
	images := &IDX{Dims: []int{20, 2, 2}, U8: make([]uint8, 80)}
	labels := &IDX{Dims: []int{20}, U8: make([]uint8, 20)}
	for i := range images.U8 {
		images.U8[i] = uint8(i)
		labels.U8[i/4] = uint8(i / 4 % 3)
	}
	write(t, dir, "train-images-idx3-ubyte.gz", idxBytes(t, images))
	write(t, dir, "train-labels-idx1-ubyte", idxBytes(t, labels))
	s, err := Load(context.Background(), Spec{Name: "idx", Path: dir, TestFraction: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	if s.Train.Len()+s.Test.Len() != 20 || !slices.Equal(s.Train.Classes, []string{"0", "1", "2"}) || !slices.Equal(s.Train.Shape, []int{2, 2, 1}) {
		t.Errorf("%d + %d examples of %v, classes %v", s.Train.Len(), s.Test.Len(), s.Train.Shape, s.Train.Classes)
	}
	for c, n := range histogram(s.Test, identity(s.Test.Len())) {
		if n < 3 || n > 4 {
			t.Errorf("%d test examples of class %d", n, c)
		}
	}
	write(t, dir, "t10k-images-idx3-ubyte", idxBytes(t, &IDX{Dims: []int{1, 2, 3}, U8: make([]uint8, 6)}))
	write(t, dir, "t10k-labels-idx1-ubyte", idxBytes(t, &IDX{Dims: []int{1}, U8: []uint8{0}}))
	for want, spec := range map[string]Spec{
		"test examples [2 3 1]":         {Name: "idx", Path: dir},
		"none of train-images":          {Name: "idx", Path: t.TempDir()},
		"no such file":                  {Name: "idx", Path: filepath.Join(dir, "nowhere")},
		"is a file":                     {Name: "idx", Path: filepath.Join(dir, "t10k-labels-idx1-ubyte")},
		"set COHORT_DATA":               {Name: "mnist"},
		`did you mean "fashion-mnist"?`: {Name: "fashionmnist"},
	} {
		if _, err := Load(context.Background(), spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, expected %q", spec, err, want)
		}
	}
	dir = t.TempDir()
	write(t, dir, "train-images-idx3-ubyte.gz", idxBytes(t, images))
	write(t, dir, "train-labels-idx1-ubyte", idxBytes(t, &IDX{Dims: []int{20}, I32: slices.Repeat([]int32{-1}, 20)}))
	if _, err := Load(context.Background(), Spec{Name: "idx", Path: dir}); err == nil || !strings.Contains(err.Error(), "label -1") {
		t.Errorf("negative labels: %v", err)
	}
}

// TestRealMNIST and its neighbours check counts and statistics that the data sets are known by.
func TestRealMNIST(t *testing.T) {
	root := realData(t)
	for _, c := range []struct {
		name  string
		train []int
		test  []int
	}{
		{"mnist", []int{5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949}, []int{980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009}},
		{"fashion-mnist", slices.Repeat([]int{6000}, 10), slices.Repeat([]int{1000}, 10)},
	} {
		s, err := Load(context.Background(), Spec{Name: c.name, Root: root})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.train, s.Train.All().Histogram()) + cmp.Diff(c.test, s.Test.All().Histogram()); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		mean, std := s.Train.Mean[0], s.Train.Std[0]
		s.Train.Normalise(0)
		if dm, ds := s.Train.Mean[0]-mean, s.Train.Std[0]-std; dm*dm > 1e-8 || ds*ds > 1e-8 {
			t.Errorf("%s: mean %v and deviation %v, %v and %v are built in", c.name, s.Train.Mean, s.Train.Std, mean, std)
		}
	}
	s, err := Load(context.Background(), Spec{Name: "mnist", Root: root, Train: 4000, Test: 2000, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	if s.Train.Len() != 4000 || s.Test.Len() != 2000 {
		t.Errorf("limited to %d and %d", s.Train.Len(), s.Test.Len())
	}
}

// FuzzIDX looks for a file that crashes the reader; what it accepts must be as long as its dimensions say.
func FuzzIDX(f *testing.F) {
	f.Add(idxBytes(f, &IDX{Dims: []int{2, 3}, U8: []uint8{0, 1, 2, 253, 254, 255}}))
	f.Add(idxBytes(f, &IDX{Dims: []int{3}, I32: []int32{-1 << 31, 0, 1<<31 - 1}}))
	f.Add(idxBytes(f, &IDX{Dims: []int{2, 1, 1}, F32: []float32{-1, 3.25}}))
	f.Add([]byte("\x00\x00\x0e\x02\x00\x00\x00\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		x, err := ReadIDX(bytes.NewReader(raw), "fuzz")
		if err != nil {
			return
		}
		n := 1
		for _, d := range x.Dims {
			n *= d
		}
		if n != x.Len() {
			t.Fatalf("%d values for dimensions %v", x.Len(), x.Dims)
		}
		if len(raw) > 2 && raw[2] == 0x08 && !bytes.Equal(idxBytes(t, x), raw) {
			t.Fatal("does not write back the same")
		}
	})
}
