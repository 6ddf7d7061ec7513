package simulation_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/simulation"
)

// TestSecretsAreSealed checks that the secrets of a run follow from one key for good: its seal stands in the journal before anything
// is made with it, once, and another key or none is refused, by whoever goes on with the run and by whoever computes it again.
func TestSecretsAreSealed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	run, err := record.Create(dir, record.Meta{Method: "test"}, nil, record.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := run.Close(record.Interrupted, nil); err != nil {
			t.Error(err)
		}
	}()
	fsys, path := journal.OS(), filepath.Join(dir, "secret.key")
	first, err := simulation.Secrets(fsys, run)(3, "noise")
	if err != nil {
		t.Fatal(err)
	}
	seals := func() (n int, text string) {
		for r, err := range run.Journal().Records(simulation.KindSealed) {
			if err != nil {
				t.Fatal(err)
			}
			n, text = n+1, string(r.Body)
		}
		return n, text
	}
	key, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n, text := seals(); n != 1 || !strings.Contains(text, `"key"`) || strings.Contains(text, string(key)) {
		t.Errorf("%d seals: %s", n, text)
	}
	all := map[string]func(int, string) ([32]byte, error){"resumed": simulation.Secrets(fsys, run), "verified": simulation.KeptSecrets(fsys, dir)}
	for name, secrets := range all {
		if again, err := secrets(3, "noise"); err != nil || again != first {
			t.Errorf("%s: other secrets: %v", name, err)
		}
	}
	if n, _ := seals(); n != 1 {
		t.Errorf("%d seals after a resumption", n)
	}
	refused := func(what, says string) {
		t.Helper()
		for name, secrets := range map[string]func(int, string) ([32]byte, error){"resumed": simulation.Secrets(fsys, run), "verified": simulation.KeptSecrets(fsys, dir)} {
			if _, err := secrets(3, "noise"); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%s with %s: %v", name, what, err)
			}
		}
	}
	key[5] ^= 1
	if err := os.WriteFile(path, key, 0o600); err != nil {
		t.Fatal(err)
	}
	refused("another key", "is not the key that the run began with")
	if err := os.WriteFile(path, key[:7], 0o600); err != nil {
		t.Fatal(err)
	}
	refused("half a key", "is damaged")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	refused("no key", "is missing")
}
