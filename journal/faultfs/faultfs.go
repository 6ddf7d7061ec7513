// Package faultfs is a file system that fails on demand, for tests of what is
// built on [journal.FS].
//
// An [FS] wraps a real one and works on real files, so that whatever does not
// go through it (a database, a test that looks on) finds them where they are.
// Beside that it keeps what a disk would hold after losing power: the content
// of each file at its last Sync, and the entries of each folder at its last
// SyncDir. A [Rule] picks one operation and says what happens there: an error,
// a part of a write, a call of the test's own, or a crash, which puts the files
// into the state after it and fails every later operation with [ErrCrashed].
//
//	f := faultfs.New(journal.OS())
//	f.Add(faultfs.Rule{Op: faultfs.Write, N: 3, Part: 17, Crash: faultfs.PowerLoss})
//	… run what is tested with f; it fails …
//	… run it again with journal.OS(): it has to recover …
//
// Syncs are only kept account of and not passed on, which makes tests fast; so
// an FS without rules is good for tests, and for nothing else.
//
// It is pessimistic: what was not synced is lost as soon as it may be. The
// opposite, that everything written survives although it was not synced, is
// [Kill]. Folders themselves count as durable once made.
package faultfs

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"

	"github.com/cohort-learning/cohort/journal"
)

// ErrCrashed is what every operation returns after a crash.
var ErrCrashed = errors.New("the machine has crashed")

// An Op is an operation that a rule may pick.
type Op string

// The operations. Create is an OpenFile that makes a file; one that finds it
// is none of these, unless it truncates.
const (
	Create   Op = "create"
	Write    Op = "write"
	Sync     Op = "sync"
	Truncate Op = "truncate"
	Rename   Op = "rename"
	Remove   Op = "remove"
	SyncDir  Op = "syncdir"
)

// A Crash says what is on the disk after a crash.
type Crash int

const (
	// NoCrash is the zero value.
	NoCrash Crash = iota
	// PowerLoss loses what was not synced: content since the last Sync of the
	// file, entries since the last SyncDir of the folder.
	PowerLoss
	// PowerLossAfterMetadata loses content that was not synced, but has made,
	// renamed and removed files already: a rename may overtake the content.
	PowerLossAfterMetadata
	// Kill loses nothing: the process ends, but the system goes on.
	Kill
)

// An Event is one operation.
type Event struct {
	Op    Op
	Name  string // path; for Rename the new one
	Bytes int    // Write: how many
}

// A Rule says what happens at some operations.
type Rule struct {
	// Op and Name pick operations: Name is a pattern of [filepath.Match] for
	// the last element of the path. Empty ones pick all.
	Op   Op
	Name string
	// N is the operation at which the rule acts, counted from 1 among those
	// that it picks; 0 means all of them.
	N int
	// After makes the rule act when the operation has been carried out;
	// otherwise it acts instead of it.
	After bool
	// Part is for Write: so many bytes are written before the rule acts, and
	// in a crash they have reached the disk.
	Part int
	// Hook is called first, if not nil. It must not use the FS.
	Hook func(Event)
	// Crash happens next. Then the operation returns Err; if that is nil,
	// [ErrCrashed] in a crash, and success otherwise. So a rule that has
	// neither Err nor Crash leaves the operation alone.
	Crash Crash
	Err   error

	seen int
}

// FS is a file system with rules.
type FS struct {
	base journal.FS

	mu      sync.Mutex
	rules   []*Rule
	events  []Event
	crashed bool
	now     map[string]*node // files by path, as the process sees them
	disk    map[string]*node // files by path, as a crash leaves them
	open    map[io.Closer]struct{}
}

// A node is a file's content, whatever its name.
type node struct {
	disk    []byte // as a crash leaves it
	pending []edit // done since
}

// An edit writes data at off, or truncates to off if data is nil.
type edit struct {
	off  int64
	data []byte
}

var _ journal.FS = (*FS)(nil)

