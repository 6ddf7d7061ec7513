package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/al"
	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/train"
	"github.com/spf13/cobra"
)

// assistOptions are the flags of assist.
type assistOptions struct {
	name, dir string
	set       []string
	resume    bool
	dryRun    bool
	pretest   bool
	bounds    string
	quiet     bool
	json      bool
}

func newAssist(io streams, stop <-chan struct{}) *cobra.Command {
	var o assistOptions
	c := &cobra.Command{
		Annotations: map[string]string{finishesRounds: roundUnderWay},
		Use:         "assist RECIPE | assist --resume RUN",
		Short:       "Let organisations with different columns assist each other, on this machine",
		Long: `Let organisations with different columns of the same entities assist each other, all on this machine: one, the sponsor, has a
target; the others' columns help to predict it. Nobody shows data or models: residuals go out, fitted values come back. To do
the same over a network, give the recipe to "cohort serve" and let the others "cohort join" with their own tables.

The outcome stands beside what the sponsor reaches alone, and what all columns in one place would reach.`,
		Example: `  cohort assist credit.yaml
  cohort assist credit.yaml --set rounds=20 --set learner.name=boosted
  cohort assist credit.yaml --dry-run
  cohort assist credit.yaml --pretest           # is it worth while?`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			return o.run(cmd.Context(), io, stop, args[0])
		},
		ValidArgsFunction: completeRecipes,
	}
	f := c.Flags()
	f.StringArrayVar(&o.set, "set", nil, "change a field of the recipe, FIELD=VALUE; may be repeated")
	f.StringVar(&o.name, "name", "", "name of the run and of its folder (default the recipe's name or method, and the time)")
	f.StringVar(&o.dir, "dir", "", "folder of the run itself, instead of one in the folder of runs")
	f.BoolVar(&o.resume, "resume", false, "go on with a run that was stopped")
	f.BoolVar(&o.dryRun, "dry-run", false, "only say what would be learned from what, and what would be sent")
	f.BoolVar(&o.pretest, "pretest", false, "only ask whether assistance is worth while: whether a few mixtures of each organisation's columns say anything of the target")
	f.StringVar(&o.bounds, "bounds", "", "what to compare the outcome with: "+strings.Join(recipe.BoundNames(), ", ")+", with commas between, or none (default the recipe's: alone and joint)")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "show no progress")
	f.BoolVar(&o.json, "json", false, "print the outcome as JSON")
	return c
}

func (o *assistOptions) check() error {
	switch {
	case o.resume && (o.name != "" || o.dir != "" || o.dryRun || o.pretest || len(o.set) > 0):
		return usagef("a run is resumed as it was begun: --resume goes with none of --name, --dir, --set, --pretest and --dry-run")
	case o.pretest && (o.name != "" || o.dir != "" || o.dryRun):
		return usagef("--pretest fits nothing and keeps nothing: it goes with none of --name, --dir and --dry-run")
	}
	return checkPlace(o.name, o.dir)
}

// assistance is what a run among organisations came to.
type assistance struct {
	Schema  int                           `json:"schema"`
	Run     string                        `json:"run"`
	State   record.State                  `json:"state"`
	Method  string                        `json:"method"`
	Seed    uint64                        `json:"seed"`
	Rounds  int                           `json:"rounds"`
	Digest  string                        `json:"digest,omitempty"` // of the outcome, once the run has ended
	Metrics map[string]float64            `json:"metrics"`
	By      map[string]map[string]float64 `json:"organisations"`   // by organisation, in the last round: weight, away, contribution, shapley; rows
	Bounds  map[string]map[string]float64 `json:"bounds"`          // metrics of what it is compared with
	Refit   int                           `json:"refit,omitempty"` // the last so many rounds are run again, on all rows but those to test on
	Report  string                        `json:"report"`
	Seconds float64                       `json:"seconds"`
}

