package mismatch

import "sync"

// pool lends transports, so that many small blocks share the memory of few.
type pool struct {
	mu   sync.Mutex
	free []*transport
}

func (p *pool) take() *transport {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		t := p.free[n-1]
		p.free = p.free[:n-1]
		return t
	}
	return &transport{}
}

func (p *pool) put(t *transport) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, t)
}
