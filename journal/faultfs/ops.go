package faultfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cohort-learning/cohort/journal"
)

// OpenFile opens a file of the base. O_APPEND is not supported.
func (f *FS) OpenFile(name string, flag int, perm fs.FileMode) (journal.File, error) {
	if flag&os.O_APPEND != 0 {
		panic("faultfs: O_APPEND is not supported: use WriteAt")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.crashed {
		return nil, ErrCrashed
	}
	name = filepath.Clean(name)
	if err := f.look(name); err != nil {
		return nil, err
	}
	var file *file
	open := func() error {
		b, err := f.base.OpenFile(name, flag, perm)
		if err != nil {
			return err
		}
		n := f.now[name]
		switch {
		case n == nil:
			n = new(node)
			f.now[name] = n
		case flag&os.O_TRUNC != 0:
			n.pending = append(n.pending, edit{})
		}
		file = newFile(f, b, n, name)
		return nil
	}
	var err error
	switch {
	case f.now[name] == nil && flag&os.O_CREATE != 0:
		err = f.do(Event{Op: Create, Name: name}, open, nil)
	case flag&os.O_TRUNC != 0:
		err = f.do(Event{Op: Truncate, Name: name}, open, nil)
	default:
		err = open()
	}
	if err != nil {
		if file != nil {
			delete(f.open, file.base)
			err = errors.Join(err, file.base.Close())
		}
		return nil, err
	}
	return file, nil
}

// Rename renames a file of the base.
func (f *FS) Rename(oldName, newName string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.crashed {
		return ErrCrashed
	}
	oldName, newName = filepath.Clean(oldName), filepath.Clean(newName)
	if err := errors.Join(f.look(oldName), f.look(newName)); err != nil {
		return err
	}
	return f.do(Event{Op: Rename, Name: newName}, func() error {
		if err := f.base.Rename(oldName, newName); err != nil {
			return err
		}
		if n := f.now[oldName]; n != nil {
			f.now[newName] = n
			delete(f.now, oldName)
		}
		return nil
	}, nil)
}

// Remove removes a file of the base.
func (f *FS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.crashed {
		return ErrCrashed
	}
	name = filepath.Clean(name)
	if err := f.look(name); err != nil {
		return err
	}
	return f.do(Event{Op: Remove, Name: name}, func() error {
		if err := f.base.Remove(name); err != nil {
			return err
		}
		delete(f.now, name)
		return nil
	}, nil)
}

// SyncDir makes the entries of the folder durable.
func (f *FS) SyncDir(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	name = filepath.Clean(name)
	return f.do(Event{Op: SyncDir, Name: name}, func() error {
		for path := range f.disk {
			if filepath.Dir(path) == name && f.now[path] == nil {
				delete(f.disk, path)
			}
		}
		for path, n := range f.now {
			if filepath.Dir(path) == name {
				f.disk[path] = n
			}
		}
		return nil
	}, nil)
}

// MkdirAll makes folders, which are durable at once.
func (f *FS) MkdirAll(name string, perm fs.FileMode) error {
	if f.Crashed() {
		return ErrCrashed
	}
	return f.base.MkdirAll(name, perm)
}

// ReadDir reads a folder of the base.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	if f.Crashed() {
		return nil, ErrCrashed
	}
	return f.base.ReadDir(name)
}

// Stat looks at a file of the base.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	if f.Crashed() {
		return nil, ErrCrashed
	}
	return f.base.Stat(name)
}

// Lock takes a lock of the base; a crash gives it back.
func (f *FS) Lock(name string) (io.Closer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.crashed {
		return nil, ErrCrashed
	}
	l, err := f.base.Lock(name)
	if err != nil {
		return nil, err
	}
	f.open[l] = struct{}{}
	return &lock{f, l}, nil
}

// Locked asks the base.
func (f *FS) Locked(name string) (holder string, locked bool, err error) {
	if f.Crashed() {
		return "", false, ErrCrashed
	}
	return f.base.Locked(name)
}

type lock struct {
	fs   *FS
	base io.Closer
}

func (l *lock) Close() error { return l.fs.close(l.base) }

func (f *FS) close(c io.Closer) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.crashed {
		return ErrCrashed
	}
	delete(f.open, c)
	return c.Close()
}

// A file is an open file of the base and the node that it writes.
type file struct {
	fs   *FS
	base journal.File
	node *node
	name string
	pos  int64 // where the next Read or Write is
}

func newFile(f *FS, base journal.File, n *node, name string) *file {
	f.open[base] = struct{}{}
	return &file{fs: f, base: base, node: n, name: name}
}

func (f *file) Close() error { return f.fs.close(f.base) }

func (f *file) Stat() (fs.FileInfo, error) {
	if f.fs.Crashed() {
		return nil, ErrCrashed
	}
	return f.base.Stat()
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if f.fs.Crashed() {
		return 0, ErrCrashed
	}
	return f.base.ReadAt(p, off)
}

func (f *file) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p, f.pos)
	f.pos += int64(n)
	if n > 0 && err == io.EOF { // a reader says so at the next call
		err = nil
	}
	return n, err
}

func (f *file) Write(p []byte) (int, error) {
	n, err := f.WriteAt(p, f.pos)
	f.pos += int64(n)
	return n, err
}

func (f *file) WriteAt(p []byte, off int64) (n int, err error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	write := func(p []byte) error {
		done, err := f.base.WriteAt(p, off)
		n = done
		if done > 0 {
			f.node.pending = append(f.node.pending, edit{off, append([]byte{}, p[:done]...)})
		}
		return err
	}
	err = f.fs.do(Event{Op: Write, Name: f.name, Bytes: len(p)}, func() error {
		return write(p)
	}, func(n int, torn bool) error {
		if err := write(p[:n]); err != nil {
			return err
		}
		if torn {
			f.node.sync()
		}
		return nil
	})
	return n, err
}

func (f *file) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return f.fs.do(Event{Op: Sync, Name: f.name}, func() error {
		f.node.sync()
		return nil
	}, nil)
}

func (f *file) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return f.fs.do(Event{Op: Truncate, Name: f.name}, func() error {
		if err := f.base.Truncate(size); err != nil {
			return err
		}
		f.node.pending = append(f.node.pending, edit{off: size})
		return nil
	}, nil)
}
