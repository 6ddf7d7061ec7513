package psi

import (
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/cohort-learning/cohort/parallel"
	"github.com/gtank/ristretto255"
)

// Secret is what a party keeps: 32 bytes that nobody else can guess, for one session. Two sessions need two.
type Secret [32]byte

// derive returns n bytes of the secret for a purpose.
func (s Secret) derive(purpose string, n int) []byte {
	b, err := hkdf.Key(sha256.New, s[:], nil, "cohort/psi/1/"+purpose, n)
	if err != nil {
		panic(fmt.Sprintf("psi: %d bytes of key: %v", n, err)) // more than HKDF gives: a programmer's mistake
	}
	return b
}

// exponent returns the secret exponent. Its sixty-four bytes are reduced modulo the order of the group; that it is 0 has a
// probability of 2⁻²⁵².
func (s Secret) exponent() *ristretto255.Scalar {
	return ristretto255.NewScalar().FromUniformBytes(s.derive("exponent", 64))
}

// order returns a permutation of n that only the secret tells.
func (s Secret) order(n int) []int {
	return rand.New(rand.NewChaCha8([32]byte(s.derive("order", 32)))).Perm(n)
}

// hash maps an identifier onto the group: SHA-512 of the session's scope and the identifier, each with its length before it, and
// from its 512 bits a point (RFC 9496, section 4.3.4).
func hash(scope, id string) *ristretto255.Element {
	b := binary.BigEndian.AppendUint64([]byte("cohort/psi/1\x00"), uint64(len(scope)))
	b = append(b, scope...)
	b = binary.BigEndian.AppendUint64(b, uint64(len(id)))
	sum := sha512.Sum512(append(b, id...))
	return ristretto255.NewElement().FromUniformBytes(sum[:])
}

// Party is what both sides are made of.
type party struct {
	scope  string
	ids    []string
	exp    *ristretto255.Scalar
	secret Secret
}

// MostIDs bounds the identifiers of one party, so that a message has at most 512 MiB.
const MostIDs = 1 << 24

func newParty(scope string, ids []string, secret Secret) (party, error) {
	switch {
	case secret == Secret{}:
		return party{}, errors.New("psi: the secret is all zeros")
	case len(ids) == 0:
		return party{}, errors.New("psi: there are no identifiers")
	case len(ids) > MostIDs:
		return party{}, fmt.Errorf("psi: %d identifiers, at most %d can be compared at a time", len(ids), MostIDs)
	}
	first := make(map[string]int, len(ids))
	for i, id := range ids {
		if j, twice := first[id]; twice {
			return party{}, fmt.Errorf("psi: identifier %d is that of %d again; each may be there once", i, j)
		}
		first[id] = i
	}
	return party{scope, ids, secret.exponent(), secret}, nil
}

// blind returns H(id)^k of the identifiers, in their order.
func (p party) blind() []Point {
	out := make([]Point, len(p.ids))
	parallel.Do(len(out), 0, func(i int) {
		e := hash(p.scope, p.ids[i])
		out[i] = pointOf(e.ScalarMult(p.exp, e))
	})
	return out
}

// raise returns each point to the power k.
func raise(in []Point, k *ristretto255.Scalar) ([]Point, error) {
	out := make([]Point, len(in))
	err := parallel.Try(len(in), 0, func(i int) error {
		e, err := in[i].element()
		if err != nil {
			return fmt.Errorf("psi: point %d: %w", i, err)
		}
		out[i] = pointOf(e.ScalarMult(k, e))
		return nil
	})
	return out, err
}

// Initiator is the party that learns who is in both lists. It is for one session with one responder.
type Initiator struct {
	party
	order []int // the place in First of each identifier
}

// NewInitiator returns the initiator of a session. The scope names the session and must be the same at both parties; a list
// blinded for one scope cannot be compared with one of another. No identifier may be there twice.
func NewInitiator(scope string, ids []string, secret Secret) (*Initiator, error) {
	p, err := newParty(scope, ids, secret)
	return &Initiator{p, secret.order(len(ids))}, err
}

