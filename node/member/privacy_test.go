package member_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedavg"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/journal/faultfs"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/node/member"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/secure/dp"
	"github.com/cohort-learning/cohort/secure/dp/ledger"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/weights"
)

// hiding are the terms of a private run: z = 2, one member.
func hiding(amplified bool) *dp.Terms {
	t := &dp.Terms{Mechanism: dp.CentralGaussian, Fraction: 1, Noise: 2, Clip: 1, Delta: 1e-5, Members: 1, Trusts: "clinics"}
	if amplified {
		t.Fraction, t.EveryEnrolledCharged = 0.5, true
	}
	return t
}

// epsilon is what rounds under hiding(false) cost.
func epsilon(t testing.TB, rounds int) float64 {
	t.Helper()
	e, err := hiding(false).Epsilon(1e-5, rounds)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// even gives every result weight 1, as private runs want it.
type even struct{ federated.Client }

func (c even) Run(ctx context.Context, l federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	res, err := c.Client.Run(ctx, l, t, keep)
	if res.Weight > 0 {
		res.Weight = 1
	}
	return res, err
}

// newPrivate is a study of plain training rounds, and a person whose data lie in a file that a ledger in root is kept of.
type private struct {
	c    *coordinator
	p    *person
	root string
	data string
}

func newPrivate(t testing.TB, s *study, key identity.Key, root, data string, terms *dp.Terms, change func(*member.Options, *member.Account)) *private {
	t.Helper()
	x := &private{c: newCoordinator(t, s, key), root: root, data: data}
	r, err := recipe.Default("fedavg")
	if err != nil {
		t.Fatal(err)
	}
	r.Rounds = rounds
	x.c.terms = x.c.seal(transport.Envelope{Run: theRun}, &transport.Terms{Recipe: string(r.YAML()), Metrics: metrics, Members: 1})
	x.p = newPerson(x.c)
	x.p.change = func(o *member.Options) {
		a := &member.Account{Root: root, Data: data}
		o.Budget = a
		o.Announced = func(member.Proposal) (*dp.Terms, error) { return terms, nil }
		o.Prepare = func(context.Context, member.Proposal) (*member.Part, error) {
			part := s.part()
			part.Client = even{part.Client}
			return part, nil
		}
		if change != nil {
			change(o, a)
		}
	}
	return x
}

func plainStudy(t testing.TB, e *train.Engine) *study {
	t.Helper()
	build, err := nn.New("mlp", nn.Config{Input: []int{6}, Classes: 3, Hidden: []int{8}})
	if err != nil {
		t.Fatal(err)
	}
	s := &study{world: fedtest.Blobs(e, 6, 3, 8), config: federated.Config{Rounds: rounds}, new: func() federated.Algorithm {
		return fedavg.New(&federated.Problem{Build: build, Rounds: rounds, Select: federated.Selection{Fraction: 1},
			Training: federated.Training{Epochs: 1, Batch: 4, Rate: train.Constant(0.1)}, Measuring: federated.Measuring{Every: 100, Batch: 16}})
	}}
	s.ours = s.new()
	return s
}

func places(t testing.TB) (root, data string) {
	t.Helper()
	dir := t.TempDir()
	data = filepath.Join(dir, "patients.csv")
	if err := os.WriteFile(data, []byte("age,ill\n40,1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "ledger"), data
}

// play runs the study to its end, or until the member has ended with an error.
func (x *private) play(t *testing.T, fsys journal.FS, again int) (state federated.State, crashed int, merr error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		x.c.open()
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		done := make(chan error, 1)
		go func() {
			err := x.p.run(ctx, fsys, nil)
			for errors.Is(err, faultfs.ErrCrashed) && crashed < again {
				crashed++
				err = x.p.run(ctx, nil, nil)
			}
			if err != nil {
				cancel()
			}
			done <- err
		}()
		var cerr error
		if state, cerr = x.c.run(ctx); cerr != nil {
			cancel() // nobody will say that the run is over
		}
		merr = <-done
		if x.c.lenient && cerr != nil && errors.Is(merr, context.Canceled) {
			merr = nil
		}
	})
	return state, crashed, merr
}

// summary is what the ledger says.
func (x *private) summary(t testing.TB) ledger.Summary {
	t.Helper()
	all, err := ledger.List(x.root, ledger.Options{})
	if err != nil || len(all) > 1 {
		t.Fatalf("%d ledgers, %v", len(all), err)
	}
	if len(all) == 0 {
		return ledger.Summary{}
	}
	s, err := all[0].Summary(1e-5)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// kinds are the records of the member's journal about a round, in order.
func (x *private) kinds(t testing.TB) (out []string) {
	t.Helper()
	for r, err := range journal.Read(x.p.disk, x.p.folder.Dir, member.KindTaken, member.KindCharged, member.KindKept) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r.Kind)
	}
	return out
}

