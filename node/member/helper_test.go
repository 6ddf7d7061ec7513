package member_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/assisttest"
	"github.com/cohort-learning/cohort/assisted/gal"
	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/baselines"
	"github.com/cohort-learning/cohort/federated/fedavg"
	"github.com/cohort-learning/cohort/federated/fedtest"
	secure "github.com/cohort-learning/cohort/federated/private"
	"github.com/cohort-learning/cohort/federated/scaffold"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/node/member"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/transport"
	"gonum.org/v1/gonum/mat"
)

const (
	rounds = 3
	theRun = "study"
	me     = "member-0"
)

// study is what is learned in the tests: one member, a model that is too large for messages. In an asynchronous one, and in one with
// secure sums, the member has colleagues, whom the coordinator plays.
type study struct {
	world  *fedtest.World
	new    func() federated.Algorithm
	ours   federated.Algorithm // the member's, shared by all tests of the study: programs are compiled once
	config federated.Config
	delay  func(*federated.Order) time.Duration // of answers, in virtual time; nil: rounds do not overlap
}

func newStudy(t testing.TB, e *train.Engine, method string) *study {
	t.Helper()
	hidden := 160
	if method == "large" { // whose results do not fit a message
		hidden = 2000
	}
	build, err := nn.New("mlp", nn.Config{Input: []int{6}, Classes: 3, Hidden: []int{hidden}, Norm: nn.StaticBatchNorm})
	if err != nil {
		t.Fatal(err)
	}
	s := &study{world: fedtest.Blobs(e, 6, 3, 8), config: federated.Config{Rounds: rounds}}
	if method == "asynchronous" {
		s.world = fedtest.Blobs(e, 6, 3, 8, 8, 8)
		s.config = federated.Config{Rounds: 9, Pace: federated.Pace{Quorum: 2. / 3, Staleness: 2, Discount: 0.5}}
		s.delay = delays
	}
	if method == "secure" { // four, of whom three are enough
		s.world = fedtest.Blobs(e, 6, 3, 8, 8, 8, 8)
		s.config.Rounds = 2
	}
	s.new = func() federated.Algorithm {
		p := &federated.Problem{Build: build, Rounds: s.config.Rounds, Select: federated.Selection{Fraction: 1},
			Training:  federated.Training{Epochs: 1, Batch: 4, Rate: train.Constant(0.1), Clip: 1},
			Measuring: federated.Measuring{Every: 2, Batch: 16, Members: method == "fedavg"}}
		switch method {
		case "scaffold", "large":
			return scaffold.New(p)
		case "secure":
			return secure.NewSecure(scaffold.New(p), secure.SecureOptions{})
		case "asynchronous": // with a memory: the layers that are not shared
			return baselines.NewPartial(p, baselines.LastLayer)
		}
		return fedavg.New(p)
	}
	if method == "gal" {
		s.world = fedtest.Blobs(e, 6, 3, 8, 8, 8)
		s.new = func() federated.Algorithm { return s.organisations(t, assisted.NewStore()) }
	}
	s.ours = s.new()
	return s
}

