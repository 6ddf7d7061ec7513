package secagg

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Word is an element of Z_{2^32} or Z_{2^64}; Go's arithmetic on it is that of the ring.
type Word interface{ uint32 | uint64 }

// Vector is what is summed: a body in one of two rings, the other one empty, and extra words.
type Vector struct {
	Body32 []uint32
	Body64 []uint64
	Extra  []uint64
}

// NewVector returns zeros for a body of n words under terms p.
func (p Params) NewVector(n int) *Vector {
	v := &Vector{Extra: make([]uint64, p.Extra)}
	if p.Defaults().Bits == 32 {
		v.Body32 = make([]uint32, n)
	} else {
		v.Body64 = make([]uint64, n)
	}
	return v
}

// Len returns the number of words of the body.
func (v *Vector) Len() int { return len(v.Body32) + len(v.Body64) }

// Clone returns a copy.
func (v *Vector) Clone() *Vector {
	return &Vector{slices.Clone(v.Body32), slices.Clone(v.Body64), slices.Clone(v.Extra)}
}

// Add adds o to v in place, word by word. It panics unless both have the same shape.
func (v *Vector) Add(o *Vector) {
	if len(v.Body32) != len(o.Body32) || len(v.Body64) != len(o.Body64) || len(v.Extra) != len(o.Extra) {
		panic(fmt.Sprintf("secagg: vectors of %d+%d+%d and %d+%d+%d words", len(v.Body32), len(v.Body64), len(v.Extra),
			len(o.Body32), len(o.Body64), len(o.Extra)))
	}
	for i, x := range o.Body32 {
		v.Body32[i] += x
	}
	for i, x := range o.Body64 {
		v.Body64[i] += x
	}
	for i, x := range o.Extra {
		v.Extra[i] += x
	}
}

// fits returns an error unless v has a body of n words and extras as p says.
func (v *Vector) fits(p Params, n int) error {
	other := len(v.Body64)
	if p.Bits == 64 {
		other = len(v.Body32)
	}
	if other != 0 || v.Len() != n || len(v.Extra) != p.Extra {
		return refuse(ErrMalformed, "", "vector of %d words of 32 bits, %d of 64 and %d extra: expected %d of %d bits and %d extra",
			len(v.Body32), len(v.Body64), len(v.Extra), n, p.Bits, p.Extra)
	}
	return nil
}

const vectorVersion = 1

// MarshalBinary returns the version (1 byte), bits of the body's words (1 byte), the numbers of words in body and extra
// (8 bytes each) and the words, all little-endian: 18 bytes more than the words themselves.
func (v *Vector) MarshalBinary() ([]byte, error) {
	if len(v.Body32) > 0 && len(v.Body64) > 0 {
		return nil, fmt.Errorf("secure aggregation: a vector with bodies of both widths")
	}
	b := make([]byte, 18, 18+4*len(v.Body32)+8*len(v.Body64)+8*len(v.Extra))
	b[0], b[1] = vectorVersion, 64
	if len(v.Body32) > 0 {
		b[1] = 32
	}
	binary.LittleEndian.PutUint64(b[2:], uint64(v.Len()))
	binary.LittleEndian.PutUint64(b[10:], uint64(len(v.Extra)))
	for _, x := range v.Body32 {
		b = binary.LittleEndian.AppendUint32(b, x)
	}
	for _, x := range v.Body64 {
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	for _, x := range v.Extra {
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	return b, nil
}

// UnmarshalBinary reads what MarshalBinary wrote, and nothing else: each vector has one encoding. It allocates no more than
// the bytes at hand justify.
func (v *Vector) UnmarshalBinary(b []byte) error {
	if len(b) < 18 || b[0] != vectorVersion || b[1] != 32 && b[1] != 64 {
		return refuse(ErrMalformed, "", "not a vector of version %d", vectorVersion)
	}
	bytes := int(b[1]) / 8
	n, extra := binary.LittleEndian.Uint64(b[2:]), binary.LittleEndian.Uint64(b[10:])
	b = b[18:]
	most := uint64(len(b))
	if n > most || extra > most || n*uint64(bytes)+8*extra != most {
		return refuse(ErrMalformed, "", "vector of %d words of %d bytes and %d extra in %d bytes", n, bytes, extra, len(b))
	}
	if n == 0 && bytes == 4 {
		return refuse(ErrMalformed, "", "empty body of 32 bits")
	}
	*v = Vector{}
	if bytes == 4 {
		v.Body32 = make([]uint32, n)
		for i := range v.Body32 {
			v.Body32[i] = binary.LittleEndian.Uint32(b[4*i:])
		}
	} else if n > 0 {
		v.Body64 = make([]uint64, n)
		for i := range v.Body64 {
			v.Body64[i] = binary.LittleEndian.Uint64(b[8*i:])
		}
	}
	b = b[n*uint64(bytes):]
	if extra > 0 {
		v.Extra = make([]uint64, extra)
		for i := range v.Extra {
			v.Extra[i] = binary.LittleEndian.Uint64(b[8*i:])
		}
	}
	return nil
}

// AddPart adds a vector whose body holds part to v, which holds everything. It panics if the words do not fit.
func (v *Vector) AddPart(y *Vector, part Ranges) {
	if v.Body32 != nil {
		scatter(v.Body32, y.Body32, part)
	} else {
		scatter(v.Body64, y.Body64, part)
	}
	for k, x := range y.Extra {
		v.Extra[k] += x
	}
}
