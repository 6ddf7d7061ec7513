package learner

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
)

// Spec names a learner and its options, in YAML and JSON; the zero options are good defaults. Options that are left out
// take the default that their description names; an option that the learner does not have is an error.
type Spec struct {
	Name string `yaml:"name" json:"name" doc:"Which learner: see the list of learners."`

	Lambda      *float64 `yaml:"lambda,omitempty" json:"lambda,omitempty" for:"ridge logistic" doc:"Penalty on squared coefficients of standardised features, in rows: 1 by default."`
	NoIntercept bool     `yaml:"no_intercept,omitempty" json:"no_intercept,omitempty" for:"linear ridge" doc:"Fit no intercept, and do not centre the features."`
	Value       *float64 `yaml:"value,omitempty" json:"value,omitempty" for:"constant" doc:"What to predict, instead of the mean of the targets."`

	Power    *float64 `yaml:"power,omitempty" json:"power,omitempty" for:"linear-sgd mlp cnn lstm" doc:"q of the loss |y − f|^q, 1 or more: 2 by default."`
	Rate     *float64 `yaml:"rate,omitempty" json:"rate,omitempty" for:"linear-sgd boosted mlp cnn lstm" doc:"Learning rate: 0.1 by default, of mlp and lstm 0.001."`
	Momentum *float64 `yaml:"momentum,omitempty" json:"momentum,omitempty" for:"linear-sgd cnn" doc:"Momentum of the steps, in [0, 1): 0.9 by default."`
	Decay    *float64 `yaml:"decay,omitempty" json:"decay,omitempty" for:"linear-sgd mlp cnn lstm" doc:"Weight decay: 0.0005 by default, of mlp 0."`
	Batch    int      `yaml:"batch,omitempty" json:"batch,omitempty" for:"linear-sgd mlp cnn lstm" doc:"Rows of a step: 1024 by default, of mlp 32, of cnn 512, of lstm 8."`
	Epochs   int      `yaml:"epochs,omitempty" json:"epochs,omitempty" for:"linear-sgd mlp cnn lstm" doc:"Passes over the rows: 100 by default, of cnn and lstm 10."`

	Depth     int      `yaml:"depth,omitempty" json:"depth,omitempty" for:"tree boosted forest" doc:"Splits on the longest path of a tree, at most 64: 3 by default, of forests 64."`
	Leaf      int      `yaml:"leaf,omitempty" json:"leaf,omitempty" for:"tree boosted forest" doc:"Rows of a leaf, at least: 1 by default, of forests a 20th of the rows but at most 20."`
	Bins      int      `yaml:"bins,omitempty" json:"bins,omitempty" for:"tree boosted forest" doc:"Intervals that a column is divided into, if it has more distinct values: 255 by default, of tree 65534."`
	Features  *float64 `yaml:"features,omitempty" json:"features,omitempty" for:"tree boosted forest" doc:"Part of the columns that is drawn at every split, in (0, 1]: 1 by default, of forests that fit classes the root of their number."`
	Trees     int      `yaml:"trees,omitempty" json:"trees,omitempty" for:"boosted forest" doc:"How many trees: 100 by default."`
	Subsample *float64 `yaml:"subsample,omitempty" json:"subsample,omitempty" for:"boosted" doc:"Part of the rows that is drawn for every tree, in (0, 1]: 1 by default."`

	C          *float64 `yaml:"c,omitempty" json:"c,omitempty" for:"svr" doc:"Bound of a row's coefficient: 1 by default."`
	Epsilon    *float64 `yaml:"epsilon,omitempty" json:"epsilon,omitempty" for:"svr" doc:"Errors up to here cost nothing: 0.1 by default."`
	Gamma      *float64 `yaml:"gamma,omitempty" json:"gamma,omitempty" for:"svr" doc:"Of the kernel exp(−gamma‖z − z'‖²): 1/(columns · variance of the features) by default."`
	Neighbours int      `yaml:"neighbours,omitempty" json:"neighbours,omitempty" for:"knn" doc:"How many of the nearest rows: 5 by default."`
	Distances  bool     `yaml:"distances,omitempty" json:"distances,omitempty" for:"knn" doc:"Neighbours weigh by 1/distance; rows that were fitted then predict their own target."`

	Hidden []int `yaml:"hidden,omitempty" json:"hidden,omitempty" for:"mlp cnn lstm" doc:"Widths: hidden layers of mlp (64 by default), channels of cnn (64, 128, 256, 512), the state of lstm (128)."`
	Shape  []int `yaml:"shape,omitempty" json:"shape,omitempty" for:"cnn lstm" doc:"How the columns make an example: height, width and channels of an image, steps and features of a sequence; the last one runs fastest."`

	Dropout   *float64 `yaml:"dropout,omitempty" json:"dropout,omitempty" for:"lstm" doc:"Part of the state that is dropped in training, in [0, 1): 0 by default, 0.3 in the GAL paper."`
	EachStep  bool     `yaml:"each_step,omitempty" json:"each_step,omitempty" for:"lstm" doc:"Answer in every step: the outputs are dealt to the steps, in order, as many to each. Otherwise all are read after the last."`
	Codes     int      `yaml:"codes,omitempty" json:"codes,omitempty" for:"lstm" doc:"The last feature of a step is one of so many codes, counted from 0, which are looked up in an embedding; 0: it is a number."`
	Embedding int      `yaml:"embedding,omitempty" json:"embedding,omitempty" for:"lstm" doc:"Width of that embedding: 64 by default."`

	Among []string `yaml:"among,omitempty" json:"among,omitempty" for:"choose" doc:"Names of learners, which have their defaults: linear, forest and boosted by default."`
}

