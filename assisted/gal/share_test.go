package gal

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/assisttest"
	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"gonum.org/v1/gonum/mat"
)

// counted is a store that remembers the sizes of what lies in it.
type counted struct {
	assisted.Store
	mu    sync.Mutex
	sizes map[string]int
}

func (c *counted) Put(name string, value []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sizes[name[strings.LastIndex(name, "/")+1:]] = len(value)
	if kind := strings.Split(name, "/"); len(kind) > 1 {
		c.sizes[kind[len(kind)-2]]++
	}
	return c.Store.Put(name, value)
}

// deep is a trial of organisations with small networks.
func deep(t *testing.T) *trial {
	c := newTrial(t)
	c.rounds = 3
	l, err := learner.Spec{Name: "mlp", Hidden: []int{6}, Rate: new(0.01), Epochs: 15}.New()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range c.world.Desks {
		d.Learner = l
	}
	return c
}

func sharing(dms string) Options {
	o := Defaults()
	o.DMS = dms
	return o
}

func (c *trial) shared(t *testing.T, o Options, w *assisttest.World, change func(*fedtest.Run)) (*Algorithm, *fedtest.Trace) {
	t.Helper()
	a := algorithm(t, o, c.rounds, c.sponsor, w)
	l, err := w.Do(a, c.rounds, change)
	if err != nil {
		t.Fatal(err)
	}
	return a, l
}

// TestSharedPredictsWhatItTrained checks that predictions are the F of training, by the last model of each organisation, which is the
// only one that it keeps; and that weights and rates of training would not do that.
func TestSharedPredictsWhatItTrained(t *testing.T) {
	c := deep(t)
	finals := map[string]*mat.Dense{}
	for _, dms := range []string{assisted.ShareWarm, assisted.ShareRestart} {
		w := c.world.Fresh()
		store := &counted{Store: assisted.NewStore(), sizes: map[string]int{}}
		w.Desks["org-2"].Store = store
		a, l := c.shared(t, sharing(dms), w, nil)
		e, err := a.Ensemble(l.Final)
		if err != nil {
			t.Fatal(err)
		}
		final := assisttest.Matrix(t, l.Final, "F")
		f, _ := w.Predict(t, e, c.sponsor.Keys)
		assisttest.Near(t, dms+": predictions", f, final, 1e-12)
		if store.sizes["model"] != 0 || store.sizes["shared"] == 0 {
			t.Errorf("%s: the store holds %v", dms, store.sizes)
		}
		before, err := a.Ensemble(l.Snapshots[c.rounds-2].State)
		if err != nil {
			t.Fatal(err)
		}
		stale, _ := w.Predict(t, before, c.sponsor.Keys)
		if mat.EqualApprox(stale, assisttest.Matrix(t, l.Snapshots[c.rounds-2].State, "F"), 1e-6) {
			t.Errorf("%s: earlier heads say what they said: nothing was to be solved again", dms)
		}
		if got := len(l.Phase(assisted.Recomputes)); got != 1 {
			t.Errorf("%s: asked again in %d phases, want 1", dms, got)
		}
		start := Defaults()
		_, plain := c.shared(t, start, c.world.Fresh(), nil)
		if mat.Equal(final, assisttest.Matrix(t, plain.Final, "F")) {
			t.Errorf("%s: it comes to what separate models come to", dms)
		}
		if loss := l.Metric("loss.train", ""); loss[len(loss)-1] > loss[0] {
			t.Errorf("%s: the loss on training rows went from %v to %v", dms, loss[0], loss[len(loss)-1])
		}
		finals[dms] = final
	}
	if mat.Equal(finals[assisted.ShareWarm], finals[assisted.ShareRestart]) {
		t.Error("it makes no difference where a round begins")
	}
}

// TestSharedStore checks that T rounds of one shared network take far less than T networks.
func TestSharedStore(t *testing.T) {
	c := deep(t)
	l, err := learner.Spec{Name: "mlp", Hidden: []int{60, 60}, Epochs: 1}.New()
	if err != nil {
		t.Fatal(err)
	}
	bytes := func(dms string) int {
		w := c.world.Fresh()
		store := &counted{Store: assisted.NewStore(), sizes: map[string]int{}}
		w.Desks["org-1"].Learner, w.Desks["org-1"].Store = l, store
		c.shared(t, sharing(dms), w, nil)
		if dms != "" {
			return store.sizes["shared"]
		}
		return c.rounds * store.sizes["0.0"]
	}
	// As text, a third is added to the bytes of the shared model.
	if one, all := bytes(assisted.ShareWarm), bytes(""); float64(one) > 0.55*float64(all) {
		t.Errorf("a shared network takes %d bytes, %d separate ones %d", one, c.rounds, all)
	}
}

// TestSharedIdentity checks that sharing changes nothing for learners that are no networks: their extractor is the identity.
func TestSharedIdentity(t *testing.T) {
	c := newTrial(t)
	plain := c.run(t, false, nil)
	_, l := c.shared(t, sharing(assisted.ShareWarm), c.world.Fresh(), nil)
	if !mat.Equal(assisttest.Matrix(t, l.Final, "F"), assisttest.Matrix(t, plain.Final, "F")) {
		t.Error("least squares come to something else with shared models")
	}
}

