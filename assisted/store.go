package assisted

import (
	"fmt"
	"io/fs"
	"sync"
)

// Store is where a desk keeps what it must still have after it was started again: rows, models, how often it has answered.
// Names are slash-separated. Its methods are safe for concurrent use. Those of package journal in a folder are such a store.
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
