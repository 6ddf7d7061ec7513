package assisted_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/assisttest"
	"github.com/cohort-learning/cohort/assisted/gal"
	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/weights"
	"gonum.org/v1/gonum/mat"
)

// clerks are organisations that know entities in one way.
type clerks map[string]*assisted.Clerk

func (c clerks) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	return c[at.Member.Name].Run(ctx, at, t, keep)
}

func clerksOf(w *assisttest.World, mode string) clerks {
	out := clerks{}
	for _, name := range w.Names {
		out[name] = &assisted.Clerk{Desk: w.Desks[name], Mode: mode, Study: "a study"}
	}
	return out
}

// people is 40 entities of which the second organisation does not have all and has others besides, in another order.
func people(t *testing.T) (*assisttest.World, *assisted.Sponsor) {
	r := rand.New(rand.NewPCG(1, 2))
	const n = 40
	a, b, y := mat.NewDense(n, 2, nil), mat.NewDense(n, 2, nil), mat.NewDense(n, 1, nil)
	for i := range n {
		for k := range 2 {
			a.Set(i, k, r.NormFloat64())
			b.Set(i, k, r.NormFloat64())
		}
		y.Set(i, 0, a.At(i, 0)+2*b.At(i, 1)+.1*r.NormFloat64())
	}
	w := assisttest.NewWorld(assisttest.OLS(t), a, b)
	d := w.Desks["org-2"]
	order := r.Perm(n)
	x := mat.NewDense(n, 2, nil)
	for i, row := range order {
		x.SetRow(i, b.RawRowView(row))
		d.Keys[i] = fmt.Sprintf("id-%d", row)
		if row%10 == 3 {
			d.Keys[i] = fmt.Sprintf("stranger-%d", row)
		}
	}
	d.Features = x
	s := &assisted.Sponsor{Objective: assisted.Objective{Loss: assisted.Squared}, Keys: assisttest.Keys(n), Labels: y, Fit: 30, Test: 10, Own: "org-1"}
	return w, s
}

// A run whose entities were matched privately comes to the same bits as one with plain keys, and no key can be read in what is
// sent.
func TestMatched(t *testing.T) {
	for _, share := range []string{"", assisted.ShareWarm} {
		t.Run("shared models "+share, func(t *testing.T) { testMatched(t, share) })
	}
}

func testMatched(t *testing.T, share string) {
	w, s := people(t)
	o := gal.Defaults()
	o.DMS = share
	phases := map[string]int{"match": 2, "rows": 2, "train": 6}
	if share != "" {
		phases["recompute"] = 2
		l, err := learner.Spec{Name: "mlp", Hidden: []int{5}, Epochs: 3}.New()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range w.Desks {
			d.Learner = l
		}
	}
	plain, err := o.New(3, s, w.Fresh().Desks)
	if err != nil {
		t.Fatal(err)
	}
	want := w.Must(t, plain, 3)

	private := w.Fresh()
	o.Disclosure.Disclose = "labels" // since the desks are not known to be here
	a, err := o.New(3, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := clerksOf(private, assisted.PrivateKeys)
	m := &assisted.Matched{Algorithm: a, Keys: s.Keys, Study: "a study", Clerks: c}
	seen := spy{Client: c, t: t}
	m.Clerks = &seen
	got := private.Must(t, m, 3)
	if x, y := assisttest.Matrix(t, got.Final, "F"), assisttest.Matrix(t, want.Final, "F"); !mat.Equal(x, y) {
		t.Errorf("predictions differ from those with plain keys:\n%v\n%v", mat.Formatted(x), mat.Formatted(y))
	}
	if n := got.Metric("matched", "org-2"); len(n) != 1 || n[0] != 36 {
		t.Errorf("org-2 knows %v of the entities, want 36, found out once", n)
	}
	if !maps.Equal(seen.phases, phases) {
		t.Errorf("tasks by phase: %v", seen.phases)
	}

	// Predictions for entities that were in no run, one of which org-2 does not have; they are matched anew.
	e, err := a.Ensemble(got.Final)
	if err != nil {
		t.Fatal(err)
	}
	keys := []string{"id-2", "id-3", "id-39"}
	ask := func(mode string, desks federated.Client) *mat.Dense {
		p := federated.Algorithm(&assisted.Prediction{Ensemble: e, Keys: keys, Desks: desks})
		if mode == assisted.PrivateKeys {
			p = &assisted.Matched{Algorithm: p, Keys: keys, Study: "another study", Clerks: desks}
		}
		l := private.Must(t, p, 1)
		return assisttest.Matrix(t, l.Final, "F")
	}
	again := clerksOf(private, assisted.PrivateKeys)
	for _, k := range again {
		k.Study, k.Desk.Store = "another study", &later{k.Desk.Store}
	}
	if x, y := ask(assisted.PrivateKeys, again), ask(assisted.PlainKeys, clerksOf(private, assisted.PlainKeys)); !mat.Equal(x, y) {
		t.Errorf("predictions %v, with plain keys %v", mat.Formatted(x), mat.Formatted(y))
	}
}

// later is a store of a later run of the same name, which has another list to compare.
type later struct{ assisted.Store }

func (l *later) Put(name string, b []byte) error { return l.Store.Put(l.name(name), b) }
func (l *later) Get(name string) ([]byte, error) { return l.Store.Get(l.name(name)) }
func (l *later) name(name string) string {
	if strings.HasSuffix(name, "/match") {
		return name + "/later"
	}
	return name
}

// spy looks at all that is sent.
type spy struct {
	federated.Client
	t      *testing.T
	mu     sync.Mutex
	phases map[string]int
}

func (s *spy) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	r, err := s.Client.Run(ctx, at, t, keep)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phases == nil {
		s.phases = map[string]int{}
	}
	s.phases[t.Phase]++
	for _, b := range [][]byte{t.Attached, t.Params, r.Attached} {
		for _, secret := range []string{"id-1", "id-2", "id-3", "stranger"} {
			if bytes.Contains(b, []byte(secret)) {
				s.t.Errorf("phase %s: a key can be read in what is sent", t.Phase)
			}
		}
	}
	return r, err
}

