package recipe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/methods"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/weights"
)

// A way is what a method may be put together with: a column of docs/composition.md.
type way struct {
	title string
	// change puts it into a recipe; nil: nothing has to be said.
	change func(*Recipe)
	// try asks whether it goes with the recipe, and does it; nil: the recipe is run.
	try func(t *testing.T, r *Recipe) error
}

// ways are the columns. An error from planning is a no, and its words are the reason in the table; everything else must run.
var ways = []way{
	{title: "secure sums", change: func(r *Recipe) { r.Secure.Sums = "masked" }},
	{title: "differential privacy", change: noisy},
	{title: "both, noise by clients", change: func(r *Recipe) {
		noisy(r)
		r.Secure.Sums, r.Privacy.Distributed, r.Privacy.Noise = "masked", true, 1
	}},
	{title: "median, trimmed mean", change: func(r *Recipe) { r.Robust.Rule = "median" }},
	{title: "Krum, Bulyan", change: func(r *Recipe) { r.Robust.Rule, r.Robust.Liars = "bulyan", 1 }},
	{title: "levels", try: tryLevels},
	{title: "serve and join", try: tryNetwork},
	{title: "asynchronous", change: func(r *Recipe) {
		r.Round.Staleness, r.Round.Quorum, r.Round.Discount, r.Clients.Latency, r.Clients.Jitter = 2, 0.5, 0.5, time.Second, 1
	}},
	{title: "relays", try: tryRelays},
}

func noisy(r *Recipe) {
	r.Privacy.Noise, r.Privacy.Clip, r.Evaluate.Clients = 0.5, 1, false
}

// suit changes the recipe that all methods are tried on for those that need something of their own: a new method whose recipe
// does not run as it is adds itself here.
var suit = map[string]func(*Recipe){
	"heterofl": wide, "fedrolex": wide, "feddropout": wide, "fjord": wide,
	"semifl": labelled, "fedavg-fixmatch": labelled, "fedsgd-fixmatch": labelled, "fedmatch": labelled,
	"personalfr": tasted, "joint-ars": tasted, "fcf": factored, "joint-als": factored, "item-mean": factored, "popularity": factored,
	"fedrgd": func(r *Recipe) { // two groups, each of which a rule must be able to read
		labelled(r)
		r.Partition.Clients = 16
	},
}

// given are options that a method needs in one way, by method and title; the table names them.
var given = map[[2]string][2]string{
	{"selffl", "secure sums"}: {"stale", "drop"},
	{"selffl", "levels"}:      {"stale", "drop"},
}

// labelled gives the server labelled images, and lets clients learn from labels that are not sure at all, as those of two rounds are.
func labelled(r *Recipe) {
	r.Data.Train, r.Partition.Server = 240, 80
	r.Model = Model{Name: "cnn", Config: nn.Config{Widths: []int{8, 16}, Norm: nn.GroupNorm}}
	r.set("options.threshold", "0.1")
}

// tasted is ratings, and a model of them.
func tasted(r *Recipe) {
	r.Data = dataset.Spec{Name: "tastes", Users: 32, Items: 30}
	r.Partition.Name = "users"
	r.Model = Model{Name: "ars", Config: nn.Config{Hidden: []int{16, 8}}}
}

// factored is ratings, and a model of factors.
func factored(r *Recipe) {
	tasted(r)
	r.Model = Model{Name: "linear"}
}

// wide is a model that has levels a and b.
func wide(r *Recipe) { r.set("options.mode", "a1-b1") }

// tried is the recipe that a method is tried on: eight clients, two rounds, a small perceptron.
func tried(t *testing.T, method string) *Recipe {
	t.Helper()
	r, err := Default(method)
	check(t, err)
	r.Rounds = 2
	r.Data = dataset.Spec{Name: "glyphs", Size: 8, Train: 160, Test: 80}
	r.Partition = dataset.Scheme{Name: "iid", Clients: 8}
	r.Model = Model{Name: "mlp", Config: nn.Config{Hidden: []int{16}}}
	r.Train.Epochs, r.Train.Batch = 1, 10
	r.Round.Fraction = 1
	r.Evaluate.Every = 2
	if change := suit[method]; change != nil {
		change(r)
	}
	return r
}

// set sets an option as the command line would.
func (r *Recipe) set(field, value string) {
	x, err := Parse("", r.YAML(), field+"="+value)
	if err != nil {
		panic(err)
	}
	*r = *x
}