// Every round that is taken is charged before its result is even kept, and nothing leaves beside the protected tensors.
func TestPrivateRun(t *testing.T) {
	s := plainStudy(t, fedtest.Engine(t, "go"))
	root, data := places(t)
	x := newPrivate(t, s, theFederation, root, data, hiding(false), nil)
	if _, _, err := x.play(t, nil, 0); err != nil {
		t.Fatal(err)
	}
	sum := x.summary(t)
	if sum.Rounds != rounds || sum.Epsilon != epsilon(t, rounds) || len(sum.Runs) != 1 || sum.Runs[0].Coordinator.Name != "clinics" ||
		sum.Runs[0].Coordinator.Key != x.c.fed || sum.Runs[0].Run != theRun || sum.Runs[0].Members[0] != me || sum.Runs[0].Amplified != 0 {
		t.Errorf("the ledger says %+v", sum)
	}
	one := []string{member.KindTaken, member.KindCharged, member.KindKept}
	if got := x.kinds(t); !slices.Equal(got, slices.Concat(one, one, one)) {
		t.Errorf("the journal says %v", got)
	}
	for r, err := range journal.Decode[struct {
		Round   int
		Epsilon float64
		Trusts  string
		Ledger  journal.Head
	}](journal.Read(x.p.disk, x.p.folder.Dir, member.KindCharged)) {
		if err != nil || r.Body.Epsilon != epsilon(t, r.Body.Round+1) || r.Body.Trusts != "clinics" || r.Body.Ledger.Seq != uint64(r.Body.Round+2) {
			t.Errorf("charged: %s, %v", r.Record.Body, err)
		}
	}
	for _, res := range x.c.sent {
		if res.Failed != "" || len(res.Scalars) > 0 || res.Weight != 1 || len(res.Addends) == 0 {
			t.Errorf("what left: failed %q, scalars %v, weight %d", res.Failed, res.Scalars, res.Weight)
		}
	}
	if heard := x.p.heard(member.EventAgreed); len(heard) != 1 || !strings.Contains(heard[0], "trusts clinics for the noise") || !strings.Contains(heard[0], "no other number") {
		t.Errorf("agreed: %q", heard)
	}
}

// Where rounds are charged by the chance of being asked, one is charged before it may ask, and each once.
func TestPrivateRunAmplified(t *testing.T) {
	s := plainStudy(t, fedtest.Engine(t, "go"))
	root, data := places(t)
	x := newPrivate(t, s, theFederation, root, data, hiding(true), nil)
	if _, _, err := x.play(t, nil, 0); err != nil {
		t.Fatal(err)
	}
	sum := x.summary(t)
	want, err := hiding(true).Epsilon(1e-5, rounds)
	if err != nil || sum.Rounds != rounds || sum.Epsilon != want || sum.Runs[0].Amplified != rounds {
		t.Errorf("the ledger says %+v, want ε %v, %v", sum, want, err)
	}
	if got := x.kinds(t); got[0] != member.KindCharged {
		t.Errorf("the first round could ask before it was charged: %v", got)
	}
}

