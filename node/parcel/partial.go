package parcel

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/weights"
)

// Sums is the media type of a blob that holds a [Partial].
const Sums = "application/x-cohort-sums"

// Partial is what a relay hands in: the exact sums of results, and the messages of these results as their members signed them.
type Partial struct {
	Sums   map[string]map[string]*weights.Acc // by group and fold
	Leaves []Leaf
}

// Leaf is one result of a [Partial].
type Leaf struct {
	Message []byte // kind result, signed by the leaf
	Bytes   int64  // of the tensors that were added
	Refused string // why they were not
}

// partialMagic begins the blob; its last byte is the version.
const partialMagic = "cohort part\x00\x01"

// MaxLeaves bounds the results of one [Partial], and so the leaves of a relay.
const MaxLeaves = 256

// WriteTo writes the blob. Integers are u64, little-endian; a text or a binary form is its length and its bytes, a list its
// length and its elements:
//
//	magic
//	groups, sorted: name · sums, sorted: fold, sum (of weights.Acc)
//	leaves: message · bytes · why it was refused
func (p *Partial) WriteTo(w io.Writer) (int64, error) {
	e := &partialWriter{w: bufio.NewWriterSize(w, 1<<16)}
	e.raw([]byte(partialMagic))
	e.uint(uint64(len(p.Sums)))
	for _, group := range slices.Sorted(maps.Keys(p.Sums)) {
		e.text(group)
		sums := p.Sums[group]
		e.uint(uint64(len(sums)))
		for _, fold := range slices.Sorted(maps.Keys(sums)) {
			e.text(fold)
			e.uint(uint64(sums[fold].BinarySize()))
			if e.err == nil {
				var n int64
				n, e.err = sums[fold].WriteTo(e.w)
				e.n += n
			}
		}
	}
	e.uint(uint64(len(p.Leaves)))
	for _, l := range p.Leaves {
		e.text(string(l.Message))
		e.uint(uint64(l.Bytes))
		e.text(l.Refused)
	}
	if e.err == nil {
		e.err = e.w.Flush()
	}
	return e.n, e.err
}

type partialWriter struct {
	w   *bufio.Writer
	n   int64
	err error
}

func (e *partialWriter) raw(b []byte) {
	if e.err == nil {
		var n int
		n, e.err = e.w.Write(b)
		e.n += int64(n)
	}
}

func (e *partialWriter) uint(v uint64) { e.raw(binary.LittleEndian.AppendUint64(nil, v)) }

func (e *partialWriter) text(s string) {
	e.uint(uint64(len(s)))
	e.raw([]byte(s))
}

// UnmarshalBinary reads what WriteTo wrote. Anything else is an error: names out of order, sums that no results give, more than
// [MaxLeaves] leaves. No more is allocated than a small multiple of the bytes given.
func (p *Partial) UnmarshalBinary(b []byte) error {
	d := &partialReader{b: b}
	if string(d.take(len(partialMagic))) != partialMagic {
		return errors.New("not partial sums, or of another version")
	}
	out := Partial{Sums: map[string]map[string]*weights.Acc{}}
	last := ""
	for i := range d.count(2 * 8) {
		group := d.text()
		if i > 0 && group <= last {
			d.fail("group %q after %q", group, last)
		}
		last = group
		out.Sums[group] = d.sums()
	}
	n := d.count(3 * 8)
	if n > MaxLeaves {
		d.fail("%d leaves, at most %d", n, MaxLeaves)
		n = 0
	}
	for range n {
		l := Leaf{Message: d.bytes(), Bytes: d.int(), Refused: d.text()}
		if len(l.Message) > transport.MaxMessage || len(l.Refused) > maxReason {
			d.fail("a message of %d bytes, a reason of %d", len(l.Message), len(l.Refused))
		}
		out.Leaves = append(out.Leaves, l)
	}
	if d.err == nil && len(d.b) > 0 {
		d.fail("%d bytes too many", len(d.b))
	}
	if d.err != nil {
		return fmt.Errorf("partial sums: %w", d.err)
	}
	*p = out
	return nil
}

