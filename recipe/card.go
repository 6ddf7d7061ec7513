package recipe

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/train"
	"github.com/goccy/go-yaml"
)

// CardVersion is the version of the format of a [Card].
const CardVersion = 1

// The tasks of a [Card].
const (
	Classification = "classification"
	Regression     = "regression"
	Recommendation = "recommendation"        // score items for a user from what the user has rated
	MaskedLanguage = "masked language model" // predict every token of a row of which some are hidden
)

// Card describes a trained model so that a stranger can use its tensors: it lies beside an exported model, and in the
// folder of every run. Its JSON is the format.
type Card struct {
	Schema       int             `json:"schema"`
	Architecture string          `json:"architecture"` // as [nn.New] calls it
	Config       json.RawMessage `json:"config"`       // its fields as in a recipe, at rate 1
	Rate         float64         `json:"rate"`         // part of the hidden width that the tensors have
	Task         string          `json:"task"`
	Classes      []string        `json:"classes,omitempty"` // names by output, of a classifier
	Input        Input           `json:"input"`
	Levels       []Level         `json:"levels,omitempty"` // sizes that can be cut out of the tensors; the first is the whole
	Source       Source          `json:"source"`
}

// Input says what a model takes: x as stored, then (x − mean)/std for every channel or feature, where images have been
// divided by 255. Images are [height, width, channels] here and [channels, height, width] in PyTorch.
type Input struct {
	Kind    string            `json:"kind"` // "image", "features", "tokens", "ratings": a rating of each item, 0 where there is none, or "factors": of a user
	Shape   []int             `json:"shape"`
	Bytes   bool              `json:"bytes,omitempty"` // pixels are 0 to 255 and are divided by 255 first
	Mean    []float32         `json:"mean,omitempty"`
	Std     []float32         `json:"std,omitempty"`
	Columns *dataset.Encoding `json:"columns,omitempty"` // how the columns of a table become features
}

// Source says where a model comes from.
type Source struct {
	Method   string       `json:"method"`
	Data     dataset.Spec `json:"data"`
	Clients  int          `json:"clients"`
	Examples int          `json:"examples"` // of the training data, all clients together
	Seed     uint64       `json:"seed"`
	Run      string       `json:"run,omitempty"`
	Rounds   int          `json:"rounds,omitempty"` // that the tensors have been trained for
	Level    string       `json:"level,omitempty"`
	Client   string       `json:"client,omitempty"` // whose own model it is; empty: the global one
}

// Card describes the global model of the plan.
func (p *Plan) Card() (*Card, error) {
	levels, err := p.Levels()
	if err != nil {
		return nil, err
	}
	return p.Recipe.card(p.Split.Train, levels, p.Dealt.Train.Clients(), p.Split.Train.Len())
}

// card describes a global model trained by so many clients, with so many examples together, that are like data.
func (r *Recipe) card(data *dataset.Examples, levels []Level, clients, examples int) (*Card, error) {
	c, err := r.config(data)
	if err != nil {
		return nil, err
	}
	text, err := yaml.MarshalWithOptions(c, yaml.JSON())
	if err != nil {
		return nil, fmt.Errorf("writing the architecture: %w", err)
	}
	card := &Card{
		Schema: CardVersion, Architecture: r.Model.Name, Config: text, Rate: levels[0].Rate, Levels: levels,
		Task:   Classification,
		Input:  Input{Kind: "features", Shape: data.Shape, Bytes: data.U8 != nil, Mean: data.Mean, Std: data.Std, Columns: data.Encoding},
		Source: Source{Method: r.Method, Data: r.spec(""), Clients: clients, Examples: examples, Seed: r.Seed, Run: r.Name},
	}
	switch {
	case data.Rated():
		card.Task, card.Input.Kind, card.Input.Shape = Recommendation, "ratings", c.Input
		if _, ok := r.Options.(interface{ Factors() int }); ok {
			card.Input.Kind = "factors"
		}
	case data.Tok != nil:
		card.Task, card.Input.Kind = MaskedLanguage, "tokens"
	case data.Labels == nil:
		card.Task = Regression
	default:
		card.Classes = data.Classes
	}
	if len(data.Shape) == 3 {
		card.Input.Kind = "image"
	}
	return card, nil
}

// ReadCard reads a card from a file.
func ReadCard(path string) (*Card, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c := new(Card)
	if err := json.Unmarshal(text, c); err != nil {
		return nil, fmt.Errorf("%s: not the description of a model: %w", path, err)
	}
	if c.Schema != CardVersion {
		return nil, fmt.Errorf("%s: schema %d is unknown; this program reads schema %d", path, c.Schema, CardVersion)
	}
	if _, err := c.Model(c.Rate); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// WriteFile replaces the file at path by the card.
func (c *Card) WriteFile(fsys journal.FS, path string) error {
	return journal.WriteFile(fsys, path, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(c)
	})
}

// Model builds the architecture at a rate.
func (c *Card) Model(rate float64) (*nn.Model, error) {
	var config nn.Config
	if err := yaml.Unmarshal(c.Config, &config); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	build, err := nn.New(c.Architecture, config)
	if err != nil {
		return nil, err
	}
	if !(rate > 0 && rate <= 1) {
		return nil, fmt.Errorf("rate %g is outside (0, 1]", rate)
	}
	m, err := build(rate)
	if err != nil {
		return nil, err
	}
	if c.Classes != nil && len(c.Classes) > m.Classes {
		return nil, fmt.Errorf("%d classes have names, the model has %d outputs", len(c.Classes), m.Classes)
	}
	return m, nil
}

// spec is the training step of the model, for statistics and evaluation.
func (c *Card) spec(rate float64) (*train.Spec, error) {
	m, err := c.Model(rate)
	if err != nil {
		return nil, err
	}
	s := &train.Spec{Model: m}
	switch c.Task {
	case Classification:
	case Regression:
		s.Loss = train.MeanSquares
	case Recommendation:
		return nil, errors.New("a recommender answers to cohort recommend")
	case MaskedLanguage:
		s.Target = train.FromInput
		s.Hide = hide(m.Classes)
	default:
		return nil, errors.New("the task " + c.Task + " is unknown")
	}
	return s, s.Validate()
}

// CardOfRun reads the card of the run in dir.
func CardOfRun(dir string) (*Card, error) { return ReadCard(filepath.Join(dir, CardName)) }
