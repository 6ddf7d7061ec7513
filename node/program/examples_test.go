package program_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/node/program"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/weights"
)

// python returns an interpreter with PyTorch, scikit-learn, XGBoost and NumPy, which COHORT_PYTHON names.
func python(t *testing.T) string {
	t.Helper()
	p := os.Getenv("COHORT_PYTHON")
	if p == "" {
		t.Skip("set COHORT_PYTHON to an interpreter with the packages of examples/*/*/requirements.txt to test what is written in Python")
	}
	return p
}

func example(t *testing.T, data, name string) program.Options {
	t.Helper()
	script, err := filepath.Abs(filepath.Join("..", "..", "examples", "trainers", name, "train.py"))
	check(t, err)
	return program.Options{Command: []string{python(t), script}, Data: data, Dir: t.TempDir()}
}

// On full batches nothing is random, so that the PyTorch trainer takes the steps of our own client, but for rounding: with
// momentum, decay, clipping, the proximal term, the Scaler at a thin level, and masked classes.
func TestPyTorch(t *testing.T) {
	full := strings.ReplaceAll(small, "train: {batch: 5}", "train: {batch: 0, epochs: 3, optimizer: {name: sgd, rate: 0.05, momentum: 0.9, decay: 0.001}}")
	for name, text := range map[string]string{
		"fedavg": "method: fedavg" + full,
		"fedprox with adam": "method: fedprox" + strings.NewReplacer("name: sgd, rate: 0.05, momentum: 0.9", "name: adam, rate: 0.002, momentum: 0",
			"widths: [4, 8]", "widths: [4, 8], norm: none").Replace(full) + "options: {mu: 0.5}\n",
		"heterofl":             "method: heterofl" + full + "options: {mode: a1-c2, levels: fixed}\n",
		"heterofl, group norm": "method: heterofl" + strings.ReplaceAll(full, "widths: [4, 8]", "widths: [16, 16], norm: gn") + "options: {mode: a1-c2, levels: fixed, mask: exclude}\n",
	} {
		t.Run(name, func(t *testing.T) {
			o := example(t, "", "pytorch")
			b := newBench(t, text)
			o.Data = b.data
			at, task := b.plan.Local(b.engine, b.member), b.task(t)
			want, err := b.method.Client().Run(t.Context(), at, task, nil)
			check(t, err)
			got, err := b.client(t, o).Run(t.Context(), at, task, nil)
			check(t, err)
			d := got.Addends["w"].Sub(want.Addends["w"])
			size, far := want.Addends["w"].Norm(), d.Norm()
			if !(far < 1e-3*size) || got.Weight != want.Weight || size == 0 {
				t.Errorf("the deltas of norm %g differ by %g; weights %d and %d", size, far, got.Weight, want.Weight)
			}
			for k, v := range want.Scalars {
				if !(abs(got.Scalars[k]-v) < 1e-3*abs(v)) {
					t.Errorf("%s is %v, want %v", k, got.Scalars[k], v)
				}
			}
			t.Logf("relative distance %.1g", far/size)
		})
	}
}

func abs(x float64) float64 { return max(x, -x) }

// mixed is an algorithm of which some members use a program.
type mixed struct {
	federated.Algorithm
	with map[string]federated.Client // by the member's name
}

func (m mixed) Client() federated.Client { return mixedClient{m} }

type mixedClient struct{ mixed }

func (c mixedClient) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	if p, ok := c.with[at.Member.Name]; ok {
		return p.Run(ctx, at, t, keep)
	}
	return c.Algorithm.Client().Run(ctx, at, t, keep)
}

// last is the last value of a metric.
type last struct {
	metric string
	value  float64
}

func (*last) Progress(int, string, int, int) {}

func (l *last) Round(r simulation.Round) {
	if v := r.Metric(l.metric, ""); v == v {
		l.value = v
	}
}

