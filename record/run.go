package record

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cohort-learning/cohort/journal"
)

// Names in the folder of a run.
const (
	MetaName    = "run.json"
	RecipeName  = "recipe.yaml"
	MetricsName = "metrics.sqlite"
	ReportName  = "report.html"

	checkpointsName = "checkpoints"
)

// Version is the schema version of [Meta].
const Version = 1

// A State says how far a run has come.
type State string

// The states of a run. A run that says Running while nobody holds its lock was
// killed: see [Entry.State].
const (
	Running     State = "running"
	Finished    State = "finished"
	Interrupted State = "interrupted" // stopped by a person or a signal; can be resumed
	Failed      State = "failed"      // ended by an error
)

// Meta is the content of run.json.
type Meta struct {
	Version int       `json:"version"`         // schema version; set by Create
	ID      string    `json:"id"`              // identity of the run; the folder's name if empty
	Method  string    `json:"method"`          // such as "heterofl"
	State   State     `json:"state"`           // set by Create, Resume and Close
	Error   string    `json:"error,omitempty"` // what ended a run that failed
	Created time.Time `json:"created"`
	Ended   time.Time `json:"ended,omitzero"`    // when it last stopped
	Resumed int       `json:"resumed,omitempty"` // how often it was taken up again

	Seed    uint64   `json:"seed"`
	Engine  string   `json:"engine"`            // such as "cpu"
	Kernels string   `json:"kernels,omitempty"` // kernel path, such as "avx2"
	Threads int      `json:"threads"`
	Cohort  string   `json:"cohort"`            // version of the program
	Command []string `json:"command,omitempty"` // how it was started
}

// Options say how to work on a run. The zero value is ready for use.
type Options struct {
	// FS is the file system for everything but the metrics, which SQLite
	// writes; nil means [journal.OS].
	FS journal.FS
	// Now is the clock; nil means [time.Now].
	Now func() time.Time
	// Keep is how many checkpoints of rounds are kept; 0 means 2.
	Keep int
	// FromLastGood is handed to the journal: [journal.Options].
	FromLastGood bool
}

func (o Options) fs() journal.FS {
	if o.FS == nil {
		return journal.OS()
	}
	return o.FS
}

func (o Options) now() time.Time {
	if o.Now == nil {
		return time.Now().UTC()
	}
	return o.Now().UTC()
}

// A Run is a run that this process works on; it holds the folder's lock.
type Run struct {
	dir     string
	o       Options
	meta    Meta
	journal *journal.Journal
	metrics *Metrics
}

// Create makes the folder of a new run, with the bytes of its resolved recipe,
// and locks it. It fails with [journal.ErrExists] if there is a run already;
// a folder whose making was cut short is taken over.
func Create(dir string, meta Meta, recipe []byte, o Options) (_ *Run, err error) {
	meta.Version, meta.State = Version, Running
	if meta.ID == "" {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, fmt.Errorf("create run: %w", err)
		}
		meta.ID = filepath.Base(abs)
	}
	if meta.Created.IsZero() {
		meta.Created = o.now()
	}
	r := &Run{dir: dir, o: o, meta: meta}
	jo := journal.Options{FS: o.fs(), Now: o.Now, Run: meta.ID, Key: journalKey(o.fs(), dir)}
	r.journal, err = journal.Create(dir, jo)
	if errors.Is(err, journal.ErrExists) {
		r.journal, err = takeOver(dir, jo, err)
	}
	if err != nil {
		return nil, fmt.Errorf("create run: %w", err)
	}
	defer r.closeOnError(&err)
	if err := journal.WriteFile(o.fs(), r.path(RecipeName), func(w io.Writer) error {
		_, err := w.Write(recipe)
		return err
	}); err != nil {
		return nil, fmt.Errorf("create run: %w", err)
	}
	if err := r.writeMeta(); err != nil {
		return nil, fmt.Errorf("create run: %w", err)
	}
	return r, r.openMetrics()
}

