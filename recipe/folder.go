package recipe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/record/report"
	"github.com/cohort-learning/cohort/simulation"
)

// Names of the files that a plan adds to the folder of its run.
const (
	CardName      = "model.json"
	PartitionName = "partition.png"
)

// Create makes the folder of a new run of the plan: what [record.Create] makes, the card of the model, and the picture of
// the partition. Method and seed of meta are the recipe's.
func (p *Plan) Create(dir string, meta record.Meta, o record.Options) (*record.Run, error) {
	return p.Recipe.create(dir, meta, o, p.Card, p.picture())
}

// Resume takes up the run in dir, which must be one of the plan's recipe. A run that was killed before it began is begun.
func (p *Plan) Resume(dir string, meta record.Meta, o record.Options) (*record.Run, error) {
	return p.Recipe.resume(dir, meta, o, p.Card, p.picture())
}

// picture returns who has what; nil if the data has no classes.
func (p *Plan) picture() *dataset.Manifest {
	if p.Split.Train.Labels == nil {
		return nil
	}
	return p.Dealt.Manifest(p.Split.Train, p.Split.Test)
}

// create makes the folder of a run of the recipe, with the card of its model and, unless it is nil, the picture of who has
// what.
func (r *Recipe) create(dir string, meta record.Meta, o record.Options, card func() (*Card, error), m *dataset.Manifest) (*record.Run, error) {
	meta.Method, meta.Seed = r.Method, r.Seed
	if meta.ID == "" {
		meta.ID = filepath.Base(dir)
	}
	run, err := record.Create(dir, meta, r.YAML(), o)
	if err != nil {
		return nil, err
	}
	if err := furnish(dir, o.FS, card, m); err != nil {
		return nil, errors.Join(fmt.Errorf("describing the run: %w", err), run.Close(record.Failed, err))
	}
	return run, nil
}

func (r *Recipe) resume(dir string, meta record.Meta, o record.Options, card func() (*Card, error), m *dataset.Manifest) (*record.Run, error) {
	run, err := record.Resume(dir, o)
	if errors.Is(err, journal.ErrEmpty) || errors.Is(err, fs.ErrNotExist) {
		return r.create(dir, meta, o, card, m)
	}
	if err != nil {
		return nil, err
	}
	if _, err := CardOfRun(dir); err != nil { // killed at the very beginning
		if err := furnish(dir, o.FS, card, m); err != nil {
			return nil, errors.Join(fmt.Errorf("describing the run: %w", err), run.Close(record.Failed, err))
		}
	}
	return run, nil
}

func furnish(dir string, fsys journal.FS, describe func() (*Card, error), m *dataset.Manifest) error {
	if fsys == nil {
		fsys = journal.OS()
	}
	card, err := describe()
	if err != nil {
		return err
	}
	card.Source.Run = filepath.Base(dir)
	if m != nil {
		if err := journal.WriteFile(fsys, filepath.Join(dir, PartitionName), func(w io.Writer) error { return m.WritePNG(w) }); err != nil {
			return err
		}
	}
	return card.WriteFile(fsys, filepath.Join(dir, CardName))
}

// OfRun reads the recipe of the run in dir.
func OfRun(dir string) (*Recipe, error) {
	text, err := record.ReadRecipe(dir)
	if err != nil {
		return nil, err
	}
	return Parse(filepath.Join(dir, record.RecipeName), text)
}

// reopen returns the recipe of the run in dir, its plan on the data, which are read again, and its method without sums, noise or
// rule around it.
func reopen(ctx context.Context, dir, dataDir string) (*Recipe, *Plan, federated.Algorithm, error) {
	r, err := OfRun(dir)
	if err != nil {
		return nil, nil, nil, err
	}
	p, err := r.Plan(ctx, dataDir)
	if err != nil {
		return nil, nil, nil, err
	}
	bare, err := r.bare(p.Problem)
	return r, p, bare, err
}

