package member_test

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/journal"
)

// memFS is a disk in memory, so that hundreds of crashes take seconds; package faultfs makes it fail.
type memFS struct {
	mu    sync.Mutex
	files map[string]*memFile
	dirs  map[string]bool
	locks map[string]bool
}

func newMemFS() *memFS {
	return &memFS{files: map[string]*memFile{}, dirs: map[string]bool{"/": true}, locks: map[string]bool{}}
}

type memFile struct {
	mu   sync.Mutex
	data []byte
}

func missing(op, name string) error { return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist} }

func (m *memFS) OpenFile(name string, flag int, _ fs.FileMode) (journal.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = filepath.Clean(name)
	f := m.files[name]
	switch {
	case f == nil && flag&os.O_CREATE == 0, f == nil && !m.dirs[filepath.Dir(name)]:
		return nil, missing("open", name)
	case f == nil:
		f = &memFile{}
		m.files[name] = f
	case flag&os.O_EXCL != 0:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrExist}
	case flag&os.O_TRUNC != 0:
		f.data = nil
	}
	return &memHandle{memFile: f, name: name}, nil
}

func (m *memFS) Rename(oldName, newName string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	oldName, newName = filepath.Clean(oldName), filepath.Clean(newName)
	f := m.files[oldName]
	if f == nil {
		return missing("rename", oldName)
	}
	delete(m.files, oldName)
	m.files[newName] = f
	return nil
}

func (m *memFS) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = filepath.Clean(name)
	if m.files[name] == nil && !m.dirs[name] {
		return missing("remove", name)
	}
	if m.dirs[name] {
		for path := range m.files {
			if filepath.Dir(path) == name {
				return &fs.PathError{Op: "remove", Path: name, Err: errors.New("folder not empty")}
			}
		}
	}
	delete(m.files, name)
	delete(m.dirs, name)
	return nil
}

func (m *memFS) MkdirAll(name string, _ fs.FileMode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name = filepath.Clean(name); !m.dirs[name]; name = filepath.Dir(name) {
		m.dirs[name] = true
	}
	return nil
}

func (m *memFS) ReadDir(name string) ([]fs.DirEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = filepath.Clean(name)
	if !m.dirs[name] {
		return nil, missing("open", name)
	}
	var out []fs.DirEntry
	for path, f := range m.files {
		if filepath.Dir(path) == name {
			out = append(out, fs.FileInfoToDirEntry(memInfo{filepath.Base(path), int64(len(f.data)), false}))
		}
	}
	for path := range m.dirs {
		if path != name && filepath.Dir(path) == name {
			out = append(out, fs.FileInfoToDirEntry(memInfo{filepath.Base(path), 0, true}))
		}
	}
	slices.SortFunc(out, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	return out, nil
}

func (m *memFS) Stat(name string) (fs.FileInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = filepath.Clean(name)
	if f := m.files[name]; f != nil {
		return memInfo{filepath.Base(name), int64(len(f.data)), false}, nil
	}
	if m.dirs[name] {
		return memInfo{filepath.Base(name), 0, true}, nil
	}
	return nil, missing("stat", name)
}

func (m *memFS) SyncDir(string) error { return nil }

func (m *memFS) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locks[name] {
		return nil, &journal.LockedError{Name: name}
	}
	m.locks[name] = true
	return memLock{m, name}, nil
}

func (m *memFS) Locked(name string) (string, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return "", m.locks[name], nil
}

// list returns the names of the files in a folder.
func (m *memFS) list(dir string) (names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for path := range m.files {
		if filepath.Dir(path) == filepath.Clean(dir) {
			names = append(names, filepath.Base(path))
		}
	}
	slices.Sort(names)
	return names
}

// under returns the paths of the files in a folder and in those inside.
func (m *memFS) under(dir string) (paths []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for path := range m.files {
		if strings.HasPrefix(path, filepath.Clean(dir)+"/") {
			paths = append(paths, path)
		}
	}
	return paths
}

// spoil flips a bit in the middle of every file whose path contains a part.
func (m *memFS) spoil(part string) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for path, f := range m.files {
		if strings.Contains(path, part) && len(f.data) > 0 {
			f.data[len(f.data)/2] ^= 1
			n++
		}
	}
	return n
}

type memLock struct {
	m    *memFS
	name string
}

func (l memLock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	delete(l.m.locks, l.name)
	return nil
}

type memInfo struct {
	name string
	size int64
	dir  bool
}

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return i.size }
func (i memInfo) ModTime() time.Time { return time.Time{} }
func (i memInfo) IsDir() bool        { return i.dir }
func (i memInfo) Sys() any           { return nil }
func (i memInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o700
	}
	return 0o600
}

type memHandle struct {
	*memFile
	name string
	pos  int64
}

func (h *memHandle) Close() error { return nil }
func (h *memHandle) Sync() error  { return nil }

func (h *memHandle) Stat() (fs.FileInfo, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return memInfo{filepath.Base(h.name), int64(len(h.data)), false}, nil
}

func (h *memHandle) ReadAt(p []byte, off int64) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	n := copy(p, h.data[min(off, int64(len(h.data))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *memHandle) Read(p []byte) (int, error) {
	n, err := h.ReadAt(p, h.pos)
	h.pos += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

func (h *memHandle) WriteAt(p []byte, off int64) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if grow := int(off) + len(p) - len(h.data); grow > 0 {
		h.data = append(h.data, make([]byte, grow)...)
	}
	return copy(h.data[off:], p), nil
}

func (h *memHandle) Write(p []byte) (int, error) {
	n, err := h.WriteAt(p, h.pos)
	h.pos += int64(n)
	return n, err
}

func (h *memHandle) Truncate(size int64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for int64(len(h.data)) < size {
		h.data = append(h.data, 0)
	}
	h.data = h.data[:size]
	return nil
}
