package private

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/federated/scaffold"
	"github.com/cohort-learning/cohort/weights"
	"pgregory.net/rapid"
)

// TestControlsAgree checks SCAFFOLD's invariant under secure sums, c = (1/N) Σᵢ cᵢ, when rounds fail after members have sent their
// masked vectors, or members are lost whose vectors are in the sum: what they keep is what the server has counted, and goes on so.
func TestControlsAgree(t *testing.T) {
	w := fedtest.Blobs(fedtest.Engine(t, "go"), 6, 3, 8, 6, 12, 10, 7, 14, 11, 6, 8, 6)
	for _, c := range []struct {
		phase string // in which members are lost in the middle round
		lost  int
		plain bool
		opens bool // all the same
	}{{"train.masked", 6, false, false}, {"train.confirm", 6, false, false}, {"train.unmask", 6, false, false},
		{"train.masked", 2, false, true}, {"train.confirm", 2, false, true}, {"train.unmask", 2, false, true}, {"train.sum", 6, true, false}} {
		t.Run(fmt.Sprintf("%d lost in %s", c.lost, c.phase), func(t *testing.T) {
			w.Vaults.Reset()
			p := fedtest.Problem(t, 6, 3)
			p.Select.Fraction, p.Rounds = 1, 3
			a := NewSecure(scaffold.New(p), SecureOptions{Plain: c.plain, Levels: 1 << 30})
			r := &fedtest.Run{World: w, Algorithm: a, Config: federated.Config{Rounds: p.Rounds}}
			r.Members.Tamper = func(a *federated.Answer) {
				if a.Order.Round == 1 && a.Order.Phase == c.phase && a.Order.Member.Index < c.lost {
					a.Err = errors.New("the connection was lost")
				}
			}
			trace := r.Must(t)
			failed := slices.ContainsFunc(trace.Phases, func(p federated.PhaseClosed) bool {
				return p.Round == 1 && strings.Contains(strings.Join(p.Notes, " "), "no secure sum of train")
			})
			if failed == c.opens {
				t.Fatalf("round 1 fails: %v", failed)
			}
			for i, snap := range trace.Snapshots {
				of, err := counted(snap.State)
				if err != nil {
					t.Fatal(err)
				}
				c := snap.State.Sets["c"]
				mean := c.Zeros()
				for k := range w.Members {
					kept, last := trace.Kept[i][k], of[w.Member(k).Name]
					if own := settle(kept, &last); own != nil {
						mean.AddScaled(1/float64(len(w.Members)), *own)
					}
				}
				if d := c.Sub(mean).Norm() / mean.Norm(); !(d < 1e-5) {
					t.Errorf("after round %d the server's control is %.2g of its norm off the mean of the members'", i, d)
				}
			}
		})
	}
}

// What is settled is what was there before or what came after, and nothing else; a memory of no session is as it is.
func TestSettle(t *testing.T) {
	set := rapid.Custom(func(rt *rapid.T) *weights.Set {
		n := rapid.IntRange(0, 3).Draw(rt, "tensors")
		if n == 0 {
			return nil
		}
		s := weights.NewSet(n)
		for i := range n {
			s.Put(fmt.Sprintf("layer%d.weight", i), weights.Of32([]float32{rapid.Float32().Draw(rt, "value")}, 1))
		}
		return &s
	})
	same := func(a, b *weights.Set) bool { return a == b || a != nil && b != nil && a.Equal(*b) }
	rapid.Check(t, func(rt *rapid.T) {
		before, after := set.Draw(rt, "before"), set.Draw(rt, "after")
		mark := sessionMark(rapid.IntRange(0, 99).Draw(rt, "round"), rapid.SampledFrom([]string{"train", "train2"}).Draw(rt, "phase"))
		other := sessionMark(rapid.IntRange(0, 99).Draw(rt, "another round"), "train")
		open := unsettled(mark, before, after)
		want := before
		if other == mark {
			want = after
		}
		if !same(settle(open, &mark), after) || !same(settle(open, nil), after) || !same(settle(open, &other), want) {
			t.Errorf("session %s: %v and %v", mark, before, after)
		}
		if settle(before, &mark) != before || settle(before, nil) != before {
			t.Error("a memory of no session is changed")
		}
	})
}
