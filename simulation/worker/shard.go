package worker

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/bits"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/dataset"
)

// form is what examples are like, without their rows.
type form struct {
	Name    string    `json:"name"`
	Shape   []int     `json:"shape"`
	Classes []string  `json:"classes,omitempty"`
	Mean    []float32 `json:"mean,omitempty"`
	Std     []float32 `json:"std,omitempty"`
	Input   string    `json:"input"` // bytes, numbers or tokens
	Labels  bool      `json:"labels,omitempty"`
	Targets bool      `json:"targets,omitempty"`
	// Ratings says what the pairs of ratings are, without what is only for people.
	Ratings *dataset.Ratings `json:"ratings,omitempty"`
}

func formOf(e *dataset.Examples) form {
	f := form{Name: e.Name, Shape: e.Shape, Classes: e.Classes, Mean: e.Mean, Std: e.Std, Input: "numbers", Labels: e.Labels != nil, Targets: e.Targets != nil}
	switch {
	case e.U8 != nil:
		f.Input = "bytes"
	case e.Tok != nil:
		f.Input = "tokens"
	}
	if r := e.Ratings; r != nil {
		f.Ratings = &dataset.Ratings{Users: r.Users, Items: r.Items, Low: r.Low, High: r.High}
	}
	return f
}

// check returns an error unless there can be examples of the form.
func (f form) check() error {
	if _, err := f.stride(); err != nil {
		return err
	}
	return f.empty().Validate()
}

// stride returns the bytes of one example.
func (f form) stride() (uint64, error) {
	if len(f.Shape) == 0 {
		return 0, errors.New("examples without a shape")
	}
	n := uint64(1)
	for _, d := range f.Shape {
		hi, lo := bits.Mul64(n, uint64(d))
		if d < 1 || hi != 0 || lo > 1<<40 {
			return 0, fmt.Errorf("examples of shape %v", f.Shape)
		}
		n = lo
	}
	switch f.Input {
	case "bytes":
	case "numbers", "tokens":
		n *= 4
	default:
		return 0, fmt.Errorf("examples of %.40q", f.Input)
	}
	if f.Labels {
		n += 4
	}
	if f.Targets {
		n += 4
	}
	return n, nil
}

// empty returns no examples of the form.
func (f form) empty() *dataset.Examples {
	e := &dataset.Examples{Name: f.Name, Shape: f.Shape, Classes: f.Classes, Mean: f.Mean, Std: f.Std, Ratings: f.Ratings}
	switch f.Input {
	case "bytes":
		e.U8 = []uint8{}
	case "tokens":
		e.Tok = []int32{}
	default:
		e.F32 = []float32{}
	}
	if f.Labels {
		e.Labels = []int32{}
	}
	if f.Targets {
		e.Targets = []float32{}
	}
	return e
}

func (f form) encode() ([]byte, error) { return json.Marshal(f) }

func decodeForm(b []byte) (form, error) {
	var f form
	if err := json.Unmarshal(b, &f); err != nil {
		return f, fmt.Errorf("form of examples: %w", err)
	}
	return f, f.check()
}

// encodeRows returns the rows of examples: the hash of their form, then, all little-endian, how many there are (8 bytes), the
// inputs, the labels, the targets.
func encodeRows(e *dataset.Examples, form blob.Hash) []byte {
	b := make([]byte, 0, len(form)+8+len(e.U8)+4*(len(e.F32)+len(e.Tok)+len(e.Labels)+len(e.Targets)))
	b = append(b, form[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(e.Len()))
	b = append(b, e.U8...)
	for _, v := range e.F32 {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	for _, x := range [][]int32{e.Tok, e.Labels} {
		for _, v := range x {
			b = binary.LittleEndian.AppendUint32(b, uint32(v))
		}
	}
	for _, v := range e.Targets {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

// rows are what is left of encoded rows while they are decoded.
type rows []byte

// decodeRows returns the examples of a form whose hash is at.
func decodeRows(b rows, at blob.Hash, f form) (*dataset.Examples, error) {
	stride, err := f.stride()
	if err != nil {
		return nil, err
	}
	if len(b) < len(at)+8 || blob.Hash(b[:len(at)]) != at {
		return nil, errors.New("rows that are not of the form that is said")
	}
	b = b[len(at):]
	n := binary.LittleEndian.Uint64(b)
	b = b[8:]
	if hi, lo := bits.Mul64(n, stride); hi != 0 || lo != uint64(len(b)) {
		return nil, fmt.Errorf("%d rows of %d bytes in %d", n, stride, len(b))
	}
	e := f.empty()
	values := int(n) * e.Size()
	switch f.Input {
	case "bytes":
		e.U8 = append(e.U8, b[:values]...)
		b = b[values:]
	case "tokens":
		e.Tok = b.ints(values)
	default:
		e.F32 = b.floats(values)
	}
	if f.Labels {
		e.Labels = b.ints(int(n))
	}
	if f.Targets {
		e.Targets = b.floats(int(n))
	}
	return e, e.Validate()
}

// ints takes n numbers off.
func (b *rows) ints(n int) []int32 {
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(binary.LittleEndian.Uint32((*b)[4*i:]))
	}
	*b = (*b)[4*n:]
	return out
}

// floats takes n numbers off.
func (b *rows) floats(n int) []float32 {
	out := make([]float32, n)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32((*b)[4*i:]))
	}
	*b = (*b)[4*n:]
	return out
}
