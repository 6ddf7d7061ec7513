package secagg

import (
	"bytes"
	"crypto/ecdh"
	"maps"
	"slices"
)

// Server is the coordinator's side of one session: it learns Σ x_u and, if everyone keeps to the protocol, nothing else. Messages
// may come in any order and more than once within their step; the same message again has no effect, another one of the same
// member is refused. Closing a step twice gives the same answer. It is not safe for concurrent use; [Server.Recover] uses
// several processors by itself.
//
// Its memory is that of one sum and of what members sent besides vectors, not of their vectors.
type Server struct {
	p        Params
	terms    [32]byte
	verifier Verifier

	adverts map[string]Advert
	owner   map[[32]byte]string // of keys in them
	roster  *roster             // when U1 is closed

	boxes map[int]Boxes // by sender
	u2    []bool        // when U2 is closed

	sum    *Vector // over the whole body
	came   []bool
	list   Survivors // when U3 is closed
	inSum  []bool
	agreed map[int]Confirmation
	quorum Confirmations // when U4 is closed
	opened map[int]map[int]Revealed
}

// NewServer opens a session. A verifier lets the server refuse a wrong signature by name before it makes other members refuse
// the session; with nil signatures are only carried.
func NewServer(p Params, v Verifier) (*Server, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	p = p.Defaults()
	return &Server{p: p, terms: p.digest(), verifier: v, adverts: map[string]Advert{}, owner: map[[32]byte]string{}}, nil
}

// Advert takes a member's keys.
func (s *Server) Advert(a Advert) error {
	if old, ok := s.adverts[a.Name]; ok {
		if !bytes.Equal(old.signed(s.terms), a.signed(s.terms)) {
			return refuse(ErrConflict, a.Name, "advert: another one came before")
		}
		return nil
	}
	switch {
	case s.roster != nil:
		return refuse(ErrOrder, a.Name, "advert after the list was closed")
	case !nameFits(a.Name) || a.Holding < 0 || a.Holding >= len(s.p.Holdings):
		return refuse(ErrAdvert, a.Name, "name of %d bytes (expected 1 to 255), holding %d of %d", len(a.Name), a.Holding, len(s.p.Holdings))
	case len(s.adverts) == s.p.Members:
		return refuse(ErrUnknown, a.Name, "%d members have come already, which is all", s.p.Members)
	}
	if s.verifier != nil {
		if err := verify(s.verifier, ErrAdvert, a.Name, a.signed(s.terms), a.Sig); err != nil {
			return err
		}
	}
	// The others would refuse the list, and with it the session.
	for _, k := range [][32]byte{a.Channel, a.Mask} {
		if other, ok := s.owner[k]; ok {
			return refuse(ErrAdvert, a.Name, "has a key that %q also has", other)
		}
		if _, err := agree(probe, k, a.Name); err != nil {
			return err
		}
	}
	if a.Channel == a.Mask {
		return refuse(ErrAdvert, a.Name, "has one key for two purposes")
	}
	s.owner[a.Channel], s.owner[a.Mask] = a.Name, a.Name
	s.adverts[a.Name] = a
	return nil
}

// probe finds public keys of small order: with them every private key, this one too, has a shared secret that everybody knows.
var probe = func() *ecdh.PrivateKey {
	k, err := ecdh.X25519().NewPrivateKey(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		panic(err) // the length is right
	}
	return k
}()

// Adverts closes U1 and returns the list for everyone on it, in the order of names.
func (s *Server) Adverts() (Adverts, error) {
	if s.roster == nil {
		r, err := newRoster(s.p, slices.Collect(maps.Values(s.adverts)))
		if err != nil {
			return nil, err
		}
		s.roster = r
		s.boxes = map[int]Boxes{}
	}
	return slices.Clone(s.roster.adverts), nil
}

// Boxes takes a member's shares for its neighbours: exactly one for each.
func (s *Server) Boxes(from string, boxes Boxes) error {
	i, err := s.member(from, s.roster != nil, "boxes")
	if err != nil {
		return err
	}
	near := s.roster.neighbours(i)
	if len(boxes) != len(near) {
		return refuse(ErrBox, from, "%d boxes: expected %d, one for each neighbour", len(boxes), len(near))
	}
	mine := slices.Clone(boxes)
	for k, j := range near {
		if mine[k].From != from || mine[k].To != s.roster.adverts[j].Name {
			return refuse(ErrBox, from, "box %d is from %q to %q: expected one to %q", k, mine[k].From, mine[k].To, s.roster.adverts[j].Name)
		}
	}
	if old, ok := s.boxes[i]; ok {
		if !slices.EqualFunc(old, mine, func(a, b Box) bool { return bytes.Equal(a.Sealed, b.Sealed) }) {
			return refuse(ErrConflict, from, "boxes: others came before")
		}
		return nil
	}
	if s.u2 != nil {
		return refuse(ErrOrder, from, "boxes after the step was closed")
	}
	s.boxes[i] = mine
	return nil
}

