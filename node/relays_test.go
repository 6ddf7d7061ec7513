package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/journal/faultfs"
	"github.com/cohort-learning/cohort/node/member"
	"github.com/cohort-learning/cohort/node/parcel"
	"github.com/cohort-learning/cohort/node/relay"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/transport/transporttest"
)

// station is a relay on loopback, in this process.
type station struct {
	f      *federation
	folder *member.Folder
	listen string
	ended  chan error
	stop   context.CancelFunc
}

// relay has a relay join and waits until the coordinator knows it.
func (f *federation) relay(name string, fsys journal.FS) *station {
	f.t.Helper()
	tokens, err := f.host.Tokens(time.Hour, name)
	if err != nil {
		f.t.Fatal(err)
	}
	port, err := transporttest.FreePort()
	if err != nil {
		f.t.Fatal(err)
	}
	s := &station{f: f, listen: fmt.Sprintf("127.0.0.1:%d", port)}
	if s.folder, err = member.Enrol(f.t.Context(), filepath.Join(f.t.TempDir(), name), tokens[0], member.EnrolOptions{}); err != nil {
		f.t.Fatal(err)
	}
	if err := s.open(fsys); err != nil {
		f.t.Fatal(err)
	}
	f.until(func() bool { return f.host.relays.Is(name) })
	return s
}

// open starts the relay, for the first time or again, on the same port.
func (s *station) open(fsys journal.FS) error {
	r, err := relay.Open(relay.Options{Folder: s.folder, Listen: s.listen, URL: "https://" + s.listen, Linger: 50 * time.Millisecond, FS: fsys})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop, s.ended = cancel, make(chan error, 1)
	s.f.t.Cleanup(cancel)
	ended := s.ended
	s.f.people.Go(func() { ended <- r.Run(ctx) })
	return nil
}

// leaf invites a member behind the relay.
func (s *station) leaf(name string) *member.Folder {
	s.f.t.Helper()
	tokens, err := s.f.host.TokensBehind(s.folder.Card.Name, time.Hour, name)
	if err != nil {
		s.f.t.Fatal(err)
	}
	folder, err := member.Enrol(s.f.t.Context(), filepath.Join(s.f.t.TempDir(), name), tokens[0], member.EnrolOptions{})
	if err != nil {
		s.f.t.Fatal(err)
	}
	return folder
}

func (f *federation) until(what func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(patience); !what(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("it does not come to pass: %+v", f.host.Status())
		}
	}
}

// TestRelayCrash crashes a relay at writes and syncs of its journal all along a run. It goes on from what is left there, and the
// run ends in the bits of the simulation, which knows of no relays.
func TestRelayCrash(t *testing.T) {
	run := func(rule *faultfs.Rule) (f *federation, events []faultfs.Event, digest string) {
		f = newFederation(t, twoSites)
		ffs := faultfs.New(journal.OS())
		run := f.start()
		s := f.relay("region", ffs)
		folders := []*member.Folder{s.leaf("client-000"), s.leaf("client-001")}
		joined := len(ffs.Events())
		if rule != nil {
			ffs.Add(*rule)
		}
		for i, folder := range folders {
			f.run(folder, i)
		}
		if rule != nil {
			select {
			case <-s.ended:
				if err := s.open(journal.OS()); err != nil {
					t.Fatalf("after the crash: %v", err)
				}
			case <-run.Done():
				t.Log("this time there were fewer operations")
			case <-time.After(patience):
				t.Fatal("neither a crash nor an end")
			}
		}
		f.wait(run)
		return f, ffs.Events()[joined:], finalDigest(t, run.Dir())
	}
	f, events, got := run(nil)
	want := f.simulated()
	if got != want {
		t.Fatalf("behind a relay the run ended in %.16s…, the simulation in %.16s…", got, want)
	}
	points := 3
	if os.Getenv("COHORT_THOROUGH") != "" {
		points = len(events)
	}
	for i := range points {
		at := 1 + i*len(events)/points
		rule := &faultfs.Rule{N: at, Part: events[at-1].Bytes / 2, Crash: []faultfs.Crash{faultfs.PowerLoss, faultfs.Kill}[i%2]}
		if _, _, got := run(rule); got != want {
			t.Errorf("after a crash at operation %d of %d the run ended in %.16s…, not %.16s…", at, len(events), got, want)
		}
	}
}

