package member

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/weights"
)

// lost is the version of a memory that the journal knows of and the disk does not.
const lost = "lost"

// A memory is a file of its own from the moment its result is kept; committing it is a record in the journal that names the
// order, so no file is ever replaced.

// memoryPath is the file of the memory that came with an order.
func memoryPath(dir, run string, order int) string {
	return filepath.Join(dir, stateName, fileOf(run), fmt.Sprintf("%d.safetensors", order))
}

// fileOf makes a run's name fit for a folder of any system. Names that are fit already stay; others get their digest, so
// that no two runs share a folder and none leaves its place.
func fileOf(run string) string {
	fit := run != "" && len(run) <= 100 && run[0] != '.' && run[0] != '-'
	for i := range len(run) {
		c := run[i]
		fit = fit && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.')
	}
	if fit {
		return run
	}
	return "run-" + transport.DigestOf([]byte(run)).String()[:24]
}

// writeMemory writes a memory durably.
func writeMemory(fsys journal.FS, path string, s weights.Set) (*memo, error) {
	var m memo
	if err := fsys.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	h := sha256.New()
	err := journal.WriteFile(fsys, path, func(w io.Writer) error {
		n := &counter{w: io.MultiWriter(w, h)}
		err := weights.Write(n, s, nil)
		m.Bytes = n.n
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("keeping the member's memory: %w", err)
	}
	h.Sum(m.Digest[:0])
	return &m, nil
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// readMemory reads a memory. It is an error if the file is not what m says, in whatever way.
func readMemory(fsys journal.FS, path string, m memo) (weights.Set, error) {
	f, err := fsys.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return weights.Set{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, m.Bytes+1))
	if err != nil {
		return weights.Set{}, err
	}
	if transport.DigestOf(b) != m.Digest {
		return weights.Set{}, fmt.Errorf("%s: %w", path, errDamaged)
	}
	s, _, err := weights.Read(bytes.NewReader(b))
	return s, err
}

// errDamaged says that a file does not hold what was written.
var errDamaged = errors.New("it is damaged")

// tidyMemory removes the files of a run's memories that no order and no commitment needs.
func tidyMemory(fsys journal.FS, dir, run string, needed func(order int) bool) error {
	folder := filepath.Dir(memoryPath(dir, run, 0))
	entries, err := fsys.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		order := -1
		_, err := fmt.Sscanf(strings.TrimSuffix(e.Name(), ".tmp"), "%d.safetensors", &order)
		if err == nil && needed(order) && !strings.HasSuffix(e.Name(), ".tmp") {
			continue
		}
		if err := fsys.Remove(filepath.Join(folder, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
