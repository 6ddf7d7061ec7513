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

// killed runs the method under a coordinator that is killed up to three times, anywhere, with checkpoints of its phases
// or without, and goes on: it must come to the same states as one that is not.
func (c *contract) killed(t *testing.T) {
	// Rounds without measuring follow each other directly, with members still at work from the one before.
	problem := c.fresh(t)
	problem.Rounds, problem.Measuring.Every = 5, 3
	memo := &memo{results: map[[32]byte]federated.Result{}}
	fresh := func(pace federated.Pace, delayed uint64) *Run {
		r := &Run{World: c.world, Algorithm: c.algorithm(t, problem), Config: federated.Config{Rounds: problem.Rounds, Pace: pace, Window: 3}}
		r.Members.Client = memo.of(r.Algorithm.Client())
		if delayed > 0 {
			r.Members.Delay = delay(delayed)
		}
		return r
	}
	type outcome struct {
		*Coordinator
		events int
	}
	plain := map[string]outcome{}
	paces := []federated.Pace{{}, {Quorum: 0.5}, {Deadline: 600 * time.Millisecond},
		{Staleness: 2, Quorum: 0.5, Discount: 0.5}, {Staleness: 1, Quorum: 0.3, Deadline: 700 * time.Millisecond}}
	rapid.Check(t, func(rt *rapid.T) {
		pace, delayed := rapid.SampledFrom(paces).Draw(rt, "pace"), rapid.Uint64Range(0, 3).Draw(rt, "delays")
		key := fmt.Sprint(pace, delayed)
		want, ok := plain[key]
		if !ok {
			want.Coordinator = new(Coordinator)
			if _, err := want.Live(context.Background(), fresh(pace, delayed), -1); err != nil {
				rt.Fatal(err)
			}
			want.events = want.Events
			plain[key] = want
		}
		got := &Coordinator{Every: rapid.IntRange(0, 3).Draw(rt, "checkpoint every"), Shuffle: rapid.Uint64().Draw(rt, "shuffle")}
		// Numbers that rapid draws itself are small most of the time.
		r := rng.New(rapid.Uint64().Draw(rt, "fate"), 0, "", "lives")
		for life := rapid.IntRange(1, 3).Draw(rt, "lives"); life >= 0; life-- {
			events := -1
			if life > 0 {
				events = r.IntN(want.events)
			}
			_, err := got.Live(context.Background(), fresh(pace, delayed), events)
			if err == nil {
				break
			}
			if !errors.Is(err, Killed) {
				rt.Fatal(err)
			}
		}
		if g, w := digests(got.Rounds), digests(want.Rounds); !slices.Equal(g, w) {
			rt.Fatalf("states differ:\n got %.16q\nwant %.16q", g, w)
		}
		if !maps.EqualFunc(got.Kept(), want.Kept(), func(a, b *weights.Set) bool { return a.Equal(*b) }) {
			rt.Fatal("what members keep differs")
		}
	})
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
		if err == nil {
			m.mu.Lock()
			m.results[key] = r
			m.mu.Unlock()
		}
		return r, err
	})
}
