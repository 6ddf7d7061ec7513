package simulation

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
)

// secretName is the file in the folder of a run that holds the key of its secrets: who is drawn by coins, and noise. Whoever has
// it can take the noise off what the run has published.
const secretName = "secret.key"

// Secrets returns the secrets of the run in a folder: of the key that lies there or, when the first one is asked for, of a new
// one, which is durable before anything is made with it.
func Secrets(fsys journal.FS, dir string) func(round int, purpose string) ([32]byte, error) {
	return secrets(fsys, dir, true)
}

// KeptSecrets is Secrets for a run that is over: the key must be there.
func KeptSecrets(fsys journal.FS, dir string) func(round int, purpose string) ([32]byte, error) {
	return secrets(fsys, dir, false)
}

func secrets(fsys journal.FS, dir string, begin bool) func(round int, purpose string) ([32]byte, error) {
	open := sync.OnceValues(func() (func(int, string) ([32]byte, error), error) { return openSecrets(fsys, dir, begin) })
	return func(round int, purpose string) (out [32]byte, err error) {
		of, err := open()
		if err != nil {
			return out, err
		}
		return of(round, purpose)
	}
}

func openSecrets(fsys journal.FS, dir string, begin bool) (func(round int, purpose string) ([32]byte, error), error) {
	path := filepath.Join(dir, secretName)
	var key [32]byte
	f, err := fsys.OpenFile(path, os.O_RDONLY, 0)
	switch {
	case err == nil:
		defer f.Close()
		if _, err := io.ReadFull(f, key[:]); err != nil {
			return nil, fmt.Errorf("%s is damaged: without it the run's noise cannot be made again: %w", path, err)
		}
	case errors.Is(err, fs.ErrNotExist) && !begin:
		return nil, fmt.Errorf("%s is not there: who was drawn and what noise was added follow from it, and only whoever keeps it can compute the run again", path)
	case errors.Is(err, fs.ErrNotExist):
		if _, err := rand.Read(key[:]); err != nil {
			return nil, fmt.Errorf("no randomness for secrets: %w", err)
		}
		if err := journal.WritePrivateFile(fsys, path, func(w io.Writer) error { _, err := w.Write(key[:]); return err }); err != nil {
			return nil, fmt.Errorf("keeping the key of the run's secrets: %w", err)
		}
	default:
		return nil, err
	}
	return federated.Secrets(key), nil
}

// passing returns secrets that nobody keeps, for a run in memory.
func passing() func(round int, purpose string) ([32]byte, error) {
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		return func(int, string) ([32]byte, error) { return key, fmt.Errorf("no randomness for secrets: %w", err) }
	}
	return federated.Secrets(key)
}
