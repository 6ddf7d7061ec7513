package secagg

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"slices"
	"testing"
)

// Reference: private keys 01 02 … 20 and 40 41 … 5f, session 7, members 1 and 2; computed independently (Python, cryptography).
func TestMaskReference(t *testing.T) {
	var a, b [32]byte
	for i := range 32 {
		a[i], b[i] = byte(i+1), byte(0x40+i)
	}
	ka, err := ecdh.X25519().NewPrivateKey(a[:])
	if err != nil {
		t.Fatal(err)
	}
	kb, err := ecdh.X25519().NewPrivateKey(b[:])
	if err != nil {
		t.Fatal(err)
	}
	shared, err := agree(ka, [32]byte(kb.PublicKey().Bytes()), "b")
	if err != nil || hex.EncodeToString(shared) != "ae4440cc8d7faddb2894172b78e3d745cafa0098bcc10d7ee0fda08fa85a9a2e" {
		t.Errorf("shared secret %x, %v", shared, err)
	}
	key := derive(shared, pairBody, 7, 1, 2)
	if hex.EncodeToString(key[:]) != "b0089d76baff3bc17b496552c42ba47b0d37f7576c3ef1ac72295e38c32ca8af" {
		t.Errorf("key %x", key)
	}
	v32 := make([]uint32, 4)
	apply(v32, All(4), []mask{{key: key}}, 1)
	if want := []uint32{1743289485, 996852648, 1011168696, 2694951863}; !slices.Equal(v32, want) {
		t.Errorf("mask %d, want %d", v32, want)
	}
	v64 := make([]uint64, 2)
	apply(v64, All(2), []mask{{key: key}}, 1)
	if want := []uint64{4281449523834289293, 11574730116890441144}; !slices.Equal(v64, want) {
		t.Errorf("mask %d, want %d", v64, want)
	}
	// What the protocol calls the same mask: members in places 0 and 1 of a roster with that session number.
	r := &roster{session: 7, adverts: make(Adverts, 2), sent: []Ranges{All(4)}}
	for i, minus := range []bool{false, true} {
		if m, e := r.pairMasks(shared, i, 1-i); m.key != key || m.minus != minus || e.key == key || e.minus != minus {
			t.Errorf("member %d: mask %x, minus %v", i, m.key, m.minus)
		}
	}
}

// Whatever is covered, the word of a coordinate is that of the whole key stream; any number of workers gives the same.
func TestMasksOverRanges(t *testing.T) {
	const d = 3*chunk + 777
	r := rand.New(rand.NewPCG(5, 6))
	keys := [3][32]byte{{1}, {2}, {3}}
	words := func(key [32]byte, width int) []byte {
		block, err := aes.NewCipher(key[:])
		if err != nil {
			t.Fatal(err)
		}
		out := make([]byte, d*width)
		cipher.NewCTR(block, make([]byte, aes.BlockSize)).XORKeyStream(out, out)
		return out
	}
	pick := func(gap, run int) Ranges {
		out := Ranges{}
		for at := r.IntN(gap); at < d; {
			end := min(d, at+1+r.IntN(run))
			out = append(out, Range{at, end})
			at = end + 1 + r.IntN(gap)
		}
		return out
	}
	for _, held := range []Ranges{All(d), pick(40, 60), pick(3000, 5000), pick(5, 3), {{d - 1, d}}, {}} {
		masks := []mask{{key: keys[0]}, {key: keys[1], minus: true, over: pick(100, 2000).Intersect(held)},
			{key: keys[2], over: pick(4, 3).Intersect(held)}, {key: keys[0], minus: true, over: Ranges{}}}
		want32, want64 := make([]uint32, 0, held.Len()), make([]uint64, 0, held.Len())
		streams32, streams64 := [3][]byte{}, [3][]byte{}
		for i := range streams32 {
			streams32[i], streams64[i] = words(keys[i], 4), words(keys[i], 8)
		}
		covers := func(s Ranges, c int) bool { i := s.from(c); return i < len(s) && s[i].Lo <= c }
		for _, h := range held {
			for c := h.Lo; c < h.Hi; c++ {
				x, y := binary.LittleEndian.Uint32(streams32[0][4*c:]), binary.LittleEndian.Uint64(streams64[0][8*c:])
				if covers(masks[1].over, c) {
					x -= binary.LittleEndian.Uint32(streams32[1][4*c:])
					y -= binary.LittleEndian.Uint64(streams64[1][8*c:])
				}
				if covers(masks[2].over, c) {
					x += binary.LittleEndian.Uint32(streams32[2][4*c:])
					y += binary.LittleEndian.Uint64(streams64[2][8*c:])
				}
				want32, want64 = append(want32, x), append(want64, y)
			}
		}
		for _, workers := range []int{1, 3} {
			got32, got64 := make([]uint32, held.Len()), make([]uint64, held.Len())
			apply(got32, held, masks, workers)
			apply(got64, held, masks, workers)
			if !slices.Equal(got32, want32) || !slices.Equal(got64, want64) {
				t.Fatalf("%d ranges of %d words, %d workers: wrong masks", len(held), held.Len(), workers)
			}
		}
	}
}

func BenchmarkMask(b *testing.B) {
	const d = 1 << 20
	b.Run("64", func(b *testing.B) {
		v := make([]uint64, d)
		b.SetBytes(8 * d)
		for b.Loop() {
			apply(v, All(d), []mask{{key: [32]byte{1}}}, 1)
		}
	})
	b.Run("32", func(b *testing.B) {
		v := make([]uint32, d)
		b.SetBytes(4 * d)
		for b.Loop() {
			apply(v, All(d), []mask{{key: [32]byte{1}}}, 1)
		}
	})
	b.Run("rows", func(b *testing.B) { // half of each row of 128
		var held Ranges
		for at := 0; at < d; at += 128 {
			held = append(held, Range{at, at + 64})
		}
		v := make([]uint64, held.Len())
		b.SetBytes(4 * d)
		for b.Loop() {
			apply(v, held, []mask{{key: [32]byte{1}}}, 1)
		}
	})
}
