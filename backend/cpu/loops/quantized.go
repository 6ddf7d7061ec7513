package loops

import (
	"encoding/binary"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes/float16"
)

// BlockFormat is a format of quantized numbers: blocks of bytes, each of which
// decodes to the same number of float32.
type BlockFormat struct {
	Bytes, Values int // of one block
	decode        func(dst []float32, src []byte)
}

// Decode writes the values of blocks lo to hi at src to their places at dst.
func (f BlockFormat) Decode(dst, src unsafe.Pointer, lo, hi int) {
	f.decode(Slice[float32](dst, hi*f.Values)[lo*f.Values:], Slice[byte](src, hi*f.Bytes)[lo*f.Bytes:])
}

// NF4 returns the format of single bytes whose low four bits are an index into
// the NormalFloat table (Dettmers et al. 2023, QLoRA, appendix E). The scales
// are kept apart.
func NF4() BlockFormat { return BlockFormat{1, 1, decodeNF4} }

func decodeNF4(dst []float32, src []byte) {
	for i, b := range src {
		dst[i] = compute.NF4LookupTable[b&15]
	}
}

// GGML returns one of the formats of the ggml library, whose blocks carry
// their own scales, or false if it is not known here.
//
//	Q8_0     d, 32 × int8               d·q
//	Q4_0     d, 32 × 4 bits             d·(q−8)
//	IQ4_NL   d, 32 × 4 bits             d·table[q]
//	Q4_K     d, m, 8 × (6+6), 256 × 4   d·scale·q − m·min     scale, min: one per 32 values
//	Q6_K     256 × 6, 16 × int8, d      d·scale·(q−32)        scale: one per 16 values
//
// d and m are half-precision numbers with the low byte first.
func GGML(t compute.GGMLQuantType) (BlockFormat, bool) {
	one := map[compute.GGMLQuantType]func(dst []float32, src []byte){
		compute.GGMLQ8_0: decodeQ8, compute.GGMLQ4_0: decodeQ4, compute.GGMLIQ4NL: decodeIQ4,
		compute.GGMLQ4_K: decodeQ4K, compute.GGMLQ6_K: decodeQ6K,
	}[t]
	f := BlockFormat{Bytes: t.BytesPerBlock(), Values: t.ValuesPerBlock()}
	f.decode = func(dst []float32, src []byte) {
		for len(src) > 0 {
			one(dst[:f.Values], src[:f.Bytes])
			dst, src = dst[f.Values:], src[f.Bytes:]
		}
	}
	return f, one != nil
}

func half(src []byte) float32 { return float16.FromBits(binary.LittleEndian.Uint16(src)).Float32() }

func decodeQ8(dst []float32, src []byte) {
	d := half(src)
	for i, q := range src[2:] {
		dst[i] = d * float32(int8(q))
	}
}

// The low halves of the bytes hold the first sixteen values.

func decodeQ4(dst []float32, src []byte) {
	d := half(src)
	for i, q := range src[2:] {
		dst[i] = d * float32(int(q&15)-8)
		dst[i+16] = d * float32(int(q>>4)-8)
	}
}

func decodeIQ4(dst []float32, src []byte) {
	d := half(src)
	for i, q := range src[2:] {
		dst[i] = d * compute.IQ4NLLookupTable[q&15]
		dst[i+16] = d * compute.IQ4NLLookupTable[q>>4]
	}
}

func decodeQ4K(dst []float32, src []byte) {
	d, m := half(src), half(src[2:])
	packed, quants := src[4:16], src[16:]
	for j := range 8 {
		// Scales and minima 0–3 are the low six bits of bytes 0–3 and 4–7, whose
		// top bits complete numbers 4–7, four bits each in bytes 8–11.
		scale, least := packed[j%4]&63, packed[j%4+4]&63
		if j >= 4 {
			scale = packed[j+4]&15 | packed[j-4]>>6<<4
			least = packed[j+4]>>4 | packed[j]>>6<<4
		}
		step, offset := d*float32(scale), m*float32(least)
		for i, q := range quants[j/2*32:][:32] { // low, then high halves
			dst[32*j+i] = float32(step*float32(q>>(j%2*4)&15)) - offset
		}
	}
}

func decodeQ6K(dst []float32, src []byte) {
	low, high, scales, d := src[:128], src[128:192], src[192:208], half(src[208:])
	for g := range 8 { // groups of 32 values, four in each half of the block
		h, k := g/4, g%4
		for i := range 32 {
			q := low[64*h+k%2*32+i] >> (k / 2 * 4) & 15
			q |= high[32*h+i] >> (2 * k) & 3 << 4
			dst[32*g+i] = d * float32(int8(scales[2*g+i/16])) * float32(int(q)-32)
		}
	}
}
