package blob

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cohort-learning/cohort/journal"
)

const (
	// shards is the number of folders over which objects are spread: by the
	// first digit of their names. Few, so that objects stored at the same time
	// share the sync of their folder.
	shards = 16
	// syncs is the number of files that are synced at the same time. Syncing
	// waits for the disk, which does many at once for little more than one.
	syncs = 32

	tmpFolder     = "tmp"
	corruptFolder = "corrupt"
	lockFile      = "lock"
)

// Dir is a [Store] in a folder, which it locks:
//
//	DIR/0/0a1b2c…  objects, in 16 folders by the first digit of their names
//	DIR/tmp/       objects that are arriving, and files to write over; emptied by OpenDir
//	DIR/corrupt/   damaged objects, for whoever wants to know why
//	DIR/lock
//
// An object is written to tmp, synced, renamed to its place, and the folder is
// synced; then Put returns. So what lies in its place is whole, whenever the
// process or the machine stops. Files and folders are synced for many callers
// at once.
type Dir struct {
	*Index
	path   string
	fsys   journal.FS
	lock   io.Closer
	count  atomic.Uint64 // makes names in tmp differ
	slots  chan struct{} // taken while syncing a file
	sync   [shards]groupSync
	spares *spares

	mu     sync.RWMutex // read-locked during every operation
	closed bool
}

var _ Keeper = (*Dir)(nil)

// OpenDir opens the store in dir, making the folder if need be; nil means
// [journal.OS]. It fails with a *[journal.LockedError] if another process has it.
func OpenDir(dir string, fsys journal.FS) (*Dir, error) {
	if fsys == nil {
		fsys = journal.OS()
	}
	d := &Dir{Index: NewIndex("the store " + dir), path: dir, fsys: fsys, slots: make(chan struct{}, syncs), spares: newSpares(fsys)}
	if err := fsys.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open blob store: %w", err)
	}
	var err error
	if d.lock, err = fsys.Lock(filepath.Join(dir, lockFile)); err != nil {
		return nil, fmt.Errorf("open blob store: %w", err)
	}
	if err := d.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open blob store %s: %w", dir, err), d.lock.Close())
	}
	return d, nil
}

