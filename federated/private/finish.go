package private

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/secure/secagg"
)

// sessionName names a session, unlike any other anywhere.
func sessionName(scope string, round int, phase string, rows bool) string {
	what := "update"
	if rows {
		what = "rows"
	}
	return fmt.Sprintf("%s, round %d, %s, %s", scope, round, phase, what)
}

// threshold is how many of m shares open a secret.
func (a *Secure) threshold(m int) int {
	return max(a.o.model().Least(m), int(math.Ceil(a.o.Threshold*float64(m)-1e-9)))
}

// graph returns with how many of the others each of n members makes masks and shares, 0 for all, and how many shares open a
// secret.
func (a *Secure) graph(n, holdings int) (neighbours, threshold int, err error) {
	if !a.o.Sparse || holdings > 1 {
		return 0, a.threshold(n), nil
	}
	chosen, err := secagg.Choose(n, a.o.Corrupt, a.o.Dropout, a.o.model())
	return chosen.Neighbours, max(chosen.Threshold, a.threshold(chosen.Neighbourhood())), err
}

// Finish implements [federated.Algorithm].
func (a *Secure) Finish(ctx context.Context, srv federated.Server, s federated.State, p federated.Phase, sums map[string]*federated.Sum, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	at, _ := at(s)
	in := inner(s, at)
	method, ok := a.Algorithm.Next(in)
	if !ok {
		return s, federated.Diagnostics{}, fmt.Errorf("phase %q: the method has none", p.Name)
	}
	if asksNobody(method) {
		next, d, err := a.Algorithm.Finish(ctx, srv, in, p, sums, roll)
		if err != nil {
			return s, d, err
		}
		next, err = a.past(s, next, at)
		return next, d, err
	}
	f := &finish{a: a, ctx: ctx, srv: srv, s: s, in: in, at: at, method: method, sums: sums, roll: roll}
	next, err := f.step()
	var failed *failedError
	if errors.As(err, &failed) { // the members' fault or misfortune, not this server's
		f.d.Notes = append(f.d.Notes, fmt.Sprintf("no secure sum of %s: %v: the model stays as it is", method.Name, f.why(failed.error)))
		next, err = a.past(s, in, at)
	}
	return next, f.d, err
}

// why says in words of the run what a session has failed of.
func (f *finish) why(err error) error {
	l, bad := readTerms(f.s.Attached[termsKey])
	if f.at.Step == session || bad != nil || !errors.Is(err, secagg.ErrTooFew) {
		return err
	}
	came := len(f.roll.Gathered)
	if f.at.Step == masked {
		came = len(f.roll.Folded)
	}
	least := f.a.o.params(l).Survivors
	if came >= least {
		return err
	}
	return fmt.Errorf("only %d of %d members answered step %q, and a sum of fewer than %d is not opened", came, l.Members, f.at.Step, least)
}

// past returns a state of the method with the round moved past the phase of the method that is under way.
func (a *Secure) past(old, next federated.State, at progress) (federated.State, error) {
	next.Round, next.Step = old.Round, at.Inner+1
	next = cleared(next)
	if _, more := a.Algorithm.Next(next); !more {
		return next, nil
	}
	return put(next, progress{Round: at.Round, Inner: at.Inner + 1, Step: session})
}

// failedError says why a session has failed.
type failedError struct{ error }

func failedf(format string, args ...any) error { return &failedError{fmt.Errorf(format, args...)} }

// fits returns an error unless noise that members add stays within the words, and enough of them must answer.
func (a *Secure) fits(t *terms) error {
	noise := a.hides(t)
	if noise == nil {
		return nil
	}
	p := a.o.params(t)
	if p.Survivors < noise.Survivors {
		return fmt.Errorf("secure aggregation: %w: sums of %d members are to be opened, and the noise needs %d", secagg.ErrMalformed, p.Survivors, noise.Survivors)
	}
	most := float64(t.Members) * (noise.Clip*noise.Scale + 1 + 12*math.Sqrt(noise.Share()))
	if need := math.Ceil(math.Log2(most)) + 1; float64(p.Bits) < need {
		return fmt.Errorf("secure aggregation: modulus too small: sums of clipped updates with noise need b=%g, have %d: lower the scale or take 64 bits", need, p.Bits)
	}
	return nil
}

// finish is the end of one phase of a session.
type finish struct {
	a      *Secure
	ctx    context.Context
	srv    federated.Server
	s, in  federated.State
	at     progress
	method federated.Phase
	sums   map[string]*federated.Sum
	roll   federated.Roll
	d      federated.Diagnostics
}

