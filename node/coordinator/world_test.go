package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/assisttest"
	"github.com/cohort-learning/cohort/assisted/gal"
	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedavg"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/federated/heterofl"
	"github.com/cohort-learning/cohort/federated/private"
	"github.com/cohort-learning/cohort/federated/scaffold"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/secure/robust"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/weights"
	"gonum.org/v1/gonum/mat"
)

var engine = sync.OnceValue(func() *train.Engine {
	b, err := backend.New("", backend.Options{Threads: 1})
	if err != nil {
		panic(err)
	}
	return train.NewEngine(b)
})

// world is a federation in one process: a coordinator and members that keep to the protocol.
type world struct {
	t        testing.TB
	dir      string
	fs       journal.FS
	bus      *transport.Memory
	key      identity.Key
	store    blob.Keeper // of the coordinator
	fleet    *simulation.Fleet
	alg      func() federated.Algorithm
	config   federated.Config
	together bool // members understand the tasks of many
	window   int
	server   *Server
	run      *Run
	members  map[string]*puppet
	stands   map[string]*stand // relays
	absent   time.Duration
	gate     chan struct{} // what members wait for before they compute; nil: nothing
	roster   map[string]identity.Member
}

func (w *world) ByName(name string) (identity.Member, bool) {
	m, ok := w.roster[name]
	return m, ok
}

// Upload and Download implement Access: everybody may.
func (w *world) Upload(string, []transport.Ref, time.Duration) {}
func (w *world) Download(string, []transport.Ref)              {}
func (w *world) Uploaded(string, transport.Ref) bool           { return true }
func (w *world) Done(string, []transport.Ref)                  {}

var algorithms = map[string]func(p *federated.Problem, c *federated.Config) (federated.Algorithm, error){
	"fedavg": func(p *federated.Problem, _ *federated.Config) (federated.Algorithm, error) {
		return fedavg.New(p), nil
	},
	"scaffold": func(p *federated.Problem, _ *federated.Config) (federated.Algorithm, error) {
		p.Measuring.Members = false
		return scaffold.New(p), nil
	},
	"asynchronous": func(p *federated.Problem, c *federated.Config) (federated.Algorithm, error) {
		p.Measuring.Members = false
		c.Pace = federated.Pace{Quorum: 0.5, Staleness: 2, Discount: 0.5}
		return fedavg.New(p), nil
	},
	// More members than the window wait for a rule that reads them all.
	"robust": func(p *federated.Problem, c *federated.Config) (federated.Algorithm, error) {
		c.Rule = robust.Rule{Method: robust.CentredClip{}, Bucket: 2}
		return scaffold.New(p), nil
	},
	// Some rounds fail at their close, when all have answered.
	"fickle": func(p *federated.Problem, c *federated.Config) (federated.Algorithm, error) {
		c.Rule = fickle{robust.Rule{Method: robust.Median{}}}
		return scaffold.New(p), nil
	},
	// Five steps a round, in which nobody's result is seen alone.
	"secure": func(p *federated.Problem, _ *federated.Config) (federated.Algorithm, error) {
		p.Measuring.Members = false
		return private.NewSecure(scaffold.New(p), private.SecureOptions{}), nil
	},
	// Who is drawn, and noise, that nobody but the coordinator could know before.
	"private": func(p *federated.Problem, _ *federated.Config) (federated.Algorithm, error) {
		p.Measuring.Members = false
		var err error
		if p.Build, err = nn.New("mlp", nn.Config{Input: []int{6}, Classes: 3, Hidden: []int{16}, Norm: nn.NoNorm}); err != nil {
			return nil, err
		}
		return private.NewGuard(fedavg.New(p), private.GuardOptions{Clip: 0.1, Noise: 1, Fraction: 0.6, Quantile: 0.5, CountNoise: 2}), nil
	},
	"heterofl": func(p *federated.Problem, _ *federated.Config) (federated.Algorithm, error) {
		m, err := heterofl.ParseMode("a1-b2-c2", nil)
		if err != nil {
			return nil, err
		}
		return heterofl.New(p, heterofl.Config{Mode: m, Dynamic: true})
	},
}

// fickle is a rule that finds the results of some rounds unfit.
type fickle struct{ robust.Rule }

func (f fickle) Combine(ctx context.Context, rows *robust.Spool, before *weights.Set, random *rng.Stream) (robust.Centre, error) {
	if random.IntN(2) == 0 { // the stream is that of the round
		return robust.Centre{}, &robust.UnfitError{Err: errors.New("not this round")}
	}
	return f.Rule.Combine(ctx, rows, before, random)
}

func newWorld(t testing.TB, method string) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), fs: journal.OS(), bus: transport.NewMemory(), members: map[string]*puppet{}, roster: map[string]identity.Member{}, stands: map[string]*stand{}, absent: 50 * time.Millisecond,
		config: federated.Config{Rounds: 3}}
	var err error
	if w.key, err = identity.NewKey(); err != nil {
		t.Fatal(err)
	}
	w.fleet = fleet(t, engine(), 8, 6, 12, 10, 7, 6)
	method, relayed := strings.CutSuffix(method, " behind relays")
	method, w.together = strings.CutSuffix(method, " together")
	w.alg = func() federated.Algorithm {
		p := fedtest.Problem(t, 6, 3)
		p.Rounds = w.config.Rounds
		c := w.config // members ask for it side by side
		a, err := algorithms[method](p, &c)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	if method == "gal" {
		w.alg = w.organisations()
	} else if _, err := algorithms[method](fedtest.Problem(t, 6, 3), &w.config); err != nil { // sets the configuration
		t.Fatal(err)
	}
	for i := range w.fleet.Len() {
		name := w.fleet.Member(i).Name
		k, err := identity.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		w.roster[name] = identity.Member{Index: i, Name: name, Key: k.Public(), State: identity.Admitted}
		w.members[name] = &puppet{w: w, name: name, key: k, member: w.fleet.Member(i), store: blob.NewMemory(), keep: map[int]*weights.Set{},
			kept: map[int]*parcelled{}, done: map[int]bool{}, verdicts: map[transport.Outcome]int{}}
	}
	if relayed {
		w.split()
	}
	return w
}

