package private

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/secure/dp"
	"github.com/cohort-learning/cohort/secure/secagg"
	"github.com/cohort-learning/cohort/weights"
)

// SecureOptions are the terms of secure sums that everybody agrees to before a run. The zero value has the defaults of package
// secagg and the complete graph.
type SecureOptions struct {
	Members   int     // fewest members that a session is begun with; 0: 3. Of two each knows the other's result from the sum
	Curious   bool    // the coordinator keeps to the protocol; else it may lie, and thresholds are higher
	Threshold float64 // part of those in a session whose shares open secrets; 0: the least that is safe
	Holders   int     // fewest members that must hold a part of the model for it to be sent; 0: as many as the threshold
	Sparse    bool    // the sparse graph, for sessions of many members
	Corrupt   float64 // Sparse: part of the members that may work with the coordinator
	Dropout   float64 // Sparse: part of the members that may be lost
	Bits      int     // of a word: 32 or 64; 0: 64
	Clip      float64 // values are clipped to [−c, c]; 0: 8
	Levels    uint64  // values are rounded to so many; 0: 2²²
	MaxWeight uint64  // greatest weight of a member; 0: 2²⁰
	// Plain leaves out keys and masks: the server sees what it sums. The sums are the same to the bit, which is enough for a
	// simulation, where there is nobody to hide from.
	Plain bool
}

// Validate returns an error that begins with the option that cannot be.
func (o SecureOptions) Validate() error {
	switch {
	case o.Members != 0 && o.Members < 2:
		return fmt.Errorf("members %d: expected at least 2, a sum of one is its result", o.Members)
	case !(o.Threshold >= 0 && o.Threshold <= 1):
		return fmt.Errorf("threshold %g: expected a part, above 0 and at most 1", o.Threshold)
	case o.Holders != 0 && o.Holders < 2:
		return fmt.Errorf("holders %d: expected at least 2", o.Holders)
	case !o.Sparse && (o.Corrupt != 0 || o.Dropout != 0):
		return errors.New("sparse is off: corrupt and dropout are for the sparse graph")
	}
	p := o.params(&terms{Session: "trial", Members: 3, Threshold: 3, Survivors: 3, Layout: &layout{size: 1, extra: 1, ranges: []secagg.Ranges{secagg.All(1)}}})
	return p.Validate()
}

// params are the terms of package secagg for a session.
func (o SecureOptions) params(t *terms) secagg.Params {
	p := secagg.Params{Session: t.name(), Members: t.Members, Threshold: t.Threshold, Neighbours: t.Neighbours, Survivors: t.Survivors,
		Size: t.Layout.size, Extra: t.Layout.extra, Bits: o.Bits, Holdings: t.Layout.ranges, Holders: min(o.Holders, t.Members),
		Clip: o.Clip, Levels: o.Levels, MaxWeight: o.MaxWeight}
	if p.MaxWeight == 0 {
		p.MaxWeight = 1 << 20
	}
	p.Model = o.model()
	if p.Size == 0 {
		p.Bits = 64
	}
	return p.Defaults()
}

// least is how many members a session is begun with at least.
func (o SecureOptions) least() int { return cmp.Or(o.Members, 3) }

func (o SecureOptions) model() secagg.Model {
	if o.Curious {
		return secagg.Curious
	}
	return secagg.Malicious
}

// Secure is a method whose members' results the server sees only as sums.
type Secure struct {
	federated.Algorithm // the method
	o                   SecureOptions
}

// NewSecure wraps a method.
func NewSecure(a federated.Algorithm, o SecureOptions) *Secure { return &Secure{a, o} }

// hides returns the noise that members add to vectors of so many words, nil if they add none.
func (a *Secure) hides(t *terms) *dp.Skellam {
	g, ok := a.Algorithm.(*Guard)
	if !ok || !g.o.Distributed || t.Layout.size == 0 {
		return nil
	}
	s := g.o.skellam(t.Enrolled, t.Layout.size)
	return &s
}

