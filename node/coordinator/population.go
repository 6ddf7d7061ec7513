package coordinator

import (
	"sync"

	"github.com/cohort-learning/cohort/federated"
)

// population is a run's roster: the members that agreed to its terms, in the order of their records. It only grows; who left
// stays as gone.
type population struct {
	mu      sync.RWMutex
	members []federated.Member
	index   map[string]int
}

func newPopulation() *population { return &population{index: map[string]int{}} }

// Len implements [federated.Population].
func (p *population) Len() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return len(p.members)
}

// Member implements [federated.Population].
func (p *population) Member(i int) federated.Member {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.members[i]
}

// find returns a member by name.
func (p *population) find(name string) (federated.Member, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	i, ok := p.index[name]
	if !ok {
		return federated.Member{}, false
	}
	return p.members[i], true
}

// add appends a member.
func (p *population) add(name string, samples int) federated.Member {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := federated.Member{Index: len(p.members), Name: name, Samples: samples}
	p.index[name] = m.Index
	p.members = append(p.members, m)
	return m
}

// lose marks a member as gone; false if it was.
func (p *population) lose(name string) (federated.Member, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i, ok := p.index[name]
	if !ok || p.members[i].Gone {
		return federated.Member{}, false
	}
	p.members[i].Gone = true
	return p.members[i], true
}
