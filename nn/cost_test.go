package nn

import (
	"math"
	"testing"
)

var levels = []float64{1, 0.5, 0.25, 0.125, 0.0625}

// TestCostTable checks the counts behind the tables of the HeteroFL paper (CNN on 28×28×1, ResNet on 32×32×3, Transformer
// with a vocabulary of 33,278) at levels a to e, and those of SemiFL's WRN-28-2 and WRN-28-8.
func TestCostTable(t *testing.T) {
	type row struct{ params, flops, macs int64 } // -1: not stated
	for _, c := range []struct {
		name   string
		config Config
		rows   []row
	}{
		{"cnn", Config{Input: []int{28, 28, 1}, Classes: 10}, []row{
			{1556874, 80504320, 39974912}, {391370, 20493056, 10107904}, {98922, 5306752, 2584064},
			{25274, 1418432, 674560}, {6594, 400480, 182912}}},
		{"resnet", Config{Input: []int{32, 32, 3}, Classes: 10, Blocks: []int{1, 1, 1, 2}}, []row{
			{9622090, 330246144, 328930304}, {2408746, 83334144, 82676224}, {603802, 21219840, 20890880},
			{151762, 5498112, 5333632}, {38350, 1471104, 1388864}}},
		{"resnet", Config{Input: []int{32, 32, 3}, Classes: 10}, []row{
			{11172170, 557656064, -1}, {-1, -1, -1}, {-1, -1, -1}, {-1, -1, -1}, {44510, 2413184, -1}}},
		{"wresnet", Config{Input: []int{32, 32, 3}, Classes: 10}, []row{{1467610, -1, 214353152}}},
		{"wresnet", Config{Input: []int{32, 32, 3}, Classes: 100, Widen: 8}, []row{{23401012, -1, 3360131072}}},
		{"transformer", Config{Vocabulary: 33278}, []row{
			{19263486, -1, -1}, {9107710, -1, -1}, {4435326, -1, -1}, {2200510, -1, -1}, {1108446, -1, -1}}},
	} {
		for i, want := range c.rows {
			got := build(t, c.name, c.config, levels[i]).Cost()
			check := func(what string, got, want int64) {
				if want >= 0 && got != want {
					t.Errorf("%s %v at rate %v: %d %s, want %d", c.name, c.config.Blocks, levels[i], got, what, want)
				}
			}
			check("parameters", got.Params, want.params)
			check("FLOPs", got.FLOPs, want.flops)
			check("MACs", got.MACs, want.macs)
			check("bytes", got.Bytes, 4*got.Params)
		}
	}
	if mib := build(t, "resnet", Config{Input: []int{32, 32, 3}, Classes: 10, Blocks: []int{1, 1, 1, 2}}, 1).Cost().MiB(); math.Abs(mib-36.71) > 0.01 {
		t.Errorf("ResNet of the paper takes %.2f MiB, published 36.71", mib)
	}
	// The number of parameters that the FedAvg paper states for its convolutional network.
	if n := build(t, "lenet", Config{Input: []int{28, 28, 1}, Classes: 10}, 1).Cost().Params; n != 1663370 {
		t.Errorf("lenet has %d parameters, published 1,663,370", n)
	}
}

func TestMixtureRatio(t *testing.T) {
	b, err := New("resnet", Config{Input: []int{32, 32, 3}, Classes: 10, Blocks: []int{1, 1, 1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		rates []float64
		want  float64
	}{
		{[]float64{1, 0.0625}, .501993},
		{levels, .266569},
		{[]float64{0.5, 0.0625}, .507961},
		{levels[1:], .332399},
		{[]float64{0.25, 0.0625}, .531757},
		{levels[2:], .438286},
		{[]float64{0.125, 0.0625}, .626349},
	} {
		got, err := MixtureRatio(b, c.rates, nil)
		if err != nil || math.Abs(got-c.want) > 5e-7 {
			t.Errorf("rates %v: ratio %.6f (%v), want %.6f", c.rates, got, err, c.want)
		}
	}
	if got, err := MixtureRatio(b, []float64{1, 0.5}, []float64{1, 0}); err != nil || got != 1 {
		t.Errorf("a mixture of one level only: ratio %v (%v), want 1", got, err)
	}
	if _, err := MixtureRatio(b, []float64{1}, []float64{1, 2}); err == nil {
		t.Error("more shares than rates: no error")
	}
}
