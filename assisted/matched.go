package assisted

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	mathrand "math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/secure/psi"
	"github.com/cohort-learning/cohort/weights"
)

// Match is the phase in which an organisation and the sponsor find out which entities both know.
const Match = "match"

// doMatch is asked of a [Clerk]: to find out which entities both know.
const doMatch = "match"

// Matched is a method whose organisations are told entities by tokens of a private set intersection ([psi]) instead of keys: each
// learns which of its own entities the sponsor has, and of the others no more than how many there are. Whoever is not matched yet
// is at the beginning of a round.
//
// An organisation's side is a [Clerk] with the same kind of keys.
type Matched struct {
	federated.Algorithm          // the method; its tasks name entities by the sponsor's keys
	Keys                []string // the sponsor's, in the order of the rows
	Study               string   // of the run's [Terms]
	// Clerks is the organisations' side, where they are in this process; at the coordinator of a network it is not used.
	Clerks federated.Client
}

// What a run keeps of matching, in State.Attached.
const (
	matchPrefix = "match/"
	matchSecret = matchPrefix + "secret"  // of the sponsor
	matchCourse = matchPrefix + "course"  // a [matching]
	matchTokens = matchPrefix + "tokens/" // by member: its tokens of the rows
)

// matching is where matching stands.
type matching struct {
	Round int  `json:"round"` // in which somebody was asked last; −1: none
	Again bool `json:"again"` // somebody is not matched
}

// Check implements [federated.Algorithm].
func (a *Matched) Check(srv federated.Server) error {
	if srv.Secret == nil {
		return errors.New("private set intersection needs a coordinator that can keep secrets")
	}
	return a.Algorithm.Check(srv)
}

// Init implements [federated.Algorithm].
func (a *Matched) Init(ctx context.Context, srv federated.Server) (federated.State, error) {
	s, err := a.Algorithm.Init(ctx, srv)
	if err != nil {
		return s, err
	}
	secret, err := srv.Secret(0, "psi")
	if err != nil {
		return s, err
	}
	return put(s.Attach(matchSecret, secret[:]), matching{Round: -1, Again: true})
}

func put(s federated.State, m matching) (federated.State, error) {
	b, err := json.Marshal(m)
	return s.Attach(matchCourse, b), err
}

func at(s federated.State) (m matching) {
	if err := json.Unmarshal(s.Attached[matchCourse], &m); err != nil {
		panic(fmt.Sprintf("assisted: where matching stands: %v", err)) // it was written here
	}
	return m
}

// knows reports whether a member has tokens.
func knows(s federated.State, name string) bool {
	_, ok := s.Attached[matchTokens+name]
	return ok
}

// inner is the state as the method knows it.
func (a *Matched) inner(s federated.State) federated.State {
	if at(s).Round == s.Round && s.Step > 0 {
		s.Step--
	}
	return s.Detached(matchPrefix)
}

// Next implements [federated.Algorithm].
func (a *Matched) Next(s federated.State) (federated.Phase, bool) {
	if s.Step == 0 && at(s).Again && at(s).Round != s.Round {
		return federated.Phase{Name: Match, Gather: true, Always: true, Who: federated.Selection{Everyone: true,
			Eligible: func(m federated.Member) bool { return !knows(s, m.Name) }}}, true
	}
	p, ok := a.Algorithm.Next(a.inner(s))
	who := p.Who.Eligible
	p.Who.Eligible = func(m federated.Member) bool { return knows(s, m.Name) && (who == nil || who(m)) }
	return p, ok
}

// Over implements [federated.Ender].
func (a *Matched) Over(s federated.State) bool { return federated.Over(a.Algorithm, a.inner(s)) }

// Client implements [federated.Algorithm].
func (a *Matched) Client() federated.Client { return a.Clerks }

// initiator returns the sponsor's end of the exchange with a member, the same whenever it is asked for.
func (a *Matched) initiator(s federated.State, name string) (*psi.Initiator, error) {
	return psi.NewInitiator(a.Study, a.Keys, sha256.Sum256(append([]byte("cohort/match/1\x00"+name+"\x00"), s.Attached[matchSecret]...)))
}

// Task implements [federated.Algorithm].
func (a *Matched) Task(s federated.State, p federated.Phase, m federated.Member) (federated.Task, error) {
	if p.Name == Match {
		i, err := a.initiator(s, m.Name)
		if err != nil {
			return federated.Task{}, err
		}
		return order{Do: doMatch}.task(nil, psi.AppendPoints(nil, i.First()))
	}
	t, err := a.Algorithm.Task(a.inner(s), p, m)
	if err != nil {
		return t, err
	}
	o, err := orderOf(t)
	if err != nil {
		return t, err
	}
	tokens, _, err := psi.ReadPoints(s.Attached[matchTokens+m.Name])
	if err != nil {
		return t, err
	}
	keys := AppendKeys(nil, names(tokens))
	o.Rows = digestOf(keys)
	if t.Attached != nil {
		t.Attached = keys
	}
	t.Params, err = json.Marshal(o)
	return t, err
}

