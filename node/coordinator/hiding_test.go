package coordinator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/transport"
)

// shape is what whoever lacks the key can tell of a journal's records: all but their hashes.
func shape(t *testing.T, text []byte) (rounds []string) {
	t.Helper()
	s := journal.NewScanner(bytes.NewReader(text), "")
	this, sealed := "", 0
	flush := func() {
		if sealed > 0 {
			this += fmt.Sprintf("%d sealed; ", sealed)
		}
		sealed = 0
	}
	var lens []string
	for {
		r, err := s.Next()
		if err != nil {
			break
		}
		switch r.Kind {
		case journal.KindSealed:
			sealed++
			lens = append(lens, fmt.Sprint(len(r.Body)))
		case simulation.KindRoundClosed:
			flush()
			slices.Sort(lens) // who came when is the order of what all look alike
			rounds = append(rounds, this+strings.Join(slices.Compact(lens), " "))
			this, lens = "", nil
		default:
			flush()
			this += r.Kind + "; "
		}
	}
	return rounds
}

// drawn returns who was asked in each round of training, as the coordinator knows it.
func (w *world) drawn() (out []federated.PhaseOpened) {
	w.t.Helper()
	for r, err := range record.Read(w.fs, filepath.Join(w.dir, "run"), simulation.KindPhaseOpened) {
		if err != nil {
			w.t.Fatal(err)
		}
		var o federated.PhaseOpened
		if err := r.Decode(&o); err != nil {
			w.t.Fatal(err)
		}
		if learning(o.Phase) {
			out = append(out, o)
		}
	}
	return out
}

// In a run whose members are drawn by secret coins, what a member can read and hear, and what it is answered whatever it asks, is
// the same whoever else takes part in a round.
func TestWhoIsDrawnStaysHidden(t *testing.T) {
	w := newWorld(t, "private")
	w.config.Rounds = 12
	w.gate = make(chan struct{})
	if err := w.begin(); err != nil {
		t.Fatal(err)
	}
	w.joinAll()
	names := slices.Sorted(func(yield func(string) bool) {
		for name := range w.members {
			if !yield(name) {
				return
			}
		}
	})
	for time.Sleep(time.Millisecond); len(w.drawn()) == 0; time.Sleep(time.Millisecond) {
	}
	during := w.drawn()[0]
	w.probe(names, during, "while the round is under way")
	var shown bytes.Buffer
	if err := w.run.WriteJournal(&shown, 0); err != nil || bytes.Contains(shown.Bytes(), []byte(journal.KindSealed+`"`)) {
		t.Errorf("a round under way is shown: %s %v", shown.Bytes(), err)
	}
	close(w.gate)
	w.wait()
	if err := w.run.Err(); err != nil {
		t.Fatal(err)
	}
	w.probe(names, during, "afterwards")

	// The journal, to its last byte.
	shown.Reset()
	if err := w.run.WriteJournal(&shown, 0); err != nil {
		t.Fatal(err)
	}
	all := w.drawn()
	sizes := map[int]bool{}
	for _, o := range all {
		sizes[len(o.Selected)] = true
	}
	if len(sizes) < 2 {
		t.Fatalf("in all %d rounds equally many were drawn", len(all))
	}
	rounds := shape(t, shown.Bytes())
	for i, s := range rounds[1:] {
		if s != rounds[1] {
			t.Errorf("round %d looks like\n%s\nand round 2 like\n%s", i+2, s, rounds[1])
		}
	}
	if len(rounds) != w.config.Rounds {
		t.Errorf("%d rounds are shown", len(rounds))
	}
	for _, kind := range []string{KindReceived, KindFold, simulation.KindPhaseOpened} {
		if n := bytes.Count(shown.Bytes(), []byte(`"kind":"`+kind+`"`)); kind != simulation.KindPhaseOpened && n > 0 || n > w.config.Rounds {
			t.Errorf("%d records of kind %s are in the open", n, kind)
		}
	}

	// What members have heard: their own order and no other, and heads that come in equal steps.
	for i, name := range names {
		m := w.members[name]
		m.mu.Lock()
		heard := m.heard
		m.mu.Unlock()
		heads := map[uint64]bool{}
		for _, e := range heard {
			var c transport.Close
			if e.Kind != transport.KindClose || e.Decode(&c) != nil || c.Last {
				continue
			}
			heads[c.Head.Seq] = true
			if !learning(e.Step) {
				continue
			}
			o := all[e.Round]
			want := ""
			if slices.Contains(o.Selected, w.run.place(name)) {
				want = fmt.Sprint(o.First + w.run.place(name))
			}
			if got := c.Folded + c.Lost; got != want {
				t.Errorf("%s hears of orders %q in round %d, its own is %q", name, got, e.Round, want)
			}
		}
		if len(heads) < w.config.Rounds {
			t.Errorf("member %d has heard of the ends of %d phases", i, len(heads))
		}
	}
	w.end()

	// The coordinator, and whoever has the key, reads all of it; without it, it says which key.
	w.replay("with the key")
	key := filepath.Join(w.dir, "run", record.SecretName)
	was, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		damage func() error
		want   string
	}{
		"missing": {func() error { return os.Remove(key) }, "secret.key is missing"},
		"another": {func() error { return os.WriteFile(key, make([]byte, 32), 0o600) }, "secret.key is not the key that the run began with"},
	} {
		if err := c.damage(); err != nil {
			t.Fatal(err)
		}
		_, attendance := ReadAttendance(filepath.Join(w.dir, "run"))
		_, metrics := record.ReadMetrics(filepath.Join(w.dir, "run"))
		w.bus = transport.NewMemory()
		resume := w.begin()
		w.end()
		for what, err := range map[string]error{"attendance": attendance, "metrics": metrics, "resume": resume, "replay": w.replayed()} {
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "is sealed") {
				t.Errorf("%s, %s key: %v", what, name, err)
			}
		}
		if err := os.WriteFile(key, was, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.replay("with the key again")
}

// probe has every member ask about the orders of all others in a phase, in every way there is: the answers have to be the same for
// orders that there are and for orders that there are not.
func (w *world) probe(names []string, o federated.PhaseOpened, when string) {
	w.t.Helper()
	for _, name := range names {
		m := w.members[name]
		own := w.run.place(name)
		answers := map[string][]int{}
		for i := range o.Roster {
			if i == own {
				continue
			}
			order := o.First + i
			var said []string
			for _, body := range []transport.Body{&transport.Ask{Order: order, Blobs: []transport.Ref{{Bytes: 1, Media: "application/safetensors"}}},
				&transport.Result{Order: order, Abstained: true}, &transport.Sync{Holding: []transport.Holding{{Order: order, State: "kept"}}}} {
				e, _, err := m.request(body, transport.Envelope{Step: o.Phase, Round: o.Round})
				if err != nil {
					w.t.Fatal(err)
				}
				text := string(e.Body)
				var v map[string]any
				if json.Unmarshal(e.Body, &v) == nil {
					delete(v, "head")
					delete(v, "messages") // of its own duties
					text = fmt.Sprint(v)
				}
				said = append(said, strings.ReplaceAll(string(e.Kind)+" "+text, fmt.Sprint(order), "N"))
			}
			text := strings.Join(said, "\n")
			answers[text] = append(answers[text], i)
		}
		if len(answers) != 1 {
			w.t.Errorf("%s, %s is answered otherwise about some members than about others, of whom %v are drawn: %v", when, name, o.Selected, answers)
		}
	}
}
