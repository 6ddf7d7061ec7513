package simulation

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"sync"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/record"
)

// secretName is the file in the folder of a run that holds the key of its secrets: who is drawn by coins, and noise. Whoever has
// it can take the noise off what the run has published.
const secretName = "secret.key"

// sealed is the body of noise.sealed: which key the secrets of a run follow from, without telling it. Whoever keeps the key cannot
// have another one afterwards.
type sealed struct {
	Key string `json:"key"` // SHA-256 of a label and the key, hexadecimal
}

func sealOf(key [32]byte) sealed {
	h := sha256.Sum256(append([]byte("cohort secret.key v1\x00"), key[:]...))
	return sealed{hex.EncodeToString(h[:])}
}

// Secrets returns the secrets of a run: of the key that lies in its folder or, when the first one is asked for, of a new one. The
// key is durable, and what it is sealed with in the journal, before anything is made with it. A key that is not the one in the
// journal is refused, and so is none where there was one.
func Secrets(fsys journal.FS, run *record.Run) func(round int, purpose string) ([32]byte, error) {
	return secrets(func() ([32]byte, error) {
		known, err := sealIn(run.Journal().Records(KindSealed))
		if err != nil {
			return [32]byte{}, err
		}
		key, err := readKey(fsys, run.Dir(), known)
		if errors.Is(err, fs.ErrNotExist) && known == nil {
			key, err = makeKey(fsys, run.Dir())
		}
		if err != nil || known != nil {
			return key, err
		}
		if _, err := run.Journal().Append(KindSealed, sealOf(key)); err != nil {
			return key, fmt.Errorf("sealing the key of the run's secrets: %w", err)
		}
		return key, nil
	})
}

// KeptSecrets is Secrets for a run that has begun: without its key nothing that was drawn from it can be drawn again.
func KeptSecrets(fsys journal.FS, dir string) func(round int, purpose string) ([32]byte, error) {
	return secrets(func() ([32]byte, error) {
		known, err := sealIn(journal.Read(fsys, dir, KindSealed))
		if err != nil {
			return [32]byte{}, err
		}
		return readKey(fsys, dir, known)
	})
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

// sealIn returns the seal among records, nil if there is none.
func sealIn(records iter.Seq2[journal.Record, error]) (known *sealed, err error) {
	for r, err := range journal.Decode[sealed](records) {
		if err != nil {
			return nil, err
		}
		known = &r.Body
	}
	return known, nil
}

func readKey(fsys journal.FS, dir string, known *sealed) (key [32]byte, err error) {
	path := filepath.Join(dir, secretName)
	f, err := fsys.OpenFile(path, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return key, fmt.Errorf("%s is missing, the key of who was drawn and of the noise: without it the run's rounds cannot be computed again; put it back from where it was moved to: %w",
			path, fs.ErrNotExist)
	}
	if err != nil {
		return key, err
	}
	defer f.Close()
	if _, err := io.ReadFull(f, key[:]); err != nil {
		return key, fmt.Errorf("%s is damaged: without it the run's noise cannot be made again: %w", path, err)
	}
	if known != nil && *known != sealOf(key) {
		return key, fmt.Errorf("%s is not the key that the run began with, which its journal seals: bring that one back", path)
	}
	return key, nil
}

func makeKey(fsys journal.FS, dir string) (key [32]byte, err error) {
	if _, err := rand.Read(key[:]); err != nil {
		return key, fmt.Errorf("no randomness for secrets: %w", err)
	}
	if err := journal.WritePrivateFile(fsys, filepath.Join(dir, secretName), func(w io.Writer) error { _, err := w.Write(key[:]); return err }); err != nil {
		return key, fmt.Errorf("keeping the key of the run's secrets: %w", err)
	}
	return key, nil
}

// passing returns secrets that nobody keeps, for a run in memory.
func passing() func(round int, purpose string) ([32]byte, error) {
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		return func(int, string) ([32]byte, error) { return key, fmt.Errorf("no randomness for secrets: %w", err) }
	}
	return federated.Secrets(key)
}
