package nn

import (
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

func TestWrongConfigs(t *testing.T) {
	image := []int{28, 28, 1}
	for _, c := range []struct {
		name   string
		config Config
		rate   float64
		want   string // every word must be in the error
	}{
		{"vgg", Config{}, 1, `"vgg" cnn lenet linear mlp resnet transformer wresnet`},
		{"cnn", Config{Input: image}, 1, "cnn classes 0 at least 2"},
		{"cnn", Config{Input: []int{784}, Classes: 10}, 1, "input [784] [height, width, channels]"},
		{"mlp", Config{Input: []int{28, 28}, Classes: 10}, 1, "input [28 28] [features]"},
		{"cnn", Config{Input: []int{28, 0, 1}, Classes: 10}, 1, "input [28 0 1] at least 1"},
		{"cnn", Config{Input: image, Classes: 10, Hidden: []int{3}}, 1, "hidden not used widths"},
		{"cnn", Config{Input: image, Classes: 10, Norm: "batch"}, 1, `norm "batch" sbn`},
		{"cnn", Config{Input: image, Classes: 10, Activation: "swish"}, 1, `activation "swish" gelu relu`},
		{"cnn", Config{Input: []int{4, 4, 1}, Classes: 10}, 1, "pool3 1×1"},
		{"cnn", Config{Input: image, Classes: 10}, 0, "rate 0 (0, 1]"},
		{"cnn", Config{Input: image, Classes: 10}, 1.5, "rate 1.5 (0, 1]"},
		{"cnn", Config{Input: image, Classes: 10, Widths: []int{16, 32, 64, 128}, Norm: GroupNorm}, 0.0625, "rate 0.0625 norm1 multiple of 4 has 1"},
		{"cnn", Config{Input: []int{8, 8, 1}, Classes: 10, Norm: InstanceNorm}, 1, "norm4 single value 1×1"},
		{"resnet", Config{Input: image, Classes: 10, Blocks: []int{1, 2}}, 1, "2 stages [1 2] 4 widths"},
		{"wresnet", Config{Input: []int{32, 32, 3}, Classes: 10, Depth: 9}, 1, "depth 9 3 stages 32×32 at least 10"},
		{"wresnet", Config{Input: []int{32, 32, 3}, Classes: 10, Widen: -1}, 1, "widen -1 at least 1"},
		{"wresnet", Config{Input: []int{32, 32, 3}, Classes: 10, Widths: []int{4}}, 1, "widths not used depth widen"},
		{"transformer", Config{Vocabulary: 10, Classes: 4}, 1, "classes 4 vocabulary"},
		{"transformer", Config{}, 1, "vocabulary 0"},
		{"transformer", Config{Vocabulary: 10, Heads: 7}, 1, "256 multiple of 7 heads"},
		{"transformer", Config{Vocabulary: 10, Dropout: new(1.0)}, 1, "dropout 1 [0, 1)"},
		{"transformer", Config{Vocabulary: 10, Layers: -1}, 1, "layers -1"},
		// Width 16 at rate 1/16 is 1, which 4 heads cannot share.
		{"transformer", Config{Vocabulary: 10, Embedding: 16, Heads: 4}, 0.0625, "rate 0.0625 width 1 multiple of 4 heads"},
	} {
		b, err := New(c.name, c.config)
		if err == nil {
			_, err = b(c.rate)
		}
		if err == nil {
			t.Errorf("%s %+v at rate %v: no error, want one with %s", c.name, c.config, c.rate, c.want)
			continue
		}
		for _, word := range strings.Fields(c.want) {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s %+v at rate %v: error %q does not say %q", c.name, c.config, c.rate, err, word)
			}
		}
	}
}

func TestConfigFromYAML(t *testing.T) {
	var c Config
	if err := yaml.Unmarshal([]byte("vocabulary: 20\nfeed_forward: 32\nembedding: 16\nheads: 2\ndropout: 0\n"), &c); err != nil {
		t.Fatal(err)
	}
	m := build(t, "transformer", c, 0.5)
	if len(m.Noise) != 0 {
		t.Errorf("dropout 0 still wants the masks %v", m.Noise)
	}
	if err := c.Validate("transformer"); err != nil {
		t.Error(err)
	}
	if p, _ := m.Param("layers.3.linear1.weight"); p.Shape(0.5)[0] != 16 || p.Shape(0.5)[1] != 8 {
		t.Errorf("layers.3.linear1.weight is %v at rate 1/2", p.Shape(0.5))
	}
}

// TestShortSequences checks that the transformer takes less than its longest sequence, with masks cut to length.
func TestShortSequences(t *testing.T) {
	m := build(t, "transformer", Config{Vocabulary: 6, Tokens: 5, Embedding: 8, Heads: 2, FeedForward: 6, Layers: 1}, 1)
	jb := jobFor(m, 1, 3, 2)
	jb.x.Shape, jb.x.F64 = []int{2, 3}, jb.x.F64[:6]
	jb.cotan.Shape, jb.cotan.F64 = []int{2, 3, 6}, jb.cotan.F64[:36]
	jb.train = true
	checkGradient(t, jb)
	jb.x.Shape, jb.x.F64 = []int{1, 6}, jb.x.F64[:6]
	if !panics(func() { jb.compile() }) {
		t.Error("a sequence that is too long is accepted")
	}
}