// Rows is implemented by methods whose members leave out rows of some tensors, those of labels that they do not have: how many
// of them cover a row is summed securely first, and rows that too few cover are left out by all.
type Rows interface {
	// Rows returns the tensors whose first axis is labels, and how many labels there are.
	Rows(p federated.Phase) (tensors []string, labels int)
	// Covers returns what a member's result of a task will cover.
	Covers(at federated.Local, t federated.Task) (weights.Index, error)
}

// Summable is implemented by methods that are not always fit for secure sums.
type Summable interface {
	// Summable returns why the results of the method, as it is set up, must not be summed securely, or nil.
	Summable() error
}

// The phases of a session.
const (
	session = "session"
	keys    = "keys"
	shares  = "shares"
	masked  = "masked"
	confirm = "confirm"
	unmask  = "unmask"
	plain   = "sum" // instead of keys … unmask
)

// progress is where a round stands: State.Attached["secure/at"].
type progress struct {
	Round   int      `json:"round"`
	Inner   int      `json:"inner"`          // step of the method's phase under way
	Rows    bool     `json:"rows,omitempty"` // the session that counts rows is under way
	Step    string   `json:"step"`
	Who     []string `json:"who,omitempty"`     // members in the session, those asked next
	Words   []int    `json:"words,omitempty"`   // by holding, words that are sent
	Allowed []bool   `json:"allowed,omitempty"` // rows, for each holding
	Cohort  []string `json:"cohort,omitempty"`  // whose rows were counted: the main session is theirs
	Asked   int      `json:"asked,omitempty"`   // in the first step
}

const (
	atKey        = "secure/at"
	termsKey     = "secure/terms"
	advertsKey   = "secure/adverts"
	inboxKey     = "secure/inbox/" // and a name
	sumKey       = "secure/sum"
	confirmedKey = "secure/confirmed"
)

// Check implements [federated.Algorithm]: the method must be one whose results are sums.
func (a *Secure) Check(srv federated.Server) error {
	if err := a.Algorithm.Check(srv); err != nil {
		return err
	}
	if err := a.o.Validate(); err != nil {
		return err
	}
	if err := a.Fits(srv); err != nil {
		return err
	}
	srv.Population = complete{srv.Population}
	return a.Enough(srv)
}

// complete is a population with those that are gone: a run that they have left goes on without sums until others come.
type complete struct{ federated.Population }

// Member implements [federated.Population].
func (c complete) Member(i int) federated.Member {
	m := c.Population.Member(i)
	m.Gone = false
	return m
}

// Enough returns an [UnfitError] if a round asks fewer members of the population than a session is begun with.
func (a *Secure) Enough(srv federated.Server) error {
	s, err := a.Algorithm.Init(context.Background(), srv)
	if err != nil {
		return err
	}
	for ; ; s.Step++ {
		p, ok := a.Algorithm.Next(s)
		if !ok {
			return nil
		}
		n, least := p.Who.Count(srv.Population), a.o.least()
		if asksNobody(p) || len(p.Folds) == 0 || n >= least { // the server alone works, or members only measure
			continue
		}
		return unfit(Members, "a round asks %d of %d members, and a secure sum is begun with %d or more: ask more of them (round.fraction), or let more join; "+
			"with secure.members 2, each of two would know the other's result from the sum", n, srv.Population.Len(), least)
	}
}

