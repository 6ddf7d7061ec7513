package program

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// Bounds of what a program may write.
const (
	maxResult  = 1 << 20 // bytes of result.json
	maxHeader  = 1 << 20 // bytes of update.safetensors beside the elements
	maxCounted = 1 << 48 // examples, steps
	maxFiles   = 100_000 // in the work folder
)

// Outcome is the content of result.json. Other fields are ignored.
type Outcome struct {
	Examples uint64  `json:"examples"` // that the member has and trained on; 0: it abstains, and no update is looked for
	Loss     float64 `json:"loss"`     // mean over the examples seen, each at its own step
	Seen     uint64  `json:"seen"`     // examples that all steps together saw; 0: as Examples
	Steps    uint64  `json:"steps"`
	// Labels are the classes of the examples by number, needed where only the program can read the data and the method leaves
	// out the classes that a member does not have.
	Labels []int32 `json:"labels"`
}

func (o Outcome) report() train.Report {
	seen := o.Seen
	if seen == 0 {
		seen = o.Examples
	}
	return train.Report{Steps: int(o.Steps), Examples: int(seen), Loss: o.Loss}
}

// workspace is the folder of one task.
type workspace struct {
	dir   string // private to this process
	work  string // in it: what the program sees
	disk  int64
	bytes int64 // of the elements that were sent
}

// prepare makes the folder of a task to train and puts its inputs there.
func (c *Client) prepare(t *Task, w weights.Set) (*workspace, error) {
	s, err := c.workspace(func(dir string) error {
		text, err := json.MarshalIndent(t, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, taskFile), append(text, '\n'), 0o600); err != nil {
			return err
		}
		return weights.WriteFile(filepath.Join(dir, weightsFile), w, map[string]string{"format": "pt"})
	})
	if err != nil {
		return nil, err
	}
	s.bytes = w.Bytes()
	return s, nil
}

// workspace makes a folder with what fill puts there. It may grow to 1 GiB and eight times as much, if nothing else is
// said.
func (r *Runner) workspace(fill func(dir string) error) (*workspace, error) {
	dir, err := os.MkdirTemp(r.o.Dir, "cohort-train-")
	if err != nil {
		return nil, err
	}
	s := &workspace{dir: dir, work: filepath.Join(dir, "work"), disk: r.o.Disk}
	if err := os.Mkdir(s.work, 0o700); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	if err := fill(s.work); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	if s.disk == 0 {
		size, _ := s.used()
		s.disk = defaultDisk + 8*size
	}
	if err := r.limits.hand(s); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	return s, nil
}

// remove deletes the folder, also what the program has locked.
func (s *workspace) remove() error {
	err := os.RemoveAll(s.dir)
	if err == nil {
		return nil
	}
	_ = filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	if err = os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("removing the work folder of the program: %w", err)
	}
	return nil
}

// used returns the bytes and the number of files in the work folder, as far as they can be seen.
func (s *workspace) used() (size int64, files int) {
	_ = filepath.WalkDir(s.work, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if files++; files > maxFiles {
			return fs.SkipAll
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			size += info.Size()
		}
		return nil
	})
	return size, files
}

// open opens a file that the program has written: an ordinary one of at most limit bytes, no link.
func (s *workspace) open(name string, limit int64) (*os.File, int64, error) {
	path := filepath.Join(s.work, name)
	switch st, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, 0, fmt.Errorf("wrote no %s", name)
	case err != nil:
		return nil, 0, fmt.Errorf("%s: %w", name, err)
	case !st.Mode().IsRegular():
		return nil, 0, fmt.Errorf("%s is not an ordinary file (%v)", name, st.Mode().Type())
	}
	f, err := openPlain(path)
	if err != nil {
		return nil, 0, fmt.Errorf("%s cannot be read: %w", name, err)
	}
	st, err := f.Stat()
	switch {
	case err != nil:
	case !st.Mode().IsRegular():
		err = fmt.Errorf("%s is not an ordinary file (%v)", name, st.Mode().Type())
	case links(st) > 1:
		err = fmt.Errorf("%s is a hard link to another file", name)
	case st.Size() > limit:
		err = fmt.Errorf("%s has %d bytes, at most %d are expected", name, st.Size(), limit)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, st.Size(), nil
}

// outcome reads and checks result.json.
func (s *workspace) outcome(classes int, agreed dataset.Schema) (Outcome, error) {
	var out Outcome
	f, _, err := s.open(resultFile, maxResult)
	if err != nil {
		return out, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxResult))
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(text, &out); err != nil {
		return out, fmt.Errorf("%s cannot be understood: %w", resultFile, err)
	}
	switch {
	case out.Examples > maxCounted || out.Seen > maxCounted || out.Steps > maxCounted:
		return out, fmt.Errorf("%s counts %d examples, %d seen and %d steps; at most %d are believed", resultFile, out.Examples, out.Seen, out.Steps, int64(maxCounted))
	case math.IsNaN(out.Loss) || math.IsInf(out.Loss, 0):
		return out, fmt.Errorf("%s has a loss of %v", resultFile, out.Loss)
	}
	if agreed.Vocabulary != nil {
		classes = agreed.Vocabulary.Size
	}
	slices.Sort(out.Labels)
	out.Labels = slices.Compact(out.Labels)
	for _, l := range out.Labels {
		if l < 0 || int(l) >= classes {
			return out, fmt.Errorf("%s has label %d, outside 0..%d", resultFile, l, classes-1)
		}
	}
	return out, nil
}

// update reads the new weights and checks them against those that were sent.
func (s *workspace) update(sent weights.Set) (weights.Set, error) {
	f, size, err := s.open(updateFile, s.bytes+maxHeader)
	if err != nil {
		return weights.Set{}, err
	}
	defer f.Close()
	in, err := weights.NewFile(f, size)
	if err != nil {
		return weights.Set{}, fmt.Errorf("%s: %w", updateFile, err)
	}
	got, err := in.Set()
	if err != nil {
		return weights.Set{}, fmt.Errorf("%s: %w", updateFile, err)
	}
	if err := fits(got, sent); err != nil {
		return weights.Set{}, fmt.Errorf("%s: %w", updateFile, err)
	}
	if err := got.Finite(); err != nil {
		return weights.Set{}, fmt.Errorf("%s: %w", updateFile, err)
	}
	out := weights.NewSet(sent.Len()) // in the order in which they were sent
	for _, name := range sent.Names() {
		out.Put(name, got.Must(name))
	}
	return out, nil
}

// fits returns an error unless got has the names, shapes and types of sent.
func fits(got, sent weights.Set) error {
	for name, want := range sent.All() {
		t, ok := got.Get(name)
		switch {
		case !ok:
			return fmt.Errorf("tensor %q is missing", name)
		case !slices.Equal(t.Shape, want.Shape):
			return fmt.Errorf("tensor %q is %v, %v was sent", name, t.Shape, want.Shape)
		case t.DType() != want.DType():
			return fmt.Errorf("tensor %q holds numbers of type %v, %v were sent", name, t.DType(), want.DType())
		}
	}
	for _, name := range got.Names() {
		if _, ok := sent.Get(name); !ok {
			return fmt.Errorf("tensor %.80q was not sent", name)
		}
	}
	return nil
}
