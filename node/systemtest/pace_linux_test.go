package systemtest

import (
	"strings"
	"syscall"
	"testing"
)

// paced is a run that does not wait for everybody, and measures nothing at the members.
const paced = `method: fedavg
rounds: 40
data: {name: glyphs, size: 12, train: 400, test: 100}
partition: {name: iid, clients: 4}
model: {name: cnn, widths: [16, 48], norm: none}
train: {epochs: 2, batch: 10}
evaluate: {every: 10, clients: false}
`

// closedRounds waits until so many rounds have closed.
func (f *federation) closedRounds(n int) {
	f.t.Helper()
	for at := f.length(); f.round() <= n; at++ {
		if !f.reach(at + 1) {
			f.t.Fatalf("the run was over before round %d", n)
		}
	}
}

// said fails the test unless the coordinator's log has a line about the member.
func (f *federation) said(member, what string) {
	f.t.Helper()
	found := f.coordOut.lines(`\b` + member + ` ` + what)
	if len(found) == 0 {
		f.t.Errorf("the coordinator's log says nowhere that %s %q:\n%s", member, what, f.coordOut.tail(60))
		return
	}
	f.say("the log: %s", strings.TrimSpace(found[0]))
}

// TestPace has members vanish, stall and come back in runs with a quorum, a deadline, and rounds that overlap. Each run ends,
// its log says what happened to whom, and it can be computed again.
func TestPace(t *testing.T) {
	brief(t)
	quorum := paced + "round: {fraction: 1, quorum: 0.75, deadline: 20s}\n"
	t.Run("vanishes", func(t *testing.T) {
		f := newFederation(t, quorum, 4)
		f.open()
		f.joinAll()
		f.closedRounds(3)
		f.say("SIGKILL for client-003 in round %d; it never comes back", f.round())
		f.members[3].kill()
		f.members = f.members[:3]
		f.finish()
		f.said("client-003", "is not here any more")
		f.said("client-003", `does not count in round \d+, train: had not answered when 3 of 4 had`)
		f.say("%s", f.verify())
	})
	t.Run("stalls", func(t *testing.T) {
		f := newFederation(t, quorum, 4)
		f.open()
		f.joinAll()
		f.closedRounds(3)
		m := f.members[1]
		signal(t, m, syscall.SIGSTOP)
		at := f.round()
		f.say("client-001 stalls in round %d", at)
		f.closedRounds(at + 3)
		before := strings.Count(m.out.String(), ": counted")
		f.say("client-001 goes on in round %d", f.round())
		signal(t, m, syscall.SIGCONT)
		f.finish()
		f.said("client-001", `does not count in round \d+, train: had not answered when 3 of 4 had`)
		if late := m.out.lines(`too late|not needed any more|did not count|nobody waits`); len(late) == 0 {
			t.Errorf("client-001 says of no result that it came too late:\n%s", m.out.tail(30))
		} else {
			f.say("client-001: %s", late[0])
		}
		if n := strings.Count(m.out.String(), ": counted"); n <= before {
			t.Errorf("of client-001 nothing counts after its return")
		}
		f.say("%s", f.verify())
	})
	t.Run("deadline", func(t *testing.T) {
		f := newFederation(t, strings.Replace(paced, "rounds: 40", "rounds: 4", 1)+"round: {fraction: 1, deadline: 3s}\n", 4)
		f.open()
		f.joinAll()
		f.closedRounds(1)
		m := f.members[2]
		signal(t, m, syscall.SIGSTOP)
		f.closedRounds(2)
		signal(t, m, syscall.SIGCONT)
		f.finish()
		f.said("client-002", `does not count in round \d, train: had not answered by the deadline of 3s`)
		f.say("%s", f.verify())
	})
	t.Run("overlaps", func(t *testing.T) {
		f := newFederation(t, paced+"round: {fraction: 1, quorum: 0.5, staleness: 3, discount: 0.5}\n", 4)
		f.open()
		f.joinAll()
		f.closedRounds(3)
		m := f.members[1]
		signal(t, m, syscall.SIGSTOP)
		f.say("client-001 stalls in round %d", f.round())
		f.closedRounds(f.round() + 8)
		signal(t, m, syscall.SIGCONT)
		f.say("SIGKILL for client-002 and for the coordinator in round %d; both are started again", f.round())
		f.members[2].kill()
		f.killCoordinator(0)
		f.join(f.members[2])
		f.finish()
		f.said("client-001", `does not count in round \d+, train: not folded before the model changed more than 3 times`)
		f.say("%s", f.verify())
	})
}

func signal(t *testing.T, m *party, s syscall.Signal) {
	t.Helper()
	if err := m.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}
