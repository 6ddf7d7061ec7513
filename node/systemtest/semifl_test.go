package systemtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// semi is SemiFL with twenty labelled images at the coordinator and none of its members' labels.
const semi = `method: semifl
rounds: 4
data: {name: glyphs, size: 12, train: 420, test: 100}
partition: {name: iid, clients: 4, server: 20}
model: {name: cnn, widths: [8, 16]}
train: {epochs: 2, batch: 10, crop: 1, optimizer: {rate: 0.05}}
round: {fraction: 0.75}
options: {threshold: 0.4, server_epochs: 10, strong: {draws: 2, cutout: 4, translate: 1}}
`

// TestSemiFL holds a federation whose coordinator alone has labels against the simulation: labels, statistics and momenta come
// out to the same bits.
func TestSemiFL(t *testing.T) {
	f := newFederation(t, semi, 4)
	want := f.simulate()
	f.open()
	f.joinAll()
	f.finish()
	if got := digestOf(t, f.run()); got != want {
		t.Errorf("the network comes to %s, the simulation to %s", got, want)
	}
	f.verify()
	active := false
	for _, r := range journal(t, f.run()) {
		active = active || strings.Contains(string(r.Body), "pseudo.accepted.accuracy")
	}
	if !active {
		t.Error("nobody was ever active: the test tests nothing")
	}
}

// TestUnlabelledMembers lets members join whose data have no labels at all.
func TestUnlabelledMembers(t *testing.T) {
	brief(t)
	f := newFederation(t, semi, 4)
	for _, m := range f.members {
		for _, part := range []string{"train", "test"} {
			if err := os.Remove(filepath.Join(m.data, part+"-labels.idx")); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.open()
	f.joinAll()
	f.finish()
	f.verify()
}