func (f *finish) step() (federated.State, error) {
	if f.at.Step == session {
		return f.begin()
	}
	l, err := readTerms(f.s.Attached[termsKey])
	if err != nil {
		return f.s, err
	}
	p := f.a.o.params(l)
	switch f.at.Step {
	case plain:
		return f.plain(l, p)
	case keys:
		return f.keys(l, p)
	case shares:
		return f.shares(l, p)
	case masked:
		return f.masked(l, p)
	case confirm:
		return f.confirm(p)
	}
	return f.unmask(l, p)
}

// begin fixes the terms of the session.
func (f *finish) begin() (federated.State, error) {
	l, err := f.a.layout(f.srv, f.in, f.method)
	if err != nil {
		return f.s, err
	}
	at := f.at
	if l.Rows > 0 && at.Cohort == nil {
		at.Rows = true
		l.Folds = nil
		if err := l.place(); err != nil {
			return f.s, err
		}
	}
	n := f.method.Who.Count(f.srv.Population)
	if at.Cohort != nil {
		n = len(at.Cohort)
	}
	if least := f.a.o.least(); n < least {
		return f.s, failedf("%d members take part, and a secure sum is begun with %d or more (secure.members)", n, least)
	}
	t := &terms{Session: sessionName(f.srv.Scope, f.s.Round, f.method.Name, at.Rows), Members: n, Layout: l}
	if t.Neighbours, t.Threshold, err = f.a.graph(n, len(l.Holdings)); err != nil {
		return f.s, failedf("%w", err)
	}
	if g, ok := f.a.Algorithm.(*Guard); ok && g.o.Distributed {
		at, err := g.at(f.in)
		if err != nil {
			return f.s, err
		}
		t.Enrolled = at.Members
		t.Survivors = max(t.Threshold, g.o.skellam(at.Members, max(1, l.size)).Survivors)
		if err := f.a.fits(t); err != nil {
			return f.s, failedf("%w", err)
		}
	}
	if err := f.a.o.params(t).Validate(); err != nil {
		return f.s, failedf("%w", err)
	}
	if !f.a.o.Plain {
		if t.Tasks, err = f.a.tasks(f.srv, f.in, f.method, l, at); err != nil {
			return f.s, err
		}
	}
	b, err := t.marshal()
	if err != nil {
		return f.s, err
	}
	at.Step = keys
	if f.a.o.Plain {
		at.Step = plain
		for _, r := range l.ranges {
			at.Words = append(at.Words, r.Len())
		}
	}
	return put(f.s.Attach(termsKey, b), at)
}

// names returns the names of members by index, sorted.
func (f *finish) names(members []int) []string {
	out := make([]string, len(members))
	for i, m := range members {
		out[i] = f.srv.Population.Member(m).Name
	}
	slices.Sort(out)
	return out
}

func (f *finish) folded() []string {
	members := make([]int, len(f.roll.Folded))
	for i, x := range f.roll.Folded {
		members[i] = x.Member
	}
	return f.names(members)
}