// TestComposition tries every method in every way: those that docs/composition.md says yes to run, the others are refused in its
// words. With -update it writes the page.
func TestComposition(t *testing.T) {
	var rows [][]string
	var reasons []string
	for _, m := range methods.All() {
		row := []string{m.Title}
		t.Run(m.Name, func(t *testing.T) {
			if err := simulate(t, tried(t, m.Name)); err != nil {
				t.Fatalf("%v\nsay in suit, in this file, what the method needs", err)
			}
			for _, w := range ways {
				r := tried(t, m.Name)
				if w.change != nil {
					w.change(r)
				}
				try := w.try
				if try == nil {
					try = simulate
				}
				cell := "yes"
				if option, ok := given[[2]string{m.Name, w.title}]; ok {
					r.set("options."+option[0], option[1])
					cell = fmt.Sprintf("yes, with `%s: %s`", option[0], option[1])
				}
				if err := try(t, r); err != nil {
					why := reason(err)
					i := slices.Index(reasons, why)
					if i < 0 {
						i, reasons = len(reasons), append(reasons, why)
					}
					cell = fmt.Sprintf("no [%d]", i+1)
				}
				row = append(row, cell)
			}
		})
		rows = append(rows, row)
	}
	if t.Failed() {
		return
	}
	page := composed(rows, reasons)
	path := filepath.Join("..", "docs", "composition.md")
	if *update {
		check(t, os.WriteFile(path, []byte(page), 0o644))
		return
	}
	old, err := os.ReadFile(path)
	check(t, err)
	if string(old) != page {
		t.Errorf("%s is not what the program does; look at the difference after\n  go test ./recipe -run TestComposition -update", path)
	}
}

// reason is an error in a line of its own words, without the place where it was found.
func reason(err error) string {
	var place *Error
	if errors.As(err, &place) {
		err = place.Err
	}
	var field *FieldError
	if errors.As(err, &field) {
		err = field.Err
	}
	return strings.ReplaceAll(err.Error(), "\n", " ")
}

// composed is the page.
func composed(rows [][]string, reasons []string) string {
	var b strings.Builder
	b.WriteString(`# What goes together

Every method with everything that can be put around it, as the program has it: a test runs each *yes* in a small way, and asks
each *no* for its words, which stand below. A recipe that puts together what does not go is refused before anything is computed.

`)
	b.WriteString("| method |")
	for _, w := range ways {
		b.WriteString(" " + w.title + " |")
	}
	b.WriteString("\n|" + strings.Repeat(" --- |", len(ways)+1) + "\n")
	for _, row := range rows {
		b.WriteString("| " + strings.Join(row, " | ") + " |\n")
	}
	b.WriteString(`
- **secure sums**: the section ` + "`secure`" + ` of a recipe, with masks. **differential privacy**: the section ` + "`privacy`" + `, with noise by the
  server; **noise by clients** needs both. For both, clients do not evaluate, and the model has no batch norm.
- **median, trimmed mean** and the other rules that look at each coordinate by itself, over those that hold it; **Krum, Bulyan** compare
  whole updates ([robust.md](robust.md)).
  Local only and centralised send nothing, so that rules have nothing to do there.
- **levels**: clients of unequal strength train nested parts of the model, as HeteroFL has it.
- **serve and join**: coordinator and clients plan apart, and the run has the bits of the simulation ([network.md](network.md)).
- **asynchronous**: rounds overlap, and late answers count less. **relays**: results are added before they reach the coordinator.

Why not:

`)
	for i, r := range reasons {
		fmt.Fprintf(&b, "%d. %s\n", i+1, r)
	}
	return b.String()
}

// simulate plans a recipe and runs it. Errors of planning are returned; a run that was planned must work.
func simulate(t *testing.T, r *Recipe) error {
	t.Helper()
	p, err := r.Plan(t.Context(), "")
	if err != nil {
		return err
	}
	simulated(t, p)
	return nil
}

func simulated(t *testing.T, p *Plan) federated.State {
	t.Helper()
	e, _, err := p.Recipe.Engine()
	check(t, err)
	defer e.Close()
	job, err := p.Job(e)
	check(t, err)
	failed := &failures{}
	job.Observer = failed
	s, err := job.Run(t.Context())
	check(t, err)
	if len(failed.all) > 0 {
		t.Errorf("%s: %v", p.Recipe.Method, failed.all)
	}
	if s.Round != 2 {
		t.Errorf("%s: %d rounds", p.Recipe.Method, s.Round)
	}
	return s
}

// failures are those of a run, and notes of rounds that came to nothing. Clients that are too late are none.
type failures struct{ all []string }

func (*failures) Progress(int, string, int, int) {}

func (f *failures) Round(r simulation.Round) {
	for _, p := range r.Phases {
		for _, x := range p.Failed {
			if !strings.Contains(x.Reason, "had not answered") && !strings.Contains(x.Reason, "versions late") && !strings.Contains(x.Reason, "not folded before") {
				f.all = append(f.all, fmt.Sprintf("round %d, %s: %s: %s", p.Round, p.Phase, x.Member, x.Reason))
			}
		}
		for _, n := range p.Notes {
			if strings.Contains(n, "failed") || strings.Contains(n, "stays as it is") {
				f.all = append(f.all, fmt.Sprintf("round %d, %s: %s", p.Round, p.Phase, n))
			}
		}
	}
}

// tryLevels asks the recipe for a mixture of levels.
func tryLevels(t *testing.T, r *Recipe) error {
	x, err := Parse("test", r.YAML(), "options.mode=a1-b1")
	if err != nil {
		return errors.New("clients of this method all train the whole model: it has no levels, options.mode")
	}
	return simulate(t, x)
}

