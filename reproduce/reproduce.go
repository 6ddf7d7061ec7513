// Package reproduce runs published experiments again and says, claim by claim, what came out.
//
// An [Experiment] has up to three scales: small is a check of two minutes, medium an hour, paper the published settings. It
// runs recipes, so that everything it does a user could do with "cohort run", and turns what they measured into [Row]s: a
// claim, the reference and its source, the measured value and, where one is set, what is required of it. A reference that is
// only reported does not decide anything.
//
// With a folder, every run leaves a run folder there, and an experiment that was interrupted goes on where it stopped.
package reproduce

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/train"
	"gonum.org/v1/gonum/stat"
)

// Scale is how large an experiment is run.
type Scale string

// The scales.
const (
	Small  Scale = "small"
	Medium Scale = "medium"
	Paper  Scale = "paper"
)

// Scales lists them in order.
func Scales() []Scale { return []Scale{Small, Medium, Paper} }

// Row is one claim and what became of it.
type Row struct {
	Claim     string   `json:"claim"`
	Reference *float64 `json:"reference"` // published or calibrated value; nil if there is none
	Source    string   `json:"source"`
	Measured  *float64 `json:"measured"` // nil if it could not be measured
	// Standard deviations over seeds, of the reference and of what was measured, where there are several seeds and they are known.
	ReferenceDeviation *float64 `json:"reference_deviation,omitempty"`
	Deviation          *float64 `json:"deviation,omitempty"`
	Required           *string  `json:"required"` // such as ">= 92"; nil if the row is only reported
	Pass               *bool    `json:"pass"`     // nil if nothing is required
}

// Result is the rows of an experiment.
type Result struct {
	Name  string `json:"name"`
	Scale Scale  `json:"scale"`
	Seed  uint64 `json:"seed"`
	Rows  []Row  `json:"rows"`
}

// Passed reports whether every requirement holds.
func (r Result) Passed() bool {
	return !slices.ContainsFunc(r.Rows, func(r Row) bool { return r.Pass != nil && !*r.Pass })
}

// Experiment is what can be reproduced of a method.
type Experiment struct {
	Name      string
	Summary   string
	Synthetic bool // needs no real data
	Parts     bool // studies are of parts that stand alone: one that [Lab].Only names has its rows
	Scales    map[Scale]Study
}

// Study is one experiment at one scale.
type Study struct {
	Summary string // what is run, in a line
	Minutes string // how long, on what
	Run     func(ctx context.Context, lab *Lab) error
}

// All lists the experiments.
func All() []Experiment {
	return []Experiment{
		heteroflExperiment(),
		baselinesExperiment(),
		robustExperiment(),
		privacyExperiment(),
		secureExperiment(),
		semiflExperiment(),
		personalExperiment(),
		selfflExperiment(),
		personalfrExperiment(),
		mismatchExperiment(),
		galExperiment(),
		galImagesExperiment(),
		alExperiment(),
	}
}

// Find returns the experiment of that name.
func Find(name string) (Experiment, error) {
	var names []string
	for _, e := range All() {
		if e.Name == name {
			return e, nil
		}
		names = append(names, e.Name)
	}
	return Experiment{}, fmt.Errorf("there is no experiment %q; there are %s", name, strings.Join(names, ", "))
}

// Lab is where an experiment runs.
type Lab struct {
	Engine *train.Engine
	Meta   record.Meta // engine, kernels, threads and version, for run folders
	Data   string      // folder of real data sets
	Dir    string      // where run folders are made; "" keeps everything in memory
	Seed   uint64
	Stop   <-chan struct{}
	// Only, if not empty, names the one run to compute, for experiments whose runs are shared out among machines; there are
	// no rows then, but of an experiment of parts those of the part.
	Only string
	// Say, if not nil, hears what is being done, a line at a time, and Watch every round.
	Say   func(string)
	Watch func(run string) simulation.Observer

	rows  []Row
	names []string // of the runs
}