// Fits returns an [UnfitError] if the results of the method are none that can be summed securely, or who takes part is secret.
func (a *Secure) Fits(srv federated.Server) error {
	if g, ok := a.Algorithm.(*Guard); ok {
		if err := g.Fits(srv); err != nil {
			return err
		}
	}
	if m, ok := a.Algorithm.(Summable); ok {
		if err := m.Summable(); err != nil {
			return unfit(Method, "no secure sum of this method: %w", err)
		}
	}
	s, err := a.Algorithm.Init(context.Background(), srv)
	if err != nil {
		return err
	}
	p, ok := a.Algorithm.Next(s)
	for ; ok && asksNobody(p); p, ok = a.Algorithm.Next(s) { // the server alone works
		s.Step++
	}
	if !ok || s.Step > 0 && len(p.Folds) == 0 {
		return unfit(Method, "no secure sum of this method: members send nothing that they have learned")
	}
	if p.Who.Coins {
		return unfit(Drawing, "a session of secure sums needs to know how many take part, and secret coins do not tell: ask everybody (round.fraction 1), or leave out one of the two")
	}
	l, err := a.layout(srv, s, p)
	if err == nil && !a.o.Plain {
		err = a.uniform(srv, s, p, l)
	}
	if err != nil {
		return unfit(Method, "no secure sum of this method: %w", err)
	}
	return nil
}

func asksNobody(p federated.Phase) bool { return !p.Who.Everyone && p.Who.Fraction == 0 }

// at returns where the round stands. After its last phase nothing is attached.
func at(s federated.State) (progress, bool) {
	p := progress{Round: s.Round, Step: session}
	b, ok := s.Attached[atKey]
	if !ok {
		return p, s.Step == 0
	}
	var q progress
	if err := json.Unmarshal(b, &q); err != nil {
		panic(fmt.Sprintf("private: state of a session: %v", err)) // it was written here
	}
	if q.Round != s.Round {
		return p, s.Step == 0
	}
	return q, true
}

// inner is the state as the method knows it.
func inner(s federated.State, p progress) federated.State {
	s.Step = p.Inner
	return cleared(s)
}

// cleared is a state without anything of a session.
func cleared(s federated.State) federated.State { return s.Detached("secure/") }

// put attaches where the round stands.
func put(s federated.State, p progress) (federated.State, error) {
	b, err := json.Marshal(p)
	return s.Attach(atKey, b), err
}

// Next implements [federated.Algorithm].
func (a *Secure) Next(s federated.State) (federated.Phase, bool) {
	at, ok := at(s)
	if !ok {
		return federated.Phase{}, false
	}
	p, ok := a.Algorithm.Next(inner(s, at))
	if !ok || asksNobody(p) {
		return p, ok
	}
	rows := at.Rows || at.Step == session && at.Cohort == nil && a.counts(p) // no round has two phases of one name
	q := federated.Phase{Name: order{Step: at.Step, Phase: p.Name, Rows: rows}.name(), Barrier: p.Barrier, Always: true}
	in := func(names []string) func(federated.Member) bool {
		return func(m federated.Member) bool {
			_, ok := slices.BinarySearch(names, m.Name)
			return ok
		}
	}
	switch {
	case at.Step == session:
		return q, true
	case at.Step == keys || at.Step == plain:
		q.Who = p.Who
		if q.Who.Stream == "" {
			q.Who.Stream = p.Name // the same members as without secure sums
		}
		if at.Cohort != nil {
			q.Who = federated.Selection{Everyone: true, Eligible: in(at.Cohort)}
		}
	default:
		q.Who = federated.Selection{Everyone: true, Eligible: in(at.Who)}
	}
	switch at.Step {
	case masked, plain:
		q.Attachments = func() federated.Attachments { return &vectors{} }
	default:
		q.Gather = true
	}
	return q, true
}

// counts reports whether rows are counted before a phase of the method.
func (a *Secure) counts(p federated.Phase) bool {
	r, ok := a.Algorithm.(Rows)
	if !ok {
		return false
	}
	_, rows := r.Rows(p)
	return rows > 0
}

