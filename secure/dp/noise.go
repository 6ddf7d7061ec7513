package dp

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/big"
	"math/bits"
)

// Noise draws exact samples from a source of random bytes: no probability below is rounded. It reads ahead, so a source that
// others read too gives them other bytes. It is not safe for concurrent use.
type Noise struct {
	random io.Reader
	buf    [4096]byte
	left   int
	coins  uint64  // bits left for half, below a 1
	x      uniform // kept for its memory; no digit survives a draw
	err    error   // the first failure of random; from then on nothing drawn may be used
}

// NewNoise returns a sampler that draws from random: crypto/rand.Reader, but for tests.
func NewNoise(random io.Reader) *Noise { return &Noise{random: random} }

// Err returns the failure of the source, if any. What was drawn before may be used only if it is nil.
func (n *Noise) Err() error { return n.err }

// word returns 64 random bits.
func (n *Noise) word() uint64 {
	if n.left < 8 {
		if n.err == nil {
			if _, err := io.ReadFull(n.random, n.buf[:]); err != nil {
				n.err = fmt.Errorf("read random bytes: %w", err)
			}
		}
		if n.err != nil {
			panic(n.err) // recovered by the exported methods: loops below must not spin on bytes that are not random
		}
		n.left = len(n.buf)
	}
	n.left -= 8
	w := n.buf[n.left : n.left+8]
	v := binary.LittleEndian.Uint64(w)
	clear(w)
	return v
}

// below returns a uniform integer of [0, k).
func (n *Noise) below(k uint64) uint64 {
	if k == 1 {
		return 0
	}
	for {
		hi, lo := bits.Mul64(n.word(), k)
		if lo >= k || lo >= -k%k {
			return hi
		}
	}
}

// uniform is a number of (0, 1) of which as many binary digits are drawn as somebody asks for.
type uniform struct{ words []uint64 }

func (n *Noise) digits(x *uniform, i int) uint64 {
	for len(x.words) <= i {
		x.words = append(x.words, n.word())
	}
	return x.words[i]
}

// less draws a uniform number and reports whether it is less than x.
func (n *Noise) less(x *uniform) bool {
	for i := 0; ; i++ {
		if u, v := n.word(), n.digits(x, i); u != v {
			return u < v
		}
	}
}

// expMinus returns true with probability e^{−γ}, where γ in [0, 1] is the probability with which once returns true (von Neumann;
// Canonne, Kamath, Steinke, NeurIPS 2020, algorithm 1): the first j for which a draw of probability γ/j fails is odd with that
// probability.
func (n *Noise) expMinus(once func() bool) bool {
	for j := uint64(1); ; j++ {
		if n.below(j) != 0 || !once() {
			return j%2 == 1
		}
	}
}

// half returns true with probability ½, 64 times from one word.
func (n *Noise) half() bool {
	if n.coins <= 1 {
		n.coins = n.word()
		bit := n.coins&1 == 1
		n.coins = n.coins>>1 | 1<<63 // the top bit marks the end
		return bit
	}
	bit := n.coins&1 == 1
	n.coins >>= 1
	return bit
}

// normal draws |N|, for a standard normal N, as k + x with an integer k and x in (0, 1): exactly, by Karney's algorithm N
// ("Sampling exactly from the normal distribution", ACM TOMS 42(1), 2016, section 3). k is proposed with probability
// proportional to e^{−k/2} and kept with e^{−k(k−1)/2}; x is uniform and kept with e^{−x(2k+x)/2}, together e^{−(k+x)²/2}.
func (n *Noise) normal() (k uint64, x *uniform) {
	x = &n.x
propose:
	for {
		k = 0
		for n.expMinus(n.half) {
			k++
		}
		if k > 1 {
			for range k * (k - 1) {
				if !n.expMinus(n.half) {
					continue propose
				}
			}
		}
		x.words = x.words[:0]
		// e^{−x(2k+x)/2} is k+1 times the chance e^{−γ}, γ = x·(2k+x)/(2k+2): below x, and below 2k+x on a scale of 2k+2.
		for range k + 1 {
			if !n.expMinus(func() bool {
				if !n.less(x) {
					return false
				}
				i := n.below(2*k + 2)
				return i < 2*k || i == 2*k && n.less(x)
			}) {
				continue propose
			}
		}
		return k, x
	}
}

// Normal returns ⌊sigma·N⌋ for a standard normal N, without any rounding in between. It panics if sigma ≥ 2⁵⁰. An error is the
// source's.
//
// For integers v, v + ⌊σN⌋ = ⌊v + σN⌋: the result added to an integer is a function of the ideal Gaussian mechanism's output,
// whose privacy it therefore has. Its mean is −½.
func (n *Noise) Normal(sigma uint64) (v int64, err error) {
	if sigma >= 1<<50 {
		panic(fmt.Sprintf("dp: standard deviation %d", sigma))
	}
	defer n.failed(&err)
	k, x := n.normal()
	v = int64(k*sigma + n.floorOf(sigma, x))
	clear(x.words)
	if n.half() {
		v = -v - 1 // ⌊−y⌋, as y is an integer with probability 0
	}
	return v, nil
}

// floorOf returns ⌊sigma·x⌋.
func (n *Noise) floorOf(sigma uint64, x *uniform) uint64 {
	hi, lo := bits.Mul64(sigma, n.digits(x, 0))
	if lo <= -sigma { // the digits to come add less than sigma to lo
		return hi
	}
	s := new(big.Int).SetUint64(sigma)
	num := new(big.Int)
	for i := 0; ; i++ {
		num.Lsh(num, 64).Or(num, new(big.Int).SetUint64(n.digits(x, i)))
		shift := uint(64 * (i + 1))
		low := new(big.Int).Mul(num, s)
		high := new(big.Int).Add(low, new(big.Int).Sub(s, big.NewInt(1)))
		if low.Rsh(low, shift).Cmp(high.Rsh(high, shift)) == 0 {
			return low.Uint64()
		}
	}
}

// failed turns the panic of word into an error.
func (n *Noise) failed(err *error) {
	if n.err == nil {
		return
	}
	if r := recover(); r != nil && r != any(n.err) {
		panic(r)
	}
	*err = n.err
}

// gridBits says how fine the grid is on which noise is added: its step is the power of two with σ/step in [2³⁰, 2³¹).
const gridBits = 30

// gridLoss is how much, relative to the clip bound and a coordinate, rounding two neighbouring sums to the grid can move
// them apart: one step of at most 2⁻³⁰·σ.
func gridLoss(z float64) float64 { return z * 0x1p-30 }

// add returns v plus Gaussian noise of standard deviation sigma ≥ 0, on the grid. Sigma is rounded up to it.
func (n *Noise) add(v, sigma float64) (float64, error) {
	if sigma == 0 {
		return v, nil
	}
	_, exp := math.Frexp(sigma)
	step := exp - 1 - gridBits
	x := math.Floor(math.Ldexp(v, -step) + 0.5)
	if !(math.Abs(x) < 1<<61) {
		return 0, fmt.Errorf("%g is too large for noise of deviation %g", v, sigma)
	}
	noise, err := n.Normal(uint64(math.Ceil(math.Ldexp(sigma, -step))))
	if err != nil {
		return 0, err
	}
	return math.Ldexp(float64(int64(x)+noise), step), nil
}
