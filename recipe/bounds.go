package recipe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/bounds"
	"github.com/cohort-learning/cohort/dataset/table"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/record/report"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/train"
	"gonum.org/v1/gonum/mat"
)

// What the outcome of organisations can be compared with where all their tables are on one machine, by [Assist.Bounds].
const (
	AloneBound = "alone" // the sponsor with its own columns: what assistance has to beat
	JointBound = "joint" // all columns in one place, by the same method with the sponsor's model
)

// bound is one thing that an outcome can be compared with.
type bound struct{ name, title string }

// knownBounds are in the order in which they are shown.
var knownBounds = []bound{
	{AloneBound, "the sponsor alone"},
	{JointBound, "all columns in one place"},
	{bounds.Late, "late fusion of networks"},
	{bounds.Interm, "intermediate fusion of networks"},
	{bounds.VFL, "split network"},
}

// BoundNames are the names that [Assist.Bounds] takes.
func BoundNames() []string {
	var names []string
	for _, b := range knownBounds {
		names = append(names, b.name)
	}
	return names
}

// BoundTitle is what people are told that a bound is.
func BoundTitle(name string) string {
	for _, b := range knownBounds {
		if b.name == name {
			return b.title
		}
	}
	return name
}

func checkBounds(names []string) error {
	for i, name := range names {
		if !slices.Contains(BoundNames(), name) {
			return fieldf("bounds", "%q, expected any of %s", name, strings.Join(BoundNames(), ", "))
		}
		if slices.Contains(names[:i], name) {
			return fieldf("bounds", "%s is there twice", name)
		}
	}
	return nil
}

// hiddenUnits is the width of the one hidden layer that each organisation has in the networks of late and intermediate fusion and in the
// split network.
const hiddenUnits = 64

// Compare computes what the recipe's bounds reach: the metrics of each, by name. Networks are trained on the engine.
func (p *AssistPlan) Compare(ctx context.Context, e *train.Engine) (map[string]map[string]float64, error) {
	out := map[string]map[string]float64{}
	for _, name := range p.Recipe.Bounds {
		var err error
		switch name {
		case AloneBound, JointBound:
			out[name], err = p.single(ctx, name)
		default:
			out[name], err = p.fused(ctx, name, e)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", BoundTitle(name), err)
		}
	}
	return out, nil
}

// single runs the method with one organisation only.
func (p *AssistPlan) single(ctx context.Context, name string) (map[string]float64, error) {
	desk, err := p.Joint()
	if name == AloneBound {
		var desks assisted.Desks
		_, desks, err = p.Desks(func(string) (assisted.Store, error) { return assisted.NewStore(), nil })
		desk = desks[p.Recipe.Sponsor]
	}
	if err != nil {
		return nil, err
	}
	m, err := p.Plain(assisted.Desks{p.Recipe.Sponsor: desk})
	if err != nil {
		return nil, err
	}
	last := lastValues{}
	job := p.Job(m, []string{p.Recipe.Sponsor})
	job.Observer = last
	_, err = job.Run(ctx)
	return last, err
}

// Job is a run of a method among organisations of one machine.
func (p *AssistPlan) Job(a federated.Algorithm, names []string) *simulation.Job {
	fleet := &simulation.Fleet{Seed: p.Recipe.Seed}
	for _, name := range names {
		fleet.Own = append(fleet.Own, simulation.Holder{Name: name})
	}
	return &simulation.Job{Algorithm: a, Fleet: fleet, Config: p.Config()}
}

// lastValues keeps the last value of each metric of the whole.
type lastValues map[string]float64

func (l lastValues) Progress(int, string, int, int) {}
func (l lastValues) Round(r simulation.Round) {
	for _, p := range r.Phases {
		for _, m := range p.Metrics {
			if m.Key == "" {
				l[m.Name] = m.Value
			}
		}
	}
}