// order is what a member is told besides.
type order struct {
	Step    string          `json:"step"`
	Phase   string          `json:"phase"` // the method's
	Rows    bool            `json:"rows,omitempty"`
	Holding int             `json:"holding"`
	Words   int             `json:"words,omitempty"`
	Allowed []bool          `json:"allowed,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"` // the method's
	// Counted is the last session whose sum had this member's vector, where what it keeps has to agree with the server's.
	Counted *string `json:"counted,omitempty"`
}

// name is the driver's phase in which such orders are given.
func (o order) name() string {
	if o.Rows {
		return o.Phase + ".rows." + o.Step
	}
	return o.Phase + "." + o.Step
}

// ask makes the task of the step that masks out of the method's own.
func (o *order) ask(t *federated.Task, at progress) {
	o.Allowed, o.Params = at.Allowed, t.Params
	if at.Rows { // the data alone decide
		t.Sets = nil
	}
}

// Task implements [federated.Algorithm].
func (a *Secure) Task(s federated.State, p federated.Phase, m federated.Member) (federated.Task, error) {
	at, _ := at(s)
	in := inner(s, at)
	method, ok := a.Algorithm.Next(in)
	if !ok {
		return federated.Task{}, fmt.Errorf("phase %q: the method has none", p.Name)
	}
	o := order{Step: at.Step, Phase: method.Name, Rows: at.Rows}
	var t federated.Task
	if at.Step == keys || at.Step == masked || at.Step == plain {
		full, err := a.Algorithm.Task(in, method, m)
		if err != nil {
			return full, err
		}
		l, err := readTerms(s.Attached[termsKey])
		if err != nil {
			return t, err
		}
		if o.Holding, err = a.holding(in, method, l.Layout, full); err != nil {
			return t, fmt.Errorf("%s: %w", m.Name, err)
		}
		if at.Step != keys {
			o.Words = at.Words[o.Holding]
			t = full
			o.ask(&t, at)
			if balanced(method) && !at.Rows {
				of, err := counted(s)
				if err != nil {
					return t, err
				}
				last := of[m.Name]
				o.Counted = &last
			}
			t.Group = fmt.Sprintf("h%d", o.Holding)
		}
		t.Tag = full.Tag
	}
	switch at.Step {
	case keys, plain:
		t.Attached = s.Attached[termsKey]
	case shares:
		t.Attached = s.Attached[advertsKey]
	case masked:
		t.Attached = s.Attached[inboxKey+m.Name]
	case confirm:
		b, err := secagg.Survivors(at.Who).MarshalBinary()
		if err != nil {
			return t, err
		}
		t.Attached = b
	case unmask:
		t.Attached = s.Attached[confirmedKey]
	}
	var err error
	t.Params, err = json.Marshal(o)
	return t, err
}

// holding returns which part of the model a task is about. In the session that counts rows the layout has no body, and the
// method's own is looked at.
func (a *Secure) holding(s federated.State, p federated.Phase, l *layout, t federated.Task) (int, error) {
	if len(l.Holdings) == 1 {
		return 0, nil
	}
	full := layout{Folds: foldsOf(p), Holdings: l.Holdings}
	if err := full.place(); err != nil {
		return 0, err
	}
	return full.holding(t.Index)
}

// present are the members that a phase can ask.
func present(srv federated.Server, p federated.Phase) iter.Seq[federated.Member] {
	return func(yield func(federated.Member) bool) {
		for i := range srv.Population.Len() {
			m := srv.Population.Member(i)
			if !m.Gone && (p.Who.Eligible == nil || p.Who.Eligible(m)) && !yield(m) {
				return
			}
		}
	}
}

// tasks returns the digests of what members will be asked for, by holding.
func (a *Secure) tasks(srv federated.Server, s federated.State, p federated.Phase, l *layout, at progress) ([]string, error) {
	out := make([]string, len(l.Holdings))
	left := len(out)
	for m := range present(srv, p) {
		if left == 0 {
			break
		}
		t, err := a.Algorithm.Task(s, p, m)
		if err != nil {
			return nil, err
		}
		o := order{Phase: p.Name, Rows: at.Rows}
		if o.Holding, err = a.holding(s, p, l, t); err != nil {
			return nil, fmt.Errorf("%s: %w", m.Name, err)
		}
		if out[o.Holding] != "" {
			continue
		}
		o.ask(&t, at)
		if out[o.Holding], err = o.digest(t); err != nil {
			return nil, err
		}
		left--
	}
	return out, nil
}