func (o *assistOptions) run(ctx context.Context, io streams, stop <-chan struct{}, arg string) error {
	var r *recipe.Assist
	var err error
	dir := o.dir
	if o.resume {
		if dir, err = findRun(arg); err == nil {
			r, err = recipe.AssistOfRun(dir)
		}
	} else {
		r, err = recipe.LoadAssist(arg, o.set...)
	}
	if err != nil {
		return err
	}
	if dir == "" {
		dir = place("", o.name, cmp.Or(r.Name, r.Method))
	}
	if !o.dryRun && !o.resume && isRun(dir) {
		return folderError(dir, journal.ErrExists)
	}
	if err := o.compareWith(r); err != nil {
		return err
	}
	plan, err := r.Plan(true)
	if err != nil {
		return err
	}
	if !o.quiet || o.dryRun {
		io.note("%s", plan)
	}
	switch {
	case o.dryRun:
		return o.foretell(io, plan)
	case o.pretest:
		return o.worth(ctx, io, plan)
	}
	began := time.Now()
	res, err := o.learn(ctx, io, stop, plan, dir)
	res.Seconds = time.Since(began).Seconds()
	if err != nil {
		if errors.Is(err, federated.ErrStopped) || errors.Is(err, context.Canceled) {
			io.note("stopped after %d of %d rounds; go on with:\n  cohort assist --resume %s", res.Rounds, r.Most(), quote(dir))
		}
		return err
	}
	if err := res.compare(ctx, plan); err != nil {
		return err
	}
	if o.json {
		return io.json(res)
	}
	res.print(io, r)
	return nil
}

// compareWith puts into the recipe what the outcome is to be compared with, where the flag says so.
func (o *assistOptions) compareWith(r *recipe.Assist) error {
	switch o.bounds {
	case "":
		return nil
	case "none":
		r.Bounds = nil
		return nil
	}
	r.Bounds = strings.Split(o.bounds, ",")
	for _, name := range r.Bounds {
		if !slices.Contains(recipe.BoundNames(), name) {
			return usagef("--bounds: there is no %q; give none, or any of %s with commas between", name, strings.Join(recipe.BoundNames(), ", "))
		}
	}
	return nil
}

// compare computes what the recipe's bounds reach, and keeps it with the run.
func (a *assistance) compare(ctx context.Context, p *recipe.AssistPlan) error {
	if len(p.Recipe.Bounds) == 0 {
		return nil
	}
	b, err := backend.New("cpu", backend.Options{})
	if err != nil {
		return err
	}
	engine := train.NewEngine(b)
	defer engine.Close()
	if a.Bounds, err = p.Compare(ctx, engine); err != nil {
		return err
	}
	if err := recipe.KeepBounds(a.Run, a.Bounds); err != nil {
		return err
	}
	a.Report, err = recipe.WriteReport(a.Run)
	return err
}

// foretell says what would be sent.
func (o *assistOptions) foretell(io streams, p *recipe.AssistPlan) error {
	s, rounds := p.Sponsor, p.Recipe.Most()
	if units := p.Recipe.Activations(); units > 0 {
		o.foretellTurns(io, p, units)
		return nil
	}
	sent := s.Fit * p.Columns()
	up, down := 8*len(s.Keys)*s.Outputs(), 8*sent
	what := "residuals"
	if p.Labels() {
		what = "numbers, labels among them"
	}
	t := newTable("in a round", ">to each organisation", ">back")
	t.add("values", fmt.Sprintf("%d %s", sent, what), fmt.Sprintf("%d fitted values", len(s.Keys)*s.Outputs()))
	t.add("bytes", count(down), count(up))
	t.add(fmt.Sprintf("bytes of %d rounds", rounds), count(down*rounds), count(up*rounds))
	if p.Recipe.Recomputes() {
		t.add("bytes after the last, of models that rounds share", "0", count(up*rounds))
	}
	t.write(io.out)
	return nil
}

// foretellTurns says what would be sent where organisations take turns at a network: labels and the others' activations, and activations
// back.
func (o *assistOptions) foretellTurns(io streams, p *recipe.AssistPlan, units int) {
	s := p.Sponsor
	_, columns := s.Labels.Dims()
	turns := (p.Recipe.Rounds + len(p.Others)) / (1 + len(p.Others))
	down, up := 8*s.Fit*(columns+units), 8*len(s.Keys)*units
	t := newTable("in a turn, one a round", ">to the organisation", ">back")
	t.add("values", fmt.Sprintf("%d labels, %d activations", s.Fit*columns, s.Fit*units), fmt.Sprintf("%d activations", len(s.Keys)*units))
	t.add("bytes", count(down), count(up))
	t.add(fmt.Sprintf("bytes of %d turns", turns), count(down*turns), count(up*turns))
	t.write(io.out)
}

