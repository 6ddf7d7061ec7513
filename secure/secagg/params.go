package secagg

import (
	"crypto/sha256"
	"fmt"
	"math"
	"math/big"
)

// Model is what the coordinator is believed to be capable of.
type Model int

const (
	// Malicious: it may lie to members and make up messages. Needs t ≥ ⌊2m/3⌋+1 of a neighbourhood of m.
	Malicious Model = iota
	// Curious: it keeps to the protocol and looks at what it gets. Needs t ≥ ⌊m/2⌋+1.
	Curious
)

// most members of a session: each has its own point of GF(2^16), and 0 is the secret's.
const mostMembers = 1<<16 - 1

// Params are the terms of a session, the same for everyone: their digest is in every advert's signature. Zero fields have
// the defaults named here; [Params.Validate] says what does not go together.
type Params struct {
	Session    string // unique for each sum; keys are fresh in each
	Members    int    // n ≥ 2, those who may take part
	Threshold  int    // t, shares that recover a secret, of the m = k+1 (complete graph: n) in a neighbourhood
	Neighbours int    // k, even; 0, or k+1 ≥ number of adverts: everyone (the complete graph)
	Survivors  int    // fewest members in each of U1 … U5; default t on the complete graph, else ⌊2n/3⌋+1, Curious ⌊n/2⌋+1
	Model      Model

	Size  int // d, words of the whole body
	Extra int // extra words, always 64 bits, held by everyone
	Bits  int // of a body's word: 32 or 64, the default

	// Holdings are the parts of the body that a member may hold; each member names one by its index. Default: one, all of it.
	Holdings []Ranges
	// Holders is the least number of members that must hold a word for it to be sent, and of survivors for it to be
	// recovered. Default t.
	Holders int

	Clip      float64 // c > 0; values are clipped to [−c, c]; default 8
	Levels    uint64  // Q ≥ 2, values that an encoded word can have; default 2²²
	MaxWeight uint64  // W ≥ 1, largest weight of a member; default 1
}

// Defaults returns p with defaults in place of zeros.
func (p Params) Defaults() Params {
	if p.Bits == 0 {
		p.Bits = 64
	}
	if p.Clip == 0 {
		p.Clip = 8
	}
	if p.Levels == 0 {
		p.Levels = 1 << 22
	}
	if p.MaxWeight == 0 {
		p.MaxWeight = 1
	}
	if p.Survivors == 0 {
		p.Survivors = p.Threshold
		if p.sparse() {
			p.Survivors = p.Model.Least(p.Members)
		}
	}
	if p.Holders == 0 {
		p.Holders = p.Threshold
	}
	if len(p.Holdings) == 0 {
		p.Holdings = []Ranges{All(p.Size)}
	}
	return p
}

// Least returns the smallest threshold that the model allows for m holders of shares.
func (m Model) Least(holders int) int {
	if m == Curious {
		return holders/2 + 1
	}
	return 2*holders/3 + 1
}

func (p Params) sparse() bool { return p.Neighbours > 0 && p.Neighbours+1 < p.Members }

// Neighbourhood returns m, the number of those who hold shares of a member's secrets, itself included.
func (p Params) Neighbourhood() int {
	if p.sparse() {
		return p.Neighbours + 1
	}
	return p.Members
}

