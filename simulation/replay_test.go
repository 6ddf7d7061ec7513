package simulation_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/federated/scaffold"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/journal/faultfs"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
	"pgregory.net/rapid"
)

const eventfulRounds = 6

// eventful is a job in which many things go wrong.
func eventful(t testing.TB, e *train.Engine, name string, pace federated.Pace, seed uint64) *simulation.Job {
	j := job(t, e, name)
	j.Config.Pace, j.Config.Rounds = pace, eventfulRounds
	j.Fleet.Seed = seed
	j.Conditions = simulation.Conditions{Latency: time.Minute, Spread: 1, Jitter: 0.5, Dropout: 0.2}
	if pace.Deadline > 0 {
		j.Conditions.Stall = 0.1
	}
	return j
}

// apart is the job of somebody who has only the members' data, each in a place of its own, and more members than took part.
func apart(j *simulation.Job) *simulation.Job {
	f := &simulation.Fleet{Split: j.Fleet.Split, Engine: j.Fleet.Engine, Seed: j.Fleet.Seed}
	c := *j
	c.Fleet, c.Conditions = f, simulation.Conditions{}
	for i := range j.Fleet.Len() {
		m := j.Fleet.Member(i)
		l := j.Fleet.Local(m)
		f.Own = append(f.Own, simulation.Holder{Name: m.Name, Train: copied(l.Train), Test: copied(l.Test)})
	}
	f.Own = append(f.Own, simulation.Holder{Name: "late", Train: f.Own[0].Train})
	return &c
}

func copied(v dataset.View) dataset.View {
	e := &dataset.Examples{Name: v.Data.Name, Shape: v.Data.Shape, Classes: v.Data.Classes}
	for _, r := range v.Rows {
		e.F32 = append(e.F32, v.Data.F32[int(r)*v.Data.Size():(int(r)+1)*v.Data.Size()]...)
		e.Labels = append(e.Labels, v.Data.Labels[r])
	}
	return e.All()
}

func history(t interface{ Fatal(...any) }, records iter.Seq2[journal.Record, error]) *simulation.History {
	h, err := simulation.ReadHistory(records)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// Whatever happened to members and whenever rounds closed, a run comes out the same from its journal and the members' data
// alone; and not if the journal says something else about who took part.
func TestReplay(t *testing.T) {
	e := fedtest.Engine(t, "go")
	paces := []federated.Pace{{}, {Quorum: 0.6}, {Deadline: 90 * time.Second}, {Quorum: 0.5, Deadline: 50 * time.Second},
		{Quorum: 0.5, Staleness: 2, Discount: 0.5}, {Quorum: 0.3, Staleness: 1}, {Quorum: 0.4, Staleness: 3, Deadline: 40 * time.Second}}
	failed, stale, late := 0, 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		name := rapid.SampledFrom([]string{"fedavg", "scaffold", "heterofl"}).Draw(rt, "method")
		pace := rapid.SampledFrom(paces).Draw(rt, "pace")
		seed := rapid.Uint64().Draw(rt, "seed")
		dir := t.TempDir()
		s, err := work(eventful(t, e, name, pace, seed), dir, journal.OS(), 1)
		if err != nil {
			rt.Fatal(err)
		}
		records := slices.Collect(records(rt, dir))
		for _, r := range records {
			if r.Kind == simulation.KindPhaseClosed {
				p := closedOf(rt, r)
				failed += len(p.Lost)
				for _, f := range p.Folded[:max(0, len(p.Folded)-1)] {
					stale += len(f.Members)
				}
				late += strings.Count(string(r.Body), "not folded before")
			}
		}
		j := apart(eventful(t, e, name, pace, seed))
		if n, digest, err := j.Replay(t.Context(), history(rt, all(records)), nil); n != eventfulRounds || digest != s.Digest() || err != nil {
			rt.Fatalf("%d rounds agree, the last to %.16s, want %d and %.16s; error %v", n, digest, eventfulRounds, s.Digest(), err)
		}
		// Now somebody forges the journal.
		r := rng.New(rapid.Uint64().Draw(rt, "forger"), 0, "", "")
		round, what := forge(rt, records, r)
		var differs *simulation.MismatchError
		if n, _, err := j.Replay(t.Context(), history(rt, all(records)), nil); !errors.As(err, &differs) || differs.Round != round || n != round {
			rt.Fatalf("%s: %d rounds agree, error %v", what, n, err)
		}
	})
	if !testing.Short() && (failed == 0 || stale == 0 || late == 0) {
		t.Errorf("%d members failed, %d stale answers counted, %d were given up: the test tests nothing", failed, stale, late)
	}
}

