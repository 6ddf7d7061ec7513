package dataset

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

// IDX is an array in LeCun's format: two zero bytes, a type byte, the number of dimensions, the dimensions as big-endian
// 32-bit numbers, then the values, big-endian and row-major. Exactly one of U8, I32 and F32 holds the values.
type IDX struct {
	Dims []int
	U8   []uint8   // type 0x08
	I32  []int32   // types 0x09 (int8), 0x0B (int16), 0x0C (int32), widened
	F32  []float32 // types 0x0D (float32), 0x0E (float64), narrowed
}

// Len returns the number of values.
func (x *IDX) Len() int { return max(len(x.U8), len(x.I32), len(x.F32)) }

// ReadIDX reads one array that must fill r to its end. Name stands in the errors, with the byte.
func ReadIDX(r io.Reader, name string) (*IDX, error) { return readIDX(&source{r: r, name: name}) }

func readIDXFile(path string) (*IDX, error) {
	s, err := open(path)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return readIDX(s)
}

func readIDX(s *source) (*IDX, error) {
	var head [4]byte
	if err := s.full(head[:], "the IDX header"); err != nil {
		return nil, err
	}
	if head[0] != 0 || head[1] != 0 {
		return nil, s.errf("not an IDX file: it begins with % x, not with 00 00", head[:2])
	}
	width := map[byte]int64{0x08: 1, 0x09: 1, 0x0B: 2, 0x0C: 4, 0x0D: 4, 0x0E: 8}[head[2]]
	if width == 0 {
		return nil, s.errf("unknown IDX type 0x%02x", head[2])
	}
	if head[3] == 0 || head[3] > 8 {
		return nil, s.errf("%d dimensions in an IDX file; 1 to 8 are supported", head[3])
	}
	x := &IDX{Dims: make([]int, head[3])}
	count := int64(1)
	for i := range x.Dims {
		var b [4]byte
		if err := s.full(b[:], "the IDX dimensions"); err != nil {
			return nil, err
		}
		d := int64(binary.BigEndian.Uint32(b[:]))
		x.Dims[i] = int(d)
		if d > 0 && count > maxBytes/width/d {
			return nil, s.errf("the IDX dimensions %v ask for more than %d bytes", x.Dims[:i+1], int64(maxBytes))
		}
		count *= d
	}
	raw, err := s.bytes(count*width, "the IDX values")
	if err != nil {
		return nil, err
	}
	if err := s.end(); err != nil {
		return nil, err
	}
	switch head[2] {
	case 0x08:
		x.U8 = raw
	case 0x09:
		x.I32 = make([]int32, count)
		for i := range x.I32 {
			x.I32[i] = int32(int8(raw[i]))
		}
	case 0x0B:
		x.I32 = make([]int32, count)
		for i := range x.I32 {
			x.I32[i] = int32(int16(binary.BigEndian.Uint16(raw[2*i:])))
		}
	case 0x0C:
		x.I32 = make([]int32, count)
		for i := range x.I32 {
			x.I32[i] = int32(binary.BigEndian.Uint32(raw[4*i:]))
		}
	case 0x0D:
		x.F32 = make([]float32, count)
		for i := range x.F32 {
			x.F32[i] = math.Float32frombits(binary.BigEndian.Uint32(raw[4*i:]))
		}
	case 0x0E:
		x.F32 = make([]float32, count)
		for i := range x.F32 {
			x.F32[i] = float32(math.Float64frombits(binary.BigEndian.Uint64(raw[8*i:])))
		}
	}
	return x, nil
}

// Write writes x in IDX format: bytes as 0x08, int32 as 0x0C, float32 as 0x0D.
func (x *IDX) Write(w io.Writer) error {
	n := 1
	for _, d := range x.Dims {
		n *= d
	}
	if n != x.Len() || len(x.Dims) == 0 || len(x.Dims) > 8 {
		panic(fmt.Sprintf("dataset: IDX of dimensions %v holds %d values", x.Dims, x.Len()))
	}
	kind := byte(0x08)
	switch {
	case x.I32 != nil:
		kind = 0x0C
	case x.F32 != nil:
		kind = 0x0D
	}
	head := []byte{0, 0, kind, byte(len(x.Dims))}
	for _, d := range x.Dims {
		head = binary.BigEndian.AppendUint32(head, uint32(d))
	}
	if _, err := w.Write(head); err != nil {
		return err
	}
	if kind == 0x08 {
		_, err := w.Write(x.U8)
		return err
	}
	buf := make([]byte, 0, 4096)
	for i := range n {
		if x.I32 != nil {
			buf = binary.BigEndian.AppendUint32(buf, uint32(x.I32[i]))
		} else {
			buf = binary.BigEndian.AppendUint32(buf, math.Float32bits(x.F32[i]))
		}
		if len(buf) == cap(buf) || i == n-1 {
			if _, err := w.Write(buf); err != nil {
				return err
			}
			buf = buf[:0]
		}
	}
	return nil
}

// readIDXPair reads images (or features, or tokens) and labels that belong together.
func readIDXPair(name, inputs, labels string) (*Examples, error) {
	x, err := readIDXFile(inputs)
	if err != nil {
		return nil, err
	}
	if x.Len() == 0 {
		return nil, fmt.Errorf("%s: no examples (dimensions %v)", inputs, x.Dims)
	}
	e := &Examples{Name: name, U8: x.U8, F32: x.F32, Tok: x.I32}
	switch len(x.Dims) {
	case 1:
		e.Shape = []int{1}
	case 3:
		e.Shape = []int{x.Dims[1], x.Dims[2], 1}
	default:
		e.Shape = x.Dims[1:]
	}
	if labels == "" {
		return e, nil
	}
	y, err := readIDXFile(labels)
	if err != nil {
		return nil, err
	}
	if len(y.Dims) != 1 || y.Dims[0] != x.Dims[0] {
		return nil, fmt.Errorf("%s: dimensions %v do not give one label to each of the %d examples of %s", labels, y.Dims, x.Dims[0], inputs)
	}
	if y.F32 != nil {
		e.Targets = y.F32
		return e, nil
	}
	e.Labels = y.I32
	if y.U8 != nil {
		e.Labels = make([]int32, len(y.U8))
		for i, v := range y.U8 {
			e.Labels[i] = int32(v)
		}
	}
	return e, nil
}
