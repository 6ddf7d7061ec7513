// Package parcel packs tensors and index sets into messages: the few that fit stand in the message itself, the others become
// blobs that the message refers to. Equal content gives equal bytes, so a model that goes to a thousand members is one blob.
package parcel

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"
	"unsafe"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/weights"
)

// Media types of the blobs.
const (
	Safetensors = "application/safetensors"
	JSON        = "application/json"
	Bytes       = "application/octet-stream"
)

// inline is how many bytes of one set may stand in a message, and room how many of all.
const (
	inline = 4 << 10
	room   = 16 << 10
)

// Packer packs what one message carries. The zero value with a Store is ready.
type Packer struct {
	Store blob.Store
	Cache *Cache // may be nil
	Whole bool   // everything becomes blobs, however small
	Refs  []transport.Ref

	used int
}

// Set packs a set of tensors.
func (p *Packer) Set(ctx context.Context, name string, s weights.Set) (transport.Tensors, error) {
	t := transport.Tensors{Name: name}
	if !p.Whole && s.Bytes() <= inline && p.used < room {
		var b bytes.Buffer
		if err := weights.Write(&b, s, nil); err != nil {
			return t, err
		}
		if b.Len() <= 2*inline && p.used+b.Len() <= room {
			t.Inline = b.Bytes()
			p.used += b.Len()
			return t, nil
		}
	}
	ref, err := p.Cache.ref(s, func() (transport.Ref, error) {
		return write(ctx, p.Store, Safetensors, func(w io.Writer) error { return weights.Write(w, s, nil) })
	})
	if err != nil {
		return t, fmt.Errorf("packing tensors %q: %w", name, err)
	}
	t.Ref = p.refer(ref)
	return t, nil
}

// Index packs an index set; nil stays nil.
func (p *Packer) Index(ctx context.Context, name string, x weights.Index) (*transport.Tensors, error) {
	if x == nil {
		return nil, nil
	}
	b, err := json.Marshal(x)
	if err != nil {
		return nil, fmt.Errorf("packing index set %q: %w", name, err)
	}
	return p.bytes(ctx, name, JSON, b)
}

// Attached packs bytes as they are; none stay nil.
func (p *Packer) Attached(ctx context.Context, name string, b []byte) (*transport.Tensors, error) {
	if len(b) == 0 {
		return nil, nil
	}
	return p.bytes(ctx, name, Bytes, b)
}

func (p *Packer) bytes(ctx context.Context, name, media string, b []byte) (*transport.Tensors, error) {
	t := &transport.Tensors{Name: name}
	if len(b) <= 2*inline && p.used+len(b) <= room {
		t.Inline = b
		p.used += len(b)
		return t, nil
	}
	ref, err := write(ctx, p.Store, media, func(w io.Writer) error { _, err := w.Write(b); return err })
	if err != nil {
		return nil, fmt.Errorf("packing %q: %w", name, err)
	}
	t.Ref = p.refer(ref)
	return t, nil
}

// refer returns 1 + the position of a blob among those of the message.
func (p *Packer) refer(r transport.Ref) int {
	for i, have := range p.Refs {
		if have == r {
			return i + 1
		}
	}
	p.Refs = append(p.Refs, r)
	return len(p.Refs)
}

// write stores what the function writes as a blob.
func write(ctx context.Context, store blob.Store, media string, fill func(io.Writer) error) (transport.Ref, error) {
	r, w := io.Pipe()
	go func() { w.CloseWithError(fill(w)) }()
	h, m, err := blob.Write(ctx, store, r)
	r.CloseWithError(errors.New("the blob cannot be stored")) // ends the writer
	if err != nil {
		return transport.Ref{}, err
	}
	return transport.Ref{Hash: transport.Digest(h), Bytes: m.Bytes, Media: media}, nil
}

// Cache remembers the blobs of sets that were packed, so that a model is encoded once and not once a member. It recognises a
// set by the memory of its tensors, which must not change until [Cache.Forget].
type Cache struct {
	mu    sync.Mutex
	known map[place]*entry
}

// place is where a set's tensors begin and end: what a set is looked up by, before it is compared.
type place struct {
	first, last unsafe.Pointer
	tensors     int
	bytes       int64
}

type entry struct {
	once sync.Once
	held weights.Set // keeps the memory from being used for something else
	ref  transport.Ref
	err  error
}

