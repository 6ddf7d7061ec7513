package weights

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
)

// WriteFile writes s to a safetensors file so that, whatever happens, path holds either what it held before or the whole
// new file: it is written beside path, synced, and renamed. See [Write].
func WriteFile(path string, s Set, meta map[string]string) (err error) {
	f, err := createBeside(path)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if err := Write(f, s, meta); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// createBeside creates a file of a fresh name in path's folder, with the permissions of an ordinary new file.
func createBeside(path string) (*os.File, error) {
	return os.OpenFile(path+".tmp-"+rand.Text()[:8], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
}

// syncDir makes a rename in dir durable. Systems that cannot sync a folder are left to do it themselves.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, os.ErrInvalid) && !errors.Is(err, os.ErrPermission) {
		return err
	}
	return nil
}

// ReadFile reads a whole safetensors file. See [Read].
func ReadFile(path string) (Set, map[string]string, error) {
	f, err := Open(path)
	if err != nil {
		return Set{}, nil, err
	}
	defer f.Close()
	s, err := f.Set()
	if err != nil {
		return Set{}, nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, f.Meta(), nil
}

// File is a safetensors file of which single tensors are read. Its methods, but Close, may be called from many goroutines.
type File struct {
	r     io.ReaderAt
	close func() error
	head  *header
	index map[string]int
}

// Open opens a safetensors file and reads its header. The caller closes it.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	if !st.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	file, err := NewFile(f, st.Size())
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	file.close = f.Close
	return file, nil
}

// NewFile reads the header of a safetensors file of size bytes. Closing the result leaves r open.
func NewFile(r io.ReaderAt, size int64) (*File, error) {
	h, err := readHeader(io.NewSectionReader(r, 0, size), size)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	f := &File{r: r, close: func() error { return nil }, head: h, index: make(map[string]int, len(h.entries))}
	for i, e := range h.entries {
		f.index[e.name] = i
	}
	return f, nil
}

// Names returns the names of the tensors in the order of their elements.
func (f *File) Names() []string {
	names := make([]string, len(f.head.entries))
	for i, e := range f.head.entries {
		names[i] = e.name
	}
	return names
}

// Meta returns the file's metadata, nil if it has none.
func (f *File) Meta() map[string]string { return maps.Clone(f.head.meta) }

// Tensor reads one tensor.
func (f *File) Tensor(name string) (Tensor, error) {
	i, ok := f.index[name]
	if !ok {
		return Tensor{}, fmt.Errorf("safetensors: no tensor %s among %d", quote(name), len(f.head.entries))
	}
	t, err := f.read(i, make([]byte, chunk), nil)
	if err != nil {
		return Tensor{}, fmt.Errorf("safetensors: %w", err)
	}
	return t, nil
}

// Set reads all tensors.
func (f *File) Set() (Set, error) { return f.SetIn(nil) }

// SetIn reads all tensors and puts the elements of those that become float32 where room says: it is asked for a slice with a
// capacity of n elements, whose content is overwritten. A shorter one is not used; memory is allocated instead.
func (f *File) SetIn(room func(n int) []float32) (Set, error) {
	s := NewSet(len(f.head.entries))
	buf := make([]byte, chunk)
	for i, e := range f.head.entries {
		var mem []float32
		if room != nil && e.kind.wide != Float64 {
			mem = room(e.count())
		}
		t, err := f.read(i, buf, mem)
		if err != nil {
			return Set{}, fmt.Errorf("safetensors: %w", err)
		}
		s.Put(e.name, t)
	}
	return s, nil
}

func (f *File) read(i int, buf []byte, mem []float32) (Tensor, error) {
	e := f.head.entries[i]
	return e.decode(io.NewSectionReader(f.r, f.head.dataStart+e.begin, e.end-e.begin), buf, true, mem)
}

// Close closes the file.
func (f *File) Close() error { return f.close() }