// load sweeps tmp and enters the objects into the index.
func (d *Dir) load() error {
	for _, f := range []string{tmpFolder, corruptFolder} {
		if err := d.fsys.MkdirAll(filepath.Join(d.path, f), 0o755); err != nil {
			return err
		}
	}
	tmp := filepath.Join(d.path, tmpFolder)
	left, err := d.fsys.ReadDir(tmp)
	if err != nil {
		return err
	}
	for _, e := range left {
		if err := d.fsys.Remove(filepath.Join(tmp, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("sweep: %w", err)
		}
	}
	for i := range shards {
		if err := d.loadShard(filepath.Join(d.path, fmt.Sprintf("%x", i))); err != nil {
			return err
		}
	}
	return errors.Join(d.fsys.SyncDir(d.path), d.fsys.SyncDir(filepath.Dir(d.path)))
}

func (d *Dir) loadShard(shard string) error {
	if err := d.fsys.MkdirAll(shard, 0o755); err != nil {
		return err
	}
	// A process that was killed may have left entries that are not durable yet,
	// and from here on they count as stored.
	if err := d.fsys.SyncDir(shard); err != nil {
		return err
	}
	entries, err := d.fsys.ReadDir(shard)
	if err != nil {
		return err
	}
	for _, e := range entries {
		h, err := ParseHash(e.Name())
		if err != nil || !e.Type().IsRegular() || d.file(h) != filepath.Join(shard, e.Name()) {
			continue // not ours
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		d.Add(h, info.Size(), info.ModTime())
	}
	return nil
}

// file returns where an object lies.
func (d *Dir) file(h Hash) string {
	name := h.String()
	return filepath.Join(d.path, name[:1], name)
}

// enter begins an operation; the caller calls leave if err is nil.
func (d *Dir) enter(ctx context.Context) (leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.RLock()
	if d.closed {
		d.mu.RUnlock()
		return nil, fmt.Errorf("%s: %w", d.name, ErrClosed)
	}
	return d.mu.RUnlock, nil
}

// Close waits for operations under way and gives the lock back. Later ones fail
// with [ErrClosed].
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	d.spares.drop()
	return d.lock.Close()
}

// Lasting reports whether a file in the folder of a store, with this path in it and these bytes, is of use to whoever copies the folder
// while the store is open: objects are, but for those that were deleted and written over meanwhile; the rest is made anew.
func Lasting(path string, content []byte) bool {
	h, err := ParseHash(filepath.Base(path))
	return err == nil && filepath.Dir(path) == h.String()[:1] && Sum(content) == h
}

// Has is [Store.Has]. It asks the index, not the disk.
func (d *Dir) Has(ctx context.Context, h Hash) (bool, error) {
	leave, err := d.enter(ctx)
	if err != nil {
		return false, err
	}
	defer leave()
	return d.Use(h), nil
}

// Put is [Store.Put].
func (d *Dir) Put(ctx context.Context, h Hash, data []byte) error {
	if err := verify(h, data); err != nil {
		return err
	}
	return d.PutVerified(ctx, h, data)
}

// PutVerified is [PutVerified].
func (d *Dir) PutVerified(ctx context.Context, h Hash, data []byte) error {
	if err := checkLen(int64(len(data))); err != nil {
		return err
	}
	leave, err := d.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	done, err := d.Acquire(ctx, h)
	if err != nil {
		return err
	}
	defer done()
	if d.Use(h) {
		return nil
	}
	s, err := d.newStage(h, int64(len(data)))
	if err != nil {
		return err
	}
	if err := s.write(data); err != nil {
		return errors.Join(err, s.Abort())
	}
	return s.store(ctx)
}

// Get is [Store.Get]. A damaged object is moved to the folder corrupt.
func (d *Dir) Get(ctx context.Context, h Hash) ([]byte, error) { return d.GetInto(ctx, h, nil) }

// GetInto is [GetInto].
func (d *Dir) GetInto(ctx context.Context, h Hash, buf []byte) ([]byte, error) {
	leave, err := d.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	data, what, err := d.read(h, buf)
	if err != nil {
		return nil, err
	}
	if what == "" {
		return data, nil
	}
	// Look again with nobody else at work on it: it may have been replaced.
	done, err := d.Acquire(ctx, h)
	if err != nil {
		return nil, err
	}
	defer done()
	data, what, err = d.read(h, buf)
	if err != nil || what == "" {
		return data, err
	}
	aside := filepath.Join(d.path, corruptFolder, fmt.Sprintf("%v.%d", h, time.Now().UnixNano()))
	if err := d.fsys.Rename(d.file(h), aside); err != nil {
		return nil, errors.Join(&CorruptError{Hash: h, Store: d.name, What: what}, fmt.Errorf("move it aside: %w", err))
	}
	d.Drop(h)
	return nil, &CorruptError{Hash: h, Store: d.name, Aside: aside, What: what}
}

// read reads an object; what says in which way it is damaged.
func (d *Dir) read(h Hash, buf []byte) (data []byte, what string, err error) {
	n, ok := d.Len(h)
	if !ok {
		return nil, "", fmt.Errorf("get %v from %s: %w", h, d.name, ErrNotFound)
	}
	f, err := d.fsys.OpenFile(d.file(h), os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if _, still := d.Len(h); still {
			d.Drop(h) // somebody else removed the file
		}
		return nil, "", fmt.Errorf("get %v from %s: %w", h, d.name, ErrNotFound)
	}
	if err != nil {
		return nil, "", fmt.Errorf("get %v: %w", h, err)
	}
	defer f.Close()
	if int64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if got, err := f.ReadAt(buf, 0); err != nil && err != io.EOF {
		return nil, "", fmt.Errorf("get %v: %w", h, err)
	} else if int64(got) < n {
		return nil, fmt.Sprintf("it has %d bytes instead of %d", got, n), nil
	}
	if got := Sum(buf); got != h {
		return nil, fmt.Sprintf("its %d bytes hash to %v", n, got), nil
	}
	return buf, "", nil
}

// Delete is [Store.Delete].
func (d *Dir) Delete(ctx context.Context, h Hash) error {
	leave, err := d.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	done, err := d.Acquire(ctx, h)
	if err != nil {
		return err
	}
	defer done()
	n, ok := d.Len(h)
	if !ok {
		return nil
	}
	d.Drop(h)
	return d.remove(h, n)
}

// DeleteIdle is [Keeper.DeleteIdle].
func (d *Dir) DeleteIdle(ctx context.Context, h Hash, before time.Time) (int64, error) {
	leave, err := d.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	n, done := d.Retire(h, before)
	if done == nil {
		return 0, nil
	}
	defer done()
	return n, d.remove(h, n)
}

// remove removes the file of an object that has been taken out of the index, or keeps it as a spare.
func (d *Dir) remove(h Hash, n int64) error {
	if d.spare(h, n) {
		return nil
	}
	err := d.fsys.Remove(d.file(h))
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	d.Add(h, n, time.Time{})
	return fmt.Errorf("delete %v from %s: %w", h, d.name, err)
}

// List is [Store.List].
func (d *Dir) List(ctx context.Context) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		leave, err := d.enter(ctx)
		if err != nil {
			yield(Info{}, err)
			return
		}
		leave() // the caller may want to delete
		d.list(ctx)(yield)
	}
}

// shard returns the number of the folder in which h lies.
func shard(h Hash) int { return int(h[0] >> 4) }

// tmpName returns a fresh name for an object that arrives.
func (d *Dir) tmpName(h Hash) string {
	return filepath.Join(d.path, tmpFolder, hex.EncodeToString(h[:8])+fmt.Sprintf(".%d", d.count.Add(1)))
}
