package record

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/cohort-learning/cohort/journal"
)

// Checkpoints are the files of a folder that hold a run's models and state.
//
// A checkpoint has a round, and may have a name, such as "final" or "best". Its
// file's name says so, and ends in the first 16 digits of the content's SHA-256:
//
//	round-000012.9f86d081884c7d65.safetensors
//	final.round-000020.60303ae22b998861.safetensors
//
// So a file appears whole, by one rename, and shows by itself whether it is
// what was saved. The full digest belongs into the journal.
type Checkpoints struct {
	FS   journal.FS // nil means [journal.OS]
	Dir  string
	Keep int // how many checkpoints without a name are kept; 0 means 2
}

const (
	defaultKeep   = 2
	checkpointExt = ".safetensors"
	shortDigest   = 16 // digits in a file's name
)

// A Checkpoint is a saved file.
type Checkpoint struct {
	Round  int          `json:"round"`
	Name   string       `json:"name,omitempty"`
	Path   string       `json:"path"`
	Bytes  int64        `json:"bytes"`
	Digest journal.Hash `json:"digest"` // SHA-256 of the content; zero if not yet read
	prefix string       // as many digits as the file's name has
}

// A DigestError says that a checkpoint's content is not what was saved.
type DigestError struct {
	Path      string
	Want, Got string // hexadecimal; Want may be the first digits only
}

func (e *DigestError) Error() string {
	return fmt.Sprintf("checkpoint %s is damaged: its SHA-256 is %s, not %s", e.Path, e.Got, e.Want)
}

var (
	fileForm = regexp.MustCompile(`^(?:([a-z][a-z0-9-]*)\.)?round-(\d{6,18})\.([0-9a-f]{16})\.safetensors$`)
	nameForm = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)
)

// Save writes a checkpoint of a round and returns when it is durable. Then
// Keep without a name are left: it and those of the rounds before it; others of
// the same or later rounds come from a past that the run has gone back behind.
// If saving fails, those that were there before stay.
func (c Checkpoints) Save(round int, write func(io.Writer) error) (Checkpoint, error) {
	return c.save("", round, write)
}

// SaveNamed is Save for a checkpoint with a name, of lower-case letters, digits
// and hyphens. It replaces the one that has that name, and is kept.
func (c Checkpoints) SaveNamed(name string, round int, write func(io.Writer) error) (Checkpoint, error) {
	if !nameForm.MatchString(name) || strings.HasPrefix(name, "round-") {
		panic(fmt.Sprintf("record: invalid checkpoint name %q", name))
	}
	return c.save(name, round, write)
}

func (c Checkpoints) save(name string, round int, write func(io.Writer) error) (cp Checkpoint, err error) {
	if round < 0 {
		panic(fmt.Sprintf("record: checkpoint of round %d", round))
	}
	what := fmt.Sprintf("save checkpoint of round %d", round)
	if err := c.fs().MkdirAll(c.Dir, 0o755); err != nil {
		return cp, fmt.Errorf("%s: %w", what, err)
	}
	// The file's name is known when its content is: write first, then rename.
	tmp := filepath.Join(c.Dir, "checkpoint.tmp")
	cp = Checkpoint{Round: round, Name: name}
	if cp.Bytes, cp.Digest, err = c.writeTemp(tmp, write); err != nil {
		return Checkpoint{}, fmt.Errorf("%s: %w", what, errors.Join(err, c.remove(tmp)))
	}
	cp.prefix = cp.Digest.String()[:shortDigest]
	base := fmt.Sprintf("round-%06d.%s%s", round, cp.prefix, checkpointExt)
	if name != "" {
		base = name + "." + base
	}
	cp.Path = filepath.Join(c.Dir, base)
	err = c.fs().Rename(tmp, cp.Path)
	if err == nil {
		err = c.fs().SyncDir(c.Dir)
	}
	if err == nil {
		err = c.fs().SyncDir(filepath.Dir(c.Dir)) // the folder itself, at the first time
	}
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%s: %w", what, errors.Join(err, c.remove(tmp)))
	}
	if err := c.prune(cp); err != nil {
		return cp, fmt.Errorf("%s: it is saved, but older ones cannot be removed: %w", what, err)
	}
	return cp, nil
}

func (c Checkpoints) fs() journal.FS { return Options{FS: c.FS}.fs() }

