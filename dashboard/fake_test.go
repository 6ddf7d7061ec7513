package dashboard

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/record"
)

// world is a coordinator that only pretends: it keeps a real journal and real metrics of its run, and its members do what the
// test says.
type world struct {
	t    testing.TB
	run  *record.Run
	feed *Feed

	mu       sync.Mutex
	now      time.Time
	state    Run
	members  []Member
	counters Counters
	others   []Run
}

const worldRounds = 60

var worldLevels = []string{"a", "b", "c", "d", "e"}

func newWorld(t testing.TB) *world {
	w := &world{t: t, feed: NewFeed(), now: time.Date(2026, 11, 27, 9, 0, 0, 0, time.UTC)}
	var err error
	w.run, err = record.Create(t.TempDir()+"/run", record.Meta{ID: "ward-images", Method: "heterofl"}, []byte("{}"), record.Options{Now: func() time.Time { return w.now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.run.Close(record.Finished, nil); err != nil {
			t.Error(err)
		}
	})
	w.state = Run{ID: "ward-images", Title: "Ward images, first federation", Method: "heterofl", State: Running, Created: w.now, Rounds: worldRounds,
		Facts: []Fact{{"data", "28 × 28 images, 10 classes"}, {"model", "cnn, hidden 64 128 256 512"}, {"levels", "1, 1/2, 1/4, 1/8, 1/16"},
			{"members each round", "14 of 20"}, {"local epochs", "5"}, {"quorum, deadline", "12 members, 90 s"}}}
	names := []string{"aachen", "basel", "charité-berlin", "dresden", "erlangen", "freiburg", "göttingen", "heidelberg", "innsbruck", "jena", "köln",
		"linz", "mainz", "northern-district-hospital", "oldenburg", "passau", "regensburg", "salzburg", "tübingen", "ulm"}
	for i, n := range names {
		w.members = append(w.members, Member{Name: n, Presence: Here, Level: worldLevels[i%5], Kernels: []string{"avx2", "avx512", "neon"}[i%3],
			Samples: int64(900 + 517*i%3100), Seen: w.now})
		w.say(record.Event{Level: record.Info, Message: n + " joined"})
	}
	w.members = append(w.members, Member{Name: "zürich", Presence: Invited})
	w.others = []Run{
		{ID: "trial-2", Method: "fedavg", State: Finished, Created: w.now.Add(-26 * time.Hour), Ended: w.now.Add(-25 * time.Hour), Round: 20, Rounds: 20, Up: 81e6, Down: 90e6},
		{ID: "trial-1", Method: "scaffold", State: Failed, Error: "all 3 clients failed; the first, aachen: images are 32 × 32, not 28 × 28", Created: w.now.Add(-30 * time.Hour), Ended: w.now.Add(-29 * time.Hour), Round: 2, Rounds: 20},
	}
	w.counters = Counters{Refused: map[string]uint64{"tls": 3, "rate": 41}, Connections: 22}
	return w
}

// tell journals a body, as a coordinator does, and passes it on.
func (w *world) tell(b record.Body) {
	rec, err := w.run.Journal().Append("phase.closed", b)
	if err != nil {
		w.t.Error(err)
	}
	w.feed.Tell(b, rec.Time)
}

func (w *world) say(e ...record.Event) {
	round := max(0, w.state.Round-1)
	w.tell(record.Body{Round: round, Events: e})
}

// begin opens the training phase of the next round.
func (w *world) begin() {
	w.mu.Lock()
	w.now = w.now.Add(2 * time.Second)
	w.state.Round++
	w.state.Phase, w.state.Answered, w.state.Asked = "train", 0, 14
	w.state.Deadline = time.Now().Add(90 * time.Second)
	for i := range w.members[:20] {
		m := &w.members[i]
		if m.Presence == Here && (i+w.state.Round*7)%20 < 14 {
			m.Presence = Working
		}
	}
	w.mu.Unlock()
	w.feed.Touch()
}

// answer has n members answer.
func (w *world) answer(n int) {
	w.mu.Lock()
	w.now = w.now.Add(3 * time.Second)
	for i := range w.members {
		m := &w.members[i]
		if n > 0 && m.Presence == Working {
			m.Presence, m.Folded, m.Seen = Here, m.Folded+1, time.Now()
			w.state.Answered++
			w.counters.Appends++
			n--
		}
	}
	w.mu.Unlock()
	w.feed.Touch()
}

// finish closes the round with metrics as they usually are, and with failures.
func (w *world) finish(failed ...record.Event) {
	w.mu.Lock()
	r := w.state.Round - 1
	b := record.Body{Round: r, Events: failed}
	for i, l := range worldLevels {
		up := 1.1e6 / math.Pow(3.6, float64(i)) * float64(1+(r*r+3*i+r/2)%4)
		b.Metrics = append(b.Metrics, record.Metric{Name: "bytes.up", Key: l, Value: math.Round(up)}, record.Metric{Name: "bytes.down", Key: l, Value: math.Round(up * 1.08)},
			record.Metric{Name: "clients", Key: l, Value: 3})
		w.state.Up += int64(up)
		w.state.Down += int64(up * 1.08)
	}
	x := float64(r + 1)
	noise := 0.006 * math.Sin(x*2.3)
	b.Metrics = append(b.Metrics, record.Metric{Name: "loss.train", Value: 2.1*math.Exp(-x/14) + 0.12 + noise})
	if r%2 == 0 {
		for i, l := range append([]string{""}, worldLevels...) {
			k := float64(max(0, i-1))
			a := 0.965 - 0.022*k - (0.8-0.03*k)*math.Exp(-x/(9+1.4*k)) + noise*(1+k/3)
			b.Metrics = append(b.Metrics, record.Metric{Name: "accuracy", Key: l, Value: a}, record.Metric{Name: "loss", Key: l, Value: 2.4*math.Exp(-x/(10+k)) + 0.11 + 0.05*k - noise},
				record.Metric{Name: "accuracy.local", Key: l, Value: min(0.99, a+0.03-0.3*math.Exp(-x/5))})
		}
	}
	w.state.Phase, w.state.Answered, w.state.Asked = "", 0, 0
	w.state.Digest = fmt.Sprintf("%x", sha256.Sum256([]byte{byte(r)}))
	w.counters.Verdicts = []VerdictCount{{"accepted", "", uint64(14 * (r + 1))}, {"late", "", 2}, {"refused", "shape", 1}, {"refused", "shape", 1}}
	w.counters.Syncs, w.counters.SyncTime = uint64(3*r), time.Duration(r)*4*time.Millisecond
	for i := range w.members {
		if w.members[i].Presence == Working {
			w.members[i].Presence = Here
		}
	}
	b.Events = append([]record.Event{{Level: record.Info, Message: fmt.Sprintf("round %d closed: %d of 14 folded", r+1, 14-len(failed))}}, b.Events...)
	w.mu.Unlock()
	w.tell(b)
	w.feed.Touch()
}

// rounds lets n rounds go by.
func (w *world) rounds(n int) {
	for range n {
		w.begin()
		w.answer(14)
		var failed []record.Event
		switch w.state.Round % 9 {
		case 3:
			failed = append(failed, record.Event{Level: record.Warn, Client: "oldenburg", Message: "train: missed the deadline of 90 s; it was last heard of 41 s before"})
		case 5:
			failed = append(failed, record.Event{Level: record.Warn, Client: "linz", Message: "train: the connection was lost"})
		case 7:
			failed = append(failed, record.Event{Level: record.Warn, Client: "northern-district-hospital", Message: `train: refused (shape): "conv2.weight" has shape 3×3×64×64, the task says 3×3×32×64`})
		}
		w.finish(failed...)
	}
}

func (w *world) set(name string, change func(*Member)) {
	w.mu.Lock()
	for i := range w.members {
		if w.members[i].Name == name {
			change(&w.members[i])
		}
	}
	w.mu.Unlock()
	w.feed.Touch()
}

func (w *world) end(s State) {
	w.mu.Lock()
	w.state.State, w.state.Ended, w.state.Phase = s, w.now, ""
	w.state.Report, w.state.Model = true, true
	w.mu.Unlock()
	w.feed.End()
}

var _ Source = (*world)(nil)

func (w *world) About() About {
	return About{Federation: "Hospitals of the north", Version: "0.2.0", Started: w.state.Created}
}

func (w *world) Runs() []Run {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append(slices.Clone(w.others), w.state)
}

func (w *world) Run(id string) (Run, bool) {
	for _, r := range w.Runs() {
		if r.ID == id {
			return r, true
		}
	}
	return Run{}, false
}

func (w *world) Members(id string) []Member {
	w.mu.Lock()
	defer w.mu.Unlock()
	if id != w.state.ID {
		return nil
	}
	return slices.Clone(w.members)
}

func (w *world) History(id string) (History, func(), error) {
	if id != "ward-images" {
		return nil, nil, ErrNoHistory
	}
	return w.run.Metrics(), nil, w.run.Metrics().Update(w.run.Journal())
}

func (w *world) Feed(id string) *Feed {
	if id != "ward-images" {
		return nil
	}
	return w.feed
}

type content struct{ *bytes.Reader }

func (content) Close() error { return nil }

func (w *world) Open(id string, what Artifact) (*Download, error) {
	if r, ok := w.Run(id); !ok || !r.Model {
		return nil, fs.ErrNotExist
	}
	return &Download{Name: id + ".safetensors", Changed: w.now, Content: content{bytes.NewReader([]byte(strings.Repeat(string(what), 1000)))}}, nil
}

func (w *world) Counters() Counters {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counters
}
