package simulation

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/weights"
)

// Recall is the [Memory] of a simulation: what clients keep is held in RAM and, if the run has a folder, saved at the end
// of every round that is checkpointed, one file for all clients that changed since the last one.
type Recall struct {
	mu    sync.RWMutex
	sets  map[int]*weights.Set
	fresh map[int]bool // changed since the last save
	saved map[int]int  // round whose file holds a client's memory
}

// NewRecall returns an empty memory.
func NewRecall() *Recall {
	return &Recall{sets: map[int]*weights.Set{}, fresh: map[int]bool{}, saved: map[int]int{}}
}

// Load returns what a client keeps, nil if nothing.
func (m *Recall) Load(client int) (*weights.Set, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.sets[client], nil
}

// Store replaces what a client keeps.
func (m *Recall) Store(client int, s *weights.Set) error {
	if s == nil {
		return errors.New("nothing to keep")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sets[client] = s
	m.fresh[client] = true
	return nil
}

// forget removes what a client keeps.
func (m *Recall) forget(client int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.sets, client)
	delete(m.fresh, client)
	delete(m.saved, client)
}

// Clients returns how many clients keep something.
func (m *Recall) Clients() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.sets)
}

// keepsName is the folder of a run that holds what clients keep.
const keepsName = "clients"

func recallFile(dir string, round int) string {
	return filepath.Join(dir, fmt.Sprintf("round-%06d.safetensors", round))
}

// save writes what changed into the file of a round and returns, for every client that keeps something, the round whose
// file holds it. Tensors are named "client/tensor".
func (m *Recall) save(fsys journal.FS, dir string, round int) (map[int]int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.fresh) > 0 {
		all := weights.NewSet(len(m.fresh))
		for _, c := range slices.Sorted(maps.Keys(m.fresh)) {
			for name, t := range m.sets[c].All() {
				all.Put(strconv.Itoa(c)+"/"+name, t)
			}
		}
		if err := fsys.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		if err := writeSet(fsys, recallFile(dir, round), all, nil); err != nil {
			return nil, fmt.Errorf("saving what clients keep: %w", err)
		}
		for c := range m.fresh {
			m.saved[c] = round
		}
		m.fresh = map[int]bool{}
	}
	return maps.Clone(m.saved), nil
}

// load reads what the clients kept according to saved.
func (m *Recall) load(fsys journal.FS, dir string, saved map[int]int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sets, m.fresh, m.saved = map[int]*weights.Set{}, map[int]bool{}, maps.Clone(saved)
	if m.saved == nil {
		m.saved = map[int]int{}
	}
	byRound := map[int][]int{}
	for c, r := range saved {
		byRound[r] = append(byRound[r], c)
	}
	for r, clients := range byRound {
		all, _, err := readSet(fsys, recallFile(dir, r))
		if err != nil {
			return fmt.Errorf("reading what clients kept in round %d: %w", r, err)
		}
		own := map[int]*weights.Set{}
		for name, t := range all.All() {
			client, tensor, ok := strings.Cut(name, "/")
			c, err := strconv.Atoi(client)
			if !ok || err != nil {
				return fmt.Errorf("%s: tensor %q belongs to no client", recallFile(dir, r), name)
			}
			if own[c] == nil {
				own[c] = new(weights.Set)
			}
			own[c].Put(tensor, t)
		}
		for _, c := range clients {
			if own[c] == nil {
				return fmt.Errorf("%s does not hold client %d", recallFile(dir, r), c)
			}
			m.sets[c] = own[c]
		}
	}
	return nil
}

// sweep removes the files of rounds that none of the given manifests refers to.
func sweep(fsys journal.FS, dir string, manifests ...map[int]int) error {
	used := map[string]bool{}
	for _, m := range manifests {
		for _, r := range m {
			used[filepath.Base(recallFile(dir, r))] = true
		}
	}
	entries, err := fsys.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "round-") && !used[e.Name()] {
			if err := fsys.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
