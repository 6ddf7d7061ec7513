package private_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedavg"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/federated/heterofl"
	"github.com/cohort-learning/cohort/federated/private"
	"github.com/cohort-learning/cohort/federated/scaffold"
)

// methods are those whose results are sums, each with something of its own: an optimiser at the server, memory at the members,
// parts of models and labels.
var methods = map[string]func(t *testing.T, p *federated.Problem) federated.Algorithm{
	"fedavg": func(_ *testing.T, p *federated.Problem) federated.Algorithm { return fedavg.New(p) },
	"fedadam": func(_ *testing.T, p *federated.Problem) federated.Algorithm {
		a := fedavg.New(p)
		a.Rule = fedavg.Adaptive{Kind: fedavg.Adam, Rate: 0.05, Beta1: 0.9, Beta2: 0.99, Tau: 1e-3}
		return a
	},
	"scaffold": func(_ *testing.T, p *federated.Problem) federated.Algorithm { return scaffold.New(p) },
	"heterofl": func(t *testing.T, p *federated.Problem) federated.Algorithm {
		mode, err := heterofl.ParseMode("a1-c1", nil)
		if err != nil {
			t.Fatal(err)
		}
		a, err := heterofl.New(p, heterofl.Config{Mode: mode})
		if err != nil {
			t.Fatal(err)
		}
		return a
	},
}

func world(t *testing.T) *fedtest.World {
	return fedtest.Blobs(fedtest.Engine(t, "go"), 6, 3, 8, 6, 12, 10, 7, 14, 11, 6, 8, 6)
}

func run(t *testing.T, w *fedtest.World, method string, o *private.SecureOptions, change func(*fedtest.Run)) *fedtest.Trace {
	t.Helper()
	w.Vaults.Reset()
	p := fedtest.Problem(t, 6, 3)
	a := methods[method](t, p)
	if o != nil {
		a = private.NewSecure(a, *o)
	}
	r := &fedtest.Run{World: w, Algorithm: a, Config: federated.Config{Rounds: p.Rounds}}
	if change != nil {
		change(r)
	}
	trace := r.Must(t)
	seen := map[string]bool{}
	for _, p := range trace.Phases { // over a network a phase goes by its round and name
		name := fmt.Sprintf("%d.%s", p.Round, p.Phase)
		if seen[name] {
			t.Errorf("there are two phases %s", name)
		}
		seen[name] = true
	}
	return trace
}

// TestSecureIsPlain checks that masks change nothing: rounds, memories and curves are those of the sum in the open, to the bit.
func TestSecureIsPlain(t *testing.T) {
	w := world(t)
	for name := range methods {
		for _, bits := range []int{64, 32} {
			t.Run(fmt.Sprintf("%s/%d bits", name, bits), func(t *testing.T) {
				o := private.SecureOptions{Bits: bits, Holders: 3}
				if bits == 32 {
					o.Levels, o.MaxWeight = 1<<20, 16
				}
				secure := run(t, w, name, &o, nil)
				o.Plain = true
				plain := run(t, w, name, &o, nil)
				if !slices.Equal(secure.Digests(), plain.Digests()) {
					t.Errorf("states differ:\nsecure %.16q\n plain %.16q", secure.Digests(), plain.Digests())
				}
				for _, m := range []string{"loss.train", "accuracy", "accuracy.local"} {
					s, p := secure.Metric(m, ""), plain.Metric(m, "")
					if len(s) == 0 || !slices.Equal(s, p) {
						t.Errorf("%s: %v with masks, %v without", m, s, p)
					}
				}
			})
		}
	}
}

// TestSecureIsOpen checks that a secure run is the open one but for rounding.
func TestSecureIsOpen(t *testing.T) {
	w := world(t)
	for name := range methods {
		t.Run(name, func(t *testing.T) {
			open := run(t, w, name, nil, nil)
			secure := run(t, w, name, &private.SecureOptions{Holders: 2, Levels: 1 << 30}, nil)
			a, b := open.Final.Sets["w"], secure.Final.Sets["w"]
			if d := a.Sub(b).Norm() / a.Norm(); !(d < 1e-4) {
				t.Errorf("weights differ by %.2g of their norm", d)
			}
		})
	}
}

