package simulation

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/weights"
)

// snapshotKey is the metadata entry of a checkpoint that holds everything but tensors.
const snapshotKey = "cohort.snapshot"

// snapshotMeta is that entry. Tensors are named "set/tensor", those of older states that tasks in flight are made from
// "@position/set/tensor".
type snapshotMeta struct {
	Schema  int                `json:"schema"`
	State   stateMeta          `json:"state"`
	Clock   time.Duration      `json:"clock"`
	NextID  int                `json:"next_id"`
	Flights []federated.Flight `json:"flights,omitempty"`
	Bases   []stateMeta        `json:"bases,omitempty"`
	Keeps   map[int]int        `json:"keeps,omitempty"` // client → round whose file holds its memory
}

type stateMeta struct {
	Round   int             `json:"round"`
	Step    int             `json:"step"`
	Version int             `json:"version"`
	Sets    []string        `json:"sets"`
	Meta    json.RawMessage `json:"meta,omitempty"`
	// Attached says how many bytes are kept under which name; they are tensors "+/name" of words that are no numbers.
	Attached map[string]int `json:"attached,omitempty"`
}

const snapshotSchema = 1

// writeSnapshot writes a snapshot as one safetensors file, which other programs can open, too.
func writeSnapshot(w io.Writer, s federated.Snapshot, keeps map[int]int) error {
	for _, state := range append([]federated.State{s.State}, s.Bases...) {
		for name := range state.Sets {
			if name == "" || name[0] == '@' || name == attachedSet || strings.Contains(name, "/") {
				return fmt.Errorf("state: a set cannot be called %q: names must not be empty or +, begin with @ or contain /", name)
			}
		}
	}
	all := weights.NewSet(0)
	meta := snapshotMeta{Schema: snapshotSchema, Clock: s.Clock, NextID: s.NextID, Flights: s.Flights, Keeps: keeps,
		State: putState(&all, "", s.State)}
	for i, b := range s.Bases {
		meta.Bases = append(meta.Bases, putState(&all, fmt.Sprintf("@%d/", i), b))
	}
	b, err := json.Marshal(meta)
	if err != nil {
		return err
	}
	return weights.Write(w, all, map[string]string{snapshotKey: string(b)})
}

func putState(all *weights.Set, prefix string, s federated.State) stateMeta {
	m := stateMeta{Round: s.Round, Step: s.Step, Version: s.Version, Meta: s.Meta}
	for name := range s.Sets {
		m.Sets = append(m.Sets, name)
	}
	slices.Sort(m.Sets)
	for _, name := range m.Sets {
		for tensor, t := range s.Sets[name].All() {
			all.Put(prefix+name+"/"+tensor, t)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Attached)) {
		b := s.Attached[name]
		if m.Attached == nil {
			m.Attached = map[string]int{}
		}
		m.Attached[name] = len(b)
		words := make([]float32, (len(b)+3)/4)
		var last [4]byte
		for i := range words {
			if rest := copy(last[:], b[4*i:]); rest < 4 {
				clear(last[rest:])
			}
			words[i] = math.Float32frombits(binary.LittleEndian.Uint32(last[:]))
		}
		all.Put(prefix+attachedSet+"/"+name, weights.Of32(words, len(words)))
	}
	return m
}

// attachedSet is the set under which attached bytes stand in a snapshot.
const attachedSet = "+"

// readSnapshot reads what writeSnapshot wrote.
func readSnapshot(r io.Reader) (federated.Snapshot, map[int]int, error) {
	all, extra, err := weights.Read(r)
	if err != nil {
		return federated.Snapshot{}, nil, err
	}
	var m snapshotMeta
	if err := json.Unmarshal([]byte(extra[snapshotKey]), &m); err != nil {
		return federated.Snapshot{}, nil, fmt.Errorf("not a checkpoint of a run: metadata entry %q: %w", snapshotKey, err)
	}
	if m.Schema != snapshotSchema {
		return federated.Snapshot{}, nil, fmt.Errorf("checkpoint of schema %d; this program reads schema %d", m.Schema, snapshotSchema)
	}
	s := federated.Snapshot{Clock: m.Clock, NextID: m.NextID, Flights: m.Flights}
	if s.State, err = getState(all, "", m.State); err != nil {
		return s, nil, err
	}
	for i, b := range m.Bases {
		base, err := getState(all, fmt.Sprintf("@%d/", i), b)
		if err != nil {
			return s, nil, err
		}
		s.Bases = append(s.Bases, base)
	}
	return s, m.Keeps, nil
}

func getState(all weights.Set, prefix string, m stateMeta) (federated.State, error) {
	s := federated.State{Round: m.Round, Step: m.Step, Version: m.Version, Meta: m.Meta, Sets: map[string]weights.Set{}}
	for _, name := range m.Sets {
		var set weights.Set
		for full, t := range all.All() {
			if tensor, ok := strings.CutPrefix(full, prefix+name+"/"); ok {
				set.Put(tensor, t)
			}
		}
		s.Sets[name] = set
	}
	for name, n := range m.Attached {
		t, ok := all.Get(prefix + attachedSet + "/" + name)
		if !ok || n < 0 || len(t.F32) != (n+3)/4 {
			return s, fmt.Errorf("checkpoint: the %d bytes attached as %q are not there", n, name)
		}
		b := make([]byte, 0, 4*len(t.F32))
		for _, w := range t.F32 {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(w))
		}
		s = s.Attach(name, b[:n])
	}
	return s, nil
}

func writeSet(fsys journal.FS, path string, s weights.Set, meta map[string]string) error {
	return journal.WriteFile(fsys, path, func(w io.Writer) error { return weights.Write(w, s, meta) })
}

func readSet(fsys journal.FS, path string) (weights.Set, map[string]string, error) {
	f, err := fsys.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return weights.Set{}, nil, err
	}
	defer f.Close()
	return weights.Read(f)
}

func clockOf(s *federated.Snapshot) time.Duration {
	if s == nil {
		return 0
	}
	return s.Clock
}
