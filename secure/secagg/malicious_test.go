package secagg_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/secure/secagg"
)

// refused checks the kind of a refusal and that it names the peer.
func refused(t *testing.T, err error, kind error, peer string) {
	t.Helper()
	var r *secagg.Refusal
	if !errors.Is(err, kind) || !errors.As(err, &r) {
		t.Errorf("got %v, want a refusal that is %q", err, kind)
		return
	}
	if r.Peer != peer || r.Reason == "" || !strings.Contains(err.Error(), r.Reason) {
		t.Errorf("refusal %q of %q, want it to name %q and a reason", err, r.Peer, peer)
	}
}

func five(t *testing.T, session string) *session {
	t.Helper()
	return open(t, secagg.Params{Session: session, Members: 5, Threshold: 4, Size: 4, Extra: 1})
}

// adverts opens all members and returns the honest list.
func (s *session) adverts() secagg.Adverts {
	s.t.Helper()
	for i := range s.p.Members {
		m, a, err := secagg.NewMember(s.p, name(i), s.holding(i), s.book.trust(name(i)))
		if err != nil {
			s.t.Fatal(err)
		}
		s.members[name(i)] = m
		if err := s.server.Advert(a); err != nil {
			s.t.Fatal(err)
		}
	}
	list, err := s.server.Adverts()
	if err != nil {
		s.t.Fatal(err)
	}
	return list
}

func TestForgedAdverts(t *testing.T) {
	old := five(t, "yesterday").adverts()
	for _, tt := range []struct {
		what   string
		change func(l secagg.Adverts) secagg.Adverts
		kind   error
		peer   string
	}{
		{"keys of an earlier session", func(l secagg.Adverts) secagg.Adverts { l[3] = old[3]; return l }, secagg.ErrAdvert, name(3)},
		{"keys that the server made", func(l secagg.Adverts) secagg.Adverts { l[3].Mask[0] ^= 1; return l }, secagg.ErrAdvert, name(3)},
		{"another self mask", func(l secagg.Adverts) secagg.Adverts { l[2].Self[0] ^= 1; return l }, secagg.ErrAdvert, name(2)},
		{"another holding", func(l secagg.Adverts) secagg.Adverts { l[2].Holding = 1; return l }, secagg.ErrAdvert, name(2)},
		{"keys swapped between peers", func(l secagg.Adverts) secagg.Adverts {
			l[2].Channel, l[3].Channel, l[2].Mask, l[3].Mask = l[3].Channel, l[2].Channel, l[3].Mask, l[2].Mask
			l[2].Sig, l[3].Sig = l[3].Sig, l[2].Sig
			return l
		}, secagg.ErrAdvert, name(2)},
		{"names swapped between peers", func(l secagg.Adverts) secagg.Adverts {
			l[2].Name, l[3].Name = l[3].Name, l[2].Name
			return l
		}, secagg.ErrAdvert, name(2)},
		{"an invented peer", func(l secagg.Adverts) secagg.Adverts {
			l[4].Name = "nobody"
			return l
		}, secagg.ErrUnknown, "nobody"},
		{"no signature", func(l secagg.Adverts) secagg.Adverts { l[4].Sig = nil; return l }, secagg.ErrAdvert, name(4)},
		{"one peer twice", func(l secagg.Adverts) secagg.Adverts { l[4] = l[3]; return l }, secagg.ErrAdvert, name(3)},
		{"one key twice", func(l secagg.Adverts) secagg.Adverts { l[4].Mask = l[3].Channel; return l }, secagg.ErrAdvert, name(4)},
		{"another key of one's own", func(l secagg.Adverts) secagg.Adverts { l[0].Mask[0] ^= 1; return l }, secagg.ErrAdvert, name(0)},
		{"oneself missing", func(l secagg.Adverts) secagg.Adverts { return l[1:] }, secagg.ErrAdvert, name(0)},
		{"too few", func(l secagg.Adverts) secagg.Adverts { return l[:3] }, secagg.ErrTooFew, ""},
		{"too many", func(l secagg.Adverts) secagg.Adverts {
			a := l[4]
			a.Name = "one more"
			return append(l, a)
		}, secagg.ErrTooFew, ""},
	} {
		t.Run(tt.what, func(t *testing.T) {
			s := five(t, "today")
			honest := s.adverts()
			list := tt.change(slices.Clone(honest))
			if tt.what == "an invented peer" {
				list[4].Sig = sign("nobody", []byte("whatever"))
			}
			_, err := s.members[name(0)].Share(list)
			refused(t, err, tt.kind, tt.peer)
			if _, err := s.members[name(0)].Share(honest); err != nil {
				t.Errorf("the honest list after that: %v", err)
			}
		})
	}
	// A point of small order, which makes a pair's key known to everyone, under a good signature.
	s := five(t, "today")
	honest := s.adverts()
	list := slices.Clone(honest)
	var signed []byte
	trust := s.book.trust(name(3))
	trust.Sign = func(msg []byte) ([]byte, error) {
		signed = msg
		return sign(name(3), msg), nil
	}
	_, a, err := secagg.NewMember(s.p, name(3), 0, trust)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(signed), string(a.Channel[:]))
	clear(signed[at : at+32])
	a.Channel, a.Sig = [32]byte{}, sign(name(3), signed)
	list[3] = a
	_, err = s.members[name(0)].Share(list)
	refused(t, err, secagg.ErrAdvert, name(3))
	if !strings.Contains(err.Error(), "public key") {
		t.Errorf("refused for another reason: %v", err)
	}
	if _, err := s.members[name(0)].Share(honest); err != nil {
		t.Errorf("the honest list after that: %v", err)
	}
}