// Run runs an experiment at a scale.
func (e Experiment) Run(ctx context.Context, scale Scale, lab *Lab) (Result, error) {
	study, ok := e.Scales[scale]
	if !ok {
		return Result{}, fmt.Errorf("experiment %s has no scale %q", e.Name, scale)
	}
	lab.rows, lab.names = nil, nil
	err := study.Run(ctx, lab)
	if err == nil && lab.Only != "" {
		if !e.Parts {
			lab.rows = nil
		}
		if !slices.Contains(lab.names, lab.Only) {
			err = fmt.Errorf("%s has no run %q at scale %s; there are %s", e.Name, lab.Only, scale, strings.Join(lab.names, "; "))
		}
	}
	return Result{e.Name, scale, lab.Seed, lab.rows}, err
}

// keyed names a metric of a part, such as a level or an organisation; of the whole, the key is empty.
func keyed(name, key string) string {
	if key == "" {
		return name
	}
	return name + " " + key
}

// outcome is what a run measured.
type outcome struct {
	series map[string][]record.Point // by metric, see keyed
	state  federated.State           // the last one, if the run was computed now
	digest string                    // of the last state
}

// last returns the last value of a metric, in percent for accuracies; NaN if it was not measured.
func (o outcome) last(name string) float64 {
	p := o.series[name]
	if len(p) == 0 {
		return math.NaN()
	}
	return percent(name, p[len(p)-1].Value)
}

// first returns the first round, counted from 1, in which a metric reached a value; NaN if it never did.
func (o outcome) first(name string, atLeast float64) float64 {
	for _, p := range o.series[name] {
		if percent(name, p.Value) >= atLeast {
			return float64(p.Round + 1)
		}
	}
	return math.NaN()
}

func percent(name string, v float64) float64 {
	if strings.HasPrefix(name, "accuracy") {
		return 100 * v
	}
	return v
}

// watcher collects the metrics of a run in memory, and passes everything on.
type watcher struct {
	series map[string][]record.Point
	next   simulation.Observer
}

func (w *watcher) Progress(round int, phase string, answered, asked int) {
	if w.next != nil {
		w.next.Progress(round, phase, answered, asked)
	}
}

func (w *watcher) Round(r simulation.Round) {
	for _, p := range r.Phases {
		for _, m := range p.Metrics {
			name := keyed(m.Name, m.Key)
			w.series[name] = append(w.series[name], record.Point{Round: p.Round, Value: m.Value})
		}
		var up, down float64
		for _, m := range p.Traffic {
			up, down = up+float64(m.Up), down+float64(m.Down)
		}
		of := "" // as runs on disk call them
		if !federated.Learns(p.Phase) {
			of = "." + p.Phase
		}
		for name, v := range map[string]float64{"bytes.up" + of: up, "bytes.down" + of: down} {
			w.series[name] = append(w.series[name], record.Point{Round: p.Round, Value: v})
		}
	}
	if w.next != nil {
		w.next.Round(r)
	}
}

// run runs a recipe under a name that is unique in the experiment. With a folder, a finished run is read instead of run
// again, and an interrupted one is resumed.
func (l *Lab) run(ctx context.Context, name string, r *recipe.Recipe) (outcome, error) {
	r.Name = name
	return l.perform(ctx, paper{name, r.Method, r.Seed, r.YAML(), r.Run.Checkpoint}, func(string) (*simulation.Job, error) {
		plan, err := r.Plan(ctx, l.Data)
		if err != nil {
			return nil, err
		}
		return plan.Job(l.Engine)
	})
}

// paper is what is written down of a run.
type paper struct {
	name, method string
	seed         uint64
	yaml         []byte // what was run
	checkpoint   int    // rounds from one to the next
}

// perform runs the job that prepare makes, which gets the folder of the run; "" is none.
func (l *Lab) perform(ctx context.Context, p paper, prepare func(dir string) (*simulation.Job, error)) (outcome, error) {
	l.names = append(l.names, p.name)
	if l.Only != "" && l.Only != p.name {
		return outcome{}, nil
	}
	if l.Say != nil {
		l.Say(p.name)
	}
	dir := ""
	if l.Dir != "" {
		dir = filepath.Join(l.Dir, slug(p.name))
		if m, err := record.ReadMeta(dir); err == nil && m.State == record.Finished {
			return l.read(dir, p.yaml)
		}
	}
	job, err := prepare(dir)
	if err != nil {
		return outcome{}, err
	}
	job.Config.Stop = l.Stop
	w := &watcher{series: map[string][]record.Point{}}
	if l.Watch != nil {
		w.next = l.Watch(p.name)
	}
	job.Observer = w
	if dir == "" {
		s, err := job.Run(ctx)
		return outcome{w.series, s, s.Digest()}, err
	}
	run, err := l.open(dir, p)
	if err != nil {
		return outcome{}, err
	}
	s, err := job.RunIn(ctx, run, journal.OS(), p.checkpoint)
	state := record.Finished
	switch {
	case errors.Is(err, federated.ErrStopped), errors.Is(err, context.Canceled):
		state = record.Interrupted
	case err != nil:
		state = record.Failed
	}
	if e := run.Close(state, err); err == nil {
		err = e
	}
	if err != nil {
		return outcome{}, err
	}
	o, err := l.read(dir, p.yaml)
	o.state = s
	return o, err
}

