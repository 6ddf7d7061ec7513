package private

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedavg"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/secure/secagg"
	"github.com/cohort-learning/cohort/weights"
)

// victim is whom the server of these tests lies to.
const victim = "member-3"

// stage is a run in which a server lies to one member, before it asks for what it ought to, and after.
type stage struct {
	*Secure
	t     *testing.T
	world *fedtest.World
	lies  []lie
	told  int
	asked map[string]federated.Task
	said  map[string]federated.Result
}

// lie is a task that a member must refuse. It leaves no trace: the run comes to the same end, and the vault has the same values.
type lie struct {
	what  string
	round int
	step  string // told before this one
	late  bool   // told after it
	kind  error
	task  func(s *stage, t federated.Task) federated.Task // what is told in place of the task t
}

func newStage(t *testing.T, method func(*federated.Problem) (federated.Algorithm, error), lies []lie) *stage {
	t.Helper()
	p := fedtest.Problem(t, 6, 3)
	p.Measuring.Members, p.Select = false, federated.Selection{Everyone: true}
	a, err := method(p)
	if err != nil {
		t.Fatal(err)
	}
	w := fedtest.Blobs(fedtest.Engine(t, "go"), 6, 3, 8, 6, 12, 10, 7, 14, 11, 6, 8, 6)
	return &stage{NewSecure(a, SecureOptions{}), t, w, lies, 0, map[string]federated.Task{}, map[string]federated.Result{}}
}

func averaging(p *federated.Problem) (federated.Algorithm, error) { return fedavg.New(p), nil }

func (s *stage) run() *fedtest.Trace {
	s.world.Vaults.Reset()
	r := &fedtest.Run{World: s.world, Algorithm: s.Secure, Config: federated.Config{Rounds: 3}}
	r.Members.Client = s
	return r.Must(s.t)
}

func key(round int, step, name string) string { return fmt.Sprintf("%d %s %s", round, step, name) }

// Run implements [federated.Client].
func (s *stage) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	at.Peers = known{at.Peers, s.world}
	step := t.Phase[strings.LastIndex(t.Phase, ".")+1:]
	s.asked[key(t.Round, t.Phase, at.Member.Name)] = t
	if at.Member.Name == victim {
		s.lie(ctx, at, t, keep, step, false)
	}
	r, err := s.Client().Run(ctx, at, t, keep)
	if err != nil {
		s.t.Errorf("round %d, %s: %s: %v", t.Round, t.Phase, at.Member.Name, err)
		return r, err
	}
	s.said[key(t.Round, t.Phase, at.Member.Name)] = r
	if at.Member.Name == victim {
		again, err := s.Client().Run(ctx, at, t, keep)
		if err != nil || !bytes.Equal(again.Attached, r.Attached) {
			s.t.Errorf("round %d, %s: asked for the same again, the answer is another one (%v)", t.Round, t.Phase, err)
		}
		s.lie(ctx, at, t, keep, step, true)
	}
	return r, nil
}

func (s *stage) lie(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set, step string, late bool) {
	for _, l := range s.lies {
		if !strings.HasPrefix(t.Phase, "train.") || l.round != t.Round || l.step != step || l.late != late {
			continue
		}
		s.told++
		before := contents(s.t, at.Vault)
		r, err := s.Client().Run(ctx, at, l.task(s, t), keep)
		if !errors.Is(err, l.kind) || r.Attached != nil || r.Addends != nil {
			s.t.Errorf("%s: got %v and %d bytes, want a refusal that is %q", l.what, err, len(r.Attached), l.kind)
		}
		if !maps.Equal(before, contents(s.t, at.Vault)) {
			s.t.Errorf("%s: refused, and yet the vault is another one", l.what)
		}
		if testing.Verbose() {
			s.t.Logf("%s: %v", l.what, err)
		}
	}
}

