package private

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/heterofl"
	"github.com/cohort-learning/cohort/secure/secagg"
	"github.com/cohort-learning/cohort/weights"
)

// lies are what a server might try with one member of ten in the second of three rounds.
var lies = []lie{
	// Terms.
	{"terms of the round before", 1, keys, false, secagg.ErrMalformed, func(s *stage, t federated.Task) federated.Task {
		t.Attached = earlier(s, t).Attached
		return t
	}},
	{"terms of another run", 1, keys, false, secagg.ErrMalformed, withTerms(func(l *terms) {
		l.Session = sessionName("another world", 1, "train", false)
	})},
	{"a lower threshold", 1, keys, false, secagg.ErrMalformed, withTerms(func(l *terms) { l.Threshold = 6 })},
	{"fewer survivors than shares", 1, keys, false, secagg.ErrMalformed, withTerms(func(l *terms) { l.Survivors = 3 })},
	{"a sparse graph", 1, keys, false, secagg.ErrMalformed, withTerms(func(l *terms) { l.Neighbours, l.Threshold = 4, 5 })},
	{"a sum of one", 1, keys, false, secagg.ErrMalformed, withTerms(func(l *terms) { l.Members, l.Threshold = 1, 1 })},
	{"more members than words can hold", 1, keys, false, secagg.ErrMalformed, withTerms(func(l *terms) {
		l.Members, l.Threshold = 1<<20, 1<<20
	})},
	{"nothing about vectors", 1, keys, false, secagg.ErrMalformed, func(_ *stage, t federated.Task) federated.Task {
		t.Attached = []byte(`{"session":"world, round 1, train, update","members":10,"threshold":7}`)
		return t
	}},
	{"no terms", 1, keys, false, secagg.ErrMalformed, func(_ *stage, t federated.Task) federated.Task { t.Attached = nil; return t }},
	{"terms in other letters", 1, keys, false, secagg.ErrMalformed, func(_ *stage, t federated.Task) federated.Task {
		t.Attached = bytes.Replace(t.Attached, []byte(`"members"`), []byte(`"Members"`), 1)
		return t
	}},
	{"a number of members twice", 1, keys, false, secagg.ErrMalformed, func(_ *stage, t federated.Task) federated.Task {
		t.Attached = bytes.Replace(t.Attached, []byte(`"members"`), []byte(`"members":3,"members"`), 1)
		return t
	}},
	{"a part of the model that there is not", 1, keys, false, secagg.ErrAdvert, withOrder(func(o *order) { o.Holding = 3 })},
	{"a second session for the round", 1, keys, true, secagg.ErrConflict, withTerms(func(l *terms) { l.Members = 9 })},
	{"a second session with another layout", 1, keys, true, secagg.ErrConflict, withTerms(func(l *terms) { slices.Reverse(l.Layout.Folds[0].Tensors) })},
	{"the session of a round that is over", 1, keys, true, federated.ErrErased, earlier},

	// In the open, out of order, by another name.
	{"the method's own task", 1, keys, false, secagg.ErrMalformed, func(s *stage, t federated.Task) federated.Task {
		own := s.asked[key(0, "train.masked", victim)]
		own.Round, own.Phase, own.Params, own.Attached = 1, "train", []byte(`{"mu":0}`), nil
		return own
	}},
	{"the sum without masks", 1, keys, false, secagg.ErrMalformed, func(s *stage, t federated.Task) federated.Task {
		own := s.ordered(s.asked[key(0, "train.masked", victim)], func(o *order) { o.Step = plain })
		own.Round, own.Phase, own.Attached = 1, "train.sum", t.Attached
		return own
	}},
	{"the vector in the phase of keys, for which nobody pays", 1, masked, false, secagg.ErrMalformed, func(_ *stage, t federated.Task) federated.Task {
		t.Phase = "train.keys"
		return t
	}},
	{"a step that is none", 1, keys, false, secagg.ErrMalformed, func(s *stage, t federated.Task) federated.Task {
		t.Phase = "train.everything"
		return s.ordered(t, func(o *order) { o.Step = "everything" })
	}},
	{"nonsense", 1, keys, false, secagg.ErrMalformed, func(_ *stage, t federated.Task) federated.Task { t.Params = []byte(`[`); return t }},
	{"unmasking before keys", 1, keys, false, secagg.ErrOrder, func(s *stage, _ federated.Task) federated.Task {
		t := s.asked[key(0, "train.unmask", victim)]
		t.Round = 1
		return t
	}},
	{"unmasking before confirming", 1, confirm, false, secagg.ErrOrder, func(s *stage, t federated.Task) federated.Task {
		t.Phase = "train.unmask"
		return s.ordered(s.confirmed(t, s.allBut()), func(o *order) { o.Step = unmask })
	}},
	{"another phase of the method under the same name", 1, masked, false, secagg.ErrMalformed, withOrder(func(o *order) { o.Rows = true })},

	// Keys of the others.
	{"keys of the round before", 1, shares, false, secagg.ErrAdvert, withAdverts(func(s *stage, l secagg.Adverts) {
		s.adverts(s.asked[key(0, "train.shares", victim)], func(old secagg.Adverts) secagg.Adverts { l[5] = old[5]; return old })
	})},
	{"everybody's keys of the round before", 1, shares, false, secagg.ErrAdvert, func(s *stage, t federated.Task) federated.Task {
		t.Attached = earlier(s, t).Attached
		return t
	}},
	{"keys of another run", 1, shares, false, secagg.ErrAdvert, withAdverts(func(s *stage, l secagg.Adverts) {
		at := s.world.Local(s.world.Member(5))
		at.Scope, at.Vault = "another world", federated.NewVault()
		ask := s.termed(s.asked[key(1, "train.keys", victim)], func(l *terms) { l.Session = sessionName("another world", 1, "train", false) })
		r, err := s.Client().Run(s.t.Context(), at, ask, nil)
		if err == nil {
			err = l[5].UnmarshalBinary(r.Attached)
		}
		if err != nil {
			s.t.Fatal(err)
		}
	})},
	{"an invented peer", 1, shares, false, secagg.ErrUnknown, withAdverts(func(_ *stage, l secagg.Adverts) { l[9].Name = "nobody" })},
	{"keys that the server made", 1, shares, false, secagg.ErrAdvert, withAdverts(func(_ *stage, l secagg.Adverts) { l[5].Mask[3] ^= 1 })},
	{"keys of two peers swapped", 1, shares, false, secagg.ErrAdvert, withAdverts(func(_ *stage, l secagg.Adverts) {
		l[5].Channel, l[6].Channel, l[5].Mask, l[6].Mask = l[6].Channel, l[5].Channel, l[6].Mask, l[5].Mask
	})},
	{"one peer twice", 1, shares, false, secagg.ErrAdvert, withAdverts(func(_ *stage, l secagg.Adverts) { l[6] = l[5] })},
	{"own keys changed", 1, shares, false, secagg.ErrAdvert, withAdverts(func(_ *stage, l secagg.Adverts) { l[3].Self[0] ^= 1 })},
	{"without the member itself", 1, shares, false, secagg.ErrAdvert, without(victim)},
	{"too few peers", 1, shares, false, secagg.ErrTooFew, without("member-0", "member-1", "member-2", "member-4")},
	{"peers who clip elsewhere", 1, shares, false, secagg.ErrAdvert, withOthers(SecureOptions{Clip: 2}, nil)},
	{"peers with other levels", 1, shares, false, secagg.ErrAdvert, withOthers(SecureOptions{Levels: 1 << 10}, nil)},
	{"peers with more weight", 1, shares, false, secagg.ErrAdvert, withOthers(SecureOptions{MaxWeight: 1 << 30}, nil)},
	{"peers with smaller words", 1, shares, false, secagg.ErrAdvert, withOthers(SecureOptions{Bits: 32, Levels: 1 << 10, MaxWeight: 1 << 10}, nil)},
	{"peers who are told another threshold", 1, shares, false, secagg.ErrAdvert, withOthers(SecureOptions{}, func(l *terms) { l.Threshold = 8 })},
	{"peers who are told another layout", 1, shares, false, secagg.ErrAdvert, withOthers(SecureOptions{}, func(l *terms) { slices.Reverse(l.Layout.Folds[0].Tensors) })},
	{"peers who will get another model", 1, shares, false, secagg.ErrAdvert, withOthers(SecureOptions{}, func(l *terms) { l.Tasks[0] = "00" })},
	{"another set of members", 1, shares, true, secagg.ErrConflict, without("member-9")},

	// Boxes and the task itself.
	{"a box of the round before", 1, masked, false, secagg.ErrBox, withBoxes(func(s *stage, l secagg.Boxes) secagg.Boxes {
		s.boxes(s.asked[key(0, "train.masked", victim)], func(old secagg.Boxes) secagg.Boxes { l[4] = old[4]; return old })
		return l
	})},
	{"a box for somebody else", 1, masked, false, secagg.ErrBox, withBoxes(func(s *stage, l secagg.Boxes) secagg.Boxes {
		s.boxes(s.asked[key(1, "train.masked", "member-0")], func(other secagg.Boxes) secagg.Boxes { l[4] = other[4]; return other })
		return l
	})},
	{"a garbled box", 1, masked, false, secagg.ErrBox, withBoxes(func(_ *stage, l secagg.Boxes) secagg.Boxes { l[4].Sealed[0] ^= 1; return l })},
	{"a box twice", 1, masked, false, secagg.ErrBox, withBoxes(func(_ *stage, l secagg.Boxes) secagg.Boxes { l[4] = l[5]; return l })},
	{"a box of a stranger", 1, masked, false, secagg.ErrUnknown, withBoxes(func(_ *stage, l secagg.Boxes) secagg.Boxes { l[4].From = "nobody"; return l })},
	{"too few boxes", 1, masked, false, secagg.ErrTooFew, withBoxes(func(_ *stage, l secagg.Boxes) secagg.Boxes { return l[:5] })},
	{"another model than the others got", 1, masked, false, secagg.ErrConflict, another},
	{"other parameters than the others got", 1, masked, false, secagg.ErrConflict, withOrder(func(o *order) { o.Params = []byte(`{"mu":1}`) })},
	{"rows left out that the others send", 1, masked, false, secagg.ErrConflict, withOrder(func(o *order) { o.Allowed = []bool{true, false, true} })},
	{"a part of the model", 1, masked, false, secagg.ErrConflict, func(_ *stage, t federated.Task) federated.Task {
		t.Index = weights.Index{"fc1.weight": nil}
		return t
	}},
	{"another inbox", 1, masked, true, secagg.ErrConflict, withBoxes(func(_ *stage, l secagg.Boxes) secagg.Boxes { return l[:8] })},
	{"the same round with another model", 1, masked, true, secagg.ErrConflict, another},
	{"the same round with other rows", 1, masked, true, secagg.ErrConflict, withOrder(func(o *order) { o.Allowed = []bool{true, false, true} })},

	// Survivors.
	{"a list without the member", 1, confirm, false, secagg.ErrList, withList(victim)},
	{"a list with a stranger", 1, confirm, false, secagg.ErrList, func(s *stage, t federated.Task) federated.Task {
		return s.attached(t, append(s.allBut(), "nobody"))
	}},
	{"a list with a name twice", 1, confirm, false, secagg.ErrList, func(s *stage, t federated.Task) federated.Task {
		return s.attached(t, append(s.allBut(), "member-9"))
	}},
	{"a list of too few", 1, confirm, false, secagg.ErrTooFew, withList("member-0", "member-1", "member-2", "member-4")},
	{"a second list", 1, confirm, true, secagg.ErrConflict, withList("member-9")},

	// Shares: of self masks for the list that was signed, never of both kinds.
	{"confirmations of another list", 1, unmask, false, secagg.ErrList, func(s *stage, t federated.Task) federated.Task {
		return s.confirmed(t, s.allBut("member-9"))
	}},
	{"too few confirmations", 1, unmask, false, secagg.ErrTooFew, func(s *stage, t federated.Task) federated.Task {
		var l secagg.Confirmations
		if err := l.UnmarshalBinary(t.Attached); err != nil {
			s.t.Fatal(err)
		}
		return s.attached(t, l[:6])
	}},
	{"one confirmation many times", 1, unmask, false, secagg.ErrList, func(s *stage, t federated.Task) federated.Task {
		var l secagg.Confirmations
		if err := l.UnmarshalBinary(t.Attached); err != nil {
			s.t.Fatal(err)
		}
		return s.attached(t, slices.Repeat(l[:1], 10))
	}},
	{"confirmations of the round before", 1, unmask, false, secagg.ErrList, func(s *stage, t federated.Task) federated.Task {
		t.Attached = earlier(s, t).Attached
		return t
	}},
	{"the other kind of share, by another list", 1, unmask, true, secagg.ErrConflict, func(s *stage, t federated.Task) federated.Task {
		return s.confirmed(t, s.allBut("member-9"))
	}},

	// When the next session has begun, the one before is no more.
	{"keys again", 2, keys, true, federated.ErrErased, asked1("train.keys")},
	{"shares again", 2, keys, true, federated.ErrErased, asked1("train.shares")},
	{"the vector again", 2, keys, true, federated.ErrErased, asked1("train.masked")},
	{"another list, later", 2, keys, true, federated.ErrErased, func(s *stage, _ federated.Task) federated.Task {
		return s.attached(s.asked[key(1, "train.confirm", victim)], s.allBut("member-9"))
	}},
	{"shares of masks again", 2, keys, true, federated.ErrErased, asked1("train.unmask")},
}