// worth asks whether assistance is worth while, and says so.
func (o *assistOptions) worth(ctx context.Context, io streams, p *recipe.AssistPlan) error {
	names, desks, err := p.Desks(func(string) (assisted.Store, error) { return assisted.NewStore(), nil })
	if err != nil {
		return err
	}
	m, err := p.Pretest(desks)
	if err != nil {
		return err
	}
	said := &pretests{P: map[string]float64{}}
	job := p.Job(m, names)
	job.Observer, job.Config.Rounds = said, 1
	if _, err := job.Run(ctx); err != nil {
		return err
	}
	if o.json {
		return io.json(struct {
			Schema int `json:"schema"`
			*pretests
		}{schema, said})
	}
	t := newTable("organisation", ">p", "")
	for _, name := range slices.Sorted(maps.Keys(said.P)) {
		t.add(name, fmt.Sprintf("%.3g", said.P[name]), al.Verdict(said.P[name]))
	}
	t.write(io.out)
	return nil
}

// pretests is an observer that keeps what tests of usefulness came to.
type pretests struct {
	P     map[string]float64 `json:"p"` // by organisation
	Notes []string           `json:"notes,omitempty"`
}

func (r *pretests) Progress(int, string, int, int) {}
func (r *pretests) Round(round simulation.Round) {
	for _, phase := range round.Phases {
		for _, m := range phase.Metrics {
			if m.Name == "useful.p" {
				r.P[m.Key] = m.Value
			}
		}
		r.Notes = append(r.Notes, phase.Notes...)
	}
}

// learn runs the plan in its folder.
func (o *assistOptions) learn(ctx context.Context, io streams, stop <-chan struct{}, p *recipe.AssistPlan, dir string) (assistance, error) {
	r := p.Recipe
	res := assistance{Schema: schema, Run: dir, Method: r.Method, Seed: r.Seed}
	engine, err := learner.Engine()
	if err != nil {
		return res, err
	}
	meta := record.Meta{Method: r.Method, Seed: r.Seed, Engine: engine.Engine, Kernels: engine.Path, Threads: engine.Threads, Cohort: version(), Command: commandLine()}
	open := func() (*record.Run, error) { return record.Create(dir, meta, r.YAML(), record.Options{}) }
	if o.resume {
		if old, err := record.ReadMeta(dir); err == nil && old.Kernels != engine.Path {
			io.note("the run was begun with the kernels %q and goes on with %q: what networks have still to learn will differ in the last bits from what it would have been", old.Kernels, engine.Path)
		}
		open = func() (*record.Run, error) { return record.Resume(dir, record.Options{}) }
	}
	run, err := open()
	if err != nil {
		return res, folderError(dir, err)
	}
	state, err := o.drive(ctx, io, stop, p, run)
	if e := run.Close(state, err); e != nil {
		err = errors.Join(err, e)
	}
	out, e := cameTo(dir)
	if e == nil {
		res = out
		res.Report, e = recipe.WriteReport(dir)
	}
	return res, cmp.Or(err, e)
}

func (o *assistOptions) drive(ctx context.Context, io streams, stop <-chan struct{}, p *recipe.AssistPlan, run *record.Run) (record.State, error) {
	names, desks, err := p.Desks(func(name string) (assisted.Store, error) {
		return journal.OpenValues(nil, filepath.Join(run.Dir(), recipe.ModelsName, name))
	})
	if err != nil {
		return record.Failed, err
	}
	m, err := p.Method(desks)
	if err != nil {
		return record.Failed, err
	}
	show := newProgress(io, p.Recipe.Most(), o.quiet || o.json)
	job := p.Job(m, names)
	job.Observer, job.Config.Stop = show, stop
	_, err = job.RunIn(ctx, run, journal.OS(), p.Recipe.Run.Checkpoint)
	show.wipe()
	return stateAfter(err), err
}

