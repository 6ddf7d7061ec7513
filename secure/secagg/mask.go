package secagg

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"
)

// Purposes of keys: each key has one.
const (
	pairBody  = "fedsecagg/v1/pairmask"
	pairExtra = "fedsecagg/v1/pairextra"
	selfBody  = "fedsecagg/v1/selfmask"
	selfExtra = "fedsecagg/v1/selfextra"
	boxKey    = "fedsecagg/v1/box"
	shareSeed = "fedsecagg/v1/coefficients"
	sealOfB   = "fedsecagg/v1/commitment"
)

// derive returns HKDF-SHA256(secret, no salt, info = purpose ‖ session ‖ i ‖ j) (RFC 5869), numbers as 8 bytes, big-endian.
func derive(shared []byte, purpose string, session uint64, i, j int) (key [32]byte) {
	info := make([]byte, 0, len(purpose)+24)
	info = append(info, purpose...)
	info = binary.BigEndian.AppendUint64(info, session)
	info = binary.BigEndian.AppendUint64(info, uint64(i))
	info = binary.BigEndian.AppendUint64(info, uint64(j))
	k, err := hkdf.Key(sha256.New, shared, nil, string(info), len(key))
	if err != nil {
		panic("secagg: " + err.Error()) // only for lengths that do not occur
	}
	copy(key[:], k)
	return key
}

// mask is a pseudo-random vector over some coordinates, to be added or subtracted: the word of coordinate i is the i-th
// little-endian word of AES-256-CTR's key stream with IV 0, whatever else is covered.
type mask struct {
	key   [32]byte
	minus bool
	over  Ranges // nil: all that the vector holds
}

// keystream is an AES-256-CTR key stream that can be entered anywhere.
type keystream struct {
	block cipher.Block
	ctr   cipher.Stream
	at    int // byte that comes next
	buf   []byte
}

const (
	bufBytes  = 32 << 10
	skipBytes = 2 << 10 // a gap that is cheaper to generate than to jump
	chunk     = 8 << 10 // coordinates that one worker does at a time, for all masks: they stay in its cache
)

func (k *keystream) rekey(key *[32]byte) {
	b, err := aes.NewCipher(key[:])
	if err != nil {
		panic("secagg: " + err.Error()) // the key has 32 bytes
	}
	k.block, k.ctr = b, nil
	if k.buf == nil {
		k.buf = make([]byte, bufBytes)
	}
}

func (k *keystream) seek(at int) {
	if k.ctr == nil || at < k.at || at > k.at+skipBytes {
		var iv [aes.BlockSize]byte
		binary.BigEndian.PutUint64(iv[8:], uint64(at/aes.BlockSize))
		k.ctr = cipher.NewCTR(k.block, iv[:])
		k.at = at - at%aes.BlockSize
	}
	if gap := at - k.at; gap > 0 {
		k.next(gap)
	}
}

// next returns n ≤ bufBytes bytes, valid until the next call.
func (k *keystream) next(n int) []byte {
	b := k.buf[:n]
	clear(b)
	k.ctr.XORKeyStream(b, b)
	k.at += n
	return b
}

// add adds ± the words of coordinates lo, lo+1, … to dst.
func add[W Word](k *keystream, dst []W, lo int, minus bool) {
	switch dst := any(dst).(type) {
	case []uint32:
		k.seek(4 * lo)
		for len(dst) > 0 {
			n := min(len(dst), bufBytes/4)
			add32(dst[:n], k.next(4*n), minus)
			dst = dst[n:]
		}
	case []uint64:
		k.seek(8 * lo)
		for len(dst) > 0 {
			n := min(len(dst), bufBytes/8)
			add64(dst[:n], k.next(8*n), minus)
			dst = dst[n:]
		}
	}
}

func add32(dst []uint32, b []byte, minus bool) {
	if minus {
		for i := range dst {
			dst[i] -= binary.LittleEndian.Uint32(b)
			b = b[4:]
		}
		return
	}
	for i := range dst {
		dst[i] += binary.LittleEndian.Uint32(b)
		b = b[4:]
	}
}

func add64(dst []uint64, b []byte, minus bool) {
	if minus {
		for i := range dst {
			dst[i] -= binary.LittleEndian.Uint64(b)
			b = b[8:]
		}
		return
	}
	for i := range dst {
		dst[i] += binary.LittleEndian.Uint64(b)
		b = b[8:]
	}
}

// part is some coordinates of a vector and where their words begin in it.
type part struct {
	coordinates Ranges
	at          int
}

// parts cuts held into pieces of at most chunk coordinates.
func parts(held Ranges) (out []part) {
	var p part
	room, at := chunk, 0
	for _, r := range held {
		for lo := r.Lo; lo < r.Hi; {
			n := min(r.Hi-lo, room)
			p.coordinates = append(p.coordinates, Range{lo, lo + n})
			lo, room, at = lo+n, room-n, at+n
			if room == 0 {
				out = append(out, p)
				p, room = part{at: at}, chunk
			}
		}
	}
	if room < chunk {
		out = append(out, p)
	}
	return out
}

// apply adds every mask to v, whose words are the coordinates held, with up to workers goroutines (0: one a processor). Workers
// share the vector by coordinates and not the masks, so that no sum exists twice, and the result is the same for any number.
func apply[W Word](v []W, held Ranges, masks []mask, workers int) {
	if len(v) == 0 || len(masks) == 0 {
		return
	}
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	all := parts(held)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(workers, len(all)) {
		wg.Go(func() {
			var k keystream
			for i := int(next.Add(1)) - 1; i < len(all); i = int(next.Add(1)) - 1 {
				for m := range masks {
					applyPart(&k, v, all[i], &masks[m])
				}
			}
		})
	}
	wg.Wait()
}

// applyPart adds m to one part of v.
func applyPart[W Word](k *keystream, v []W, p part, m *mask) {
	k.rekey(&m.key)
	at, j := p.at, 0
	if m.over != nil && len(p.coordinates) > 0 {
		j = m.over.from(p.coordinates[0].Lo)
	}
	for _, r := range p.coordinates {
		if m.over == nil {
			add(k, v[at:at+r.Hi-r.Lo], r.Lo, m.minus)
		}
		for ; m.over != nil && j < len(m.over) && m.over[j].Lo < r.Hi; j++ {
			if lo, hi := max(m.over[j].Lo, r.Lo), min(m.over[j].Hi, r.Hi); lo < hi {
				add(k, v[at+lo-r.Lo:at+hi-r.Lo], lo, m.minus)
			}
			if m.over[j].Hi > r.Hi {
				break
			}
		}
		at += r.Hi - r.Lo
	}
}
