package weights

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
)

// kind is an element type of a file.
type kind struct {
	name string
	size int
	wide DType // what it is read as
}

// kindOf returns the element type of that name. The types of 8 and fewer bits that are not integers, and complex numbers,
// are not read.
func kindOf(name string) (kind, bool) {
	switch name {
	case "F32":
		return kind{name, 4, Float32}, true
	case "F16", "BF16":
		return kind{name, 2, Float32}, true
	case "F64", "I64", "U64":
		return kind{name, 8, Float64}, true
	case "I32", "U32":
		return kind{name, 4, Float64}, true
	case "I16", "U16":
		return kind{name, 2, Float64}, true
	case "I8", "U8", "BOOL":
		return kind{name, 1, Float64}, true
	}
	return kind{}, false
}

// decode reads e's elements from r through buf. If the file is known to hold them (trusted) the tensor is allocated at
// once, else it grows with what arrives. Elements that become float32 go to mem if it has room for all.
func (e entry) decode(r io.Reader, buf []byte, trusted bool, mem []float32) (Tensor, error) {
	n := e.count()
	room := n
	if !trusted {
		room = min(n, chunk)
	}
	t := Tensor{Shape: slices.Clone(e.shape)}
	switch {
	case e.kind.wide == Float64:
		t.F64 = make([]float64, 0, room)
	case mem != nil && cap(mem) >= n:
		t.F32 = mem[:0:n]
	default:
		t.F32 = make([]float32, 0, room)
	}
	for done := 0; done < n; {
		k := min(n-done, len(buf)/e.kind.size)
		b := buf[:k*e.kind.size]
		if got, err := io.ReadFull(r, b); err != nil {
			if !eof(err) {
				return Tensor{}, fmt.Errorf("tensor %s: read: %w", quote(e.name), err)
			}
			return Tensor{}, fmt.Errorf("tensor %s: truncated: data end after %d of %d bytes",
				quote(e.name), done*e.kind.size+got, e.end-e.begin)
		}
		var bad int
		if e.kind.wide == Float64 {
			t.F64 = grow(t.F64, k, n)
			bad = widen64(t.F64[done:], b, e.kind.name)
		} else {
			t.F32 = grow(t.F32, k, n)
			widen32(t.F32[done:], b, e.kind.name)
			bad = -1
		}
		if bad >= 0 {
			what := "an integer beyond ±2⁵³, which float64 may not hold"
			if e.kind.name == "BOOL" {
				what = "a byte that is neither 0 nor 1"
			}
			return Tensor{}, fmt.Errorf("tensor %s: %s holds %s, at %v", quote(e.name), e.kind.name, what, coordinate(e.shape, done+bad))
		}
		done += k
	}
	return t, nil
}

// grow lengthens x by k elements, at least doubling the capacity where it must, to at most n.
func grow[F float32 | float64](x []F, k, n int) []F {
	if len(x)+k <= cap(x) {
		return x[:len(x)+k]
	}
	y := make([]F, len(x)+k, min(n, max(len(x)+k, 2*cap(x))))
	copy(y, x)
	return y
}

// widen32 decodes the elements of b, of the named type, into dst.
func widen32(dst []float32, b []byte, kind string) {
	switch kind {
	case "F32":
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		}
	case "BF16":
		for i := range dst {
			dst[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(b[2*i:])) << 16)
		}
	case "F16":
		for i := range dst {
			dst[i] = half(binary.LittleEndian.Uint16(b[2*i:]))
		}
	}
}

// half widens an IEEE 754 binary16 number.
func half(h uint16) float32 {
	sign, exp, man := uint32(h>>15)<<31, uint32(h>>10)&31, uint32(h)&(1<<10-1)
	switch exp {
	case 0: // man·2⁻²⁴
		return math.Float32frombits(math.Float32bits(float32(man)*0x1p-24) | sign)
	case 31: // infinity, or NaN with its payload
		return math.Float32frombits(sign | 0xff<<23 | man<<13)
	}
	return math.Float32frombits(sign | (exp+127-15)<<23 | man<<13)
}

// maxExact is the magnitude up to which float64 holds every integer.
const maxExact = 1 << 53

// widen64 decodes the elements of b, of the named type, into dst. It returns the position of the first element that
// is no such number or that float64 may not hold, or −1.
func widen64(dst []float64, b []byte, kind string) int {
	switch kind {
	case "F64":
		for i := range dst {
			dst[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
		}
	case "I64":
		for i := range dst {
			v := int64(binary.LittleEndian.Uint64(b[8*i:]))
			if v < -maxExact || v > maxExact {
				return i
			}
			dst[i] = float64(v)
		}
	case "U64":
		for i := range dst {
			v := binary.LittleEndian.Uint64(b[8*i:])
			if v > maxExact {
				return i
			}
			dst[i] = float64(v)
		}
	case "I32":
		for i := range dst {
			dst[i] = float64(int32(binary.LittleEndian.Uint32(b[4*i:])))
		}
	case "U32":
		for i := range dst {
			dst[i] = float64(binary.LittleEndian.Uint32(b[4*i:]))
		}
	case "I16":
		for i := range dst {
			dst[i] = float64(int16(binary.LittleEndian.Uint16(b[2*i:])))
		}
	case "U16":
		for i := range dst {
			dst[i] = float64(binary.LittleEndian.Uint16(b[2*i:]))
		}
	case "I8":
		for i := range dst {
			dst[i] = float64(int8(b[i]))
		}
	case "U8":
		for i := range dst {
			dst[i] = float64(b[i])
		}
	case "BOOL":
		for i := range dst {
			if b[i] > 1 {
				return i
			}
			dst[i] = float64(b[i])
		}
	}
	return -1
}
