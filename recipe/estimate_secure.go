package recipe

import (
	"cmp"
	"crypto/ed25519"
	"fmt"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/secure/secagg"
	"github.com/cohort-learning/cohort/weights"
)

// vectorBytes is what a member's vector of secure sums takes: a word for each number of the float32 tensors in what it would
// send in the open, and 64 bits for each of the others, of the scalars and of the weight.
func (s Secure) vectorBytes(scalars []string, ph federated.Phase, t federated.Task) float64 {
	word := float64(cmp.Or(s.Bits, 64)) / 8
	n := 8 * float64(len(scalars)+1)
	for _, f := range ph.Folds {
		like := f.Like
		if f.Indexed && t.Index != nil {
			like = t.Index.Like(like)
		}
		for _, x := range like.All() {
			if x.DType() == weights.Float64 {
				n += 8 * float64(x.Len())
			} else {
				n += word * float64(x.Len())
			}
		}
	}
	return n
}

// session is what a session of secure sums costs beside vectors, of n members: each of them moves bytes of its own, some for each
// member that it reads about, and some for each with which it shares secrets; and computes for each of the latter.
type session struct {
	own, each, shared float64 // bytes, both ways
	inbox             float64 // of shared, those that come with the task of the method's phase
	pair, word        float64 // seconds for a neighbour, and for a word of the vector and neighbour
}

// protocol returns the bytes of the protocol in a session of n members with so many neighbours each, and those of all inboxes.
func (s session) protocol(n, neighbours float64) (bytes, inboxes float64) {
	return n * (s.own + s.each*n + (s.shared-s.inbox)*neighbours), n * s.inbox * neighbours
}

// seconds is what the members of a session compute, all together.
func (s session) seconds(n, neighbours, words float64) float64 {
	return n * neighbours * (s.pair + s.word*words)
}

// neighbours is with how many others a member of a session of n shares secrets.
func (s Secure) neighbours(n int) (int, error) {
	if !s.Sparse {
		return n - 1, nil
	}
	model := secagg.Malicious
	if s.Curious {
		model = secagg.Curious
	}
	o := s.options()
	c, err := secagg.Choose(n, o.Corrupt, o.Dropout, model)
	if err != nil {
		return 0, err
	}
	return c.Neighbourhood() - 1, nil
}

// rehearse plays sessions of a few members and returns what they cost.
func rehearse() (session, error) {
	const few, more, words = 4, 8, 1 << 16
	a, err := playSession(few, 1)
	if err != nil {
		return session{}, err
	}
	b, err := playSession(more, 1)
	if err != nil {
		return session{}, err
	}
	long, err := playSession(more, words)
	if err != nil {
		return session{}, err
	}
	s := session{
		each:   (b.lists/more - a.lists/few) / (more - few),
		shared: (b.shares/more - a.shares/few) / (more - few),
		inbox:  (b.inbox/more - a.inbox/few) / (more - few),
		pair:   b.took.Seconds() / (more * (more - 1)),
	}
	s.own = b.lists/more - s.each*more + b.shares/more - s.shared*(more-1)
	s.word = max(0, (long.took-b.took).Seconds()) / (more * (more - 1) * words)
	return s, nil
}

// played is what one session moved and how long its members computed.
type played struct {
	lists, shares, inbox float64
	took                 time.Duration
}

// book is the public keys of all members of a rehearsal.
type book map[string]ed25519.PublicKey

func (b book) Pinned(string) bool { return true }

func (b book) Verify(name string, msg, sig []byte) error {
	if !ed25519.Verify(b[name], msg, sig) {
		return fmt.Errorf("the signature is not %s's", name)
	}
	return nil
}

// playSession plays a session of n members on the complete graph, all of whom stay.
func playSession(n, words int) (out played, err error) {
	p := secagg.Params{Session: "estimate", Members: n, Threshold: secagg.Malicious.Least(n), Size: words, Extra: 1, MaxWeight: 1 << 20}.Defaults()
	srv, err := secagg.NewServer(p, nil)
	if err != nil {
		return out, err
	}
	size := func(m interface{ MarshalBinary() ([]byte, error) }) float64 {
		b, e := m.MarshalBinary()
		if err == nil {
			err = e
		}
		return float64(len(b))
	}
	people, names, members := book{}, make([]string, n), make([]*secagg.Member, n)
	began := time.Now()
	for i := range n {
		names[i] = fmt.Sprintf("client-%03d", i)
		public, key, e := ed25519.GenerateKey(nil)
		if e != nil {
			return out, e
		}
		people[names[i]] = public
		m, advert, e := secagg.NewMember(p, names[i], 0, secagg.Trust{Verifier: people,
			Sign: func(msg []byte) ([]byte, error) { return ed25519.Sign(key, msg), nil }})
		if e == nil {
			e = srv.Advert(advert)
		}
		if e != nil {
			return out, e
		}
		members[i] = m
		out.lists += size(advert)
	}
	adverts, e := srv.Adverts()
	if e != nil {
		return out, e
	}
	for i, m := range members {
		out.lists += size(adverts)
		shared, e := m.Share(adverts)
		if e == nil {
			e = srv.Boxes(names[i], shared.Boxes)
		}
		if e != nil {
			return out, e
		}
		out.shares += size(shared.Boxes)
	}
	for i, m := range members {
		boxes, e := srv.Inbox(names[i])
		if e != nil {
			return out, e
		}
		b := size(boxes)
		out.shares, out.inbox = out.shares+b, out.inbox+b
		y, e := m.Mask(boxes, p.NewVector(p.Size))
		if e == nil {
			e = srv.Masked(names[i], y)
		}
		if e != nil {
			return out, e
		}
	}
	survivors, e := srv.Survivors()
	if e != nil {
		return out, e
	}
	for _, m := range members {
		c, e := m.Confirm(survivors)
		if e == nil {
			e = srv.Confirm(c)
		}
		if e != nil {
			return out, e
		}
		out.lists += size(survivors) + size(c)
	}
	confirmations, e := srv.Confirmations()
	if e != nil {
		return out, e
	}
	for _, m := range members {
		v, e := m.Unmask(survivors, confirmations)
		if e == nil {
			e = srv.Reveal(v)
		}
		if e != nil {
			return out, e
		}
		out.lists += size(confirmations)
		out.shares += size(v)
	}
	_, e = srv.Recover(0)
	out.took = time.Since(began)
	if err == nil {
		err = e
	}
	return out, err
}