// each decodes what members have attached and hands it to take; what take refuses is as if it had not come.
func (f *finish) each(take func(name string, attached []byte) error) []string {
	var names []string
	for _, g := range f.roll.Gathered {
		name := f.srv.Population.Member(g.Member).Name
		if err := take(name, g.Attached); err != nil {
			f.d.Notes = append(f.d.Notes, fmt.Sprintf("%s: %v", name, err))
			continue
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// verifier checks what members sign before the others see it, who would refuse the whole session.
type verifier func(name string, msg, sig []byte) error

// Verify implements [secagg.Verifier].
func (v verifier) Verify(name string, msg, sig []byte) error { return v(name, msg, sig) }

// Pinned implements [secagg.Verifier].
func (verifier) Pinned(string) bool { return false }

func (f *finish) verifier() secagg.Verifier {
	if f.srv.Verify == nil {
		return nil
	}
	return verifier(f.srv.Verify)
}

func (f *finish) keys(l *terms, p secagg.Params) (federated.State, error) {
	srv, err := secagg.NewServer(p, f.verifier())
	if err != nil {
		return f.s, err
	}
	at := f.at
	at.Asked = f.roll.Asked
	at.Who = f.each(func(name string, b []byte) error {
		var advert secagg.Advert
		if err := advert.UnmarshalBinary(b); err != nil {
			return err
		}
		if advert.Name != name {
			return fmt.Errorf("sent the keys of %q", advert.Name)
		}
		return srv.Advert(advert)
	})
	adverts, err := srv.Adverts()
	if err != nil {
		return f.s, &failedError{err}
	}
	b, err := adverts.MarshalBinary()
	if err != nil {
		return f.s, err
	}
	at.Step = shares
	return put(f.s.Attach(advertsKey, b), at)
}

func (f *finish) adverts() (l secagg.Adverts, err error) {
	return l, l.UnmarshalBinary(f.s.Attached[advertsKey])
}

func (f *finish) shares(l *terms, p secagg.Params) (federated.State, error) {
	adverts, err := f.adverts()
	if err != nil {
		return f.s, err
	}
	srv, err := secagg.NewServer(p, nil)
	if err != nil {
		return f.s, err
	}
	for _, a := range adverts {
		if err := srv.Advert(a); err != nil {
			return f.s, err
		}
	}
	if _, err := srv.Adverts(); err != nil {
		return f.s, err
	}
	at := f.at
	at.Who = f.each(func(name string, b []byte) error {
		var boxes secagg.Boxes
		if err := boxes.UnmarshalBinary(b); err != nil {
			return err
		}
		return srv.Boxes(name, boxes)
	})
	next := f.s
	for _, name := range at.Who {
		boxes, err := srv.Inbox(name)
		if err != nil {
			return f.s, &failedError{err}
		}
		b, err := boxes.MarshalBinary()
		if err != nil {
			return f.s, err
		}
		next = next.Attach(inboxKey+name, b)
	}
	if len(at.Who) == 0 {
		return f.s, failedf("nobody shared its secrets")
	}
	at.Words = nil
	for h := range l.Layout.ranges {
		at.Words = append(at.Words, srv.Words(h))
	}
	at.Step = masked
	return put(next, at)
}

func (f *finish) masked(l *terms, p secagg.Params) (federated.State, error) {
	adverts, err := f.adverts()
	if err != nil {
		return f.s, err
	}
	srv, err := secagg.ReopenServer(p, nil, adverts, f.at.Who)
	if err != nil {
		return f.s, err
	}
	of := map[int][]string{}
	began, left := make([]int, len(l.Layout.Holdings)), make([]int, len(l.Layout.Holdings))
	came := f.folded()
	for _, a := range adverts {
		began[a.Holding]++
		if _, ok := slices.BinarySearch(came, a.Name); ok {
			of[a.Holding] = append(of[a.Holding], a.Name)
			left[a.Holding]++
		}
	}
	if l.Layout.shown(left, p.Holders) < l.Layout.shown(began, p.Holders) {
		return f.s, failedf("of those who hold a part of the model fewer than %d are left", p.Holders)
	}
	for h := range l.Layout.Holdings {
		sum := f.sums[fmt.Sprintf("h%d", h)]
		if sum == nil {
			continue
		}
		v, ok := sum.Attached.(*vectors)
		if !ok || v.sum == nil || sum.N != len(of[h]) {
			return f.s, failedf("the vectors of holding %d are of %d members, %d have come", h, sum.N, len(of[h]))
		}
		if err := srv.MaskedSum(of[h], v.sum); err != nil {
			return f.s, &failedError{err}
		}
	}
	list, err := srv.Survivors()
	if err != nil {
		return f.s, &failedError{err}
	}
	b, err := srv.Checkpoint()
	if err != nil {
		return f.s, err
	}
	next := f.s
	for name := range f.s.Attached {
		if len(name) > len(inboxKey) && name[:len(inboxKey)] == inboxKey {
			next = next.Attach(name, nil)
		}
	}
	at := f.at
	at.Who, at.Step = list, confirm
	return put(next.Attach(advertsKey, nil).Attach(sumKey, b), at)
}

func (f *finish) confirm(p secagg.Params) (federated.State, error) {
	srv, err := secagg.RestoreServer(p, f.verifier(), f.s.Attached[sumKey])
	if err != nil {
		return f.s, err
	}
	f.each(func(name string, b []byte) error {
		var c secagg.Confirmation
		if err := c.UnmarshalBinary(b); err != nil {
			return err
		}
		if c.From != name {
			return fmt.Errorf("sent a confirmation of %q", c.From)
		}
		return srv.Confirm(c)
	})
	confirmations, err := srv.Confirmations()
	if err != nil {
		return f.s, &failedError{err}
	}
	b, err := confirmations.MarshalBinary()
	if err != nil {
		return f.s, err
	}
	at := f.at
	at.Step = unmask
	return put(f.s.Attach(confirmedKey, b), at)
}

func (f *finish) unmask(l *terms, p secagg.Params) (federated.State, error) {
	srv, err := secagg.RestoreServer(p, nil, f.s.Attached[sumKey])
	if err != nil {
		return f.s, err
	}
	f.each(func(name string, b []byte) error {
		var v secagg.Reveal
		if err := v.UnmarshalBinary(b); err != nil {
			return err
		}
		if v.From != name {
			return fmt.Errorf("sent shares of %q", v.From)
		}
		return srv.Reveal(v)
	})
	sum, err := srv.Recover(0)
	if err != nil {
		return f.s, &failedError{err}
	}
	return f.sum(l, p, &sum.Vector, sum.Sent, sum.Members)
}

// plain sums what members have sent without masks.
func (f *finish) plain(l *terms, p secagg.Params) (federated.State, error) {
	whole := p.NewVector(p.Size)
	holders := make([]int, len(l.Layout.Holdings))
	for h, r := range l.Layout.ranges {
		s := f.sums[fmt.Sprintf("h%d", h)]
		if s == nil {
			continue
		}
		v, ok := s.Attached.(*vectors)
		if !ok || v.sum == nil {
			return f.s, &failedError{errNobody}
		}
		holders[h] = s.N
		whole.AddPart(v.sum, r)
	}
	came := f.folded()
	if least := max(p.Survivors, p.Threshold); len(came) < least {
		return f.s, failedf("%d members have come, expected %d", len(came), least)
	}
	return f.sum(l, p, whole, secagg.HeldBy(l.Layout.ranges, holders, p.Holders), came)
}

// sum hands the sum to the method, or takes note of which rows may be sent.
func (f *finish) sum(l *terms, p secagg.Params, v *secagg.Vector, sent secagg.Ranges, members []string) (federated.State, error) {
	if f.at.Rows {
		return f.rows(l, v, members)
	}
	out, err := l.Layout.decode(p, v, sent, len(members), uint64(p.Holders), f.a.hides(l))
	if err != nil {
		return f.s, &failedError{err}
	}
	index := map[string]int{}
	for i := range f.srv.Population.Len() {
		index[f.srv.Population.Member(i).Name] = i
	}
	roll := federated.Roll{Asked: f.at.Asked}
	for _, name := range members {
		roll.Folded = append(roll.Folded, federated.Folded{Member: index[name], Base: f.s.Version})
	}
	slices.SortFunc(roll.Folded, func(a, b federated.Folded) int { return a.Member - b.Member })
	if out.N == 0 && !f.method.Always {
		return f.s, failedf("everybody abstained")
	}
	next, d, err := f.a.Algorithm.Finish(f.ctx, f.srv, f.in, f.method, map[string]*federated.Sum{"": out}, roll)
	f.d.Metrics = append(f.d.Metrics, d.Metrics...)
	f.d.Notes = append(f.d.Notes, d.Notes...)
	if err == nil && balanced(f.method) {
		next, err = count(next, sessionMark(f.s.Round, f.method.Name), members)
	}
	if err != nil {
		return f.s, err
	}
	if !federated.Learns(f.method.Name) {
		return f.a.past(f.s, next, f.at)
	}
	f.d.Add("secure.members", "", float64(len(members)))
	if words := l.Layout.size; words > 0 {
		f.d.Add("secure.sent", "", float64(sent.Len())/float64(words))
	}
	return f.a.past(f.s, next, f.at)
}

// rows notes which rows enough members cover, and goes on with the session of those who took part.
func (f *finish) rows(l *terms, v *secagg.Vector, members []string) (federated.State, error) {
	p := f.a.o.params(l)
	at := progress{Round: f.at.Round, Inner: f.at.Inner, Step: session, Cohort: members}
	left := 0
	for s := range l.Layout.Holdings {
		for row := range l.Layout.Rows {
			enough := v.Extra[l.Layout.rowAt(s, row)] >= uint64(p.Holders)
			at.Allowed = append(at.Allowed, enough)
			if s == 0 && !enough {
				left++
			}
		}
	}
	if left > 0 {
		f.d.Notes = append(f.d.Notes, fmt.Sprintf("%d of %d labels are left out this round: fewer than %d members have them", left, l.Layout.Rows, p.Holders))
	}
	return put(cleared(f.s), at)
}