func (l *Lab) open(dir string, p paper) (*record.Run, error) {
	if _, err := os.Stat(filepath.Join(dir, record.MetaName)); err == nil {
		old, err := record.ReadRecipe(dir)
		if err != nil {
			return nil, err
		}
		if string(old) != string(p.yaml) {
			return nil, fmt.Errorf("%s holds a run of another recipe; remove it or choose another folder", dir)
		}
		return record.Resume(dir, record.Options{})
	}
	meta := l.Meta
	meta.ID, meta.Method, meta.Seed = slug(p.name), p.method, p.seed
	return record.Create(dir, meta, p.yaml, record.Options{})
}

// read returns what a finished run measured.
func (l *Lab) read(dir string, yaml []byte) (outcome, error) {
	old, err := record.ReadRecipe(dir)
	if err != nil {
		return outcome{}, err
	}
	if string(old) != string(yaml) {
		return outcome{}, fmt.Errorf("%s holds a run of another recipe; remove it or choose another folder", dir)
	}
	m, err := record.ReadMetrics(dir)
	if err != nil {
		return outcome{}, err
	}
	defer m.Close()
	names, err := m.Names()
	if err != nil {
		return outcome{}, err
	}
	o := outcome{series: map[string][]record.Point{}}
	for _, n := range names {
		keys, err := m.Keys(n)
		if err != nil {
			return o, err
		}
		for _, k := range keys {
			if o.series[keyed(n, k)], err = m.Series(n, k); err != nil {
				return o, err
			}
		}
	}
	for rec, err := range journal.Decode[struct{ Digest string }](journal.Read(journal.OS(), dir, simulation.KindEnded)) {
		if err != nil {
			return o, err
		}
		o.digest = rec.Body.Digest
	}
	return o, nil
}

func slug(name string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(name) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			b.WriteRune(r)
		default:
			if s := b.String(); s != "" && !strings.HasSuffix(s, "-") {
				b.WriteByte('-')
			}
		}
	}
	return strings.Trim(b.String(), "-")
}

// report adds a row that is only reported; a NaN reference is none.
func (l *Lab) report(claim string, reference float64, source string, measured float64) {
	l.rows = append(l.rows, Row{Claim: claim, Reference: number(reference), Source: source, Measured: number(measured)})
}

// require adds a row that must hold: measured op bound, where op is ">=" or "<=".
func (l *Lab) require(claim string, reference float64, source string, measured float64, op string, bound float64) {
	ok := measured >= bound
	if op == "<=" {
		ok = measured <= bound
	}
	required := fmt.Sprintf("%s %s", op, format(bound))
	l.rows = append(l.rows, Row{Claim: claim, Reference: number(reference), Source: source, Measured: number(measured), Required: &required, Pass: &ok})
}

// figure is a number with its standard deviation over seeds; NaN stands for what is not known.
type figure struct{ mean, deviation float64 }

// reportSeeds adds a row of what several seeds measured, which is only reported: their mean and sample standard deviation.
func (l *Lab) reportSeeds(claim string, reference figure, source string, measured []float64) {
	mean, deviation := stat.MeanStdDev(measured, nil)
	l.report(claim, reference.mean, source, mean)
	row := &l.rows[len(l.rows)-1]
	row.ReferenceDeviation, row.Deviation = number(reference.deviation), number(deviation)
}

func number(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	v = math.Round(v*1e6) / 1e6
	return &v
}

func format(v float64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.4f", v), "0"), ".")
}