// Report gathers what is known of the run in dir. The metrics must be closed when the report has been made.
func Report(dir string) (_ report.Run, metrics *record.Metrics, err error) {
	meta, err := record.ReadMeta(dir)
	if err != nil {
		return report.Run{}, nil, err
	}
	if AmongOrganisations(dir) {
		return reportAssist(dir, meta)
	}
	r, err := OfRun(dir)
	if err != nil {
		return report.Run{}, nil, err
	}
	if metrics, err = record.ReadMetrics(dir); err != nil {
		return report.Run{}, nil, err
	}
	out := report.Run{Meta: meta, Metrics: &people{Metrics: metrics}, Subtitle: fmt.Sprintf("%s on %s, seed %d, %s", meta.Method, r.Data.Name, meta.Seed, meta.State)}
	for _, s := range r.Settings() {
		out.Settings = append(out.Settings, report.Fact{Label: s.Field, Value: s.Value})
	}
	noise, err := r.Noise()
	if err != nil {
		return report.Run{}, nil, errors.Join(err, metrics.Close())
	}
	if noise != nil && noise.Chosen {
		out.Settings = append(out.Settings, report.Fact{Label: "privacy.noise", Value: fmt.Sprintf("%.4g", noise.Multiplier), Note: "chosen for privacy.epsilon"})
	}
	if out.Partition, err = os.ReadFile(filepath.Join(dir, PartitionName)); err != nil {
		out.Partition = nil // data without classes have none
	}
	if err := addWorkers(&out, dir); err != nil {
		return report.Run{}, nil, errors.Join(err, metrics.Close())
	}
	card, err := CardOfRun(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return out, metrics, nil
	}
	if err == nil {
		err = describe(&out, r, card, metrics)
	}
	if err == nil {
		out.Digest, err = finalDigest(dir)
	}
	if err != nil {
		return report.Run{}, nil, errors.Join(err, metrics.Close())
	}
	return out, metrics, nil
}

// describe adds what follows from the card: levels, the work of clients, how often their coordinates were updated.
func describe(out *report.Run, r *Recipe, card *Card, metrics *record.Metrics) error {
	for _, l := range card.Levels {
		name := l.Name
		if name == "" {
			name = "all"
		}
		out.Levels = append(out.Levels, report.Level{Name: name, Rate: l.Rate, Clients: l.Clients, Params: l.Params, FLOPs: l.FLOPs(), Bytes: l.Bytes})
	}
	out.Metrics = &people{metrics, card.Levels, r.examples(card.Source.Examples / max(1, card.Source.Clients))}
	var err error
	out.Updates, err = updates(card.Levels, metrics)
	return err
}

// updates counts the coordinates of every level's model by how often a client trained them. The method tells the mean over
// each shell: the coordinates of a level that no thinner level has. In nested models all of a shell are trained together.
func updates(levels []Level, metrics *record.Metrics) ([]report.Histogram, error) {
	type shell struct{ size, times float64 }
	byRate := slices.Clone(levels)
	slices.SortFunc(byRate, func(a, b Level) int { return int(a.Params - b.Params) })
	var shells []shell // thinnest first
	inner, most := int64(0), 0.0
	for _, l := range byRate {
		points, err := metrics.Series("updates.mean", l.Name)
		if err != nil {
			return nil, err
		}
		if len(points) == 0 {
			return nil, nil
		}
		s := shell{size: float64(l.Params - inner)}
		for _, p := range points {
			s.times += p.Value
		}
		inner, most = l.Params, max(most, s.times)
		shells = append(shells, s)
	}
	const bins = 24
	width := math.Max(1, math.Ceil((most+1)/bins))
	var out []report.Histogram
	for i := range slices.Backward(byRate) {
		h := report.Histogram{Level: byRate[i].Name, Counts: make([]float64, bins)}
		for b := range bins + 1 {
			h.Edges = append(h.Edges, width*float64(b))
		}
		for _, s := range shells[:i+1] {
			h.Counts[min(bins-1, int(s.times/width))] += s.size
		}
		out = append(out, h)
	}
	return out, nil
}

// finalDigest returns the digest of the last state of a run that has ended, else "".
func finalDigest(dir string) (string, error) {
	type ended struct {
		Digest string `json:"digest"`
	}
	digest := ""
	for r, err := range journal.Decode[ended](journal.Read(journal.OS(), dir, simulation.KindEnded)) {
		if err != nil {
			return "", err
		}
		digest = r.Body.Digest
	}
	return digest, nil
}

// WriteReport writes report.html of the run in dir, with its pictures and tables, and returns its path.
func WriteReport(dir string) (string, error) {
	run, metrics, err := Report(dir)
	if err != nil {
		return "", fmt.Errorf("report: %w", err)
	}
	defer metrics.Close()
	page, err := run.Report()
	if err != nil {
		return "", err
	}
	files, err := page.Write(journal.OS(), dir)
	if err != nil {
		return "", fmt.Errorf("report: %w", err)
	}
	return files[0], nil
}
