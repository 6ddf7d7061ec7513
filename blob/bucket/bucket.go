//go:build bucket

package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"time"

	cloud "gocloud.dev/blob"
	_ "gocloud.dev/blob/fileblob" // file://
	_ "gocloud.dev/blob/memblob"  // mem://
	_ "gocloud.dev/blob/s3blob"   // s3://
	"gocloud.dev/gcerrors"

	"github.com/cohort-learning/cohort/blob"
)

const corrupt = "corrupt/"

// bucket puts whole objects, which services make visible at once or not at all,
// and acknowledge when they are durable.
type bucket struct {
	*blob.Index
	name string
	b    *cloud.Bucket

	mu     sync.RWMutex // read-locked during every operation
	closed bool
}

var _ Store = (*bucket)(nil)

// Open opens the store at a URL and lists what is there.
func Open(ctx context.Context, url string) (Store, error) {
	b, err := cloud.OpenBucket(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("open bucket %q: %w", url, err)
	}
	s, err := load(ctx, url, b)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open bucket %q: %w: are its name, region and endpoint right, and the credentials in place", url, err), b.Close())
	}
	return s, nil
}

func load(ctx context.Context, url string, b *cloud.Bucket) (*bucket, error) {
	s := &bucket{name: "the bucket " + url, b: b}
	s.Index = blob.NewIndex(s.name)
	for it := b.List(&cloud.ListOptions{Delimiter: "/"}); ; {
		o, err := it.Next(ctx)
		if err == io.EOF {
			return s, nil
		}
		if err != nil {
			return nil, err
		}
		if h, err := blob.ParseHash(o.Key); err == nil && !o.IsDir {
			s.Add(h, o.Size, o.ModTime)
		}
	}
}

func (s *bucket) enter(ctx context.Context) (leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	if s.closed {
		s.mu.RUnlock()
		return nil, fmt.Errorf("%s: %w", s.name, blob.ErrClosed)
	}
	return s.mu.RUnlock, nil
}

// Close waits for operations under way.
func (s *bucket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	return s.b.Close()
}

func (s *bucket) Has(ctx context.Context, h blob.Hash) (bool, error) {
	leave, err := s.enter(ctx)
	if err != nil {
		return false, err
	}
	defer leave()
	return s.Use(h), nil
}

func (s *bucket) Put(ctx context.Context, h blob.Hash, data []byte) error {
	if got := blob.Sum(data); got != h {
		return &blob.MismatchError{Want: h, Got: got, Len: int64(len(data))}
	}
	return s.PutVerified(ctx, h, data)
}

// PutVerified is [blob.PutVerified].
func (s *bucket) PutVerified(ctx context.Context, h blob.Hash, data []byte) error {
	n := int64(len(data))
	if n > blob.MaxManifest {
		return fmt.Errorf("an object of %d bytes is above the limit of %d", n, blob.MaxManifest)
	}
	leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	done, err := s.Acquire(ctx, h)
	if err != nil {
		return err
	}
	defer done()
	if s.Use(h) {
		return nil
	}
	if err := s.Reserve(n); err != nil {
		return err
	}
	defer s.Release(n)
	err = s.b.WriteAll(ctx, h.String(), data, &cloud.WriterOptions{ContentType: "application/octet-stream", DisableContentTypeDetection: true})
	if err != nil {
		return fmt.Errorf("put %v into %s: %w", h, s.name, err)
	}
	s.Add(h, n, time.Time{})
	return nil
}

func (s *bucket) Get(ctx context.Context, h blob.Hash) ([]byte, error) { return s.GetInto(ctx, h, nil) }

// GetInto is [blob.GetInto].
func (s *bucket) GetInto(ctx context.Context, h blob.Hash, buf []byte) ([]byte, error) {
	leave, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	data, what, err := s.read(ctx, h, buf)
	if err != nil || what == "" {
		return data, err
	}
	done, err := s.Acquire(ctx, h)
	if err != nil {
		return nil, err
	}
	defer done()
	data, what, err = s.read(ctx, h, buf) // it may have been replaced
	if err != nil || what == "" {
		return data, err
	}
	aside := corrupt + h.String()
	if err := s.b.Copy(ctx, aside, h.String(), nil); err != nil {
		return nil, errors.Join(&blob.CorruptError{Hash: h, Store: s.name, What: what}, fmt.Errorf("move it aside: %w", err))
	}
	if err := s.b.Delete(ctx, h.String()); err != nil {
		return nil, errors.Join(&blob.CorruptError{Hash: h, Store: s.name, What: what}, fmt.Errorf("move it aside: %w", err))
	}
	s.Drop(h)
	return nil, &blob.CorruptError{Hash: h, Store: s.name, Aside: aside, What: what}
}

func (s *bucket) read(ctx context.Context, h blob.Hash, buf []byte) (data []byte, what string, err error) {
	n, ok := s.Len(h)
	if !ok {
		return nil, "", fmt.Errorf("get %v from %s: %w", h, s.name, blob.ErrNotFound)
	}
	r, err := s.b.NewReader(ctx, h.String(), nil)
	if gcerrors.Code(err) == gcerrors.NotFound {
		s.Drop(h) // somebody else deleted it
		return nil, "", fmt.Errorf("get %v from %s: %w", h, s.name, blob.ErrNotFound)
	}
	if err != nil {
		return nil, "", fmt.Errorf("get %v from %s: %w", h, s.name, err)
	}
	defer r.Close()
	if r.Size() != n {
		return nil, fmt.Sprintf("it has %d bytes instead of %d", r.Size(), n), nil
	}
	if int64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		return nil, "", fmt.Errorf("get %v from %s: %w", h, s.name, err)
	}
	if got := blob.Sum(buf); got != h {
		return nil, fmt.Sprintf("its %d bytes hash to %v", n, got), nil
	}
	return buf, "", nil
}

func (s *bucket) Delete(ctx context.Context, h blob.Hash) error {
	leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	done, err := s.Acquire(ctx, h)
	if err != nil {
		return err
	}
	defer done()
	n, ok := s.Len(h)
	if !ok {
		return nil
	}
	s.Drop(h)
	return s.remove(ctx, h, n)
}

func (s *bucket) DeleteIdle(ctx context.Context, h blob.Hash, before time.Time) (int64, error) {
	leave, err := s.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	n, done := s.Retire(h, before)
	if done == nil {
		return 0, nil
	}
	defer done()
	return n, s.remove(ctx, h, n)
}

// remove deletes an object that has been taken out of the index.
func (s *bucket) remove(ctx context.Context, h blob.Hash, n int64) error {
	err := s.b.Delete(ctx, h.String())
	if err == nil || gcerrors.Code(err) == gcerrors.NotFound {
		return nil
	}
	s.Add(h, n, time.Time{})
	return fmt.Errorf("delete %v from %s: %w", h, s.name, err)
}

func (s *bucket) List(ctx context.Context) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		leave, err := s.enter(ctx)
		if err != nil {
			yield(blob.Info{}, err)
			return
		}
		leave() // the caller may want to delete
		for _, i := range s.All() {
			if err := ctx.Err(); err != nil {
				yield(blob.Info{}, err)
				return
			}
			if !yield(i, nil) {
				return
			}
		}
	}
}
