package kernel

import (
	"strings"
	"testing"
)

func TestChoosePath(t *testing.T) {
	paths := []Path{Portable, AVX2}
	for _, c := range []struct {
		name string
		want Path
		err  string
	}{
		{"", AVX2, ""},
		{"portable", Portable, ""},
		{"avx2", AVX2, ""},
		{"avx512", AVX2, "cannot run the avx512 kernels"},
		{"sse", AVX2, `unknown kernel path "sse"`},
	} {
		got, err := choose(c.name, paths)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("choose(%q) = %v, %v, want %v and %q", c.name, got, err, c.want, c.err)
		}
	}
}

func TestPathNames(t *testing.T) {
	for _, p := range []Path{Portable, NEON, AVX2, AVX512} {
		if got, err := ParsePath(p.String()); got != p || err != nil {
			t.Errorf("ParsePath(%q) = %v, %v", p, got, err)
		}
	}
}

func TestUnknownPathPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a plan for a path that does not exist did not panic")
		}
	}()
	NewGemm(Path(200), GemmShape{})
}
