package coordinator

import (
	"cmp"
	"sync"

	"github.com/cohort-learning/cohort/weights"
)

// scrap is the memory of results that have been folded, for those that come next. Without it every result would be garbage of the
// size of a model: the collector would run for each, and several of them lie about at the peak.
type scrap struct {
	mu    sync.Mutex
	least int                 // elements of a tensor whose memory is kept: small ones are no burden; 0: 16,384
	free  map[int][][]float32 // by capacity: results of one phase have tensors of the same sizes
	held  int                 // elements
}

// maxScrap bounds the elements that are kept, which matters where members have models of many sizes: 1 GiB.
const maxScrap = 256 << 20

// take returns memory for n elements, or nil.
func (s *scrap) take(n int) []float32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.free[n]
	if len(list) == 0 {
		return nil
	}
	mem := list[len(list)-1]
	list[len(list)-1] = nil
	s.free[n] = list[:len(list)-1]
	s.held -= n
	return mem
}

// put gives the memory of a set, which nobody uses any more.
func (s *scrap) put(x weights.Set) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range x.All() {
		n := cap(t.F32)
		if n < cmp.Or(s.least, 16<<10) || s.held+n > maxScrap {
			continue
		}
		if s.free == nil {
			s.free = map[int][][]float32{}
		}
		s.free[n] = append(s.free[n], t.F32[:0])
		s.held += n
	}
}

// drop gives the memory to the collector, as when a phase has closed.
func (s *scrap) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free, s.held = nil, 0
}
