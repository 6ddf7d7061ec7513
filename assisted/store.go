package assisted

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
)

// Store is where a desk keeps what it must still have after it was started again: rows, models, how often it has answered.
// Names are slash-separated. Its methods are safe for concurrent use.
type Store interface {
	// Put makes the value under a name durable, in place of what was there.
	Put(name string, value []byte) error
	// Get returns the value under a name, or an error that is [fs.ErrNotExist].
	Get(name string) ([]byte, error)
}

// NewStore returns a store in memory, for simulations.
func NewStore() Store { return &memory{values: map[string][]byte{}} }

type memory struct {
	mu     sync.RWMutex
	values map[string][]byte
}

func (m *memory) Put(name string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values[name] = value
	return nil
}

func (m *memory) Get(name string) ([]byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	b, ok := m.values[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return b, nil
}

// NewFolder returns a store in a folder, a file a value, which it makes if it is not there.
func NewFolder(dir string) (Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("a store of models: %w", err)
	}
	return folder(dir), nil
}

type folder string

// path puts every name into one file name, so that none leads out of the folder.
func (f folder) path(name string) string { return filepath.Join(string(f), "m-"+url.PathEscape(name)) }

// Put writes a new file beside the old one and takes its place, so that a crash leaves one or the other.
func (f folder) Put(name string, value []byte) (err error) {
	w, err := os.CreateTemp(string(f), "new-*")
	if err != nil {
		return fmt.Errorf("keeping %s: %w", name, err)
	}
	defer os.Remove(w.Name()) // nothing is there after the rename
	_, err = w.Write(value)
	if err == nil {
		err = w.Sync()
	}
	if err = errors.Join(err, w.Close()); err == nil {
		err = os.Rename(w.Name(), f.path(name))
	}
	if err == nil {
		err = syncFolder(string(f))
	}
	if err != nil {
		return fmt.Errorf("keeping %s: %w", name, err)
	}
	return nil
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (f folder) Get(name string) ([]byte, error) { return os.ReadFile(f.path(name)) }
