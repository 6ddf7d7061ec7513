package weights

import (
	"math"
	"math/bits"
)

// fixed is the 128-bit two's complement number hi·2⁶⁴ + lo in units of 2⁻⁹⁶.
type fixed struct {
	lo uint64
	hi int64
}

func (f fixed) add(g fixed) fixed {
	lo, c := bits.Add64(f.lo, g.lo, 0)
	hi, _ := bits.Add64(uint64(f.hi), uint64(g.hi), c)
	return fixed{lo, int64(hi)}
}

func (f fixed) neg() fixed {
	lo, c := bits.Add64(^f.lo, 1, 0)
	return fixed{lo, int64(^uint64(f.hi) + c)}
}

// addBound returns f + weight·x for f, x ≥ 0, and whether that is below 2³¹.
func (f fixed) addBound(x float64, weight uint64) (fixed, bool) {
	if x*float64(weight) >= 1<<31 {
		return f, false
	}
	p := product(x, weight)
	if p.hi < 0 {
		return f, false
	}
	f = f.add(p)
	return f, f.hi >= 0
}

// product returns weight·x rounded half to even. The magnitude of weight·x must be below 2³¹.
func product(x float64, weight uint64) fixed {
	b := math.Float64bits(x)
	exp := int(b>>52) & 0x7ff
	man := b & (1<<52 - 1)
	if exp == 0 {
		exp = 1
	} else {
		man |= 1 << 52
	}
	hi, lo := bits.Mul64(man, weight) // weight·|x| = (hi,lo)·2^(exp−1075)
	switch s := exp - 1075 + 96; {
	case s >= 64:
		hi, lo = lo<<(s-64), 0
	case s > 0:
		hi, lo = hi<<s|lo>>(64-s), lo<<s
	case s < 0:
		hi, lo = roundShift(hi, lo, -s)
	}
	f := fixed{lo, int64(hi)}
	if b>>63 != 0 {
		return f.neg()
	}
	return f
}

// roundShift returns (hi,lo) / 2^s rounded half to even, s > 0.
func roundShift(hi, lo uint64, s int) (uint64, uint64) {
	if s > 128 {
		return 0, 0
	}
	var half, rest bool // the bit below the result, and any bit below that
	if s <= 64 {
		half = lo>>(s-1)&1 != 0
		rest = lo&(1<<(s-1)-1) != 0
		hi, lo = hi>>s, hi<<(64-s)|lo>>s
	} else {
		half = hi>>(s-65)&1 != 0
		rest = hi&(1<<(s-65)-1) != 0 || lo != 0
		hi, lo = 0, hi>>(s-64)
	}
	if half && (rest || lo&1 != 0) {
		var c uint64
		lo, c = bits.Add64(lo, 1, 0)
		hi += c
	}
	return hi, lo
}

// float returns the nearest float64, half to even.
func (f fixed) float() float64 {
	minus := uint64(f.hi >> 63) // all ones if f < 0
	l, borrow := bits.Sub64(f.lo^minus, minus, 0)
	h, _ := bits.Sub64(uint64(f.hi)^minus, minus, borrow)
	sign := minus << 63
	if h == 0 {
		return math.Float64frombits(math.Float64bits(float64(l)*0x1p-96) | sign)
	}
	// The highest 63 bits, with a sticky last bit for what is cut, are rounded once, by the conversion.
	z := uint(bits.LeadingZeros64(h)) & 63
	top := h<<z | l>>1>>(63-z)
	rest := l<<z | top&1
	top = top>>1 | (rest|-rest)>>63
	scale := math.Float64frombits(uint64(1023+65-96-z) << 52) // 2^(65−z−96)
	return math.Float64frombits(math.Float64bits(float64(int64(top))*scale) | sign)
}

// addFloat64 adds weight·x to sum, element by element.
func addFloat64(sum []fixed, x []float64, weight uint64) {
	sum = sum[:len(x)]
	for i, v := range x {
		sum[i] = sum[i].add(product(v, weight))
	}
}

// addFloat32 is addFloat64 for float32: without a branch for weights below 2³⁹ and values that the grid holds.
func addFloat32(sum []fixed, x []float32, weight uint64) {
	sum = sum[:len(x)]
	for i, v := range x {
		b := math.Float32bits(v)
		s := int(b>>23&0xff) - 150 + 96 // |v| = mantissa·2^s units
		if s < 0 || weight >= 1<<39 {
			if b<<1 != 0 {
				sum[i] = sum[i].add(product(float64(v), weight))
			}
			continue
		}
		m := int64(b&(1<<23-1)|1<<23) * int64(weight)
		sign := int64(int32(b)) >> 63
		m = m ^ sign - sign
		// (hi,lo) = m << s, in two steps: by s mod 64, then by 64 if s ≥ 64.
		q := uint(s) & 63
		lo := uint64(m) << q
		hi := uint64(m >> 1 >> (q ^ 63))
		far := -uint64(s >> 6) // all ones if s ≥ 64
		hi ^= (hi ^ lo) & far
		lo &^= far
		sum[i] = sum[i].add(fixed{lo, int64(hi)})
	}
}
