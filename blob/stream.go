package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

// writers is how many chunks [Write] and [Copy] have in hand at once: enough to
// keep hashing while a disk syncs.
const writers = 4

// Write stores what r yields until its end as a blob and returns its name. All
// is durable when it returns: the chunks first, the manifest last. If it fails,
// chunks may be left, which [Collect] frees.
func Write(ctx context.Context, s Store, r io.Reader) (Hash, Manifest, error) {
	h, m, unpin, err := WritePinned(ctx, s, r)
	unpin()
	return h, m, err
}

// WritePinned is Write, but the blob stays pinned until unpin is called: time to
// note that it is needed, in a store in which others discard and collect.
func WritePinned(ctx context.Context, s Store, r io.Reader) (_ Hash, m Manifest, unpin func(), err error) {
	var pins []func()
	unpin = func() {
		for _, f := range pins {
			f()
		}
	}
	w := newWorkers(ctx, writers)
	for w.ctx.Err() == nil {
		buf := chunkPool.Get().(*[ChunkSize]byte)
		n, err := io.ReadFull(r, buf[:])
		if n > 0 {
			h := Sum(buf[:n])
			pins = append(pins, pin(s, h))
			m.Bytes += int64(n)
			m.Chunks = append(m.Chunks, h)
			w.run(func(ctx context.Context) error {
				defer chunkPool.Put(buf)
				return PutVerified(ctx, s, h, buf[:n])
			})
		} else {
			chunkPool.Put(buf)
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			w.fail(fmt.Errorf("write blob: read byte %d: %w", m.Bytes, err))
		}
		if m.Bytes+ChunkSize > MaxBytes {
			w.fail(fmt.Errorf("write blob: it is longer than the limit of %d bytes", int64(MaxBytes)))
		}
	}
	if err := w.wait(); err != nil {
		return Hash{}, Manifest{}, unpin, err
	}
	b := m.Encode()
	h := Sum(b)
	pins = append(pins, pin(s, h))
	if err := PutVerified(ctx, s, h, b); err != nil {
		return Hash{}, Manifest{}, unpin, err
	}
	return h, m, unpin, nil
}

// ReadManifest returns the manifest of a blob.
func ReadManifest(ctx context.Context, s Store, h Hash) (Manifest, error) {
	b, err := s.Get(ctx, h)
	if err != nil {
		return Manifest{}, fmt.Errorf("blob %v: %w", h, err)
	}
	m, err := DecodeManifest(b)
	if err != nil {
		return Manifest{}, fmt.Errorf("blob %v: %w", h, err)
	}
	return m, nil
}

// Missing returns the chunks of m that s lacks, each once, in order.
func Missing(ctx context.Context, s Store, m Manifest) ([]Hash, error) {
	var missing []Hash
	seen := make(map[Hash]bool, len(m.Chunks))
	for _, h := range m.Chunks {
		if seen[h] {
			continue
		}
		seen[h] = true
		ok, err := s.Has(ctx, h)
		if err != nil {
			return nil, err
		}
		if !ok {
			missing = append(missing, h)
		}
	}
	return missing, nil
}

// Copy copies a blob: the chunks that to lacks, then the manifest.
func Copy(ctx context.Context, to, from Store, h Hash) error {
	m, err := ReadManifest(ctx, from, h)
	if err != nil {
		return err
	}
	defer pin(to, append([]Hash{h}, m.Chunks...)...)()
	missing, err := Missing(ctx, to, m)
	if err != nil {
		return err
	}
	w := newWorkers(ctx, writers)
	for _, c := range missing {
		w.run(func(ctx context.Context) error {
			buf := chunkPool.Get().(*[ChunkSize]byte)
			defer chunkPool.Put(buf)
			data, err := GetInto(ctx, from, c, buf[:])
			if err != nil {
				return err
			}
			return PutVerified(ctx, to, c, data)
		})
	}
	if err := w.wait(); err != nil {
		return err
	}
	return PutVerified(ctx, to, h, m.Encode())
}

// workers run a bounded number of functions until one fails.
type workers struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	slots  chan struct{}
	group  sync.WaitGroup
}

func newWorkers(ctx context.Context, n int) *workers {
	w := &workers{slots: make(chan struct{}, n)}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	return w
}

// run runs f as soon as there is a slot. After a failure it runs it with an
// ended context, so that f can give back what it holds.
func (w *workers) run(f func(context.Context) error) {
	w.slots <- struct{}{}
	w.group.Go(func() {
		defer func() { <-w.slots }()
		if err := f(w.ctx); err != nil {
			w.fail(err)
		}
	})
}

// fail ends all; the first error counts.
func (w *workers) fail(err error) { w.cancel(err) }

// wait waits for all and returns the first error.
func (w *workers) wait() error {
	w.group.Wait()
	err := context.Cause(w.ctx)
	w.cancel(nil)
	return err
}

