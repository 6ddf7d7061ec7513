package nn

import (
	"math"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/weights"
)

// TestInitialDistributions checks bounds, mean and spread of every kind of initial value. PyTorch's default for linear and
// convolution layers is U(−1/√fan, 1/√fan), whose standard deviation is 1/√(3·fan).
func TestInitialDistributions(t *testing.T) {
	uniform := func(fan float64) [2]float64 { return [2]float64{1 / math.Sqrt(fan), 1 / math.Sqrt(3*fan)} }
	for _, c := range []struct {
		name   string
		config Config
		want   map[string][2]float64 // bound (0: none) and standard deviation
	}{
		{"cnn", Config{Input: []int{28, 28, 1}, Classes: 10}, map[string][2]float64{
			"conv1.weight": uniform(9), "conv1.bias": uniform(9), "conv4.weight": uniform(256 * 9), "conv4.bias": uniform(256 * 9),
			"linear.weight": uniform(512), "linear.bias": {0, 0}, "norm2.bias": {0, 0}}},
		{"lenet", Config{Input: []int{28, 28, 1}, Classes: 10}, map[string][2]float64{
			"conv2.weight": uniform(32 * 25), "linear1.weight": uniform(64 * 49), "linear1.bias": uniform(64 * 49),
			"linear.weight": uniform(512)}},
		{"resnet", Config{Input: []int{32, 32, 3}, Classes: 10, Widths: []int{16, 32}, Blocks: []int{1, 1}}, map[string][2]float64{
			"conv1.weight": uniform(27), "layer2.0.shortcut.weight": uniform(16), "linear.bias": {0, 0}}},
		{"wresnet", Config{Input: []int{32, 32, 3}, Classes: 10, Depth: 10, Widen: 4}, map[string][2]float64{
			"conv1.weight": {0, math.Sqrt(2. / (9 * 16))}, "layer1.0.conv1.weight": {0, math.Sqrt(2. / (9 * 64))},
			"layer2.0.shortcut.weight": {0, math.Sqrt(2. / 128)}, "linear.weight": uniform(256), "linear.bias": {0, 0}}},
		{"transformer", Config{Vocabulary: 1000, Embedding: 64}, map[string][2]float64{
			"embedding.weight": {0, 1}, "position.weight": {0, 1}, "layers.0.attention.q.weight": uniform(64),
			"layers.0.attention.q.bias": {0, 0}, "layers.0.linear1.weight": {0, 0.02}, "layers.0.linear2.weight": {0, 0.02},
			"decoder.linear2.weight": uniform(64), "decoder.linear2.bias": {0, 0}}},
	} {
		m := build(t, c.name, c.config, 1)
		s := m.Initial(weights.Float32, rng.New(1, 0, "", "init"))
		for name, want := range c.want {
			v := s.Must(name)
			n := float64(v.Len())
			var sum, squares, top float64
			for i := range v.Len() {
				x := v.At(i)
				sum, squares, top = sum+x, squares+x*x, math.Max(top, math.Abs(x))
			}
			bound, sd := want[0], want[1]
			if math.Abs(sum/n) > 5*sd/math.Sqrt(n) {
				t.Errorf("%s %s: mean %g of %v numbers with standard deviation %g", c.name, name, sum/n, n, sd)
			}
			if got := math.Sqrt(squares / n); math.Abs(got-sd) > 5*sd/math.Sqrt(n) {
				t.Errorf("%s %s: standard deviation %g, want %g", c.name, name, got, sd)
			}
			// A uniform sample reaches within a few n-ths of its bound and not beyond (but for rounding to float32).
			if bound > 0 && (top > bound*(1+1e-7) || top < bound*(1-10/n)) {
				t.Errorf("%s %s: largest value %g, bound %g", c.name, name, top, bound)
			}
		}
		for _, p := range m.Params {
			if v := s.Must(p.Name); p.Role == NormScale && (v.At(0) != 1 || v.At(v.Len()-1) != 1) {
				t.Errorf("%s %s starts at %v, want 1", c.name, p.Name, v.At(0))
			}
			if first, ok := strings.CutPrefix(p.Name, "layers.3."); ok && !s.Must(p.Name).Equal(s.Must("layers.0."+first)) {
				t.Errorf("%s %s does not start as a copy of layer 0", c.name, p.Name)
			}
		}
	}
}

func TestInitialIsDeterministic(t *testing.T) {
	m := build(t, "cnn", Config{Input: []int{8, 8, 1}, Classes: 10}, 0.25)
	a := m.Initial(weights.Float32, rng.New(4, 0, "", "init"))
	if b := m.Initial(weights.Float32, rng.New(4, 0, "", "init")); !a.Equal(b) {
		t.Error("the same stream gives other weights")
	}
	if b := m.Initial(weights.Float64, rng.New(4, 0, "", "init")); !a.Equal(b.Convert(weights.Float32)) {
		t.Error("float32 weights are not the rounded float64 weights")
	}
}

// TestRoles checks the marks that methods select parameters by.
func TestRoles(t *testing.T) {
	m := build(t, "cnn", Config{Input: []int{8, 8, 1}, Classes: 10, Norm: BatchNorm}, 1)
	for _, p := range m.Params {
		isNorm, isLast := strings.HasPrefix(p.Name, "norm"), strings.HasPrefix(p.Name, "linear")
		if p.BatchStats != isNorm || p.Head != isLast || p.Labels != isLast || p.Trained() == strings.Contains(p.Name, "running") {
			t.Errorf("%+v", p)
		}
	}
	m = build(t, "transformer", Config{Vocabulary: 9, Layers: 1}, 1)
	for _, p := range m.Params {
		last := strings.HasPrefix(p.Name, "decoder.linear2")
		if p.Head != last || p.Labels != (last || p.Name == "embedding.weight") || p.BatchStats {
			t.Errorf("%+v", p)
		}
	}
}
