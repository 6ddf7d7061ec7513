package secagg

import (
	"bytes"
	"cmp"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"maps"
	"slices"

	"github.com/cohort-learning/cohort/parallel"
)

// Verifier knows the members' signing keys.
type Verifier interface {
	// Verify returns nil if sig is the signature of msg by the member of that name, and an error that wraps ErrUnknown if
	// there is no such member.
	Verify(name string, msg, sig []byte) error
	// Pinned reports whether that key was exchanged outside, so that the coordinator cannot have made it up.
	Pinned(name string) bool
}

// Trust is what a member brings along, of which nothing is part of its state.
type Trust struct {
	Sign     func(msg []byte) ([]byte, error) // with the member's long-lived key
	Verifier Verifier
	// RequirePinned refuses sessions in which this member and its pinned neighbours are fewer than t. Without it a coordinator that invents members is
	// not noticed.
	RequirePinned bool
	Random        io.Reader // default, and the only right one outside of tests: crypto/rand.Reader
	Workers       int       // goroutines; default one a processor
}

func (t Trust) check() {
	if t.Sign == nil || t.Verifier == nil {
		panic("secagg: a member needs a signing key and a Verifier")
	}
}

// Member is one participant's side of one session. Each step changes its state, which must be durable (MarshalBinary, kept as
// secret as a private key) before the step's message is sent. It is not safe for concurrent use.
type Member struct {
	p     Params
	terms [32]byte
	trust Trust

	channel, mask *ecdh.PrivateKey
	self, seed    [32]byte // b_u; what the coefficients of shares are drawn from
	advert        Advert

	roster   *roster
	me       int
	shares   map[int][2]secret // after Mask: of s_v and b_v, for the neighbours in U2 and itself
	input    [32]byte          // digest of what was masked
	list     Survivors         // after Confirm
	released bool
}

// NewMember opens a session with fresh keys and returns the message for the server; holding says which of p.Holdings name
// holds. It panics without trust.Sign or trust.Verifier.
func NewMember(p Params, name string, holding int, trust Trust) (*Member, Advert, error) {
	if err := p.Validate(); err != nil {
		return nil, Advert{}, err
	}
	p = p.Defaults()
	if !nameFits(name) || holding < 0 || holding >= len(p.Holdings) {
		return nil, Advert{}, refuse(ErrAdvert, name, "name of %d bytes (expected 1 to 255), holding %d of %d", len(name), holding, len(p.Holdings))
	}
	trust.check()
	m := &Member{p: p, terms: p.digest(), trust: trust}
	random := trust.Random
	if random == nil {
		random = rand.Reader
	}
	var keys [4][32]byte
	for i := range keys {
		if _, err := io.ReadFull(random, keys[i][:]); err != nil {
			return nil, Advert{}, errors.Join(errors.New("secure aggregation: no randomness for keys"), err)
		}
	}
	if err := m.setKeys(keys); err != nil {
		return nil, Advert{}, err
	}
	m.advert = Advert{Name: name, Holding: holding, Self: commitment(m.self)}
	copy(m.advert.Channel[:], m.channel.PublicKey().Bytes())
	copy(m.advert.Mask[:], m.mask.PublicKey().Bytes())
	sig, err := trust.Sign(m.advert.signed(m.terms))
	if err != nil {
		return nil, Advert{}, errors.Join(errors.New("secure aggregation: signing an advert"), err)
	}
	m.advert.Sig = sig
	return m, m.advert, nil
}

func (m *Member) setKeys(k [4][32]byte) (err error) {
	if m.channel, err = ecdh.X25519().NewPrivateKey(k[0][:]); err != nil {
		return err
	}
	if m.mask, err = ecdh.X25519().NewPrivateKey(k[1][:]); err != nil {
		return err
	}
	m.self, m.seed = k[2], k[3]
	return nil
}