// TestDirect ends a relay for good in the middle of a run. Its leaves go to the coordinator itself, whose address the coordinator
// has signed, and the run ends in the bits of the simulation.
func TestDirect(t *testing.T) {
	f := newFederation(t, twoSites)
	f.hold = make(chan struct{})
	run := f.start()
	s := f.relay("region", nil)
	folders := []*member.Folder{s.leaf("client-000"), s.leaf("client-001")}
	if err := folders[0].GoHome(); err == nil {
		t.Error("a leaf that has not seen its relay's delegation goes home")
	}
	var quit []func()
	for i, folder := range folders {
		quit = append(quit, f.run(folder, i))
	}
	f.until(func() bool { return run.Now().Asked == 2 })
	s.stop()
	if err := <-s.ended; err != nil {
		t.Fatal(err)
	}
	close(f.hold)
	for i, folder := range folders {
		quit[i]()
		again, err := member.OpenFolder(folder.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := again.GoHome(); err != nil {
			t.Fatal(err)
		}
		if again.Card.URL != f.host.URL || again.Card.CA != f.host.CA.Fingerprint() {
			t.Errorf("home is %s, %s", again.Card.URL, again.Card.CA)
		}
		f.run(again, i)
	}
	f.wait(run)
	if got, want := finalDigest(t, run.Dir()), f.simulated(); got != want {
		t.Errorf("without its relay the run ended in %.16s…, the simulation in %.16s…", got, want)
	}
}

// TestRelayRefusals: what relays cannot do is refused in words, when it is asked for.
func TestRelayRefusals(t *testing.T) {
	f := newFederation(t, twoSites)
	refused := func(what string, err error, says string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, not … %s …", what, err, says)
		}
	}
	invite := func(relay string, names ...string) error {
		_, err := f.host.TokensBehind(relay, time.Hour, names...)
		return err
	}
	refused("no relay", invite("region", "alice"), "is no relay yet")
	s := f.relay("region", nil)
	f.relay("other", nil)
	if err := invite("region", "alice"); err != nil {
		t.Fatal(err)
	}
	refused("two relays", invite("other", "alice"), "alice is behind the relay region")
	refused("a relay behind a relay", invite("region", "other"), "has joined already")
	var many []string
	for i := range parcel.MaxLeaves {
		many = append(many, fmt.Sprintf("m-%d", i))
	}
	refused("too many", invite("region", many...), "at most 256")
	for says, change := range map[string][2]string{
		"staleness":   {"fraction: 1}", "fraction: 1, quorum: 0.5, staleness: 2}"},
		"robust rule": {"round:", "robust: {rule: median}\nround:"},
	} {
		r, err := recipe.Parse("test.yaml", []byte(strings.Replace(twoSites, change[0], change[1], 1)))
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.host.Start(t.Context(), r, RunOptions{ID: "other"})
		refused("a run with "+says, err, says)
		refused("a run with "+says, err, "behind relays")
		if err := os.RemoveAll(filepath.Join(f.host.Runs(), "other")); err != nil {
			t.Fatal(err)
		}
	}

	// A leaf enrols at its relay only, and a relay enrols its own leaves only.
	tokens, err := f.host.TokensBehind("other", time.Hour, "carol")
	if err != nil {
		t.Fatal(err)
	}
	strange := tokens[0]
	strange.URL, strange.CA = s.address()
	_, err = member.Enrol(t.Context(), filepath.Join(t.TempDir(), "carol"), strange, member.EnrolOptions{})
	refused("a leaf of another relay", err, "invit")

	// Whoever is revoked is shown out at the relay, too.
	folder := s.leaf("alice")
	var o member.Options
	if err := folder.Network(&o); err != nil {
		t.Fatal(err)
	}
	link, err := o.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	if err := f.host.Revoke("alice", "a test"); err != nil {
		t.Fatal(err)
	}
	f.until(func() bool { return o.Probe(t.Context()) == transport.ErrDenied })
}

// TestNoRelaysForLate: while a run is under way whose late results count, nobody is invited behind a relay.
func TestNoRelaysForLate(t *testing.T) {
	f := newFederation(t, strings.Replace(twoSites, "round: {fraction: 1}", "round: {fraction: 1, quorum: 0.5, staleness: 2}", 1))
	f.relay("region", nil)
	f.start()
	if _, err := f.host.TokensBehind("region", time.Hour, "alice"); err == nil || !strings.Contains(err.Error(), "takes no relays") {
		t.Errorf("invited: %v", err)
	}
}

// address is how the relay's leaves reach and recognise it.
func (s *station) address() (string, identity.Fingerprint) {
	s.f.host.relays.mu.RLock()
	defer s.f.host.relays.mu.RUnlock()
	e := s.f.host.relays.list[s.folder.Card.Name]
	return e.URL, e.CA
}