func TestOtherAdvertsLater(t *testing.T) {
	s := five(t, "today")
	list := s.adverts()
	if _, err := s.members[name(0)].Share(list); err != nil {
		t.Fatal(err)
	}
	_, err := s.members[name(0)].Share(list[:4])
	refused(t, err, secagg.ErrConflict, "")
}

func TestOtherTerms(t *testing.T) {
	s := five(t, "today")
	list := slices.Clone(s.adverts())
	p := s.p
	p.Clip = 2 // the server tells member 0 other terms
	m, a, err := secagg.NewMember(p, name(0), 0, s.book.trust(name(0)))
	if err != nil {
		t.Fatal(err)
	}
	list[0] = a
	_, err = m.Share(list)
	refused(t, err, secagg.ErrAdvert, name(1))
	refused(t, s.server.Advert(a), secagg.ErrConflict, name(0))
}

func TestPinned(t *testing.T) {
	s := five(t, "today")
	s.p.Threshold, s.p.Model = 3, secagg.Curious
	s.server, _ = secagg.NewServer(s.p, s.book)
	list := s.adverts()
	s.book.unpinned[name(1)] = true
	trust := s.book.trust(name(0))
	trust.RequirePinned = true
	for _, want := range []int{3, 2, 1} {
		state, err := s.members[name(0)].MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		m, err := secagg.RestoreMember(s.p, trust, state)
		if err != nil {
			t.Fatal(err)
		}
		switch sh, err := m.Share(list); {
		case want < 2:
			refused(t, err, secagg.ErrPinned, "")
		case err != nil || sh.Pinned != want || sh.Neighbours != 4:
			t.Errorf("%d of %d pinned (%v), want %d of 4", sh.Pinned, sh.Neighbours, err, want)
		}
		s.book.unpinned[name(5-want)] = true
	}
	if sh, err := s.members[name(0)].Share(list); err != nil || sh.Pinned != 0 {
		t.Errorf("a member that does not insist: %d pinned, %v", sh.Pinned, err)
	}
}