// TestMaliciousServer tells lies to a member in every step, before and after what is due: each is refused with a reason, and then the
// run is as if none had been told.
func TestMaliciousServer(t *testing.T) {
	honest := newStage(t, averaging, nil).run()
	s := newStage(t, averaging, lies)
	if got := s.run(); !slices.Equal(got.Digests(), honest.Digests()) {
		t.Errorf("lies that were refused have changed the run")
	}
	if s.told != len(lies) {
		t.Errorf("%d of %d lies were told", s.told, len(lies))
	}
}

// TestMaliciousServerAndRows does so where members leave out rows of labels that too few have: the server must not name other rows to
// one than to the others, nor give it another part of the model.
func TestMaliciousServerAndRows(t *testing.T) {
	method := func(p *federated.Problem) (federated.Algorithm, error) {
		mode, err := heterofl.ParseMode("a1-c1", nil)
		if err != nil {
			return nil, err
		}
		return heterofl.New(p, heterofl.Config{Mode: mode})
	}
	rows := func(s *stage, t federated.Task, change func(*order)) federated.Task {
		if t.Phase != "train.masked" { // of the session that counts: change something that is there too
			return s.ordered(t, func(o *order) { o.Params = []byte(`{}`) })
		}
		return s.ordered(t, change)
	}
	all := []lie{
		{"rows that the others leave out", 1, masked, false, secagg.ErrConflict, func(s *stage, t federated.Task) federated.Task {
			return rows(s, t, func(o *order) { o.Allowed = nil })
		}},
		{"no rows at all", 1, masked, true, secagg.ErrConflict, func(s *stage, t federated.Task) federated.Task {
			return rows(s, t, func(o *order) { o.Allowed = make([]bool, 3) })
		}},
		{"another level", 1, masked, false, secagg.ErrConflict, func(s *stage, t federated.Task) federated.Task {
			for _, h := range s.world.Members {
				if x, ok := s.asked[key(0, t.Phase, h.Name)]; ok && x.Tag != t.Tag {
					x.Round, x.Attached = 1, t.Attached
					return x
				}
			}
			t.Params = nil
			s.t.Error("everybody has the same level")
			return t
		}},
	}
	honest := newStage(t, method, nil).run()
	s := newStage(t, method, all)
	if got := s.run(); !slices.Equal(got.Digests(), honest.Digests()) {
		t.Errorf("lies that were refused have changed the run")
	}
	if s.told != 2*len(all) {
		t.Errorf("%d lies were told, want %d", s.told, 2*len(all))
	}
}