// forgetful is a method whose member 2 has lost what it keeps when it trains in round 1.
type forgetful struct{ federated.Algorithm }

func (f forgetful) Client() federated.Client { return forgetfulClient{f.Algorithm.Client()} }

type forgetfulClient struct{ federated.Client }

func (c forgetfulClient) Run(ctx context.Context, at federated.Local, task federated.Task, keep *weights.Set) (federated.Result, error) {
	if at.Member.Index == 2 && task.Round == 1 && task.Phase == "train" {
		keep = nil
	}
	return c.Client.Run(ctx, at, task, keep)
}

// A state that was lost is replayed as lost.
func TestReplayReset(t *testing.T) {
	e := fedtest.Engine(t, "go")
	dir := t.TempDir()
	j := job(t, e, "scaffold")
	j.Algorithm.(*scaffold.Algorithm).Select = federated.Selection{Everyone: true}
	plain := j.Algorithm
	j.Algorithm = forgetful{plain}
	if _, err := work(j, dir, journal.OS(), 1); err != nil {
		t.Fatal(err)
	}
	j.Algorithm = plain
	h := history(t, journal.Read(journal.OS(), dir))
	if n, _, err := j.Replay(t.Context(), h, []simulation.Reset{{Round: 1, Phase: "train", Member: 2}}); n != rounds || err != nil {
		t.Errorf("%d rounds agree, error %v", n, err)
	}
	var differs *simulation.MismatchError
	if n, _, err := j.Replay(t.Context(), h, nil); n != 1 || !errors.As(err, &differs) || differs.Round != 1 {
		t.Errorf("without the reset: %d rounds agree, error %v", n, err)
	}
}

// A run that was killed and went on tells of some phases twice; it comes out the same all the same.
func TestReplayResumed(t *testing.T) {
	e := fedtest.Engine(t, "go")
	for _, name := range []string{"fedavg", "asynchronous"} {
		_, digest, events := reference(t, e, name, 2)
		twice := 0
		for i, event := range events {
			if i < opening || testing.Short() && i%4 > 0 || event.Op != faultfs.Write || !strings.HasSuffix(event.Name, journal.FileName) {
				continue
			}
			dir, f := t.TempDir(), faultfs.New(journal.OS())
			f.Add(faultfs.Rule{N: i + 1, After: true, Crash: faultfs.Kill})
			if _, err := work(job(t, e, name), dir, f, 2); err == nil {
				t.Fatal("no crash")
			}
			if _, err := work(job(t, e, name), dir, journal.OS(), 2); err != nil {
				t.Fatal(err)
			}
			opened := map[string]int{}
			for r := range records(t, dir) {
				if r.Kind == simulation.KindPhaseOpened {
					opened[string(r.Body)]++
				}
			}
			for _, n := range opened {
				twice += n - 1
			}
			j := job(t, e, name)
			if n, got, err := j.Replay(t.Context(), history(t, journal.Read(journal.OS(), dir)), nil); n != rounds || got != digest || err != nil {
				t.Errorf("%s, killed at operation %d: %d rounds agree, the last to %.16s; error %v", name, i, n, got, err)
			}
		}
		if twice == 0 && !testing.Short() {
			t.Errorf("%s: no phase is told of twice: the test tests nothing", name)
		}
	}
}

