package systemtest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// alliance is a federation of organisations with different columns of the same people: a bank that knows who left, a telephone
// company and a shop, each with its own kind of model.
func alliance(t *testing.T, keys string) *federation {
	t.Helper()
	f := &federation{t: t, program: binary(t), dir: t.TempDir(), began: time.Now()}
	f.recipe = filepath.Join(f.dir, "run.yaml")
	var bank, telephone, shop strings.Builder
	bank.WriteString("id,income,left\n")
	telephone.WriteString("number,calls,complaints\n")
	shop.WriteString("customer,spent,city\n")
	r := rand.New(rand.NewPCG(3, 4))
	const n = 300
	for _, i := range r.Perm(n) {
		income, calls, complaints, spent := r.NormFloat64(), r.NormFloat64(), r.NormFloat64(), r.NormFloat64()
		left := "no"
		if income+1.5*calls-complaints+math.Abs(spent)+.3*r.NormFloat64() > .8 {
			left = "yes"
		}
		fmt.Fprintf(&bank, "p%03d,%.4f,%s\n", i, income, left)
		fmt.Fprintf(&telephone, "p%03d,%.4f,%.4f\n", i, calls, complaints)
		if i%15 != 0 {
			fmt.Fprintf(&shop, "p%03d,%.4f,%s\n", i, spent, []string{"Ulm", "Bern"}[i%2])
		}
	}
	write := func(name, text string) string {
		path := filepath.Join(f.dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	f.listen = fmt.Sprintf("127.0.0.1:%d", freePort(t))
	f.url = "https://" + f.listen
	for _, m := range []struct {
		name, text string
		args       []string
	}{
		{"bank", bank.String(), []string{"--key", "id", "--columns", "income", "--learner", "ridge"}},
		{"telephone", telephone.String(), []string{"--key", "number", "--learner", "boosted"}},
		{"shop", shop.String(), []string{"--key", "customer", "--learner", "forest"}},
	} {
		f.members = append(f.members, &party{name: m.name, dir: filepath.Join(f.dir, m.name), data: write(m.name+".csv", m.text), args: m.args})
	}
	write("run.yaml", `name: run
method: gal
seed: 5
rounds: 5
sponsor: bank
learner: {name: ridge}
rows: {solve: 0.2, test: 0.3}
table: {path: bank.csv, key: id, target: left, columns: [income]}
keys: `+keys+`
organisations:
  - {name: telephone, table: {path: telephone.csv, key: number}, learner: {name: boosted}}
  - {name: shop, table: {path: shop.csv, key: customer}, learner: {name: forest}}
options: {patience: 0, disclose: labels}
`)
	return f
}

// Organisations in processes of their own, over TLS, come to the same bits as on one machine: with plain keys in everything, with
// private ones, which are other tokens in every run, in what is predicted. A member and the coordinator are killed on the way.
func TestAssist(t *testing.T) {
	for _, keys := range []string{"plain", "private"} {
		t.Run(keys, func(t *testing.T) {
			f := alliance(t, keys)
			one := filepath.Join(f.dir, "one")
			run(t, f.program, "assist", f.recipe, "--quiet", "--bounds=none", "--dir", one)
			f.open()
			f.joinAll()
			if !f.reach(20) {
				t.Fatal("the run was over")
			}
			victim := f.members[1]
			victim.kill()
			f.killCoordinator(100 * time.Millisecond)
			f.join(victim)
			f.finish()
			if keys == "plain" {
				if got, want := digestOf(t, f.run()), digestOf(t, one); got != want {
					t.Errorf("the network comes to %s, one machine to %s", got, want)
				}
			}
			for _, metric := range []string{"loss.train", "loss", "accuracy", "rate"} {
				got, want := values(t, f.run(), metric), values(t, one, metric)
				if len(want) != 5 || !slices.Equal(got, want) {
					t.Errorf("%s: the network has %v, one machine %v", metric, got, want)
				}
			}
			if acc := values(t, f.run(), "accuracy"); acc[len(acc)-1] < .75 {
				t.Errorf("accuracy %v", acc)
			}
		})
	}
}

// Networks that share a model over all rounds come to the same bits over a network as on one machine, also where the member that has
// one is killed on the way and goes on with what it has kept.
func TestAssistShared(t *testing.T) {
	f := alliance(t, "plain")
	text, err := os.ReadFile(f.recipe)
	if err == nil {
		text = []byte(strings.NewReplacer("{name: forest}", "{name: mlp}", "patience: 0", "patience: 0, dms: warm").Replace(string(text)))
		err = os.WriteFile(f.recipe, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	shop := f.members[2]
	shop.args = []string{"--key", "customer", "--learner", "mlp"}
	one := filepath.Join(f.dir, "one")
	run(t, f.program, "assist", f.recipe, "--quiet", "--bounds=none", "--dir", one)
	f.open()
	f.joinAll()
	if !f.reach(20) {
		t.Fatal("the run was over")
	}
	shop.kill()
	f.join(shop)
	f.finish()
	if got, want := digestOf(t, f.run()), digestOf(t, one); got != want {
		t.Errorf("the network comes to %s, one machine to %s", got, want)
	}
	if got := values(t, one, "accuracy"); len(got) != 5 || got[4] < .75 {
		t.Errorf("accuracies: %v", got)
	}
}

// The sponsor's objective, labels and columns are in nothing that a member is told. The run ends where held-out rows say so, on
// one machine and over a network.
func TestAssistTerms(t *testing.T) {
	f := alliance(t, "private")
	text, err := os.ReadFile(f.recipe)
	if err == nil {
		text = []byte(strings.NewReplacer("patience: 0", "patience: 1", "solve: 0.2", "solve: 0.2, held: 0.2", "rounds: 5", "rounds: 50").Replace(string(text)))
		err = os.WriteFile(f.recipe, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	one := filepath.Join(f.dir, "one")
	run(t, f.program, "assist", f.recipe, "--quiet", "--bounds=none", "--dir", one)
	f.open()
	f.joinAll()
	f.finish()
	if got, want := values(t, f.run(), "loss.held"), values(t, one, "loss.held"); len(want) >= 50 || !slices.Equal(got, want) {
		t.Errorf("losses on held-out rows: the network has %v, one machine %v; both are to stop long before 50", got, want)
	}
	for _, dir := range []string{f.run(), one} {
		closed := 0
		for _, r := range journal(t, dir) {
			if r.Kind == "round.closed" {
				closed++
			}
		}
		if n := len(values(t, dir, "loss.held")); closed != n {
			t.Errorf("%s closed %d rounds, of which %d were anything", dir, closed, n)
		}
	}
	for _, m := range f.members[1:] {
		err := filepath.WalkDir(m.dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			for _, secret := range []string{"cross-entropy", "income", "run.yaml", "bank.csv", `"left"`} {
				if strings.Contains(string(b), secret) {
					t.Errorf("%s knows %q: %s", m.name, secret, path)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A run that requires a test of usefulness leaves out the shop, whose policy tells nothing for it, and not the telephone company.
func TestAssistPretest(t *testing.T) {
	brief(t)
	f := alliance(t, "private")
	f.ask("pretest: require")
	f.open()
	telephone := f.members[1]
	run(t, f.program, "join", telephone.token, "--enrol", "--dir", telephone.dir)
	f.allow(telephone, "mixtures: 0", "mixtures: 3")
	f.allow(telephone, "blur: 0", "blur: 0.05")
	f.joinAll()
	f.finish()
	if p := series(t, f.run(), "useful.p", "telephone"); len(p) != 1 || !(p[0].Value < .05) {
		t.Errorf("the p-value of telephone is %v", p)
	}
	if p, w := series(t, f.run(), "useful.p", "shop"), series(t, f.run(), "weight", "shop"); len(p)+len(w) > 0 {
		t.Errorf("shop, which tells nothing, is tested, %v, or takes part, %v", p, w)
	}
	for _, want := range []string{"shop is not tested in round 1: asked for 3 mixtures of features, this organisation tells at most 0",
		"shop is left out of the run: it has not passed the test that the run requires"} {
		if !strings.Contains(f.coordOut.String(), want) {
			t.Errorf("the coordinator does not say %q:\n%s", want, f.coordOut.tail(30))
		}
	}
}
