package member

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/secure/dp"
	dpledger "github.com/cohort-learning/cohort/secure/dp/ledger"
	"github.com/cohort-learning/cohort/transport"
)

func sorted[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// maxRecipe bounds a recipe that comes as a blob.
const maxRecipe = 1 << 20

// proposal reads what terms ask.
func (m *Member) proposal(ctx context.Context, e transport.Envelope) (Proposal, error) {
	p := Proposal{Run: e.Run, Terms: &transport.Terms{}}
	if err := e.Decode(p.Terms); err != nil {
		return p, err
	}
	text := p.Terms.Recipe
	if p.Terms.Ref > 0 {
		ref := e.Refs[p.Terms.Ref-1]
		if ref.Bytes > maxRecipe {
			return p, fmt.Errorf("a recipe of %d bytes", ref.Bytes)
		}
		if err := m.download(ctx, ref); err != nil {
			return p, fmt.Errorf("%w: fetching the recipe: %w", errNoAnswer, err)
		}
		b, err := readRecipe(ctx, m.store, ref)
		if err != nil {
			return p, err
		}
		text = string(b)
	}
	var err error
	if p.Terms.Assist {
		if p.Assist, err = assisted.ReadTerms(text); err != nil {
			return p, fmt.Errorf("what it asks cannot be read: %w", err)
		}
		return p, nil
	}
	if p.Recipe, err = recipe.Parse("recipe of run "+oneLine(e.Run, 60), []byte(text)); err != nil {
		return p, fmt.Errorf("its recipe cannot be read: %w", err)
	}
	return p, nil
}

// consider answers the terms of a run: it agrees or declines, durably, and says so.
func (m *Member) consider(ctx context.Context, conn, number uint64, o *opened) error {
	id := o.envelope.Run
	m.mu.Lock()
	r := m.ledger.run(id)
	c := r.consent
	m.mu.Unlock()
	switch {
	case id == "":
		m.ignore("with terms of no run", nil)
		return nil
	case c != nil && c.Declined == "" && c.Digest != o.digest:
		err := &ConflictError{id, "its terms are others than those that this member agreed to"}
		m.end(id, err)
		m.tell(Event{Kind: EventWarning, Run: id}, "%v. To take part in what it is now, leave with --withdraw and join anew in another folder", err)
		return nil
	case c == nil || c.Digest != o.digest || c.Declined != "" && r.ended == nil:
		var err error
		if c, err = m.decide(ctx, o, r); err != nil {
			return err
		}
	}
	m.mu.Lock()
	asked := r.head
	m.mu.Unlock()
	var d transport.Duties
	err := m.ask(ctx, id, &transport.Consent{Terms: c.Digest, Declined: c.Declined, Schema: c.Schema, Samples: c.Samples, Tests: c.Tests}, &d)
	var f *transport.Failure
	if errors.As(err, &f) && final(err) == nil && (f.Code == transport.CodeSchema || f.Code == transport.CodeTerms || f.Code == transport.CodeUnknown) {
		m.end(id, f)
		m.tell(Event{Kind: EventRefused, Run: id}, "run %s: the coordinator does not accept this member: %s", id, f.Message)
		return nil
	}
	if err != nil || c.Declined != "" {
		return err
	}
	if len(d.Messages) > 0 || d.Head != nil {
		more, err := m.duties(ctx, conn, id, number, asked, &d)
		if err != nil {
			return err
		}
		if more {
			m.nudge()
		}
	}
	return nil
}

// decide holds terms against the policy, loads the data, and journals the answer.
func (m *Member) decide(ctx context.Context, o *opened, r *run) (*consented, error) {
	c := &consented{Run: r.id, Digest: o.digest, Terms: string(o.text)}
	p, err := m.proposal(ctx, o.envelope)
	if errors.Is(err, errNoAnswer) || ctx.Err() != nil {
		return nil, err
	}
	var part *Part
	var no []string
	var hides *dp.Terms
	if err == nil {
		hides, err = m.announced(p)
	}
	if err == nil {
		if no = append(m.o.Policy.Check(p), m.o.Policy.CheckPrivacy(hides)...); len(no) == 0 {
			if part, err = m.prepare(ctx, p); err == nil {
				err = m.afford(ctx, p, hides)
			}
			if err == nil && hides != nil && hides.Amplified() { // from now on the first round may ask
				var spent *dpledger.SpentError
				if err = m.charge(ctx, r, part, 0, transport.Digest{}); errors.As(err, &spent) {
					err = budgeted(err)
				} else if err != nil {
					return nil, err
				}
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
		}
	}
	told := strings.Join(no, "; ")
	if err != nil {
		no, told = []string{err.Error()}, public(err)
	}
	e := Event{Kind: EventDeclined, Run: r.id}
	if len(no) > 0 {
		c.Declined = oneLine(told, 1000)
	} else {
		c.Schema, c.Samples, c.Tests = part.Schema, part.Samples, part.Tests
		e.Kind = EventAgreed
		e.Terms = &Agreed{Method: p.Method(), Model: part.Model, Rounds: p.Rounds(), Metrics: part.metrics, Digest: o.digest,
			Schema: part.Data, Samples: c.Samples, Tests: c.Tests}
	}
	m.mu.Lock()
	same := r.consent != nil && r.consent.Digest == c.Digest && r.consent.Declined == c.Declined
	if !same || c.Declined == "" {
		err = m.note(r, KindConsented, c)
	} else {
		err = nil
	}
	if err == nil && part != nil {
		r.part = part
	}
	if c.Declined != "" {
		r.ended = &DeclinedError{no}
	}
	m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if c.Declined != "" {
		m.tell(e, "declined run %s: %s", r.id, oneLine(strings.Join(no, "; "), 1000))
		return c, nil
	}
	counts := fmt.Sprintf(", and how many examples there are (%d to train on, %d to test on)", c.Samples, c.Tests)
	if part.hidden {
		counts = ""
	}
	m.tell(e, "agreed to the terms of run %s: %s with %s, %d rounds, on %s%s. What leaves: its tensors%s%s%s%s",
		r.id, p.Method(), part.Model, p.Rounds(), part.Data, grouped(p), m.summed(p), leaving(part.metrics), counts, hidden(part.privacy))
	return c, nil
}

// grouped says that rows come in groups, if they do.
func grouped(p Proposal) string {
	if p.Assist == nil || p.Assist.Strata == 0 {
		return ""
	}
	return fmt.Sprintf(", in %d groups of rows with a model for each", p.Assist.Strata)
}

// summed says what secure sums of a run protect this member from.
func (m *Member) summed(p Proposal) string {
	switch {
	case !p.masked():
		return ""
	case p.Recipe.Secure.Curious:
		return ", masked so that a coordinator that keeps to the protocol learns sums only (the run asks to be trusted with that)"
	case len(m.o.Pins) == 0:
		return ", masked so that the coordinator learns sums only; it vouches for the keys of the others itself, so this protects against a " +
			"curious coordinator only (--peers takes keys that were exchanged without it)"
	}
	return fmt.Sprintf(", masked so that the coordinator learns sums only; the keys of %d peers were exchanged without it", len(m.o.Pins))
}

func leaving(metrics []string) string {
	if len(metrics) == 0 {
		return ", no other number"
	}
	return ", the numbers " + strings.Join(metrics, ", ")
}

// prepare makes a part of a run and fills in what follows from the rest.
func (m *Member) prepare(ctx context.Context, p Proposal) (*Part, error) {
	part, err := m.o.Prepare(ctx, p)
	if err != nil {
		return nil, err
	}
	part.Samples = cmp.Or(part.Samples, part.Local.Train.Len())
	part.Tests = cmp.Or(part.Tests, part.Local.Test.Len())
	if part.Listen != nil {
		part.Listen(func(text string) { m.tell(Event{Kind: EventPredicted, Run: p.Run}, "run %s: %s", p.Run, text) })
	}
	part.metrics, part.rounds = p.Terms.Metrics, p.Rounds()
	part.privacy, err = m.announced(p)
	if part.hidden = part.privacy != nil || p.hidden(); part.hidden { // nothing leaves but what is hidden, no count either
		part.metrics = nil
		part.Samples, part.Tests = min(1, part.Samples), min(1, part.Tests)
	}
	return part, err
}

// revive prepares a run that was agreed to before this process began, and takes up what is to be done for it.
func (m *Member) revive(ctx context.Context, id string) error {
	m.mu.Lock()
	r := m.ledger.runs[id]
	ready := r == nil || !r.agreed() || r.part != nil || r.last != nil && !r.holds() // one that is over needs no data
	m.mu.Unlock()
	if ready {
		return nil
	}
	c := r.consent
	e, err := transport.Open(m.o.Folder.Card.Federation, []byte(c.Terms))
	if err != nil {
		return fmt.Errorf("terms of run %s in the journal of the member: %w", id, err)
	}
	p, err := m.proposal(ctx, e)
	if err != nil {
		return err
	}
	hides, err := m.announced(p)
	if err != nil {
		return fmt.Errorf("run %s: %w", id, err)
	}
	if err := m.accounted(ctx, r, hides); err != nil {
		return fmt.Errorf("run %s: %w", id, err)
	}
	if no := append(m.o.Policy.Check(p), m.o.Policy.CheckPrivacy(hides)...); len(no) > 0 {
		return fmt.Errorf("run %s was agreed to, but %s does not allow it any more: %s; change it back, or leave with --withdraw", id, PolicyName, strings.Join(no, "; "))
	}
	part, err := m.prepare(ctx, p)
	if err != nil {
		return fmt.Errorf("run %s: %w", id, err)
	}
	if part.Samples != c.Samples || part.Tests != c.Tests || !sameJSON(part.Schema, c.Schema) {
		return fmt.Errorf("run %s: the data are not those that were agreed on: %d examples to train on and %d to test on now, %d and %d then; "+
			"bring the old data back, or leave with --withdraw and join anew", id, part.Samples, part.Tests, c.Samples, c.Tests)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r.part = part
	for _, n := range sorted(r.orders) {
		o := r.orders[n]
		o.since = m.syncs
		m.start(r, o)
	}
	return nil
}

// sameJSON compares two values whatever their white space.
func sameJSON(a, b json.RawMessage) bool {
	var x, y bytes.Buffer
	if len(a) == 0 || len(b) == 0 {
		return len(a) == len(b)
	}
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}

// ModelPath is the file of the final model of a run in a member's folder.
func ModelPath(dir, run string) string {
	return filepath.Join(dir, modelName, fileOf(run)+".safetensors")
}

// conclude ends a run whose last phase has closed: it fetches the final model, if there is one and the policy says so, and erases
// the secrets of its sums.
func (m *Member) conclude(ctx context.Context, r *run) {
	path := ModelPath(m.o.Folder.Dir, r.id)
	if ref := r.last.Final; ref != nil && m.o.Policy.Model {
		if _, err := m.fs.Stat(path); errors.Is(err, os.ErrNotExist) {
			var err error
			for n := range maxTries {
				if err = m.fetchModel(ctx, *ref, path); err == nil || ctx.Err() != nil {
					break
				}
				_ = m.sleep(ctx, m.backoff(n)) // ended by ctx, which is seen next
			}
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				m.tell(Event{Kind: EventWarning, Run: r.id}, "run %s: the final model could not be fetched: %s; join again to try again", r.id, oneLine(err.Error(), 300))
			} else {
				m.tell(Event{Kind: EventModel, Run: r.id}, "run %s: the final model is in %s", r.id, path)
			}
		}
	}
	if err := m.vault(r.id).clear(); err != nil {
		m.tell(Event{Kind: EventWarning, Run: r.id}, "run %s: secrets of its sums cannot be erased: %v", r.id, err)
	}
	m.end(r.id, errOver)
	m.tell(Event{Kind: EventOver, Run: r.id}, "run %s is over", r.id)
}