// makers are the learners by name.
var makers = map[string]func(Spec) (Learner, error){
	"boosted":    newBoosted,
	"cnn":        newCNN,
	"constant":   newConstant,
	"forest":     newForest,
	"knn":        newKNN,
	"linear":     newLinear,
	"linear-sgd": newDescent,
	"logistic":   newLogistic,
	"lstm":       newLSTMs,
	"mlp":        newMLP,
	"ridge":      newRidge,
	"svr":        newSVR,
	"tree":       newTree,
}

// Names returns the names of the learners, sorted.
func Names() []string {
	names := append(slices.Collect(maps.Keys(makers)), "choose")
	slices.Sort(names)
	return names
}

// New returns the learner, or an error that names the option that cannot be:
//
//   - boosted: gradient boosted trees, one ensemble an output
//   - choose: of several learners the one that predicts best, in every fit anew
//   - cnn: a convolutional network with batch norm, on images
//   - constant: the mean of the targets
//   - forest: the mean of trees on bootstrap samples
//   - knn: the mean of the nearest rows
//   - linear: ordinary least squares
//   - linear-sgd: an affine model by stochastic gradient descent on a power of the error
//   - logistic: multinomial logistic regression, for classes only
//   - lstm: long short-term memory, on sequences
//   - mlp: a network of dense layers
//   - ridge: least squares with a penalty on the coefficients
//   - svr: support vector regression with a Gaussian kernel
//   - tree: one regression tree
func (s Spec) New() (Learner, error) {
	maker, ok := makers[s.Name]
	if s.Name == "choose" { // not among makers, since it makes others
		maker, ok = newChoice, true
	}
	if !ok {
		return nil, fmt.Errorf("unknown learner %q: expected one of %s", s.Name, strings.Join(Names(), ", "))
	}
	if err := s.checkOptions(); err != nil {
		return nil, fmt.Errorf("learner %s: %w", s.Name, err)
	}
	l, err := maker(s)
	if err != nil {
		return nil, fmt.Errorf("learner %s: %w", s.Name, err)
	}
	return l, nil
}

// checkOptions refuses options of other learners and numbers that are not finite.
func (s Spec) checkOptions() error {
	v := reflect.ValueOf(s)
	for i := range v.NumField() {
		field, value := v.Type().Field(i), v.Field(i)
		users, option := field.Tag.Lookup("for")
		if !option || value.IsZero() {
			continue
		}
		name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if !slices.Contains(strings.Fields(users), s.Name) {
			return fmt.Errorf("it has no option %s, which is for %s", name, strings.ReplaceAll(users, " ", ", "))
		}
		if value.Kind() == reflect.Pointer {
			value = value.Elem()
		}
		if value.CanFloat() && (math.IsNaN(value.Float()) || math.IsInf(value.Float(), 0)) {
			return fmt.Errorf("%s: %v, expected a finite number", name, value.Float())
		}
	}
	return nil
}

// or returns *v, or the default if there is none.
func or[T any](v *T, def T) T {
	if v == nil {
		return def
	}
	return *v
}
