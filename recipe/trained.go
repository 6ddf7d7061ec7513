package recipe

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// Trained is a trained model and all that is needed to use it.
type Trained struct {
	Card    *Card
	Weights weights.Set
	Stats   weights.Set // evaluation statistics of static batch norm layers; may be empty

	test *dataset.View // the test data of the client whose own model it is
	skew dataset.Skew  // how that client sees data
}

// TrainedInRun reads the global model of the run in dir: that of the checkpoint "final" or "best", or if there is none of that
// name, of the newest one.
func TrainedInRun(dir, which string) (*Trained, error) {
	card, err := CardOfRun(dir)
	if err != nil {
		return nil, err
	}
	t, err := simulation.Model(dir, which)
	if err != nil {
		return nil, err
	}
	card.Source.Rounds = t.Round
	m := &Trained{Card: card, Weights: t.Weights, Stats: t.Stats.Convert(weights.Float32)}
	return m, m.fits()
}

// OwnInRun reads the model that a client of the simulation in dir uses of its own, after the newest checkpoint. It needs the data
// of the run, from the folder of real data sets (it may be empty): some methods make a client's model when it is asked for.
func OwnInRun(ctx context.Context, e *train.Engine, dir, client, dataDir string) (*Trained, error) {
	r, p, bare, err := reopen(ctx, dir, dataDir)
	if err != nil {
		return nil, err
	}
	fleet := &simulation.Fleet{Split: p.Split, Dealt: p.Dealt, Engine: e, Seed: r.Seed}
	k := 0
	for k < fleet.Len() && fleet.Member(k).Name != client {
		k++
	}
	if k == fleet.Len() {
		return nil, fmt.Errorf("there is no client %q; the run has %s to %s", client, fleet.Member(0).Name, fleet.Member(k-1).Name)
	}
	s, keep, err := simulation.Personal(dir, k)
	if err != nil {
		return nil, err
	}
	card, err := CardOfRun(dir)
	if err != nil {
		return nil, err
	}
	return own(ctx, bare, fleet.Local(fleet.Member(k)), s, keep, card, r.Method)
}

// OwnTest returns how many test examples the client has whose own model m is, and false if m is nobody's own.
func (m *Trained) OwnTest() (examples int, ok bool) {
	if m.test == nil {
		return 0, false
	}
	return m.test.Len(), true
}

// EvaluateOwn measures a client's own model on the client's test data.
func (m *Trained) EvaluateOwn(ctx context.Context, e *train.Engine) (train.Metrics, error) {
	if n, ok := m.OwnTest(); !ok || n == 0 {
		return train.Metrics{}, errors.New("the client has no test data; name your own with --data-path")
	}
	return m.evaluate(ctx, e, *m.test, m.skew)
}

