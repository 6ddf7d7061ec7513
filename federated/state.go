package federated

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

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
	// Attached are bytes that are kept from phase to phase, such as keys that members have sent.
	Attached map[string][]byte
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
	if len(s.Attached) > 0 {
		word(len(s.Meta))
		for _, n := range slices.Sorted(maps.Keys(s.Attached)) {
			word(len(n))
			h.Write([]byte(n))
			word(len(s.Attached[n]))
			h.Write(s.Attached[n])
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Attach returns a copy of s in which the named bytes are replaced; nil removes them.
func (s State) Attach(name string, b []byte) State {
	all := maps.Clone(s.Attached)
	if all == nil {
		all = map[string][]byte{}
	}
	all[name] = b
	if b == nil {
		delete(all, name)
	}
	s.Attached = all
	return s
}

// Detached returns a copy of s without the attached bytes whose names begin with a prefix.
func (s State) Detached(prefix string) State {
	var rest map[string][]byte
	for name, b := range s.Attached {
		if strings.HasPrefix(name, prefix) {
			continue
		}
		if rest == nil {
			rest = map[string][]byte{}
		}
		rest[name] = b
	}
	s.Attached = rest
	return s
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
