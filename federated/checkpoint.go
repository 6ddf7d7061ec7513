package federated

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/weights"
)

// foldMagic begins the checkpoint of a phase; its last byte is the version.
const foldMagic = "cohort fold\x00\x02"

// encode writes the checkpoint of a phase: everything that a folding holds. Integers are u64, little-endian; a text or a
// binary form is its length and its bytes, a list its length and its elements:
//
//	magic
//	round · phase · base version · unit · asked · stale
//	groups: name · weight · results · totals: fold, sum (of weights.Acc) · scalars: name, sum · attachments
//	traffic: tag · members · down · up
//	folded: member · base
//	abstained: member
//	failed: name · member · round · phase · reason
//	collected: members · scalars: name · the values, f64 each
//	gathered: member · bytes
//	orders: ID
//	SHA-256 of all that
func (f *folding) encode(w io.Writer, opened PhaseOpened) error {
	h := sha256.New()
	e := &foldWriter{w: io.MultiWriter(w, h)}
	e.bytes([]byte(foldMagic))
	e.int(opened.Round)
	e.text(opened.Phase)
	e.int(opened.Base)
	e.uint64(f.unit)
	e.int(f.asked)
	e.int(f.stale)
	e.int(len(f.groups))
	for _, name := range slices.Sorted(maps.Keys(f.groups)) {
		g := f.groups[name]
		e.text(name)
		e.uint64(g.weight)
		e.int(g.n)
		e.sums(g.total)
		e.sums(g.scalars)
		e.attachments(g.attach)
	}
	traffic := f.traffic()
	e.int(len(traffic))
	for _, t := range traffic {
		e.text(t.Tag)
		e.int(t.Members)
		e.uint64(uint64(t.Down))
		e.uint64(uint64(t.Up))
	}
	e.int(len(f.folded))
	for _, x := range f.folded {
		e.int(x.Member)
		e.int(x.Base)
	}
	e.ints(f.abstained)
	e.int(len(f.failed))
	for _, x := range f.failed {
		e.text(x.Member)
		e.int(x.Index)
		e.int(x.Round)
		e.text(x.Phase)
		e.text(x.Reason)
	}
	e.int(len(f.each.members))
	for _, m := range f.each.members {
		e.int(int(m))
	}
	e.int(len(f.each.names))
	for k, name := range f.each.names {
		e.text(name)
		for _, v := range f.each.columns[k] {
			e.uint64(math.Float64bits(v))
		}
	}
	e.int(len(f.gathered))
	for _, x := range f.gathered {
		e.int(x.Member)
		e.text(string(x.Attached))
	}
	e.ints(f.orders)
	if e.err != nil {
		return e.err
	}
	_, err := w.Write(h.Sum(nil))
	return err
}

// foldWriter writes until the first error.
type foldWriter struct {
	w   io.Writer
	b   [8]byte
	err error
}

func (e *foldWriter) bytes(b []byte) {
	if e.err == nil {
		_, e.err = e.w.Write(b)
	}
}

func (e *foldWriter) uint64(v uint64) {
	binary.LittleEndian.PutUint64(e.b[:], v)
	e.bytes(e.b[:])
}

func (e *foldWriter) int(v int) { e.uint64(uint64(v)) }

func (e *foldWriter) ints(v []int) {
	e.int(len(v))
	for _, x := range v {
		e.int(x)
	}
}

func (e *foldWriter) text(s string) {
	e.int(len(s))
	e.bytes([]byte(s))
}

// attachments writes the sum of attachments; nil is empty.
func (e *foldWriter) attachments(a Attachments) {
	var b []byte
	if a != nil && e.err == nil {
		b, e.err = a.MarshalBinary()
	}
	e.int(len(b))
	e.bytes(b)
}

func (e *foldWriter) sums(sums map[string]*weights.Acc) {
	e.int(len(sums))
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		e.text(name)
		e.int(sums[name].BinarySize())
		if e.err == nil {
			_, e.err = sums[name].WriteTo(e.w)
		}
	}
}

