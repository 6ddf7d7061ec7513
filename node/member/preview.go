package member

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/weights"
)

// Preview is what would leave this machine for a run, by a computation of one round here.
type Preview struct {
	Run      string          `json:"run"`
	Terms    *Agreed         `json:"terms"`
	Declined []string        `json:"declined,omitempty"` // why the policy would decline
	Schema   json.RawMessage `json:"schema"`             // the declaration of the data
	Phases   []PhasePreview  `json:"phases"`
	Secure   bool            `json:"secure,omitempty"`  // what leaves is masked: only sums of many members can be read
	Private  bool            `json:"private,omitempty"` // what leaves is clipped, and noise is added
}

// PhasePreview is what leaves in one phase of a round.
type PhasePreview struct {
	Phase    string          `json:"phase"`
	Weight   uint64          `json:"weight"` // of the result, e.g. the number of examples
	Tensors  []TensorPreview `json:"tensors"`
	Attached int64           `json:"attached,omitempty"` // bytes of keys, shares or masked integers
	Scalars  []string        `json:"scalars"`            // that leave
	Dropped  []string        `json:"dropped"`            // that the client computes, but that stay
	Bytes    int64           `json:"bytes"`
	Keeps    int64           `json:"keeps,omitempty"` // bytes of memory that stay on this machine
	Unknown  string          `json:"unknown,omitempty"`
}

// TensorPreview is one tensor that leaves.
type TensorPreview struct {
	Set   string `json:"set"`
	Name  string `json:"name"`
	DType string `json:"dtype"`
	Shape []int  `json:"shape"`
	Bytes int64  `json:"bytes"`
}

// Preview asks the coordinator for the terms of the runs on offer and computes, on this machine alone, what one round of each
// would send. Nothing but hello and sync leaves, and nothing is written to the journal.
func (m *Member) Preview(ctx context.Context) ([]Preview, error) {
	var out []Preview
	err := m.visit(ctx, func(ctx context.Context) error {
		var w transport.Welcome
		if err := m.ask(ctx, "", m.hello(), &w); err != nil {
			return err
		}
		for _, id := range w.Runs {
			p, err := m.previewRun(ctx, id)
			if err != nil {
				return fmt.Errorf("run %s: %w", id, err)
			}
			out = append(out, p)
		}
		return nil
	})
	return out, err
}

// previewRun finds the terms of a run, those that were agreed to or those that are on offer.
func (m *Member) previewRun(ctx context.Context, id string) (p Preview, err error) {
	p.Run = id
	var d transport.Duties
	if err := m.ask(ctx, id, m.holding(id), &d); err != nil {
		return p, err
	}
	texts := d.Messages
	if r := m.ledger.runs[id]; r != nil && r.consent != nil {
		texts = append([]string{r.consent.Terms}, texts...)
	}
	for _, text := range texts {
		e, err := transport.Open(m.o.Folder.Card.Federation, []byte(text))
		if err != nil || e.Kind != transport.KindTerms || e.Run != id || m.addressed(e) != nil {
			continue
		}
		proposal, err := m.proposal(ctx, e)
		if err != nil {
			return p, err
		}
		hides, err := m.announced(proposal)
		if err != nil {
			return p, err
		}
		p.Declined = append(m.o.Policy.Check(proposal), m.o.Policy.CheckPrivacy(hides)...)
		if err := m.afford(ctx, proposal, hides); err != nil {
			p.Declined = append(p.Declined, err.Error())
		}
		part, err := m.prepare(ctx, proposal)
		if err != nil {
			return p, err
		}
		if part.Close != nil {
			defer part.Close()
		}
		p.Secure, p.Private = proposal.masked(), hides != nil
		p.Schema = part.Schema
		p.Terms = &Agreed{Method: proposal.Method(), Model: part.Model, Rounds: proposal.Rounds(), Metrics: part.metrics,
			Digest: transport.DigestOf([]byte(text)), Schema: part.Data, Samples: part.Samples, Tests: part.Tests}
		p.Phases, err = part.rehearse(ctx, m.name, proposal.Rounds(), p.Secure)
		return p, err
	}
	return p, errors.New("the coordinator shows no terms for it")
}

// rehearsal is a federation of this member alone, within this process: the real driver asks for what a run would ask, and
// every answer is looked at. Sums that need more than one have two more of its kind in them. It is its own population and log.
type rehearsal struct {
	part    *Part
	me      federated.Member
	cast    int // how many play
	vaults  federated.Vaults
	pending []*federated.Order
	keep    map[int]*weights.Set
	phases  []PhasePreview
}

// rehearse plays the last round here, the one in which everything is measured, with weights made up here.
func (p *Part) rehearse(ctx context.Context, name string, rounds int, secure bool) ([]PhasePreview, error) {
	if p.Algorithm == nil {
		return nil, errors.New("this method cannot be rehearsed")
	}
	r := &rehearsal{part: p, me: federated.Member{Name: name, Samples: p.Samples}, cast: 1, keep: map[int]*weights.Set{}}
	if secure {
		r.cast = 3
	}
	srv := federated.Server{Engine: p.Local.Engine, Seed: p.Local.Seed, Population: r, Secret: federated.Secrets([32]byte{})}
	s, err := p.Algorithm.Init(ctx, srv)
	if err != nil {
		return nil, fmt.Errorf("making up a model: %w", err)
	}
	s.Round = max(0, rounds-1)
	_, err = federated.Run(ctx, p.Algorithm, srv, r, r, federated.Config{Rounds: s.Round + 1}, &federated.Snapshot{State: s})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil && len(r.phases) == 0 {
		return nil, fmt.Errorf("rehearsing a round: %w", err)
	}
	return r.phases, nil // what comes after may need data of the coordinator
}

