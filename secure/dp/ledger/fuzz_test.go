package ledger

import (
	"encoding/json"
	"errors"
	"os"
	"testing"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/secure/dp"
)

// Whatever stands in a record, it is counted or refused; what is counted says the same when it is written again.
func FuzzRecord(f *testing.F) {
	whole := Entry{Coordinator: Coordinator{"c", "k"}, Run: "r", Phase: "train", Member: "m",
		Terms: dp.Terms{Mechanism: dp.CentralGaussian, Fraction: 0.1, Noise: 1, Clip: 1, Delta: 1e-5, Members: 10, EveryEnrolledCharged: true, Trusts: "c"}, Amplified: true}
	f.Add(KindCharged, mustJSON(f, whole))
	whole.Amplified = false
	whole.Terms = dp.Terms{Mechanism: dp.DistributedSkellam, Fraction: 1, Noise: 1, Clip: 1, Delta: 1e-5, Members: 10, Survivors: 5, Scale: 100, Dimension: 7}
	f.Add(KindCharged, mustJSON(f, whole))
	f.Add(KindBudget, []byte(`{"epsilon":3,"delta":1e-5}`))
	f.Add(KindNamed, []byte(`{"data":"0000000000000000000000000000000000000000000000000000000000000000","label":"x"}`))
	f.Add("unknown", []byte(`{}`))
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		s := newState(Digest{})
		if s.apply(journal.Record{Kind: kind, Body: body}) != nil {
			return
		}
		if kind == KindCharged {
			again := newState(Digest{})
			if err := again.apply(journal.Record{Kind: kind, Body: mustJSON(t, s.own[0])}); err != nil || again.own[0] != s.own[0] {
				t.Errorf("%s becomes %+v, %v", body, again.own, err)
			}
			if e, _ := s.spent.epsilon(1e-5); !(e >= 0) || s.spent.rounds != 1 {
				t.Errorf("%s costs %v in %d rounds", body, e, s.spent.rounds)
			}
		}
	})
}

// Whatever a file holds, opening it gives a ledger or an error that names it.
func FuzzFile(f *testing.F) {
	dir := f.TempDir()
	l, err := Open(dir, Digest{}, "/data", Options{})
	if err != nil {
		f.Fatal(err)
	}
	if err := l.SetBudget(f.Context(), Budget{1, 1e-5}); err != nil {
		f.Fatal(err)
	}
	text, err := os.ReadFile(l.Path())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(text[:len(text)/2])
	f.Add([]byte("\n"))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(l.Path(), text, 0o644); err != nil {
			t.Fatal(err)
		}
		l, err := Open(dir, Digest{}, "", Options{})
		var d *DamageError
		if err != nil && !errors.As(err, &d) {
			t.Fatalf("%T: %v", err, err)
		}
		if err == nil {
			if _, err := l.Summary(1e-5); err != nil {
				t.Error(err)
			}
		}
	})
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