// organisations makes every member one that knows two columns of the same entities, of which the first has the labels. What they have
// kept outlives the coordinator.
func (w *world) organisations() func() federated.Algorithm {
	w.t.Helper()
	const rows, columns = 24, 2
	r := rng.New(3, 0, "", "columns")
	labels := mat.NewDense(rows, 1, nil)
	desks := assisted.Desks{}
	for i := range w.fleet.Len() {
		x := mat.NewDense(rows, columns, nil)
		for e := range rows {
			x.SetRow(e, []float64{r.NormFloat64(), r.NormFloat64()})
			labels.Set(e, 0, labels.At(e, 0)+x.At(e, 0)*x.At(e, 1)-x.At(e, 0))
		}
		desks[w.fleet.Member(i).Name] = &assisted.Desk{Keys: assisttest.Keys(rows), Features: x, Learner: assisttest.OLS(w.t), Store: assisted.NewStore()}
	}
	return func() federated.Algorithm {
		s := &assisted.Sponsor{Objective: assisted.Objective{Loss: assisted.Squared}, Keys: assisttest.Keys(rows), Labels: labels, Fit: 16, Held: 4, Test: 4,
			Own: w.fleet.Member(0).Name}
		a, err := gal.Defaults().New(w.config.Rounds, s, desks)
		if err != nil {
			w.t.Fatal(err)
		}
		return a
	}
}

func fleet(t testing.TB, e *train.Engine, sizes ...int) *simulation.Fleet {
	t.Helper()
	split, dealt := fedtest.Blobs(e, 6, 3, sizes...).Deal(t)
	return &simulation.Fleet{Split: split, Dealt: dealt, Engine: e, Seed: 11}
}

// begin starts the coordinator, anew or where it was.
func (w *world) begin() error {
	store, err := blob.OpenDir(filepath.Join(w.dir, "blobs"), w.fs)
	if err != nil {
		return err
	}
	w.store = store
	w.server = New(Options{FS: w.fs, Key: w.key, Name: "test", Roster: w, Hub: w.bus.Hub(), Blobs: store, Access: w, Relays: w})
	dir := filepath.Join(w.dir, "run")
	o := record.Options{FS: w.fs}
	var rec *record.Run
	if _, e := os.Stat(filepath.Join(dir, record.MetaName)); e == nil {
		rec, err = record.Resume(dir, o)
	} else {
		rec, err = record.Create(dir, record.Meta{Method: "test", Seed: w.fleet.Seed, Engine: "cpu"}, []byte("method: test\n"), o)
	}
	if err != nil {
		return err
	}
	srv := w.fleet.Server()
	srv.Scope, srv.Secret = "", nil // the run has its own
	w.run, err = w.server.Start(Spec{ID: "run", Recipe: []byte("method: test\n"), Members: w.fleet.Len(), Algorithm: w.alg(), Server: srv,
		Config: w.config, Window: w.window, Absent: w.absent, Together: 2,
		Check: func(schema json.RawMessage, _ *transport.Consent) (json.RawMessage, error) {
			return json.RawMessage("{}"), nil
		}}, rec)
	if err == nil { // the models of the tests are small
		w.run.desk.scrap.mu.Lock()
		w.run.desk.scrap.least = 1
		w.run.desk.scrap.mu.Unlock()
	}
	return err
}

// end stops the coordinator at once.
func (w *world) end() {
	w.server.Close()
	_ = w.server.o.Hub.Close()
	if c, ok := w.store.(interface{ Close() error }); ok {
		_ = c.Close()
	}
}

// simulated returns the digest of the last state of the same run as a simulation.
func (w *world) simulated() string {
	j := &simulation.Job{Algorithm: w.alg(), Fleet: w.fleet, Config: w.config, Workers: 2}
	j.Conditions.Dropout = 1e-12 // so that a round in which nobody counts does not end the run
	s, err := j.Run(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	return s.Digest()
}

// digest returns that of the last round closed by the run.
func (w *world) digest() string {
	d := ""
	type ended struct {
		Digest string `json:"digest"`
	}
	for r, err := range journal.Decode[ended](journal.Read(w.fs, filepath.Join(w.dir, "run"), simulation.KindEnded)) {
		if err != nil {
			w.t.Fatal(err)
		}
		d = r.Body.Digest
	}
	return d
}

// undisturbed runs the study with members whom nothing happens to: what they compute, in the words of a test, is what the simulation
// computes, and can be computed again from the journal.
func (w *world) undisturbed(what string) {
	w.t.Helper()
	want := w.simulated()
	if err := w.begin(); err != nil {
		w.t.Fatal(err)
	}
	w.joinAll()
	w.wait()
	if err := w.run.Err(); err != nil {
		w.t.Fatal(err)
	}
	w.end()
	if got := w.digest(); got != want {
		w.t.Errorf("%s: the network ended in %.16s…, the simulation in %.16s…", what, got, want)
	}
	w.replay(what)
}
