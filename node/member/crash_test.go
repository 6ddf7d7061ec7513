package member_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/journal/faultfs"
	"github.com/cohort-learning/cohort/node/member"
	"github.com/cohort-learning/cohort/weights"
)

// crashes runs a study with a member whose machine crashes as a rule says, and is started again until the run is over.
type crashes struct {
	coordinator *coordinator
	person      *person
	disk        *faultfs.FS
	state       federated.State
	crashed     int
	vaults      []map[string]string // after each crash, and at the end
}

func survive(t *testing.T, s *study, setup func(*coordinator), rules ...faultfs.Rule) *crashes {
	t.Helper()
	x := &crashes{coordinator: newCoordinator(t, s, theFederation)}
	x.person = newPerson(x.coordinator)
	x.disk = faultfs.New(x.person.disk)
	for _, r := range rules {
		x.disk.Add(r)
	}
	synctest.Test(t, func(t *testing.T) {
		x.coordinator.open()
		if setup != nil {
			setup(x.coordinator)
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		done := make(chan error, 1)
		go func() {
			err := x.person.run(ctx, x.disk, nil)
			for errors.Is(err, faultfs.ErrCrashed) && x.crashed < 3 {
				x.crashed++
				x.vaults = append(x.vaults, x.person.vault())
				err = x.person.run(ctx, nil, nil)
			}
			if err != nil {
				cancel()
			}
			done <- err
		}()
		var err error
		if x.state, err = x.coordinator.run(ctx); err != nil {
			cancel()
		}
		if merr := <-done; err != nil || merr != nil {
			t.Errorf("coordinator: %v; member: %v", err, merr)
		}
	})
	x.vaults = append(x.vaults, x.person.vault())
	return x
}

// memory is what the member keeps at the end, by its journal and its files.
func (x *crashes) memory(t *testing.T) *weights.Set {
	t.Helper()
	last := -1
	for r, err := range journal.Decode[struct {
		Order  int
		Memory *struct{}
	}](journal.Read(x.person.disk, x.person.folder.Dir, member.KindCommitted)) {
		if err != nil {
			t.Fatal(err)
		}
		if r.Body.Memory != nil {
			last = r.Body.Order
		}
	}
	dir := x.person.folder.Dir + "/state/" + theRun
	files := x.person.disk.list(dir)
	if last < 0 {
		if len(files) > 0 {
			t.Errorf("files of memories that nobody needs: %v", files)
		}
		return nil
	}
	if want := fmt.Sprintf("%d.safetensors", last); !slices.Equal(files, []string{want}) {
		t.Errorf("files of memories %v, want %s", files, want)
	}
	f, err := x.person.disk.OpenFile(fmt.Sprintf("%s/%d.safetensors", dir, last), os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := weights.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	return &s
}

// compare checks that nothing of the run depends on the crashes.
func (x *crashes) compare(t *testing.T, what string, want *fedtest.Trace) {
	t.Helper()
	if x.state.Digest() != want.Final.Digest() {
		t.Errorf("%s: another final state", what)
	}
	fates := x.person.records(t, member.KindCommitted, member.KindDropped)
	for id, o := range x.coordinator.orders {
		want := member.KindCommitted
		if o.dropped || !o.told {
			want = member.KindDropped
		}
		if f := fates[id]; len(f) != 1 || f[0] != want {
			t.Errorf("%s: order %d was %s; the member's journal says %v", what, id, want, f)
		}
		if len(o.results) != 1 {
			t.Errorf("%s: order %d got %d different results", what, id, len(o.results))
		}
		if o.failed != "" || slices.Contains(o.memory, "lost") {
			t.Errorf("%s: order %d: failed %q, memories %q", what, id, o.failed, o.memory)
		}
	}
	x.compareVaults(t, what)
	got, kept := x.memory(t), want.Members.Kept()[0]
	if (got == nil) != (kept == nil) || got != nil && !got.Equal(*kept) {
		t.Errorf("%s: the member keeps something else than the simulated one", what)
	}
}

// crashesAt are the ways to crash at the ith operation. One that writes or syncs the journal has all there are: a record is not
// written, torn, written but not synced, or synced and has not had its effect.
func crashesAt(i int, e faultfs.Event) []faultfs.Rule {
	r := faultfs.Rule{N: i + 1, Part: e.Bytes / 2, Crash: []faultfs.Crash{faultfs.PowerLoss, faultfs.Kill, faultfs.PowerLossAfterMetadata}[i%3],
		After: i%2 == 1 && e.Op != faultfs.Write}
	other := r
	switch {
	case filepath.Base(e.Name) != journal.FileName:
		return []faultfs.Rule{r}
	case e.Op == faultfs.Write:
		other.Part = 0
	case e.Op == faultfs.Sync:
		other.After = !r.After
		other.Crash = faultfs.PowerLoss // a process that is killed before a sync loses nothing
	default:
		return []faultfs.Rule{r}
	}
	return []faultfs.Rule{r, other}
}

// TestCrash loses power, or is killed, at every operation on files that a member makes in a run, torn in the middle of every
// write, and goes on: every order gets the same bytes once, and memories are committed exactly as they were folded; in a study whose
// rounds overlap, also those that were folded rounds later, and none that was accepted and then given up as stale; in one with
// secure sums, what the vault has is never something else. Every operation is tried in one way, of secure sums one in seven, with
// COHORT_THOROUGH=1 in all of crashesAt, with -short only one operation in five.
func TestCrash(t *testing.T) {
	e := fedtest.Engine(t, "go")
	for _, method := range []string{"fedavg", "scaffold", "asynchronous", "secure", "gal"} {
		t.Run(method, func(t *testing.T) {
			s := newStudy(t, e, method)
			want := s.simulate(t)
			undisturbed := survive(t, s, nil)
			undisturbed.compare(t, "undisturbed", want)
			events := undisturbed.disk.Events()
			tried := map[string]int{}
			for i, event := range events {
				if testing.Short() && i%5 != 0 || s.secure() && os.Getenv("COHORT_THOROUGH") == "" && i%7 != 3 { // sessions are alike
					continue
				}
				rules := crashesAt(i, event)
				if os.Getenv("COHORT_THOROUGH") == "" {
					rules = rules[i/2%len(rules):][:1]
				}
				for _, rule := range rules {
					x := survive(t, s, nil, rule)
					what := fmt.Sprintf("operation %d, %s of %s, %d bytes of it, after it %v", i, event.Op, event.Name, rule.Part, rule.After)
					if x.crashed == 0 && i < len(events)*9/10 { // how many there are depends on what comes first, a verdict or a close
						t.Errorf("%s: no crash", what)
					}
					tried[string(event.Op)] += x.crashed
					x.compare(t, what, want)
					if t.Failed() {
						for _, e := range x.person.events {
							t.Log(e.Kind, e.Text)
						}
						return
					}
				}
			}
			t.Logf("%d operations, crashes %v", len(events), tried)
		})
	}
}