// First returns the message that begins the session: {H(x)^a}, shuffled.
func (n *Initiator) First() []Point {
	out := make([]Point, len(n.ids))
	for i, x := range n.blind() {
		out[n.order[i]] = x
	}
	return out
}

// Reply is what the responder answers.
type Reply struct {
	Again []Point // the points of First to the power b, in their order
	Own   []Point // H(y)^b of the responder's identifiers, shuffled
}

// Match is what the initiator learns.
type Match struct {
	Both []bool // whether the responder has each identifier
	// Tokens stand for the identifiers towards this responder: H(x)^b, which it knows as its own if it has x, else a random point,
	// which tells it nothing.
	Tokens []Point
}

// Count returns how many identifiers both have.
func (m Match) Count() int {
	n := 0
	for _, b := range m.Both {
		if b {
			n++
		}
	}
	return n
}

// Finish compares the lists. A reply that has another number of points than was sent, or points that are none, is an error.
func (n *Initiator) Finish(r Reply) (Match, error) {
	if len(r.Again) != len(n.ids) {
		return Match{}, fmt.Errorf("psi: %d points came back for %d that were sent", len(r.Again), len(n.ids))
	}
	if len(r.Own) > MostIDs {
		return Match{}, fmt.Errorf("psi: the other list has %d identifiers, at most %d can be compared at a time", len(r.Own), MostIDs)
	}
	theirs, err := raise(r.Own, n.exp)
	if err != nil {
		return Match{}, err
	}
	known := make(map[Point]int, len(theirs))
	for i, x := range theirs {
		if _, twice := known[x]; twice {
			return Match{}, fmt.Errorf("psi: point %d of the other list is there twice", i)
		}
		known[x] = i
	}
	m := Match{Both: make([]bool, len(n.ids)), Tokens: make([]Point, len(n.ids))}
	inverse := ristretto255.NewScalar().Invert(n.exp)
	err = parallel.Try(len(n.ids), 0, func(i int) error {
		x := r.Again[n.order[i]]
		if _, m.Both[i] = known[x]; !m.Both[i] {
			m.Tokens[i] = n.decoy(i)
			return nil
		}
		e, err := x.element()
		if err != nil {
			return fmt.Errorf("psi: point %d: %w", n.order[i], err)
		}
		m.Tokens[i] = pointOf(e.ScalarMult(inverse, e))
		return nil
	})
	return m, err
}

// decoy returns a random point, the same whenever it is asked for.
func (n *Initiator) decoy(i int) Point {
	return pointOf(ristretto255.NewElement().FromUniformBytes(n.secret.derive(fmt.Sprint("decoy/", i), 64)))
}

// Responder is the other party.
type Responder struct {
	party
	own map[Point]int // H(y)^b → row
	out []Point       // the same, shuffled
}

// NewResponder returns the responder of a session; see [NewInitiator].
func NewResponder(scope string, ids []string, secret Secret) (*Responder, error) {
	p, err := newParty(scope, ids, secret)
	if err != nil {
		return nil, err
	}
	r := &Responder{p, make(map[Point]int, len(ids)), make([]Point, len(ids))}
	order := secret.order(len(ids))
	for i, y := range r.blind() {
		r.own[y] = i
		r.out[order[i]] = y
	}
	return r, nil
}

// Answer replies to the initiator's first message. A responder answers one: who may ask for many learns the list by trying.
func (r *Responder) Answer(first []Point) (Reply, error) {
	if len(first) == 0 || len(first) > MostIDs {
		return Reply{}, fmt.Errorf("psi: a list of %d points: need 1 to %d", len(first), MostIDs)
	}
	again, err := raise(first, r.exp)
	return Reply{again, r.out}, err
}

// Rows returns the row of each token among the responder's own, −1 for those that are none of its.
func (r *Responder) Rows(tokens []Point) []int {
	out := make([]int, len(tokens))
	for i, t := range tokens {
		row, ok := r.own[t]
		if !ok {
			row = -1
		}
		out[i] = row
	}
	return out
}

// Own returns the token of each of the responder's identifiers, in their order: H(y)^b.
func (r *Responder) Own() []Point {
	out := make([]Point, len(r.ids))
	for x, row := range r.own {
		out[row] = x
	}
	return out
}