func TestForgedBoxes(t *testing.T) {
	other := five(t, "yesterday")
	if err := other.upTo(shares, all); err != nil {
		t.Fatal(err)
	}
	old, err := other.server.Inbox(name(0))
	if err != nil {
		t.Fatal(err)
	}
	s := five(t, "today")
	if err := s.upTo(shares, all); err != nil {
		t.Fatal(err)
	}
	inbox := func(i int) secagg.Boxes {
		b, err := s.server.Inbox(name(i))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	m := s.members[name(0)]
	x := s.input(0)
	for _, tt := range []struct {
		what  string
		boxes secagg.Boxes
		kind  error
		peer  string
	}{
		{"of another session", append(secagg.Boxes{old[0]}, inbox(0)[1:]...), secagg.ErrBox, name(1)},
		{"for another receiver", append(secagg.Boxes{inbox(2)[1]}, inbox(0)[1:]...), secagg.ErrBox, name(1)},
		{"for another receiver, readdressed", append(secagg.Boxes{{From: name(1), To: name(0), Sealed: inbox(2)[1].Sealed}}, inbox(0)[1:]...), secagg.ErrBox, name(1)},
		{"of another sender", append(secagg.Boxes{{From: name(1), To: name(0), Sealed: inbox(0)[1].Sealed}}, inbox(0)[1:]...), secagg.ErrBox, name(1)},
		{"of this member itself", append(secagg.Boxes{{From: name(0), To: name(0), Sealed: inbox(0)[1].Sealed}}, inbox(0)[1:]...), secagg.ErrUnknown, name(0)},
		{"of a stranger", append(secagg.Boxes{{From: "nobody", To: name(0)}}, inbox(0)[1:]...), secagg.ErrUnknown, "nobody"},
		{"twice", append(inbox(0), inbox(0)[2]), secagg.ErrBox, name(3)},
		{"too few", inbox(0)[:2], secagg.ErrTooFew, ""},
	} {
		t.Run(tt.what, func(t *testing.T) {
			_, err := m.Mask(tt.boxes, x)
			refused(t, err, tt.kind, tt.peer)
		})
	}
	// Nothing of that has harmed the member: it still masks, once.
	y, err := m.Mask(inbox(0), x)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := m.Mask(inbox(0), x); err != nil || !slices.Equal(again.Body64, y.Body64) {
		t.Errorf("the same request again: %v", err)
	}
	_, err = m.Mask(inbox(0)[:3], x)
	refused(t, err, secagg.ErrConflict, "")
	// The difference attack: the same masks around another vector.
	x.Body64[0]++
	_, err = m.Mask(inbox(0), x)
	refused(t, err, secagg.ErrConflict, "")
}

func TestTwoLists(t *testing.T) {
	s := five(t, "today")
	lost := func(i int) int { return []int{never, never, never, never, shares}[i] }
	if err := s.upTo(masked, lost); err != nil {
		t.Fatal(err)
	}
	list, err := s.server.Survivors()
	if err != nil {
		t.Fatal(err)
	}
	m := s.members[name(0)]
	bad := func(l secagg.Survivors, kind error, peer string) {
		t.Helper()
		_, err := m.Confirm(l)
		refused(t, err, kind, peer)
	}
	bad(list[:3], secagg.ErrTooFew, "")
	bad(secagg.Survivors{name(1), name(2), name(3), name(4)}, secagg.ErrList, name(0))
	bad(append(slices.Clone(list), name(4)), secagg.ErrList, name(4)) // never shared: U3 ⊄ U2
	bad(append(slices.Clone(list), "nobody"), secagg.ErrList, "nobody")
	bad(secagg.Survivors{name(0), name(0), name(1), name(2)}, secagg.ErrList, name(0))
	_, err = m.Unmask(list, nil)
	refused(t, err, secagg.ErrOrder, "")
	if _, err := m.Confirm(list); err != nil {
		t.Fatal(err)
	}
}

// The attack that double masking is about: one list names member 4 as a survivor, another as lost. Shares of both of its secrets
// would open its vector.
func TestBothSharesOfOnePeer(t *testing.T) {
	s := five(t, "today")
	if err := s.upTo(masked, all); err != nil {
		t.Fatal(err)
	}
	full := secagg.Survivors{name(0), name(1), name(2), name(3), name(4)}
	less := full[:4]
	collect := func(l secagg.Survivors, who ...int) (out secagg.Confirmations) {
		for _, i := range who {
			c, err := s.members[name(i)].Confirm(l)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, c)
		}
		return out
	}
	good := collect(full, 0, 1, 2, 4)
	_, err := s.members[name(0)].Confirm(less)
	refused(t, err, secagg.ErrConflict, "")

	other := collect(less, 3) // one member was told the other list
	m := s.members[name(0)]
	mixed := append(slices.Clone(good[:3]), other[0])
	_, err = m.Unmask(full, mixed)
	refused(t, err, secagg.ErrList, name(3))
	forged := slices.Clone(good)
	forged[2].Sig = sign("nobody", nil)
	_, err = m.Unmask(full, forged)
	refused(t, err, secagg.ErrList, name(2))
	relabelled := slices.Clone(mixed)
	relabelled[3].List = good[0].List
	_, err = m.Unmask(full, relabelled)
	refused(t, err, secagg.ErrList, name(3))
	_, err = m.Unmask(full, append(slices.Clone(good[:3]), good[0]))
	refused(t, err, secagg.ErrList, name(0))
	_, err = m.Unmask(full, good[:3])
	refused(t, err, secagg.ErrTooFew, "")
	stranger := slices.Clone(good)
	stranger[3].From = "nobody"
	_, err = m.Unmask(full, stranger)
	refused(t, err, secagg.ErrUnknown, "nobody")
	if m.Released() {
		t.Error("shares count as released after refusals only")
	}

	v, err := m.Unmask(full, good)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range v.Shares {
		if x.Kind != secagg.SelfMask {
			t.Errorf("share of kind %d of survivor %s", x.Kind, x.Of)
		}
	}
	_, err = m.Unmask(less, other)
	refused(t, err, secagg.ErrConflict, "")

	// Neither does it after it was killed and has come back.
	state, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	back, err := secagg.RestoreMember(s.p, s.book.trust(name(0)), state)
	if err != nil {
		t.Fatal(err)
	}
	if !back.Released() {
		t.Error("a restored member has forgotten that it gave up shares")
	}
	_, err = back.Confirm(less)
	refused(t, err, secagg.ErrConflict, "")
	_, err = back.Unmask(less, other)
	refused(t, err, secagg.ErrConflict, "")
	again, err := back.Unmask(full, good)
	if err != nil || !slices.Equal(again.Shares, v.Shares) {
		t.Errorf("the same request again: %v", err)
	}
}

