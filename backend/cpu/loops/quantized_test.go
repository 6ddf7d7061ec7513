package loops_test

import (
	"testing"

	"github.com/gomlx/compute"

	"github.com/cohort-learning/cohort/backend/cpu/loops"
)

// Bytes 0x3c are the high ones of the half-precision 1, 0x40 those of 2.
func TestGGMLBlocks(t *testing.T) {
	type set map[int]byte
	for _, c := range []struct {
		name   string
		format compute.GGMLQuantType
		bytes  set             // the others are 0
		rest   float32         // the values that are not listed
		want   map[int]float32 // by index
	}{
		{"Q8_0 signs", compute.GGMLQ8_0, set{1: 0x40, 2: 3, 33: 0xff}, 0, map[int]float32{0: 6, 31: -2}},
		{"Q4_0 halves", compute.GGMLQ4_0, set{1: 0x40, 2: 0xf1, 17: 0x80}, -16, map[int]float32{0: -14, 16: 14, 31: 0}},
		{"IQ4_NL table", compute.GGMLIQ4NL, set{1: 0x3c, 3: 0xf8}, -127, map[int]float32{1: 1, 17: 113}},
		{"Q4_K low numbers", compute.GGMLQ4_K, set{1: 0x3c, 3: 0x40, 4: 5, 9: 7, 16: 0x32, 17: 0x40}, 0,
			withRange(map[int]float32{0: 10}, 32, 64, -14)},
		{"Q4_K high numbers", compute.GGMLQ4_K, set{1: 0x3c, 3: 0x3c, 4: 0x80, 8: 0x40, 12: 0x23, 112: 0x09}, 0,
			withRange(map[int]float32{128: -18}, 129, 160, -18)},
		{"Q4_K high scale", compute.GGMLQ4_K, set{1: 0x3c, 4: 0x80, 12: 0x03, 80: 0x09, 81: 0x90}, 0, map[int]float32{128: 35 * 9}},
		{"Q6_K low halves", compute.GGMLQ6_K, fill(set{209: 0x3c, 0: 0x21, 95: 0x50}, 192, 208, 1), -32,
			map[int]float32{0: -31, 64: -30, 128 + 64 + 31: -27}},
		{"Q6_K high bits", compute.GGMLQ6_K, fill(set{209: 0x3c, 128: 0xe4, 191: 0x40}, 192, 208, 1), -32,
			map[int]float32{32: -16, 64: 0, 96: 16, 255: -16}},
		{"Q6_K scales", compute.GGMLQ6_K, set{209: 0x3c, 193: 0xff}, 0, withRange(nil, 16, 32, 32)},
	} {
		f, ok := loops.GGML(c.format)
		if !ok {
			t.Fatalf("%s is unknown", c.format)
		}
		block := make([]byte, 2*f.Bytes)
		for k, v := range c.bytes {
			block[f.Bytes+k] = v
		}
		got := make([]float32, 2*f.Values)
		f.Decode(at(got), at(block), 1, 2) // the second of two blocks
		for i, g := range got[f.Values:] {
			want, listed := c.want[i]
			if !listed {
				want = c.rest
			}
			if g != want {
				t.Errorf("%s: value %d is %g, want %g", c.name, i, g, want)
			}
		}
		for i, g := range got[:f.Values] {
			if g != 0 {
				t.Fatalf("%s: value %d of the block before was written", c.name, i)
			}
		}
	}
	if _, ok := loops.GGML(compute.GGMLQ2_K); ok {
		t.Error("Q2_K is known")
	}
}

func withRange(m map[int]float32, lo, hi int, v float32) map[int]float32 {
	out := map[int]float32{}
	for i := lo; i < hi; i++ {
		out[i] = v
	}
	for k, v := range m {
		out[k] = v
	}
	return out
}

func fill(m map[int]byte, lo, hi int, v byte) map[int]byte {
	for i := lo; i < hi; i++ {
		m[i] = v
	}
	return m
}

func TestNF4UsesTheLowHalf(t *testing.T) {
	src := []byte{0, 7, 15, 0xf7}
	got := make([]float32, 4)
	loops.NF4().Decode(at(got), at(src), 0, 4)
	if got[0] != -1 || got[1] != 0 || got[2] != 1 || got[3] != 0 {
		t.Errorf("got %v, want [-1 0 1 0]", got)
	}
}
