package recipe

import (
	"context"
	"errors"
	"fmt"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/baselines"
	"github.com/cohort-learning/cohort/methods"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// A federation over a network has its data in many places. The coordinator and every member each make their own half of a
// [Plan] from the same recipe and the same agreed [dataset.Schema]: the same problem, so the same bits, without anybody
// holding all the data.

// ServerData says what data the coordinator has.
type ServerData struct {
	// Dir is the folder of real data sets that the recipe's data may lie in; it may be empty.
	Dir string
	// Schema, if not nil, is what the parties agreed on (from a file, or from a run before). Without it the coordinator reads
	// the recipe's data and says what they are.
	Schema *dataset.Schema
	// None says that the coordinator reads no data, so that only members evaluate. It needs a Schema.
	None bool
	// Words puts the whole vocabulary of a text into the schema, so that members can encode texts of their own.
	Words bool
}

// ServerPlan is the coordinator's half of a federation.
type ServerPlan struct {
	Recipe  *Recipe
	Schema  dataset.Schema
	Split   *dataset.Split // what the coordinator itself holds; nil if nothing
	Problem *federated.Problem
	Method  methods.Method
}

// PlanServer makes the coordinator's half of a federation. How the recipe deals data to simulated clients does not matter to
// it. Errors are of the recipe, as those of [Recipe.Validate], or of the world.
func (r *Recipe) PlanServer(ctx context.Context, from ServerData) (*ServerPlan, error) {
	p, err := r.planServer(ctx, from)
	return p, r.place(err)
}

func (r *Recipe) planServer(ctx context.Context, from ServerData) (*ServerPlan, error) {
	m, err := r.method()
	if err != nil {
		return nil, err
	}
	p := &ServerPlan{Recipe: r, Method: m}
	switch {
	case from.None && from.Schema == nil:
		return nil, errors.New("a coordinator without data needs the schema of the members' data")
	case from.Schema != nil:
		if err := from.Schema.Validate(); err != nil {
			return nil, err
		}
		p.Schema = *from.Schema
	}
	if !from.None {
		if p.Split, err = load(ctx, r.spec(from.Dir)); err != nil {
			return nil, err
		}
		if r.Partition.Server > 0 { // the same as in a simulation
			rows, err := r.Partition.ServerRows(p.Split.Train, r.Seed)
			if err != nil {
				return nil, within("partition", r.Partition, err)
			}
			p.Split.Train = p.Split.Train.Subset(rows)
		}
		if from.Schema == nil {
			p.Schema = dataset.SchemaOf(p.Split.Train)
			if from.Words {
				p.Schema = p.Schema.WithWords(p.Split.Train)
			}
			if err := p.Schema.Validate(); err != nil {
				return nil, &FieldError{Field: "data", Err: err}
			}
		}
		if p.Split, err = adopt(p.Split, p.Schema); err != nil {
			return nil, &FieldError{Field: "data", Err: err}
		}
	}
	if p.Problem, err = r.problem(p.Schema.Like()); err != nil {
		return nil, err
	}
	if p.Problem.Measuring.Pooled && p.Split == nil {
		return nil, fieldf("evaluate.statistics", "pooled needs training data at the coordinator, which has none; use clients")
	}
	_, err = p.Algorithm()
	return p, err
}

// method checks the recipe and returns what it runs.
func (r *Recipe) method() (methods.Method, error) {
	if err := r.Validate(); err != nil {
		return methods.Method{}, err
	}
	return methods.Find(r.Method)
}

// adopt makes both parts of a split agree with a schema.
func adopt(split *dataset.Split, s dataset.Schema) (*dataset.Split, error) {
	var out dataset.Split
	var err error
	if out.Train, err = dataset.Adopt(split.Train, s); err == nil && split.Test != nil {
		out.Test, err = dataset.Adopt(split.Test, s)
	}
	return &out, err
}

// Algorithm returns the method on the plan's problem.
func (p *ServerPlan) Algorithm() (federated.Algorithm, error) { return p.Recipe.algorithm(p.Problem) }

// algorithm returns the recipe's method on a problem, with secure sums and privacy around it where the recipe says so.
func (r *Recipe) algorithm(p *federated.Problem) (federated.Algorithm, error) {
	a, err := r.bare(p)
	if err != nil {
		return nil, err
	}
	return r.wrapped(a)
}

// bare returns the method alone.
func (r *Recipe) bare(p *federated.Problem) (federated.Algorithm, error) {
	options, ok := r.Options.(methods.Options)
	if !ok {
		return nil, fieldf("options", "these are not the options of %s", r.Method)
	}
	a, err := options.New(p)
	return a, r.optionError(err)
}

// Server returns the coordinator's side of the run on an engine: with its own data, if it has any. An algorithm's Check tells
// what else it needs.
func (p *ServerPlan) Server(e *train.Engine, members federated.Population) federated.Server {
	s := federated.Server{Engine: e, Seed: p.Recipe.Seed, Population: members}
	if p.Split == nil {
		return s
	}
	s.Train = p.Split.Train.All()
	if p.Split.Test != nil {
		s.Test = p.Split.Test.All()
	}
	return s
}

// Config returns how the driver runs the plan.
func (p *ServerPlan) Config() federated.Config {
	return p.Recipe.driven()
}

// Levels returns the sizes of model in a fleet of so many members; the first is the global model's.
func (p *ServerPlan) Levels(members int) ([]Level, error) {
	a, err := p.Recipe.bare(p.Problem)
	if err != nil {
		return nil, err
	}
	return levelsOf(a, p.Problem.Build, members)
}

// Card describes the global model of a run of so many members with so many training examples together.
func (p *ServerPlan) Card(members, examples int) (*Card, error) {
	levels, err := p.Levels(members)
	if err != nil {
		return nil, err
	}
	return p.Recipe.card(p.Schema.Like(), levels, members, examples)
}

// Create makes the folder of a new run: what [record.Create] makes, and the card of the model. Method and seed of meta are the
// recipe's.
func (p *ServerPlan) Create(dir string, meta record.Meta, o record.Options, members, examples int) (*record.Run, error) {
	return p.Recipe.create(dir, meta, o, func() (*Card, error) { return p.Card(members, examples) }, nil)
}

// Resume takes up the run in dir, which must be one of the plan's recipe. A run that was killed before it began is begun.
func (p *ServerPlan) Resume(dir string, meta record.Meta, o record.Options, members, examples int) (*record.Run, error) {
	return p.Recipe.resume(dir, meta, o, func() (*Card, error) { return p.Card(members, examples) }, nil)
}

// MemberPlan is a member's half of a federation.
type MemberPlan struct {
	Recipe  *Recipe
	Schema  dataset.Schema
	Split   *dataset.Split // the member's own data; nil if only a program that it brings along can read them
	Problem *federated.Problem
	Method  methods.Method
}

// LoadMember reads a member's own data at path as agreed: see [dataset.LoadMember].
func (r *Recipe) LoadMember(ctx context.Context, path string, agreed dataset.Schema) (*dataset.Split, error) {
	return dataset.LoadMember(ctx, path, r.MemberData(), &agreed)
}

// MemberData says how members read their own data.
func (r *Recipe) MemberData() dataset.Spec {
	s := r.spec("")
	s.Unlabelled = r.unlabelled()
	return s
}

// PlanMember makes a member's half of a federation: from the coordinator's recipe, the agreed schema and the member's own
// data, as [Recipe.LoadMember] returns them, or nil. Initial weights come with tasks; the file that model.from names lies
// with the coordinator and is not read. Methods whose members start with weights that they are never sent need them in start.
func (r *Recipe) PlanMember(agreed dataset.Schema, mine *dataset.Split, start *weights.Set) (*MemberPlan, error) {
	p, err := r.planMember(agreed, mine, start)
	return p, r.place(err)
}

func (r *Recipe) planMember(agreed dataset.Schema, mine *dataset.Split, start *weights.Set) (*MemberPlan, error) {
	m, err := r.method()
	if err != nil {
		return nil, err
	}
	if err := agreed.Validate(); err != nil {
		return nil, err
	}
	p := &MemberPlan{Recipe: r, Schema: agreed, Method: m}
	if mine != nil {
		for _, e := range []*dataset.Examples{mine.Train, mine.Test} {
			if e == nil {
				continue
			}
			as := agreed
			if e.Labels == nil && r.unlabelled() {
				as = agreed.WithoutLabels()
			}
			if err := as.Check(dataset.SchemaOf(e)); err != nil {
				return nil, err
			}
		}
		p.Split = mine
	}
	unstarted := *r
	unstarted.Model.From = ""
	if p.Problem, err = unstarted.problem(agreed.Like()); err != nil {
		return nil, err
	}
	if start != nil {
		p.Problem.Start = start
	}
	a, err := p.Bare()
	if err != nil {
		return nil, err
	}
	if _, partial := a.(*baselines.Partial); partial && r.Model.From != "" && start == nil {
		return nil, fieldf("model.from", "members of %s keep a part of the model from the start on, so they need these weights too", r.Method)
	}
	return p, nil
}

// Algorithm returns the method on the plan's problem; its Client does the member's part.
func (p *MemberPlan) Algorithm() (federated.Algorithm, error) { return p.Recipe.algorithm(p.Problem) }

// Local returns where the member's client runs. Feature skew is in the data of an export already.
func (p *MemberPlan) Local(e *train.Engine, m federated.Member) federated.Local {
	l := federated.Local{Member: m, Engine: e, Seed: p.Recipe.Seed}
	if p.Split == nil {
		return l
	}
	l.Train = p.Split.Train.All()
	if p.Split.Test != nil {
		l.Test = p.Split.Test.All()
	}
	return l
}

// Samples returns how many training examples the member has, which it declares; 0 if it cannot read them itself.
func (p *MemberPlan) Samples() int {
	if p.Split == nil {
		return 0
	}
	return p.Split.Train.Len()
}

// String says what the member's data are, in one line.
func (p *MemberPlan) String() string {
	if p.Split == nil {
		return fmt.Sprintf("%s, which a program of the member reads", p.Schema)
	}
	return fmt.Sprintf("%d examples, %s", p.Samples(), p.Schema)
}

// Card describes the models that the member is sent.
func (p *MemberPlan) Card() (*Card, error) {
	a, err := p.Bare()
	if err != nil {
		return nil, err
	}
	levels, err := levelsOf(a, p.Problem.Build, 1)
	if err != nil {
		return nil, err
	}
	return p.Recipe.card(p.Schema.Like(), levels, 1, p.Samples())
}