func (c *Cache) ref(s weights.Set, pack func() (transport.Ref, error)) (transport.Ref, error) {
	at, ok := placeOf(s)
	if c == nil || !ok {
		return pack()
	}
	c.mu.Lock()
	e := c.known[at]
	if e == nil || !same(e.held, s) {
		if c.known == nil {
			c.known = map[place]*entry{}
		}
		e = &entry{held: s}
		c.known[at] = e
	}
	c.mu.Unlock()
	e.once.Do(func() { e.ref, e.err = pack() })
	return e.ref, e.err
}

// Forget drops everything: the memory of the sets may change.
func (c *Cache) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known = nil
}

// same reports whether two sets are the same tensors in the same memory.
func same(a, b weights.Set) bool {
	if a.Len() != b.Len() {
		return false
	}
	next, stop := iter.Pull2(a.All())
	defer stop()
	for name, t := range b.All() {
		other, u, _ := next()
		if name != other || data(t) != data(u) || !slices.Equal(t.Shape, u.Shape) {
			return false
		}
	}
	return true
}

func placeOf(s weights.Set) (at place, ok bool) {
	at.tensors, at.bytes = s.Len(), s.Bytes()
	for _, t := range s.All() {
		p := data(t)
		if at.first == nil {
			at.first = p
		}
		at.last = p
	}
	return at, at.first != nil
}

func data(t weights.Tensor) unsafe.Pointer {
	if t.F64 != nil {
		return unsafe.Pointer(unsafe.SliceData(t.F64))
	}
	return unsafe.Pointer(unsafe.SliceData(t.F32))
}

// Set unpacks tensors. The blobs must be in the store.
func Set(ctx context.Context, store blob.Store, t transport.Tensors, refs []transport.Ref) (weights.Set, error) {
	return SetIn(ctx, store, t, refs, nil)
}

// SetIn is Set with memory of the caller's; see [weights.File.SetIn].
func SetIn(ctx context.Context, store blob.Store, t transport.Tensors, refs []transport.Ref, room func(n int) []float32) (weights.Set, error) {
	r, err := open(ctx, store, t, refs)
	if err != nil {
		return weights.Set{}, err
	}
	defer r.Close()
	f, err := weights.NewFile(r, r.Size()) // the bytes are there, so that memory for them may be taken at once
	var s weights.Set
	if err == nil {
		s, err = f.SetIn(room)
	}
	if err != nil {
		return weights.Set{}, fmt.Errorf("tensors %q: %w", t.Name, err)
	}
	return s, nil
}

// maxIndex bounds the JSON of an index set.
const maxIndex = 256 << 20

// Index unpacks an index set; nil stays nil.
func Index(ctx context.Context, store blob.Store, t *transport.Tensors, refs []transport.Ref) (weights.Index, error) {
	if t == nil {
		return nil, nil
	}
	r, err := open(ctx, store, *t, refs)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxIndex))
	if err != nil {
		return nil, fmt.Errorf("index set %q: %w", t.Name, err)
	}
	var x weights.Index
	if err := json.Unmarshal(b, &x); err != nil {
		return nil, fmt.Errorf("index set %q: %w", t.Name, err)
	}
	if x == nil {
		return nil, fmt.Errorf("index set %q is null", t.Name)
	}
	return x, nil
}

// Attached unpacks bytes; nil stays nil. The caller has bounded the size of the blobs.
func Attached(ctx context.Context, store blob.Store, t *transport.Tensors, refs []transport.Ref) ([]byte, error) {
	if t == nil {
		return nil, nil
	}
	r, err := open(ctx, store, *t, refs)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b := make([]byte, r.Size()) // the bytes are there
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("%q: %w", t.Name, err)
	}
	return b, nil
}

// source is packed bytes, here or in a blob.
type source interface {
	io.ReadCloser
	io.ReaderAt
	Size() int64
}

// inlined are bytes that stand in a message.
type inlined struct{ *bytes.Reader }

func (inlined) Close() error { return nil }

func open(ctx context.Context, store blob.Store, t transport.Tensors, refs []transport.Ref) (source, error) {
	if t.Ref == 0 {
		return inlined{bytes.NewReader(t.Inline)}, nil
	}
	if t.Ref < 0 || t.Ref > len(refs) {
		return nil, fmt.Errorf("%q refers to blob %d of %d", t.Name, t.Ref, len(refs))
	}
	ref := refs[t.Ref-1]
	r, err := blob.Open(ctx, store, blob.Hash(ref.Hash))
	if err != nil {
		return nil, fmt.Errorf("%q: %w", t.Name, err)
	}
	if r.Size() != ref.Bytes {
		_ = r.Close()
		return nil, fmt.Errorf("%q is a blob of %d bytes, %d were declared", t.Name, r.Size(), ref.Bytes)
	}
	return r, nil
}
