package weights

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"unicode/utf8"
)

// accMagic begins the binary form of an [Acc]; its last byte is the version.
const accMagic = "cohort acc\x00\x01"

// MarshalBinary returns a as bytes. Sums of the same sets are the same bytes, in whatever order and grouping they were
// added; the order of the tensors is part of them. All integers are little-endian:
//
//	magic · counting u8 · weight u64 · tensors u64, then for each tensor
//	  name length u64, name · element type u8 (0) · rank u64, dimensions u64…
//	  bound 16 bytes · sums 16 bytes each
//	  if counting: 0 u8, the one count u64 of all coordinates, or 1 u8, a count u64 for each
//
// A sum is its low 64 bits before its high 64 bits.
func (a *Acc) MarshalBinary() ([]byte, error) {
	var b bytes.Buffer
	b.Grow(a.BinarySize())
	_, err := a.WriteTo(&b)
	return b.Bytes(), err
}

// BinarySize returns the length of what MarshalBinary returns.
func (a *Acc) BinarySize() int {
	size := len(accMagic) + 1 + 8 + 8
	for i, name := range a.names {
		t := &a.tensors[i]
		size += 8 + len(name) + 1 + 8 + 8*len(t.shape) + 16*(len(t.sum)+1)
		switch {
		case !a.counting:
		case t.equalCounts():
			size += 1 + 8
		default:
			size += 1 + 8*len(t.part)
		}
	}
	return size
}

// WriteTo writes what MarshalBinary returns, without making it a whole in memory.
func (a *Acc) WriteTo(w io.Writer) (int64, error) {
	e := accWriter{w: w}
	e.b = append(e.b, accMagic...)
	e.b = append(e.b, flagByte(a.counting))
	e.b = binary.LittleEndian.AppendUint64(e.b, a.weight)
	e.b = binary.LittleEndian.AppendUint64(e.b, uint64(len(a.names)))
	for i, name := range a.names {
		t := &a.tensors[i]
		e.b = appendLayout(e.b, name, t.shape, 0)
		e.b = appendFixed(e.b, t.bound)
		for _, f := range t.sum {
			e.b = appendFixed(e.b, f)
			e.spill()
		}
		if a.counting {
			t.writeCounts(&e)
		}
	}
	e.flush()
	return e.n, e.err
}

// accWriter gathers bytes and writes them by the piece, until the first error.
type accWriter struct {
	w   io.Writer
	b   []byte
	n   int64
	err error
}

func (e *accWriter) spill() {
	if len(e.b) >= chunk {
		e.flush()
	}
}

func (e *accWriter) flush() {
	if e.err == nil {
		var n int
		n, e.err = e.w.Write(e.b)
		e.n += int64(n)
	}
	e.b = e.b[:0]
}

func flagByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func appendFixed(b []byte, f fixed) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, f.lo), uint64(f.hi))
}

// equalCounts reports whether all coordinates have the same count.
func (t *accTensor) equalCounts() bool {
	for _, c := range t.part {
		if c != t.part[0] {
			return false
		}
	}
	return true
}

// writeCounts writes one count where all are equal, so that equal counts are equal bytes.
func (t *accTensor) writeCounts(e *accWriter) {
	if t.equalCounts() {
		var c uint64 // of an empty tensor
		if len(t.part) > 0 {
			c = t.whole + t.part[0]
		} else if len(t.sum) > 0 {
			c = t.whole
		}
		e.b = binary.LittleEndian.AppendUint64(append(e.b, 0), c)
		return
	}
	e.b = append(e.b, 1)
	for _, c := range t.part {
		e.b = binary.LittleEndian.AppendUint64(e.b, t.whole+c)
		e.spill()
	}
}

// UnmarshalBinary replaces a by what MarshalBinary wrote. Anything else, also what no sequence of additions gives (sums
// beyond their bound, counts beyond the weight), is an error that leaves a as it was; no more is allocated than a small
// multiple of the bytes given.
func (a *Acc) UnmarshalBinary(b []byte) error {
	d := decoder{b: b}
	got, err := d.acc()
	if err == nil && d.short {
		err = fmt.Errorf("%d bytes are too few", len(b))
	}
	if err == nil && len(d.b) > 0 {
		err = fmt.Errorf("%d bytes too many", len(d.b))
	}
	if err != nil {
		return fmt.Errorf("decode sum: %w", err)
	}
	*a = *got
	return nil
}