// maxReason bounds why a result was refused.
const maxReason = 4 << 10

// partialReader reads until the first error; from then on everything is empty.
type partialReader struct {
	b   []byte
	err error
}

func (d *partialReader) fail(format string, a ...any) {
	if d.err == nil {
		d.err, d.b = fmt.Errorf(format, a...), nil
	}
}

func (d *partialReader) take(n int) []byte {
	if n > len(d.b) {
		d.fail("they end too early")
		return nil
	}
	b := d.b[:n:n]
	d.b = d.b[n:]
	return b
}

func (d *partialReader) int() int64 {
	b := d.take(8)
	if b == nil {
		return 0
	}
	v := binary.LittleEndian.Uint64(b)
	if v > math.MaxInt64 {
		d.fail("number %d", v)
		return 0
	}
	return int64(v)
}

// count reads the length of a list whose elements take at least size bytes each.
func (d *partialReader) count(size int) int {
	n := d.int()
	if n > int64(len(d.b)/size) {
		d.fail("they end too early")
		return 0
	}
	return int(n)
}

func (d *partialReader) bytes() []byte { return d.take(d.count(1)) }
func (d *partialReader) text() string  { return string(d.bytes()) }

func (d *partialReader) sums() map[string]*weights.Acc {
	out, last := map[string]*weights.Acc{}, ""
	for i := range d.count(2 * 8) {
		fold := d.text()
		if i > 0 && fold <= last {
			d.fail("sum %q after %q", fold, last)
		}
		last = fold
		b := d.bytes()
		if d.err != nil {
			return nil
		}
		a := new(weights.Acc)
		if err := a.UnmarshalBinary(b); err != nil {
			d.fail("sum %q: %w", fold, err)
			return nil
		}
		out[fold] = a
	}
	return out
}

// ReadPartial reads the blob of a [Partial] from the store.
func ReadPartial(ctx context.Context, store blob.Store, ref transport.Ref) (*Partial, error) {
	b, err := readAll(ctx, store, transport.Tensors{Name: "sums", Ref: 1}, []transport.Ref{ref})
	if err != nil {
		return nil, err
	}
	p := &Partial{}
	return p, p.UnmarshalBinary(b)
}

// StorePartial writes a [Partial] as a blob.
func StorePartial(ctx context.Context, store blob.Store, p *Partial) (transport.Ref, error) {
	return write(ctx, store, Sums, func(w io.Writer) error { _, err := p.WriteTo(w); return err })
}

// Folds packs what a phase adds: it returns the folds if they fit the message, else the position of their blob.
func (p *Packer) Folds(ctx context.Context, folds []transport.Fold) ([]transport.Fold, int, error) {
	b, err := json.Marshal(folds)
	if err != nil || len(b) <= room {
		return folds, 0, err
	}
	ref, err := write(ctx, p.Store, JSON, func(w io.Writer) error { _, err := w.Write(b); return err })
	if err != nil {
		return nil, 0, fmt.Errorf("packing the layout of the sums: %w", err)
	}
	return nil, p.refer(ref), nil
}

// Folds unpacks what [Packer.Folds] packed.
func Folds(ctx context.Context, store blob.Store, f *transport.Folds, refs []transport.Ref) ([]transport.Fold, error) {
	if f.Ref == 0 {
		return f.Folds, nil
	}
	b, err := readAll(ctx, store, transport.Tensors{Name: "folds", Ref: f.Ref}, refs)
	if err != nil {
		return nil, err
	}
	var folds []transport.Fold
	if err := json.Unmarshal(b, &folds); err != nil {
		return nil, fmt.Errorf("layout of the sums: %w", err)
	}
	return folds, transport.CheckFolds(folds)
}

// readAll reads packed bytes into memory.
func readAll(ctx context.Context, store blob.Store, t transport.Tensors, refs []transport.Ref) ([]byte, error) {
	r, err := open(ctx, store, t, refs)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b := make([]byte, r.Size())
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("%q: %w", t.Name, err)
	}
	return b, nil
}
