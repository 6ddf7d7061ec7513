package coordinator

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/transport"
)

// Checkpoints of sums lie in the folder "sums" of the run, one file each, named by its digest.
const sumsDir = "sums"

func (k *keeper) sums() string { return filepath.Join(k.r.rec.Dir(), sumsDir) }

// writeFold writes a file that begins with head, and returns its name and digest.
func (k *keeper) writeFold(head []byte, write func(io.Writer) error) (string, transport.Digest, error) {
	fsys := k.r.srv.o.FS
	if err := fsys.MkdirAll(k.sums(), 0o755); err != nil {
		return "", transport.Digest{}, err
	}
	sum := sha256.New()
	tmp := filepath.Join(k.sums(), "sums.new")
	err := journal.WriteFile(fsys, tmp, func(w io.Writer) error {
		b := bufio.NewWriterSize(io.MultiWriter(w, sum), 1<<20)
		if _, err := b.Write(head); err != nil {
			return err
		}
		if err := write(b); err != nil {
			return err
		}
		return b.Flush()
	})
	if err != nil {
		return "", transport.Digest{}, err
	}
	d := transport.Digest(sum.Sum(nil))
	name := d.String()[:16] + ".sums"
	if err := fsys.Rename(tmp, filepath.Join(k.sums(), name)); err != nil {
		return "", transport.Digest{}, err
	}
	return name, d, fsys.SyncDir(k.sums())
}

// readFold reads a checkpoint of sums; ok is false if the file is not there.
func (k *keeper) readFold(f folds) (inside []seat, rest []byte, ok bool, err error) {
	if f.File != filepath.Base(f.File) {
		return nil, nil, false, fmt.Errorf("checkpoint of the sums: %q is no file name", f.File)
	}
	path := filepath.Join(k.sums(), f.File)
	file, err := k.r.srv.o.FS.OpenFile(path, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, false, nil
	}
	if err != nil {
		return nil, nil, false, err
	}
	defer file.Close()
	b, err := io.ReadAll(file)
	if err != nil {
		return nil, nil, false, err
	}
	if transport.DigestOf(b) != f.Digest {
		return nil, nil, false, fmt.Errorf("%s is damaged: its SHA-256 is not what the journal says", path)
	}
	head, rest, _ := bytes.Cut(b, []byte("\n"))
	if err := json.Unmarshal(head, &inside); err != nil {
		return nil, nil, false, fmt.Errorf("%s: %w", path, err)
	}
	return inside, rest, true, nil
}

// sweepFolds removes all checkpoints of sums but one.
func (k *keeper) sweepFolds(keep string) error {
	fsys := k.r.srv.o.FS
	entries, err := fsys.ReadDir(k.sums())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".sums") && e.Name() != keep {
			if err := fsys.Remove(filepath.Join(k.sums(), e.Name())); err != nil {
				return fmt.Errorf("removing an old checkpoint of sums: %w", err)
			}
		}
	}
	return nil
}
