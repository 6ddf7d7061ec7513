package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/node/coordinator"
	"github.com/cohort-learning/cohort/node/member"
)

// manySites is a run of so many sites that they are asked together.
const manySites = `
method: scaffold
rounds: 3
data: {name: glyphs, size: 8, train: 400, test: 40}
partition: {name: iid, clients: 18}
model: {name: linear}
round: {fraction: 1}
evaluate: {clients: false}
`

// TestTogether: real members, over real connections, are sent their tasks in one message for all of them; one that is behind a
// relay gets its own, and one that was started anew, which no task has told its place, finds it out. The run ends in the bits of
// the simulation.
func TestTogether(t *testing.T) {
	f := newFederation(t, manySites)
	f.hold = make(chan struct{}, 1000)
	want := f.simulated()
	run := f.start()
	s := f.relay("region", nil)
	f.run(s.leaf("client-000"), 0)
	var again *member.Folder
	var quit func()
	for i := 1; i < 18; i++ {
		folder := f.enrol(fmt.Sprintf("client-%03d", i))
		leave := f.run(folder, i)
		if i == 17 {
			again, quit = folder, leave
		}
	}
	hold := func(n int) {
		for range n {
			f.hold <- struct{}{}
		}
	}
	f.until(func() bool { return run.Now().Asked == 18 })
	hold(18) // the first round, in which each is told its place
	f.until(func() bool { return run.Now().Round == 2 && run.Now().Asked == 18 })
	quit()
	f.run(again, 17)
	hold(100)
	f.wait(run)
	if got := finalDigest(t, run.Dir()); got != want {
		t.Errorf("the run ended in %.16s…, the simulation in %.16s…", got, want)
	}
	text, err := os.ReadFile(filepath.Join(run.Dir(), "journal.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), `"kind":"`+coordinator.KindTogether+`"`); n != 2 { // of three rounds
		t.Errorf("in %d phases tasks went together", n)
	}
}