// fused trains networks of all organisations as one, on all rows but those to test on: they need none to weigh organisations or to
// stop by.
func (p *AssistPlan) fused(ctx context.Context, how string, e *train.Engine) (map[string]float64, error) {
	s := *p.Sponsor
	s.Fit, s.Solve, s.Held = s.Fit+s.Solve+s.Held, 0, 0
	problem := bounds.Problem{Sponsor: &s, Parts: p.parts(s.Keys), Seed: p.Recipe.Seed}
	f, err := problem.Fuse(ctx, e, bounds.Fusion{How: how, Hidden: []int{hiddenUnits}})
	if err != nil {
		return nil, err
	}
	var d federated.Diagnostics
	t := assisted.Table{Sponsor: p.Sponsor}
	t.Measure(&d, s.Labels, f)
	out := map[string]float64{}
	for _, m := range d.Metrics {
		out[m.Name] = m.Value
	}
	delete(out, "loss.held") // they were trained on these rows
	return out, nil
}

// Joint is one organisation with the columns of all, which only one machine can have: the upper bound. Its model is the sponsor's.
func (p *AssistPlan) Joint() (*assisted.Desk, error) {
	l, err := p.Recipe.Learner.New()
	if err != nil {
		return nil, err
	}
	x := mat.DenseCopyOf(p.Table.Features)
	for _, part := range p.parts(p.Table.Keys)[1:] {
		var both mat.Dense
		both.Augment(x, part)
		x = &both
	}
	return &assisted.Desk{Keys: p.Table.Keys, Features: x, Learner: l, Store: assisted.NewStore()}, nil
}

// parts are the features of the sponsor and then of each other organisation, with a row for each key; NaN where it does not have
// the entity. Rows are joined by key, also where keys are in doubt; what has no keys cannot be joined and is left out.
func (p *AssistPlan) parts(keys []string) []*mat.Dense {
	joined := []*table.Table{p.Table}
	for i, t := range p.Others {
		if !p.Recipe.Organisations[i].unlinked() {
			joined = append(joined, t)
		}
	}
	var out []*mat.Dense
	for _, t := range joined {
		at := map[string]int{}
		for i, k := range t.Keys {
			at[k] = i
		}
		_, width := t.Features.Dims()
		x := mat.NewDense(len(keys), width, nil)
		for i, k := range keys {
			if row, ok := at[k]; ok {
				x.SetRow(i, t.Features.RawRowView(row))
				continue
			}
			for j := range width {
				x.Set(i, j, math.NaN())
			}
		}
		out = append(out, x)
	}
	return out
}

// boundsName is the file in the folder of a run that says what its bounds reached.
const boundsName = "bounds.json"

// KeepBounds writes what [AssistPlan.Compare] found into the folder of a run, for its report.
func KeepBounds(dir string, reached map[string]map[string]float64) error {
	b, err := json.MarshalIndent(reached, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, boundsName), append(b, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("keeping what the bounds reached: %w", err)
	}
	return nil
}

// comparedMetrics are those that bounds are compared by.
var comparedMetrics = []string{"accuracy", "auroc", "log-loss", "rmse", "mad", "loss"}

// BoundsOfRun reads what [KeepBounds] wrote; nil if a run was compared with nothing.
func BoundsOfRun(dir string) (reached map[string]map[string]float64, err error) {
	b, err := os.ReadFile(filepath.Join(dir, boundsName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &reached)
	}
	if err != nil {
		return nil, fmt.Errorf("what the bounds reached: %w", err)
	}
	return reached, nil
}

// boundsTable shows what a run reached beside its bounds; without rows if they were not computed.
func boundsTable(dir string) (report.Table, error) {
	t := report.Table{Name: "bounds", Title: "On the rows to test on"}
	reached, err := BoundsOfRun(dir)
	if err != nil || reached == nil {
		return t, err
	}
	assistedTo, _, err := LastMetrics(dir)
	if err != nil {
		return t, err
	}
	t.Columns = []report.Column{{Title: "metric"}, {Title: "assisted", Number: true}}
	for _, k := range knownBounds {
		if reached[k.name] != nil {
			t.Columns = append(t.Columns, report.Column{Title: k.title, Number: true})
		}
	}
	for _, metric := range comparedMetrics {
		v, ok := assistedTo[metric]
		if !ok {
			continue
		}
		row := []string{metric, fmt.Sprintf("%.4g", v)}
		for _, k := range knownBounds {
			if of := reached[k.name]; of != nil {
				row = append(row, fmt.Sprintf("%.4g", of[metric]))
			}
		}
		t.Rows = append(t.Rows, row)
	}
	return t, nil
}
