package weights_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/cohort-learning/cohort/weights"
)

var update = flag.Bool("update", false, "rewrite the hostile files and the errors that they give")

// file returns a safetensors file of the given header and n bytes of data.
func file(header string, n int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	b = append(b, header...)
	for i := range n {
		b = append(b, byte(i))
	}
	return b
}

func one(dtype, shape, offsets string) string {
	return fmt.Sprintf(`{"a":{"dtype":%s,"shape":%s,"data_offsets":%s}}`, dtype, shape, offsets)
}

func length(n uint64, rest string) []byte {
	return append(binary.LittleEndian.AppendUint64(nil, n), rest...)
}

// hostile are files that no reader may accept, by what is wrong with them. They lie in testdata/hostile, with the errors
// that they give in testdata/hostile/errors.txt.
var hostile = map[string][]byte{
	"empty":                   nil,
	"seven-bytes":             []byte("\x02\x00\x00\x00\x00\x00\x00"),
	"no-header":               length(2, ""),
	"header-beyond-file":      length(1000, `{"a":`),
	"header-beyond-cap":       length(100_000_001, "{}"),
	"header-length-max":       length(math.MaxUint64, "{}"),
	"header-length-negative":  length(1<<63, "{}"),
	"header-length-zero":      length(0, "{}"),
	"not-an-object-list":      file(`[1,2]`, 0),
	"not-an-object-space":     file(` {}`, 0),
	"not-an-object-null":      file(`null`, 0),
	"not-utf8":                file("{\"\xff\xfe\":1}", 0),
	"nul-bytes":               file("{\x00\x00}", 0),
	"json-cut":                file(`{"a":{"dtype":"F32"`, 0),
	"json-cut-in-string":      file(`{"a`, 0),
	"json-comma":              file(`{"a":1,}`, 0),
	"json-no-colon":           file(`{"a" 1}`, 0),
	"json-two-objects":        file(`{}{}`, 0),
	"json-garbage-after":      file(`{} x`, 0),
	"json-deep":               file(`{"a":`+strings.Repeat("[", 20_000), 0),
	"json-deep-objects":       file(strings.Repeat(`{"a":`, 20_000), 0),
	"json-pickle":             file("\x80\x04\x95", 0),
	"key-twice":               file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, 8),
	"key-twice-escaped":       file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"\u0061":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, 8),
	"key-twice-meta":          file(`{"__metadata__":{},"__metadata__":{}}`, 0),
	"key-twice-in-meta":       file(`{"__metadata__":{"k":"1","k":"2"}}`, 0),
	"key-twice-in-entry":      file(`{"a":{"dtype":"F32","dtype":"F64","shape":[1],"data_offsets":[0,4]}}`, 4),
	"key-unknown-in-entry":    file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"stride":[4]}}`, 4),
	"key-unknown-long":        file(`{"a":{"`+strings.Repeat("k", 5000)+`":1}}`, 4),
	"meta-not-object":         file(`{"__metadata__":[]}`, 0),
	"meta-number":             file(`{"__metadata__":{"epoch":3}}`, 0),
	"meta-null":               file(`{"__metadata__":{"epoch":null}}`, 0),
	"meta-nested":             file(`{"__metadata__":{"epoch":{}}}`, 0),
	"entry-null":              file(`{"a":null}`, 0),
	"entry-number":            file(`{"a":1e999}`, 0),
	"entry-empty":             file(`{"a":{}}`, 0),
	"dtype-missing":           file(`{"a":{"shape":[1],"data_offsets":[0,4]}}`, 4),
	"dtype-number":            file(one(`32`, `[1]`, `[0,4]`), 4),
	"dtype-unknown":           file(one(`"F32 "`, `[1]`, `[0,4]`), 4),
	"dtype-lower-case":        file(one(`"f32"`, `[1]`, `[0,4]`), 4),
	"dtype-complex":           file(one(`"C64"`, `[1]`, `[0,8]`), 8),
	"dtype-float8":            file(one(`"F8_E4M3"`, `[4]`, `[0,4]`), 4),
	"shape-missing":           file(`{"a":{"dtype":"F32","data_offsets":[0,4]}}`, 4),
	"shape-null":              file(one(`"F32"`, `null`, `[0,4]`), 4),
	"shape-number":            file(one(`"F32"`, `1`, `[0,4]`), 4),
	"shape-negative":          file(one(`"F32"`, `[-1]`, `[0,4]`), 4),
	"shape-two-negatives":     file(one(`"F32"`, `[-1,-1]`, `[0,4]`), 4),
	"shape-fraction":          file(one(`"F32"`, `[1.0]`, `[0,4]`), 4),
	"shape-exponent":          file(one(`"F32"`, `[1e0]`, `[0,4]`), 4),
	"shape-string":            file(one(`"F32"`, `["1"]`, `[0,4]`), 4),
	"shape-nested":            file(one(`"F32"`, `[[1]]`, `[0,4]`), 4),
	"shape-bool":              file(one(`"F32"`, `[true]`, `[0,4]`), 4),
	"shape-beyond-int64":      file(one(`"F32"`, `[9223372036854775808]`, `[0,4]`), 4),
	"shape-many-digits":       file(one(`"F32"`, `[`+strings.Repeat("9", 3000)+`]`, `[0,4]`), 4),
	"shape-product-overflow":  file(one(`"F32"`, `[4294967296,4294967296]`, `[0,0]`), 0),
	"shape-product-wraps":     file(one(`"F32"`, `[4294967296,4294967297,4294967296]`, `[0,4]`), 4),
	"shape-bytes-overflow":    file(one(`"F64"`, `[2305843009213693952]`, `[0,0]`), 0),
	"shape-zero-hides":        file(one(`"F32"`, `[0,4294967296,4294967296]`, `[0,0]`), 0),
	"shape-zero-hides-half":   file(one(`"F16"`, `[0,4294967296,536870912]`, `[0,0]`), 0),
	"shape-zero-hides-2-59":   file(one(`"U8"`, `[0,576460752303423488]`, `[0,0]`), 0),
	"shape-rank-65":           file(one(`"F32"`, `[1`+strings.Repeat(",1", 64)+`]`, `[0,4]`), 4),
	"shape-rank-100000":       file(one(`"F32"`, `[1`+strings.Repeat(",1", 99_999)+`]`, `[0,4]`), 4),
	"shape-too-many-bytes":    file(one(`"F32"`, `[2]`, `[0,4]`), 4),
	"shape-too-few-bytes":     file(one(`"F32"`, `[1]`, `[0,8]`), 8),
	"shape-scalar-no-bytes":   file(one(`"F32"`, `[]`, `[0,0]`), 0),
	"offsets-missing":         file(`{"a":{"dtype":"F32","shape":[1]}}`, 4),
	"offsets-one":             file(one(`"F32"`, `[1]`, `[4]`), 4),
	"offsets-three":           file(one(`"F32"`, `[1]`, `[0,4,8]`), 4),
	"offsets-negative":        file(one(`"F32"`, `[1]`, `[-4,0]`), 4),
	"offsets-reversed":        file(one(`"F32"`, `[1]`, `[4,0]`), 4),
	"offsets-beyond-int64":    file(one(`"F32"`, `[1]`, `[18446744073709551612,18446744073709551616]`), 4),
	"offsets-at-int64":        file(one(`"U8"`, `[9223372036854775807]`, `[0,9223372036854775807]`), 4),
	"offsets-hole-at-start":   file(one(`"F32"`, `[1]`, `[4,8]`), 8),
	"offsets-hole-between":    file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}`, 12),
	"offsets-overlap":         file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}`, 12),
	"offsets-same":            file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4),
	"offsets-inside":          file(`{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},"b":{"dtype":"F32","shape":[0],"data_offsets":[4,4]}}`, 12),
	"data-missing":            file(one(`"F32"`, `[1]`, `[0,4]`), 0),
	"data-truncated":          file(one(`"F32"`, `[2,2]`, `[0,16]`), 15),
	"data-truncated-terabyte": file(one(`"F32"`, `[274877906944]`, `[0,1099511627776]`), 64),
	"data-trailing":           file(one(`"F32"`, `[1]`, `[0,4]`), 5),
	"data-trailing-no-tensor": file(`{}`, 1),
	"data-bool":               file(one(`"BOOL"`, `[3]`, `[0,3]`), 3),
	"data-i64-inexact":        append(file(one(`"I64"`, `[2,1]`, `[0,16]`), 0), "\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xdf\xff"...),
	"data-u64-inexact":        append(file(one(`"U64"`, `[1]`, `[0,8]`), 0), "\x01\x00\x00\x00\x00\x00\x20\x00"...),
}

// readers are the ways to read a file: at once, from a stream of unknown length, and through random access.
var readers = map[string]func([]byte) (weights.Set, map[string]string, error){
	"Read": func(b []byte) (weights.Set, map[string]string, error) { return weights.Read(bytes.NewReader(b)) },
	"stream": func(b []byte) (weights.Set, map[string]string, error) {
		return weights.Read(struct{ io.Reader }{bytes.NewReader(b)})
	},
	"File": func(b []byte) (weights.Set, map[string]string, error) {
		f, err := weights.NewFile(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return weights.Set{}, nil, err
		}
		s, err := f.Set()
		return s, f.Meta(), err
	},
}

func TestHostileFiles(t *testing.T) {
	const dir = "testdata/hostile"
	names := slices.Sorted(maps.Keys(hostile))
	if *update {
		var b strings.Builder
		for _, n := range names {
			if err := os.WriteFile(filepath.Join(dir, n+".safetensors"), hostile[n], 0o644); err != nil {
				t.Fatal(err)
			}
			_, _, err := readers["Read"](hostile[n])
			fmt.Fprintf(&b, "%s: %v\n", n, err)
		}
		if err := os.WriteFile(filepath.Join(dir, "errors.txt"), []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(filepath.Join(dir, "errors.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for line := range strings.Lines(string(golden)) {
		name, want, _ := strings.Cut(strings.TrimSpace(line), ": ")
		listed = append(listed, name)
		b, err := os.ReadFile(filepath.Join(dir, name+".safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, hostile[name]) {
			t.Errorf("%s: file and test disagree: run with -update", name)
		}
		for how, read := range readers {
			s, _, err := read(b)
			switch {
			case err == nil:
				t.Errorf("%s: %s accepts it as %d tensors", name, how, s.Len())
			case s.Len() != 0:
				t.Errorf("%s: %s returns tensors with an error", name, how)
			case how != "stream" && err.Error() != want: // a stream notices truncation only at its end
				t.Errorf("%s: %s says\n\t%v, expected\n\t%s", name, how, err, want)
			case len(err.Error()) > 500:
				t.Errorf("%s: %s answers with %d bytes", name, how, len(err.Error()))
			}
		}
	}
	if !slices.Equal(listed, names) {
		t.Errorf("errors.txt lists %d files, the test %d: run with -update", len(listed), len(names))
	}
}

// A file costs what it really holds, not what it claims.
func TestReadAllocatesByInput(t *testing.T) {
	for name, b := range hostile {
		for how, read := range readers {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			read(b)
			runtime.ReadMemStats(&after)
			if got, limit := after.TotalAlloc-before.TotalAlloc, uint64(1<<20+40*len(b)); got > limit {
				t.Errorf("%s: %s allocates %d bytes for a file of %d", name, how, got, len(b))
			}
		}
	}
}

func genName() *rapid.Generator[string] {
	return rapid.OneOf(rapid.StringMatching(`[a-z]{1,3}\.(weight|bias)`), rapid.String()).Filter(func(s string) bool { return s != "__metadata__" })
}

// genSet draws sets of any names, types and small shapes, with every kind of float in them.
func genSet() *rapid.Generator[weights.Set] {
	return rapid.Custom(func(t *rapid.T) weights.Set {
		var s weights.Set
		for range rapid.IntRange(0, 6).Draw(t, "tensors") {
			shape := rapid.SliceOfN(rapid.IntRange(0, 4), 0, 4).Draw(t, "shape")
			x := weights.NewTensor(rapid.SampledFrom([]weights.DType{weights.Float32, weights.Float64}).Draw(t, "dtype"), shape...)
			for i := range x.F32 {
				x.F32[i] = math.Float32frombits(rapid.Uint32().Draw(t, "bits"))
			}
			for i := range x.F64 {
				x.F64[i] = math.Float64frombits(rapid.Uint64().Draw(t, "bits"))
			}
			s.Put(genName().Draw(t, "name"), x)
		}
		return s
	})
}

func TestSafetensorsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSet().Draw(t, "set")
		meta := rapid.MapOfN(rapid.String(), rapid.String(), 0, 3).Draw(t, "meta")
		var b bytes.Buffer
		if err := weights.Write(&b, s, meta); err != nil {
			t.Fatal(err)
		}
		if n := binary.LittleEndian.Uint64(b.Bytes()); n%8 != 0 {
			t.Fatalf("header of %d bytes: the data are not aligned", n)
		}
		for how, read := range readers {
			got, gotMeta, err := read(b.Bytes())
			if err != nil {
				t.Fatalf("%s: %v", how, err)
			}
			if !got.Equal(s) || !slices.Equal(got.Names(), s.Names()) {
				t.Fatalf("%s: got %v, expected %v", how, got, s)
			}
			if !maps.Equal(gotMeta, meta) {
				t.Fatalf("%s: got metadata %v, expected %v", how, gotMeta, meta)
			}
		}
	})
}

// Tensors longer than every buffer, read from readers that give little at a time.
func TestSafetensorsLong(t *testing.T) {
	var s weights.Set
	a, b := weights.NewTensor(weights.Float32, 300_001), weights.NewTensor(weights.Float64, 3, 70_001)
	for i := range a.F32 {
		a.F32[i] = float32(i) / 3
	}
	for i := range b.F64 {
		b.F64[i] = -float64(i) / 3
	}
	s.Put("a", a)
	s.Put("b", b)
	s.Put("c", weights.Of32([]float32{1, 2}, 2))
	var buf bytes.Buffer
	if err := weights.Write(&buf, s, nil); err != nil {
		t.Fatal(err)
	}
	got, _, err := weights.Read(iotest.HalfReader(bytes.NewReader(buf.Bytes())))
	if err != nil {
		t.Fatal(err)
	}
	if !got.Equal(s) {
		t.Fatal("read something else than was written")
	}
	if _, _, err := weights.Read(iotest.TimeoutReader(iotest.HalfReader(bytes.NewReader(buf.Bytes())))); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("a failing reader gives %v", err)
	}
	for _, n := range []int{0, 9, 100, buf.Len() / 2, buf.Len() - 1} {
		if err := weights.Write(&limitWriter{n}, s, nil); !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("a disk full after %d bytes gives %v", n, err)
		}
	}
}

// limitWriter fails after n bytes.
type limitWriter struct{ n int }

func (w *limitWriter) Write(b []byte) (int, error) {
	if len(b) > w.n {
		return w.n, io.ErrShortWrite
	}
	w.n -= len(b)
	return len(b), nil
}

// Empty tensors share their offset; the header's order holds them in place.
func TestSafetensorsKeepsOrderOfEmptyTensors(t *testing.T) {
	var s weights.Set
	for i := range 100 {
		s.Put(strconv.Itoa(i*37%100), weights.NewTensor(weights.Float32, i%7/6, 2))
	}
	var b bytes.Buffer
	if err := weights.Write(&b, s, map[string]string{"a<b": "&"}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b.Bytes(), []byte(`{"__metadata__":{"a<b":"&"},"0":{"dtype":"F32","shape":[0,2],"data_offsets":[0,0]},"37":`)) {
		t.Errorf("header is %.200s", b.Bytes()[8:])
	}
	got, _, err := weights.Read(&b)
	if err != nil || !slices.Equal(got.Names(), s.Names()) {
		t.Errorf("got order %v, error %v", got.Names(), err)
	}
}

func TestWriteRefuses(t *testing.T) {
	wide := make([]int, 65)
	for i := range wide {
		wide[i] = 1
	}
	for want, s := range map[string]weights.Set{
		`"__metadata__" cannot be the name`:                      set("__metadata__", weights.Of32(nil, 0)),
		`"\xff" cannot be the name`:                              set("\xff", weights.Of32(nil, 0)),
		`"a": 1 elements do not fill shape [2]`:                  set("a", weights.Tensor{Shape: []int{2}, F32: []float32{1}}),
		`"a": shape [-1 -1] is negative or too large`:            set("a", weights.Tensor{Shape: []int{-1, -1}, F32: []float32{1}}),
		`"a": it has elements of two types`:                      set("a", weights.Tensor{Shape: []int{1}, F32: []float32{1}, F64: []float64{1}}),
		`tensor "a" has 65 axes, the limit is 64`:                set("a", weights.NewTensor(weights.Float32, wide...)),
		`"a": 0 elements do not fill shape []`:                   set("a", weights.Tensor{}),
		`shape [4294967296 4294967296] is negative or too large`: set("a", weights.Tensor{Shape: []int{1 << 32, 1 << 32}}),
	} {
		var b bytes.Buffer
		if err := weights.Write(&b, s, nil); err == nil || !strings.Contains(err.Error(), want) || b.Len() > 0 {
			t.Errorf("got error %v and %d bytes, expected %s", err, b.Len(), want)
		}
	}
	if err := weights.Write(io.Discard, weights.Set{}, map[string]string{"k": "\xff"}); err == nil || !strings.Contains(err.Error(), `metadata "k" is not UTF-8`) {
		t.Errorf("got error %v", err)
	}
}

func set(name string, t weights.Tensor) weights.Set {
	var s weights.Set
	s.Put(name, t)
	return s
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "model.safetensors")
	var s weights.Set
	s.Put("b", weights.Of32([]float32{1, 2, 3, 4, 5, 6}, 2, 3))
	s.Put("empty", weights.Of64(nil, 0))
	s.Put("a", weights.Of64([]float64{math.Pi}))
	if err := weights.WriteFile(path, s.Zeros(), nil); err != nil {
		t.Fatal(err)
	}
	if err := weights.WriteFile(path, s, map[string]string{"round": "7"}); err != nil { // replaces
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("folder holds %v, error %v", left, err)
	}
	got, meta, err := weights.ReadFile(path)
	if err != nil || !got.Equal(s) || meta["round"] != "7" {
		t.Errorf("got %v, %v, error %v", got, meta, err)
	}
	f, err := weights.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if want := []string{"b", "empty", "a"}; !slices.Equal(f.Names(), want) {
		t.Errorf("got names %v, expected %v", f.Names(), want)
	}
	for _, n := range []string{"a", "b", "empty", "a"} {
		if x, err := f.Tensor(n); err != nil || !x.Equal(s.Must(n)) {
			t.Errorf("%s: got %v, error %v", n, x, err)
		}
	}
	x, err := f.Tensor("b")
	if err != nil {
		t.Fatal(err)
	}
	x.Shape[0], x.F32[0] = 9, 9
	if y, err := f.Tensor("b"); err != nil || !y.Equal(s.Must("b")) {
		t.Errorf("a tensor that was read twice shares: %v, error %v", y, err)
	}
	if _, err := f.Tensor("c"); err == nil || !strings.Contains(err.Error(), `no tensor "c" among 3`) {
		t.Errorf("got error %v", err)
	}
	// What fails says which file, and leaves what was there.
	if err := weights.WriteFile(path, set("\xff", weights.Of32(nil, 0)), nil); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got error %v", err)
	}
	if got, _, err := weights.ReadFile(path); err != nil || !got.Equal(s) {
		t.Errorf("after a failed write: %v, error %v", got, err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("a failed write leaves %v", left)
	}
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Tensor("a"); err == nil || !strings.Contains(err.Error(), "truncated") {
		t.Errorf("file cut while open: got error %v", err)
	}
	if _, _, err := weights.ReadFile(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got error %v", err)
	}
	if _, err := weights.Open(dir); err == nil {
		t.Error("opened a folder")
	}
	if _, err := weights.Open(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got error %v", err)
	}
	if err := weights.WriteFile(filepath.Join(dir, "none", "x"), s, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got error %v", err)
	}
}

// Every half-precision number, against its definition.
func TestReadHalf(t *testing.T) {
	b := file(one(`"F16"`, `[65536]`, `[0,131072]`), 0)
	for i := range 1 << 16 {
		b = binary.LittleEndian.AppendUint16(b, uint16(i))
	}
	s, _, err := weights.Read(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	for i, got := range s.Must("a").F32 {
		exp, man := i>>10&31, float64(i&1023)
		want := math.Ldexp(1+man/1024, exp-15)
		switch {
		case exp == 0:
			want = math.Ldexp(man, -24)
		case exp == 31 && man == 0:
			want = math.Inf(1)
		case exp == 31:
			want = math.NaN()
		}
		if i >= 1<<15 {
			want = -want
		}
		if float64(got) != want && !(math.IsNaN(want) && math.IsNaN(float64(got))) || math.Signbit(float64(got)) != (i >= 1<<15) {
			t.Fatalf("%#04x: got %v, expected %v", i, got, want)
		}
	}
}

// Files written by the Python package safetensors (testdata/python/make.py).
func TestReadPython(t *testing.T) {
	for _, name := range []string{"numpy", "torch", "nothing"} {
		b, err := os.ReadFile("testdata/python/" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var want struct {
			Meta    map[string]string
			Tensors map[string]struct {
				Shape  []int
				Values []string
			}
		}
		if err := json.Unmarshal(b, &want); err != nil {
			t.Fatal(err)
		}
		s, meta, err := weights.ReadFile("testdata/python/" + name + ".safetensors")
		if err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(meta, want.Meta) || s.Len() != len(want.Tensors) {
			t.Errorf("%s: got %d tensors and metadata %v", name, s.Len(), meta)
		}
		for n, w := range want.Tensors {
			x, ok := s.Get(n)
			if !ok || !slices.Equal(x.Shape, w.Shape) || x.Len() != len(w.Values) {
				t.Errorf("%s: %q is %v, expected shape %v", name, n, x, w.Shape)
				continue
			}
			for i, v := range w.Values {
				f, err := strconv.ParseFloat(v, 64) // inf and nan too
				if err != nil {
					t.Fatal(err)
				}
				if math.Float64bits(x.At(i)) != math.Float64bits(f) {
					t.Errorf("%s: %q[%d] = %v, expected %v", name, n, i, x.At(i), f)
				}
			}
		}
	}
}

// What we write, read by the Python package safetensors where it is installed.
func TestPythonReads(t *testing.T) {
	if out, err := exec.Command("python3", "-c", "import safetensors.numpy, numpy").CombinedOutput(); err != nil {
		t.Skipf("python3 with numpy and safetensors is not here: %v %s", err, bytes.TrimSpace(out))
	}
	path := filepath.Join(t.TempDir(), "model.safetensors")
	var s weights.Set
	s.Put("z.weight", weights.Of32([]float32{1, -0.1, 3e-45, math.MaxFloat32, 5, 6}, 2, 3))
	s.Put("scalar", weights.Of32([]float32{7}))
	s.Put("a", weights.Of64([]float64{math.Pi, -1e-300}, 2)) // not aligned to 8 bytes
	s.Put("empty", weights.Of32(nil, 3, 0))
	s.Put("ü\"\\<\x01\u2028", weights.Of32([]float32{1}, 1, 1))
	if err := weights.WriteFile(path, s, map[string]string{"k<": "ä\n\""}); err != nil {
		t.Fatal(err)
	}
	const script = `
import sys, numpy, safetensors
with safetensors.safe_open(sys.argv[1], "numpy") as f:
    assert f.metadata() == {"k<": "ä\n\""}, f.metadata()
    for n in f.offset_keys():
        t = f.get_tensor(n)
        print(n.encode().hex(), t.dtype, list(t.shape), [v.hex() for v in t.astype(numpy.float64).reshape(-1).tolist()])
`
	out, err := exec.Command("python3", "-c", script, path).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var want strings.Builder
	for n, x := range s.All() {
		values := make([]string, x.Len())
		for i := range values {
			values[i] = fmt.Sprintf("%x", x.At(i))
		}
		fmt.Fprintf(&want, "%x %v %v %v\n", n, x.DType(), x.Shape, values)
	}
	if norm(string(out)) != norm(want.String()) {
		t.Errorf("Python reads\n%sexpected\n%s", out, want.String())
	}
}

// norm makes hexadecimal floats and lists of two languages comparable.
func norm(s string) string {
	f := strings.Fields(strings.NewReplacer("[", " ", "]", " ", ",", " ", "'", " ").Replace(s))
	for i, w := range f {
		if strings.Contains(w, "0x") {
			if v, err := strconv.ParseFloat(w, 64); err == nil {
				f[i] = strconv.FormatFloat(v, 'g', -1, 64)
			}
		}
	}
	return strings.Join(f, " ")
}

func FuzzRead(f *testing.F) {
	for _, b := range hostile {
		if len(b) < 1<<10 { // long seeds make long searches for a shorter input
			f.Add(b)
		}
	}
	for _, name := range []string{"numpy", "torch", "nothing"} {
		b, err := os.ReadFile("testdata/python/" + name + ".safetensors")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, meta, err := weights.Read(bytes.NewReader(b))
		streamed, _, streamErr := weights.Read(struct{ io.Reader }{bytes.NewReader(b)})
		at, _, atErr := readers["File"](b)
		if (err == nil) != (streamErr == nil) || (err == nil) != (atErr == nil) {
			t.Fatalf("readers disagree: %v, %v, %v", err, streamErr, atErr)
		}
		if err != nil {
			return
		}
		if !s.Equal(streamed) || !s.Equal(at) {
			t.Fatal("readers read different sets")
		}
		var out bytes.Buffer
		if err := weights.Write(&out, s, meta); err != nil {
			t.Fatalf("cannot write what was read: %v", err)
		}
		again, againMeta, err := weights.Read(&out)
		if err != nil || !again.Equal(s) || !slices.Equal(again.Names(), s.Names()) || !maps.Equal(meta, againMeta) {
			t.Fatalf("read %v again as %v, error %v", s, again, err)
		}
	})
}

// TestSetIn reads into memory that had something else in it, and allocates where it is offered too little or none.
func TestSetIn(t *testing.T) {
	var s weights.Set
	s.Put("a", weights.Of32([]float32{1, 2, 3}, 3))
	s.Put("b", weights.Of32([]float32{4, 5, 6, 7}, 2, 2))
	s.Put("c", weights.Of64([]float64{math.Pi}))
	s.Put("d", weights.Of32([]float32{8}, 1))
	var b bytes.Buffer
	if err := weights.Write(&b, s, nil); err != nil {
		t.Fatal(err)
	}
	f, err := weights.NewFile(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	old := []float32{9, 9, 9, 9, 9}
	var asked []int
	got, err := f.SetIn(func(n int) []float32 {
		asked = append(asked, n)
		return map[int][]float32{3: old, 4: make([]float32, 2)}[n]
	})
	if err != nil || !got.Equal(s) {
		t.Fatalf("got %v, error %v", got, err)
	}
	if !slices.Equal(asked, []int{3, 4, 1}) {
		t.Errorf("asked for %v elements", asked)
	}
	if a := got.Must("a").F32; &a[0] != &old[0] || cap(a) != 3 {
		t.Errorf("the memory was not used, or more of it than it takes: capacity %d", cap(a))
	}
	if old[3] != 9 {
		t.Error("memory beyond the tensor was written")
	}
}
