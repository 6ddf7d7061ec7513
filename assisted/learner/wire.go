package learner

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"
)

// The binary form of a model is magic, the kind of model as a string, then its fields in their order. Integers are
// unsigned varints, floats are 8 bytes or, of networks, 4, little-endian; strings and slices have their length before them, matrices their
// rows and columns. The last byte of the magic is the version of the whole format.
var magic = []byte("CLM\x02")

type writer struct{ b []byte }

func newWriter(kind string) *writer {
	w := &writer{b: bytes.Clone(magic)}
	w.text(kind)
	return w
}

func (w *writer) int(v int)       { w.b = binary.AppendUvarint(w.b, uint64(v)) }
func (w *writer) float(v float64) { w.b = binary.LittleEndian.AppendUint64(w.b, math.Float64bits(v)) }
func (w *writer) text(s string)   { w.int(len(s)); w.b = append(w.b, s...) }

func (w *writer) flag(v bool) {
	w.int(map[bool]int{true: 1}[v])
}

func (w *writer) floats(v []float64) {
	w.int(len(v))
	for _, x := range v {
		w.float(x)
	}
}

func (w *writer) singles(v []float32) {
	for _, x := range v {
		w.b = binary.LittleEndian.AppendUint32(w.b, math.Float32bits(x))
	}
}

func (w *writer) ints(v []int) {
	w.int(len(v))
	for _, x := range v {
		w.int(x)
	}
}

func (w *writer) matrix(m *mat.Dense) {
	r, c := m.Dims()
	w.int(r)
	w.int(c)
	for i := range r {
		for _, x := range m.RawRowView(i) {
			w.float(x)
		}
	}
}

// reader reads what a writer wrote. After the first error everything that it returns is zero; nothing that it allocates is
// larger than the bytes that are there.
type reader struct {
	b   []byte
	err error
}

var errShort = errors.New("the bytes end too early")

// open reads the head of a model.
func open(b []byte) (*reader, string, error) {
	rest, ok := bytes.CutPrefix(b, magic[:3])
	if !ok || len(rest) == 0 {
		return nil, "", errors.New("these bytes are not a model")
	}
	if rest[0] != magic[3] {
		return nil, "", fmt.Errorf("a model of format %d, expected %d: it was written by another version", rest[0], magic[3])
	}
	r := &reader{b: rest[1:]}
	kind := r.text()
	return r, kind, r.err
}

// close returns the first error, or one if bytes are left.
func (r *reader) close() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail(fmt.Errorf("%d bytes too many", len(r.b)))
	}
	return r.err
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err, r.b = err, nil
	}
}

// check fails with a message unless ok.
func (r *reader) check(ok bool, format string, args ...any) {
	if !ok {
		r.fail(fmt.Errorf(format, args...))
	}
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.fail(errShort)
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

// int returns a number of 31 bits.
func (r *reader) int() int {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail(errShort)
		return 0
	}
	r.b = r.b[n:]
	if v > math.MaxInt32 {
		r.fail(fmt.Errorf("%d is no size that a model has", v))
		return 0
	}
	return int(v)
}

// length returns the length of what has size bytes or more an element.
func (r *reader) length(size int) int {
	n := r.int()
	if n > len(r.b)/size {
		r.fail(errShort)
		return 0
	}
	return n
}

func (r *reader) flag() bool {
	v := r.int()
	r.check(v <= 1, "%d is neither yes nor no", v)
	return v == 1
}

func (r *reader) text() string { return string(r.take(r.length(1))) }

// float returns a finite number.
func (r *reader) float() float64 {
	b := r.take(8)
	if r.err != nil {
		return 0
	}
	v := math.Float64frombits(binary.LittleEndian.Uint64(b))
	r.check(!math.IsNaN(v) && !math.IsInf(v, 0), "%v among the numbers of a model", v)
	return v
}

func (r *reader) floats() []float64 {
	v := make([]float64, r.length(8))
	for i := range v {
		v[i] = r.float()
	}
	return v
}

// singles returns n finite numbers of 4 bytes.
func (r *reader) singles(n int) []float32 {
	b := r.take(4 * n)
	v := make([]float32, len(b)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		r.check(v[i]-v[i] == 0, "%v among the numbers of a model", v[i])
	}
	return v
}

func (r *reader) ints() []int {
	v := make([]int, r.length(1))
	for i := range v {
		v[i] = r.int()
	}
	return v
}

// matrix returns a matrix of finite numbers, an empty one if a dimension is 0.
func (r *reader) matrix() *mat.Dense {
	rows, columns := r.int(), r.int()
	if rows == 0 || columns == 0 {
		return new(mat.Dense)
	}
	if rows > len(r.b)/8/columns {
		r.fail(errShort)
		return new(mat.Dense)
	}
	v := make([]float64, rows*columns)
	for i := range v {
		v[i] = r.float()
	}
	return mat.NewDense(rows, columns, v)
}
