package coordinator

import (
	"context"
	"log/slog"
	"sync"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/node/parcel"
	"github.com/cohort-learning/cohort/transport"
)

// pins counts who needs which blob, and deletes those that nobody needs any more. Equal content is one blob, so what one member
// sends may well be what another was sent.
type pins struct {
	store blob.Store
	log   *slog.Logger
	cache *parcel.Cache

	making sync.RWMutex // read-held while blobs are made that are not pinned yet
	mu     sync.Mutex
	count  map[transport.Digest]int
	trash  []blob.Hash // given up by everybody since the last sweep
	busy   bool
	idle   sync.WaitGroup
}

func newPins(store blob.Store, log *slog.Logger) *pins {
	return &pins{store: store, log: log, cache: &parcel.Cache{}, count: map[transport.Digest]int{}}
}

// pack calls the function, which makes blobs and returns them, and pins them before anything can delete them.
func (p *pins) pack(make func() ([]transport.Ref, error)) error {
	p.making.RLock()
	defer p.making.RUnlock()
	refs, err := make()
	if err == nil {
		p.add(refs)
	}
	return err
}

func (p *pins) add(refs []transport.Ref) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range refs {
		p.count[r.Hash]++
	}
}

// release gives blobs up; those that were needed by nobody else are deleted at the next sweep.
func (p *pins) release(refs []transport.Ref) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range refs {
		if p.count[r.Hash]--; p.count[r.Hash] <= 0 {
			delete(p.count, r.Hash)
			p.trash = append(p.trash, blob.Hash(r.Hash))
		}
	}
}

// sweep deletes in the background what is not needed.
func (p *pins) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy || len(p.trash) == 0 {
		return
	}
	p.busy = true
	p.idle.Go(func() {
		for {
			p.mu.Lock()
			trash := p.trash
			p.trash = nil
			p.busy = len(trash) > 0
			p.mu.Unlock()
			if len(trash) == 0 {
				return
			}
			if err := p.discard(trash); err != nil {
				p.log.Warn("blobs that are not needed any more cannot be deleted", "error", err)
			}
		}
	})
}

func (p *pins) discard(trash []blob.Hash) error {
	p.making.Lock()
	defer p.making.Unlock()
	p.cache.Forget() // it may know blobs that are deleted now
	_, err := blob.Discard(context.Background(), p.store, p.needed, trash...)
	return err
}

// Sweep deletes all blobs that no run needs, such as a crash may leave. It is for when all runs have been started, and now and
// then afterwards.
func (s *Server) Sweep() error {
	p := s.pins
	p.making.Lock()
	defer p.making.Unlock()
	_, err := blob.Collect(s.ctx, p.store, p.needed)
	return err
}

// needed reports whether somebody needs a blob.
func (p *pins) needed(h blob.Hash) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count[transport.Digest(h)] > 0
}
