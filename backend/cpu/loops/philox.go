package loops

import (
	"encoding/binary"
	"math/bits"
)

// Philox fills out with random bits from the counter-based generator
// Philox4x32-10 and advances the state.
//
// The state is a key (state[0]) and a 128-bit counter (state[2]·2⁶⁴+state[1])
// that grows by one for every 16 bytes begun. Equal states give equal bits on
// every machine.
//
// Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as
// 1, 2, 3" (SC 2011), section 3.3.
func Philox(state *[3]uint64, out []byte) {
	for len(out) > 0 {
		var block [16]byte
		x := philoxBlock(state[0], state[1], state[2])
		for i, v := range x {
			binary.LittleEndian.PutUint32(block[4*i:], v)
		}
		out = out[copy(out, block[:]):]
		var carry uint64
		state[1], carry = bits.Add64(state[1], 1, 0)
		state[2] += carry
	}
}

func philoxBlock(key, lo, hi uint64) [4]uint32 {
	const (
		m0, m1 = 0xD2511F53, 0xCD9E8D57 // multipliers
		w0, w1 = 0x9E3779B9, 0xBB67AE85 // key increments
	)
	k0, k1 := uint32(key), uint32(key>>32)
	x := [4]uint32{uint32(lo), uint32(lo >> 32), uint32(hi), uint32(hi >> 32)}
	for range 10 {
		p0, p1 := m0*uint64(x[0]), m1*uint64(x[2])
		x = [4]uint32{uint32(p1>>32) ^ x[1] ^ k0, uint32(p1), uint32(p0>>32) ^ x[3] ^ k1, uint32(p0)}
		k0 += w0
		k1 += w1
	}
	return x
}
