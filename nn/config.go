package nn

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Config describes an architecture at rate 1. Fields that an architecture does not use must be left at zero; zero fields
// that it uses take the defaults named here.
type Config struct {
	// Input is the shape of one example: [height, width, channels] of an image, [features], or [steps, features] of a sequence for
	// lstm. Linear and mlp take the first two. The transformer leaves it empty and takes Tokens.
	Input []int `yaml:"input,omitempty"`
	// Classes is the number of labels, at least 2, or 1 to predict a number. The transformer leaves it at 0 and takes Vocabulary.
	Classes int `yaml:"classes,omitempty"`

	// Widths are the channels of the convolutions (cnn and galcnn: one each, default 64, 128, 256, 512; lenet: two, default 32, 64) or
	// of the stages of resnet (one each, default 64, 128, 256, 512).
	Widths []int `yaml:"widths,omitempty"`
	// Hidden are the widths of the hidden linear layers: mlp default 200, 200; lenet default 512; ars, up to the code, 256, 128. Of lstm it is
	// the width of the state, 128 by default.
	Hidden []int `yaml:"hidden,omitempty"`
	// Blocks are the residual blocks of each stage of resnet: 2, 2, 2, 2 by default, which is ResNet-18; the tables of the
	// HeteroFL paper use 1, 1, 1, 2.
	Blocks []int `yaml:"blocks,omitempty"`
	// Bottleneck makes resnet's blocks of three convolutions (1×1, 3×3, 1×1) whose output is 4 times as wide.
	Bottleneck bool `yaml:"bottleneck,omitempty"`
	// Depth is the number of convolutions and linear layers of wresnet along one path, 28 by default; together with the size of the
	// images it says how many blocks there are.
	Depth int `yaml:"depth,omitempty"`
	// Widen multiplies the channels of wresnet, 16, 32, 64 …: 2 by default, which is WRN-28-2.
	Widen int `yaml:"widen,omitempty"`
	// Norm is the kind of norm layers. Cnn, resnet and wresnet: sbn by default, galcnn: bn. Mlp and lenet: none by default. The transformer always
	// has layer norm, ars by default.
	Norm NormKind `yaml:"norm,omitempty"`
	// Activation of mlp, lenet, cnn and galcnn: relu (default), gelu, tanh or sigmoid.
	Activation string `yaml:"activation,omitempty"`

	// Vocabulary is the number of tokens of the transformer. Its embedding has one more row, for the mask. Of lstm it is the number of
	// codes that the last feature of a step may be; 0: that is a number as the others.
	Vocabulary int `yaml:"vocabulary,omitempty"`
	// Tokens is the longest sequence of the transformer, 64 by default. Shorter ones are accepted.
	Tokens int `yaml:"tokens,omitempty"`
	// Embedding is the width of the transformer, 256 by default, and that of lstm's codes, 64.
	Embedding int `yaml:"embedding,omitempty"`
	// Heads is the number of attention heads at every rate, 8 by default.
	Heads int `yaml:"heads,omitempty"`
	// FeedForward is the width between the two linear layers of a transformer layer, 512 by default.
	FeedForward int `yaml:"feed_forward,omitempty"`
	// Layers is the number of transformer layers, 4 by default.
	Layers int `yaml:"layers,omitempty"`
	// Dropout is the probability with which the transformer drops an activation in training, ars an element of the code, and lstm one
	// of the state that "linear" sees, 0 ≤ p < 1; nil is 0.2, of ars 0.5, of lstm 0.3.
	Dropout *float64 `yaml:"dropout,omitempty"`
	// EachStep makes lstm answer in every step instead of after the last.
	EachStep bool `yaml:"each_step,omitempty"`
}

// Builder makes an architecture at a rate in (0, 1]. It returns an error that names layer, rate and width if the
// architecture cannot be that thin.
type Builder func(rate float64) (*Model, error)

type architecture struct {
	defaults Config   // for the fields that it uses
	uses     []string // fields of Config beyond input and classes
	build    func(c Config, rate float64) (*Model, error)
}

