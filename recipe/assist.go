package recipe

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/dataset/table"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/methods"
	"github.com/cohort-learning/cohort/record"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

// Assist is one run of organisations that hold different columns of the same entities, as the sponsor describes it: the one that
// has labels and wants to predict. On one machine it names the others and their tables; over a network they join with their own.
type Assist struct {
	Version int             `yaml:"version" doc:"Version of this format."`
	Name    string          `yaml:"name,omitempty" doc:"Your name for the run; shown in lists and reports."`
	Method  string          `yaml:"method" doc:"How organisations assist: gal (all at once), al (one after the other), ascii (classes that all may know), ae-al (one generalised linear model, of a target that all may know) or al-network (one network, a part of which each has)."`
	Seed    uint64          `yaml:"seed" doc:"Seed of every random choice: rows, models, noise."`
	Rounds  int             `yaml:"rounds" doc:"Rounds of the run."`
	Table   table.Spec      `yaml:"table" doc:"The sponsor's table, with the target."`
	Loss    string          `yaml:"loss,omitempty" doc:"What is to be small: cross-entropy, squared, absolute, log-cosh (about squared for small errors and absolute for large ones) or poisson (counts, predicted by their mean); left out: cross-entropy for classes, squared for a quantity."`
	Rows    assisted.Shares `yaml:"rows" doc:"Which rows are for what."`
	Sponsor string          `yaml:"sponsor" doc:"The sponsor's name among the organisations; over a network it joins under this name, too, with its own columns."`
	Learner learner.Spec    `yaml:"learner" doc:"The sponsor's own model."`

	Pretest  string `yaml:"pretest,omitempty" doc:"Ask before the first residual whether assistance is worth while: tell (say it) or require (leave out who does not pass); left out: no."`
	Mixtures int    `yaml:"mixtures" doc:"Random mixtures of its columns that each organisation is asked for by the pre-test."`

	Organisations []Organisation `yaml:"organisations,omitempty" doc:"The others, on one machine."`
	Bounds        []string       `yaml:"bounds" doc:"What the outcome is compared with on one machine: any of alone, joint, late, interm and vfl."`

	Keys  string `yaml:"keys" doc:"How rows are known over a network: private (set intersection: nobody sees keys that it does not have), hashed (with a secret that the parties share) or plain."`
	Study string `yaml:"study,omitempty" doc:"What keys are hashed or matched for; the same for all parties, another for every study."`

	Quorum   float64       `yaml:"quorum,omitempty" doc:"Part of the organisations whose answers close a round; 0 means all."`
	Deadline time.Duration `yaml:"deadline,omitempty" doc:"Close a round after this time with the answers that have come, e.g. 10m; 0 means never."`

	Run     Run `yaml:"run" doc:"How the run is computed."`
	Options any `yaml:"options,omitempty" doc:"The method's own options."`

	origin []*document
}

// Organisation is one of the others, on one machine.
type Organisation struct {
	Name    string       `yaml:"name" doc:"Its name."`
	Table   table.Spec   `yaml:"table" doc:"Its table; a file without a key may be the sponsor's own, of which it has other columns."`
	Learner learner.Spec `yaml:"learner" doc:"Its model."`
	Align   string       `yaml:"align,omitempty" doc:"Where keys are wrong for some rows, or only blocks are known: what explains residuals while its rows are aligned to the sponsor's, linear or another learner. Left out: keys are right."`
}

// unlinked reports whether only blocks say which of its rows could be which of the sponsor's.
func (o Organisation) unlinked() bool {
	return o.Table.Key == "" && o.Align != "" && len(o.Table.Blocks) > 0
}

// unlink gives the rows of an unlinked table names that are no keys of the sponsor's, as their numbers could be.
func (o Organisation) unlink(t *table.Table) {
	if !o.unlinked() {
		return
	}
	for i, k := range t.Keys {
		t.Keys[i] = o.Name + " " + k
	}
}

