package nn

import (
	"math"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/weights"
)

// TestARS: sizes of encoder and decoder as PersonalFR counts them, 256N + 33,920 and 257N + 33,536, the bound of Xavier's initial
// weights, and dropout on the code alone.
func TestARS(t *testing.T) {
	for _, items := range []int{20, 1682, 3706} {
		m := build(t, "ars", Config{Input: []int{items}, Classes: items}, 1)
		sizes := map[bool]int{}
		for _, p := range m.Params {
			n := 1
			for _, d := range p.Shape(1) {
				n *= d
			}
			sizes[strings.HasPrefix(p.Name, "encoder.")] += n
		}
		if sizes[true] != 256*items+33920 || sizes[false] != 257*items+33536 {
			t.Errorf("%d items: encoder of %d numbers, decoder of %d", items, sizes[true], sizes[false])
		}
		if got, want := m.Cost().MACs, int64(512*items+65536); got != want {
			t.Errorf("%d items: %d multiply-accumulate operations, want %d", items, got, want)
		}
	}
	m := build(t, "ars", Config{Input: []int{300}, Classes: 300}, 1)
	if len(m.Noise) != 1 || m.Noise[0].Name != "code" || m.Noise[0].Dims[0] != 128 || m.Noise[0].Drop != 0.5 {
		t.Errorf("dropout masks %v, want one of the 128 features of the code", m.Noise)
	}
	w := m.Initial(weights.Float32, rng.New(1, 0, "", "weights"))
	for name, fans := range map[string]float64{"encoder.linear1.weight": 556, "encoder.linear2.weight": 384, "decoder.linear2.weight": 556} {
		x, bound, top := w.Must(name), math.Sqrt(6/fans), 0.0
		for i := range x.Len() {
			top = max(top, math.Abs(x.At(i)))
		}
		if top > bound*(1+1e-7) || top < 0.99*bound {
			t.Errorf("%s reaches %g, bound %g", name, top, bound)
		}
	}
	for what, c := range map[string]Config{
		"activation is set but not used": {Input: []int{9}, Classes: 9, Activation: "relu"},
		"expected ln or none":            {Input: []int{9}, Classes: 9, Norm: StaticBatchNorm},
		"both must be all items":         {Input: []int{9}, Classes: 8},
		"expected [items]":               {Input: []int{3, 3, 1}, Classes: 9},
		"a probability in [0, 1)":        {Input: []int{9}, Classes: 9, Dropout: new(1.0)},
	} {
		if _, err := New("ars", c); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("want an error that says %q, got %v", what, err)
		}
	}
}
