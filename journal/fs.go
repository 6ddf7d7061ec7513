package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// An FS is the part of a file system that journals and records need. Names are
// paths of the operating system. Implementations are safe for concurrent use.
// [OS] is the real one; package faultfs wraps one and makes it fail.
type FS interface {
	// OpenFile is [os.OpenFile].
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	// Rename is [os.Rename]: it replaces a file that bears the new name.
	Rename(oldName, newName string) error
	// Remove is [os.Remove].
	Remove(name string) error
	// MkdirAll is [os.MkdirAll].
	MkdirAll(name string, perm fs.FileMode) error
	// ReadDir is [os.ReadDir].
	ReadDir(name string) ([]fs.DirEntry, error)
	// Stat is [os.Stat].
	Stat(name string) (fs.FileInfo, error)
	// SyncDir makes the entries of a folder durable: files created in it,
	// renamed or removed. It does nothing where the system has no such call.
	SyncDir(name string) error
	// Lock takes the exclusive lock that the named file stands for, creating
	// the file if need be. It does not wait: if another holds it, in this
	// process or another, the error is a *[LockedError]. Closing gives it
	// back, and so does the end of the process, however it ends.
	Lock(name string) (io.Closer, error)
	// Locked reports whether somebody holds that lock, and whom its file names.
	Locked(name string) (holder string, locked bool, err error)
}

// A File is an open file of an [FS]; an [os.File] is one.
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.WriterAt
	io.Closer
	Stat() (fs.FileInfo, error)
	Sync() error
	Truncate(size int64) error
}

// A LockedError says that somebody else holds a lock.
type LockedError struct {
	Name   string // lock file
	Holder string // whom the file names, such as "process 4711 on host"; may be empty
}

func (e *LockedError) Error() string {
	holder := e.Holder
	if holder == "" {
		holder = "another process"
	}
	return fmt.Sprintf("%s is locked by %s", filepath.Dir(e.Name), holder)
}

// OS returns the file system of the operating system.
func OS() FS { return osFS{} }

type osFS struct{}

var _ FS = osFS{}

func (osFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err // not f: a nil *os.File in an interface is not nil
	}
	return f, nil
}

func (osFS) Rename(oldName, newName string) error         { return os.Rename(oldName, newName) }
func (osFS) Remove(name string) error                     { return os.Remove(name) }
func (osFS) MkdirAll(name string, perm fs.FileMode) error { return os.MkdirAll(name, perm) }
func (osFS) ReadDir(name string) ([]fs.DirEntry, error)   { return os.ReadDir(name) }
func (osFS) Stat(name string) (fs.FileInfo, error)        { return os.Stat(name) }
func (osFS) SyncDir(name string) error                    { return syncDir(name) }

func (osFS) Lock(name string) (io.Closer, error) {
	c, err := lockFile(name)
	if errors.Is(err, errHeld) {
		return nil, &LockedError{Name: name, Holder: readHolder(name)}
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return c, nil
}

func (osFS) Locked(name string) (holder string, locked bool, err error) {
	err = probeLock(name)
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return "", false, nil
	case errors.Is(err, errHeld):
		return readHolder(name), true, nil
	}
	return "", false, fmt.Errorf("is %s locked: %w", name, err)
}

// errHeld is what lockFile and probeLock return when somebody holds the lock.
var errHeld = errors.New("held")

// writeHolder notes in a lock file who holds it, for people only.
func writeHolder(f *os.File) error {
	host, err := os.Hostname()
	if err != nil {
		host = "this machine"
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteAt(fmt.Appendf(nil, "process %d on %s\n", os.Getpid(), host), 0)
	return err
}

func readHolder(name string) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	buf := make([]byte, 256)
	n, _ := f.Read(buf)
	for i, c := range buf[:n] {
		if c < ' ' || c > '~' {
			return string(buf[:i])
		}
	}
	return string(buf[:n])
}

// WriteFile replaces the named file by what write writes, so that after a
// crash at any moment either the old or the new content is there, whole: it
// writes a temporary file beside it, syncs it, renames it, and syncs the
// folder. If it fails, the old content stands and the temporary file is gone.
func WriteFile(fsys FS, name string, write func(io.Writer) error) (err error) {
	return writeFile(fsys, name, 0o644, write)
}

// WritePrivateFile is WriteFile for what nobody but the owner may read.
func WritePrivateFile(fsys FS, name string, write func(io.Writer) error) (err error) {
	return writeFile(fsys, name, 0o600, write)
}

func writeFile(fsys FS, name string, mode fs.FileMode, write func(io.Writer) error) (err error) {
	tmp := name + ".tmp"
	f, err := fsys.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := write(f); err != nil {
		err = errors.Join(err, f.Close(), fsys.Remove(tmp))
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := f.Sync(); err != nil {
		err = errors.Join(err, f.Close(), fsys.Remove(tmp))
		return fmt.Errorf("write %s: sync: %w", name, err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write %s: %w", name, errors.Join(err, fsys.Remove(tmp)))
	}
	if err := fsys.Rename(tmp, name); err != nil {
		return fmt.Errorf("write %s: %w", name, errors.Join(err, fsys.Remove(tmp)))
	}
	if err := fsys.SyncDir(filepath.Dir(name)); err != nil {
		return fmt.Errorf("write %s: sync its folder: %w", name, err)
	}
	return nil
}
