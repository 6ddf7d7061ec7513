package recipe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/dataset/table"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/simulation"
	"gonum.org/v1/gonum/mat"
)

// ModelsName is the folder, within that of a run, where the organisations of one machine keep their models.
const ModelsName = "models"

// encodingName is under what an organisation keeps how its columns became features.
const encodingName = "encoding"

// keepEncoding keeps how the columns of a table become features beside the models that will be fitted to them. Where models are
// already, the table must become the same features as when they were.
func keepEncoding(kept assisted.Store, t *table.Table) error {
	b, err := json.Marshal(t.Encoding)
	if err != nil {
		return err
	}
	before, err := kept.Get(encodingName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return kept.Put(encodingName, b)
	case err == nil && !bytes.Equal(b, before):
		return fmt.Errorf("%s has changed since the run began: its columns, words or gaps are others; restore it, or begin another run", t.Name)
	}
	return err
}

// Asked is what organisations answered about rows: predictions in the order of the sponsor's rows.
type Asked struct {
	Predictions []Prediction
	Regression  bool
	Away        Away
}

// Ask asks the organisations of a run on one machine about the rows of the sponsor's table. Inputs are files by organisation;
// whoever has none is asked for the entities of its table of the recipe.
func Ask(ctx context.Context, dir string, inputs map[string]string) (*Asked, error) {
	r, err := AssistOfRun(dir)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, ModelsName)); err != nil {
		return nil, fmt.Errorf("%s keeps no models", dir)
	}
	ensemble, err := r.outcome(dir)
	if err != nil {
		return nil, err
	}
	specs := map[string]Organisation{r.Sponsor: {Name: r.Sponsor, Table: r.sheet(), Learner: r.Learner}}
	for _, o := range r.Organisations {
		specs[o.Name] = o
	}
	for name := range inputs {
		if _, ok := specs[name]; !ok {
			return nil, fmt.Errorf("there is no organisation %q in the run; it has %s", name, strings.Join(slices.Sorted(maps.Keys(specs)), ", "))
		}
	}
	if _, ok := inputs[r.Sponsor]; !ok {
		return nil, fmt.Errorf("which rows? give those of the sponsor: %s=FILE", r.Sponsor)
	}
	desks, fleet := assisted.Desks{}, &simulation.Fleet{Seed: r.Seed}
	var sponsor *table.Table
	for _, name := range append([]string{r.Sponsor}, others(r)...) {
		desk, t, err := specs[name].reopen(dir, inputs[name], inputs[r.Sponsor], r.Sponsor)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if name == r.Sponsor {
			sponsor = t
		}
		desks[name] = desk
		fleet.Own = append(fleet.Own, simulation.Holder{Name: name})
	}
	asked, err := ask(ctx, r, ensemble, sponsor, desks, fleet)
	if err == nil {
		err = asked.Away.price(dir, ensemble)
	}
	return asked, err
}

func others(r *Assist) (names []string) {
	for _, o := range r.Organisations {
		names = append(names, o.Name)
	}
	return names
}

// outcome is what the run in dir has come to.
func (r *Assist) outcome(dir string) (assisted.Ensemble, error) {
	s, err := simulation.Last(dir)
	if err != nil {
		return assisted.Ensemble{}, err
	}
	o, err := r.options()
	if err != nil {
		return assisted.Ensemble{}, err
	}
	m, err := o.New(r.Rounds, nil, nil)
	if err != nil {
		return assisted.Ensemble{}, err
	}
	return m.Ensemble(s)
}

// reopen reads an organisation's rows with the encoding that its models were fitted with. Without rows of its own to read it takes
// those of its table; where that was the sponsor's file, rows have no names, and the sponsor's new file is read.
func (o Organisation) reopen(dir, input, sponsors, sponsor string) (*assisted.Desk, *table.Table, error) {
	kept, err := journal.OpenValues(nil, filepath.Join(dir, ModelsName, o.Name))
	if err != nil {
		return nil, nil, err
	}
	b, err := kept.Get(encodingName)
	if err != nil {
		return nil, nil, fmt.Errorf("the run keeps nothing of its columns: %w", err)
	}
	e, err := table.ParseEncoding(b)
	if err != nil {
		return nil, nil, err
	}
	s := o.Table
	s.Test = ""
	switch {
	case input != "":
		s.Path = input
	case s.Key == "" && !o.unlinked():
		s.Path = sponsors
	}
	t, err := openTable(s, e)
	if err != nil {
		return nil, nil, err
	}
	o.unlink(t)
	l, err := o.Learner.New()
	if err != nil {
		return nil, nil, err
	}
	return &assisted.Desk{Keys: t.Keys, Features: t.Features, Learner: l, Store: kept}, t, nil
}

