package blob

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Grace is for how long [Collect] spares what nothing refers to: time for who
// wrote a blob to note that it is needed.
const Grace = 10 * time.Minute

// Freed is what a collection deleted.
type Freed struct {
	Objects int64
	Bytes   int64
}

// Collect deletes what nobody needs: every object except
//
//   - those for which live is true or that are pinned, and the chunks of those
//     of them that are manifests;
//   - those that were put or asked for within the last [Grace].
//
// live is asked for every object, chunks too, and once more just before one is
// deleted; it must be true for every blob that is needed, and need not be for
// the chunks. Others may write at the same time. If a live manifest cannot be
// read, nothing is deleted.
func Collect(ctx context.Context, s Store, live func(Hash) bool) (Freed, error) {
	return CollectOlder(ctx, s, live, Grace)
}

// CollectOlder is Collect with another time of grace. With 0 it spares only what
// is used while it runs, or pinned: whoever writes has to keep the blob pinned until
// it is live, see [WritePinned].
func CollectOlder(ctx context.Context, s Store, live func(Hash) bool, grace time.Duration) (Freed, error) {
	k, needed, before, err := mark(ctx, s, live, grace)
	if err != nil {
		return Freed{}, fmt.Errorf("collect: %w", err)
	}
	return sweep(ctx, k, needed.others, func(h Hash) bool { return needed.chunks[h] || live(h) }, before)
}

// Discard deletes blobs that are known not to be needed any more, with those of
// their chunks that no other blob has, live or not. It is Collect for these
// alone and without the time of grace; pins hold.
func Discard(ctx context.Context, s Store, live func(Hash) bool, blobs ...Hash) (Freed, error) {
	dead := make(map[Hash]bool, len(blobs))
	var only []Hash
	for _, h := range blobs {
		if dead[h] {
			continue
		}
		dead[h] = true
		m, err := ReadManifest(ctx, s, h)
		switch {
		case errors.Is(err, ErrNotFound), errors.Is(err, ErrCorrupt), errors.Is(err, ErrNoManifest):
		case err != nil:
			return Freed{}, fmt.Errorf("discard: %w", err)
		}
		only = append(append(only, h), m.Chunks...) // the manifest first: nothing refers to missing chunks
	}
	if len(only) == 0 {
		return Freed{}, nil
	}
	// A blob that was written just now is not live yet, but may share chunks.
	marks := func(h Hash) bool { return !dead[h] || live(h) }
	k, needed, before, err := mark(ctx, s, marks, 0)
	if err != nil {
		return Freed{}, fmt.Errorf("discard: %w", err)
	}
	return sweep(ctx, k, only, func(h Hash) bool { return needed.chunks[h] || live(h) }, before)
}

// marked is what mark found.
type marked struct {
	chunks map[Hash]bool // of the roots
	others []Hash        // objects that are no roots
}

// mark finds the chunks of all roots. What was put or asked for at the time
// before or later must stay all the same: it may be part of a blob whose
// manifest comes too late to be marked.
func mark(ctx context.Context, s Store, root func(Hash) bool, grace time.Duration) (k Keeper, m marked, before time.Time, err error) {
	k, ok := s.(Keeper)
	if !ok {
		return nil, m, before, fmt.Errorf("a store of type %T does not know which objects are in use: it must be a Keeper", s)
	}
	before = time.Now().Add(-grace)
	m.chunks = make(map[Hash]bool)
	var roots []Hash
	for info, err := range s.List(ctx) {
		switch {
		case err != nil:
			return nil, m, before, err
		case !k.Pinned(info.Hash) && !root(info.Hash): // in this order: who makes a blob live unpins it afterwards
			m.others = append(m.others, info.Hash)
		case info.Bytes >= manifestHead && (info.Bytes-manifestHead)%hashSize == 0:
			roots = append(roots, info.Hash)
		}
	}
	for _, h := range roots {
		man, err := ReadManifest(ctx, s, h)
		switch {
		case errors.Is(err, ErrNoManifest): // a chunk
		case errors.Is(err, ErrNotFound): // deleted meanwhile
		case err != nil:
			return nil, m, before, fmt.Errorf("nothing was deleted: %w", err)
		}
		for _, c := range man.Chunks {
			m.chunks[c] = true
		}
	}
	return k, m, before, nil
}

// sweep deletes those of the objects that are not needed and idle.
func sweep(ctx context.Context, k Keeper, objects []Hash, needed func(Hash) bool, before time.Time) (Freed, error) {
	var f Freed
	for _, h := range objects {
		if needed(h) {
			continue
		}
		n, err := k.DeleteIdle(ctx, h, before)
		if err != nil {
			return f, fmt.Errorf("collect: %w", err)
		}
		if n > 0 {
			f.Objects++
			f.Bytes += n
		}
	}
	return f, nil
}