// contents are the values of a vault.
func contents(t *testing.T, v federated.Vault) map[string]string {
	t.Helper()
	out := map[string]string{}
	names, err := v.Names()
	for _, n := range names {
		b, err := v.Once(n, func() ([]byte, error) { return nil, errors.New("it is gone") })
		if err != nil {
			t.Fatal(err)
		}
		out[n] = string(b)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// known are peers who know the names of a world only.
type known struct {
	federated.Peers
	world *fedtest.World
}

func (k known) Verify(name string, msg, sig []byte) error {
	if !slices.ContainsFunc(k.world.Members, func(h fedtest.Holder) bool { return h.Name == name }) {
		return fmt.Errorf("%w: nobody knows it", secagg.ErrUnknown)
	}
	return k.Peers.Verify(name, msg, sig)
}

// Changes of tasks.

func (s *stage) ordered(t federated.Task, change func(*order)) federated.Task {
	var o order
	if err := json.Unmarshal(t.Params, &o); err != nil {
		s.t.Fatal(err)
	}
	change(&o)
	var err error
	if t.Params, err = json.Marshal(o); err != nil {
		s.t.Fatal(err)
	}
	return t
}

func (s *stage) termed(t federated.Task, change func(*terms)) federated.Task {
	l, err := readTerms(t.Attached)
	if err != nil {
		s.t.Fatal(err)
	}
	change(l)
	if t.Attached, err = l.marshal(); err != nil {
		s.t.Fatal(err)
	}
	return t
}

type wire interface{ MarshalBinary() ([]byte, error) }

func (s *stage) attached(t federated.Task, m wire) federated.Task {
	b, err := m.MarshalBinary()
	if err != nil {
		s.t.Fatal(err)
	}
	t.Attached = b
	return t
}

func (s *stage) adverts(t federated.Task, change func(l secagg.Adverts) secagg.Adverts) federated.Task {
	var l secagg.Adverts
	if err := l.UnmarshalBinary(t.Attached); err != nil {
		s.t.Fatal(err)
	}
	return s.attached(t, change(l))
}

func (s *stage) boxes(t federated.Task, change func(l secagg.Boxes) secagg.Boxes) federated.Task {
	var l secagg.Boxes
	if err := l.UnmarshalBinary(t.Attached); err != nil {
		s.t.Fatal(err)
	}
	return s.attached(t, change(l))
}

// others are the adverts of a round as they would be if all but the victim had agreed to other options, or been told other terms.
func (s *stage) others(t federated.Task, o SecureOptions, change func(*terms)) federated.Task {
	return s.adverts(t, func(l secagg.Adverts) secagg.Adverts {
		ask := s.asked[key(t.Round, "train.keys", victim)]
		if change != nil {
			ask = s.termed(ask, change)
		}
		for i := range l {
			if l[i].Name == victim {
				continue
			}
			at := s.world.Local(s.world.Member(i))
			at.Vault = federated.NewVault()
			r, err := NewSecure(s.Algorithm, o).Client().Run(s.t.Context(), at, ask, nil)
			if err == nil {
				err = l[i].UnmarshalBinary(r.Attached)
			}
			if err != nil {
				s.t.Fatal(err)
			}
		}
		return l
	})
}

// confirmed are the confirmations of a list by all but the victim, who in this world are asked for that list only.
func (s *stage) confirmed(t federated.Task, list secagg.Survivors) federated.Task {
	var out secagg.Confirmations
	for i := range s.world.Members {
		at := s.world.Local(s.world.Member(i))
		if at.Member.Name == victim || !slices.Contains(list, at.Member.Name) {
			continue
		}
		copied := federated.NewVault()
		for name, b := range contents(s.t, at.Vault) {
			if strings.HasSuffix(name, "/confirm") || strings.HasSuffix(name, "/unmask") {
				continue
			}
			if _, err := copied.Once(name, func() ([]byte, error) { return []byte(b), nil }); err != nil {
				s.t.Fatal(err)
			}
		}
		at.Vault = copied
		ask := s.attached(s.asked[key(t.Round, "train.confirm", victim)], list)
		r, err := s.Client().Run(s.t.Context(), at, ask, nil)
		var c secagg.Confirmation
		if err == nil {
			err = c.UnmarshalBinary(r.Attached)
		}
		if err != nil {
			s.t.Fatal(err)
		}
		out = append(out, c)
	}
	return s.attached(t, out)
}

// allBut is a list of survivors.
func (s *stage) allBut(names ...string) (list secagg.Survivors) {
	for _, h := range s.world.Members {
		if !slices.Contains(names, h.Name) {
			list = append(list, h.Name)
		}
	}
	return list
}

// earlier is the same task of the round before.
func earlier(s *stage, t federated.Task) federated.Task {
	return s.asked[key(t.Round-1, t.Phase, victim)]
}

// asked1 is a task of round 1 in place of whatever is due.
func asked1(phase string) func(*stage, federated.Task) federated.Task {
	return func(s *stage, _ federated.Task) federated.Task { return s.asked[key(1, phase, victim)] }
}

// another returns a task with another model.
func another(_ *stage, t federated.Task) federated.Task {
	w := t.Sets["w"].Clone()
	x := w.Must(w.Names()[0])
	x.SetAt(0, x.At(0)+1)
	t.Sets = maps.Clone(t.Sets)
	t.Sets["w"] = w
	return t
}

func without(names ...string) func(*stage, federated.Task) federated.Task {
	return func(s *stage, t federated.Task) federated.Task {
		return s.adverts(t, func(l secagg.Adverts) secagg.Adverts {
			return slices.DeleteFunc(l, func(a secagg.Advert) bool { return slices.Contains(names, a.Name) })
		})
	}
}

func withTerms(change func(*terms)) func(*stage, federated.Task) federated.Task {
	return func(s *stage, t federated.Task) federated.Task { return s.termed(t, change) }
}

func withOrder(change func(*order)) func(*stage, federated.Task) federated.Task {
	return func(s *stage, t federated.Task) federated.Task { return s.ordered(t, change) }
}

func withOthers(o SecureOptions, change func(*terms)) func(*stage, federated.Task) federated.Task {
	return func(s *stage, t federated.Task) federated.Task { return s.others(t, o, change) }
}

func withAdverts(change func(s *stage, l secagg.Adverts)) func(*stage, federated.Task) federated.Task {
	return func(s *stage, t federated.Task) federated.Task {
		return s.adverts(t, func(l secagg.Adverts) secagg.Adverts { change(s, l); return l })
	}
}

func withBoxes(change func(s *stage, l secagg.Boxes) secagg.Boxes) func(*stage, federated.Task) federated.Task {
	return func(s *stage, t federated.Task) federated.Task {
		return s.boxes(t, func(l secagg.Boxes) secagg.Boxes { return change(s, l) })
	}
}

func withList(names ...string) func(*stage, federated.Task) federated.Task {
	return func(s *stage, t federated.Task) federated.Task { return s.attached(t, s.allBut(names...)) }
}
