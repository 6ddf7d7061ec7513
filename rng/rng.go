// Package rng gives every consumer of randomness its own stream, keyed by what the numbers are for.
//
// A stream is named by four things: the seed of the run, the round, the member it belongs to and its purpose
// ("batches", "levels", "glyphs" …). Two streams with different names are independent; the same name always gives the
// same numbers, on any machine, in any order of use and for any number of threads. Members are keyed by name, never by
// position, so a member draws the same numbers in a simulation and in a network.
//
//	r := rng.New(seed, round, "client-007", "batches")
//	order := r.Perm(600)
//
// The generator is ChaCha8 (math/rand/v2), keyed by the SHA-256 of the name. Noise for differential privacy, masks and
// keys must not come from here: they take crypto/rand.
package rng

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"math/rand/v2"
)

// Stream is a sequence of pseudo-random numbers. It embeds the methods of [rand.Rand] (Float64, IntN, Perm, Shuffle,
// NormFloat64, …) and is not safe for concurrent use.
type Stream struct {
	*rand.Rand
	src *rand.ChaCha8
}

// New returns the stream of the given name. Round is 0 for what happens once a run; member is empty for the server.
func New(seed uint64, round int, member, purpose string) *Stream {
	h := sha256.New()
	h.Write([]byte("cohort/rng/v1\x00"))
	var b [8]byte
	for _, v := range []uint64{seed, uint64(int64(round)), uint64(len(member))} {
		binary.LittleEndian.PutUint64(b[:], v)
		h.Write(b[:])
	}
	h.Write([]byte(member))
	h.Write([]byte(purpose))
	var key [32]byte
	h.Sum(key[:0])
	src := rand.NewChaCha8(key)
	return &Stream{Rand: rand.New(src), src: src}
}

// Fork returns the sub-stream of s named label. It draws from s once, so the order of forks matters.
func (s *Stream) Fork(label string) *Stream { return New(s.Uint64(), 0, "", label) }

// MarshalBinary saves the position of s, so that a resumed run goes on with the next number.
func (s *Stream) MarshalBinary() ([]byte, error) { return s.src.MarshalBinary() }

// UnmarshalBinary restores a position saved by MarshalBinary.
func (s *Stream) UnmarshalBinary(b []byte) error {
	if s.src == nil {
		s.src = new(rand.ChaCha8)
		s.Rand = rand.New(s.src)
	}
	return s.src.UnmarshalBinary(b)
}

// Uniform returns a number in [lo, hi).
func (s *Stream) Uniform(lo, hi float64) float64 { return lo + float64((hi-lo)*s.Float64()) }

// Gamma returns a draw from Gamma(shape, 1), shape > 0, by the squeeze method of Marsaglia and Tsang (2000); below
// shape 1 the draw for shape+1 is scaled by U^(1/shape).
func (s *Stream) Gamma(shape float64) float64 { return math.Exp(s.LogGamma(shape)) }

// LogGamma returns the logarithm of a draw from Gamma(shape, 1). For a tiny shape the draw itself underflows to 0 while
// its logarithm stays finite, which is what Dirichlet needs.
func (s *Stream) LogGamma(shape float64) float64 {
	if !(shape > 0) {
		panic("rng: Gamma needs shape > 0")
	}
	if shape < 1 {
		u := 1 - s.Float64() // (0, 1]
		return s.LogGamma(shape+1) + math.Log(u)/shape
	}
	d := shape - 1.0/3
	c := 1 / math.Sqrt(9*d)
	for {
		x := s.NormFloat64()
		v := 1 + float64(c*x)
		if v <= 0 {
			continue
		}
		v = v * v * v
		u := 1 - s.Float64()
		if math.Log(u) < float64(0.5*x*x)+d-float64(d*v)+float64(d*math.Log(v)) {
			return math.Log(d) + math.Log(v)
		}
	}
}

// Beta returns a draw from Beta(a, b), a, b > 0.
func (s *Stream) Beta(a, b float64) float64 {
	x, y := s.LogGamma(a), s.LogGamma(b)
	m := math.Max(x, y)
	ex, ey := math.Exp(x-m), math.Exp(y-m)
	return ex / (ex + ey)
}

// Dirichlet returns a draw from Dir(alpha): non-negative numbers that sum to 1. Every alpha must be > 0.
func (s *Stream) Dirichlet(alpha []float64) []float64 {
	p := make([]float64, len(alpha))
	m := math.Inf(-1)
	for i, a := range alpha {
		p[i] = s.LogGamma(a)
		m = math.Max(m, p[i])
	}
	var sum float64
	for i := range p {
		p[i] = math.Exp(p[i] - m)
		sum += p[i]
	}
	for i := range p {
		p[i] /= sum
	}
	return p
}

// Categorical returns i with probability w[i]/Σw. The weights must be non-negative with a positive sum.
func (s *Stream) Categorical(w []float64) int {
	var sum float64
	for _, v := range w {
		sum += v
	}
	if !(sum > 0) {
		panic("rng: Categorical needs weights with a positive sum")
	}
	u := s.Float64() * sum
	last := 0
	for i, v := range w {
		if v <= 0 {
			continue
		}
		if u < v {
			return i
		}
		u -= v
		last = i
	}
	return last
}

// Sample returns k distinct numbers of [0, n) in random order (the head of a random permutation), with O(k) memory.
// It panics if k > n.
func (s *Stream) Sample(n, k int) []int {
	if k > n || k < 0 {
		panic("rng: Sample needs 0 ≤ k ≤ n")
	}
	moved := make(map[int]int, k)
	out := make([]int, k)
	for i := range out {
		j := i + s.IntN(n-i)
		vj, ok := moved[j]
		if !ok {
			vj = j
		}
		vi, ok := moved[i]
		if !ok {
			vi = i
		}
		out[i] = vj
		moved[j] = vi
	}
	return out
}
