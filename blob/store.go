package blob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"iter"
	"sync"
	"time"
)

// A Store keeps objects by the hash of their bytes. All methods may be called
// from many goroutines, and give up with the context's error when it ends.
type Store interface {
	// Has reports whether an object is there, whole and durable. It counts as
	// use: [Collect] spares what was used since it began, so that an object
	// found present is still there for what builds on it.
	Has(ctx context.Context, h Hash) (bool, error)
	// Put stores an object; it is durable when Put returns. It refuses data
	// that does not hash to h with a *[MismatchError], and what does not fit
	// with [ErrFull]. Putting what is there changes nothing and counts as use.
	// A crash during Put leaves the whole object or nothing. The store keeps
	// no reference to data.
	Put(ctx context.Context, h Hash, data []byte) error
	// Get returns an object. It is verified: bytes that do not hash to h are
	// never returned, but a *[CorruptError]; the object has then been removed
	// or moved aside, and can be Put again. What is not there is [ErrNotFound].
	Get(ctx context.Context, h Hash) ([]byte, error)
	// Delete removes an object; what is not there is no error. A loss of power
	// may undo it.
	Delete(ctx context.Context, h Hash) error
	// List yields the objects that are there when it begins, by hash. An error
	// ends it.
	List(ctx context.Context) iter.Seq2[Info, error]
}

// A Keeper is a [Store] that accounts for its objects, and in which garbage can
// be collected while others write. All stores of this project are Keepers.
type Keeper interface {
	Store
	// Pin keeps objects from DeleteIdle until unpin is called, whether they
	// are there already or come later. Pins of one object add up; unpin may be
	// called more than once, and counts as use.
	Pin(hashes ...Hash) (unpin func())
	// Pinned reports whether an object is pinned.
	Pinned(h Hash) bool
	// DeleteIdle deletes an object and returns its length, unless it is pinned
	// or was put or asked for (Has) at the time before or later; then it
	// returns 0. What is not there counts as 0 bytes too.
	DeleteIdle(ctx context.Context, h Hash, before time.Time) (freed int64, err error)
	// Usage returns what is stored, without touching the objects.
	Usage() Usage
	// SetCap sets the number of bytes above which Put fails with [ErrFull];
	// 0 means no limit. What is stored already stays.
	SetCap(bytes int64)
}

// An Info describes one object.
type Info struct {
	Hash  Hash
	Bytes int64
	Used  time.Time // last put or asked for, as far as the store knows
}

// Usage is what a store holds.
type Usage struct {
	Objects int64
	Bytes   int64 // of the objects alone: file systems and services add their own
	Cap     int64 // 0: no limit
}

var (
	// ErrNotFound says that an object is not in the store.
	ErrNotFound = fmt.Errorf("no such object: %w", fs.ErrNotExist)
	// ErrFull says that a store has no room. Errors of it are *[FullError].
	ErrFull = errors.New("store is full")
	// ErrClosed says that a store has been closed.
	ErrClosed = errors.New("store is closed")
	// ErrCorrupt says that an object was damaged. Errors of it are *[CorruptError].
	ErrCorrupt = errors.New("object is damaged")
	// ErrMismatch says that bytes are not what their name says. Errors of it
	// are *[MismatchError].
	ErrMismatch = errors.New("bytes do not match their hash")
)

// A FullError says why an object does not fit; it is [ErrFull].
type FullError struct {
	Store string // which
	Want  int64  // bytes
	Usage Usage
	Disk  error // what the disk said; nil if the store's own cap is reached
}

func (e *FullError) Error() string {
	if e.Disk != nil {
		return fmt.Sprintf("the disk of %s has no room for %d bytes more (the store holds %d bytes in %d objects): free space and repeat what failed; nothing stored is lost: %v",
			e.Store, e.Want, e.Usage.Bytes, e.Usage.Objects, e.Disk)
	}
	return fmt.Sprintf("%s is full: %d bytes more do not fit, %d of %d bytes are in use by %d objects: remove finished runs, or raise its limit",
		e.Store, e.Want, e.Usage.Bytes, e.Usage.Cap, e.Usage.Objects)
}

// Is makes errors.Is(err, ErrFull) true.
func (e *FullError) Is(target error) bool { return target == ErrFull }

// Unwrap returns what the disk said.
func (e *FullError) Unwrap() error { return e.Disk }

// A CorruptError says that a stored object is not what it was; it is [ErrCorrupt].
type CorruptError struct {
	Hash  Hash
	Store string
	Aside string // where the damaged bytes are now; empty if they are gone
	What  string
}

