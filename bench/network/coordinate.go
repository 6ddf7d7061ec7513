package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/node"
	"github.com/cohort-learning/cohort/node/coordinator"
	"github.com/cohort-learning/cohort/node/gate"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/weights"
)

// keys is the content of the file of keys.
type keys struct {
	URL        string
	CA         identity.Fingerprint
	Federation identity.Public
	Seeds      []string // by member
}

func memberName(i int) string { return fmt.Sprintf("member-%05d", i) }

// coordinate is the coordinator's process.
func coordinate(ctx context.Context, o options) error {
	var s scenario
	if err := json.Unmarshal([]byte(o.scenario), &s); err != nil {
		return err
	}
	h, err := node.Open(node.Options{Dir: filepath.Join(o.dir, "coordinator"), Listen: "127.0.0.1:0", URL: "https://127.0.0.1",
		Limits: gate.Limits{Connections: 19_000}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- h.Serve(ctx) }()
	defer func() { cancel(); <-served }()
	k := keys{URL: "https://" + h.Addr().String(), CA: h.CA.Fingerprint(), Federation: h.Book.Key.Public()}
	if err := enrol(h, s.Members, &k); err != nil {
		return err
	}
	text, err := json.Marshal(k)
	if err != nil {
		return err
	}
	if err := os.WriteFile(keysFile(o.dir), text, 0o600); err != nil {
		return err
	}
	enc := json.NewEncoder(os.Stdout)
	w := &watcher{began: time.Now(), profile: func() (func() error, error) { return profile(o.profile, "coordinator") }, after: min(warm, s.Rounds-1),
		counts: func() error { return enc.Encode(counting{s.Rounds - min(warm, s.Rounds-1)}) }}
	rec, err := record.Create(filepath.Join(h.Runs(), "bench"), record.Meta{Method: "echo", Engine: "none"}, []byte("method: echo\n"), record.Options{})
	if err != nil {
		return err
	}
	var method federated.Algorithm = &echo{s.Bytes, s.Down}
	if s.Secure {
		method = secured(&echo{s.Bytes, s.Down})
	}
	run, err := h.Server.Start(coordinator.Spec{ID: "bench", Recipe: []byte("method: echo\n"), Schema: json.RawMessage(`{}`), Members: s.Members,
		Algorithm: method, Config: federated.Config{Rounds: s.Rounds}, Observer: w, Metrics: []string{},
		Check: func(schema json.RawMessage, _ *transport.Consent) (json.RawMessage, error) { return schema, nil }}, rec)
	if err != nil {
		return err
	}
	node.SaveMemory(run.Model())
	if err := enc.Encode(struct{ URL string }{k.URL}); err != nil {
		return err
	}
	<-run.Done()
	if err := errors.Join(run.Err(), w.finish()); err != nil {
		return err
	}
	return enc.Encode(outcome{Connected: w.first.Sub(w.began).Seconds(), Rounds: w.rounds, PeakMiB: peakMiB(), Refused: h.Server.Refused(), Folded: w.folded,
		Up: w.up, Down: w.down, Phases: w.phases})
}

// enrol admits the members, whose keys both processes know.
func enrol(h *node.Host, n int, k *keys) error {
	var all []identity.Invitation
	expires := time.Now().Add(time.Hour)
	for i := range n {
		secret, err := identity.NewSecret()
		if err != nil {
			return err
		}
		all = append(all, identity.Invitation{Name: memberName(i), Secret: secret, Expires: expires})
	}
	if err := h.Roster.InviteAll(all); err != nil {
		return err
	}
	for _, inv := range all {
		key, err := identity.NewKey()
		if err != nil {
			return err
		}
		if _, err := h.Roster.Admit(inv.Name, inv.Secret, key.Public()); err != nil {
			return err
		}
		k.Seeds = append(k.Seeds, string(key.Seed()))
	}
	return nil
}

// watcher notes how long rounds take.
type watcher struct {
	began, first time.Time
	rounds       []float64
	folded       int
	up, down     int64              // attachments and tensors of the last round
	phases       map[string]float64 // seconds of each phase of the last round

	profile func() (end func() error, err error)
	counts  func() error // called when the rounds begin that count
	after   int          // rounds that do not
	end     func() error
	failed  error
}

// sample begins to measure when the rounds that do not count are over.
func (w *watcher) sample() {
	if w.end == nil && w.failed == nil && len(w.rounds) >= w.after {
		if w.end, w.failed = w.profile(); w.failed == nil {
			w.failed = w.counts()
		}
	}
}

func (w *watcher) finish() error {
	if w.end == nil {
		return w.failed
	}
	return errors.Join(w.failed, w.end())
}

// Progress implements [simulation.Observer].
func (w *watcher) Progress(int, string, int, int) {
	if w.first.IsZero() {
		w.first = time.Now()
	}
	w.sample()
}

// Round implements [simulation.Observer].
func (w *watcher) Round(r simulation.Round) {
	w.rounds = append(w.rounds, r.Took.Seconds())
	w.up, w.down, w.phases = 0, 0, map[string]float64{}
	for _, p := range r.Phases {
		w.folded = p.Asked - len(p.Lost)
		w.phases[p.Phase] = p.Took.Seconds()
		for _, t := range p.Traffic {
			w.up, w.down = w.up+t.Up, w.down+t.Down
		}
	}
}

// echo asks everybody for a tensor of so many bytes, and averages them, which it sends first if it is to; with no bytes it asks
// for an answer only.
type echo struct {
	bytes int64
	down  bool
}

func (e *echo) model() weights.Set {
	s := weights.NewSet(1)
	n := int(e.bytes / 4)
	if n > 0 {
		s.Put("w", weights.Of32(make([]float32, n), n))
	}
	return s
}

func (e *echo) Check(federated.Server) error { return nil }

func (e *echo) Init(context.Context, federated.Server) (federated.State, error) {
	return federated.State{Sets: map[string]weights.Set{"w": e.model()}}, nil
}

func (e *echo) Next(s federated.State) (federated.Phase, bool) {
	p := federated.Phase{Name: "train", Who: federated.Selection{Everyone: true}}
	if e.bytes > 0 {
		p.Folds = []federated.Fold{{Name: "w", Like: s.Sets["w"]}}
	}
	return p, s.Step == 0
}

func (e *echo) Task(s federated.State, _ federated.Phase, _ federated.Member) (federated.Task, error) {
	t := federated.Task{}
	if e.down {
		t.Sets = map[string]weights.Set{"w": s.Sets["w"]}
	}
	return t, nil
}

func (e *echo) Finish(_ context.Context, _ federated.Server, s federated.State, _ federated.Phase, sums map[string]*federated.Sum, _ federated.Roll) (federated.State, federated.Diagnostics, error) {
	s.Version++
	if e.bytes > 0 {
		s = s.With("w", sums[""].Total["w"].AddMean(s.Sets["w"]))
	}
	return s, federated.Diagnostics{}, nil
}

func (e *echo) Client() federated.Client { return nil }