var architectures = map[string]architecture{
	"ars": {
		defaults: Config{Hidden: []int{256, 128}, Norm: LayerNorm, Activation: "tanh", Dropout: new(0.5)},
		uses:     []string{"hidden", "norm", "dropout"}, build: buildARS,
	},
	"galcnn": {
		defaults: Config{Widths: []int{64, 128, 256, 512}, Norm: BatchNorm, Activation: "relu"},
		uses:     []string{"widths", "norm", "activation"}, build: buildGALCNN,
	},
	"linear":   {build: buildLinear},
	"location": {build: buildLocation},
	"lstm": {
		defaults: Config{Hidden: []int{128}, Embedding: 64, Dropout: new(0.3)},
		uses:     []string{"hidden", "dropout", "vocabulary", "embedding", "each_step"}, build: buildLSTM,
	},
	"mlp": {
		defaults: Config{Hidden: []int{200, 200}, Norm: NoNorm, Activation: "relu"},
		uses:     []string{"hidden", "norm", "activation"}, build: buildMLP,
	},
	"lenet": {
		defaults: Config{Widths: []int{32, 64}, Hidden: []int{512}, Norm: NoNorm, Activation: "relu"},
		uses:     []string{"widths", "hidden", "norm", "activation"}, build: buildLeNet,
	},
	"cnn": {
		defaults: Config{Widths: []int{64, 128, 256, 512}, Norm: StaticBatchNorm, Activation: "relu"},
		uses:     []string{"widths", "norm", "activation"}, build: buildCNN,
	},
	"resnet": {
		defaults: Config{Widths: []int{64, 128, 256, 512}, Blocks: []int{2, 2, 2, 2}, Norm: StaticBatchNorm},
		uses:     []string{"widths", "blocks", "bottleneck", "norm"}, build: buildResNet,
	},
	"wresnet": {
		defaults: Config{Depth: 28, Widen: 2, Norm: StaticBatchNorm},
		uses:     []string{"depth", "widen", "norm"}, build: buildWideResNet,
	},
	"transformer": {
		defaults: Config{Tokens: 64, Embedding: 256, Heads: 8, FeedForward: 512, Layers: 4, Dropout: new(0.2)},
		uses:     []string{"vocabulary", "tokens", "embedding", "heads", "feed_forward", "layers", "dropout"}, build: buildTransformer,
	},
}

// Names returns the names of the architectures that [New] knows, sorted.
func Names() []string { return slices.Sorted(maps.Keys(architectures)) }

// New returns the builder of a named architecture:
//
//   - linear: softmax regression
//   - location: one vector, the mean of rows without labels
//   - mlp: hidden linear layers with activations
//   - lenet: the convolutional network of the FedAvg paper (arXiv 1602.05629, section 3)
//   - cnn: the convolutional network of HeteroFL (arXiv 2010.01264)
//   - galcnn: that of GAL (arXiv 2106.01425), which starts otherwise
//   - lstm: long short-term memory over the steps of sequences
//   - resnet: residual network with pre-activation blocks (arXiv 1603.05027)
//   - wresnet: wide residual network (arXiv 1605.07146)
//   - transformer: HeteroFL's masked language model
//   - ars: the auto-encoder recommender of PersonalFR (arXiv 2212.08779)
//
// It returns an error if the name is unknown, a field is wrong or unused, or the model cannot be built at rate 1.
func New(name string, c Config) (Builder, error) {
	a, ok := architectures[name]
	if !ok {
		return nil, fmt.Errorf("unknown model %q: expected one of %s", name, strings.Join(Names(), ", "))
	}
	if err := c.validate(name, a); err != nil {
		return nil, fmt.Errorf("model %s: %w", name, err)
	}
	c = c.merged(a.defaults)
	build := func(rate float64) (*Model, error) {
		if !(rate > 0 && rate <= 1) {
			return nil, fmt.Errorf("model %s at rate %v: a rate lies in (0, 1]", name, rate)
		}
		return a.build(c, rate)
	}
	if _, err := build(1); err != nil {
		return nil, err
	}
	return build, nil
}

// Validate returns the error that [New] would return for c, or nil.
func (c Config) Validate(name string) error {
	_, err := New(name, c)
	return err
}

// merged returns c with its zero fields taken from d.
func (c Config) merged(d Config) Config {
	list := func(v *[]int, def []int) {
		if len(*v) == 0 {
			*v = def
		}
		*v = slices.Clone(*v)
	}
	number := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	list(&c.Input, nil)
	list(&c.Widths, d.Widths)
	list(&c.Hidden, d.Hidden)
	list(&c.Blocks, d.Blocks)
	number(&c.Depth, d.Depth)
	number(&c.Widen, d.Widen)
	number(&c.Tokens, d.Tokens)
	number(&c.Embedding, d.Embedding)
	number(&c.Heads, d.Heads)
	number(&c.FeedForward, d.FeedForward)
	number(&c.Layers, d.Layers)
	if c.Norm == "" {
		c.Norm = d.Norm
	}
	if c.Activation == "" {
		c.Activation = d.Activation
	}
	if c.Dropout == nil {
		c.Dropout = d.Dropout
	}
	return c
}