// A run that may cost more than the budget is declined as a whole, also where another federation has spent it; the coordinator
// does not learn what was spent.
func TestPrivateRunDeclined(t *testing.T) {
	s := plainStudy(t, fedtest.Engine(t, "go"))
	other, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	root, data := places(t)
	limit := ledger.Budget{Epsilon: epsilon(t, rounds+1), Delta: 1e-5}
	first := newPrivate(t, s, theFederation, root, data, hiding(false), func(_ *member.Options, a *member.Account) { a.Limit = limit })
	if _, _, err := first.play(t, nil, 0); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		terms  *dp.Terms
		change func(*member.Options, *member.Account)
		told   string
		heard  string
	}{
		"budget":        {hiding(false), func(_ *member.Options, a *member.Account) { a.Limit = limit }, "the privacy budget of this member's data does not allow it", "3 rounds would bring it to"},
		"no noise":      {nil, func(_ *member.Options, a *member.Account) { a.Limit = limit }, "the privacy budget of this member's data does not allow it", "to ε +Inf"},
		"little noise":  {hiding(false), func(o *member.Options, _ *member.Account) { o.Policy.Noise = 3 }, "the noise multiplier is 2; allowed is 3 or more", "noise"},
		"none at all":   {nil, func(o *member.Options, _ *member.Account) { o.Policy.Noise = 3 }, "the run has no differential privacy", "noise"},
		"no ledger":     {hiding(false), func(o *member.Options, _ *member.Account) { o.Budget = nil }, "keeps no privacy ledger", "ledger"},
		"data are gone": {hiding(false), func(_ *member.Options, a *member.Account) { a.Data += "x" }, "this member cannot use its privacy ledger", "patients.csvx"},
		"wrong terms":   {&dp.Terms{}, nil, "what the run says about its privacy: noise multiplier 0", ""},
		"nothing is left": {hiding(false), func(o *member.Options, a *member.Account) {
			o.Policy.Overrun = member.OverrunStop
			a.Limit.Epsilon, a.Limit.Delta = 1, 1e-5
		}, "does not allow it", "this round would"},
	} {
		t.Run(what, func(t *testing.T) {
			x := newPrivate(t, s, other, root, data, c.terms, c.change)
			_, _, err := x.play(t, nil, 0)
			var declined *member.DeclinedError
			if !errors.As(err, &declined) || !strings.Contains(x.c.declined, c.told) || strings.Contains(x.c.declined, "ε") || strings.Contains(x.c.declined, root) {
				t.Errorf("the member ended with %v and said %q", err, x.c.declined)
			}
			if heard := x.p.heard(member.EventDeclined); len(heard) != 1 || !strings.Contains(heard[0], c.heard) {
				t.Errorf("the owner heard %q", heard)
			}
			if sum := x.summary(t); sum.Rounds != rounds {
				t.Errorf("%d rounds are charged", sum.Rounds)
			}
		})
	}
}

// With overrun: stop the member answers as long as the budget lasts, and declines the rounds after.
func TestPrivateRunStops(t *testing.T) {
	s := plainStudy(t, fedtest.Engine(t, "go"))
	for _, amplified := range []bool{false, true} {
		root, data := places(t)
		two, err := hiding(amplified).Epsilon(1e-5, 2)
		if err != nil {
			t.Fatal(err)
		}
		x := newPrivate(t, s, theFederation, root, data, hiding(amplified), func(o *member.Options, a *member.Account) {
			o.Policy.Overrun = member.OverrunStop
			a.Limit = ledger.Budget{Epsilon: two * 1.001, Delta: 1e-5}
		})
		x.c.lenient = true
		if _, _, err := x.play(t, nil, 0); err != nil {
			t.Fatal(err)
		}
		if sum := x.summary(t); sum.Rounds != 2 || sum.Epsilon != two {
			t.Errorf("the ledger says %+v", sum)
		}
		var failed []string
		for _, res := range x.c.sent {
			failed = append(failed, res.Failed)
		}
		if want := []string{"", "", "the privacy budget of this member's data does not allow it"}; !slices.Equal(failed, want) {
			t.Errorf("the results failed: %q", failed)
		}
		if heard := x.p.heard(member.EventSpent); len(heard) == 0 || !strings.Contains(heard[len(heard)-1], "declined: the privacy budget") {
			t.Errorf("the owner heard %q", heard)
		}
	}
}

// Results that noise does not hide stay here.
func TestPrivateRunKeeps(t *testing.T) {
	s := newStudy(t, fedtest.Engine(t, "go"), "fedavg") // members evaluate, and weigh what they have
	root, data := places(t)
	for _, weighs := range []bool{false, true} {
		x := newPrivate(t, s, theFederation, root, data, hiding(false), func(o *member.Options, _ *member.Account) {
			if weighs {
				o.Prepare = func(context.Context, member.Proposal) (*member.Part, error) { return s.part(), nil }
			}
		})
		x.c.lenient = true
		if _, _, err := x.play(t, nil, 0); err != nil {
			t.Fatal(err)
		}
		for id, o := range x.c.orders {
			open := o.failed == ""
			if open != (o.Phase == "train" && !weighs) || !open && o.failed != "the task failed at this member" {
				t.Errorf("weighs %v: order %d of phase %q failed: %q", weighs, id, o.Phase, o.failed)
			}
		}
	}
}