// decoder reads a sum. Once the bytes have come to an end, short is set and everything reads as 0.
type decoder struct {
	b     []byte
	short bool
}

func (d *decoder) take(n int) []byte {
	if n > len(d.b) {
		d.short, d.b = true, nil
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if b := d.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// count reads the number of things that take at least size bytes each.
func (d *decoder) count(size int) int {
	n := d.uint64()
	if hi, lo := bits.Mul64(n, uint64(size)); hi != 0 || lo > uint64(len(d.b)) {
		d.short, d.b = true, nil
		return 0
	}
	return int(n)
}

func (d *decoder) acc() (*Acc, error) {
	if string(d.take(len(accMagic))) != accMagic {
		return nil, errors.New("not a sum, or of another version")
	}
	c := d.byte()
	if c > 1 {
		return nil, fmt.Errorf("counting is %d", c)
	}
	a := &Acc{at: make(map[string]int), counting: c == 1, weight: d.uint64()}
	if a.weight >= weightLimit {
		return nil, fmt.Errorf("weight %d", a.weight)
	}
	for range d.count(8 + 1 + 8 + 16) {
		name := string(d.take(d.count(1)))
		if _, ok := a.at[name]; ok && !d.short {
			return nil, fmt.Errorf("tensor %s twice", quote(name))
		}
		t, err := d.tensor(a)
		if err != nil {
			return nil, fmt.Errorf("tensor %s: %w", quote(name), err)
		}
		if d.short {
			break
		}
		if !utf8.ValidString(name) {
			return nil, fmt.Errorf("name %s is not UTF-8", quote(name))
		}
		a.put(name, t)
	}
	return a, nil
}

func (d *decoder) tensor(a *Acc) (t accTensor, err error) {
	if typ := d.byte(); typ != 0 {
		return t, fmt.Errorf("element type %d", typ)
	}
	rank := d.count(8)
	if rank > maxRank {
		return t, fmt.Errorf("%d axes, the limit is %d", rank, maxRank)
	}
	shape := make([]int64, rank)
	for i := range shape {
		if shape[i] = int64(d.uint64()); shape[i] < 0 {
			return t, fmt.Errorf("dimension %d", shape[i])
		}
	}
	if t.shape, err = dims(shape); err != nil || d.short {
		return t, err
	}
	if t.bound = d.fixed(); t.bound.hi < 0 || a.weight == 0 && t.bound != (fixed{}) {
		return t, fmt.Errorf("impossible bound %g", t.bound.float())
	}
	n := elements(t.shape)
	if n > len(d.b)/16 {
		d.short, d.b = true, nil
		return t, nil
	}
	t.sum = make([]fixed, n)
	for i := range t.sum {
		if t.sum[i] = d.fixed(); t.bound.less(t.sum[i].abs()) {
			return t, fmt.Errorf("sum %g at %v exceeds its bound %g", t.sum[i].float(), coordinate(t.shape, i), t.bound.float())
		}
	}
	if !a.counting {
		return t, nil
	}
	return t, d.counts(&t, a.weight)
}

func (d *decoder) counts(t *accTensor, weight uint64) error {
	switch each := d.byte(); each {
	case 0:
		t.whole = d.uint64()
		if t.whole > weight {
			return fmt.Errorf("count %d exceeds the weight %d", t.whole, weight)
		}
	case 1:
		if len(t.sum) > len(d.b)/8 {
			d.short, d.b = true, nil
			return nil
		}
		t.part = make([]uint64, len(t.sum))
		equal := true
		for i := range t.part {
			if t.part[i] = d.uint64(); t.part[i] > weight {
				return fmt.Errorf("count %d at %v exceeds the weight %d", t.part[i], coordinate(t.shape, i), weight)
			}
			equal = equal && t.part[i] == t.part[0]
		}
		if equal {
			return errors.New("equal counts one by one")
		}
	default:
		return fmt.Errorf("counts of kind %d", each)
	}
	return nil
}

func (d *decoder) fixed() fixed {
	lo := d.uint64()
	return fixed{lo, int64(d.uint64())}
}

// abs returns |f| as an unsigned number.
func (f fixed) abs() fixed {
	if f.hi < 0 {
		return f.neg()
	}
	return f
}

// less compares unsigned numbers.
func (f fixed) less(g fixed) bool {
	return uint64(f.hi) < uint64(g.hi) || f.hi == g.hi && f.lo < g.lo
}