// New returns an FS on top of base. Files that exist already count as durable.
func New(base journal.FS) *FS {
	return &FS{
		base: base,
		now:  make(map[string]*node),
		disk: make(map[string]*node),
		open: make(map[io.Closer]struct{}),
	}
}

// Add adds a rule; it counts operations from here on. Where several rules act
// on one operation, the one added first counts.
func (f *FS) Add(r Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = append(f.rules, &r)
}

// Events returns all operations so far. A test runs once without rules to learn
// them, and then once more for each.
func (f *FS) Events() []Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Event(nil), f.events...)
}

// Crash crashes now, as a rule would.
func (f *FS) Crash(c Crash) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.crash(c)
}

// Crashed reports whether a crash has happened.
func (f *FS) Crashed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.crashed
}

// do carries out one operation under the rules. The caller holds mu.
// part is for writes: it carries out the first n bytes; torn ones reach the disk.
func (f *FS) do(e Event, op func() error, part func(n int, torn bool) error) error {
	if f.crashed {
		return ErrCrashed
	}
	f.events = append(f.events, e)
	var r *Rule
	for _, c := range f.rules {
		if c.picks(e) && r == nil {
			r = c
		}
	}
	if r == nil {
		return op()
	}
	if r.After {
		if err := op(); err != nil {
			return err
		}
	} else if part != nil && r.Part > 0 {
		if err := part(min(r.Part, e.Bytes), r.Crash != NoCrash); err != nil {
			return err
		}
	}
	if r.Hook != nil {
		r.Hook(e)
	}
	switch {
	case r.Crash != NoCrash:
		return errors.Join(f.crash(r.Crash), cmp.Or(r.Err, ErrCrashed))
	case r.Err != nil:
		return r.Err
	case !r.After:
		return op()
	}
	return nil
}

// picks counts the operation if it is one of r's, and reports whether r acts.
func (r *Rule) picks(e Event) bool {
	if r.Op != "" && r.Op != e.Op {
		return false
	}
	if r.Name != "" {
		ok, err := filepath.Match(r.Name, filepath.Base(e.Name))
		if err != nil {
			panic(fmt.Sprintf("faultfs: pattern %q: %v", r.Name, err))
		}
		if !ok {
			return false
		}
	}
	r.seen++
	return r.N == 0 || r.N == r.seen
}

// crash puts the files into their state after a crash. The caller holds mu.
func (f *FS) crash(c Crash) error {
	if f.crashed {
		return nil
	}
	f.crashed = true
	var errs []error
	for o := range f.open {
		errs = append(errs, o.Close())
	}
	clear(f.open)
	if c == Kill {
		return errors.Join(errs...)
	}
	if c == PowerLossAfterMetadata {
		f.disk = f.now
	}
	paths := maps.Clone(f.now)
	maps.Copy(paths, f.disk)
	for path := range paths {
		n, ok := f.disk[path]
		if !ok {
			errs = append(errs, f.base.Remove(path))
			continue
		}
		errs = append(errs, f.restore(path, n.disk))
	}
	return errors.Join(errs...)
}

func (f *FS) restore(path string, content []byte) error {
	if err := f.base.MkdirAll(filepath.Dir(path), 0o755); err != nil { // it may have been removed since
		return err
	}
	w, err := f.base.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = w.Write(content)
	return errors.Join(err, w.Close())
}

// look makes f know a file that existed before. The caller holds mu.
func (f *FS) look(path string) error {
	if f.now[path] != nil || f.disk[path] != nil {
		return nil
	}
	info, err := f.base.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return nil
	}
	if err != nil {
		return err
	}
	r, err := f.base.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	n := &node{disk: content}
	f.now[path], f.disk[path] = n, n
	return nil
}

// sync makes the node's edits durable.
func (n *node) sync() {
	for _, e := range n.pending {
		end := e.off + int64(len(e.data))
		if grow := end - int64(len(n.disk)); grow > 0 {
			n.disk = append(n.disk, make([]byte, grow)...)
		}
		if e.data == nil {
			n.disk = n.disk[:e.off:e.off]
			continue
		}
		copy(n.disk[e.off:], e.data)
	}
	n.pending = nil
}