// Validate returns an error that says which term is out of range, with both numbers. Defaults are filled in first.
func (p Params) Validate() error {
	p = p.Defaults()
	m := p.Neighbourhood()
	switch {
	case p.Session == "":
		return fmt.Errorf("secure aggregation: a session needs a name of its own")
	case len(p.Session) > math.MaxUint16:
		return fmt.Errorf("secure aggregation: session name of %d bytes: at most %d", len(p.Session), math.MaxUint16)
	case p.Members < 2 || p.Members > mostMembers:
		return fmt.Errorf("secure aggregation: %d members: expected 2 to %d", p.Members, mostMembers)
	case p.Model != Malicious && p.Model != Curious:
		return fmt.Errorf("secure aggregation: model %d: expected Malicious or Curious", p.Model)
	case p.Neighbours < 0 || p.sparse() && p.Neighbours%2 != 0:
		return fmt.Errorf("secure aggregation: %d neighbours: expected an even number, or 0 for everyone", p.Neighbours)
	case p.Threshold < p.Model.Least(m) || p.Threshold > m:
		return fmt.Errorf("secure aggregation: threshold %d of %d: expected %d to %d", p.Threshold, m, p.Model.Least(m), m)
	case p.Survivors < p.Threshold || p.Survivors > p.Members:
		return fmt.Errorf("secure aggregation: at least %d survivors: expected %d (the threshold) to %d (all)", p.Survivors, p.Threshold, p.Members)
	case p.sparse() && p.Survivors < p.Model.Least(p.Members):
		return fmt.Errorf("secure aggregation: at least %d survivors of %d on a sparse graph: need %d", p.Survivors, p.Members, p.Model.Least(p.Members))
	case p.Size < 0 || p.Extra < 0 || p.Size > math.MaxInt/16 || p.Extra > math.MaxInt/16:
		return fmt.Errorf("secure aggregation: %d words and %d extra: out of range", p.Size, p.Extra)
	case p.Bits != 32 && p.Bits != 64:
		return fmt.Errorf("secure aggregation: words of %d bits: expected 32 or 64", p.Bits)
	case !(p.Clip > 0) || math.IsInf(p.Clip, 1):
		return fmt.Errorf("secure aggregation: clip bound %v: expected a positive number", p.Clip)
	case p.Levels < 2 || p.Levels > 1<<52:
		return fmt.Errorf("secure aggregation: %d levels: expected 2 to 2^52", p.Levels)
	case p.Holders < 2 || p.Holders > p.Members:
		return fmt.Errorf("secure aggregation: words that %d members hold: expected 2 to %d", p.Holders, p.Members)
	case p.sparse() && len(p.Holdings) > 1:
		// A neighbourhood has few holders of a rare word; whether masks hide it there is chance that nobody has bounded.
		return fmt.Errorf("secure aggregation: %d kinds of holdings on a sparse graph: use the complete graph (0 neighbours)", len(p.Holdings))
	}
	for i, h := range p.Holdings {
		if err := h.Validate(p.Size); err != nil {
			return fmt.Errorf("secure aggregation: holding %d: %w", i, err)
		}
	}
	if need := p.need(); need > p.Bits {
		return fmt.Errorf("secure aggregation: modulus too small: need b=%d for %d members × weight %d × %d levels, have %d",
			need, p.Members, p.MaxWeight, p.Levels, p.Bits)
	}
	return nil
}

// need returns ⌈log₂(n·W·Q)⌉, the bits that hold the largest sum.
func (p Params) need() int {
	x := big.NewInt(int64(p.Members))
	x.Mul(x, new(big.Int).SetUint64(p.MaxWeight))
	x.Mul(x, new(big.Int).SetUint64(p.Levels))
	return x.Sub(x, big.NewInt(1)).BitLen()
}

// digest is what an advert's signature says about the terms.
func (p Params) digest() (d [32]byte) {
	h := sha256.New()
	w := writer{b: []byte("fedsecagg/v1/terms")}
	w.text(p.Session)
	for _, v := range []int{p.Members, p.Threshold, p.Neighbours, p.Survivors, int(p.Model), p.Size, p.Extra, p.Bits, p.Holders, len(p.Holdings)} {
		w.u64(uint64(v))
	}
	w.u64(math.Float64bits(p.Clip))
	w.u64(p.Levels)
	w.u64(p.MaxWeight)
	h.Write(w.b)
	for _, r := range p.Holdings {
		w.b = w.b[:0]
		w.u64(uint64(len(r)))
		for _, x := range r {
			w.u64(uint64(x.Lo))
			w.u64(uint64(x.Hi))
		}
		h.Write(w.b)
	}
	h.Sum(d[:0])
	return d
}
