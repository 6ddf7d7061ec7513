package recipe

import (
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"os"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/dataset/table"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/methods"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/secure/psi"
	"gonum.org/v1/gonum/mat"
)

// AssistPlan is a recipe with its tables read.
type AssistPlan struct {
	Recipe  *Assist
	Table   *table.Table      // the sponsor's
	Sponsor *assisted.Sponsor // its rows in the order in which they are dealt
	Others  []*table.Table    // those of the recipe's organisations
	Without int               // rows that were left out because their target is missing
}

// Plan reads the sponsor's table, and those of the others if here is where they are.
func (r *Assist) Plan(here bool) (*AssistPlan, error) {
	p, err := r.plan(here)
	return p, r.place(err)
}

func (r *Assist) plan(here bool) (*AssistPlan, error) {
	p := &AssistPlan{Recipe: r}
	var err error
	if p.Table, err = openTable(r.sheet(), nil); err != nil {
		return nil, &FieldError{Field: "table", Err: err}
	}
	if p.Sponsor, p.Without, err = r.sponsor(p.Table); err != nil {
		return nil, err
	}
	var desks federated.Client // nil: elsewhere, and then it counts what residuals tell
	if here {
		desks = assisted.Desks{}
	}
	m, err := p.Method(desks)
	if err != nil {
		return nil, err
	}
	if err := m.Check(federated.Server{Seed: r.Seed, Secret: throwaway}); err != nil {
		return nil, &FieldError{Field: "options", Err: err}
	}
	if !here {
		return p, nil
	}
	if len(r.Organisations) == 0 {
		return nil, fieldf("organisations", "there are none; name the others and their tables, or let them join over a network (\"cohort serve\")")
	}
	for _, o := range r.Organisations {
		s := o.Table
		if s.Path == r.Table.Path && len(s.Columns) == 0 {
			return nil, fieldf("organisations", "%s has the sponsor's own file: say with table.columns which of its columns it has", o.Name)
		}
		t, err := openTable(s, nil)
		if err != nil {
			return nil, fieldf("organisations", "%s: %w", o.Name, err)
		}
		o.unlink(t)
		p.Others = append(p.Others, t)
	}
	return p, nil
}

// throwaway is a secret for looking at what a run would do: the run itself has others.
func throwaway(int, string) (key [32]byte, err error) {
	_, err = rand.Read(key[:])
	return key, err
}

// openTable reads a table; that there is no such file is a [MissingDataError].
func openTable(s table.Spec, e *table.Encoding) (*table.Table, error) {
	t, err := table.Open(s, e)
	if errors.Is(err, os.ErrNotExist) {
		err = &MissingDataError{err}
	}
	return t, err
}

// objective is what the sponsor wants of a table.
func (r *Assist) objective(t *table.Table) (assisted.Objective, error) {
	classes := len(t.Encoding.Classes)
	o := assisted.Objective{Loss: r.Loss}
	if o.Loss == "" {
		if o.Loss = assisted.Squared; t.Encoding.Task == table.Classification {
			o.Loss = assisted.CrossEntropy
		}
	}
	if o.Classifies() != (t.Encoding.Task == table.Classification) {
		return o, fieldf("loss", "%s is not for a target that is a %s; say in table.task what it is", o.Loss, map[bool]string{true: "class", false: "quantity"}[t.Encoding.Task == table.Classification])
	}
	if o.Classifies() {
		o.Classes = classes
	}
	if m, ok := r.Options.(methods.Objector); ok {
		var err error
		if o, err = m.Objective(o); err != nil {
			return o, &FieldError{Field: "method", Err: err}
		}
	}
	return o, nil
}

// sponsor deals the rows that have a target.
func (r *Assist) sponsor(t *table.Table) (*assisted.Sponsor, int, error) {
	o, err := r.objective(t)
	if err != nil {
		return nil, 0, err
	}
	s := assisted.Sponsor{Objective: o, Own: r.Sponsor}
	var train, test []int // among those with a target
	var labels []float64
	var kept []string
	without := 0
	for i, v := range t.Target {
		if math.IsNaN(v) {
			without++
			continue
		}
		if t.Test != nil && t.Test[i] {
			test = append(test, len(labels))
		} else {
			train = append(train, len(labels))
		}
		s.Keys, labels = append(s.Keys, t.Keys[i]), append(labels, v)
		if t.Blocks != nil {
			s.Blocks = append(s.Blocks, t.Blocks[i])
		}
		if t.Strata != nil {
			kept = append(kept, t.Strata[i])
		}
		if t.Compared != nil {
			s.Compared = append(s.Compared, t.Compared[i])
		}
	}
	if len(labels) == 0 {
		return nil, 0, fieldf("table", "target: no row of %s has one", t.Name)
	}
	s.Labels = mat.NewDense(len(labels), 1, labels)
	share := r.Rows
	if t.Test != nil {
		share.Test = 0
	}
	order, fit, solve, held, tests, err := share.Deal(len(train), rng.New(r.Seed, 0, "", "rows"))
	if err != nil {
		return nil, 0, &FieldError{Field: "rows", Err: err}
	}
	for i := range order {
		order[i] = train[order[i]]
	}
	if t.Test != nil {
		order, tests = append(order, test...), len(test)
	}
	out := s.Arrange(order, fit, solve, held, tests)
	if kept != nil {
		values := make([]string, len(order))
		for i, row := range order {
			values[i] = kept[row]
		}
		if out.Strata, err = strata(t, r.sheet().Strata, values[:fit]); err != nil {
			return nil, 0, err
		}
		out.Stratum = out.Strata.Of(values)
	}
	if err := out.Validate(); err != nil {
		return nil, 0, &FieldError{Field: "table", Err: err}
	}
	return out, without, nil
}