// names is tokens as keys.
func names(tokens []psi.Point) []string {
	out := make([]string, len(tokens))
	for i, t := range tokens {
		out[i] = t.String()
	}
	return out
}

// Finish implements [federated.Algorithm].
func (a *Matched) Finish(ctx context.Context, srv federated.Server, s federated.State, p federated.Phase, sums map[string]*federated.Sum, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	var d federated.Diagnostics
	next := s
	if p.Name == Match {
		d = a.matched(srv, &next, roll)
	} else {
		var err error
		next, d, err = a.Algorithm.Finish(ctx, srv, a.inner(s), p, sums, roll)
		if err != nil {
			return next, d, err
		}
		all := maps.Clone(next.Attached)
		if all == nil {
			all = map[string][]byte{}
		}
		for name, b := range s.Attached {
			if strings.HasPrefix(name, matchPrefix) {
				all[name] = b
			}
		}
		next.Attached = all
	}
	m := at(s)
	if p.Name == Match {
		m.Round = s.Round
	}
	m.Again = false
	for i := range srv.Population.Len() {
		if who := srv.Population.Member(i); !who.Gone && !knows(next, who.Name) {
			m.Again = true
		}
	}
	next, err := put(next, m)
	return next, d, err
}

// matched takes in what members have answered.
func (a *Matched) matched(srv federated.Server, s *federated.State, roll federated.Roll) (d federated.Diagnostics) {
	for _, f := range roll.Failed {
		d.Notes = append(d.Notes, fmt.Sprintf("%s is not matched yet: %s", f.Member, f.Reason))
	}
	for _, g := range roll.Gathered {
		name := srv.Population.Member(g.Member).Name
		m, err := a.finish(*s, name, g.Attached)
		if err != nil {
			d.Notes = append(d.Notes, fmt.Sprintf("%s is not matched: its answer is %v", name, err))
			continue
		}
		*s = s.Attach(matchTokens+name, psi.AppendPoints(nil, m.Tokens))
		d.Add("matched", name, float64(m.Count()))
		d.Notes = append(d.Notes, fmt.Sprintf("%s knows %d of %d entities", name, m.Count(), len(a.Keys)))
	}
	return d
}

func (a *Matched) finish(s federated.State, name string, answer []byte) (psi.Match, error) {
	var r psi.Reply
	if err := r.UnmarshalBinary(answer); err != nil {
		return psi.Match{}, err
	}
	i, err := a.initiator(s, name)
	if err != nil {
		return psi.Match{}, err
	}
	return i.Finish(r)
}

// Clerk is an organisation's side on a network: it knows entities by keys, by hashes of keys, or by tokens of a private set
// intersection with the sponsor, keeps to what the organisation allows, and hands what remains to a [Desk].
type Clerk struct {
	Desk  *Desk  // Keys are the organisation's own: plain, or hashed alike at all parties
	Mode  string // how entities are known: [PlainKeys], [HashedKeys] or [PrivateKeys]
	Study string // of the run's [Terms]
	// Of, if not empty, is the scope of the run whose models are asked, in place of the run's own.
	Of string
	// Strata is in how many groups rows may come, of the run's [Terms]; 0: in none.
	Strata int
	// Answers is for how many rows predictions are given, over all runs on the store; 0: no limit.
	Answers int
	// Table is the version of the organisation's table that answers come from, from 1, and Digest what it is known by. The number is told
	// with predictions, the digest is not.
	Table  int
	Digest string
	// Now is the clock of the log of predictions; nil: its lines have no time. Told, if not nil, hears of each that is given.
	Now  func() time.Time
	Told func(g Given, all int)

	mu   sync.Mutex
	runs map[string]*matchedDesk // by scope
}

// matchedDesk is the desk of a run whose entities are tokens.
type matchedDesk struct {
	responder *psi.Responder
	desk      *Desk
}

