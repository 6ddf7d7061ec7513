package record

import (
	"crypto/hkdf"
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

	"github.com/cohort-learning/cohort/journal"
)

const (
	// SecretName is the file in the folder of a run that holds the key of its secrets: who is drawn by coins, noise, and the
	// sealed records of the journal. Whoever has it can take the noise off what the run has published.
	SecretName = "secret.key"
	// KindSecret is the kind of the record that stands before anything is made with that key.
	KindSecret = "noise.sealed"
)

// sealed is the body of noise.sealed: which key the secrets of a run follow from, without telling it. Whoever keeps the key cannot
// have another one afterwards.
type sealed struct {
	Key string `json:"key"` // SHA-256 of a label and the key, hexadecimal
}

func sealOf(key [32]byte) sealed {
	h := sha256.Sum256(append([]byte("cohort secret.key v1\x00"), key[:]...))
	return sealed{hex.EncodeToString(h[:])}
}

// MakeSecret returns the key of the run's secrets, that in its folder or, if there never was one, a new one. It is durable, and
// what it is sealed with in the journal, when MakeSecret returns. A key that is not the one in the journal is refused, and so is
// none where there was one. Fsys is the file system that the run was opened with.
func (r *Run) MakeSecret(fsys journal.FS) (key [32]byte, err error) {
	known, err := sealIn(r.journal.Lines(0))
	if err != nil {
		return key, err
	}
	key, err = readSecret(fsys, r.dir, known)
	if errors.Is(err, fs.ErrNotExist) && known == nil {
		key, err = newSecret(fsys, r.dir)
	}
	if err != nil || known != nil {
		return key, err
	}
	if _, err := r.journal.Append(KindSecret, sealOf(key)); err != nil {
		return key, fmt.Errorf("sealing the key of the run's secrets: %w", err)
	}
	return key, nil
}

// ReadSecret returns the key of the secrets of the run in dir, which must be the one that its journal seals.
func ReadSecret(fsys journal.FS, dir string) (key [32]byte, err error) {
	known, err := sealIn(journal.Read(fsys, dir))
	if err != nil {
		return key, err
	}
	return readSecret(fsys, dir, known)
}

// Read returns the records of the journal of the run in dir as [journal.Read] does, with sealed ones opened.
func Read(fsys journal.FS, dir string, kinds ...string) iter.Seq2[journal.Record, error] {
	return journal.Opened(journal.Read(fsys, dir), journalKey(fsys, dir), kinds...)
}

// journalKey fetches the key of the sealed records of the journal in dir.
func journalKey(fsys journal.FS, dir string) func() ([32]byte, error) {
	return func() (out [32]byte, err error) {
		key, err := ReadSecret(fsys, dir)
		if errors.Is(err, fs.ErrNotExist) {
			return out, errors.New(err.Error()) // it is not the run that does not exist
		}
		if err != nil {
			return out, err
		}
		b, err := hkdf.Key(sha256.New, key[:], nil, "cohort journal", len(out))
		copy(out[:], b)
		return out, err
	}
}

// sealIn returns the seal among records, nil if there is none.
func sealIn(records iter.Seq2[journal.Record, error]) (known *sealed, err error) {
	for r, err := range records {
		if err != nil {
			return nil, err
		}
		if r.Kind != KindSecret {
			continue
		}
		known = &sealed{}
		if err := r.Decode(known); err != nil {
			return nil, err
		}
	}
	return known, nil
}

func readSecret(fsys journal.FS, dir string, known *sealed) (key [32]byte, err error) {
	path := filepath.Join(dir, SecretName)
	f, err := fsys.OpenFile(path, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return key, fmt.Errorf("%s is missing, the key of who was drawn, of the noise and of what the journal seals: without it the run's rounds can neither "+
			"be read nor computed again; put it back from where it was moved to: %w", path, fs.ErrNotExist)
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

func newSecret(fsys journal.FS, dir string) (key [32]byte, err error) {
	if _, err := rand.Read(key[:]); err != nil {
		return key, fmt.Errorf("no randomness for secrets: %w", err)
	}
	if err := journal.WritePrivateFile(fsys, filepath.Join(dir, SecretName), func(w io.Writer) error { _, err := w.Write(key[:]); return err }); err != nil {
		return key, fmt.Errorf("keeping the key of the run's secrets: %w", err)
	}
	return key, nil
}