// organisations is a method among members who know two columns each of the same entities; what the member keeps of it is in store.
func (s *study) organisations(t testing.TB, store assisted.Store) federated.Algorithm {
	const rows = 24
	r := rng.New(3, 0, "", "columns")
	labels := mat.NewDense(rows, 1, nil)
	desks := assisted.Desks{}
	for i := range 3 {
		x := mat.NewDense(rows, 2, nil)
		for e := range rows {
			x.SetRow(e, []float64{r.NormFloat64(), r.NormFloat64()})
			labels.Set(e, 0, labels.At(e, 0)+x.At(e, 0)*x.At(e, 1)-x.At(e, 0))
		}
		desks[s.world.Member(i).Name] = &assisted.Desk{Keys: assisttest.Keys(rows), Features: x, Learner: assisttest.OLS(t), Store: store}
		store = assisted.NewStore() // of the others
	}
	sponsor := &assisted.Sponsor{Objective: assisted.Objective{Loss: assisted.Squared}, Keys: assisttest.Keys(rows), Labels: labels, Fit: 16, Held: 4, Test: 4,
		Own: s.world.Member(1).Name}
	a, err := gal.Defaults().New(rounds, sponsor, desks)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// delays are those of an asynchronous study. Rounds close when the two colleagues have answered; of what the member is asked, one
// answer counts rounds later, one is given up as stale, one counts at once, and one is still awaited when the run ends.
func delays(o *federated.Order) time.Duration {
	if o.Member.Index > 0 {
		return time.Duration(8+2*o.Member.Index) * time.Second
	}
	switch o.Round {
	case 0:
		return 25 * time.Second
	case 3, 8:
		return time.Minute
	}
	return time.Second
}

// simulate is the run without a network.
func (s *study) simulate(t testing.TB) *fedtest.Trace {
	t.Helper()
	s.world.Vaults.Reset()
	r := fedtest.Run{World: s.world, Algorithm: s.new(), Config: s.config, Members: fedtest.Members{Delay: s.delay}}
	return r.Must(t)
}

// part is what the member has for the study.
func (s *study) part() *member.Part {
	a := s.ours
	return &member.Part{Algorithm: a, Client: a.Client(), Local: s.world.Local(s.world.Member(0)), Schema: json.RawMessage(`{"kind":"blobs"}`),
		Data: "8 examples, blobs", Model: "mlp"}
}

// kept is the same, with what an organisation keeps of a run on the member's disk.
func (s *study) kept(t testing.TB, fsys journal.FS) (*member.Part, error) {
	p := s.part()
	if _, ok := s.ours.(*gal.Algorithm); ok {
		models, err := journal.OpenValues(fsys, "/member/desk")
		if err != nil {
			return nil, err
		}
		p.Client = s.organisations(t, models).Client()
	}
	return p, nil
}

// metrics are the scalars that the methods of the tests sum.
var metrics = append([]string{"train.loss", "train.examples", "train.steps", "batches", "examples", "correct", "loss"}, assisted.Scalars()...)

// courier carries blobs within the process.
type courier struct{ c *coordinator }

func (k courier) Download(ctx context.Context, to blob.Store, h blob.Hash) error {
	return carry(ctx, to, k.c.store, h)
}

func (k courier) Upload(ctx context.Context, from blob.Store, h blob.Hash) error {
	return carry(ctx, k.c.store, from, h)
}

func carry(ctx context.Context, to, from blob.Store, h blob.Hash) error {
	m, err := blob.ReadManifest(ctx, from, h)
	if err != nil {
		return err
	}
	for _, x := range append(slices.Clone(m.Chunks), h) {
		b, err := from.Get(ctx, x)
		if err == nil {
			err = to.Put(ctx, x, b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// proof serves the journal.
func (c *coordinator) proof(_ context.Context, _ string, from uint64) (io.ReadCloser, error) {
	f, err := c.disk.OpenFile("/chain/"+journal.FileName, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	lines := bytes.SplitAfter(b, []byte("\n"))
	return io.NopCloser(bytes.NewReader(bytes.Join(lines[min(int(from), len(lines)):], nil))), nil
}

// person is a member on a disk.
type person struct {
	c      *coordinator
	disk   *memFS
	folder *member.Folder
	events []member.Event
	mu     sync.Mutex
	change func(*member.Options) // of every run; may be nil
}

// keys are made once: tests do not depend on them.
var theFederation, theMember = func() (identity.Key, identity.Key) {
	a, err1 := identity.NewKey()
	b, err2 := identity.NewKey()
	if err := errors.Join(err1, err2); err != nil {
		panic(err)
	}
	return a, b
}()

func newPerson(c *coordinator) *person {
	return &person{c: c, disk: newMemFS(), folder: &member.Folder{Dir: "/member", Key: theMember,
		Card: member.Card{Name: me, Federation: c.key.Public(), Enrolled: true}}}
}

func (p *person) options(fsys journal.FS) member.Options {
	return member.Options{
		Folder: p.folder, Policy: member.DefaultPolicy(), Kernels: "go", FS: fsys, Blobs: courier{p.c}, Proof: p.c.proof,
		Dial:    func(context.Context) (transport.Link, error) { return p.c.net.Dial(me), nil },
		Prepare: func(context.Context, member.Proposal) (*member.Part, error) { return p.c.study.kept(p.c.t, fsys) },
		Events: func(e member.Event) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.events = append(p.events, e)
		},
	}
}

// run runs the member once, to its end or until it fails.
func (p *person) run(ctx context.Context, fsys journal.FS, change func(*member.Options)) error {
	if fsys == nil {
		fsys = p.disk
	}
	o := p.options(fsys)
	if p.change != nil {
		p.change(&o)
	}
	if p.c.study.secure() {
		o.Pins = pins
	}
	if change != nil {
		change(&o)
	}
	m, err := member.New(o)
	if err != nil {
		return err
	}
	return m.Run(ctx)
}

// records returns the orders that the member's journal has records of some kinds about, with their kinds.
func (p *person) records(t testing.TB, kinds ...string) map[int][]string {
	t.Helper()
	out := map[int][]string{}
	for r, err := range journal.Decode[struct{ Order int }](journal.Read(p.disk, p.folder.Dir, kinds...)) {
		if err != nil {
			t.Fatal(err)
		}
		out[r.Body.Order] = append(out[r.Body.Order], r.Kind)
	}
	return out
}

// heard returns the texts of events of a kind.
func (p *person) heard(kind member.EventKind) (texts []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.events {
		if e.Kind == kind {
			texts = append(texts, e.Text)
		}
	}
	return texts
}
