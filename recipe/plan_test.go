package recipe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// small is a run of a fraction of a second in which everybody takes part and levels do not change.
const small = `
method: heterofl
rounds: 2
data: {name: glyphs, size: 8, train: 120, test: 60}
partition: {name: iid, clients: 6}
model: {name: cnn, widths: [4, 8]}
round: {fraction: 1}
train: {batch: 5}
options: {mode: a1-c2, levels: fixed}
`

func planOf(t *testing.T, text string, set ...string) (*Plan, *train.Engine) {
	t.Helper()
	r, err := Parse("test", []byte(text), set...)
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.Plan(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	e, _, err := r.Engine()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return p, e
}

func TestLevels(t *testing.T) {
	fixed, _ := planOf(t, small)
	dynamic, _ := planOf(t, small, "options.levels=dynamic")
	for name, p := range map[string]*Plan{"fixed": fixed, "dynamic": dynamic} {
		got, err := p.Levels()
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 2 || got[0].Name != "a" || got[0].Clients != 2 || got[1].Name != "c" || got[1].Clients != 4 {
			t.Errorf("%s: %+v, want 2 clients of level a and 4 of c", name, got)
		}
		// Convolutions 3×3 of 1→4→8 channels with bias, two norms, linear 32→10: widths of c are a quarter.
		if a, c := got[0].Params, got[1].Params; a != 9*4+4+2*4+9*4*8+8+2*8+8*10+10 || c != 9+1+2+9*2+2+2*2+2*10+10 {
			t.Errorf("%s: %d and %d parameters", name, a, c)
		}
	}
	same, _ := planOf(t, small, "method=fedavg")
	got, err := same.Levels()
	if err != nil || len(got) != 1 || got[0].Clients != 6 || got[0].Rate != 1 {
		t.Errorf("fedavg: %+v, %v", got, err)
	}
}

// traffic adds up what a run moves to train.
type traffic struct{ up, down, tasks, protocol float64 }

func (*traffic) Progress(int, string, int, int) {}

func (o *traffic) Round(r simulation.Round) {
	for _, p := range r.Phases {
		for _, m := range p.Traffic {
			switch method, step := federated.SplitPhase(p.Phase); {
			case !federated.Works(step):
				o.protocol += float64(m.Up + m.Down)
			case method == "train":
				o.up, o.down, o.tasks = o.up+float64(m.Up), o.down+float64(m.Down), o.tasks+float64(m.Members)
			}
		}
	}
}

// TestEstimateIsWhatIsMoved: where everybody takes part the counted bytes are those of the run.
func TestEstimateIsWhatIsMoved(t *testing.T) {
	for _, method := range []string{"heterofl", "fedavg", "scaffold", "lg-fedavg", "local", "centralised"} {
		p, e := planOf(t, small, "method="+method, "train.optimizer.momentum=0", "rounds=1")
		got, err := p.Estimate(t.Context(), e)
		if err != nil {
			t.Fatalf("%s: %v", method, err)
		}
		job, err := p.Job(e)
		if err != nil {
			t.Fatal(err)
		}
		moved := new(traffic)
		job.Observer = moved
		if _, err := job.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got.Up != moved.up || got.Down != moved.down || float64(got.Cohort) != moved.tasks {
			t.Errorf("%s: estimated %v up, %v down, %d tasks; moved %v, %v, %v", method, got.Up, got.Down, got.Cohort, moved.up, moved.down, moved.tasks)
		}
		if !(got.Seconds > 0) || !(got.Memory > 0) || got.Rounds != 1 {
			t.Errorf("%s: %+v", method, got)
		}
	}
}

// TestSecureEstimate: what secure sums move comes out close to what is counted, with masks and without.
func TestSecureEstimate(t *testing.T) {
	for _, set := range [][]string{
		{"secure={sums: plain}"}, {"secure={sums: masked}"}, {"secure={sums: masked, bits: 32, clip: 1, levels: 1024, max_weight: 100}", "partition.clients=12"},
	} {
		p, e := planOf(t, small, append(set, "method=fedavg", "options={}", "model={name: mlp, hidden: [16], norm: none}", "rounds=1")...)
		got, err := p.Estimate(t.Context(), e)
		if err != nil {
			t.Fatalf("%s: %v", set, err)
		}
		job, err := p.Job(e)
		if err != nil {
			t.Fatal(err)
		}
		moved := new(traffic)
		job.Observer = moved
		if _, err := job.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		for what, v := range map[string][2]float64{"up": {got.Up, moved.up}, "down": {got.Down, moved.down}, "protocol": {got.Protocol, moved.protocol}} {
			if d := v[0] - v[1]; d > 0.1*v[1] || d < -0.1*v[1] {
				t.Errorf("%s: %s: estimated %v, moved %v", set, what, v[0], v[1])
			}
		}
		if masked := p.Recipe.Secure.Sums == "masked"; masked != (got.Masking > 0) {
			t.Errorf("%s: %v seconds of masking", set, got.Masking)
		}
	}
}

// folder runs a recipe in a new folder.
func folder(t *testing.T, text string, set ...string) (dir string, p *Plan, e *train.Engine) {
	t.Helper()
	p, e = planOf(t, text, set...)
	dir = filepath.Join(t.TempDir(), "run")
	run, err := p.Create(dir, record.Meta{Engine: "test"}, record.Options{})
	if err != nil {
		t.Fatal(err)
	}
	job, err := p.Job(e)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := job.RunIn(t.Context(), run, journal.OS(), 1); err != nil {
		t.Fatal(err)
	}
	if err := run.Close(record.Finished, nil); err != nil {
		t.Fatal(err)
	}
	return dir, p, e
}

func TestFolder(t *testing.T) {
	dir, p, e := folder(t, small)
	r, err := OfRun(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !r.SameRun(p.Recipe) {
		t.Errorf("the recipe in the folder is another: %s", same(p.Recipe, r))
	}
	if err := CheckFolder(dir); err != nil {
		t.Error(err)
	}
	last, rounds, err := LastMetrics(dir)
	if err != nil || rounds != 2 {
		t.Fatalf("%d rounds, %v", rounds, err)
	}

	m, err := TrainedInRun(dir, "final")
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.Evaluate(t.Context(), e, p.Split.Test)
	if err != nil {
		t.Fatal(err)
	}
	if got.Accuracy != last["accuracy"] || math.Abs(got.Loss-last["loss"]) > 1e-6 {
		t.Errorf("measured again %v and %v, recorded %v and %v", got.Accuracy, got.Loss, last["accuracy"], last["loss"])
	}

	// Training a client's 20 examples twice takes three forward passes of each, twice.
	run, metrics, err := Report(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer metrics.Close()
	for i, l := range run.Levels {
		points, err := run.Metrics.Series("flops", l.Name)
		if err != nil || len(points) != 2 {
			t.Fatalf("flops of %s: %v, %v", l.Name, points, err)
		}
		if want := 2 * 3 * l.FLOPs * 20 * float64(l.Clients); points[0].Value != want || points[0].Round != 1 {
			t.Errorf("level %d: %+v, want %v in round 1", i, points[0], want)
		}
	}
	// Level a has the coordinates of both shells: those inside were trained by all 6 clients in both rounds.
	var total float64
	for _, n := range run.Updates[0].Counts {
		total += n
	}
	if total != float64(run.Levels[0].Params) {
		t.Errorf("%v coordinates counted, %d parameters", total, run.Levels[0].Params)
	}
	if path, err := WriteReport(dir); err != nil || filepath.Base(path) != record.ReportName {
		t.Errorf("%s, %v", path, err)
	}
}

func TestExportAndThin(t *testing.T) {
	dir, p, e := folder(t, small)
	m, err := TrainedInRun(dir, "final")
	if err != nil {
		t.Fatal(err)
	}
	whole, err := m.Thin(t.Context(), e, p.Split.Train, "a")
	if err != nil || whole != m {
		t.Errorf("the level of the whole model is another model: %v", err)
	}
	thin, err := m.Thin(t.Context(), e, p.Split.Train, "c")
	if err != nil {
		t.Fatal(err)
	}
	wide, narrow := m.Weights.Must("conv2.weight"), thin.Weights.Must("conv2.weight")
	for o := range 2 { // [8, 4, 3, 3] became [2, 1, 3, 3]: the leading channels
		for k := range 9 {
			if narrow.F32[o*9+k] != wide.F32[o*36+k] {
				t.Fatalf("output %d, tap %d: %v in the thin model, %v in the wide", o, k, narrow.F32[o*9+k], wide.F32[o*36+k])
			}
		}
	}
	if m.Stats.Len() != 4 || thin.Stats.Len() != 4 || thin.Stats.Must("norm2.running_mean").Len() != 2 {
		t.Errorf("statistics %v and %v", m.Stats.Names(), thin.Stats.Names())
	}
	if err := m.HasLevel("b"); err == nil || !strings.Contains(err.Error(), "the levels are a, c") {
		t.Errorf("a level that is not there: %v", err)
	}
	for name, x := range map[string]*Trained{"wide": m, "thin": thin} {
		file := filepath.Join(t.TempDir(), "sub", name+".safetensors")
		if _, err := x.WriteFile(file); err != nil {
			t.Fatal(err)
		}
		back, err := ReadTrained(file)
		if err != nil {
			t.Fatal(err)
		}
		if !back.Weights.Equal(x.Weights) || !back.Stats.Equal(x.Stats) || back.Card.Rate != x.Card.Rate {
			t.Errorf("%s: what is read back is not what was written", name)
		}
		a, err1 := x.Evaluate(t.Context(), e, p.Split.Test)
		b, err2 := back.Evaluate(t.Context(), e, p.Split.Test)
		if err1 != nil || err2 != nil || a.Loss != b.Loss {
			t.Errorf("%s: loss %v, of the file %v (%v, %v)", name, a.Loss, b.Loss, err1, err2)
		}
	}
}

// TestReadTrainedRefuses: whatever is wrong with a file or its card is an error, and nothing large is allocated for it.
func TestReadTrainedRefuses(t *testing.T) {
	dir, _, _ := folder(t, small, "rounds=1")
	m, err := TrainedInRun(dir, "final")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "m.safetensors")
	files, err := m.WriteFile(file)
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(files[1])
	if err != nil {
		t.Fatal(err)
	}
	for old, repl := range map[string]string{
		`"schema": 1`:           `"schema": 2`,
		`"architecture": "cnn"`: `"architecture": "cnm"`,
		`"rate": 1,`:            `"rate": 2,`,
		"8\n    ]":              "80000000\n    ]",
		"4,\n      8":           "4,\n      9",
		`"classes": 10`:         `"classes": 7`,
		`{`:                     `[`,
	} {
		card := strings.Replace(string(good), old, repl, 1)
		if card == string(good) {
			t.Fatalf("the card does not contain %q:\n%s", old, good)
		}
		if err := os.WriteFile(files[1], []byte(card), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadTrained(file); err == nil {
			t.Errorf("%s for %s is accepted", repl, old)
		}
	}
	if err := os.WriteFile(files[1], good, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := weights.WriteFile(file, m.Weights.Filter(func(n string) bool { return n != "conv1.bias" }), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadTrained(file); err == nil || !strings.Contains(err.Error(), "conv1.bias") {
		t.Errorf("a missing tensor: %v", err)
	}
}

func TestCardIsReadBack(t *testing.T) {
	p, _ := planOf(t, small)
	c, err := p.Card()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "card.json")
	if err := c.WriteFile(journal.OS(), file); err != nil {
		t.Fatal(err)
	}
	back, err := ReadCard(file)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(c)
	b, _ := json.Marshal(back)
	if !bytes.Equal(a, b) {
		t.Errorf("read back otherwise:\n%s\n%s", a, b)
	}
}

func TestMissingData(t *testing.T) {
	for _, set := range []string{"data.name=mnist", "data.name=cifar10"} {
		for _, dir := range []string{"", t.TempDir()} {
			r, err := Parse("r.yaml", []byte(small), set)
			if err != nil {
				t.Fatal(err)
			}
			_, err = r.Plan(t.Context(), dir)
			var missing *MissingDataError
			if !errors.As(err, &missing) {
				t.Errorf("%s in %q: %v", set, dir, err)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := Parse("r.yaml", []byte(small))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Plan(ctx, ""); err == nil {
		t.Error("a plan was made although it was cancelled")
	}
}

// TestMetricsMayDiffer: on another engine, a run verifies within the tolerance; one with another recipe does not.
func TestMetricsMayDiffer(t *testing.T) {
	dir, _, _ := folder(t, small)
	p, e := planOf(t, small, "run.engine=go")
	job, err := p.Job(e)
	if err != nil {
		t.Fatal(err)
	}
	job.Observer = new(traffic)
	rounds, worst, err := VerifyMetrics(t.Context(), job, dir)
	if err != nil || rounds != 2 || worst > 0.02 {
		t.Errorf("%d rounds, worst %v, %v", rounds, worst, err)
	}
	p, e = planOf(t, small, "train.optimizer.rate=1.5")
	if job, err = p.Job(e); err != nil {
		t.Fatal(err)
	}
	job.Observer = new(traffic)
	var far *ToleranceError
	if _, _, err := VerifyMetrics(t.Context(), job, dir); !errors.As(err, &far) {
		t.Errorf("another learning rate: %v", err)
	}
}

func TestMeanOf(t *testing.T) {
	if m := meanOf([]float64{1, 2, 3, 6}); m.Mean != 3 || math.Abs(m.SD-math.Sqrt(14.0/3)) > 1e-12 || m.N != 4 {
		t.Errorf("%+v", m)
	}
	if m := meanOf([]float64{5}); m.Mean != 5 || m.SD != 0 {
		t.Errorf("%+v", m)
	}
}
