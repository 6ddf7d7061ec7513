package simulation

import (
	"crypto/rand"
	"fmt"
	"sync"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/record"
)

// Secrets returns the secrets of a run: of the key that lies in its folder or, when the first one is asked for, of a new one. See
// [record.Run.MakeSecret].
func Secrets(fsys journal.FS, run *record.Run) func(round int, purpose string) ([32]byte, error) {
	return secrets(func() ([32]byte, error) { return run.MakeSecret(fsys) })
}

// KeptSecrets is Secrets for a run that has begun: without its key nothing that was drawn from it can be drawn again.
func KeptSecrets(fsys journal.FS, dir string) func(round int, purpose string) ([32]byte, error) {
	return secrets(func() ([32]byte, error) { return record.ReadSecret(fsys, dir) })
}

// secrets are those of a key that is fetched when it is first needed.
func secrets(fetch func() ([32]byte, error)) func(round int, purpose string) ([32]byte, error) {
	key := sync.OnceValues(fetch)
	return func(round int, purpose string) (out [32]byte, err error) {
		k, err := key()
		if err != nil {
			return out, err
		}
		return federated.Secrets(k)(round, purpose)
	}
}

// passing returns secrets that nobody keeps, for a run in memory.
func passing() func(round int, purpose string) ([32]byte, error) {
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		return func(int, string) ([32]byte, error) { return key, fmt.Errorf("no randomness for secrets: %w", err) }
	}
	return federated.Secrets(key)
}