func (r *rehearsal) Len() int { return r.cast }
func (r *rehearsal) Member(i int) federated.Member {
	m := r.me
	if m.Index = i; i > 0 {
		m.Name = fmt.Sprintf("%s.%d", m.Name, i)
	}
	return m
}
func (r *rehearsal) Now() time.Duration    { return 0 }
func (r *rehearsal) Drop(*federated.Order) {}

func (r *rehearsal) Issue(_ context.Context, o *federated.Order) error {
	r.pending = append(r.pending, o)
	return nil
}

func (r *rehearsal) Next(ctx context.Context, _ time.Duration) (*federated.Answer, error) {
	o := r.pending[0]
	r.pending = r.pending[1:]
	at := r.part.Local
	at.Member = o.Member
	at.Vault, at.Peers = r.vaults.Of(o.Member.Index), federated.Acquainted(o.Member.Name)
	a := federated.Perform(ctx, r.part.Client, at, o, r.keep[o.Member.Index])
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if o.Member.Index > 0 {
		return a, nil
	}
	v := PhasePreview{Phase: o.Phase}
	if a.Err != nil {
		v.Unknown = oneLine(a.Err.Error(), 300)
	} else {
		v.fill(a.Result, r.part.metrics)
	}
	r.phases = append(r.phases, v)
	return a, nil
}

func (r *rehearsal) Keep(member int, s *weights.Set) error {
	r.keep[member] = s
	return nil
}

func (r *rehearsal) PhaseOpened(federated.PhaseOpened) error { return nil }
func (r *rehearsal) PhaseClosed(federated.PhaseClosed, func() federated.Snapshot) error {
	return nil
}
func (r *rehearsal) RoundClosed(federated.RoundClosed, federated.Snapshot) error { return nil }
func (r *rehearsal) Progress(string, int, int)                                   {}

func (v *PhasePreview) fill(res federated.Result, metrics []string) {
	v.Weight = res.Weight
	for _, set := range sorted(res.Addends) {
		for name, t := range res.Addends[set].All() {
			b := int64(4 * len(t.F32))
			dtype := weights.Float32
			if t.F64 != nil {
				b, dtype = int64(8*len(t.F64)), weights.Float64
			}
			v.Tensors = append(v.Tensors, TensorPreview{set, name, dtype.String(), t.Shape, b})
			v.Bytes += b
		}
	}
	v.Attached = int64(len(res.Attached))
	v.Bytes += v.Attached
	named := map[string]bool{}
	for _, name := range metrics {
		named[name] = true
	}
	for _, name := range sorted(res.Scalars) {
		if named[name] {
			v.Scalars = append(v.Scalars, name)
			v.Bytes += 8
		} else {
			v.Dropped = append(v.Dropped, name)
		}
	}
	if res.Keep != nil {
		v.Keeps = res.Keep.Bytes()
	}
}

// Withdraw leaves the federation: it tells the coordinator and writes it down.
func (m *Member) Withdraw(ctx context.Context, reason string) error {
	return m.visit(ctx, func(ctx context.Context) error {
		if err := m.ask(ctx, "", m.hello(), &transport.Welcome{}); err != nil {
			return err
		}
		var runs []string
		for _, id := range sorted(m.ledger.runs) {
			if r := m.ledger.runs[id]; r.agreed() && r.last == nil {
				runs = append(runs, id)
			}
		}
		for _, id := range append(runs, "") { // last the federation
			var v transport.Verdict
			err := m.ask(ctx, id, &transport.Leave{Reason: reason}, &v)
			var f *transport.Failure
			switch {
			case errors.As(err, &f) && f.Code == transport.CodeUnknown: // nothing to leave
			case err != nil:
				return err
			case v.Outcome == transport.Refused:
				return fmt.Errorf("the coordinator refuses: %s (%s)", oneLine(v.Reason, 300), v.Code)
			}
		}
		_, err := m.ledger.Append(KindLeft, withdrawn{Reason: reason})
		return err
	})
}

// visit connects, does something, and goes.
func (m *Member) visit(ctx context.Context, do func(context.Context) error) (err error) {
	if err := m.open(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	m.root, m.cancel = context.WithCancelCause(ctx)
	m.work, m.rest = context.WithCancel(m.root)
	defer m.rest()
	defer m.cancel(nil)
	if m.link, err = m.dial(m.root); err != nil {
		return err
	}
	defer func() {
		m.cancel(nil) // so that the end of the connection is nobody's news
		err = errors.Join(err, m.link.Close())
	}()
	m.link.Receive(func([]byte) {})
	m.link.OnState(m.state)
	for fails := 0; ; fails++ {
		states, err := m.connection(m.root)
		if err != nil {
			return err
		}
		if states > 0 {
			err = do(m.root)
			if err == nil || final(err) != nil || !retriable(err) || fails >= maxTries {
				return err
			}
			if err := m.sleep(m.root, m.backoff(fails)); err != nil {
				return err
			}
		}
	}
}
