package secagg

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
)

// roster is U1 in the order of names; members go by their place in it. Whoever has the same adverts has the same roster,
// digest, graph and coordinates.
type roster struct {
	p       Params
	adverts Adverts
	digest  [32]byte // of terms and adverts
	session uint64   // its first 8 bytes, which all derived keys contain
	place   []int    // place[i] is member i's place on the ring
	ring    []int    // and the inverse
	sent    []Ranges // what of each holding enough members hold
}

// newRoster checks what needs no signature: how many they are, and that names and keys are distinct.
func newRoster(p Params, adverts Adverts) (*roster, error) {
	if len(adverts) < p.Survivors || len(adverts) > p.Members {
		return nil, refuse(ErrTooFew, "", "%d adverts: expected %d to %d", len(adverts), p.Survivors, p.Members)
	}
	r := &roster{p: p, adverts: slices.Clone(adverts)}
	slices.SortFunc(r.adverts, func(a, b Advert) int { return strings.Compare(a.Name, b.Name) })
	keys := map[[32]byte]string{}
	holders := make([]int, len(p.Holdings))
	w := writer{b: []byte("fedsecagg/v1/roster")}
	w.key(p.digest())
	for i := range r.adverts {
		a := &r.adverts[i]
		if i > 0 && a.Name == r.adverts[i-1].Name {
			return nil, refuse(ErrAdvert, a.Name, "two adverts of that name")
		}
		if !nameFits(a.Name) || a.Holding < 0 || a.Holding >= len(p.Holdings) {
			return nil, refuse(ErrAdvert, a.Name, "name of %d bytes, holding %d of %d", len(a.Name), a.Holding, len(p.Holdings))
		}
		for _, k := range [][32]byte{a.Channel, a.Mask} {
			if other, ok := keys[k]; ok {
				return nil, refuse(ErrAdvert, a.Name, "has a key that %q also has", other)
			}
			keys[k] = a.Name
		}
		holders[a.Holding]++
		a.write(&w)
	}
	r.digest = sha256.Sum256(w.b)
	r.session = binary.BigEndian.Uint64(r.digest[:])
	r.layRing()
	enough := HeldBy(p.Holdings, holders, p.Holders)
	for _, h := range p.Holdings {
		r.sent = append(r.sent, h.Intersect(enough))
	}
	return r, nil
}

// layRing orders the members by a hash of roster and name.
func (r *roster) layRing() {
	hashes := make([][32]byte, len(r.adverts))
	r.ring = make([]int, len(r.adverts))
	for i, a := range r.adverts {
		hashes[i] = sha256.Sum256(append(r.digest[:len(r.digest):len(r.digest)], a.Name...))
		r.ring[i] = i
	}
	slices.SortFunc(r.ring, func(a, b int) int { return cmp.Or(bytes.Compare(hashes[a][:], hashes[b][:]), a-b) })
	r.place = make([]int, len(r.ring))
	for at, i := range r.ring {
		r.place[i] = at
	}
}

func (r *roster) complete() bool {
	return r.p.Neighbours == 0 || r.p.Neighbours+1 >= len(r.adverts)
}

// neighbours returns those with whom i shares secrets and masks, in ascending order and without i: on the sparse graph those
// at most k/2 places away on the ring (a Harary graph).
func (r *roster) neighbours(i int) []int {
	n := len(r.adverts)
	var out []int
	if r.complete() {
		for j := range n {
			if j != i {
				out = append(out, j)
			}
		}
		return out
	}
	for d := 1; d <= r.p.Neighbours/2; d++ {
		out = append(out, r.ring[(r.place[i]+d)%n], r.ring[(r.place[i]-d+n)%n])
	}
	slices.Sort(out)
	return out
}

// slot returns where j stands in neighbours(i).
func (r *roster) slot(i, j int) int {
	if !r.complete() {
		k, _ := slices.BinarySearch(r.neighbours(i), j)
		return k
	}
	if j > i {
		return j - 1
	}
	return j
}

// adjacent reports whether i and j are neighbours.
func (r *roster) adjacent(i, j int) bool {
	if i == j || r.complete() {
		return i != j
	}
	n := len(r.adverts)
	d := (r.place[i] - r.place[j] + n) % n
	return min(d, n-d) <= r.p.Neighbours/2
}

// find returns the member of a name.
func (r *roster) find(name string) (int, bool) {
	return slices.BinarySearchFunc(r.adverts, name, func(a Advert, s string) int { return strings.Compare(a.Name, s) })
}

// point is where the shares of member i lie.
func point(i int) uint16 { return uint16(i + 1) }

// common returns the coordinates that a pair's mask covers; nil if that is all that both send.
func (r *roster) common(i, j int) Ranges {
	a, b := r.adverts[i].Holding, r.adverts[j].Holding
	if a == b || r.sent[a].Equal(r.sent[b]) {
		return nil
	}
	return r.sent[a].Intersect(r.sent[b])
}

// listDigest is what a confirmation signs, before the prefix.
func (r *roster) listDigest(survivors []string) [32]byte {
	w := writer{b: []byte("fedsecagg/v1/list")}
	w.key(r.digest)
	w.names(survivors)
	return sha256.Sum256(w.b)
}

func (c *Confirmation) signed() []byte {
	w := writer{b: []byte("fedsecagg/v1/confirm")}
	w.text(c.From)
	w.key(c.List)
	return w.b
}

// survivors checks a list U3 and returns its members' places: known, in ascending order, enough of them, and enough of them for
// every word that is sent.
func (r *roster) survivors(list []string) (in []bool, err error) {
	in = make([]bool, len(r.adverts))
	holders := make([]int, len(r.p.Holdings))
	for k, s := range list {
		i, ok := r.find(s)
		switch {
		case !ok:
			return nil, refuse(ErrList, s, "listed as a survivor but was never in the session")
		case k > 0 && s <= list[k-1]:
			return nil, refuse(ErrList, s, "listed after %q: expected ascending names, each once", list[k-1])
		}
		in[i] = true
		holders[r.adverts[i].Holding]++
	}
	if len(list) < r.p.Survivors {
		return nil, refuse(ErrTooFew, "", "%d survivors: at least %d must be in a sum", len(list), r.p.Survivors)
	}
	enough := HeldBy(r.p.Holdings, holders, r.p.Holders)
	for i, s := range r.sent {
		if holders[i] > 0 && s.Intersect(enough).Len() < s.Len() {
			return nil, refuse(ErrTooFew, "", "some words of holding %d come from fewer than %d survivors", i, r.p.Holders)
		}
	}
	return in, nil
}
