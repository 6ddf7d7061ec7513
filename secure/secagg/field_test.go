package secagg

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"testing"
)

// slow multiplies polynomials over GF(2) and divides by the modulus, both by hand.
func slow(a, b uint16) uint16 {
	var c uint64
	for i := range 16 {
		if b>>i&1 == 1 {
			c ^= uint64(a) << i
		}
	}
	for bits.Len64(c) > 16 {
		c ^= uint64(1<<16|reduction) << (bits.Len64(c) - 17)
	}
	return uint16(c)
}

func TestField(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		a, b := uint16(r.Uint32()), uint16(r.Uint32())
		if got, want := mul(a, b), slow(a, b); got != want {
			t.Fatalf("%#x·%#x = %#x, want %#x", a, b, got, want)
		}
	}
	for a := 1; a < 1<<16; a++ {
		if mul(uint16(a), inverse(uint16(a))) != 1 { // so the modulus is irreducible: no zero divisors
			t.Fatalf("1/%#x is not %#x", a, inverse(uint16(a)))
		}
	}
	for range 2000 {
		var in [32]byte
		for i := range in {
			in[i] = byte(r.Uint32())
		}
		x := uint16(r.Uint32())
		out := pack(in).times(x).bytes()
		for i := 0; i < 32; i += 2 {
			if got, want := binary.LittleEndian.Uint16(out[i:]), slow(binary.LittleEndian.Uint16(in[i:]), x); got != want {
				t.Fatalf("element %d times %#x: %#x, want %#x", i/2, x, got, want)
			}
		}
		if pack(in).bytes() != in {
			t.Fatal("packing loses something")
		}
	}
}

func TestShamir(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	random := func() secret { return secret{r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64()} }
	for _, threshold := range []int{1, 2, 3, 17, 300} {
		c := make([]secret, threshold)
		for i := range c {
			c[i] = random()
		}
		n := min(3*threshold, 1000)
		var points []uint16
		var shares []secret
		for _, i := range r.Perm(n)[:threshold] {
			x := point(i * 65) // beyond 255
			points, shares = append(points, x), append(shares, share(c, x))
		}
		l := lagrange(points)
		if combine(l, shares) != c[0] {
			t.Errorf("%d shares do not give the secret", threshold)
		}
		// Sharing is linear: shares of a sum are sums of shares.
		d := make([]secret, threshold)
		sum := make([]secret, threshold)
		for i := range d {
			d[i] = random()
			sum[i] = c[i].plus(d[i])
		}
		if share(sum, 77) != share(c, 77).plus(share(d, 77)) {
			t.Error("sharing is not linear")
		}
		if threshold > 1 {
			// One share fewer is consistent with any secret: for each there is one value of the missing share, here not the right one.
			if combine(lagrange(points[1:]), shares[1:]) == c[0] {
				t.Errorf("%d shares of threshold %d give the secret", threshold-1, threshold)
			}
		}
	}
	// By hand: f(x) = 5 + 3x over GF(2^16) has f(1) = 6, f(2) = 3.
	c := []secret{{5}, {3}}
	if share(c, 1) != (secret{6}) || share(c, 2) != (secret{3}) || combine(lagrange([]uint16{1, 2}), []secret{{6}, {3}}) != c[0] {
		t.Error("shares of 5 + 3x")
	}
}