// TestSparseTerms checks that a server cannot choose fewer neighbours than were agreed, so as to surround a member.
func TestSparseTerms(t *testing.T) {
	o := SecureOptions{Sparse: true, Corrupt: 0.05, Dropout: 0.05}
	p, err := secagg.Choose(1000, o.Corrupt, o.Dropout, secagg.Malicious)
	if err != nil {
		t.Fatal(err)
	}
	good := terms{Session: "a", Members: 1000, Neighbours: p.Neighbours, Threshold: p.Threshold, Layout: &layout{size: 1, ranges: []secagg.Ranges{secagg.All(1)}}}
	a := NewSecure(nil, o)
	if err := a.acceptable(&good); err != nil {
		t.Errorf("terms as agreed: %v", err)
	}
	for what, change := range map[string]func(*terms){
		"few neighbours":  func(l *terms) { l.Neighbours, l.Threshold = 2, 3 },
		"fewer":           func(l *terms) { l.Neighbours -= 2 },
		"lower threshold": func(l *terms) { l.Threshold-- },
	} {
		bad := good
		change(&bad)
		if err := a.acceptable(&bad); !errors.Is(err, secagg.ErrMalformed) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

// pinned are peers of whom only some were met outside.
type pinned struct {
	federated.Peers
	met    []string
	insist bool
}

func (p pinned) Pinned(name string) bool { return slices.Contains(p.met, name) }
func (p pinned) Insists() bool           { return p.insist }

// TestPinnedPeers checks that who insists on keys that were exchanged outside refuses a session in which too few are: with
// threshold 7, six besides its own.
func TestPinnedPeers(t *testing.T) {
	for _, tt := range []struct {
		met    int
		insist bool
		want   error
	}{{5, true, secagg.ErrPinned}, {6, true, nil}, {5, false, nil}, {0, false, nil}, {0, true, secagg.ErrPinned}} {
		t.Run(fmt.Sprintf("%d met, insists %v", tt.met, tt.insist), func(t *testing.T) {
			s := newStage(t, averaging, nil)
			s.run()
			at := s.world.Local(s.world.Member(3))
			p := pinned{Peers: federated.Acquainted(victim), insist: tt.insist}
			for i := range tt.met {
				p.met = append(p.met, fmt.Sprintf("member-%d", (4+i)%10))
			}
			at.Peers = p
			copied := federated.NewVault()
			b := contents(t, at.Vault)["secure/2.stats/keys"]
			if _, err := copied.Once("secure/2.stats/keys", func() ([]byte, error) { return []byte(b), nil }); err != nil {
				t.Fatal(err)
			}
			at.Vault = copied
			_, err := s.Client().Run(t.Context(), at, s.asked[key(2, "stats.shares", victim)], nil)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}