// commitment binds a member to b_u and, b_u being a uniform key, says nothing about it.
func commitment(b [32]byte) [32]byte { return derive(b[:], sealOfB, 0, 0, 0) }

// Advert returns the message of the first step again.
func (m *Member) Advert() Advert { return m.advert }

// Shared is what Share sends and what it learnt.
type Shared struct {
	Boxes      Boxes // one for each neighbour
	Neighbours int
	Pinned     int // of the neighbours: with fewer than t, only a coordinator that does not invent members is kept out
}

// Share checks U1 and splits this member's two secrets among its neighbours. The boxes depend on the member's secrets and on the
// adverts only. Refusals: too few adverts, a name or key that occurs twice, a signature that is not this session's, an advert of
// its own that is missing or changed, too few pinned neighbours, other adverts than last time.
func (m *Member) Share(adverts Adverts) (Shared, error) {
	r, err := newRoster(m.p, adverts)
	if err != nil {
		return Shared{}, err
	}
	if m.roster != nil && r.digest != m.roster.digest {
		return Shared{}, refuse(ErrConflict, "", "list of adverts: shares were made for another one")
	}
	me, ok := r.find(m.advert.Name)
	if !ok || !bytes.Equal(r.adverts[me].signed(m.terms), m.advert.signed(m.terms)) {
		return Shared{}, refuse(ErrAdvert, m.advert.Name, "this member's own advert is missing or was changed")
	}
	if err := parallel.Try(len(r.adverts), m.trust.Workers, func(i int) error {
		if i == me {
			return nil
		}
		return verify(m.trust.Verifier, ErrAdvert, r.adverts[i].Name, r.adverts[i].signed(m.terms), r.adverts[i].Sig)
	}); err != nil {
		return Shared{}, err
	}
	near := r.neighbours(me)
	out := Shared{Boxes: make(Boxes, len(near)), Neighbours: len(near)}
	for _, j := range near {
		if m.trust.Verifier.Pinned(r.adverts[j].Name) {
			out.Pinned++
		}
	}
	// This member holds a share, too. Of the m in its neighbourhood the coordinator can then have made up at most m − t, and t of
	// them with t others of two views would be 2t ≤ m + (m − t), which t > 2m/3 rules out.
	if need := m.p.Threshold - 1; m.trust.RequirePinned && out.Pinned < need {
		return Shared{}, refuse(ErrPinned, "", "%d of %d neighbours have keys that were exchanged outside: need %d", out.Pinned, len(near), need)
	}
	before := m.roster
	m.roster, m.me = r, me
	poly := m.polynomials()
	err = parallel.Try(len(near), m.trust.Workers, func(i int) error {
		j := near[i]
		aead, err := m.aead(j, me, j)
		if err != nil {
			return err
		}
		plain := make([]byte, 0, 64+aead.Overhead())
		for _, c := range poly {
			b := share(c, point(j)).bytes()
			plain = append(plain, b[:]...)
		}
		out.Boxes[i] = Box{m.advert.Name, r.adverts[j].Name, aead.Seal(plain[:0], make([]byte, aead.NonceSize()), plain, r.associated(me, j))}
		return nil
	})
	if err != nil {
		m.roster = before // nothing was shared
		return Shared{}, err
	}
	return out, nil
}

// Sent returns the coordinates of the body that leave this member, after Share: what it holds and enough others hold too.
func (m *Member) Sent() Ranges {
	if m.roster == nil {
		panic("secagg: what is sent is known after Share")
	}
	return m.roster.sent[m.advert.Holding]
}

// Holders returns how many of the members that are listed have each of the holdings, of all of U1 if list is nil; after Share.
// Names of nobody in U1 count for nothing.
func (m *Member) Holders(list Survivors) []int {
	if m.roster == nil {
		panic("secagg: who holds what is known after Share")
	}
	out := make([]int, len(m.p.Holdings))
	for _, a := range m.roster.adverts {
		if list == nil || slices.Contains(list, a.Name) {
			out[a.Holding]++
		}
	}
	return out
}