// Members that lie to the server are named, and a wrong share does no harm while there are enough right ones.
func TestServerRefuses(t *testing.T) {
	s := five(t, "today")
	list := s.adverts()
	forged := list[1]
	forged.Mask[0] ^= 1
	refused(t, s.server.Advert(forged), secagg.ErrConflict, name(1))
	refused(t, s.server.Masked(name(1), s.input(1)), secagg.ErrOrder, name(1))
	var boxes [5]secagg.Boxes
	for i := range 5 {
		sh, err := s.members[name(i)].Share(list)
		if err != nil {
			t.Fatal(err)
		}
		boxes[i] = sh.Boxes
		if i == 4 {
			refused(t, s.server.Boxes(name(4), boxes[3]), secagg.ErrBox, name(4))
			refused(t, s.server.Boxes(name(4), boxes[4][1:]), secagg.ErrBox, name(4))
		}
		if err := s.server.Boxes(name(i), boxes[i]); err != nil {
			t.Fatal(err)
		}
	}
	changed := slices.Clone(boxes[4])
	changed[0].Sealed = []byte("other")
	refused(t, s.server.Boxes(name(4), changed), secagg.ErrConflict, name(4))
	if err := s.server.Boxes(name(4), boxes[4]); err != nil {
		t.Errorf("the same boxes again: %v", err)
	}
	refused(t, s.server.Boxes("nobody", boxes[4]), secagg.ErrUnknown, "nobody")
	for i := range 5 {
		in, err := s.server.Inbox(name(i))
		if err != nil {
			t.Fatal(err)
		}
		x := s.input(i)
		s.inputs[name(i)] = x
		y, err := s.members[name(i)].Mask(in, x)
		if err != nil {
			t.Fatal(err)
		}
		refused(t, s.server.Masked(name(i), &secagg.Vector{Body64: y.Body64[1:], Extra: y.Extra}), secagg.ErrMalformed, "")
		if err := s.server.Masked(name(i), y); err != nil {
			t.Fatal(err)
		}
		refused(t, s.server.Masked(name(i), y), secagg.ErrConflict, name(i))
	}
	survivors, err := s.server.Survivors()
	if err != nil {
		t.Fatal(err)
	}
	refused(t, s.server.Masked(name(0), s.input(0)), secagg.ErrOrder, name(0))
	for i := range 5 {
		c, err := s.members[name(i)].Confirm(survivors)
		if err != nil {
			t.Fatal(err)
		}
		bad := c
		bad.Sig = []byte("x")
		refused(t, s.server.Confirm(bad), secagg.ErrList, name(i))
		bad = c
		bad.List[0] ^= 1
		refused(t, s.server.Confirm(bad), secagg.ErrList, name(i))
		if err := s.server.Confirm(c); err != nil {
			t.Fatal(err)
		}
	}
	confirmations, err := s.server.Confirmations()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		v, err := s.members[name(i)].Unmask(survivors, confirmations)
		if err != nil {
			t.Fatal(err)
		}
		wrong := v
		wrong.Shares = slices.Clone(v.Shares)
		wrong.Shares[0].Kind = secagg.MaskKey
		refused(t, s.server.Reveal(wrong), secagg.ErrShares, name(i))
		if i == 2 {
			v.Shares[1].Share[5] ^= 1 // a lie about member 1
		}
		if i == 4 {
			_, err = s.server.Recover(0)
			refused(t, err, secagg.ErrShares, name(1)) // four shares, one of them wrong
		}
		if err := s.server.Reveal(v); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.server.Recover(0)
	if err != nil {
		t.Fatal(err)
	}
	s.check(got, all)
}

// A server that shows one member another list of adverts parts it from the others: no box opens.
func TestTwoViewsOfTheAdverts(t *testing.T) {
	s := five(t, "today")
	list := s.adverts()
	var boxes secagg.Boxes
	for i := 1; i < 5; i++ {
		other, err := s.members[name(i)].Share(list)
		if err != nil {
			t.Fatal(err)
		}
		boxes = append(boxes, other.Boxes[0])
	}
	if _, err := s.members[name(0)].Share(list[:4]); err != nil {
		t.Fatal(err)
	}
	_, err := s.members[name(0)].Mask(boxes[:3], s.input(0))
	refused(t, err, secagg.ErrBox, name(1))
}

// With nothing but extra words the number of survivors still counts.
func TestTooFewSurvivorsOfExtraWords(t *testing.T) {
	s := open(t, secagg.Params{Members: 5, Threshold: 4, Extra: 1})
	lost := func(i int) int { return []int{never, masked, never, masked, never}[i] }
	if err := s.upTo(masked, lost); err != nil {
		t.Fatal(err)
	}
	_, err := s.server.Survivors()
	refused(t, err, secagg.ErrTooFew, "")
}
