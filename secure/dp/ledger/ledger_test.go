package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/journal/faultfs"
	"github.com/cohort-learning/cohort/secure/dp"
	"github.com/cohort-learning/cohort/secure/dp/ledger"
	"pgregory.net/rapid"
)

var data = ledger.Digest{1, 2, 3}

func gaussian(q, z float64) dp.Terms {
	return dp.Terms{Mechanism: dp.CentralGaussian, Fraction: q, Noise: z, Clip: 1, Delta: 1e-5, Members: 100, EveryEnrolledCharged: true, Trusts: "clinic"}
}

func skellam(z float64) dp.Terms {
	return dp.Terms{Mechanism: dp.DistributedSkellam, Fraction: 1, Noise: z, Clip: 1, Delta: 1e-5, Members: 100, Survivors: 70, Scale: 500, Dimension: 40,
		Beta: math.Exp(-0.5)}
}

func entry(coordinator, run string, round int, t dp.Terms) ledger.Entry {
	return ledger.Entry{Coordinator: ledger.Coordinator{Name: coordinator, Key: "key-of-" + coordinator}, Run: run, Round: round, Phase: "train",
		Member: "alice", Terms: t, Amplified: t.Amplified()}
}

func open(t testing.TB, dir string, d ledger.Digest, label string, o ledger.Options) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(dir, d, label, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func charge(t testing.TB, l *ledger.Ledger, entries ...ledger.Entry) ledger.Receipt {
	t.Helper()
	r, err := l.Charge(t.Context(), entries...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func spent(t testing.TB, l *ledger.Ledger) float64 {
	t.Helper()
	e, _, err := l.Spent(1e-5)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// The sum of mixed entries is what the accountants say of the same releases, whatever their order and however they were charged.
func TestEqualsAccountant(t *testing.T) {
	dir := t.TempDir()
	o := ledger.Options{FS: faultfs.New(journal.OS())} // syncs nothing
	rapid.Check(t, func(t *rapid.T) {
		distributed := rapid.Bool().Draw(t, "distributed")
		sub, err := os.MkdirTemp(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		l, err := ledger.Open(sub, data, "", o)
		if err != nil {
			t.Fatal(err)
		}
		var releases []dp.Release
		var shares dp.Curve
		for i := range rapid.IntRange(1, 12).Draw(t, "entries") {
			terms := gaussian(rapid.SampledFrom([]float64{0.1, 1}).Draw(t, "q"), rapid.SampledFrom([]float64{2, 7}).Draw(t, "z"))
			e := entry("c", "r", i, terms)
			switch {
			case distributed && rapid.Bool().Draw(t, "skellam"):
				e = entry("c", "r", i, skellam(3))
				shares = shares.Add(e.Terms.Skellam().Curve(1))
			case rapid.Bool().Draw(t, "full"):
				e.Amplified = false
				releases = append(releases, dp.Release{Fraction: 1, Noise: terms.Noise, Rounds: 1})
			default:
				releases = append(releases, dp.Release{Fraction: terms.Fraction, Noise: terms.Noise, Rounds: 1})
			}
			if _, err := l.Charge(context.Background(), e, e); err != nil {
				t.Fatal(err)
			}
		}
		got, by, err := l.Spent(1e-5)
		if err != nil {
			t.Fatal(err)
		}
		curve, err := dp.Gaussian(releases...)
		if err != nil {
			t.Fatal(err)
		}
		want, name := curve.Add(shares).Epsilon(1e-5), dp.RDP
		if shares.Epsilon(1e-5) == 0 {
			if want, err = dp.PLD.Epsilon(1e-5, releases...); err != nil {
				t.Fatal(err)
			}
			name = dp.PLD
		}
		if by != name || math.Abs(got-want) > 1e-9*want {
			t.Fatalf("ε = %v by %v, want %v by %v", got, by, want, name)
		}
		if again, err := ledger.Open(sub, data, "", o); err != nil {
			t.Fatal(err)
		} else if err := again.Allow(ledger.Budget{Epsilon: want * 0.999, Delta: 1e-5}, entry("c", "r", 0, gaussian(0.1, 2)), 1); err != nil {
			t.Fatalf("read again, a round that is charged costs something: %v", err)
		}
	})
}

// Two federations that know nothing of one another train on the same data: the second is refused what the first has spent.
func TestTwoCoordinators(t *testing.T) {
	dir := t.TempDir()
	clinic := open(t, dir, data, "/data", ledger.Options{})
	bank := open(t, dir, data, "/data", ledger.Options{})
	terms := gaussian(1, 4)
	ten, err := terms.Epsilon(1e-5, 10)
	if err != nil {
		t.Fatal(err)
	}
	if err := clinic.SetBudget(t.Context(), ledger.Budget{Epsilon: ten * 1.001, Delta: 1e-5}); err != nil {
		t.Fatal(err)
	}
	if err := bank.Allow(ledger.Budget{}, entry("bank", "b", 0, terms), 10); err != nil {
		t.Errorf("ten rounds are in the budget: %v", err)
	}
	for round := range 6 {
		charge(t, clinic, entry("clinic", "a", round, terms))
	}
	if err := bank.Allow(ledger.Budget{}, entry("bank", "b", 0, terms), 4); err != nil {
		t.Errorf("four rounds are left: %v", err)
	}
	var refused *ledger.SpentError
	if err := bank.Allow(ledger.Budget{}, entry("bank", "b", 0, terms), 5); !errors.As(err, &refused) || !refused.Own || refused.Rounds != 5 ||
		refused.After <= ten || refused.Spent >= ten {
		t.Errorf("five rounds are not: %+v", err)
	} else if text := refused.Error(); !strings.Contains(text, "5 rounds would bring it") || !strings.Contains(text, "--set-budget") {
		t.Errorf("refused with %q", text)
	}
	for round := range 4 {
		if _, err := bank.ChargeWithin(t.Context(), ledger.Budget{}, entry("bank", "b", round, terms)); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range []*ledger.Ledger{bank, clinic} {
		if _, err := l.ChargeWithin(t.Context(), ledger.Budget{}, entry("bank", "b", 4, terms)); !errors.As(err, &refused) {
			t.Errorf("the eleventh round: %v", err)
		}
		if _, err := l.ChargeWithin(t.Context(), ledger.Budget{}, entry("bank", "b", 3, terms)); err != nil {
			t.Errorf("a round that is charged already: %v", err)
		}
		if e := spent(t, l); math.Abs(e-ten) > 1e-9 {
			t.Errorf("spent is %v, want %v", e, ten)
		}
	}
	s, err := bank.Summary(1e-5)
	if err != nil || s.Rounds != 10 || len(s.Runs) != 2 || s.Runs[0].Run != "a" || s.Runs[0].Rounds != 6 || s.Runs[1].Coordinator.Name != "bank" ||
		s.Runs[1].Trusts[0] != "clinic" || s.Runs[0].Epsilon >= s.Epsilon {
		t.Errorf("the summary is %+v, %v", s, err)
	}
	if err := bank.SetBudget(t.Context(), ledger.Budget{Epsilon: 2 * ten, Delta: 1e-5}); err != nil {
		t.Fatal(err)
	}
	if _, err := clinic.ChargeWithin(t.Context(), ledger.Budget{Epsilon: ten, Delta: 1e-5}, entry("clinic", "a", 6, terms)); !errors.As(err, &refused) || refused.Own {
		t.Errorf("the member's own limit: %v", err)
	}
	if _, err := clinic.ChargeWithin(t.Context(), ledger.Budget{}, entry("clinic", "a", 6, terms)); err != nil {
		t.Errorf("within the raised budget: %v", err)
	}
}

// What is charged once is charged once, and another attempt is another charge, at its full price.
func TestIdempotence(t *testing.T) {
	l := open(t, t.TempDir(), data, "", ledger.Options{})
	e := entry("c", "r", 3, gaussian(0.1, 2))
	if r := charge(t, l, e, e); r.Added != 1 {
		t.Errorf("%d entries were added", r.Added)
	}
	e.Coordinator.Name, e.Member = "renamed", "bob"
	first := charge(t, l, e)
	if first.Added != 0 {
		t.Error("the same round was charged twice")
	}
	once := spent(t, l)
	e.Attempt, e.Amplified = 1, false
	if r := charge(t, l, e); r.Added != 1 || spent(t, l) <= once || r.Head.Seq != first.Head.Seq+1 {
		t.Errorf("a second answer: %+v, ε %v after %v", r, spent(t, l), once)
	}
	e.Attempt, e.Amplified = 2, true
	if _, err := l.Charge(t.Context(), e); err == nil {
		t.Error("a second answer was amplified")
	}
}

// Data that were changed count with what they were before, both ways.
func TestSameLabel(t *testing.T) {
	dir := t.TempDir()
	terms := gaussian(1, 3)
	old := open(t, dir, data, "/data", ledger.Options{})
	if err := old.SetBudget(t.Context(), ledger.Budget{Epsilon: 9, Delta: 1e-5}); err != nil {
		t.Fatal(err)
	}
	charge(t, old, entry("c", "r", 0, terms))
	grown := open(t, dir, ledger.Digest{9}, "/data", ledger.Options{})
	if b, err := grown.Budget(); err != nil || b.Epsilon != 9 || spent(t, grown) != spent(t, old) || spent(t, old) == 0 {
		t.Errorf("the data after a change have budget %v, spent %v, %v", b, spent(t, grown), err)
	}
	charge(t, grown, entry("c", "r", 1, terms))
	two, err := terms.Epsilon(1e-5, 2)
	if err != nil || math.Abs(spent(t, old)-two) > 1e-9 || math.Abs(spent(t, grown)-two) > 1e-9 {
		t.Errorf("spent is %v and %v, want %v", spent(t, old), spent(t, grown), two)
	}
	if other := open(t, dir, ledger.Digest{7}, "/elsewhere", ledger.Options{}); spent(t, other) != 0 {
		t.Error("other data have spent something")
	}
	s, err := grown.Summary(1e-5)
	if err != nil || len(s.Relatives) != 1 || s.Relatives[0] != (ledger.Relative{Data: data, Rounds: 1}) || s.Rounds != 2 {
		t.Errorf("the summary is %+v, %v", s, err)
	}
	all, err := ledger.List(dir, ledger.Options{})
	if err != nil || len(all) != 2 {
		t.Errorf("%d ledgers, %v", len(all), err)
	}
}

// Every change of a byte, every exchange of lines and every cut is found, and named by file and line.
func TestTampering(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, data, "/data", ledger.Options{})
	var head journal.Head
	for round := range 4 {
		head = charge(t, l, entry("c", "r", round, gaussian(0.1, 1))).Head
	}
	whole, err := os.ReadFile(l.Path())
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(strings.TrimSuffix(string(whole), "\n"), "\n")
	lines[len(lines)-1] += "\n"
	check := func(what, text string, line int) {
		t.Helper()
		if err := os.WriteFile(l.Path(), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		var d *ledger.DamageError
		_, err := ledger.Open(dir, data, "/data", ledger.Options{})
		if !errors.As(err, &d) || d.Line != line || !strings.HasPrefix(err.Error(), fmt.Sprintf("%s:%d: ", l.Path(), line)) {
			t.Errorf("%s: %v, want an error in line %d", what, err, line)
		}
	}
	for i := range lines {
		for k := 0; k < len(lines[i])-1; k += 7 {
			b := []byte(lines[i])
			b[k] ^= 1
			check(fmt.Sprintf("byte %d of line %d", k, i+1), strings.Join(lines[:i], "")+string(b)+strings.Join(lines[i+1:], ""), i+1)
		}
	}
	check("exchanged", lines[0]+lines[1]+lines[3]+lines[2]+lines[4]+lines[5], 3)
	check("left out", lines[0]+lines[1]+lines[3]+lines[4]+lines[5], 3)
	check("charged twice by copying", string(whole)+lines[5], 7)

	// Cut off at the end, the chain is whole: only who has seen the end knows.
	if err := os.WriteFile(l.Path(), []byte(strings.Join(lines[:5], "")), 0o644); err != nil {
		t.Fatal(err)
	}
	short := open(t, dir, data, "/data", ledger.Options{})
	var gone *ledger.RewrittenError
	if err := short.Holds(head); !errors.As(err, &gone) || gone.Seen != head {
		t.Errorf("cut off: %v", err)
	}
	if _, err := l.Charge(t.Context(), entry("c", "r", 9, gaussian(0.1, 1))); !errors.As(err, &gone) {
		t.Errorf("charging a ledger that was put back: %v", err)
	}
	if err := l.Refresh(); !errors.As(err, &gone) {
		t.Errorf("reading a ledger that was put back: %v", err)
	}
	// And written anew.
	charge(t, short, entry("c", "other", 0, gaussian(0.1, 1)))
	if err := l.Refresh(); !errors.As(err, &gone) {
		t.Errorf("reading a ledger that was written anew: %v", err)
	}
	if err := os.RemoveAll(filepath.Dir(l.Path())); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Charge(t.Context(), entry("c", "r", 9, gaussian(0.1, 1))); !errors.As(err, &gone) {
		t.Errorf("charging a ledger that was removed: %v", err)
	}
	if err := os.WriteFile(l.Path(), whole, 0o644); err == nil {
		t.Fatal("the folder is still there")
	}
}

// A record that a later version might write, or somebody else, is an error and not skipped.
func TestForeignRecords(t *testing.T) {
	for kind, body := range map[string]string{
		"privacy.refunded":       `{}`,
		ledger.KindCharged:       `{"coordinator":{"name":"c","key":"k"},"run":"r","round":0,"phase":"train","member":"m","amplified":false,"terms":{}}`,
		ledger.KindBudget:        `{"epsilon":-1,"delta":1e-5}`,
		ledger.KindNamed:         `{"data":"` + ledger.Digest{4}.String() + `","label":"x"}`,
		ledger.KindCharged + "x": `null`,
	} {
		dir := t.TempDir()
		l := open(t, dir, data, "/data", ledger.Options{})
		charge(t, l, entry("c", "r", 0, gaussian(0.1, 1)))
		j, err := journal.Open(filepath.Dir(l.Path()), journal.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := j.Append(kind, jsonText(body)); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		var d *ledger.DamageError
		if _, err := ledger.Open(dir, data, "/data", ledger.Options{}); !errors.As(err, &d) || d.Line != 4 {
			t.Errorf("%s %s: %v", kind, body, err)
		}
		if _, err := ledger.Open(dir, ledger.Digest{8}, "/other", ledger.Options{}); !errors.As(err, &d) {
			t.Errorf("%s: the ledger of other data: %v", kind, err)
		}
	}
	// One that stands in the folder of other data.
	dir := t.TempDir()
	l := open(t, dir, data, "", ledger.Options{})
	charge(t, l, entry("c", "r", 0, gaussian(0.1, 1)))
	if err := os.Rename(filepath.Dir(l.Path()), filepath.Join(dir, ledger.Digest{5}.String())); err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.Open(dir, ledger.Digest{5}, "", ledger.Options{}); err == nil || !strings.Contains(err.Error(), "journal.jsonl:1: ") {
		t.Errorf("a ledger in another folder: %v", err)
	}
}

type jsonText string

func (j jsonText) MarshalJSON() ([]byte, error) { return []byte(j), nil }

func TestWrongUse(t *testing.T) {
	l := open(t, t.TempDir(), data, "", ledger.Options{})
	for _, change := range []func(*ledger.Entry){
		func(e *ledger.Entry) { e.Coordinator.Key = "" },
		func(e *ledger.Entry) { e.Run = strings.Repeat("x", 1000) },
		func(e *ledger.Entry) { e.Round = -1 },
		func(e *ledger.Entry) { e.Terms.Noise = 0 },
		func(e *ledger.Entry) { e.Terms.EveryEnrolledCharged = false },
	} {
		e := entry("c", "r", 0, gaussian(0.1, 1))
		change(&e)
		if _, err := l.Charge(t.Context(), e); err == nil {
			t.Errorf("%+v was charged", e)
		}
	}
	for _, b := range []ledger.Budget{{Epsilon: -1, Delta: 0.1}, {Epsilon: 1}, {Epsilon: 1, Delta: 1}, {Epsilon: math.NaN(), Delta: 0.1}, {Epsilon: math.Inf(1), Delta: 0.1}} {
		if err := l.SetBudget(t.Context(), b); err == nil {
			t.Errorf("a budget of %+v", b)
		}
	}
	if _, _, err := l.Spent(0); err == nil {
		t.Error("spent at δ = 0")
	}
	if _, err := os.Stat(l.Path()); err == nil {
		t.Error("wrong use left a file")
	}
}

// Thousands of entries: a charge costs a look at the file, not another composition of everything, and kinds of noise that PLD cannot
// take are counted by Rényi divergences.
func TestMany(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, data, "/data", ledger.Options{})
	var entries []ledger.Entry
	for i := range 3000 {
		entries = append(entries, entry("c", "r", i, gaussian(0.01, 1+float64(i%50)/10)))
	}
	charge(t, l, entries...)
	limit := ledger.Budget{Epsilon: 100, Delta: 1e-5}
	for i := range 20 {
		if _, err := l.ChargeWithin(t.Context(), limit, entry("d", "r", i, gaussian(0.01, 1))); err != nil {
			t.Fatal(err)
		}
	}
	var releases []dp.Release
	for _, e := range entries {
		releases = append(releases, e.Terms.Release())
	}
	releases = append(releases, dp.Release{Fraction: 0.01, Noise: 1, Rounds: 20})
	want, err := dp.RDP.Epsilon(1e-5, releases...)
	e, by, serr := l.Spent(1e-5)
	if err != nil || serr != nil || by != dp.RDP || math.Abs(e-want) > 1e-9*want {
		t.Errorf("ε = %v by %v (%v), want %v (%v)", e, by, serr, want, err)
	}
}

func TestPatience(t *testing.T) {
	dir := t.TempDir()
	held, err := journal.OS().Lock(filepath.Join(dir, journal.LockName))
	if err != nil {
		t.Fatal(err)
	}
	l := open(t, dir, data, "", ledger.Options{Patience: 20 * time.Millisecond})
	_, err = l.Charge(t.Context(), entry("c", "r", 0, gaussian(0.1, 1)))
	var locked *journal.LockedError
	if !errors.As(err, &locked) {
		t.Errorf("charging while another process does: %v", err)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	charge(t, l, entry("c", "r", 0, gaussian(0.1, 1)))
}

func TestDigestOf(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	digest := func(path string) ledger.Digest {
		d, err := ledger.DigestOf(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	a, b, c := digest(write("a.csv", "1,2\n")), digest(write("b.csv", "1,2\n")), digest(write("c.csv", "1,3\n"))
	if a != b || a == c {
		t.Error("the digest of a file is not that of its content")
	}
	write("x/one/1", "1")
	write("x/two", "2")
	write("y/one/1", "1")
	write("y/two", "2")
	write("y/.DS_Store", "whatever")
	x, y := digest(filepath.Join(dir, "x")), digest(filepath.Join(dir, "y"))
	if x != y || x == a {
		t.Error("equal folders have other digests")
	}
	write("y/two", "3")
	if digest(filepath.Join(dir, "y")) == x {
		t.Error("a change in a folder is not seen")
	}
	if _, err := ledger.DigestOf(t.Context(), filepath.Join(dir, "nothing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
	if d, err := ledger.ParseDigest(a.String()); err != nil || d != a {
		t.Errorf("parsed %v, %v", d, err)
	}
	for _, wrong := range []string{"", "12", strings.ToUpper(a.String()), a.String() + "00"} {
		if _, err := ledger.ParseDigest(wrong); err == nil {
			t.Errorf("%q is a digest", wrong)
		}
	}
}
