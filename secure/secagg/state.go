package secagg

import (
	"cmp"
	"maps"
	"slices"
)

const stateVersion = 1

// How far a member has come, as its state says it.
const (
	keyed byte = iota
	shared
	masked
	confirmed
	released
)

// MarshalBinary returns everything that the member must not forget, private keys included.
func (m *Member) MarshalBinary() ([]byte, error) {
	var w writer
	w.u8(stateVersion)
	w.key(m.terms)
	w.raw(m.channel.Bytes())
	w.raw(m.mask.Bytes())
	w.key(m.self)
	w.key(m.seed)
	m.advert.write(&w)
	w.bytes(m.advert.Sig)
	stage := keyed
	switch {
	case m.released:
		stage = released
	case m.list != nil:
		stage = confirmed
	case m.shares != nil:
		stage = masked
	case m.roster != nil:
		stage = shared
	}
	w.u8(stage)
	if stage >= shared {
		w.u32(len(m.roster.adverts))
		for i := range m.roster.adverts {
			m.roster.adverts[i].write(&w)
		}
	}
	if stage >= masked {
		w.u32(len(m.shares))
		for _, j := range slices.SortedFunc(maps.Keys(m.shares), cmp.Compare) {
			w.u32(j)
			w.key(m.shares[j][0].bytes())
			w.key(m.shares[j][1].bytes())
		}
		w.key(m.input)
	}
	if stage >= confirmed {
		w.names(m.list)
	}
	return w.b, nil
}

// RestoreMember continues a session under the same terms from what MarshalBinary returned.
func RestoreMember(p Params, trust Trust, state []byte) (*Member, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	p = p.Defaults()
	trust.check()
	m := &Member{p: p, terms: p.digest(), trust: trust}
	r := reader{b: state}
	r.version(stateVersion)
	terms := r.key()
	var keys [4][32]byte
	for i := range keys {
		keys[i] = r.key()
	}
	m.advert.read(&r)
	m.advert.Sig = r.bytes()
	stage := r.u8()
	if stage > released {
		r.fail("is at an unknown step")
	}
	if r.bad == "" && terms != m.terms {
		return nil, refuse(ErrConflict, m.advert.Name, "state: it is of a session on other terms")
	}
	if err := m.setKeys(keys); err != nil {
		return nil, err
	}
	var adverts Adverts
	if stage >= shared {
		adverts = make(Adverts, r.count(2+4+3*32))
		for i := range adverts {
			adverts[i].read(&r)
		}
	}
	if stage >= masked {
		m.shares = map[int][2]secret{}
		last := -1
		for range r.count(4 + 64) {
			j := r.u32()
			if j <= last || j >= len(adverts) {
				r.fail("has shares that nobody sent")
			}
			last = j
			s, b := r.key(), r.key()
			m.shares[j] = [2]secret{pack(s), pack(b)}
		}
		m.input = r.key()
	}
	if stage >= confirmed {
		m.list = r.names()
	}
	m.released = stage == released
	if err := r.end("state of a member"); err != nil {
		return nil, err
	}
	if stage >= shared {
		ros, err := newRoster(p, adverts)
		if err != nil {
			return nil, err
		}
		me, ok := ros.find(m.advert.Name)
		if !ok || !adverts.sorted() {
			return nil, refuse(ErrMalformed, m.advert.Name, "state lists adverts out of order or without its owner's")
		}
		m.roster, m.me = ros, me
	}
	return m, nil
}