// cameTo reads what the run among organisations in a folder has come to.
func cameTo(dir string) (assistance, error) {
	a := assistance{Schema: schema, Run: dir, By: map[string]map[string]float64{}}
	run, m, err := recipe.Report(dir)
	if err != nil {
		return a, err
	}
	defer m.Close()
	a.State, a.Method, a.Seed, a.Digest = run.Meta.State, run.Meta.Method, run.Meta.Seed, run.Digest
	if a.Metrics, a.Rounds, err = recipe.LastMetrics(dir); err != nil {
		return a, err
	}
	if a.Bounds, err = recipe.BoundsOfRun(dir); err != nil {
		return a, err
	}
	again, err := m.Series(al.Again, "")
	if err != nil {
		return a, err
	}
	for _, p := range again {
		a.Refit = int(p.Value)
	}
	for _, name := range []string{"rows", "useful.p", "weight", "away", "contribution", "shapley", "links.wrong", "links.doubted", "links.explained", "links.spread"} {
		keys, err := m.Keys(name)
		if err != nil {
			return a, err
		}
		for _, key := range keys {
			points, err := m.Series(name, key)
			if err != nil {
				return a, err
			}
			if n := len(points); key != "" && n > 0 && (points[n-1].Round+1 == a.Rounds || name == "rows" || name == "useful.p" || strings.HasPrefix(name, "links.")) {
				if a.By[key] == nil {
					a.By[key] = map[string]float64{}
				}
				a.By[key][name] = points[n-1].Value
			}
		}
	}
	return a, nil
}

// told are the metrics of an outcome that people are told, best known first.
var told = []struct{ name, title string }{{"accuracy", "accuracy"}, {"auroc", "AUROC"}, {"rmse", "RMSE"}, {"mad", "MAD"}, {"loss", "loss on the test rows"},
	{"loss.train", "loss on the training rows"}}

// print tells people what came of a run.
func (a assistance) print(io streams, r *recipe.Assist) {
	head := []string{"", ">assisted"}
	var beside []string // bounds that stand after what is assisted; the sponsor alone stands before it
	for _, name := range recipe.BoundNames() {
		switch {
		case a.Bounds[name] == nil:
		case name == recipe.AloneBound:
			head = slices.Insert(head, 1, ">"+r.Sponsor+" alone")
		default:
			head, beside = append(head, ">"+recipe.BoundTitle(name)), append(beside, name)
		}
	}
	t := newTable(head...)
	for _, m := range told {
		v, ok := a.Metrics[m.name]
		if !ok {
			continue
		}
		row := []string{m.title}
		if alone := a.Bounds[recipe.AloneBound]; alone != nil {
			row = append(row, fmt.Sprintf("%.4g", alone[m.name]))
		}
		row = append(row, fmt.Sprintf("%.4g", v))
		for _, name := range beside {
			row = append(row, fmt.Sprintf("%.4g", a.Bounds[name][m.name]))
		}
		t.add(row...)
	}
	if len(a.Metrics) > 0 {
		t.write(io.out)
		io.say("")
	}
	models := map[string]string{r.Sponsor: r.Learner.Name}
	for _, o := range r.Organisations {
		models[o.Name] = o.Learner.Name
	}
	head = []string{"organisation", "model", ">weight in the last round", ">loss without it rises by", ">Shapley value"}
	columns := []string{"weight", "contribution", "shapley"}
	for _, by := range a.By {
		if _, tested := by["useful.p"]; tested && len(columns) == 3 {
			head, columns = append(head, ">p of the pre-test"), append(columns, "useful.p")
		}
	}
	t = newTable(head...)
	for _, name := range slices.Sorted(maps.Keys(a.By)) {
		row := []string{name, models[name]}
		for _, k := range columns {
			cell := "–"
			if v, ok := a.By[name][k]; ok {
				cell = fmt.Sprintf("%.3g", v)
			}
			row = append(row, cell)
		}
		if _, away := a.By[name]["away"]; away {
			row[2] = "away"
		}
		t.add(row...)
	}
	if len(a.By) > 0 {
		t.write(io.out)
		io.say("")
	}
	for _, name := range slices.Sorted(maps.Keys(a.By)) {
		if wrong, aligned := a.By[name]["links.wrong"]; aligned {
			io.say("%s aligned its rows: %.1f %% of its links seem wrong, %.0f are more likely wrong than right; its columns explain %.0f %% of what it was sent, and a row is spread over %.1f in the mean\n",
				name, 100*wrong, a.By[name]["links.doubted"], 100*a.By[name]["links.explained"], a.By[name]["links.spread"])
		}
	}
	if a.Refit > 0 {
		io.say("the last %d rounds are run again on all rows but those to test on\n", a.Refit)
	}
	io.say("run     %s\nreport  %s", a.Run, strings.TrimSpace(a.Report))
}