// polynomials returns those of s_u and b_u, the same ones each time: their coefficients are a key stream of the session.
func (m *Member) polynomials() (poly [2][]secret) {
	key := derive(m.seed[:], shareSeed, m.roster.session, 0, 0)
	var k keystream
	k.rekey(&key)
	k.seek(0)
	for i, s := range [2][32]byte{[32]byte(m.mask.Bytes()), m.self} {
		poly[i] = append(poly[i], pack(s))
		for range m.p.Threshold - 1 {
			poly[i] = append(poly[i], pack([32]byte(k.next(32))))
		}
	}
	return poly
}

// aead returns the cipher for the one box from → to, of which this member is one end and peer the other. Its key is used once,
// so the nonce may be 0.
func (m *Member) aead(peer, from, to int) (cipher.AEAD, error) {
	secret, err := agree(m.channel, m.roster.adverts[peer].Channel, m.roster.adverts[peer].Name)
	if err != nil {
		return nil, err
	}
	key := derive(secret, boxKey, m.roster.session, from, to)
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// associated is the data that a box is bound to: u ‖ v ‖ session, and everyone's keys.
func (r *roster) associated(from, to int) []byte {
	var w writer
	w.text(r.adverts[from].Name)
	w.text(r.adverts[to].Name)
	w.text(r.p.Session)
	w.key(r.digest)
	return w.b
}

// agree returns X25519(private, public). A public key of small order, for which everyone knows the result, is refused.
func agree(private *ecdh.PrivateKey, public [32]byte, peer string) ([]byte, error) {
	k, err := ecdh.X25519().NewPublicKey(public[:])
	if err != nil {
		return nil, refuse(ErrAdvert, peer, "public key: %v", err)
	}
	s, err := private.ECDH(k)
	if err != nil {
		return nil, refuse(ErrAdvert, peer, "public key: %v", err)
	}
	return s, nil
}

func verify(v Verifier, kind error, name string, msg, sig []byte) error {
	err := v.Verify(name, msg, sig)
	if err == nil {
		return nil
	}
	if errors.Is(err, ErrUnknown) {
		kind = ErrUnknown
	}
	return refuse(kind, name, "%v", err)
}

// Mask opens the boxes from U2, keeps the shares in them, and returns x under all masks: the words that the member holds less
// those that too few hold (see Params.Holders). x stays as it is. Refusals: a box that does not open, boxes from fewer than t−1
// neighbours, and a second call with other boxes or another vector: the same masks around two vectors would show their
// difference.
func (m *Member) Mask(boxes Boxes, x *Vector) (*Vector, error) {
	if m.roster == nil {
		return nil, refuse(ErrOrder, "", "masking comes after sharing")
	}
	r := m.roster
	if err := x.fits(m.p, m.p.Holdings[m.advert.Holding].Len()); err != nil {
		return nil, err
	}
	from, err := m.senders(boxes)
	if err != nil {
		return nil, err
	}
	b, err := x.MarshalBinary()
	if err != nil {
		return nil, err
	}
	input := sha256.Sum256(b)
	shares := make([][2]secret, len(boxes))
	bodies, extras := make([]mask, len(boxes), len(boxes)+1), make([]mask, len(boxes), len(boxes)+1)
	err = parallel.Try(len(boxes), m.trust.Workers, func(i int) error {
		j := from[i]
		if err := m.open(boxes[i], j, &shares[i]); err != nil {
			return err
		}
		pair, err := agree(m.mask, r.adverts[j].Mask, r.adverts[j].Name)
		if err != nil {
			return err
		}
		bodies[i], extras[i] = r.pairMasks(pair, m.me, j)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if m.shares != nil && (input != m.input || len(boxes)+1 != len(m.shares) || !hasAll(m.shares, from)) {
		return nil, refuse(ErrConflict, "", "request to mask: done for another vector or other peers, once a session")
	}
	if m.shares == nil {
		poly := m.polynomials()
		m.shares = map[int][2]secret{m.me: {share(poly[0], point(m.me)), share(poly[1], point(m.me))}}
		for i, j := range from {
			m.shares[j] = shares[i]
		}
		m.input = input
	}
	body, extra := r.selfMasks(m.self, m.me)
	held := m.p.Holdings[m.advert.Holding]
	return r.masked(x, held, r.sent[m.advert.Holding], append(bodies, body), append(extras, extra), m.trust.Workers), nil
}

func hasAll(shares map[int][2]secret, from []int) bool {
	for _, j := range from {
		if _, ok := shares[j]; !ok {
			return false
		}
	}
	return true
}

// senders returns the places of those whose boxes these are.
func (m *Member) senders(boxes Boxes) ([]int, error) {
	from, seen := make([]int, len(boxes)), map[int]bool{}
	for i, b := range boxes {
		j, ok := m.roster.find(b.From)
		switch {
		case !ok || !m.roster.adjacent(m.me, j):
			return nil, refuse(ErrUnknown, b.From, "sent a box but is no neighbour")
		case seen[j]:
			return nil, refuse(ErrBox, b.From, "two boxes")
		case b.To != m.advert.Name:
			return nil, refuse(ErrBox, b.From, "box for %q", b.To)
		}
		from[i], seen[j] = j, true
	}
	if len(boxes)+1 < m.p.Threshold {
		return nil, refuse(ErrTooFew, "", "boxes from %d neighbours: with this member's own, secrets need %d shares", len(boxes), m.p.Threshold)
	}
	return from, nil
}

func (m *Member) open(b Box, j int, shares *[2]secret) error {
	aead, err := m.aead(j, j, m.me)
	if err != nil {
		return err
	}
	plain, err := aead.Open(nil, make([]byte, aead.NonceSize()), b.Sealed, m.roster.associated(j, m.me))
	if err != nil || len(plain) != 64 {
		return refuse(ErrBox, b.From, "does not open: garbled, or made for another peer or session")
	}
	shares[0], shares[1] = pack([32]byte(plain[:32])), pack([32]byte(plain[32:]))
	return nil
}

// pairMasks returns what member i adds for member j.
func (r *roster) pairMasks(pair []byte, i, j int) (body, extra mask) {
	a, b := min(i, j)+1, max(i, j)+1
	return mask{derive(pair, pairBody, r.session, a, b), i > j, r.common(i, j)},
		mask{derive(pair, pairExtra, r.session, a, b), i > j, nil}
}

// selfMasks returns what member i adds for itself.
func (r *roster) selfMasks(b [32]byte, i int) (body, extra mask) {
	return mask{key: derive(b[:], selfBody, r.session, i+1, i+1)}, mask{key: derive(b[:], selfExtra, r.session, i+1, i+1)}
}

func (r *roster) masked(x *Vector, held, sent Ranges, bodies, extras []mask, workers int) *Vector {
	y := &Vector{Extra: slices.Clone(x.Extra)}
	if r.p.Bits == 32 {
		y.Body32 = gather(x.Body32, held, sent)
		apply(y.Body32, sent, bodies, workers)
	} else {
		y.Body64 = gather(x.Body64, held, sent)
		apply(y.Body64, sent, bodies, workers)
	}
	apply(y.Extra, All(len(y.Extra)), extras, workers)
	return y
}

// Confirm agrees to the list U3 of those whose vectors are in the sum, by signing it. Refusals: a list of too few, or of too few
// of this member's neighbours, without itself, with a name that took no part in the steps before, or another list than the one
// that it signed.
func (m *Member) Confirm(list Survivors) (Confirmation, error) {
	if m.shares == nil {
		return Confirmation{}, refuse(ErrOrder, "", "confirming survivors comes after masking")
	}
	if m.list != nil && !slices.Equal(list, m.list) {
		return Confirmation{}, refuse(ErrConflict, "", "list of survivors: this member has signed another one")
	}
	if err := m.accept(list); err != nil {
		return Confirmation{}, err
	}
	c := Confirmation{From: m.advert.Name, List: m.roster.listDigest(list)}
	sig, err := m.trust.Sign(c.signed())
	if err != nil {
		return Confirmation{}, errors.Join(errors.New("secure aggregation: signing a list of survivors"), err)
	}
	c.Sig = sig
	m.list = slices.Clone(list)
	return c, nil
}

// accept checks U3 ⊆ U2 as far as the member can see, and its size here and everywhere.
func (m *Member) accept(list Survivors) error {
	in, err := m.roster.survivors(list)
	if err != nil {
		return err
	}
	if !in[m.me] {
		return refuse(ErrList, m.advert.Name, "this member sent its vector and is not among the survivors")
	}
	near := 1
	for _, j := range m.roster.neighbours(m.me) {
		if !in[j] {
			continue
		}
		near++
		if _, ok := m.shares[j]; !ok {
			return refuse(ErrList, m.roster.adverts[j].Name, "listed as a survivor but never sent its shares")
		}
	}
	if near < m.p.Threshold {
		return refuse(ErrTooFew, "", "%d survivors in this member's neighbourhood: expected %d", near, m.p.Threshold)
	}
	return nil
}

// Unmask gives up one share for each neighbour of U2 and for itself: of b_v if v is among the survivors, else of s_v. It does so
// for the list that it confirmed and no other, and only with the confirmations of enough survivors. Refusals name the peer whose
// signature is wrong or stands under another list.
func (m *Member) Unmask(list Survivors, confirmations Confirmations) (Reveal, error) {
	if m.list == nil {
		return Reveal{}, refuse(ErrOrder, "", "unmasking comes after confirming the survivors")
	}
	if !slices.Equal(list, m.list) {
		return Reveal{}, refuse(ErrConflict, "", "list of survivors: this member has signed another one")
	}
	if err := m.roster.confirmed(m.trust.Verifier, list, confirmations, m.trust.Workers); err != nil {
		return Reveal{}, err
	}
	out := Reveal{From: m.advert.Name}
	for _, j := range slices.SortedFunc(maps.Keys(m.shares), cmp.Compare) {
		v := Revealed{Of: m.roster.adverts[j].Name, Kind: MaskKey, Share: m.shares[j][0].bytes()}
		if _, ok := slices.BinarySearch(list, v.Of); ok {
			v.Kind, v.Share = SelfMask, m.shares[j][1].bytes()
		}
		out.Shares = append(out.Shares, v)
	}
	m.released = true
	return out, nil
}

// Released reports whether shares were given up, that is whether the vector may have become part of a sum that is known.
func (m *Member) Released() bool { return m.released }

// confirmed checks that enough survivors have signed this list.
func (r *roster) confirmed(v Verifier, list Survivors, confirmations Confirmations, workers int) error {
	digest := r.listDigest(list)
	seen := map[string]bool{}
	for _, c := range confirmations {
		if _, ok := slices.BinarySearch(list, c.From); !ok {
			return refuse(ErrUnknown, c.From, "confirmed a list of survivors that it is not on")
		}
		if seen[c.From] {
			return refuse(ErrList, c.From, "two confirmations")
		}
		seen[c.From] = true
	}
	if len(seen) < r.p.Survivors {
		return refuse(ErrTooFew, "", "%d confirmations of the survivors: expected %d", len(seen), r.p.Survivors)
	}
	return parallel.Try(len(confirmations), workers, func(i int) error {
		c := &confirmations[i]
		if err := verify(v, ErrList, c.From, c.signed(), c.Sig); err != nil {
			return err
		}
		if c.List != digest {
			return refuse(ErrList, c.From, "has signed another list of survivors")
		}
		return nil
	})
}
