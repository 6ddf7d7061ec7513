package private

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/secure/secagg"
)

// TestLyingMember has one member of ten send nonsense in one step of the second round: to the others it is as if it had been lost
// there, and the sum is theirs.
func TestLyingMember(t *testing.T) {
	decode := func(t *testing.T, b []byte, v interface{ UnmarshalBinary([]byte) error }) {
		t.Helper()
		if err := v.UnmarshalBinary(b); err != nil {
			t.Error(err)
		}
	}
	encode := func(t *testing.T, v wire) []byte {
		t.Helper()
		b, err := v.MarshalBinary()
		if err != nil {
			t.Error(err)
		}
		return b
	}
	other := map[string][]byte{} // what member-0 has sent in each step
	advert := func(change func(a, other *secagg.Advert)) func(*testing.T, []byte) []byte {
		return func(t *testing.T, b []byte) []byte {
			var a, o secagg.Advert
			decode(t, b, &a)
			decode(t, other["train.keys"], &o)
			change(&a, &o)
			return encode(t, a)
		}
	}
	boxes := func(change func(l secagg.Boxes) secagg.Boxes) func(*testing.T, []byte) []byte {
		return func(t *testing.T, b []byte) []byte {
			var l secagg.Boxes
			decode(t, b, &l)
			return encode(t, change(l))
		}
	}
	reveal := func(change func(v *secagg.Reveal)) func(*testing.T, []byte) []byte {
		return func(t *testing.T, b []byte) []byte {
			var v secagg.Reveal
			decode(t, b, &v)
			change(&v)
			return encode(t, v)
		}
	}
	confirmation := func(change func(c *secagg.Confirmation)) func(*testing.T, []byte) []byte {
		return func(t *testing.T, b []byte) []byte {
			var c secagg.Confirmation
			decode(t, b, &c)
			change(&c)
			return encode(t, c)
		}
	}
	garbage := func(*testing.T, []byte) []byte { return []byte("what?") }
	nothing := func(*testing.T, []byte) []byte { return nil }
	others := func(step string) func(*testing.T, []byte) []byte {
		return func(*testing.T, []byte) []byte { return other["train."+step] }
	}
	lost := map[string][]string{} // digests of the run without the member, by step
	for _, tt := range []struct {
		what, step string
		change     func(t *testing.T, b []byte) []byte
	}{
		{"garbage", keys, garbage}, {"nothing", keys, nothing}, {"another's keys", keys, others(keys)},
		{"no signature", keys, advert(func(a, _ *secagg.Advert) { a.Sig = nil })},
		{"a wrong signature", keys, advert(func(a, _ *secagg.Advert) { a.Sig[0] ^= 1 })},
		{"a key of another", keys, advert(func(a, o *secagg.Advert) { a.Mask = o.Mask })},
		{"a holding that there is not", keys, advert(func(a, _ *secagg.Advert) { a.Holding = 7 })},
		{"garbage", shares, garbage}, {"nothing", shares, nothing}, {"another's boxes", shares, others(shares)},
		{"a box too few", shares, boxes(func(l secagg.Boxes) secagg.Boxes { return l[1:] })},
		{"a box for nobody", shares, boxes(func(l secagg.Boxes) secagg.Boxes { l[0].To = "nobody"; return l })},
		{"garbage", masked, garbage}, {"nothing", masked, nothing},
		{"a vector too short", masked, func(t *testing.T, b []byte) []byte { return encode(t, &secagg.Vector{Body64: make([]uint64, 3)}) }},
		{"words of another size", masked, func(t *testing.T, b []byte) []byte {
			var v secagg.Vector
			decode(t, b, &v)
			v.Body32, v.Body64 = make([]uint32, len(v.Body64)), nil
			return encode(t, &v)
		}},
		{"garbage", confirm, garbage}, {"nothing", confirm, nothing}, {"another's confirmation", confirm, others(confirm)},
		{"another list", confirm, confirmation(func(c *secagg.Confirmation) { c.List[0] ^= 1 })},
		{"a wrong signature", confirm, confirmation(func(c *secagg.Confirmation) { c.Sig[0] ^= 1 })},
		{"garbage", unmask, garbage}, {"nothing", unmask, nothing}, {"another's shares", unmask, others(unmask)},
		{"a wrong share", unmask, reveal(func(v *secagg.Reveal) { v.Shares[0].Share[0] ^= 1 })},
		{"the wrong kind", unmask, reveal(func(v *secagg.Reveal) { v.Shares[0].Kind = secagg.MaskKey })},
		{"a share too few", unmask, reveal(func(v *secagg.Reveal) { v.Shares = v.Shares[1:] })},
	} {
		t.Run(tt.step+"/"+tt.what, func(t *testing.T) {
			run := func(change func(a *federated.Answer)) *fedtest.Trace {
				s := newStage(t, averaging, nil)
				s.world.Vaults.Reset()
				r := &fedtest.Run{World: s.world, Algorithm: s.Secure, Config: federated.Config{Rounds: 2}}
				r.Members.Tamper = func(a *federated.Answer) {
					if a.Order.Round != 1 {
						return
					}
					if a.Order.Member.Index == 0 && a.Err == nil {
						other[a.Order.Phase] = a.Result.Attached
					}
					if a.Order.Member.Name == victim && a.Order.Phase == "train."+tt.step && a.Err == nil {
						change(a)
					}
				}
				return r.Must(t)
			}
			got := run(func(a *federated.Answer) { a.Result.Attached = tt.change(t, a.Result.Attached) })
			if lost[tt.step] == nil {
				lost[tt.step] = run(func(a *federated.Answer) { a.Result, a.Err = federated.Result{}, errors.New("lost") }).Digests()
			}
			if !slices.Equal(got.Digests(), lost[tt.step]) {
				t.Errorf("states differ from those without it")
			}
			for _, p := range got.Phases {
				for _, n := range p.Notes {
					if strings.Contains(n, "no secure sum") {
						t.Errorf("round %d: %s", p.Round, n)
					}
				}
			}
		})
	}
}