func ask(ctx context.Context, r *Assist, e assisted.Ensemble, sponsor *table.Table, desks assisted.Desks, fleet *simulation.Fleet) (*Asked, error) {
	var away Away
	job := &simulation.Job{Algorithm: &assisted.Prediction{Ensemble: e, Keys: sponsor.Keys, Strata: e.Strata.Of(sponsor.Strata), Desks: desks}, Fleet: fleet,
		Config: federated.Config{Rounds: 1}, Observer: &away}
	s, err := job.Run(ctx)
	if err != nil {
		return nil, err
	}
	f, err := assisted.Matrix(s, "F")
	if err != nil {
		return nil, err
	}
	return r.read(sponsor, f, away)
}

// read says what F, a row for each of the sponsor's, predicts.
func (r *Assist) read(sponsor *table.Table, f *mat.Dense, away Away) (*Asked, error) {
	o, err := r.objective(sponsor)
	if err != nil {
		return nil, err
	}
	rows, columns := f.Dims()
	if rows != len(sponsor.Keys) || o.Classifies() && columns != o.Outputs(nil) {
		return nil, fmt.Errorf("%d×%d values for %d rows of the sponsor and %d classes", rows, columns, len(sponsor.Keys), len(sponsor.Encoding.Classes))
	}
	out := &Asked{Regression: !o.Classifies(), Away: away}
	for i, key := range sponsor.Keys {
		p := Prediction{Input: key}
		row := f.RawRowView(i)
		if out.Regression {
			v := o.Expect(row[0])
			p.Value = &v
		} else {
			class := o.Predict(row)
			p.Class, p.Probability = sponsor.Encoding.Title(class), o.Probabilities(row)[class]
		}
		out.Predictions = append(out.Predictions, p)
	}
	return out, nil
}

// Away is an observer that keeps what a prediction had to do without.
type Away struct {
	Degraded map[string]int     `json:"degraded,omitempty"` // by organisation: for how many of the rows its mean stood
	Tables   map[string]int     `json:"tables,omitempty"`   // by organisation: the version of its table that it answered from, where it has said so
	Notes    []string           `json:"notes,omitempty"`    // why
	Cost     map[string]float64 `json:"cost,omitempty"`     // by organisation that was missed: by how much the loss rose without it on rows set apart in training
}

// Progress implements [simulation.Observer].
func (a *Away) Progress(int, string, int, int) {}

// Round implements [simulation.Observer].
func (a *Away) Round(r simulation.Round) {
	for _, p := range r.Phases {
		for _, m := range p.Metrics {
			to := map[string]*map[string]int{"degraded": &a.Degraded, "table": &a.Tables}[m.Name]
			if to == nil {
				continue
			}
			if *to == nil {
				*to = map[string]int{}
			}
			(*to)[m.Key] = int(m.Value)
		}
		a.Notes = append(a.Notes, p.Notes...)
	}
}

// price fills in what it costs to do without those who were missed: how far the loss rose without them on rows set apart, in the last
// round of the ensemble. Where several are missed together it may be more than the sum, or less.
func (a *Away) price(dir string, e assisted.Ensemble) error {
	if len(a.Degraded) == 0 {
		return nil
	}
	m, err := record.ReadMetrics(dir)
	if err != nil {
		return err
	}
	defer m.Close()
	last := e.Last()
	for who := range a.Degraded {
		points, err := m.Series("contribution", who)
		if err != nil {
			return err
		}
		for _, p := range points {
			if p.Round == last {
				if a.Cost == nil {
					a.Cost = map[string]float64{}
				}
				a.Cost[who] = p.Value
			}
		}
	}
	return nil
}
