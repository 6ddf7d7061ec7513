package blob

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/journal"
)

// A dirStage is an object in the folder tmp.
type dirStage struct {
	tally
	dir  *Dir
	name string
	file journal.File // nil when the stage is over
	off  int64
}

// Stage begins an object of n bytes that arrives piece by piece; see [NewStage].
func (d *Dir) Stage(ctx context.Context, h Hash, n int64) (Stage, error) {
	if err := checkLen(n); err != nil {
		return nil, err
	}
	leave, err := d.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	s, err := d.newStage(h, n)
	if err != nil {
		return nil, err // not s: a nil *dirStage in an interface is not nil
	}
	return s, nil
}

func (d *Dir) newStage(h Hash, n int64) (*dirStage, error) {
	if err := d.Reserve(n); err != nil {
		return nil, err
	}
	s := &dirStage{tally: newTally(h, n), dir: d}
	var err error
	if s.name = d.spares.take(n); s.name != "" {
		if s.file, err = d.fsys.OpenFile(s.name, os.O_WRONLY, 0); err == nil {
			return s, nil
		}
	}
	d.spares.yield(d.free() - n)
	s.name = d.tmpName(h)
	if s.file, err = d.fsys.OpenFile(s.name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644); err != nil {
		d.Release(n)
		return nil, d.failed("put", s, err)
	}
	return s, nil
}

// failed wraps what the disk said.
func (d *Dir) failed(what string, s *dirStage, err error) error {
	if journal.IsFull(err) {
		d.spares.drop()
		return &FullError{Store: d.path, Want: s.n, Usage: d.Usage(), Disk: err}
	}
	return fmt.Errorf("%s %v in %s: %w", what, s.want, d.name, err)
}

func (s *dirStage) Write(p []byte) (int, error) {
	if err := s.add(p); err != nil {
		return 0, err
	}
	if err := s.write(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// write writes p without counting it.
func (s *dirStage) write(p []byte) error {
	if s.file == nil {
		return errors.New("blob: write to a stage that is over")
	}
	n, err := s.file.WriteAt(p, s.off)
	s.off += int64(n)
	if err != nil {
		return s.dir.failed("put", s, err)
	}
	return nil
}

func (s *dirStage) Commit(ctx context.Context) error {
	leave, err := s.dir.enter(ctx)
	if err != nil {
		return errors.Join(err, s.Abort())
	}
	defer leave()
	if err := s.check(); err != nil {
		return errors.Join(err, s.Abort())
	}
	done, err := s.dir.Acquire(ctx, s.want)
	if err != nil {
		return errors.Join(err, s.Abort())
	}
	defer done()
	if s.dir.Use(s.want) {
		return s.Abort()
	}
	return s.store(ctx)
}

// store makes the object durable in its place. The caller has acquired it.
// Once begun it goes through, whatever happens to the context.
func (s *dirStage) store(ctx context.Context) error {
	d := s.dir
	select {
	case d.slots <- struct{}{}:
	case <-ctx.Done():
		return errors.Join(ctx.Err(), s.Abort())
	}
	err := s.file.Sync()
	<-d.slots
	if err != nil {
		return errors.Join(d.failed("sync", s, err), s.Abort())
	}
	err = s.file.Close()
	s.file = nil
	defer d.Release(s.n)
	if err != nil {
		return errors.Join(d.failed("put", s, err), d.fsys.Remove(s.name))
	}
	to := d.file(s.want)
	if err := d.fsys.Rename(s.name, to); err != nil {
		return errors.Join(d.failed("put", s, err), d.fsys.Remove(s.name))
	}
	folder := filepath.Dir(to)
	err = d.sync[shard(s.want)].do(func() error {
		return d.spares.synced(shard(s.want), func() error { return d.fsys.SyncDir(folder) })
	})
	if err != nil {
		return errors.Join(d.failed("sync the folder of", s, err), d.fsys.Remove(to))
	}
	d.Add(s.want, s.n, time.Time{})
	return nil
}

func (s *dirStage) Abort() error {
	if s.file == nil {
		return nil
	}
	defer s.dir.Release(s.n)
	err := s.file.Close()
	s.file = nil
	return errors.Join(err, s.dir.fsys.Remove(s.name))
}

// A groupSync syncs one folder for all who wait for it.
type groupSync struct {
	mu     sync.Mutex // guards queue
	queue  []*waiter
	commit sync.Mutex // held while syncing
}

type waiter struct {
	done bool
	err  error
}

// do returns after a call of sync that began after do was called; callers share calls.
func (g *groupSync) do(sync func() error) error {
	w := new(waiter)
	g.mu.Lock()
	g.queue = append(g.queue, w)
	g.mu.Unlock()

	g.commit.Lock()
	defer g.commit.Unlock()
	if w.done { // somebody took it along
		return w.err
	}
	g.mu.Lock()
	batch := g.queue
	g.queue = nil
	g.mu.Unlock()
	err := sync()
	for _, w := range batch {
		w.done, w.err = true, err
	}
	return err
}