// run runs a recipe of which every so-manieth member trains with a program in Python, and returns the last value of a metric.
func run(t *testing.T, text, metric, trainer string, every int) float64 {
	t.Helper()
	ctx := t.Context()
	r, err := recipe.Parse("test", []byte(text))
	check(t, err)
	plan, err := r.Plan(ctx, os.Getenv("COHORT_DATA"))
	check(t, err)
	e, _, err := r.Engine()
	check(t, err)
	defer e.Close()
	job, err := plan.Job(e)
	check(t, err)
	server, err := r.PlanServer(ctx, recipe.ServerData{Dir: os.Getenv("COHORT_DATA")})
	check(t, err)
	dir := filepath.Join(t.TempDir(), "shares")
	m, err := plan.Dealt.Export(ctx, dir, plan.Split.Train, plan.Split.Test)
	check(t, err)
	with := map[string]federated.Client{}
	for k, member := range m.Members {
		if every == 0 || k%every != 0 {
			continue
		}
		mine, err := r.PlanMember(server.Schema, nil, nil)
		check(t, err)
		c, err := program.New(mine, example(t, filepath.Join(dir, member.Folder), trainer))
		check(t, err)
		with[member.Name] = c
	}
	seen := &last{metric: metric}
	job.Algorithm, job.Observer = mixed{job.Algorithm, with}, seen
	_, err = job.Run(ctx)
	check(t, err)
	return seen.value
}

// A federation in which half of the members train with PyTorch learns as one of ours does.
func TestMixedFederation(t *testing.T) {
	python(t)
	clients, rounds, examples := 2, 4, 300
	if os.Getenv("COHORT_THOROUGH") != "" {
		clients, rounds, examples = 4, 10, 1600
	}
	text := fmt.Sprintf(`
method: fedavg
rounds: %d
data: {name: glyphs, size: 12, train: %d, test: 400}
partition: {name: iid, clients: %d}
model: {name: cnn, widths: [8, 16]}
round: {fraction: 1}
train: {epochs: 3}
evaluate: {every: %d}
`, rounds, examples, clients, rounds)
	ours, half := run(t, text, "accuracy", "", 0), run(t, text, "accuracy", "pytorch", 2)
	t.Logf("accuracy after %d rounds of %d members: %.3f; with PyTorch at half of them %.3f", rounds, clients, ours, half)
	if half < 0.2 || half < ours-0.1 {
		t.Errorf("accuracy %.3f, with PyTorch at half of the members %.3f", ours, half)
	}
}

func TestScikitLearn(t *testing.T) {
	python(t)
	classes := `
method: fedavg
rounds: 3
data: {name: synthetic, clients: 4, train: 800, test: 300, alpha: -1, beta: -1}
partition: {name: iid, clients: 2}
model: {name: linear}
round: {fraction: 1}
train: {epochs: 5}
evaluate: {every: 2}
`
	ours, theirs := run(t, classes, "accuracy", "", 0), run(t, classes, "accuracy", "sklearn", 1)
	t.Logf("accuracy %.3f, with scikit-learn %.3f", ours, theirs)
	if theirs < 0.6 || theirs < ours-0.1 {
		t.Errorf("accuracy %.3f with scikit-learn, %.3f with our own clients", theirs, ours)
	}
	pictures := `
method: fedavg
rounds: 2
data: {name: glyphs, size: 8, train: 600, test: 300}
partition: {name: classes, clients: 5, per_client: 4}
model: {name: linear}
round: {fraction: 1}
evaluate: {every: 2}
train: {epochs: 5, batch: 10}
`
	ours, theirs = run(t, pictures, "accuracy", "", 0), run(t, pictures, "accuracy", "sklearn", 1)
	t.Logf("on pictures: accuracy %.3f, with scikit-learn %.3f", ours, theirs)
	if theirs < ours-0.2 {
		t.Errorf("on pictures: accuracy %.3f with scikit-learn, %.3f with our own clients", theirs, ours)
	}
	var table strings.Builder
	table.WriteString("a,b,y\n")
	for i := range 120 {
		a, b := float64(i%11)/11, float64(i%7)/7
		table.WriteString(strings.Join([]string{number(a), number(b), number(3*a - 2*b + 1)}, ",") + "\n")
	}
	path := filepath.Join(t.TempDir(), "t.csv")
	check(t, os.WriteFile(path, []byte(table.String()), 0o600))
	quantity := `
method: fedavg
rounds: 3
data: {name: csv, path: ` + path + `, target: y}
partition: {name: iid, clients: 2}
model: {name: linear}
round: {fraction: 1}
train: {epochs: 5, optimizer: {name: sgd, rate: 0.01}}
evaluate: {every: 2}
`
	if r2 := run(t, quantity, "r2", "sklearn", 1); r2 < 0.98 {
		t.Errorf("R² %.4f of a linear function", r2)
	}
}

func number(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }
