package robust

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"slices"

	"github.com/cohort-learning/cohort/weights"
)

// Spool holds the results of one fold until they are combined: a row of float32 a member, in a temporary file. A row is as
// long as the whole model; coordinates that its member does not hold are NaN.
//
// Append is for one goroutine at a time, and not while a rule reads.
type Spool struct {
	like   weights.Set // names and shapes of the whole
	size   int         // coordinates
	file   *os.File
	name   string // to be removed; empty if it is already
	rows   []row
	sorted bool
	row    weights.Set // scratch: one row
}

// row is one member's result.
type row struct {
	member, order int
	name          string
	at            int64  // position in the file
	weight        uint64 // ≥ 1
	part          bool   // does not hold everything
}

// NewSpool returns an empty spool for sets of the names and shapes of like, in a folder that exists; "" is the folder for
// temporary files. The caller closes it.
func NewSpool(like weights.Set, dir string) (*Spool, error) {
	f, err := os.CreateTemp(dir, "cohort-rows-*")
	if err != nil {
		return nil, fmt.Errorf("spool of results: %w", err)
	}
	s := &Spool{like: like, file: f, name: f.Name(), row: weights.NewSet(like.Len())}
	for name, t := range like.All() {
		s.row.Put(name, weights.NewTensor(weights.Float32, t.Shape...))
		s.size += t.Len()
	}
	if os.Remove(s.name) == nil { // gone when the process is, where the system allows it
		s.name = ""
	}
	return s, nil
}

// Close gives the file up.
func (s *Spool) Close() error {
	err := s.file.Close()
	if s.name != "" {
		if e := os.Remove(s.name); err == nil {
			err = e
		}
	}
	return err
}

// Len returns the number of rows.
func (s *Spool) Len() int { return len(s.rows) }

// Bytes returns how many bytes the results of n members take in a spool of sets like this: 4 a member and coordinate.
func Bytes(like weights.Set, n int) int64 { return 4 * int64(like.Size()) * int64(n) }

// Append adds a member's result: the set x of the shapes that at slices from the whole, of which the coordinates count that are
// in cover, too (nil: all of them). Names, shapes and values must have been checked, as by [weights.Acc.Check]. Member
// gives the place of the row, order that among several rows of one member, and weight, at least 1, what it may weigh.
func (s *Spool) Append(member int, name string, order int, x weights.Set, at, cover weights.Index, weight uint64) error {
	part := s.fill(x, at, cover)
	r := row{member: member, order: order, name: name, at: int64(len(s.rows)) * 4 * int64(s.size), weight: max(1, weight), part: part}
	w := bufio.NewWriterSize(io.NewOffsetWriter(s.file, r.at), 1<<16)
	var b [4]byte
	for _, t := range s.row.All() {
		for _, v := range t.F32 {
			binary.LittleEndian.PutUint32(b[:], math.Float32bits(v))
			if _, err := w.Write(b[:]); err != nil {
				return fmt.Errorf("spool of results: %w", err)
			}
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("spool of results: %w", err)
	}
	s.rows, s.sorted = append(s.rows, r), false
	return nil
}

// fill makes the scratch row what x is in the whole, and reports whether a coordinate is missing.
func (s *Spool) fill(x weights.Set, at, cover weights.Index) (part bool) {
	narrow := x.Convert(weights.Float32)
	for name, t := range s.row.All() {
		v, ok := narrow.Get(name)
		if at == nil && cover == nil && ok {
			copy(t.F32, v.F32)
			continue
		}
		absent(t.F32)
		if axes, held := at[name]; ok && (held || at == nil) {
			one(weights.Index{name: axes}, name, t, v)
		}
		if cover == nil {
			continue
		}
		axes, covered := cover[name]
		if !covered {
			absent(t.F32)
			continue
		}
		kept := weights.NewTensor(weights.Float32, t.Shape...)
		absent(kept.F32)
		ix := weights.Index{name: axes}
		one(ix, name, kept, ix.Slice(single(name, t)).Must(name))
		copy(t.F32, kept.F32)
	}
	for _, t := range s.row.All() {
		part = part || slices.ContainsFunc(t.F32, missing)
	}
	return part
}

// one scatters a tensor.
func one(ix weights.Index, name string, whole, part weights.Tensor) {
	ix.Scatter(single(name, whole), single(name, part))
}

func single(name string, t weights.Tensor) weights.Set {
	s := weights.NewSet(1)
	s.Put(name, t)
	return s
}

func absent(x []float32) {
	nan := float32(math.NaN())
	for i := range x {
		x[i] = nan
	}
}

func missing(v float32) bool { return v != v }

// order sorts the rows by member.
func (s *Spool) order() {
	if s.sorted {
		return
	}
	slices.SortFunc(s.rows, func(a, b row) int {
		if a.member != b.member {
			return a.member - b.member
		}
		return a.order - b.order
	})
	s.sorted = true
}

// read reads coordinates lo, lo+1, … of row i, by member, into dst.
func (s *Spool) read(i, lo int, dst []float32, scratch []byte) error {
	b := scratch[:4*len(dst)]
	if _, err := s.file.ReadAt(b, s.rows[i].at+4*int64(lo)); err != nil {
		return fmt.Errorf("spool of results: row of %s: %w", s.rows[i].name, err)
	}
	for k := range dst {
		dst[k] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*k:]))
	}
	return nil
}