// decodeFold reads what encode wrote about the phase that was opened: p, with the exponent of its discount. Anything else,
// be it damaged, of another phase or impossible, is an error. Besides one model's sums no more is allocated than a small
// multiple of the bytes given.
func decodeFold(b []byte, opened PhaseOpened, p Phase, discount float64) (*folding, error) {
	if !bytes.HasPrefix(b, []byte(foldMagic)) {
		return nil, errors.New("not a checkpoint of a phase, or of another version")
	}
	end := len(b) - sha256.Size
	if end < len(foldMagic) {
		return nil, fmt.Errorf("damaged: %d bytes are too few", len(b))
	}
	if h := sha256.Sum256(b[:end]); !bytes.Equal(h[:], b[end:]) {
		return nil, errors.New("damaged: its SHA-256 is not the one at its end")
	}
	f := newFolding(p, discount)
	f.noting = true
	d := &foldReader{b: b[len(foldMagic):end]}
	round, phase, base := d.int(), d.text(), d.int()
	if d.err == nil && (round != opened.Round || phase != opened.Phase || base != opened.Base) {
		return nil, fmt.Errorf("it is of phase %q of round %d from version %d, not of %q of round %d from version %d",
			phase, round, base, opened.Phase, opened.Round, opened.Base)
	}
	if unit := d.uint64(); d.err == nil && unit != f.unit {
		return nil, fmt.Errorf("weights count %d times, in this run %d times: it has another staleness or discount", unit, f.unit)
	}
	f.asked, f.stale = d.int(), d.int()
	d.groups(f)
	d.rest(f)
	if d.err == nil && len(d.b) > 0 {
		d.fail("%d bytes too many", len(d.b))
	}
	if d.err == nil {
		d.err = f.plausible()
	}
	if d.err != nil {
		return nil, fmt.Errorf("damaged: %w", d.err)
	}
	return f, nil
}

// plausible returns an error for what no sequence of answers gives.
func (f *folding) plausible() error {
	n := 0
	for _, g := range f.groups {
		n += g.n
	}
	heard := f.heard()
	once := make(map[int]bool, len(f.orders))
	for _, id := range f.orders {
		once[id] = true
	}
	switch {
	case n != len(f.folded):
		return fmt.Errorf("%d results in groups, %d were folded", n, len(f.folded))
	case len(f.orders) != heard || len(once) != heard:
		return fmt.Errorf("%d orders, and what became of %d", len(once), heard)
	case f.asked < heard || f.stale > len(f.failed):
		return fmt.Errorf("%d of %d were heard of, %d given up at the opening", heard, f.asked, f.stale)
	case f.phase.Gather && len(f.gathered) != len(f.folded) || !f.phase.Gather && len(f.gathered) > 0:
		return fmt.Errorf("attachments of %d members gathered, %d were folded", len(f.gathered), len(f.folded))
	case len(f.each.names) > 0 && len(f.each.members) != len(f.folded):
		return fmt.Errorf("scalars of %d members collected, %d were folded", len(f.each.members), len(f.folded))
	}
	return nil
}

// foldReader reads until the first error; from then on everything is 0.
type foldReader struct {
	b   []byte
	err error
}

func (d *foldReader) fail(format string, a ...any) {
	if d.err == nil {
		d.err, d.b = fmt.Errorf(format, a...), nil
	}
}

