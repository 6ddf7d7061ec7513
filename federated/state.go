package federated

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/cohort-learning/cohort/weights"
)

// State is everything a run must remember on the server between phases; it is checkpointed whole. Finish returns a new
// State and never changes the tensors of an old one: tasks in flight still refer to them.
type State struct {
	Round   int // the round under way, from 0
	Step    int // the phase under way within the round, from 0
	Version int // how many times the model has changed; tasks carry it as their base
	Sets    map[string]weights.Set
	Meta    json.RawMessage // whatever else the algorithm keeps
}

// With returns a copy of s in which the named set is replaced.
func (s State) With(name string, set weights.Set) State {
	sets := make(map[string]weights.Set, len(s.Sets)+1)
	for k, v := range s.Sets {
		sets[k] = v
	}
	sets[name] = set
	s.Sets = sets
	return s
}

// Digest returns the SHA-256 of everything in s, as hexadecimal: equal digests mean equal bits.
func (s State) Digest() string {
	h := sha256.New()
	var b [8]byte
	word := func(v int) {
		binary.LittleEndian.PutUint64(b[:], uint64(v))
		h.Write(b[:])
	}
	word(s.Round)
	word(s.Step)
	word(s.Version)
	names := make([]string, 0, len(s.Sets))
	for n := range s.Sets {
		names = append(names, n)
	}
	slices.Sort(names)
	word(len(names))
	for _, n := range names {
		word(len(n))
		h.Write([]byte(n))
		d := weights.Digest(s.Sets[n])
		h.Write(d[:])
	}
	h.Write(s.Meta)
	return hex.EncodeToString(h.Sum(nil))
}

// canonical gives Meta the form in which it comes back from a checkpoint, so that digests agree.
func (s *State) canonical() error {
	if len(s.Meta) == 0 {
		s.Meta = nil
		return nil
	}
	var b bytes.Buffer
	if err := json.Compact(&b, s.Meta); err != nil {
		return fmt.Errorf("what the algorithm keeps beside tensors is not JSON: %w", err)
	}
	s.Meta = b.Bytes()
	return nil
}