// takeOver opens a journal that has nothing but its header, left by a Create
// that did not come to write run.json.
func takeOver(dir string, o journal.Options, exists error) (*journal.Journal, error) {
	if _, err := o.FS.Stat(filepath.Join(dir, MetaName)); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(exists, err)
	}
	j, err := journal.Open(dir, o)
	if err != nil {
		return nil, errors.Join(exists, err)
	}
	if j.Head().Seq > 0 {
		return nil, errors.Join(exists, j.Close())
	}
	return j, nil
}

// Resume takes up a run that was interrupted, killed or has failed, and locks
// it. Its journal is checked and, after a crash, mended: see [journal.Open] for
// the errors and [journal.Journal.Recovery] for what was found. The metrics are
// brought up to the journal. A run killed before it began gives
// [fs.ErrNotExist] or [journal.ErrEmpty]: create it anew.
func Resume(dir string, o Options) (_ *Run, err error) {
	meta, err := readMeta(o.fs(), dir)
	if err != nil {
		return nil, fmt.Errorf("resume run: %w", err)
	}
	r := &Run{dir: dir, o: o, meta: meta}
	r.journal, err = journal.Open(dir, journal.Options{FS: o.fs(), Now: o.Now, Run: meta.ID, FromLastGood: o.FromLastGood, Key: journalKey(o.fs(), dir)})
	if err != nil {
		return nil, fmt.Errorf("resume run: %w", err)
	}
	defer r.closeOnError(&err)
	// Read again under the lock: the process that held it may have ended since.
	if r.meta, err = readMeta(o.fs(), dir); err != nil {
		return nil, fmt.Errorf("resume run: %w", err)
	}
	r.meta.State, r.meta.Error, r.meta.Ended = Running, "", time.Time{}
	r.meta.Resumed++
	if err := r.writeMeta(); err != nil {
		return nil, fmt.Errorf("resume run: %w", err)
	}
	return r, r.openMetrics()
}

func (r *Run) openMetrics() (err error) {
	r.metrics, err = OpenMetrics(r.path(MetricsName), r.journal)
	return err
}

func (r *Run) closeOnError(err *error) {
	if *err != nil {
		*err = errors.Join(*err, r.journal.Close())
	}
}

func (r *Run) path(name string) string { return filepath.Join(r.dir, name) }

func (r *Run) writeMeta() error {
	return journal.WriteFile(r.o.fs(), r.path(MetaName), func(w io.Writer) error {
		b, err := json.MarshalIndent(r.meta, "", "  ")
		if err != nil {
			return err
		}
		_, err = w.Write(append(b, '\n'))
		return err
	})
}

// Dir returns the folder of the run.
func (r *Run) Dir() string { return r.dir }

// Meta returns what run.json says.
func (r *Run) Meta() Meta { return r.meta }

// Recipe returns the bytes of the resolved recipe.
func (r *Run) Recipe() ([]byte, error) { return readFile(r.o.fs(), r.path(RecipeName)) }

// Journal returns the run's journal.
func (r *Run) Journal() *journal.Journal { return r.journal }

// Metrics returns the run's metrics. They hold what the last Update found in
// the journal.
func (r *Run) Metrics() *Metrics { return r.metrics }

// Checkpoints returns the run's checkpoints.
func (r *Run) Checkpoints() Checkpoints {
	return Checkpoints{FS: r.o.fs(), Dir: r.path(checkpointsName), Keep: r.o.Keep}
}

// Close ends the work on the run: it brings the metrics up to the journal,
// writes the state that the run has come to, with what made it fail, and gives
// the lock back.
func (r *Run) Close(s State, cause error) error {
	r.meta.State, r.meta.Ended = s, r.o.now()
	if cause != nil {
		r.meta.Error = cause.Error()
	}
	return errors.Join(r.metrics.Update(r.journal), r.metrics.Close(), r.writeMeta(), r.journal.Close())
}