// TestSecureDropouts checks that members lost in any phase change only who is in the sum, and that too many fail the round and no
// more.
func TestSecureDropouts(t *testing.T) {
	w := world(t)
	lose := func(phase string, who ...string) func(*fedtest.Run) {
		return func(r *fedtest.Run) {
			r.Members.Tamper = func(a *federated.Answer) {
				if strings.HasSuffix(a.Order.Phase, phase) && slices.Contains(who, a.Order.Member.Name) {
					a.Err = errors.New("the connection was lost")
				}
			}
		}
	}
	o := private.SecureOptions{}
	for _, phase := range []string{"train.keys", "train.shares", "train.masked", "train.confirm", "train.unmask"} {
		t.Run(phase, func(t *testing.T) {
			few := run(t, w, "fedavg", &o, lose(phase, "member-1", "member-4"))
			if n := len(few.Metric("secure.members", "")); n == 0 {
				t.Fatal("no round had a sum")
			}
			for _, p := range few.Phases {
				for _, n := range p.Notes {
					if strings.Contains(n, "no secure sum of train") {
						t.Errorf("round %d: %s", p.Round, n)
					}
				}
			}
			same := o
			same.Plain = true
			plainPhase := "train.sum"
			if phase == "train.confirm" || phase == "train.unmask" {
				plainPhase = "nothing" // they are in the sum
			}
			want := run(t, w, "fedavg", &same, lose(plainPhase, "member-1", "member-4"))
			if got := few.Digests(); !slices.Equal(got, want.Digests()) {
				t.Errorf("states differ from those of the sum of the others:\n got %.16q\nwant %.16q", got, want.Digests())
			}
			all := run(t, w, "fedavg", &o, lose(phase, "member-0", "member-1", "member-2", "member-3", "member-4", "member-5"))
			failed := 0
			for _, p := range all.Phases {
				for _, n := range p.Notes {
					if strings.Contains(n, "no secure sum of train") {
						failed++
					}
				}
			}
			if failed != 3 {
				t.Errorf("%d of 3 rounds failed with six members of ten lost", failed)
			}
			if v := all.Final.Version; v != 0 {
				t.Errorf("the model changed %d times", v)
			}
		})
	}
}

// leavers is a population of whom the first are gone.
type leavers struct {
	federated.Population
	gone int
}

func (l leavers) Member(i int) federated.Member {
	m := l.Population.Member(i)
	m.Gone = i < l.gone
	return m
}

// TestFewMembers checks that no secure sum is begun with fewer members than was agreed: not as the run begins, nor in a round that
// fewer are left for, which ends without touching the model.
func TestFewMembers(t *testing.T) {
	w := world(t)
	for _, c := range []struct {
		least  int
		asked  float64
		refuse string
	}{
		{0, 0.3, ""},
		{0, 0.2, "a round asks 2 of 10 members, and a secure sum is begun with 3 or more"},
		{2, 0.2, ""},
		{10, 1, ""},
		{10, 0.9, "a round asks 9 of 10 members, and a secure sum is begun with 10 or more"},
	} {
		p := fedtest.Problem(t, 6, 3)
		p.Select.Fraction = c.asked
		a := private.NewSecure(fedavg.New(p), private.SecureOptions{Members: c.least})
		err := a.Check(w.Server())
		var unfit *private.UnfitError
		if c.refuse == "" && err != nil || c.refuse != "" && (!errors.As(err, &unfit) || unfit.Cause != private.Members || !strings.Contains(err.Error(), c.refuse)) {
			t.Errorf("at least %d, %g of 10 asked: %v", c.least, c.asked, err)
		}
	}

	for gone, note := range map[int]string{6: "", 7: "no secure sum of train: 3 members take part, and a secure sum is begun with 4 or more (secure.members): the model stays as it is"} {
		problem := fedtest.Problem(t, 6, 3)
		problem.Select.Fraction = 1
		a := private.NewSecure(fedavg.New(problem), private.SecureOptions{Members: 4})
		srv := w.Server()
		srv.Population = leavers{srv.Population, gone}
		if err := a.Check(srv); err != nil { // they may come back
			t.Error(err)
		}
		before, err := a.Init(t.Context(), srv)
		if err != nil {
			t.Fatal(err)
		}
		p, ok := a.Next(before)
		after, d, err := a.Finish(t.Context(), srv, before, p, nil, federated.Roll{})
		if !ok || err != nil || strings.Join(d.Notes, " ") != note || !after.Sets["w"].Equal(before.Sets["w"]) {
			t.Errorf("%d are gone: %q %v", gone, d.Notes, err)
		}
		next, ok := a.Next(after)
		if note == "" && next.Name != "train.keys" || note != "" && ok && strings.HasPrefix(next.Name, "train") {
			t.Errorf("%d are gone: then comes %q", gone, next.Name)
		}
	}
}
