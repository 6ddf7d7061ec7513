package secagg

import (
	"crypto/ecdh"
	"fmt"
	"slices"

	"github.com/cohort-learning/cohort/parallel"
)

// Sum is what a session yields.
type Sum struct {
	Vector              // the whole body, words that nobody sent are 0
	Members   Survivors // whose vectors it is the sum of
	Sent      Ranges    // words of the body that are sums of at least Params.Holders vectors
	Recovered int       // members whose pair masks had to be removed
}

// Recover removes the masks from the sum, with up to workers goroutines (0: one a processor):
//
//	z = Σ_{u∈U3} y_u − Σ_{u∈U3} PRG(b_u) − Σ_{u∈U3, v∈U2∖U3} ±PRG(s_uv),   + where v > u, as u added it.
//
// The server can be asked again when more shares have come. Refusals: fewer than t shares of a secret; shares that recover
// something else than was advertised, which says whose secret it is but not whose share is wrong. A few wrong shares are passed
// over where there are more than t.
func (s *Server) Recover(workers int) (*Sum, error) {
	if s.list == nil {
		return nil, refuse(ErrOrder, "", "recovery before the survivors are fixed")
	}
	if len(s.opened) < s.p.Threshold {
		return nil, refuse(ErrTooFew, "", "%d members have revealed shares: secrets need %d", len(s.opened), s.p.Threshold)
	}
	r := s.roster
	secrets, err := s.secrets(workers)
	if err != nil {
		return nil, err
	}
	var bodies, extras []mask
	type pair struct{ u, v int }
	var pairs []pair
	out := &Sum{Vector: *s.sum.Clone(), Members: slices.Clone(s.list)}
	for v := range r.adverts {
		switch {
		case s.inSum[v]:
			b, e := r.selfMasks(secrets[v], v)
			b.minus, e.minus = true, true
			b.over = r.sent[r.adverts[v].Holding]
			bodies, extras = append(bodies, b), append(extras, e)
		case s.u2[v]:
			before := len(pairs)
			for _, u := range r.neighbours(v) {
				if s.inSum[u] {
					pairs = append(pairs, pair{u, v})
				}
			}
			if len(pairs) > before {
				out.Recovered++
			}
		}
	}
	at := len(bodies)
	bodies, extras = slices.Grow(bodies, len(pairs))[:at+len(pairs)], slices.Grow(extras, len(pairs))[:at+len(pairs)]
	keys := map[int]*ecdh.PrivateKey{}
	for _, p := range pairs {
		if keys[p.v] == nil {
			b := secrets[p.v]
			if keys[p.v], err = ecdh.X25519().NewPrivateKey(b[:]); err != nil {
				return nil, refuse(ErrShares, r.adverts[p.v].Name, "recovered key: %v", err)
			}
		}
	}
	err = parallel.Try(len(pairs), workers, func(i int) error {
		p := pairs[i]
		shared, err := agree(keys[p.v], r.adverts[p.u].Mask, r.adverts[p.u].Name)
		if err != nil {
			return err
		}
		b, e := r.pairMasks(shared, p.u, p.v) // as u added it
		b.minus, e.minus = !b.minus, !e.minus
		if b.over == nil {
			b.over = r.sent[r.adverts[p.u].Holding]
		}
		bodies[at+i], extras[at+i] = b, e
		return nil
	})
	if err != nil {
		return nil, err
	}
	whole := All(s.p.Size)
	for i := range bodies {
		if bodies[i].over.Equal(whole) {
			bodies[i].over = nil
		}
	}
	apply(out.Body32, whole, bodies, workers)
	apply(out.Body64, whole, bodies, workers)
	apply(out.Extra, All(s.p.Extra), extras, workers)
	holders := make([]int, len(s.p.Holdings))
	for i, in := range s.inSum {
		if in {
			holders[r.adverts[i].Holding]++
		}
	}
	out.Sent = HeldBy(r.sent, holders, s.p.Holders)
	return out, nil
}

// secrets recovers b_v of survivors and s_v of those who were lost and have masked survivors' vectors.
func (s *Server) secrets(workers int) ([][32]byte, error) {
	r := s.roster
	out := make([][32]byte, len(r.adverts))
	work := make([]opening, 0, len(out))
	known := map[string][]uint16{} // λ by points: on the complete graph they are the same for all
	for v := range out {
		if !s.u2[v] {
			continue
		}
		o, needed := s.opening(v)
		if !needed {
			continue
		}
		if len(o.points) < s.p.Threshold {
			return nil, refuse(ErrTooFew, r.adverts[v].Name, "%d shares of its secret: expected %d", len(o.points), s.p.Threshold)
		}
		first := o.points[:s.p.Threshold]
		key := fmt.Sprint(first)
		if known[key] == nil {
			known[key] = lagrange(first)
		}
		o.lambda = known[key]
		work = append(work, o)
	}
	return out, parallel.Try(len(work), workers, func(i int) (err error) {
		out[work[i].of], err = s.recover(work[i])
		return err
	})
}

// recover returns the secret that t of the shares agree on with what was advertised. If the first t do not, somebody lies: the
// others are tried too, t in a row at a time.
func (s *Server) recover(o opening) ([32]byte, error) {
	t, m := s.p.Threshold, len(o.points)
	a := &s.roster.adverts[o.of]
	if b := combine(o.lambda, o.shares[:t]).bytes(); advertised(a, b, s.inSum[o.of]) {
		return b, nil
	}
	points, shares := slices.Concat(o.points, o.points), slices.Concat(o.shares, o.shares)
	for i := 1; i < m && m > t; i++ {
		if b := combine(lagrange(points[i:i+t]), shares[i:i+t]).bytes(); advertised(a, b, s.inSum[o.of]) {
			return b, nil
		}
	}
	return [32]byte{}, refuse(ErrShares, a.Name, "no %d of %d shares in a row recover the secret that was advertised", t, m)
}

// advertised reports whether b is the secret that a speaks of: its self mask or its private key.
func advertised(a *Advert, b [32]byte, self bool) bool {
	if self {
		return commitment(b) == a.Self
	}
	k, err := ecdh.X25519().NewPrivateKey(b[:])
	return err == nil && [32]byte(k.PublicKey().Bytes()) == a.Mask
}

// opening is the recovery of one secret.
type opening struct {
	of     int
	points []uint16
	shares []secret
	lambda []uint16 // of the first t
}

// opening collects the shares of v's secret, and reports whether it is needed.
func (s *Server) opening(v int) (o opening, needed bool) {
	o.of, needed = v, s.inSum[v]
	for _, i := range s.around(v) {
		needed = needed || s.inSum[i]
		if x, ok := s.opened[i][v]; ok {
			o.points = append(o.points, point(i))
			o.shares = append(o.shares, pack(x.Share))
		}
	}
	return o, needed
}

// around returns the neighbours of v and v itself, in ascending order.
func (s *Server) around(v int) []int {
	near := s.roster.neighbours(v)
	at, _ := slices.BinarySearch(near, v)
	return slices.Insert(near, at, v)
}
