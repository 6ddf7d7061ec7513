package blob

import (
	"context"
	"slices"
	"sync"
	"time"
)

// An Index is what a store remembers of its objects: their lengths, when they
// were last used, which are pinned, and which somebody is working on. It serves
// those who write stores; its methods may be called from many goroutines.
type Index struct {
	name  string    // of the store, for errors
	began time.Time // times are kept from here on, so that setting the clock does not matter

	mu       sync.Mutex
	objects  map[Hash]object
	pins     map[Hash]int
	flights  map[Hash]chan struct{} // closed when the work is over
	bytes    int64
	reserved int64 // for objects that are being put
	cap      int64
}

type object struct {
	bytes int64
	used  time.Duration // since Index.began
}

// NewIndex returns an empty index of a store of that name.
func NewIndex(name string) *Index {
	return &Index{
		name:    name,
		began:   time.Now(),
		objects: make(map[Hash]object),
		pins:    make(map[Hash]int),
		flights: make(map[Hash]chan struct{}),
	}
}

// Add enters an object as used at that time; the zero time means now.
func (x *Index) Add(h Hash, bytes int64, used time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if used.IsZero() {
		used = time.Now()
	}
	x.bytes += bytes - x.objects[h].bytes
	x.objects[h] = object{bytes, used.Sub(x.began)}
}

// Drop takes an object out.
func (x *Index) Drop(h Hash) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.bytes -= x.objects[h].bytes
	delete(x.objects, h)
}

// Use notes that an object is used, and reports whether it is there.
func (x *Index) Use(h Hash) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.use(h)
}

func (x *Index) use(h Hash) bool {
	o, ok := x.objects[h]
	if ok {
		o.used = time.Since(x.began)
		x.objects[h] = o
	}
	return ok
}

// Len returns the length of an object, if it is there.
func (x *Index) Len(h Hash) (bytes int64, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	o, ok := x.objects[h]
	return o.bytes, ok
}

// Acquire waits until nobody else works on the object, and keeps others from it
// until done is called.
func (x *Index) Acquire(ctx context.Context, h Hash) (done func(), err error) {
	for {
		x.mu.Lock()
		busy, ok := x.flights[h]
		if !ok {
			done := x.begin(h)
			x.mu.Unlock()
			return done, nil
		}
		x.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// begin begins work on h. The caller holds mu.
func (x *Index) begin(h Hash) (done func()) {
	c := make(chan struct{})
	x.flights[h] = c
	return func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		delete(x.flights, h)
		close(c)
	}
}

// Retire takes an object out that is neither pinned nor worked on nor was used
// at the time before or later, and keeps others from it until done is called.
// Otherwise done is nil.
func (x *Index) Retire(h Hash, before time.Time) (bytes int64, done func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	o, ok := x.objects[h]
	if _, busy := x.flights[h]; !ok || busy || x.pins[h] > 0 || o.used >= before.Sub(x.began) {
		return 0, nil
	}
	delete(x.objects, h)
	x.bytes -= o.bytes
	return o.bytes, x.begin(h)
}

// Reserve makes room for an object that is about to be put, or fails with a
// *[FullError]. Release gives it back, when the object was added or failed.
func (x *Index) Reserve(bytes int64) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.cap > 0 && x.bytes+x.reserved+bytes > x.cap {
		return &FullError{Store: x.name, Want: bytes, Usage: x.usage()}
	}
	x.reserved += bytes
	return nil
}

// Release undoes Reserve.
func (x *Index) Release(bytes int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.reserved -= bytes
}

// Pin is [Keeper.Pin].
func (x *Index) Pin(hashes ...Hash) (unpin func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, h := range hashes {
		x.pins[h]++
	}
	return sync.OnceFunc(func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		for _, h := range hashes {
			if x.pins[h]--; x.pins[h] == 0 {
				delete(x.pins, h)
			}
			x.use(h) // until now, that is
		}
	})
}

// Pinned is [Keeper.Pinned].
func (x *Index) Pinned(h Hash) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.pins[h] > 0
}

// Usage is [Keeper.Usage].
func (x *Index) Usage() Usage {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.usage()
}

func (x *Index) usage() Usage {
	return Usage{Objects: int64(len(x.objects)), Bytes: x.bytes, Cap: x.cap}
}

// SetCap is [Keeper.SetCap].
func (x *Index) SetCap(bytes int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.cap = bytes
}

// All returns all objects, by hash.
func (x *Index) All() []Info {
	x.mu.Lock()
	all := make([]Info, 0, len(x.objects))
	for h, o := range x.objects {
		all = append(all, Info{h, o.bytes, x.began.Add(o.used)})
	}
	x.mu.Unlock()
	slices.SortFunc(all, func(a, b Info) int { return a.Hash.Compare(b.Hash) })
	return all
}

// list is [Store.List] over All.
func (x *Index) list(ctx context.Context) func(yield func(Info, error) bool) {
	return func(yield func(Info, error) bool) {
		for _, i := range x.All() {
			if err := ctx.Err(); err != nil {
				yield(Info{}, err)
				return
			}
			if !yield(i, nil) {
				return
			}
		}
	}
}