func (d *foldReader) take(n int) []byte {
	if n > len(d.b) {
		d.fail("it ends too early")
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *foldReader) uint64() uint64 {
	if b := d.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// int reads a number that is not negative.
func (d *foldReader) int() int {
	v := d.uint64()
	if v > math.MaxInt {
		d.fail("number %d", v)
		return 0
	}
	return int(v)
}

// count reads the length of a list whose elements take at least size bytes each.
func (d *foldReader) count(size int) int {
	n := d.int()
	if n > len(d.b)/size {
		d.fail("it ends too early")
		return 0
	}
	return n
}

func (d *foldReader) ints() []int {
	out := make([]int, d.count(8))
	for i := range out {
		out[i] = d.int()
	}
	return out
}

func (d *foldReader) text() string { return string(d.take(d.count(1))) }

func (d *foldReader) groups(f *folding) {
	for range d.count(6 * 8) {
		name := d.text()
		if _, ok := f.groups[name]; ok {
			d.fail("group %q twice", name)
			return
		}
		g := &groupSum{total: map[string]*weights.Acc{}, scalars: map[string]*weights.Acc{}, weight: d.uint64(), n: d.int()}
		total := d.sums()
		scalars := d.sums()
		attached := d.take(d.count(1))
		if d.err != nil {
			return
		}
		switch {
		case f.phase.Attachments != nil:
			g.attach = f.phase.Attachments()
			if err := g.attach.UnmarshalBinary(attached); err != nil {
				d.fail("attachments of group %q: %w", name, err)
				return
			}
		case len(attached) > 0:
			d.fail("attachments of group %q, which the phase does not add", name)
			return
		}
		if len(total) != len(f.phase.Folds) {
			d.fail("group %q has %d sums, phase %s has %d", name, len(total), f.phase.Name, len(f.phase.Folds))
			return
		}
		for _, fold := range f.phase.Folds {
			g.total[fold.Name] = d.like(total[fold.Name], fold.Like, fold.Counts, fold.Name)
		}
		for k, a := range scalars {
			g.scalars[k] = d.like(a, number(0), false, k)
		}
		f.groups[name] = g
	}
}

// sums reads what foldWriter.sums wrote.
func (d *foldReader) sums() map[string]*weights.Acc {
	n := d.count(2 * 8)
	out := make(map[string]*weights.Acc, n)
	for range n {
		name := d.text()
		a := new(weights.Acc)
		b := d.take(d.count(1))
		if d.err != nil {
			return nil
		}
		if err := a.UnmarshalBinary(b); err != nil {
			d.fail("sum %q: %w", name, err)
			return nil
		}
		if _, ok := out[name]; ok {
			d.fail("sum %q twice", name)
			return nil
		}
		out[name] = a
	}
	return out
}

// like returns a as a sum of sets like those that are added to it.
func (d *foldReader) like(a *weights.Acc, like weights.Set, counts bool, name string) *weights.Acc {
	if a == nil {
		d.fail("sum %q is missing", name)
		return nil
	}
	sum := weights.NewAcc(like, counts)
	if err := sum.Merge(a); err != nil {
		d.fail("sum %q: %w", name, err)
	}
	return sum
}

// rest reads everything after the groups.
func (d *foldReader) rest(f *folding) {
	for range d.count(4 * 8) {
		t := &Traffic{Tag: d.text(), Members: d.int(), Down: int64(d.int()), Up: int64(d.int())}
		if _, ok := f.moved[t.Tag]; ok {
			d.fail("traffic of %q twice", t.Tag)
		}
		f.moved[t.Tag] = t
	}
	f.folded = make([]Folded, d.count(2*8))
	for i := range f.folded {
		f.folded[i] = Folded{d.int(), d.int()}
	}
	f.abstained = d.ints()
	f.failed = make([]Failure, d.count(5*8))
	for i := range f.failed {
		f.failed[i] = Failure{Member: d.text(), Index: d.int(), Round: d.int(), Phase: d.text(), Reason: d.text()}
	}
	d.each(&f.each)
	for range d.count(2 * 8) {
		f.gathered = append(f.gathered, Gathered{d.int(), bytes.Clone(d.take(d.count(1)))})
	}
	f.orders = d.ints()
}

func (d *foldReader) each(e *eachTable) {
	for range d.count(8) {
		m := d.int()
		if m > math.MaxInt32 {
			d.fail("member %d", m)
		}
		e.members = append(e.members, int32(m))
	}
	if n := d.int(); n != len(e.names) {
		d.fail("%d scalars collected, phase collects %d", n, len(e.names))
		return
	}
	for k, want := range e.names {
		if name := d.text(); name != want {
			d.fail("scalar %q collected in place of %q", name, want)
			return
		}
		e.columns[k] = make([]float64, 0, min(len(e.members), len(d.b)/8))
		for range e.members {
			e.columns[k] = append(e.columns[k], math.Float64frombits(d.uint64()))
		}
	}
}
