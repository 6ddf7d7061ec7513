package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/train"
	"github.com/spf13/cobra"
)

type evaluateCommand struct {
	modelOptions
	path string
}

func newEvaluate(io streams, _ <-chan struct{}) *cobra.Command {
	var o evaluateCommand
	c := &cobra.Command{
		Use:   "evaluate RUN | FILE.safetensors | --member DIR [RUN]",
		Short: "Measure a trained model: accuracy, every class, confusion matrix",
		Long: `Measure the global model of a run, or an exported model, on the test data of its recipe, or on your own: a folder of
pictures with a sub-folder for each class, or a CSV file with the target column. With --client the model is that client's own, of a
method that gives clients such, and the test data are the client's. With --member it is a member of a run over a network that asks for
its own, in the folder that "cohort join" made.`,
		Example: `  cohort evaluate demo-20260131-120000
  cohort evaluate ditto-20260131-120000 --client client-007
  cohort evaluate model.safetensors --data-path photos/test --json`,
		Args:              runOrMember(&o.member),
		ValidArgsFunction: completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			return o.run(cmd.Context(), io, optional(args))
		},
	}
	o.flags(c)
	c.Flags().StringVar(&o.path, "data-path", "", "your own file or folder instead of the recipe's test data")
	return c
}

// evaluation is what evaluate prints with --json.
type evaluation struct {
	Schema int    `json:"schema"`
	Model  string `json:"model"`
	Client string `json:"client,omitempty"` // whose own model it is
	Data   string `json:"data"`
	train.Metrics
	Classes []classResult `json:"classes,omitempty"`
}

// classResult is how well a classifier does on one class; null where a figure does not exist.
type classResult struct {
	Class     string   `json:"class"`
	N         int      `json:"n"`
	Recall    *float64 `json:"recall"`
	Precision *float64 `json:"precision"`
	F1        *float64 `json:"f1"`
}

func (o *evaluateCommand) run(ctx context.Context, io streams, name string) error {
	m, engine, err := o.open(ctx, name)
	if err != nil {
		return err
	}
	defer engine.Close()
	metrics, of, err := o.measure(ctx, m, engine)
	if err != nil {
		return err
	}
	e := evaluation{Schema: schema, Model: cmp.Or(name, m.Card.Source.Run), Client: m.Card.Source.Client, Data: of, Metrics: metrics}
	for i, c := range metrics.Classes() {
		e.Classes = append(e.Classes, classResult{m.Card.ClassName(i), c.N, finite(c.Recall), finite(c.Precision), finite(c.F1)})
	}
	if o.json {
		return io.json(e)
	}
	e.print(io, m.Card.Task)
	return nil
}

// measure measures a client's own model on the client's tests, and others, or with data that are named, on all of the test data.
func (o *evaluateCommand) measure(ctx context.Context, m *recipe.Trained, e *train.Engine) (train.Metrics, string, error) {
	if _, own := m.OwnTest(); own && o.path == "" {
		metrics, err := m.EvaluateOwn(ctx, e)
		return metrics, m.Card.Source.Data.Name + " of " + m.Card.Source.Client, err
	}
	data, err := o.examples(ctx, m)
	if err != nil {
		return train.Metrics{}, "", err
	}
	metrics, err := m.Evaluate(ctx, e, data)
	return metrics, data.Name, err
}

func (o *evaluateCommand) examples(ctx context.Context, m *recipe.Trained) (*dataset.Examples, error) {
	if o.path != "" {
		e, _, err := m.Card.Read(ctx, o.path)
		return e, err
	}
	split, err := m.Card.Data(ctx, o.dataDir())
	if err != nil {
		return nil, err
	}
	if split.Test == nil {
		return nil, errors.New("the recipe's data has no test part; name your own with --data-path")
	}
	return split.Test, nil
}

func finite(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

// widest is how many classes a confusion matrix in a terminal has at most.
const widest = 16

func (e evaluation) print(io streams, task string) {
	t := newTable("", ">")
	t.add("examples", count(e.N))
	switch task {
	case recipe.Regression:
		t.add("mean squared error", nats(e.MSE))
		t.add("mean absolute error", nats(e.MAE))
		t.add("R²", nats(e.R2))
	case recipe.MaskedLanguage:
		t.add("perplexity", nats(e.Perplexity))
		t.add("loss", nats(e.Loss))
	default:
		t.add("accuracy", inPercent(e.Accuracy))
		t.add("loss", nats(e.Loss))
	}
	t.body(io.out)
	if len(e.Classes) == 0 {
		return
	}
	matrix := len(e.Classes) <= widest
	head := []string{"class", ">n", ">recall", ">precision", ">F1"}
	if matrix {
		head = append(head, "taken for")
		for i := range e.Classes {
			head = append(head, ">"+clip(e.Classes[i].Class, 6))
		}
	}
	per := newTable(head...)
	for i, c := range e.Classes {
		row := []string{c.Class, strconv.Itoa(c.N), share(c.Recall), share(c.Precision), share(c.F1)}
		if matrix {
			row = append(row, "")
			for _, n := range e.Confusion[i] {
				row = append(row, dot(n))
			}
		}
		per.add(row...)
	}
	io.say("")
	per.write(io.out)
}

func share(v *float64) string {
	if v == nil {
		return "–"
	}
	return fmt.Sprintf("%.1f %%", 100**v)
}

// dot writes a count, and nothing much for none.
func dot(n int) string {
	if n == 0 {
		return "."
	}
	return strconv.Itoa(n)
}