// member returns the place of a name, if the step is one that it may answer now.
func (s *Server) member(name string, open bool, what string) (int, error) {
	if !open {
		return 0, refuse(ErrOrder, name, "%s before their step", what)
	}
	i, ok := s.roster.find(name)
	if !ok {
		return 0, refuse(ErrUnknown, name, "%s of one who is not in the session", what)
	}
	return i, nil
}

// Inbox closes U2 and returns the boxes for a member of it.
func (s *Server) Inbox(to string) (Boxes, error) {
	i, err := s.member(to, s.roster != nil, "request for boxes")
	if err != nil {
		return nil, err
	}
	if err := s.closeShares(); err != nil {
		return nil, err
	}
	if !s.u2[i] {
		return nil, refuse(ErrOrder, to, "sent no boxes in time")
	}
	if s.boxes == nil {
		return nil, refuse(ErrOrder, to, "boxes are gone: the vectors have come")
	}
	var out Boxes
	for _, j := range s.roster.neighbours(i) {
		if !s.u2[j] {
			continue
		}
		out = append(out, s.boxes[j][s.roster.slot(j, i)])
	}
	return out, nil
}

func (s *Server) closeShares() error {
	if s.u2 != nil {
		return nil
	}
	if len(s.boxes) < s.p.Survivors {
		return refuse(ErrTooFew, "", "%d members have shared their secrets: expected %d", len(s.boxes), s.p.Survivors)
	}
	s.u2 = make([]bool, len(s.roster.adverts))
	for i := range s.boxes {
		s.u2[i] = true
	}
	s.sum = s.p.NewVector(s.p.Size)
	s.came = make([]bool, len(s.u2))
	return nil
}

// Masked adds a member's vector to the sum and keeps nothing else of it. It does not know a vector again: the caller sees to it
// that a member's first one counts (the second is refused), and that those which are in a checkpoint are not sent again.
func (s *Server) Masked(from string, y *Vector) error {
	i, err := s.member(from, s.u2 != nil, "vector")
	if err != nil {
		return err
	}
	sent := s.roster.sent[s.roster.adverts[i].Holding]
	if err := y.fits(s.p, sent.Len()); err != nil {
		return err
	}
	switch {
	case s.list != nil:
		return refuse(ErrOrder, from, "vector after the survivors were announced")
	case !s.u2[i]:
		return refuse(ErrOrder, from, "vector of one who has not shared its secrets")
	case s.came[i]:
		return refuse(ErrConflict, from, "vector: one came before")
	}
	s.came[i] = true
	s.sum.AddPart(y, sent)
	return nil
}

// Survivors closes U3 and returns the list for everyone on it. What Checkpoint returns must be durable before the list is sent: members
// sign one list only.
func (s *Server) Survivors() (Survivors, error) {
	if s.roster == nil {
		return nil, refuse(ErrOrder, "", "survivors before the shares")
	}
	if err := s.closeShares(); err != nil {
		return nil, err
	}
	if s.list == nil {
		var list Survivors
		for i, in := range s.came {
			if in {
				list = append(list, s.roster.adverts[i].Name)
			}
		}
		in, err := s.roster.survivors(list)
		if err != nil {
			return nil, err
		}
		s.announce(list, in)
	}
	return slices.Clone(s.list), nil
}

func (s *Server) announce(list Survivors, in []bool) {
	s.list, s.inSum, s.boxes = list, in, nil
	s.agreed = map[int]Confirmation{}
	s.opened = map[int]map[int]Revealed{}
}

// Confirm takes a survivor's signature of the list.
func (s *Server) Confirm(c Confirmation) error {
	i, err := s.member(c.From, s.list != nil, "confirmation")
	if err != nil {
		return err
	}
	if !s.inSum[i] {
		return refuse(ErrUnknown, c.From, "confirmed a list of survivors that it is not on")
	}
	if c.List != s.roster.listDigest(s.list) {
		return refuse(ErrList, c.From, "has signed another list of survivors")
	}
	if s.verifier != nil {
		if err := verify(s.verifier, ErrList, c.From, c.signed(), c.Sig); err != nil {
			return err
		}
	}
	if _, ok := s.agreed[i]; !ok && s.quorum != nil {
		return refuse(ErrOrder, c.From, "confirmation after the step was closed")
	}
	s.agreed[i] = c
	return nil
}