// tryNetwork plans coordinator and clients apart, each client with nothing but its own data, and holds the run against the
// simulation. (That processes do the same over a network is tested where they are.)
func tryNetwork(t *testing.T, r *Recipe) error {
	ctx := t.Context()
	whole, err := r.Plan(ctx, "")
	check(t, err)
	want := simulated(t, whole)
	dir := filepath.Join(t.TempDir(), "shares")
	manifest, err := whole.Dealt.Export(ctx, dir, whole.Split.Train, whole.Split.Test)
	check(t, err)
	server, err := r.PlanServer(ctx, ServerData{})
	if err != nil {
		return err
	}
	if err := server.CheckMembers(ctx, whole.Dealt.Train.Clients()); err != nil {
		return err
	}
	e, _, err := r.Engine()
	check(t, err)
	defer e.Close()
	fleet := &simulation.Fleet{Split: whole.Split, Dealt: whole.Dealt, Engine: e, Seed: r.Seed}
	apart := parties{}
	for k := range fleet.Len() {
		mine, err := r.LoadMember(ctx, filepath.Join(dir, manifest.Members[k].Folder), server.Schema)
		check(t, err)
		p, err := r.PlanMember(server.Schema, mine, nil)
		check(t, err)
		a, err := p.Algorithm()
		check(t, err)
		apart[fleet.Member(k).Name] = party{p, a.Client()}
	}
	a, err := server.Algorithm()
	check(t, err)
	if err := a.Check(server.Server(e, fleet)); err != nil {
		return err
	}
	members := &fedtest.Members{Client: apart, Local: func(m federated.Member) federated.Local { return apart[m.Name].plan.Local(e, m) }}
	got, err := federated.Run(ctx, a, server.Server(e, fleet), members, &fedtest.Trace{Members: members}, server.Recipe.driven(), nil)
	check(t, err)
	if got.Digest() != want.Digest() {
		t.Errorf("%s: planned apart, the run comes to another state than the simulation", r.Method)
	}
	return nil
}

// parties are clients that have planned by themselves, by name.
type parties map[string]party

type party struct {
	plan   *MemberPlan
	client federated.Client
}

// Run has the one of them answer that is asked.
func (p parties) Run(ctx context.Context, at federated.Local, task federated.Task, keep *weights.Set) (federated.Result, error) {
	return p[at.Member.Name].client.Run(ctx, at, task, keep)
}

// tryRelays asks whether results may be added on their way, adds them, and holds the run against the simulation.
func tryRelays(t *testing.T, r *Recipe) error {
	p, err := r.Plan(t.Context(), "")
	check(t, err)
	e, _, err := r.Engine()
	check(t, err)
	defer e.Close()
	job, err := p.Job(e)
	check(t, err)
	srv := job.Fleet.Server()
	s, err := job.Algorithm.Init(t.Context(), srv)
	check(t, err)
	if err := r.driven().Summable(job.Algorithm, s); err != nil {
		return err
	}
	relay := &relayed{Members: fedtest.Members{Client: job.Algorithm.Client(), Local: job.Fleet.Local}}
	got, err := federated.Run(t.Context(), job.Algorithm, srv, relay, &fedtest.Trace{Members: &relay.Members}, r.driven(), nil)
	check(t, err)
	if want := simulated(t, p); got.Digest() != want.Digest() {
		t.Errorf("%s: behind a relay, the run comes to another state", r.Method)
	}
	return nil
}

// relayed are members whose results come added.
type relayed struct {
	fedtest.Members
	out int
}

// Issue implements [federated.Members].
func (m *relayed) Issue(ctx context.Context, o *federated.Order) error {
	m.out++
	return m.Members.Issue(ctx, o)
}

// Next implements [federated.Members]: all that is in flight, as one answer.
func (m *relayed) Next(ctx context.Context, deadline time.Duration) (*federated.Answer, error) {
	var all federated.Partial
	var sums *federated.Combiner
	for ; m.out > 0; m.out-- {
		a, err := m.Members.Next(ctx, deadline)
		if err != nil {
			return nil, err
		}
		if sums == nil {
			sums = federated.NewCombiner(federated.Phase{Name: a.Order.Phase, Folds: a.Order.Folds})
		}
		part := federated.Part{Order: a.Order, Task: a.Task, Err: a.Err,
			Result: federated.Result{Status: a.Result.Status, Weight: a.Result.Weight, Scalars: a.Result.Scalars}}
		for _, s := range a.Result.Addends {
			part.Bytes += s.Bytes()
		}
		if a.Err == nil && a.Result.Status == federated.Done {
			if part.Err = sums.Add(a.Task, a.Result); part.Err == nil && a.Result.Keep != nil {
				if err := m.Keep(a.Order.Member.Index, a.Result.Keep); err != nil {
					return nil, err
				}
			}
		}
		all.Parts = append(all.Parts, part)
	}
	all.Sums = sums.Sums()
	return &federated.Answer{Order: all.Parts[0].Order, Partial: &all}, nil
}
