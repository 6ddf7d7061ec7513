package systemtest

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/node/member"
	"github.com/cohort-learning/cohort/recipe"
	metrics "github.com/cohort-learning/cohort/record"
)

// own is a run whose members keep models of their own.
const own = `rounds: 3
data: {name: glyphs, size: 12, train: 500, test: 100}
partition: {name: classes, clients: 5, per_client: 4}
model: {name: cnn, widths: [8, 16], norm: gn}
train: {epochs: 1, batch: 10, optimizer: {name: sgd, rate: 0.05, momentum: 0}}
round: {fraction: 1}
`

// TestPersonal holds federations of processes whose members keep models of their own against simulations: the shared state comes to
// the same bits, and so does what the members measure of their own models, also where a member is killed in the middle.
func TestPersonal(t *testing.T) {
	brief(t)
	for name, options := range map[string]string{
		"fedrep": "{head_epochs: 2, body_epochs: 1}", "ditto": "{lambda: 1}", "apfl": "{adaptive: true}", "per-fedavg": "{alpha: 0.05}",
	} {
		t.Run(name, func(t *testing.T) {
			f := newFederation(t, "method: "+name+"\n"+own+"options: "+options+"\n", 5)
			want := f.simulate()
			f.open()
			f.joinAll()
			if name == "fedrep" || name == "ditto" {
				victim := f.members[2]
				if !f.reach(34) { // about the middle: 12 records of joining, and about two dozen a round
					t.Fatal("the run was over")
				}
				victim.kill()
				f.join(victim)
			}
			f.finish()
			if got := digestOf(t, f.run()); got != want {
				t.Errorf("the network comes to %s, the simulation to %s", got, want)
			}
			for _, metric := range []string{"accuracy.personal", "accuracy.personal.worst", "loss.personal"} {
				got, want := values(t, f.run(), metric), values(t, filepath.Join(f.dir, "simulation"), metric)
				if len(want) != 3 || !slices.Equal(got, want) {
					t.Errorf("%s: the network measures %v, the simulation %v", metric, got, want)
				}
			}
			f.verify()
			f.ownModels()
		})
	}
}

// ownModels holds the model that each member makes for itself, of what lies in its own folder, against that of the simulation.
func (f *federation) ownModels() {
	f.t.Helper()
	e := fedtest.Engine(f.t, backend.Default())
	for _, m := range f.members {
		j, err := member.ReadJoined(f.t.Context(), m.dir, "")
		if err != nil {
			f.t.Fatal(err)
		}
		got, err := j.Own(f.t.Context(), e)
		if err != nil {
			f.t.Fatal(err)
		}
		want, err := recipe.OwnInRun(f.t.Context(), e, filepath.Join(f.dir, "simulation"), m.name, "")
		if err != nil {
			f.t.Fatal(err)
		}
		if !got.Weights.Equal(want.Weights) {
			f.t.Errorf("%s: the model of its own is not that of the simulation\n%s", m.name, m.out.tail(100))
		}
		told, err := got.EvaluateOwn(f.t.Context(), e)
		if err != nil || told.N == 0 {
			f.t.Errorf("%s: its own tests, of %d examples: %v", m.name, told.N, err)
		}
		if same, err := want.EvaluateOwn(f.t.Context(), e); err != nil || told.Correct != same.Correct {
			f.t.Errorf("%s: its model is right %d times of %d, the simulation's %d times (%v)", m.name, told.Correct, told.N, same.Correct, err)
		}
	}
}

// values are those of a metric, round by round.
func values(t *testing.T, dir, metric string) (v []float64) {
	t.Helper()
	for _, p := range series(t, dir, metric, "") {
		v = append(v, p.Value)
	}
	return v
}

// series reads a metric of a run, of the whole or by a key.
func series(t *testing.T, dir, metric, key string) []metrics.Point {
	t.Helper()
	m, err := metrics.ReadMetrics(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	points, err := m.Series(metric, key)
	if err != nil {
		t.Fatal(err)
	}
	return points
}