// ReadMeta reads run.json of the run in dir.
func ReadMeta(dir string) (Meta, error) { return readMeta(journal.OS(), dir) }

func readMeta(fsys journal.FS, dir string) (m Meta, err error) {
	path := filepath.Join(dir, MetaName)
	b, err := readFile(fsys, path)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%s: %w", path, err)
	}
	if m.Version != Version {
		return m, fmt.Errorf("%s has version %d; this program reads version %d", path, m.Version, Version)
	}
	return m, nil
}

// ReadRecipe returns the bytes of the resolved recipe of the run in dir.
func ReadRecipe(dir string) ([]byte, error) {
	return readFile(journal.OS(), filepath.Join(dir, RecipeName))
}

func readFile(fsys journal.FS, path string) ([]byte, error) {
	f, err := fsys.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// An Entry is a run in a list.
type Entry struct {
	Dir    string `json:"dir"`
	Meta   Meta   `json:"meta"`
	State  State  `json:"state"`            // Meta.State, but Interrupted if it was killed
	Locked bool   `json:"locked"`           // a process works on it
	Holder string `json:"holder,omitempty"` // which one, as far as known
	Err    error  `json:"-"`                // why run.json cannot be read, or nil
}

// List returns the runs whose folders lie in root, oldest first; none if there
// is no such folder. Folders that are no runs are passed over.
func List(root string) ([]Entry, error) {
	fsys := journal.OS()
	dirs, err := fsys.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list runs: %w", err)
	}
	var list []Entry
	for _, d := range dirs {
		dir := filepath.Join(root, d.Name())
		if !isRun(fsys, dir) {
			continue
		}
		e := Entry{Dir: dir}
		e.Meta, e.Err = readMeta(fsys, dir)
		e.State = e.Meta.State
		e.Holder, e.Locked, err = journal.Locked(fsys, dir)
		if err != nil {
			return nil, fmt.Errorf("list runs: %w", err)
		}
		if e.State == Running && !e.Locked {
			e.State = Interrupted
		}
		list = append(list, e)
	}
	slices.SortStableFunc(list, func(a, b Entry) int {
		return cmp.Or(a.Meta.Created.Compare(b.Meta.Created), cmp.Compare(a.Dir, b.Dir))
	})
	return list, nil
}

func isRun(fsys journal.FS, dir string) bool {
	for _, name := range []string{MetaName, journal.FileName} {
		if info, err := fsys.Stat(filepath.Join(dir, name)); err == nil && info.Mode().IsRegular() {
			return true
		}
	}
	return false
}

// Remove deletes the run in dir, folder and all. It refuses a folder that is no
// run, and one that a process works on (*[journal.LockedError]).
func Remove(dir string) error {
	fsys := journal.OS()
	if !isRun(fsys, dir) {
		return fmt.Errorf("remove run: %s holds neither %s nor %s: it is not the folder of a run", dir, MetaName, journal.FileName)
	}
	lock, err := fsys.Lock(filepath.Join(dir, journal.LockName))
	if err != nil {
		return fmt.Errorf("remove run: %w", err)
	}
	// What makes it a run goes last, so that a removal cut short can be
	// repeated; the lock file after that, because some systems do not remove
	// open files.
	last := []string{journal.FileName, MetaName}
	entries, err := fsys.ReadDir(dir)
	for _, e := range entries {
		if err == nil && e.Name() != journal.LockName && !slices.Contains(last, e.Name()) {
			err = os.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
	for _, name := range last {
		if err == nil {
			err = os.RemoveAll(filepath.Join(dir, name))
		}
	}
	err = errors.Join(err, lock.Close())
	if err == nil {
		err = os.RemoveAll(dir)
	}
	if err != nil {
		return fmt.Errorf("remove run: %w", err)
	}
	return nil
}