// uniform returns an error unless all members that hold the same part of the model are asked for the same.
func (a *Secure) uniform(srv federated.Server, s federated.State, p federated.Phase, l *layout) error {
	first := make([]string, len(l.Holdings))
	for m := range present(srv, p) {
		t, err := a.Algorithm.Task(s, p, m)
		if err != nil {
			return err
		}
		o := order{Phase: p.Name, Params: t.Params}
		if o.Holding, err = a.holding(s, p, l, t); err != nil {
			return fmt.Errorf("%s: %w", m.Name, err)
		}
		t.Sets = nil // those of one part of one model are the same
		d, err := o.digest(t)
		if err != nil {
			return err
		}
		if first[o.Holding] == "" {
			first[o.Holding] = d
		}
		if d != first[o.Holding] {
			return fmt.Errorf("%s is asked for something else than others with the same part of the model, who could not know that theirs is not the only update in the sum", m.Name)
		}
	}
	return nil
}

// scalars are those that members of the method send beside federated.Measured.
func (a *Secure) scalars() []string {
	return federated.MeasuredBy(a.Algorithm)[len(federated.Measured):]
}

// layout lays out the vectors of a phase: what its folds are, and which parts of the model members hold.
func (a *Secure) layout(srv federated.Server, s federated.State, p federated.Phase) (*layout, error) {
	l := &layout{Folds: foldsOf(p), Holdings: []weights.Index{nil}, Scalars: a.scalars()}
	if len(p.Collect) > 0 && len(p.Folds) > 0 {
		return nil, errors.New("it needs numbers of single members")
	}
	if p.Gather || p.Attachments != nil {
		return nil, errors.New("members attach to their results what has no secure sum")
	}
	if r, ok := a.Algorithm.(Rows); ok {
		l.RowsOf, l.Rows = r.Rows(p)
	}
	if slices.ContainsFunc(l.Folds, func(f foldLayout) bool { return f.Indexed }) {
		if err := a.holdings(srv, s, p, l); err != nil {
			return nil, err
		}
	}
	return l, l.place()
}

// holdings finds the parts of the model that members hold, the smallest first.
func (a *Secure) holdings(srv federated.Server, s federated.State, p federated.Phase, l *layout) error {
	if err := l.place(); err != nil {
		return err
	}
	type part struct {
		ix weights.Index
		r  secagg.Ranges
	}
	var parts []part
	for m := range present(srv, p) {
		t, err := a.Algorithm.Task(s, p, m)
		if err != nil {
			return err
		}
		r, err := l.held(t.Index)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(parts, func(q part) bool { return q.r.Equal(r) }) {
			parts = append(parts, part{t.Index, r})
		}
		if len(parts) > 64 {
			return errors.New("members hold too many different parts of the model")
		}
	}
	slices.SortFunc(parts, func(a, b part) int { return a.r.Len() - b.r.Len() })
	l.Holdings = nil
	for _, q := range parts {
		l.Holdings = append(l.Holdings, q.ix)
	}
	if len(parts) == 0 {
		l.Holdings = []weights.Index{nil}
	}
	return nil
}

// Client implements [federated.Algorithm].
func (a *Secure) Client() federated.Client { return &client{a, a.Algorithm.Client()} }

// Around returns the member's part of a around a client of the method, such as a program that a member brings along.
func (a *Secure) Around(c federated.Client) federated.Client {
	if g, ok := a.Algorithm.(*Guard); ok {
		c = g.Around(c)
	}
	return &client{a, c}
}