// A journal that nobody can make sense of is refused.
func TestBadHistory(t *testing.T) {
	opened := journal.Record{Kind: simulation.KindPhaseOpened, Body: json.RawMessage(`{"round":0,"phase":"train","roster":2}`)}
	closed := journal.Record{Kind: simulation.KindPhaseClosed, Body: json.RawMessage(`{"round":0,"phase":"train"}`)}
	round := func(n int) journal.Record {
		return journal.Record{Kind: simulation.KindRoundClosed, Body: json.RawMessage(fmt.Sprintf(`{"round":%d,"digest":"x"}`, n))}
	}
	for want, records := range map[string][]journal.Record{
		"closed no round yet":          {opened, closed},
		"which is not open":            {closed, round(0)},
		"and not its phase":            {opened, round(0)},
		"closes round 1, and not":      {opened, closed, round(1)},
		"cannot unmarshal":             {{Kind: simulation.KindPhaseClosed, Body: json.RawMessage(`[]`)}},
		"round 0 came out differently": {opened, closed, round(0)},
	} {
		h, err := simulation.ReadHistory(all(records))
		if err == nil {
			_, _, err = job(t, fedtest.Engine(t, "go"), "fedavg").Replay(t.Context(), h, nil)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}

func records(t interface{ Fatal(...any) }, dir string) iter.Seq[journal.Record] {
	return func(yield func(journal.Record) bool) {
		for r, err := range journal.Read(journal.OS(), dir) {
			if err != nil {
				t.Fatal(err)
			}
			if !yield(r) {
				return
			}
		}
	}
}

func all(records []journal.Record) iter.Seq2[journal.Record, error] {
	return func(yield func(journal.Record, error) bool) {
		for _, r := range records {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// closedOf returns who took part in a phase.
func closedOf(t interface{ Fatal(...any) }, r journal.Record) federated.PhaseClosed {
	var p struct {
		federated.PhaseClosed
		Metrics json.RawMessage `json:"metrics"`
	}
	if err := json.Unmarshal(r.Body, &p); err != nil {
		t.Fatal(err)
	}
	return p.PhaseClosed
}

// forge changes what one record says of one member, and returns which round that is and what was done.
func forge(t interface{ Fatal(...any) }, records []journal.Record, r *rng.Stream) (round int, what string) {
	var at []int
	for i, x := range records {
		if p := closedOf(t, x); x.Kind == simulation.KindPhaseClosed && p.Phase == "train" && len(p.Folded)+len(p.Lost) > 0 {
			at = append(at, i)
		}
	}
	i := at[r.IntN(len(at))]
	p := closedOf(t, records[i])
	var body map[string]any
	if err := json.Unmarshal(records[i].Body, &body); err != nil {
		t.Fatal(err)
	}
	folded := slices.Clone(p.Folded)
	k := r.IntN(max(1, len(folded)))
	switch {
	case len(folded) > 0 && r.IntN(2) == 0: // one who was folded is not, or is lost
		m := folded[k].Members[r.IntN(len(folded[k].Members))]
		folded[k].Members = without(folded[k].Members, m)
		what = fmt.Sprintf("member %d not folded", m)
		if r.IntN(2) == 0 {
			body["lost"], what = with(p.Lost, m), what+" but lost"
		}
	case len(p.Lost) > 0: // one who was lost is folded
		m := p.Lost[r.IntN(len(p.Lost))]
		if len(folded) == 0 {
			folded = []federated.Share{{Base: p.Round}}
		}
		folded[k].Members = with(folded[k].Members, m)
		body["lost"], what = without(p.Lost, m), fmt.Sprintf("member %d, who was lost, folded", m)
	default: // from another version
		folded[k].Base++
		what = "folded from another version"
	}
	body["folded"] = folded
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	records[i].Body = b
	return p.Round, fmt.Sprintf("round %d of %d, %s", p.Round, len(at), what)
}

func without(x federated.Indices, m int) federated.Indices {
	return slices.DeleteFunc(slices.Clone(x), func(i int) bool { return i == m })
}

func with(x federated.Indices, m int) federated.Indices {
	out := append(slices.Clone(x), m)
	slices.Sort(out)
	return out
}