// A clerk compares one list in a run, keeps to the way that keys were agreed to be known, and to its quota.
func TestClerk(t *testing.T) {
	w, s := people(t)
	run := func(c clerks, mode string) []string {
		a, err := gal.Defaults().New(1, s, w.Desks)
		if err != nil {
			t.Fatal(err)
		}
		alg := federated.Algorithm(a)
		if mode == assisted.PrivateKeys {
			alg = &assisted.Matched{Algorithm: a, Keys: s.Keys, Study: "a study", Clerks: c}
		}
		l, err := w.Do(alg, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		var why []string
		for _, p := range l.Phases {
			for _, f := range p.Failed {
				why = append(why, f.Reason)
			}
		}
		return why
	}
	said := func(why []string, want string) bool {
		return slices.ContainsFunc(why, func(w string) bool { return strings.Contains(w, want) })
	}
	if why := run(clerksOf(w, assisted.PlainKeys), assisted.PrivateKeys); !said(why, "where keys were agreed to be plain") {
		t.Errorf("a clerk with plain keys was asked to match: %q", why)
	}
	w = w.Fresh()
	if why := run(clerksOf(w, assisted.PrivateKeys), assisted.PrivateKeys); len(why) > 0 {
		t.Errorf("failures %q", why)
	}
	s.Keys[0] = "somebody else"
	if why := run(clerksOf(w, assisted.PrivateKeys), assisted.PrivateKeys); !said(why, "another list") {
		t.Errorf("a second list of the run was compared: %q", why)
	}

	c := clerksOf(w, assisted.PlainKeys)["org-1"]
	c.Answers = 5
	e := assisted.Ensemble{Start: []float64{0}, Members: []assisted.Voice{{Name: "org-1", Terms: []assisted.Term{{Coefficient: 1, Mean: []float64{0}}}}}}
	for i, x := range []struct {
		keys []string
		ok   bool
	}{{assisttest.Keys(3), true}, {assisttest.Keys(3), true}, {assisttest.Keys(4), false}, {assisttest.Keys(2), true}, {assisttest.Keys(1), false}} {
		l, err := w.Do(&assisted.Prediction{Ensemble: e, Keys: x.keys, Desks: clerks{"org-1": c}}, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if ok := len(l.Phases[0].Failed) == 0; ok != x.ok {
			t.Errorf("request %d for %d rows with a quota of 5: answered %v, %v", i, len(x.keys), ok, l.Phases[0].Failed)
		}
	}
}

func TestTerms(t *testing.T) {
	good := assisted.Terms{Version: 1, Assist: assisted.Fitting, Seed: 3, Rounds: 4, Outputs: 2, Vectors: 8, Keys: assisted.PrivateKeys, Study: "x"}
	read, err := assisted.ReadTerms(good.Text())
	if err != nil || *read != good {
		t.Fatalf("%+v, %v", read, err)
	}
	for name, change := range map[string]func(*assisted.Terms){
		"version": func(x *assisted.Terms) { x.Version = 2 },
		"assist":  func(x *assisted.Terms) { x.Assist = "learn" },
		"of":      func(x *assisted.Terms) { x.Of = "a run" },
		"predict": func(x *assisted.Terms) { x.Assist = assisted.Predicting },
		"rounds":  func(x *assisted.Terms) { x.Rounds = 0 },
		"keys":    func(x *assisted.Terms) { x.Keys = "any" },
		"study":   func(x *assisted.Terms) { x.Study = "a\nb" },
	} {
		bad := good
		change(&bad)
		if _, err := assisted.ReadTerms(bad.Text()); err == nil {
			t.Errorf("%s: %s was taken", name, bad.Text())
		}
	}
	for _, text := range []string{"", "{}", `{"version":1,"loss":"cross-entropy"}`, good.Text() + "{}"} {
		if _, err := assisted.ReadTerms(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}
