package blob

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"time"
)

// Memory is a [Store] in memory. Its contents are as durable as the process.
type Memory struct {
	*Index
	mu   sync.RWMutex
	data map[Hash][]byte
}

var _ Keeper = (*Memory)(nil)

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{Index: NewIndex("the store in memory"), data: make(map[Hash][]byte)}
}

// Has is [Store.Has].
func (m *Memory) Has(ctx context.Context, h Hash) (bool, error) { return m.Use(h), ctx.Err() }

// Put is [Store.Put].
func (m *Memory) Put(ctx context.Context, h Hash, data []byte) error {
	if err := verify(h, data); err != nil {
		return err
	}
	return m.PutVerified(ctx, h, data)
}

// PutVerified is [PutVerified].
func (m *Memory) PutVerified(ctx context.Context, h Hash, data []byte) error {
	n := int64(len(data))
	if err := checkLen(n); err != nil {
		return err
	}
	done, err := m.Acquire(ctx, h)
	if err != nil {
		return err
	}
	defer done()
	if m.Use(h) {
		return ctx.Err()
	}
	if err := m.Reserve(n); err != nil {
		return err
	}
	defer m.Release(n)
	m.mu.Lock()
	m.data[h] = append([]byte{}, data...)
	m.mu.Unlock()
	m.Add(h, n, time.Time{})
	return nil
}

// Get is [Store.Get].
func (m *Memory) Get(ctx context.Context, h Hash) ([]byte, error) { return m.GetInto(ctx, h, nil) }

// GetInto is [GetInto].
func (m *Memory) GetInto(ctx context.Context, h Hash, buf []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.RLock()
	data, ok := m.data[h]
	m.mu.RUnlock()
	if !ok {
		return nil, fmt.Errorf("get %v: %w", h, ErrNotFound)
	}
	buf = append(buf[:0], data...)
	if err := verify(h, buf); err != nil {
		if err := m.Delete(ctx, h); err != nil {
			return nil, err
		}
		return nil, &CorruptError{Hash: h, Store: m.name, What: err.Error()}
	}
	return buf, nil
}

// Delete is [Store.Delete].
func (m *Memory) Delete(ctx context.Context, h Hash) error {
	done, err := m.Acquire(ctx, h)
	if err != nil {
		return err
	}
	defer done()
	m.Drop(h)
	m.forget(h)
	return nil
}

// DeleteIdle is [Keeper.DeleteIdle].
func (m *Memory) DeleteIdle(ctx context.Context, h Hash, before time.Time) (int64, error) {
	n, done := m.Retire(h, before)
	if done == nil {
		return 0, ctx.Err()
	}
	defer done()
	m.forget(h)
	return n, nil
}

func (m *Memory) forget(h Hash) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.data, h)
}

// List is [Store.List].
func (m *Memory) List(ctx context.Context) iter.Seq2[Info, error] { return m.list(ctx) }
