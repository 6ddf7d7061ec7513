package secagg

import (
	"encoding/binary"
	"math/bits"
)

// GF(2^16) as polynomials modulo x^16 + x^12 + x^3 + x + 1. Points and coefficients of an interpolation are public, shares and
// secrets are not: no branch and no address depends on the latter, which tables would.
const reduction = 0x100b

// mul returns a·b; neither is secret.
func mul(a, b uint16) (c uint16) {
	for ; b != 0; b >>= 1 {
		c ^= a & -(b & 1)
		a = a<<1 ^ reduction&-(a>>15)
	}
	return c
}

// inverse returns a^(2^16−2) = 1/a for a ≠ 0; it is not secret.
func inverse(a uint16) uint16 {
	r := uint16(1)
	for range 15 {
		a = mul(a, a)
		r = mul(r, a)
	}
	return r
}

// secret is 32 bytes as 16 elements of the field, four to a machine word, each of them split and recovered on its own.
type secret [4]uint64

func pack(b [32]byte) (s secret) {
	for i := range s {
		s[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return s
}

func (s secret) bytes() (b [32]byte) {
	for i, x := range s {
		binary.LittleEndian.PutUint64(b[8*i:], x)
	}
	return b
}

// times returns s·x with x public: time depends on x only.
func (s secret) times(x uint16) (r secret) {
	const top = 0x8000_8000_8000_8000
	for i := bits.Len16(x) - 1; i >= 0; i-- {
		on := -uint64(x >> i & 1)
		for j, v := range r {
			carry := v & top
			r[j] = (v^carry)<<1 ^ (carry>>15)*reduction ^ s[j]&on
		}
	}
	return r
}

func (s secret) plus(o secret) secret {
	return secret{s[0] ^ o[0], s[1] ^ o[1], s[2] ^ o[2], s[3] ^ o[3]}
}

// share returns the polynomial with coefficients c (c[0] the secret; degree len(c)−1) at the point x ≠ 0: Shamir's share
// (Communications of the ACM, 1979), any len(c) of which give c[0] and fewer of which give nothing.
func share(c []secret, x uint16) secret {
	acc := c[len(c)-1]
	for i := len(c) - 2; i >= 0; i-- {
		acc = acc.times(x).plus(c[i])
	}
	return acc
}

// lagrange returns λ with f(0) = Σ λ_i·f(x_i) for polynomials of degree below len(x): λ_i = Π_{j≠i} x_j/(x_j − x_i). The
// points are distinct and not 0.
func lagrange(x []uint16) []uint16 {
	all := uint16(1)
	for _, v := range x {
		all = mul(all, v)
	}
	l := make([]uint16, len(x))
	for i, v := range x {
		den := v
		for j, w := range x {
			if j != i {
				den = mul(den, w^v)
			}
		}
		l[i] = mul(all, inverse(den))
	}
	return l
}

// combine returns Σ l[i]·shares[i].
func combine(l []uint16, shares []secret) (s secret) {
	for i, x := range shares {
		s = s.plus(x.times(l[i]))
	}
	return s
}