// Method returns the method for the plan's sponsor.
func (p *AssistPlan) Method(desks federated.Client) (methods.Assistance, error) {
	return p.method(p.Sponsor, desks)
}

func (p *AssistPlan) method(s *assisted.Sponsor, desks federated.Client) (methods.Assistance, error) {
	m, err := p.plain(s, desks)
	if err != nil || p.Recipe.Pretest == "" {
		return m, err
	}
	t := p.pretested(m, s, desks)
	t.Require = p.Recipe.Pretest == PretestRequire
	return t, nil
}

func (p *AssistPlan) plain(s *assisted.Sponsor, desks federated.Client) (methods.Assistance, error) {
	o, err := p.Recipe.options()
	if err != nil {
		return nil, err
	}
	m, err := o.New(p.Recipe.Rounds, s, desks)
	if err != nil {
		return nil, p.Recipe.place(&FieldError{Field: "options", Err: err})
	}
	return m, nil
}

// Desks are the organisations of one machine, the sponsor's own among them, by name; store returns where one keeps its models.
func (p *AssistPlan) Desks(store func(name string) (assisted.Store, error)) (names []string, desks assisted.Desks, err error) {
	desks = assisted.Desks{}
	add := func(name string, t *table.Table, s learner.Spec, a assisted.Aligner) error {
		l, err := s.New()
		if err != nil {
			return err
		}
		kept, err := store(name)
		if err == nil {
			err = keepEncoding(kept, t)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		names = append(names, name)
		desks[name] = &assisted.Desk{Keys: t.Keys, Features: t.Features, Learner: l, Store: kept, Sketch: p.Recipe.Mixtures, Aligner: a, Blocks: t.Blocks, Compared: t.Compared}
		return nil
	}
	if err := add(p.Recipe.Sponsor, p.Table, p.Recipe.Learner, nil); err != nil {
		return nil, nil, err
	}
	for i, t := range p.Others {
		o := p.Recipe.Organisations[i]
		a, err := o.aligner()
		if err == nil {
			err = add(o.Name, t, o.Learner, a)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	return names, desks, nil
}

// Config is how the driver runs the plan.
func (p *AssistPlan) Config() federated.Config {
	r := p.Recipe
	return federated.Config{Rounds: r.Most(), Pace: federated.Pace{Quorum: r.Quorum, Deadline: r.Deadline}}
}

// Columns is how many columns of targets an organisation is sent in a round.
func (p *AssistPlan) Columns() int {
	k := p.Sponsor.Outputs()
	if m, ok := p.Recipe.Options.(methods.Labeller); ok {
		return m.Columns(k)
	}
	return k
}

// Labels reports whether organisations are told labels.
func (p *AssistPlan) Labels() bool {
	_, ok := p.Recipe.Options.(methods.Labeller)
	return ok
}

// Terms is what organisations of a network are told of the run.
func (p *AssistPlan) Terms() assisted.Terms {
	r := p.Recipe
	k := p.Sponsor.Outputs()
	t := assisted.Terms{Version: assisted.TermsVersion, Assist: assisted.Fitting, Seed: r.Seed, Rounds: r.Most(), Outputs: k,
		Vectors: r.Most() * p.Columns(), Keys: r.Keys, Study: r.Study}
	if n := r.Activations(); n > 0 {
		t.Assist, t.Outputs, t.Vectors = assisted.Sharing, n, r.Rounds*n
	}
	if r.Pretest != "" {
		t.Mixtures = r.Mixtures
	}
	if s := p.Sponsor.Strata; s != nil {
		t.Strata = s.Count
	}
	return t
}

// Served returns the method as a coordinator of a network runs it, with the sponsor's keys as the recipe says they are known. Secret
// is what the parties share, for hashed keys.
func (p *AssistPlan) Served(secret []byte) (federated.Algorithm, error) {
	if p.Sponsor.Blocks != nil && p.Recipe.Keys == assisted.PrivateKeys {
		return nil, p.Recipe.place(fieldf("keys", "private: blocks, such as postcodes, are few and can be guessed, so that no set intersection hides them; hash them together with the keys (keys: hashed), or send them as they are (plain)"))
	}
	if p.Sponsor.Compared != nil && p.Recipe.Keys != assisted.PlainKeys {
		return nil, p.Recipe.place(fieldf("keys", "%s: columns to compare, such as names, are sent as they are, or else nobody could tell whether they are alike; if all parties may see them, say keys: plain, else leave table.compare out", p.Recipe.Keys))
	}
	switch p.Recipe.Keys {
	case assisted.HashedKeys:
		hashed := *p.Sponsor
		var err error
		if hashed.Keys, err = psi.Hash(secret, p.Recipe.Study, hashed.Keys); err != nil {
			return nil, err
		}
		if hashed.Blocks != nil {
			if hashed.Blocks, err = psi.Hash(secret, p.Recipe.Study, hashed.Blocks); err != nil {
				return nil, err
			}
		}
		return p.method(&hashed, nil)
	case assisted.PrivateKeys:
		m, err := p.Method(nil)
		if err != nil {
			return nil, err
		}
		return &assisted.Matched{Algorithm: m, Keys: p.Sponsor.Keys, Study: p.Recipe.Study}, nil
	}
	return p.Method(nil)
}