// Run implements [federated.Client].
func (c *Clerk) Run(ctx context.Context, here federated.Local, task federated.Task, keep *weights.Set) (federated.Result, error) {
	o, err := orderOf(task)
	if err != nil {
		return federated.Result{}, err
	}
	if set, ok := task.Sets[strataSet]; ok {
		if err := c.agreed(set); err != nil {
			return federated.Result{}, err
		}
	}
	desk := c.Desk
	if c.Mode == PrivateKeys {
		m, err := c.open(here)
		if err != nil {
			return federated.Result{}, err
		}
		if o.Do == doMatch {
			return c.match(here.Scope, m.responder, task.Attached)
		}
		desk = m.desk
	} else if o.Do == doMatch {
		return federated.Result{}, fmt.Errorf("asked for a private set intersection, where keys were agreed to be %s", c.Mode)
	}
	if o.Do == doPredict {
		if err := c.allow(here.Scope, task.Attached); err != nil {
			return federated.Result{}, err
		}
	}
	var also map[string]float64
	if o.Do == doPredict && c.Table > 0 {
		also = map[string]float64{tableScalar: float64(c.Table)}
	}
	if c.Of != "" {
		if o.Do != doPredict {
			return federated.Result{}, fmt.Errorf("asked to do %q in a run that was agreed to for predictions", o.Do)
		}
		here.Scope = c.Of
	}
	if o.Do == doSketch {
		return c.sketch(here, desk, o)
	}
	r, err := desk.Run(ctx, here, task, keep)
	if err == nil && also != nil {
		r.Scalars = also
	}
	return r, err
}

// agreed returns an error if rows come in more strata than were agreed to.
func (c *Clerk) agreed(set weights.Set) error {
	x, err := matrixIn(set, strataSet)
	if err != nil {
		return err
	}
	strata, err := readStrata(x)
	if err == nil && strataOf(strata) > c.Strata {
		err = fmt.Errorf("rows come in %d strata, and %d were agreed to", strataOf(strata), c.Strata)
	}
	return err
}

// sketch is that of the desk, in directions that follow from a secret of the organisation: who knows the seed of the run, such as
// the sponsor, does not know them.
func (c *Clerk) sketch(here federated.Local, desk *Desk, o order) (federated.Result, error) {
	if err := desk.open(); err != nil {
		return federated.Result{}, err
	}
	secret, err := own(here, "mixtures/secret")
	if err != nil {
		return federated.Result{}, err
	}
	desk.mu.Lock()
	defer desk.mu.Unlock()
	return desk.sketch(here, o, mathrand.New(mathrand.NewChaCha8(secret)))
}

// own returns a secret of the organisation for a run, the same whenever it is asked for.
func own(here federated.Local, name string) (secret [32]byte, err error) {
	if here.Vault == nil {
		return secret, errors.New("this needs a place for secrets")
	}
	b, err := here.Vault.Once(name, func() ([]byte, error) {
		fresh := make([]byte, len(secret))
		_, err := rand.Read(fresh)
		return fresh, err
	})
	if err == nil && len(b) != len(secret) {
		err = fmt.Errorf("it has %d bytes", len(b))
	}
	if err != nil {
		return secret, fmt.Errorf("the secret of this organisation for the run: %w", err)
	}
	copy(secret[:], b)
	return secret, nil
}

// open returns the desk of a run whose entities are tokens of its own keys.
func (c *Clerk) open(here federated.Local) (*matchedDesk, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m, ok := c.runs[here.Scope]; ok {
		return m, nil
	}
	secret, err := own(here, "psi/secret")
	if err != nil {
		return nil, fmt.Errorf("private set intersection: %w", err)
	}
	r, err := psi.NewResponder(c.Study, c.Desk.Keys, psi.Secret(secret))
	if err != nil {
		return nil, err
	}
	d := c.Desk
	m := &matchedDesk{r, &Desk{Keys: names(r.Own()), Features: d.Features, Learner: d.Learner, Store: d.Store, Limit: d.Limit, Most: d.Most, Noise: d.Noise,
		Sketch: d.Sketch, Blur: d.Blur, Aligner: d.Aligner}}
	if c.runs == nil {
		c.runs = map[string]*matchedDesk{}
	}
	c.runs[here.Scope] = m
	return m, nil
}

// match answers the first message of a private set intersection, once a run: who may ask with many lists learns one's own by trying.
func (c *Clerk) match(scope string, r *psi.Responder, first []byte) (federated.Result, error) {
	name, digest := scope+"/match", []byte(digestOf(first))
	c.mu.Lock()
	defer c.mu.Unlock()
	switch before, err := c.Desk.Store.Get(name); {
	case errors.Is(err, fs.ErrNotExist):
		if err := c.Desk.Store.Put(name, digest); err != nil {
			return federated.Result{}, err
		}
	case err != nil:
		return federated.Result{}, err
	case !bytes.Equal(before, digest):
		return federated.Result{}, errors.New("asked to compare another list than before: this organisation answers one in a run")
	}
	points, rest, err := psi.ReadPoints(first)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes follow the points", len(rest))
	}
	if err != nil {
		return federated.Result{}, err
	}
	reply, err := r.Answer(points)
	if err != nil {
		return federated.Result{}, err
	}
	b, err := reply.MarshalBinary()
	return federated.Result{Attached: b}, err
}

var (
	_ federated.Algorithm = (*Matched)(nil)
	_ federated.Client    = (*Clerk)(nil)
)
