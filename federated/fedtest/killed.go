package fedtest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/weights"
	"pgregory.net/rapid"
)

// killed runs the method under a coordinator that is killed, with checkpoints of its phases or without, and goes on: it must
// come to the same states as one that is not. In rounds that overlap it is killed once at every place there is, besides up
// to three times anywhere at every pace.
func (c *contract) killed(t *testing.T) {
	// Rounds without measuring follow each other directly, with members still at work from the one before.
	problem := c.fresh(t)
	problem.Rounds, problem.Measuring.Every = 5, 2
	if c.Session != "" { // a round has many more phases
		problem.Rounds = 2
	}
	memo := &memo{results: map[[32]byte]federated.Result{}}
	fresh := func(how conditions) *Run {
		r := &Run{World: c.world, Algorithm: c.algorithm(t, problem), Config: federated.Config{Rounds: problem.Rounds, Pace: how.pace, Window: 3}}
		r.Members.Client = memo.of(r.Algorithm.Client())
		if how.delays > 0 {
			r.Members.Delay = delay(how.delays)
		}
		return r
	}
	plain := map[conditions]*Coordinator{}
	whole := func(how conditions) *Coordinator {
		if _, ok := plain[how]; !ok {
			c.world.Vaults.Reset()
			plain[how] = new(Coordinator)
			if _, err := plain[how].Live(context.Background(), fresh(how), -1); err != nil {
				t.Fatal(err)
			}
		}
		return plain[how]
	}
	// try returns what goes wrong if lives end after so many events each.
	try := func(how conditions, got *Coordinator, lives ...int) error {
		want := whole(how)
		c.world.Vaults.Reset()
		for _, events := range append(lives, -1) {
			_, err := got.Live(context.Background(), fresh(how), events)
			if err == nil {
				break
			}
			if !errors.Is(err, ErrKilled) {
				return err
			}
		}
		if g, w := digests(got.Rounds), digests(want.Rounds); !slices.Equal(g, w) {
			return fmt.Errorf("states differ:\n got %.16q\nwant %.16q", g, w)
		}
		if !maps.EqualFunc(got.Kept(), want.Kept(), func(a, b *weights.Set) bool { return a.Equal(*b) }) {
			return errors.New("what members keep differs")
		}
		return nil
	}
	stride := 1
	if testing.Short() {
		stride = 5
	}
	paces := paces
	if !c.overlap() {
		paces = paces[:3]
	}
	if c.Session != "" { // nothing of a run can be remembered for the next
		places := 24
		if testing.Short() {
			places = 6
		}
		for i := range places {
			how := conditions{paces[i%len(paces)], uint64(i % 2)}
			r := rng.New(uint64(i), 0, "", "lives")
			events := whole(how).Events
			lives := []int{(i*events + r.IntN(events)) / places, r.IntN(events)}
			if err := try(how, &Coordinator{Every: 1 + i%3, Shuffle: r.Uint64()}, lives...); err != nil {
				t.Fatalf("%+v: killed after %v events: %v", how, lives, err)
			}
		}
		return
	}
	for _, pace := range paces[min(3, len(paces)-1):] {
		how := conditions{pace, 1}
		for events := 0; events < whole(how).Events; events += stride {
			if err := try(how, &Coordinator{Every: 1}, events); err != nil {
				t.Fatalf("%+v: killed after %d events: %v", pace, events, err)
			}
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		how := conditions{rapid.SampledFrom(paces).Draw(rt, "pace"), rapid.Uint64Range(0, 3).Draw(rt, "delays")}
		got := &Coordinator{Every: rapid.IntRange(0, 3).Draw(rt, "checkpoint every"), Shuffle: rapid.Uint64().Draw(rt, "shuffle")}
		// Numbers that rapid draws itself are small most of the time.
		r := rng.New(rapid.Uint64().Draw(rt, "fate"), 0, "", "lives")
		lives := make([]int, rapid.IntRange(1, 3).Draw(rt, "lives"))
		for i := range lives {
			lives[i] = r.IntN(whole(how).Events)
		}
		if err := try(how, got, lives...); err != nil {
			rt.Fatalf("killed after %v events: %v", lives, err)
		}
	})
}

// conditions are how rounds close and how late members are.
type conditions struct {
	pace   federated.Pace
	delays uint64 // seed; 0: there are none
}

var paces = []federated.Pace{
	{}, {Quorum: 0.5}, {Deadline: 600 * time.Millisecond},
	{Staleness: 1, Quorum: 0.3, Deadline: 700 * time.Millisecond},
	{Staleness: 2, Quorum: 0.5, Discount: 0.5},
}

func digests(rounds []federated.RoundClosed) []string {
	var d []string
	for _, r := range rounds {
		d = append(d, r.Digest)
	}
	return d
}

// memo remembers what clients answered to the very same task with the very same memory: the many runs of a property train once.
type memo struct {
	mu      sync.Mutex
	results map[[32]byte]federated.Result
}

func (m *memo) of(client federated.Client) federated.Client {
	return clientFunc(func(ctx context.Context, at federated.Local, task federated.Task, keep *weights.Set) (federated.Result, error) {
		h := sha256.New()
		index, err := json.Marshal(task.Index)
		if err != nil {
			return federated.Result{}, err
		}
		fmt.Fprintf(h, "%q %q %d %q %d %q %q %s\n", at.Member.Name, task.Phase, task.Round, task.Group, task.Base, task.Tag, task.Params, index)
		for _, name := range slices.Sorted(maps.Keys(task.Sets)) {
			fmt.Fprintf(h, "%q %x\n", name, weights.Digest(task.Sets[name]))
		}
		if keep != nil {
			fmt.Fprintf(h, "%x", weights.Digest(*keep))
		}
		key := [32]byte(h.Sum(nil))
		m.mu.Lock()
		r, ok := m.results[key]
		m.mu.Unlock()
		if ok {
			return r, nil
		}
		r, err = client.Run(ctx, at, task, keep)
		if err == nil && r.Attached == nil { // else the vault has a part in it
			m.mu.Lock()
			m.results[key] = r
			m.mu.Unlock()
		}
		return r, err
	})
}