// TestSharedResumes checks that neither threads nor a resume after any round changes a bit, on stores whose model has gone on since.
func TestSharedResumes(t *testing.T) {
	c := deep(t)
	_, plain := c.shared(t, sharing(assisted.ShareWarm), c.world, nil)
	for round := range c.rounds - 1 {
		_, got := c.shared(t, sharing(assisted.ShareWarm), c.world, func(r *fedtest.Run) { r.From, r.Kept = &plain.Snapshots[round], plain.Kept[round] })
		if want := plain.Digests()[round+1:]; !slices.Equal(got.Digests(), want) {
			t.Errorf("resumed after round %d, it comes to another state", round)
		}
	}
	_, got := c.shared(t, sharing(assisted.ShareWarm), c.world.Fresh(), func(r *fedtest.Run) { r.Members.Threads, r.Members.Shuffle = 3, 5 })
	if !slices.Equal(got.Digests(), plain.Digests()) {
		t.Error("three threads come to another state")
	}
}

// TestSharedLost checks that whoever misses a round has a head less, and that whoever is not there at the end has no part.
func TestSharedLost(t *testing.T) {
	c := deep(t)
	away := func(phase string, round int) (*Algorithm, *fedtest.Trace, *assisttest.World) {
		w := c.world.Fresh()
		a, l := c.shared(t, sharing(assisted.ShareWarm), w, func(r *fedtest.Run) {
			r.Members.Tamper = func(a *federated.Answer) {
				if a.Order.Member.Name == "org-3" && a.Order.Round == round && a.Order.Phase == phase {
					a.Result, a.Err = federated.Result{}, errors.New("asleep")
				}
			}
		})
		return a, l, w
	}
	for phase, terms := range map[string]int{assisted.Fits: 2, assisted.Recomputes: 0} {
		a, l, w := away(phase, map[string]int{assisted.Fits: 1, assisted.Recomputes: c.rounds - 1}[phase])
		e, err := a.Ensemble(l.Final)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(e.Voice("org-3").Terms); got > terms {
			t.Errorf("away in %s: org-3 has %d models in the outcome, want at most %d", phase, got, terms)
		}
		f, _ := w.Predict(t, e, c.sponsor.Keys)
		assisttest.Near(t, "away in "+phase, f, assisttest.Matrix(t, l.Final, "F"), 1e-12)
	}
	_, l, _ := away(assisted.Recomputes, c.rounds-1)
	if notes := strings.Join(l.Phase(assisted.Recomputes)[0].Notes, "\n"); !strings.Contains(notes, "org-3 has no part in the outcome") {
		t.Errorf("the notes do not say who has no part: %q", notes)
	}
}

// TestSharedStops checks that a run that held-out rows end is settled, too.
func TestSharedStops(t *testing.T) {
	c := deep(t)
	c.rounds = 12
	o := sharing(assisted.ShareWarm)
	o.Patience = 1
	w := c.world.Fresh()
	a, l := c.shared(t, o, w, nil)
	asked := l.Phase(assisted.Recomputes)
	if n := len(l.Phase(assisted.Fits)); len(asked) != 1 || n == c.rounds {
		t.Fatalf("%d rounds, asked again %d times", n, len(asked))
	}
	e, err := a.Ensemble(l.Final)
	if err != nil {
		t.Fatal(err)
	}
	f, _ := w.Predict(t, e, c.sponsor.Keys)
	held := c.sponsor.HeldOut()
	best := assisted.MustCourse(l.Final).Stop
	if got := c.sponsor.Objective.Value(held.Of(c.sponsor.Labels), held.Of(f)); got-best.Loss > 1e-4*best.Loss || got < best.Loss-1e-4*best.Loss {
		t.Errorf("predictions of held-out rows have loss %v, the best round has %v", got, best.Loss)
	}
}

func TestSharingOptions(t *testing.T) {
	if err := sharing("hot").Validate(); err == nil || !strings.Contains(err.Error(), "warm, restart") {
		t.Errorf("dms: hot: %v", err)
	}
}

// TestSharedWithOtherOptions checks that predictions are the F of training whatever weights are and whichever rows are drawn.
func TestSharedWithOtherOptions(t *testing.T) {
	c := deep(t)
	for what, change := range map[string]func(*Options){
		"per class": func(o *Options) { o.Weights = "per-class" },
		"nnls":      func(o *Options) { o.Weights, o.Exponent = "nnls", 2 },
		"released":  func(o *Options) { o.Weights, o.Rate = "softmax-adam", "lbfgs" },
		"drawn":     func(o *Options) { o.Subsample = 0.6 },
	} {
		o := sharing(assisted.ShareWarm)
		change(&o)
		w := c.world.Fresh()
		a, l := c.shared(t, o, w, nil)
		e, err := a.Ensemble(l.Final)
		if err != nil {
			t.Fatal(err)
		}
		f, _ := w.Predict(t, e, c.sponsor.Keys)
		assisttest.Near(t, what+": predictions", f, assisttest.Matrix(t, l.Final, "F"), 1e-12)
	}
}
