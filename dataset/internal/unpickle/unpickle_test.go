package unpickle

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestPython reads what Python wrote with three protocols; NumPy writes arrays in another way in each.
func TestPython(t *testing.T) {
	for _, name := range []string{"protocol2.pickle", "protocol4.pickle", "protocol5.pickle"} {
		v, err := Decode(read(t, name))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		d := v.(*Dict)
		get := func(key string) any {
			v, ok := d.Get(key)
			if !ok {
				t.Fatalf("%s: no %s among %v", name, key, d.Keys)
			}
			return v
		}
		data := get("data").(*Array)
		if diff := cmp.Diff([]int{3, 20}, data.Dims); diff != "" || data.Type != "u1" || data.Len() != 60 || data.Int(59) != 59*4 {
			t.Errorf("%s: data %v %s, last %d", name, data.Dims, data.Type, data.Int(59))
		}
		fine := get("fine").(*Array)
		if diff := cmp.Diff([]int64{1, -2, 300000}, []int64{fine.Int(0), fine.Int(1), fine.Int(2)}); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		want := []any{int64(6), int64(9), int64(9)}
		if diff := cmp.Diff(want, get("labels").(*List).Items); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if diff := cmp.Diff(Tuple{int64(1), int64(2), int64(3), int64(4)}, get("t")); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		for key, want := range map[string]any{"scalar": int64(-7), "none": nil, "f": 1.5, "big": int64(1) << 40, "neg": int64(-5)} {
			if got := get(key); got != want {
				t.Errorf("%s: %s is %v, not %v", name, key, got, want)
			}
		}
	}
}

// TestRefused: functions outside the list, unknown operations and broken pickles give errors that say where.
func TestRefused(t *testing.T) {
	for _, c := range []struct{ pickle, want string }{
		{string(read(t, "evil.pickle")), `the pickle asks for "system" of module "posix", which is refused`},
		{"", "byte 0: the pickle ends early"},
		{".", "byte 0: 0 values are left"},
		{"\x80\x06N.", "pickle protocol 6"},
		{"i", "operation 0x69 is not allowed"},
		{"Q.", "operation 0x51"},
		{"B\xff\xff\xff\xff", "4294967295 bytes wanted, 0 left"},
		{"\x8e\xff\xff\xff\xff\xff\xff\xff\xff", "bytes wanted"},
		{"X\x01\x00\x00\x00\xff.", "not UTF-8"},
		{"cnumpy", "ends inside a line"},
		{"Nb", "the stack is empty"},
		{"Nt.", "no mark"},
		{"]N.", "2 values are left"},
		{"K\x01N\x86a.", "the stack is empty"},
		{"NNa.", "an append to <nil>"},
		{"}NNs.", "a dictionary key of type <nil>"},
		{"}(Nu.", "a dictionary of 1 keys and values"},
		{"h\x05.", "memo 5 is empty"},
		{"NNR.", "a call of something"},
		{"cnumpy\nndarray\n)R.", "ndarray cannot be called"},
		{"cnumpy\ndtype\n(U\x01OtR.", `arrays of type "O"`},
		{"c_codecs\nencode\n(X\x03\x00\x00\x00\xe2\x82\xacU\x06latin1tR.", "is not latin1"},
		{"\x8a\x09" + strings.Repeat("a", 9), "an integer of 9 bytes"},
	} {
		_, err := Decode([]byte(c.pickle))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40q: error %v, expected %q", c.pickle, err, c.want)
		}
	}
}

// TestShapeLies: dimensions that overflow, are negative or do not make the data are refused.
func TestShapeLies(t *testing.T) {
	array := func(shape string) []byte {
		return []byte("cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01" + shape +
			"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x06abcdeftb.")
	}
	if v, err := Decode(array("K\x02K\x03\x86")); err != nil || !bytes.Equal(v.(*Array).Data, []byte("abcdef")) {
		t.Fatalf("a right shape: %v %v", v, err)
	}
	for _, shape := range []string{"K\x02K\x02\x86", "K\x07\x85", "J\xff\xff\xff\xff\x85", "K\x06K\x06K\x06\x87", "K\x00\x85", "N", "N\x85", "(KKKKKKKKKKKKKKKKKKt"} {
		if v, err := Decode(array(shape)); err == nil {
			t.Errorf("shape %q: got %v", shape, v)
		}
	}
}

func TestBounded(t *testing.T) {
	if _, err := Decode(bytes.Repeat([]byte("]"), 3<<20)); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("three million lists: %v", err)
	}
	if _, err := Decode(bytes.Repeat([]byte("("), 3<<20)); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("three million marks: %v", err)
	}
}

// FuzzDecode looks for a pickle that crashes the reader. Arrays it returns must be consistent.
func FuzzDecode(f *testing.F) {
	for _, name := range []string{"protocol2.pickle", "protocol4.pickle", "protocol5.pickle", "evil.pickle"} {
		f.Add(read(f, name))
	}
	f.Add([]byte("(lp0\n]q\x00h\x00a."))
	f.Fuzz(func(t *testing.T, pickle []byte) {
		v, err := Decode(pickle)
		if err != nil {
			return
		}
		if a, ok := v.(*Array); ok && a.Type != "" {
			n := 1
			for _, d := range a.Dims {
				n *= d
			}
			if n != a.Len() {
				t.Fatalf("dimensions %v of %d elements", a.Dims, a.Len())
			}
		}
	})
}