// aligner is the first stage of a run for an organisation whose links are in doubt, nil for others.
func (o Organisation) aligner() (assisted.Aligner, error) { return methods.NewAligner(o.Align) }

// DefaultAssist returns the recipe of a method with every field at its default. Weights and rates are solved on rows whose residuals
// nobody was sent, and the run ends when held-out rows say so: an organisation whose model learns residuals by heart, or sends them
// back, then gains nothing by it.
func DefaultAssist(method string) (*Assist, error) {
	m, err := methods.FindAssisted(method)
	if err != nil {
		return nil, err
	}
	rows := assisted.Shares{Held: 0.1, Test: 0.2}
	if m.Solves {
		rows.Solve = 0.2
	}
	return &Assist{Version: Version, Method: m.Name, Rounds: cmp.Or(m.Rounds, 10), Sponsor: "sponsor", Learner: learner.Spec{Name: "linear"},
		Rows: rows, Mixtures: 3, Keys: assisted.PrivateKeys,
		Bounds: []string{AloneBound, JointBound}, Run: Run{Checkpoint: 1}, Options: m.Options()}, nil
}

// IsAssist reports whether the text of a recipe is one of organisations with different columns.
func IsAssist(text []byte) bool {
	f, err := parse("", text)
	if err != nil {
		return false
	}
	n, ok := f.child(f.root, "method").(*ast.StringNode)
	if !ok {
		return false
	}
	_, err = methods.FindAssisted(n.Value)
	return err == nil
}

// AmongOrganisations reports whether the run in dir is one of organisations with different columns.
func AmongOrganisations(dir string) bool {
	text, err := record.ReadRecipe(dir)
	return err == nil && IsAssist(text)
}

// LoadAssist reads a recipe file as [Load] does.
func LoadAssist(path string, set ...string) (*Assist, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	base, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	return readAssist(path, text, set, base)
}

// ParseAssist reads a recipe from text as [Parse] does.
func ParseAssist(file string, text []byte) (*Assist, error) { return readAssist(file, text, nil, "") }

// AssistOfRun reads the recipe of the run in dir.
func AssistOfRun(dir string) (*Assist, error) {
	text, err := record.ReadRecipe(dir)
	if err != nil {
		return nil, err
	}
	return ParseAssist(filepath.Join(dir, record.RecipeName), text)
}

func readAssist(file string, text []byte, set []string, base string) (*Assist, error) {
	f, err := parse(file, text)
	if err != nil {
		return nil, err
	}
	docs := []*document{f}
	for _, change := range set {
		c, err := parseChange(change)
		if err != nil {
			return nil, err
		}
		docs = append(docs, c)
	}
	named := f // the document that names the method
	for _, d := range docs {
		if d.child(d.root, "method") != nil {
			named = d
		}
	}
	n, ok := named.child(named.root, "method").(*ast.StringNode)
	if !ok {
		return nil, &Error{File: file, Line: 1, Column: 1, Field: "method", Message: "is missing; expected one of " + strings.Join(assistance(), ", ")}
	}
	r, err := DefaultAssist(n.Value)
	if err != nil {
		return nil, named.at(n, "method", err.Error())
	}
	if old := f.child(f.root, "method"); named != f && old != nil && old.String() != n.Value {
		docs[0] = f.without("options") // those of another method
	}
	for i, d := range docs {
		if err := d.keys(d.root, reflect.TypeOf(*r), "", r.Options); err != nil {
			return nil, err
		}
		if l := d.child(d.root, "learner"); l != nil && i == 0 {
			r.Learner = learner.Spec{}
		}
		if err := d.fill(reflect.ValueOf(r).Elem(), r.Options); err != nil {
			return nil, err
		}
		if base != "" && i == 0 {
			rebase(base, &r.Table.Path)
			for k := range r.Organisations {
				rebase(base, &r.Organisations[k].Table.Path)
			}
		}
	}
	r.origin = docs
	if err := r.validate(); err != nil {
		return nil, r.place(err)
	}
	return r, nil
}

