package secagg_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/secure/secagg"
)

// book vouches for members 0 … n−1 and pins them all unless told otherwise. Its signatures are message authentication codes,
// which cost less than real ones; only it and the member know the key.
type book struct {
	known    map[string]bool
	unpinned map[string]bool
}

func (b book) Verify(name string, msg, sig []byte) error {
	if !b.known[name] {
		return secagg.ErrUnknown
	}
	if !hmac.Equal(sign(name, msg), sig) {
		return fmt.Errorf("bad signature")
	}
	return nil
}

func (b book) Pinned(name string) bool { return !b.unpinned[name] }

func sign(name string, msg []byte) []byte {
	h := hmac.New(sha256.New, []byte("key of "+name))
	h.Write(msg)
	return h.Sum(nil)
}

func name(i int) string { return fmt.Sprintf("member-%04d", i) }

func newBook(n int) book {
	b := book{map[string]bool{}, map[string]bool{}}
	for i := range n {
		b.known[name(i)] = true
	}
	return b
}

func (b book) trust(name string) secagg.Trust {
	return secagg.Trust{Sign: func(msg []byte) ([]byte, error) { return sign(name, msg), nil }, Verifier: b, Workers: 1}
}

// session carries messages between a server and members, each through its encoding.
type session struct {
	t       tb
	p       secagg.Params
	book    book
	server  *secagg.Server
	members map[string]*secagg.Member
	inputs  map[string]*secagg.Vector
	masked  map[string]*secagg.Vector
	holding func(i int) int
}

// steps that a member can be lost before.
const (
	keys = iota
	shares
	masked
	confirm
	unmask
	never
)

func open(t tb, p secagg.Params) *session {
	t.Helper()
	if p.Session == "" {
		p.Session = "test"
	}
	s := &session{t: t, p: p, book: newBook(p.Members), members: map[string]*secagg.Member{}, inputs: map[string]*secagg.Vector{},
		masked: map[string]*secagg.Vector{}, holding: func(int) int { return 0 }}
	var err error
	if s.server, err = secagg.NewServer(p, s.book); err != nil {
		t.Fatal(err)
	}
	return s
}

type message[T any] interface {
	*T
	MarshalBinary() ([]byte, error)
	UnmarshalBinary([]byte) error
}

// carry returns what arrives of a message.
func carry[T any, P message[T]](t tb, m T) (out T) {
	t.Helper()
	b, err := P(&m).MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if err := P(&out).UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	return out
}

// input draws member i's vector, full-range words, so that a sum wraps around.
func (s *session) input(i int) *secagg.Vector {
	p := s.p.Defaults()
	r := rng.New(7, 0, name(i), "input")
	x := s.p.NewVector(p.Holdings[s.holding(i)].Len())
	for k := range x.Body32 {
		x.Body32[k] = r.Uint32()
	}
	for k := range x.Body64 {
		x.Body64[k] = r.Uint64()
	}
	for k := range x.Extra {
		x.Extra[k] = r.Uint64()
	}
	return x
}

// run takes all members through a session; member i is lost before step lost(i).
func (s *session) run(lost func(i int) int) (*secagg.Sum, error) {
	if err := s.upTo(masked, lost); err != nil {
		return nil, err
	}
	return s.finish(lost)
}

// upTo runs the steps keys, shares and, if last is later, masked.
func (s *session) upTo(last int, lost func(i int) int) error {
	for i := range s.p.Members {
		if lost(i) == keys {
			continue
		}
		m, a, err := secagg.NewMember(s.p, name(i), s.holding(i), s.book.trust(name(i)))
		if err != nil {
			return err
		}
		s.members[name(i)] = m
		if err := s.server.Advert(carry(s.t, a)); err != nil {
			return err
		}
	}
	list, err := s.server.Adverts()
	if err != nil {
		return err
	}
	list = carry(s.t, list)
	for i := range s.p.Members {
		if lost(i) <= shares {
			continue
		}
		sh, err := s.members[name(i)].Share(list)
		if err != nil {
			return err
		}
		if err := s.server.Boxes(name(i), carry(s.t, sh.Boxes)); err != nil {
			return err
		}
	}
	for i := range s.p.Members {
		if last < masked || lost(i) <= masked {
			continue
		}
		boxes, err := s.server.Inbox(name(i))
		if err != nil {
			return err
		}
		x := s.input(i)
		s.inputs[name(i)] = x
		y, err := s.members[name(i)].Mask(carry(s.t, boxes), x.Clone())
		if err != nil {
			return err
		}
		s.masked[name(i)] = y.Clone()
		arrived := carry(s.t, *y)
		if err := s.server.Masked(name(i), &arrived); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) finish(lost func(i int) int) (*secagg.Sum, error) {
	survivors, err := s.server.Survivors()
	if err != nil {
		return nil, err
	}
	survivors = carry(s.t, survivors)
	for i := range s.p.Members {
		if lost(i) <= confirm {
			continue
		}
		c, err := s.members[name(i)].Confirm(survivors)
		if err != nil {
			return nil, err
		}
		if err := s.server.Confirm(carry(s.t, c)); err != nil {
			return nil, err
		}
	}
	confirmations, err := s.server.Confirmations()
	if err != nil {
		return nil, err
	}
	confirmations = carry(s.t, confirmations)
	for i := range s.p.Members {
		if lost(i) <= unmask {
			continue
		}
		v, err := s.members[name(i)].Unmask(survivors, confirmations)
		if err != nil {
			return nil, err
		}
		if err := s.server.Reveal(carry(s.t, v)); err != nil {
			return nil, err
		}
	}
	return s.server.Recover(2)
}

// plain returns the sum of the inputs of those who were not lost before step confirm, over the words that enough members hold.
func (s *session) plain(sent secagg.Ranges, lost func(i int) int) *secagg.Vector {
	p := s.p.Defaults()
	sum := s.p.NewVector(p.Size)
	for i := range p.Members {
		if lost(i) <= masked {
			continue
		}
		x := s.inputs[name(i)]
		at := 0
		for _, r := range p.Holdings[s.holding(i)] {
			for c := r.Lo; c < r.Hi; c++ {
				if slices.ContainsFunc(sent, func(r secagg.Range) bool { return r.Lo <= c && c < r.Hi }) {
					if p.Bits == 32 {
						sum.Body32[c] += x.Body32[at]
					} else {
						sum.Body64[c] += x.Body64[at]
					}
				}
				at++
			}
		}
		for k, e := range x.Extra {
			sum.Extra[k] += e
		}
	}
	return sum
}

// check compares a result with the plain sum.
func (s *session) check(got *secagg.Sum, lost func(i int) int) {
	s.t.Helper()
	want := s.plain(got.Sent, lost)
	if !slices.Equal(got.Body32, want.Body32) || !slices.Equal(got.Body64, want.Body64) || !slices.Equal(got.Extra, want.Extra) {
		s.t.Errorf("n=%d t=%d k=%d: secure sum is not the plain sum", s.p.Members, s.p.Threshold, s.p.Neighbours)
	}
	var members secagg.Survivors
	for i := range s.p.Members {
		if lost(i) > masked {
			members = append(members, name(i))
		}
	}
	if !slices.Equal(got.Members, members) {
		s.t.Errorf("sum of %v, want %v", got.Members, members)
	}
}

// tb is what the helpers need of testing.T, which rapid.T has too.
type tb interface {
	Helper()
	Fatal(...any)
	Errorf(string, ...any)
}