func (c Checkpoints) writeTemp(tmp string, write func(io.Writer) error) (n int64, digest journal.Hash, err error) {
	f, err := c.fs().OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, digest, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sum := sha256.New()
	count := new(counter)
	w := bufio.NewWriterSize(io.MultiWriter(f, sum, count), 1<<20)
	if err := write(w); err != nil {
		return 0, digest, err
	}
	if err := w.Flush(); err != nil {
		return 0, digest, err
	}
	sum.Sum(digest[:0])
	return int64(*count), digest, f.Sync()
}

type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

// remove removes a file that may not be there.
func (c Checkpoints) remove(path string) error {
	if err := c.fs().Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// prune removes what the newly saved cp makes superfluous.
func (c Checkpoints) prune(cp Checkpoint) error {
	all, err := c.List()
	if err != nil {
		return err
	}
	keep := c.Keep
	if keep == 0 {
		keep = defaultKeep
	}
	var errs []error
	for _, old := range slices.Backward(all) {
		switch {
		case old.Path == cp.Path:
			if cp.Name == "" {
				keep--
			}
			continue
		case old.Name != cp.Name:
			continue
		case cp.Name == "" && old.Round < cp.Round && keep > 0:
			keep--
			continue
		}
		errs = append(errs, c.remove(old.Path))
	}
	return errors.Join(errs...)
}

// List returns all checkpoints in the order of rounds, without reading them:
// their Digest is zero.
func (c Checkpoints) List() ([]Checkpoint, error) {
	entries, err := c.fs().ReadDir(c.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list checkpoints: %w", err)
	}
	var list []Checkpoint
	for _, e := range entries {
		m := fileForm.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		round, err := strconv.Atoi(m[2])
		if err != nil {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) { // removed since
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list checkpoints: %w", err)
		}
		list = append(list, Checkpoint{Round: round, Name: m[1], Path: filepath.Join(c.Dir, e.Name()), Bytes: info.Size(), prefix: m[3]})
	}
	slices.SortStableFunc(list, func(a, b Checkpoint) int { return a.Round - b.Round })
	return list, nil
}

// Latest returns the newest checkpoint that is whole, read and checked, and an
// error for each newer one that is not. If there is none, ok is false.
func (c Checkpoints) Latest() (cp Checkpoint, ok bool, bad []error, err error) {
	return c.find(func(Checkpoint) bool { return true })
}

// Named returns the newest whole checkpoint that has the name, as Latest does.
func (c Checkpoints) Named(name string) (cp Checkpoint, ok bool, bad []error, err error) {
	return c.find(func(cp Checkpoint) bool { return cp.Name == name })
}

// Find returns a whole checkpoint with this digest, such as the one that the
// journal names; what was saved besides, by a process that did not come to
// journal it, is passed over.
func (c Checkpoints) Find(digest journal.Hash) (cp Checkpoint, ok bool, bad []error, err error) {
	return c.find(func(cp Checkpoint) bool { return strings.HasPrefix(digest.String(), cp.prefix) })
}

func (c Checkpoints) find(want func(Checkpoint) bool) (cp Checkpoint, ok bool, bad []error, err error) {
	all, err := c.List()
	if err != nil {
		return Checkpoint{}, false, nil, err
	}
	for _, cp := range slices.Backward(all) {
		if !want(cp) {
			continue
		}
		if err := c.Load(&cp, nil); err != nil {
			bad = append(bad, err)
			continue
		}
		return cp, true, bad, nil
	}
	return Checkpoint{}, false, bad, nil
}

// Load reads the file twice: first it checks the digest, and sets cp.Digest if
// it was zero; then read gets the content, unless it is nil. A *[DigestError]
// says that the content is not what was saved.
func (c Checkpoints) Load(cp *Checkpoint, read func(io.Reader) error) error {
	f, err := c.fs().OpenFile(cp.Path, os.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("load checkpoint: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return fmt.Errorf("load checkpoint %s: %w", cp.Path, err)
	}
	want := cp.prefix
	if cp.Digest != (journal.Hash{}) {
		want = cp.Digest.String()
	}
	got := journal.Hash(sum.Sum(nil))
	if !strings.HasPrefix(got.String(), want) {
		return &DigestError{Path: cp.Path, Want: want, Got: hex.EncodeToString(got[:])}
	}
	cp.Digest = got
	if read == nil {
		return nil
	}
	if err := read(io.NewSectionReader(f, 0, cp.Bytes)); err != nil {
		return fmt.Errorf("load checkpoint %s: %w", cp.Path, err)
	}
	return nil
}