// ReadTrained reads a model from a safetensors file and the card beside it, which has the same name but ends in .json.
func ReadTrained(path string) (*Trained, error) {
	all, _, err := weights.ReadFile(path)
	if err != nil {
		return nil, err
	}
	card, err := ReadCard(cardBeside(path))
	if err != nil {
		return nil, fmt.Errorf("reading what %s is: %w", path, err)
	}
	spec, err := card.spec(card.Rate)
	if err != nil {
		return nil, err
	}
	stats := map[string]bool{}
	for _, name := range spec.Model.StatNames() {
		stats[name] = true
	}
	m := &Trained{Card: card, Weights: all.Filter(func(n string) bool { return !stats[n] }), Stats: all.Filter(func(n string) bool { return stats[n] })}
	if err := m.fits(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// cardBeside is the path of the card of a file of tensors.
func cardBeside(path string) string { return strings.TrimSuffix(path, filepath.Ext(path)) + ".json" }

// fits returns an error if the tensors are not those of the card's architecture.
func (m *Trained) fits() error {
	model, err := m.Card.Model(m.Card.Rate)
	if err != nil {
		return err
	}
	for _, p := range model.Params { // nothing is allocated: the card may be anybody's
		t, ok := m.Weights.Get(p.Name)
		switch {
		case !ok:
			return fmt.Errorf("tensor %s of %s is missing", p.Name, m.Card.Architecture)
		case !slices.Equal(t.Shape, p.Shape(m.Card.Rate)):
			return fmt.Errorf("tensor %s is %v, %s at rate %g has %v", p.Name, t.Shape, m.Card.Architecture, m.Card.Rate, p.Shape(m.Card.Rate))
		}
	}
	if n := m.Weights.Len(); n != len(model.Params) {
		return fmt.Errorf("%d tensors, %s has %d", n, m.Card.Architecture, len(model.Params))
	}
	if names := model.StatNames(); m.Stats.Len() != len(names) && m.Stats.Len() != 0 {
		return fmt.Errorf("%d statistics of batch norm layers, expected %d", m.Stats.Len(), len(names))
	}
	return nil
}

// WriteFile writes the model as a safetensors file with the names and layouts of PyTorch, and its card beside it. It
// returns the paths of both; the folder is made if need be.
func (m *Trained) WriteFile(path string) ([]string, error) {
	all := m.Weights.Filter(func(string) bool { return true })
	all.Merge(m.Stats)
	meta := map[string]string{"format": "pt", "architecture": m.Card.Architecture}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := weights.WriteFile(path, all, meta); err != nil {
		return nil, err
	}
	beside := cardBeside(path)
	return []string{path, beside}, m.Card.WriteFile(journal.OS(), beside)
}

// HasLevel returns an error that lists the levels if the model has none of that name.
func (m *Trained) HasLevel(level string) error {
	var names []string
	for _, l := range m.Card.Levels {
		if l.Name == level {
			return nil
		}
		names = append(names, l.Name)
	}
	if len(names) < 2 {
		return errors.New("the clients of this model have no levels")
	}
	return fmt.Errorf("there is no level %q; the levels are %s", level, strings.Join(names, ", "))
}

// Thin cuts the sub-network of a level out of a model: the leading channels of every layer. Statistics of static batch norm
// are collected anew on data, since those of the wide network are not the thin one's.
func (m *Trained) Thin(ctx context.Context, e *train.Engine, data *dataset.Examples, level string) (*Trained, error) {
	if err := m.HasLevel(level); err != nil {
		return nil, err
	}
	l, _ := findLevel(m.Card.Levels, level)
	if l.Rate == m.Card.Rate {
		return m, nil
	}
	whole, err := m.Card.Model(m.Card.Rate)
	if err != nil {
		return nil, err
	}
	card := *m.Card
	card.Rate, card.Source.Level, card.Levels = l.Rate, l.Name, []Level{l}
	thin := &Trained{Card: &card, Weights: nn.Index(whole, l.Rate, nn.Leading).Slice(m.Weights)}
	spec, err := card.spec(l.Rate)
	if err != nil {
		return nil, err
	}
	if len(spec.Model.Norms) > 0 {
		st, err := e.Statistics(ctx, spec, thin.Weights, data.All(), train.Pass{Batch: statisticsBatch, SkipSmall: true})
		if err != nil {
			return nil, fmt.Errorf("statistics of level %s: %w", level, err)
		}
		if st.Batches == 0 {
			return nil, fmt.Errorf("statistics of level %s: no batch was large enough", level)
		}
		thin.Stats = st.Mean().Convert(weights.Float32)
	}
	return thin, thin.fits()
}

// statisticsBatch is how many examples statistics are collected on at a time.
const statisticsBatch = 100

// Evaluate measures the model on labelled data; the confusion matrix of classifiers of rows is counted.
func (m *Trained) Evaluate(ctx context.Context, e *train.Engine, data *dataset.Examples) (train.Metrics, error) {
	return m.evaluate(ctx, e, data.All(), dataset.Skew{})
}

func (m *Trained) evaluate(ctx context.Context, e *train.Engine, view dataset.View, skew dataset.Skew) (train.Metrics, error) {
	data := view.Data
	spec, err := m.Card.spec(m.Card.Rate)
	if err != nil {
		return train.Metrics{}, err
	}
	if m.Card.Task == Classification && data.Labels == nil || m.Card.Task == Regression && data.Targets == nil {
		return train.Metrics{}, errors.New("the data does not say what is right: it has no labels")
	}
	return e.Evaluate(ctx, spec, m.Weights, m.Stats, view, train.EvalOptions{
		Batch: statisticsBatch, Skew: skew, Confusion: m.Card.Task == Classification,
		Random: rng.New(m.Card.Source.Seed, max(0, m.Card.Source.Rounds-1), "", "hidden")})
}

// Prediction is what a model says of one example.
type Prediction struct {
	Input       string   `json:"input"`
	Class       string   `json:"class,omitempty"`
	Probability float64  `json:"probability,omitempty"`
	Value       *float64 `json:"value,omitempty"` // of a regression
}

// Predict asks the model about examples, whose names are given.
func (m *Trained) Predict(ctx context.Context, e *train.Engine, data *dataset.Examples, names []string) ([]Prediction, error) {
	spec, err := m.Card.spec(m.Card.Rate)
	if err != nil {
		return nil, err
	}
	z, err := e.Predict(ctx, spec, m.Weights, m.Stats, data.All(), train.EvalOptions{Batch: statisticsBatch})
	if err != nil {
		return nil, err
	}
	outputs := z.Len() / len(names)
	out := make([]Prediction, len(names))
	for i, name := range names {
		out[i].Input = name
		if m.Card.Task == Regression {
			v := z.At(i * outputs)
			out[i].Value = &v
			continue
		}
		best, total := 0, 0.0
		for c := range outputs {
			if z.At(i*outputs+c) > z.At(i*outputs+best) {
				best = c
			}
		}
		top := z.At(i*outputs + best)
		for c := range outputs {
			total += math.Exp(z.At(i*outputs+c) - top)
		}
		out[i].Class, out[i].Probability = m.Card.ClassName(best), 1/total
	}
	return out, nil
}

// ClassName returns the name of an output of a classifier.
func (c *Card) ClassName(i int) string {
	if i < len(c.Classes) {
		return c.Classes[i]
	}
	return fmt.Sprint(i)
}

// Data loads the data that the model was trained and tested on, from a folder of real data sets (it may be empty).
func (c *Card) Data(ctx context.Context, dataDir string) (*dataset.Split, error) {
	spec := c.Source.Data
	spec.Root = dataDir
	return load(ctx, spec)
}
