package systemtest

import (
	"slices"
	"testing"
	"time"
)

// small is a run of a second or two.
const small = `method: heterofl
rounds: 3
data: {name: glyphs, size: 12, train: 500, test: 100}
partition: {name: classes, clients: 5, per_client: 4}
model: {name: cnn, widths: [16, 48]}
train: {epochs: 2, batch: 10}
round: {fraction: 1}
options: {mode: a1-b1-e1}
`

// TestSimulationIsNetwork holds a federation of processes against the simulation of the same recipe: the digests of their last
// states are equal.
func TestSimulationIsNetwork(t *testing.T) {
	f := newFederation(t, small, 5)
	want := f.simulate()
	f.open()
	f.joinAll()
	f.finish()
	if got := digestOf(t, f.run()); got != want {
		t.Errorf("the network comes to %s, the simulation to %s", got, want)
	}
	f.verify()
}

// TestKilled kills the coordinator twice and a member once, at records of the journal that are drawn at random, and holds what
// comes out against the simulation.
func TestKilled(t *testing.T) {
	f := newFederation(t, small, 5)
	want := f.simulate()
	f.open()
	f.joinAll()
	r := seed(t)
	// Without faults the journal comes to 87 records, of which the first 12 are those of joining.
	type blow struct {
		at   int
		who  string
		hurt func()
	}
	coordinator := func() { f.killCoordinator(time.Duration(r.IntN(300)) * time.Millisecond) }
	victim := f.members[r.IntN(len(f.members))]
	blows := []blow{
		{13 + r.IntN(65), "coordinator", coordinator},
		{13 + r.IntN(65), "coordinator", coordinator},
		{13 + r.IntN(65), victim.name, func() { victim.kill(); f.join(victim) }},
	}
	slices.SortFunc(blows, func(a, b blow) int { return a.at - b.at })
	for _, b := range blows {
		if !f.reach(b.at) {
			t.Fatalf("the run was over before record %d", b.at)
		}
		f.say("killing %s at record %d", b.who, b.at)
		b.hurt()
	}
	f.finish()
	if got := digestOf(t, f.run()); got != want {
		t.Errorf("after the crashes the run comes to %s, without to %s", got, want)
	}
	resumed := 0
	for _, r := range journal(t, f.run()) {
		if r.Kind == "run.resumed" {
			resumed++
		}
	}
	// A coordinator that is killed while it starts has resumed nothing yet.
	if resumed < 1 || resumed > 2 {
		t.Errorf("the journal tells of %d resumptions, not of 1 or 2", resumed)
	}
	f.say("%s", f.verify())
}