func (e *CorruptError) Error() string {
	s := fmt.Sprintf("object %v of %s is damaged: %s", e.Hash, e.Store, e.What)
	if e.Aside != "" {
		s += "; it was moved to " + e.Aside
	}
	return s + "; store it again from another copy, and check the disk"
}

// Is makes errors.Is(err, ErrCorrupt) true.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

// A MismatchError says that bytes handed over are not those that their name
// promises; it is [ErrMismatch].
type MismatchError struct {
	Want Hash
	Got  Hash  // of the bytes
	Len  int64 // how many there were
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%d bytes named %v hash to %v: they were changed on their way or misnamed", e.Len, e.Want, e.Got)
}

// Is makes errors.Is(err, ErrMismatch) true.
func (e *MismatchError) Is(target error) bool { return target == ErrMismatch }

func checkLen(n int64) error {
	if n < 0 || n > MaxManifest {
		return fmt.Errorf("an object of %d bytes is above the limit of %d: write it as a blob", n, MaxManifest)
	}
	return nil
}

func verify(h Hash, data []byte) error {
	if got := Sum(data); got != h {
		return &MismatchError{Want: h, Got: got, Len: int64(len(data))}
	}
	return nil
}

// PutVerified is s.Put for callers that have just computed h from data, so that
// no byte need be hashed twice.
func PutVerified(ctx context.Context, s Store, h Hash, data []byte) error {
	if p, ok := s.(interface {
		PutVerified(context.Context, Hash, []byte) error
	}); ok {
		return p.PutVerified(ctx, h, data)
	}
	return s.Put(ctx, h, data)
}

// GetInto is s.Get, but puts the object into buf if it fits into its capacity.
func GetInto(ctx context.Context, s Store, h Hash, buf []byte) ([]byte, error) {
	if g, ok := s.(interface {
		GetInto(context.Context, Hash, []byte) ([]byte, error)
	}); ok {
		return g.GetInto(ctx, h, buf)
	}
	return s.Get(ctx, h)
}

// A Stage takes an object that arrives piece by piece. It is used by one
// goroutine at a time.
type Stage interface {
	// Write takes the next bytes. It fails if they exceed the announced length.
	io.Writer
	// Len returns how many bytes have been taken.
	Len() int64
	// Commit stores the object as [Store.Put] would, if length and hash are
	// those announced; otherwise it is a *[MismatchError]. The stage is over
	// either way.
	Commit(ctx context.Context) error
	// Abort drops what has been taken. After Commit it does nothing.
	Abort() error
}

// NewStage begins an object of n bytes. Stores that can, as [Dir], keep what
// has arrived on the disk, others in memory.
func NewStage(ctx context.Context, s Store, h Hash, n int64) (Stage, error) {
	if err := checkLen(n); err != nil {
		return nil, err
	}
	if g, ok := s.(interface {
		Stage(context.Context, Hash, int64) (Stage, error)
	}); ok {
		return g.Stage(ctx, h, n)
	}
	return &memoryStage{store: s, tally: newTally(h, n)}, nil
}

// A tally counts and hashes what arrives.
type tally struct {
	want Hash
	n    int64 // announced
	len  int64 // arrived
	sum  hash.Hash
}

func newTally(h Hash, n int64) tally { return tally{want: h, n: n, sum: sha256.New()} }

func (t *tally) Len() int64 { return t.len }

func (t *tally) add(p []byte) error {
	if t.len+int64(len(p)) > t.n {
		return fmt.Errorf("object %v is longer than the announced %d bytes", t.want, t.n)
	}
	t.sum.Write(p)
	t.len += int64(len(p))
	return nil
}

func (t *tally) check() error {
	var got Hash
	t.sum.Sum(got[:0])
	if t.len != t.n || got != t.want {
		return &MismatchError{Want: t.want, Got: got, Len: t.len}
	}
	return nil
}

// A memoryStage collects an object in memory.
type memoryStage struct {
	tally
	store Store
	buf   bytes.Buffer
}

func (s *memoryStage) Write(p []byte) (int, error) {
	if err := s.add(p); err != nil {
		return 0, err
	}
	return s.buf.Write(p)
}

func (s *memoryStage) Commit(ctx context.Context) error {
	if err := s.check(); err != nil {
		return err
	}
	return PutVerified(ctx, s.store, s.want, s.buf.Bytes())
}

func (s *memoryStage) Abort() error { s.buf = bytes.Buffer{}; return nil }

// chunkPool has buffers of ChunkSize bytes.
var chunkPool = sync.Pool{New: func() any { return new([ChunkSize]byte) }}

// pin pins if the store can.
func pin(s Store, hashes ...Hash) (unpin func()) {
	if k, ok := s.(Keeper); ok {
		return k.Pin(hashes...)
	}
	return func() {}
}