// TestPrivateCrash loses power, or is killed, at operations on the journal of the member and on its ledger: each round is charged
// once, and none of which a result was sent is missing. It tries one operation in five, with -short in eleven.
func TestPrivateCrash(t *testing.T) {
	s := plainStudy(t, fedtest.Engine(t, "go"))
	tried := 0
	run := func(amplified bool, mine, accounts *faultfs.Rule) (x *private, own, ledgers *faultfs.FS) {
		root, data := places(t)
		ledgers = faultfs.New(journal.OS())
		if accounts != nil {
			ledgers.Add(*accounts)
		}
		lives := 0 // the machine is whole again in the second
		x = newPrivate(t, s, theFederation, root, data, hiding(amplified), func(_ *member.Options, a *member.Account) {
			if lives++; lives == 1 {
				a.Options.FS = ledgers
			}
		})
		own = faultfs.New(x.p.disk)
		if mine != nil {
			own.Add(*mine)
		}
		_, crashed, err := x.play(t, own, 3)
		if err != nil {
			t.Fatalf("%+v %+v: %v", mine, accounts, err)
		}
		tried += crashed
		return x, own, ledgers
	}
	check := func(what string, x *private) {
		t.Helper()
		sum := x.summary(t)
		if sum.Rounds != rounds {
			t.Errorf("%s: %d rounds are charged, want %d", what, sum.Rounds, rounds)
		}
		for _, o := range x.c.orders {
			if o.failed != "" || len(o.results) != 1 {
				t.Errorf("%s: round %d: %d results, failed %q", what, o.Round, len(o.results), o.failed)
			}
		}
	}
	for _, amplified := range []bool{false, true} {
		clean, own, ledgers := run(amplified, nil, nil)
		check("undisturbed", clean)
		step := 5
		if testing.Short() {
			step = 11
		}
		crashes := []faultfs.Crash{faultfs.PowerLoss, faultfs.Kill, faultfs.PowerLossAfterMetadata}
		for i, e := range own.Events() {
			if i%step == 0 && strings.HasSuffix(e.Name, ".jsonl") {
				x, _, _ := run(amplified, &faultfs.Rule{N: i + 1, Part: e.Bytes / 2, Crash: crashes[i%3], After: i%2 == 1 && e.Op != faultfs.Write}, nil)
				check("the member's "+string(e.Op), x)
			}
		}
		for i, e := range ledgers.Events() {
			if i%step == 0 {
				x, _, _ := run(amplified, nil, &faultfs.Rule{N: i + 1, Part: e.Bytes / 2, Crash: crashes[i%3], After: i%2 == 1 && e.Op != faultfs.Write})
				check("the ledger's "+string(e.Op), x)
			}
		}
	}
	if t.Logf("%d crashes", tried); tried < 8 {
		t.Errorf("only %d crashes", tried)
	}
}

// A ledger that was put back to an earlier state stops a member that has seen more.
func TestPrivateLedgerPutBack(t *testing.T) {
	s := plainStudy(t, fedtest.Engine(t, "go"))
	root, data := places(t)
	x := newPrivate(t, s, theFederation, root, data, hiding(false), nil)
	x.c.onResult = func(o *assignment, _ []byte) *transport.Verdict {
		if o.Round == 1 {
			if err := os.RemoveAll(root); err != nil {
				t.Error(err)
			}
		}
		return nil
	}
	_, _, err := x.play(t, nil, 0)
	var gone *ledger.RewrittenError
	if !errors.As(err, &gone) {
		t.Errorf("the member ended with %v", err)
	}
	if _, _, err = x.play(t, nil, 0); !errors.As(err, &gone) {
		t.Errorf("begun again, the member ended with %v", err)
	}
	if len(x.c.sent) != 2 {
		t.Errorf("%d results were sent", len(x.c.sent))
	}
}