// readerSlots is how many chunks a [Reader] keeps.
const readerSlots = 2

// A Reader reads a blob. ReadAt may be called from many goroutines, the other
// methods from one. Each chunk is verified before a byte of it is handed out.
type Reader struct {
	ctx      context.Context
	store    Store
	manifest Manifest
	off      int64

	mu     sync.Mutex
	slots  [readerSlots]slot // most recently used first
	closed bool
}

type slot struct {
	chunk int // -1: none
	data  []byte
	buf   *[ChunkSize]byte
}

var (
	_ io.ReadSeekCloser = (*Reader)(nil)
	_ io.ReaderAt       = (*Reader)(nil)
	_ io.WriterTo       = (*Reader)(nil)
)

// Open opens a blob for reading; reads end with ctx. The caller closes it.
func Open(ctx context.Context, s Store, h Hash) (*Reader, error) {
	m, err := ReadManifest(ctx, s, h)
	if err != nil {
		return nil, err
	}
	r := &Reader{ctx: ctx, store: s, manifest: m}
	for i := range r.slots {
		r.slots[i].chunk = -1
	}
	return r, nil
}

// Size returns the length of the blob in bytes.
func (r *Reader) Size() int64 { return r.manifest.Bytes }

// Manifest returns the blob's manifest, which must not be changed.
func (r *Reader) Manifest() Manifest { return r.manifest }

// ReadAt is [io.ReaderAt].
func (r *Reader) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("blob: read at negative offset %d", off)
	}
	for n < len(p) {
		if off >= r.manifest.Bytes {
			return n, io.EOF
		}
		k, err := r.readChunk(p[n:], int(off/ChunkSize), off%ChunkSize)
		if err != nil {
			return n, err
		}
		n += k
		off += int64(k)
	}
	return n, nil
}

// readChunk copies from chunk i, beginning at off in it.
func (r *Reader) readChunk(p []byte, i int, off int64) (int, error) {
	h, n := r.manifest.Chunks[i], r.manifest.ChunkLen(i)
	if off == 0 && int64(len(p)) >= n { // all of it: no need to keep it
		data, err := GetInto(r.ctx, r.store, h, p[:n:n])
		if err != nil {
			return 0, fmt.Errorf("blob: chunk %d: %w", i, err)
		}
		if int64(len(data)) != n {
			return 0, wrongLen(i, h, len(data), n)
		}
		if &data[0] != &p[0] {
			copy(p, data)
		}
		return int(n), nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0, errors.New("blob: read from a closed reader")
	}
	k := 0
	for k < readerSlots-1 && r.slots[k].chunk != i {
		k++
	}
	s := r.slots[k]
	if s.chunk != i {
		if s.buf == nil {
			s.buf = chunkPool.Get().(*[ChunkSize]byte)
		}
		r.slots[k] = slot{chunk: -1, buf: s.buf} // in case it fails
		data, err := GetInto(r.ctx, r.store, h, s.buf[:])
		if err != nil {
			return 0, fmt.Errorf("blob: chunk %d: %w", i, err)
		}
		if int64(len(data)) != n {
			return 0, wrongLen(i, h, len(data), n)
		}
		s.chunk, s.data = i, data
	}
	copy(r.slots[1:k+1], r.slots[:k])
	r.slots[0] = s
	return copy(p, s.data[off:]), nil
}

func wrongLen(i int, h Hash, got int, want int64) error {
	return fmt.Errorf("blob: chunk %d (%v) has %d bytes where its manifest needs %d: whoever wrote the manifest is wrong", i, h, got, want)
}

// Read is [io.Reader].
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := r.ReadAt(p[:min(int64(len(p)), max(1, r.manifest.Bytes-r.off))], r.off)
	r.off += int64(n)
	return n, err
}

// Seek is [io.Seeker].
func (r *Reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.off
	case io.SeekEnd:
		offset += r.manifest.Bytes
	}
	if offset < 0 {
		return 0, fmt.Errorf("blob: seek to negative offset %d", offset)
	}
	r.off = offset
	return offset, nil
}

// WriteTo writes the rest of the blob to w, a chunk at a time.
func (r *Reader) WriteTo(w io.Writer) (n int64, err error) {
	buf := chunkPool.Get().(*[ChunkSize]byte)
	defer chunkPool.Put(buf)
	for r.off < r.manifest.Bytes {
		i := r.off / ChunkSize
		p := buf[:min(ChunkSize, r.manifest.Bytes-i*ChunkSize)-r.off%ChunkSize]
		if _, err := r.ReadAt(p, r.off); err != nil {
			return n, err
		}
		k, err := w.Write(p)
		r.off += int64(k)
		n += int64(k)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Close gives back the reader's memory. Reads after it fail or need no memory.
func (r *Reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for i, s := range r.slots {
		if s.buf != nil {
			chunkPool.Put(s.buf)
		}
		r.slots[i] = slot{chunk: -1}
	}
	return nil
}