// validate checks what can be said of c without building it.
func (c Config) validate(name string, a architecture) error {
	given := []struct {
		field string
		set   bool
	}{
		{"widths", len(c.Widths) > 0}, {"hidden", len(c.Hidden) > 0}, {"blocks", len(c.Blocks) > 0},
		{"bottleneck", c.Bottleneck}, {"depth", c.Depth != 0}, {"widen", c.Widen != 0},
		{"norm", c.Norm != ""}, {"activation", c.Activation != ""},
		{"vocabulary", c.Vocabulary != 0}, {"tokens", c.Tokens != 0}, {"embedding", c.Embedding != 0},
		{"heads", c.Heads != 0}, {"feed_forward", c.FeedForward != 0}, {"layers", c.Layers != 0},
		{"dropout", c.Dropout != nil}, {"each_step", c.EachStep},
	}
	for _, g := range given {
		if g.set && !slices.Contains(a.uses, g.field) {
			return fmt.Errorf("%s is set but not used; it uses %s", g.field, strings.Join(a.uses, ", "))
		}
	}
	for field, list := range map[string][]int{"input": c.Input, "widths": c.Widths, "hidden": c.Hidden, "blocks": c.Blocks} {
		for _, v := range list {
			if v < 1 {
				return fmt.Errorf("%s %v: every number must be at least 1", field, list)
			}
		}
	}
	for field, v := range map[string]int{"depth": c.Depth, "widen": c.Widen, "tokens": c.Tokens, "embedding": c.Embedding, "heads": c.Heads,
		"feed_forward": c.FeedForward, "layers": c.Layers} {
		if v < 0 {
			return fmt.Errorf("%s %d: must be at least 1", field, v)
		}
	}
	if c.Norm != "" && !slices.Contains(normKinds, c.Norm) {
		return fmt.Errorf("norm %q: expected one of %v", c.Norm, normKinds)
	}
	if _, ok := activations[c.Activation]; !ok && c.Activation != "" {
		return fmt.Errorf("activation %q: expected one of %v", c.Activation, slices.Sorted(maps.Keys(activations)))
	}
	if c.Dropout != nil && !(*c.Dropout >= 0 && *c.Dropout < 1) {
		return fmt.Errorf("dropout %v: a probability in [0, 1)", *c.Dropout)
	}
	if name == "transformer" {
		return c.validateTransformer()
	}
	if name == "location" {
		return c.validateLocation()
	}
	if name == "lstm" {
		if err := c.validateLSTM(); err != nil {
			return err
		}
	}
	if c.Classes < 1 {
		return fmt.Errorf("classes %d: need at least 2 for labels, or 1 to predict a number", c.Classes)
	}
	switch {
	case name == "ars" && c.Norm != "" && c.Norm != LayerNorm && c.Norm != NoNorm:
		return fmt.Errorf("norm %q: expected %s or %s", c.Norm, LayerNorm, NoNorm)
	case name == "ars" && len(c.Input) == 1:
	case name == "ars":
		return fmt.Errorf("input %v: expected [items]", c.Input)
	case name == "lstm":
	case len(c.Input) == 3, len(c.Input) == 1 && (name == "linear" || name == "mlp"):
	case name == "linear" || name == "mlp":
		return fmt.Errorf("input %v: expected [features] or [height, width, channels]", c.Input)
	default:
		return fmt.Errorf("input %v: expected [height, width, channels]", c.Input)
	}
	return nil
}

func (c Config) validateLocation() error {
	if len(c.Input) != 1 || c.Classes != 0 {
		return fmt.Errorf("input %v and classes %d: it takes [features], and its output is as long", c.Input, c.Classes)
	}
	return nil
}

func (c Config) validateTransformer() error {
	if len(c.Input) != 0 || c.Classes != 0 {
		return fmt.Errorf("input %v and classes %d: it takes tokens and vocabulary instead", c.Input, c.Classes)
	}
	if c.Vocabulary < 2 {
		return fmt.Errorf("vocabulary %d: a language model needs at least 2 tokens", c.Vocabulary)
	}
	return nil
}