// assistance are the names of the methods.
func assistance() (names []string) {
	for _, m := range methods.AllAssisted() {
		names = append(names, m.Name)
	}
	return names
}

func rebase(base string, path *string) {
	if *path != "" && !filepath.IsAbs(*path) {
		*path = filepath.Join(base, *path)
	}
}

// fill decodes the fields of a document into a struct; options is where the field of that name goes.
func (f *document) fill(into reflect.Value, options any) error {
	for _, v := range f.root.Values {
		if _, null := v.Value.(*ast.NullNode); null {
			continue
		}
		for _, yf := range yamlFields(into.Type()) {
			if yf.name != v.Key.String() {
				continue
			}
			to := into.FieldByIndex(yf.index).Addr()
			if yf.name == "options" {
				to = reflect.ValueOf(options)
			}
			if err := f.value(v.Value, to, yf.name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *Assist) place(err error) error {
	var fe *FieldError
	if r.origin == nil || !errors.As(err, &fe) {
		return err
	}
	return blame(r.origin, fe)
}

// YAML returns the recipe as a file that [ParseAssist] reads to the same recipe.
func (r *Assist) YAML() []byte {
	b, err := yaml.Marshal(r)
	if err != nil {
		panic("recipe: " + err.Error()) // plain values only
	}
	return b
}

func (r *Assist) validate() error {
	switch {
	case r.Version != Version:
		return fieldf("version", "%d; this program reads version %d", r.Version, Version)
	case r.Rounds < 1:
		return fieldf("rounds", "%d, expected 1 or more", r.Rounds)
	case r.Table.Target == "":
		return fieldf("table", "target: which column of the sponsor's table is to be predicted?")
	case !slices.Contains([]string{"", assisted.CrossEntropy, assisted.Squared, assisted.Absolute, assisted.LogCosh, assisted.Poisson}, r.Loss):
		return fieldf("loss", "%q, expected cross-entropy, squared, absolute, log-cosh or poisson", r.Loss)
	case !slices.Contains([]string{assisted.PlainKeys, assisted.HashedKeys, assisted.PrivateKeys}, r.Keys):
		return fieldf("keys", "%q, expected private, hashed or plain", r.Keys)
	case !slices.Contains([]string{"", PretestTell, PretestRequire}, r.Pretest):
		return fieldf("pretest", "%q, expected tell or require", r.Pretest)
	case r.Mixtures < 1:
		return fieldf("mixtures", "%d, expected 1 or more", r.Mixtures)
	case !(r.Quorum >= 0 && r.Quorum <= 1):
		return fieldf("quorum", "%g is outside [0, 1]", r.Quorum)
	case r.Deadline < 0:
		return fieldf("deadline", "%v is negative", r.Deadline)
	}
	if err := checkBounds(r.Bounds); err != nil {
		return err
	}
	if err := r.network(); err != nil {
		return err
	}
	if err := r.Table.Validate(); err != nil {
		return &FieldError{Field: "table", Err: err}
	}
	if err := identity.CheckName(r.Sponsor); err != nil {
		return &FieldError{Field: "sponsor", Err: err}
	}
	if _, err := r.Learner.New(); err != nil {
		return &FieldError{Field: "learner", Err: err}
	}
	names := map[string]bool{r.Sponsor: true}
	for i, o := range r.Organisations {
		field := fmt.Sprintf("organisation %d (%s): ", i+1, o.Name)
		if err := identity.CheckName(o.Name); err != nil {
			return fieldf("organisations", "%s%w", field, err)
		}
		if names[o.Name] {
			return fieldf("organisations", "%sthe name is taken", field)
		}
		names[o.Name] = true
		if err := o.Table.Validate(); err != nil {
			return fieldf("organisations", "%s%w", field, err)
		}
		if _, err := o.Learner.New(); err != nil {
			return fieldf("organisations", "%s%w", field, err)
		}
		if _, err := o.aligner(); err != nil {
			return fieldf("organisations", "%salign: %w", field, err)
		}
		switch {
		case len(o.Table.Blocks) > 0 && o.Align == "":
			return fieldf("organisations", "%stable.blocks are for rows whose key is in doubt: say with align (linear, for instance) what explains residuals while they are aligned", field)
		case len(o.Table.Blocks) > 0 && len(r.Table.Blocks) == 0:
			return fieldf("organisations", "%sits table names blocks and the sponsor's does not: table.blocks has to name the same kind of columns of both", field)
		case len(o.Table.Compare) > 0 && o.Align == "":
			return fieldf("organisations", "%stable.compare is for rows whose key is in doubt: say with align (linear, for instance) what explains residuals while they are aligned", field)
		case len(o.Table.Compare) > 0 && len(r.Table.Compare) != len(o.Table.Compare):
			return fieldf("organisations", "%sits table compares %d columns and the sponsor's %d: table.compare has to name the same kind of columns of both, in the same order", field, len(o.Table.Compare), len(r.Table.Compare))
		case !o.unlinked() && ((o.Table.Key == "") != (r.Table.Key == "") || o.Table.Key == "" && o.Table.Path != r.Table.Path):
			return fieldf("organisations", "%swithout a key in both tables nobody knows which rows belong together; name the column in table.key of both, even if it is wrong for some, or columns in which they agree in table.blocks of both, with align", field)
		}
	}
	o, err := r.options()
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(r.Organisations, func(o Organisation) bool { return o.Align != "" }); i >= 0 && !o.Leads() {
		if _, labels := o.(methods.Labeller); labels {
			return fieldf("method", "%s sends labels, and %s aligns its rows by residuals: take gal or al", r.Method, r.Organisations[i].Name)
		}
		return fieldf("options", "lead: %s aligns its rows by what is left to explain, and that is little use before the sponsor's own columns have explained their part; set lead: true", r.Organisations[i].Name)
	}
	return nil
}

// network holds a recipe to what a network that organisations share can do: nobody has a model of its own, and nobody aligns its rows.
func (r *Assist) network() error {
	o, ok := r.Options.(methods.Divider)
	if !ok {
		return nil
	}
	if err := o.Validate(); err != nil {
		return &FieldError{Field: "options", Err: err}
	}
	own := func(s *learner.Spec) error {
		if !reflect.DeepEqual(*s, learner.Spec{}) && !reflect.DeepEqual(*s, learner.Spec{Name: "linear"}) {
			return fmt.Errorf("learner: %s, but with %s an organisation's model is its part of the network's first layer: leave learner out", s.Name, r.Method)
		}
		s.Name = "linear"
		return nil
	}
	if err := own(&r.Learner); err != nil {
		return fieldf("learner", "%w", err)
	}
	for i := range r.Organisations {
		who := &r.Organisations[i]
		if err := own(&who.Learner); err != nil {
			return fieldf("organisations", "organisation %d (%s): %w", i+1, who.Name, err)
		}
		if who.Align != "" {
			return fieldf("organisations", "organisation %d (%s): align: rows are aligned to residuals, of which %s sends none; take gal", i+1, who.Name, r.Method)
		}
	}
	return nil
}

// Activations is how many columns of activations organisations tell in their turns; 0: they tell fitted values.
func (r *Assist) Activations() int {
	if o, ok := r.Options.(methods.Divider); ok {
		return o.Activations()
	}
	return 0
}

// Recomputes reports whether organisations are asked for the values of all rounds once more, after the last one.
func (r *Assist) Recomputes() bool {
	o, err := r.options()
	return err == nil && o.Recomputes()
}

// Most is how many rounds the run may have.
func (r *Assist) Most() int {
	if o, ok := r.Options.(methods.Refitter); ok {
		return o.Most(r.Rounds)
	}
	return r.Rounds
}

func (r *Assist) options() (methods.AssistedOptions, error) {
	o, ok := r.Options.(methods.AssistedOptions)
	if !ok {
		return nil, fieldf("options", "these are not the options of %s", r.Method)
	}
	return o, nil
}