// Confirmations closes U4 and returns what every survivor needs to see: as many signatures as are required.
func (s *Server) Confirmations() (Confirmations, error) {
	if s.quorum == nil {
		if len(s.agreed) < s.p.Survivors {
			return nil, refuse(ErrTooFew, "", "%d confirmations of the survivors: expected %d", len(s.agreed), s.p.Survivors)
		}
		for i := range s.came {
			if c, ok := s.agreed[i]; ok && len(s.quorum) < s.p.Survivors {
				s.quorum = append(s.quorum, c)
			}
		}
	}
	return slices.Clone(s.quorum), nil
}

// Reveal takes a survivor's shares.
func (s *Server) Reveal(v Reveal) error {
	i, err := s.member(v.From, s.list != nil, "shares")
	if err != nil {
		return err
	}
	if !s.inSum[i] {
		return refuse(ErrUnknown, v.From, "revealed shares and is no survivor")
	}
	shares := map[int]Revealed{}
	for _, x := range v.Shares {
		j, ok := s.roster.find(x.Of)
		switch {
		case !ok || !s.u2[j] || j != i && !s.roster.adjacent(i, j):
			return refuse(ErrShares, v.From, "of %q, of whom it has none", x.Of)
		case (x.Kind == SelfMask) != s.inSum[j]:
			return refuse(ErrShares, v.From, "of the wrong secret of %q", x.Of)
		}
		if _, ok := shares[j]; ok {
			return refuse(ErrShares, v.From, "two of %q", x.Of)
		}
		shares[j] = x
	}
	if old, ok := s.opened[i]; ok && !maps.Equal(old, shares) {
		return refuse(ErrConflict, v.From, "shares: others came before")
	}
	s.opened[i] = shares
	return nil
}

// Checkpoint returns the state after Survivors: the masked sum, who is in it, and all keys.
func (s *Server) Checkpoint() ([]byte, error) {
	if s.list == nil {
		return nil, refuse(ErrOrder, "", "checkpoint before the survivors are fixed")
	}
	var w writer
	w.u8(stateVersion)
	w.key(s.terms)
	w.u32(len(s.roster.adverts))
	for i := range s.roster.adverts {
		s.roster.adverts[i].write(&w)
		w.bytes(s.roster.adverts[i].Sig)
		w.u8(flag(s.u2[i]) | flag(s.inSum[i])<<1)
	}
	sum, err := s.sum.MarshalBinary()
	if err != nil {
		return nil, err
	}
	w.raw(sum)
	return w.b, nil
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// RestoreServer continues from what Checkpoint returned, under the same terms; confirmations and shares are to be sent again.
func RestoreServer(p Params, v Verifier, state []byte) (*Server, error) {
	s, err := NewServer(p, v)
	if err != nil {
		return nil, err
	}
	r := reader{b: state}
	r.version(stateVersion)
	terms := r.key()
	adverts := make(Adverts, r.count(2+4+3*32+2+1))
	var u2 []bool
	var list Survivors
	for i := range adverts {
		adverts[i].read(&r)
		adverts[i].Sig = r.bytes()
		f := r.u8()
		if f != 0 && f != 1 && f != 3 {
			r.fail("has a survivor who shared nothing")
		}
		u2 = append(u2, f != 0)
		if f == 3 {
			list = append(list, adverts[i].Name)
		}
		s.adverts[adverts[i].Name] = adverts[i]
	}
	rest := r.b
	r.b = nil
	if err := r.end("state of a server"); err != nil {
		return nil, err
	}
	if terms != s.terms {
		return nil, refuse(ErrConflict, "", "state: it is of a session on other terms")
	}
	if s.roster, err = newRoster(s.p, adverts); err != nil {
		return nil, err
	}
	if !adverts.sorted() {
		return nil, refuse(ErrMalformed, "", "state of a server is not in the order of names")
	}
	in, err := s.roster.survivors(list)
	if err != nil {
		return nil, err
	}
	s.sum, s.u2, s.came = new(Vector), u2, in
	if err := s.sum.UnmarshalBinary(rest); err != nil {
		return nil, err
	}
	if err := s.sum.fits(s.p, s.p.Size); err != nil {
		return nil, err
	}
	s.announce(list, in)
	return s, nil
}
