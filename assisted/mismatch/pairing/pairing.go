// Package pairing matches two files: rows of features with rows of labels, through a key that is unreliable, through blocks that a
// row's label is known to lie in, or both. It reads the tables, puts an [mismatch.Problem] to a model, and writes what came out.
package pairing

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/assisted/mismatch"
	"github.com/cohort-learning/cohort/assisted/mismatch/linkage"
	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/dataset/table"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"gonum.org/v1/gonum/mat"
)

// Spec says which files, what their columns are for, and which model explains the target.
type Spec struct {
	Features string   // file of features
	Labels   string   // file of the target; "": the same file, whose rows are the links in doubt
	Target   string   // column to match
	Task     string   // "regression", "classification", or "": classes if the target has words
	Key      string   // column of both files that links rows, or that names the rows of one file
	Blocks   []string // columns of both files in which a row and its label agree
	Compare  []string // columns of both files, such as names and dates, that agree more or less where rows belong together
	Certain  string   // column of the features that says which links are surely right
	Drop     []string // columns of the features to leave out
	Model    string   // "linear" (default), "mlp", or a learner of [learner.Names]
	Folds    int      // of cross-fitting for flexible models; 0: 5
	Seed     uint64

	Alpha            *float64 // share of wrong links, if it is known
	Bound, Unmatched float64  // see [mismatch.Options]
}

// MissingLinkError tells that nothing says which rows could belong together.
type MissingLinkError struct{}

func (MissingLinkError) Error() string {
	return "nothing says which rows of the two files could belong together: name a column of both that links them, even if it is wrong for " +
		"some rows (key), one in which a row and its label agree, such as a postcode or a day (block), or some that agree more or less, such " +
		"as names and dates of birth (compare)"
}

// Models lists the models that a [Spec] can name.
func Models() []string {
	names := []string{"linear", "mlp"}
	for _, n := range learner.Names() {
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

// Validate returns an error that says what cannot be.
func (s Spec) Validate() error {
	switch {
	case s.Features == "":
		return fmt.Errorf("which file holds the features?")
	case s.Target == "":
		return fmt.Errorf("which column is the target? Name it")
	case s.Labels != "" && s.Key == "" && len(s.Blocks) == 0 && len(s.Compare) == 0:
		return MissingLinkError{}
	case s.Labels == "" && len(s.Compare) > 0:
		return fmt.Errorf("columns are compared between two files; in one file a row agrees with itself")
	case len(s.Compare) > linkage.MostFields:
		return fmt.Errorf("%d columns to compare: %d can be", len(s.Compare), linkage.MostFields)
	case slices.Contains(s.Compare, s.Target):
		return fmt.Errorf("column %q is the target: that is not compared", s.Target)
	case s.Task != "" && s.Task != table.Regression && s.Task != table.Classification:
		return fmt.Errorf("task %q: expected %s or %s", s.Task, table.Regression, table.Classification)
	case s.Model != "" && !slices.Contains(Models(), s.Model):
		return fmt.Errorf("there is no model %q; there are %s", s.Model, strings.Join(Models(), ", "))
	case s.Folds < 0 || s.Folds == 1:
		return fmt.Errorf("%d folds: at least 2 are needed", s.Folds)
	}
	return s.options().Validate()
}

func (s Spec) options() mismatch.Options {
	return mismatch.Options{Alpha: s.Alpha, Bound: s.Bound, Unmatched: s.Unmatched, Pair: true}
}

// Outcome is what is known of the links.
type Outcome struct {
	*mismatch.Result
	Task      string
	Classes   []string // of a classification
	Rows      []Row
	Labels    int // that have a target
	Blocks    int
	Left      int     // rows of labels without a target
	Refused   int     // links by key between rows of different blocks
	Doubted   int     // given links less likely right than wrong
	Explained float64 // 1 − σ̂²/s²: how much of a numeric target the model explains along the plan
	// Linkage is what the compared columns are worth, nil if there are none.
	Linkage *linkage.Model
}

// Row is what is known of a row of features.
type Row struct {
	Line  int    // in the file
	Key   string // its key, or its number from 1
	Block string
	Given string  // label that it came with, "" for none
	Link  float64 // probability that this is its own
	Mean  float64 // its label in expectation; of a classification the probability of Best
	Best  string  // likeliest class; "" for numbers
	Pair  string  // label of the hard pairing, "" for none
	From  int     // line of that label, 0 for none
	Mass  float64 // probability that it has a label at all
	// Bits is what the compared columns say of the given label, log₂ of how much likelier they make it; 0 without one.
	Bits float64
}

// side is one file, read for linking.
type side struct {
	rows    []int // by row of use: line
	keys    []string
	blocks  []string
	target  []string
	certain []bool
	compare [][]string // by row: values of the compared columns
}

// Match reads the files and matches them. Engine opens the engine of networks; it is asked only if the model is one.
func Match(ctx context.Context, s Spec, engine func() (*train.Engine, error)) (*Outcome, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	t, err := s.features()
	if err != nil {
		return nil, err
	}
	left, err := s.side(s.Features, t.Lines, s.Labels == "")
	if err != nil {
		return nil, err
	}
	left.keys = t.Keys
	right := left
	if s.Labels != "" {
		if right, err = s.side(s.Labels, nil, true); err != nil {
			return nil, err
		}
	}
	labels, err := s.readLabels(right)
	if err != nil {
		return nil, err
	}
	o := &Outcome{Task: labels.task, Classes: labels.classes, Labels: len(labels.at), Left: len(right.rows) - len(labels.at)}
	p, err := s.problem(left, right, labels, o)
	if err != nil {
		return nil, err
	}
	if err := s.compare(left, right, labels, &p, o); err != nil {
		return nil, err
	}
	m, options, finish, err := s.model(t.Features, labels, engine)
	if err != nil {
		return nil, err
	}
	defer finish()
	if o.Result, err = mismatch.Fit(ctx, p, m, options); err != nil {
		return nil, err
	}
	o.describe(left, right, labels, p)
	return o, nil
}

// features reads the features' table, without the columns that have another use.
func (s Spec) features() (*table.Table, error) {
	g, err := dataset.OpenGrid(s.Features, "")
	if err != nil {
		return nil, err
	}
	drop := slices.Concat(s.Drop, s.Blocks, s.Compare)
	if s.Key != "" {
		drop = slices.DeleteFunc(drop, func(name string) bool { return name == s.Key }) // it names rows, and may be compared as well
	}
	if s.Certain != "" {
		drop = append(drop, s.Certain)
	}
	if slices.Contains(g.Names(), s.Target) || s.Labels == "" {
		drop = append(drop, s.Target)
	}
	slices.Sort(drop)
	return table.Open(table.Spec{Path: s.Features, Key: s.Key, Drop: slices.Compact(drop)}, nil)
}

// side reads the columns of a file that are for linking. Lines are the rows of use, nil for all.
func (s Spec) side(path string, lines []int, target bool) (*side, error) {
	g, err := dataset.OpenGrid(path, "")
	if err != nil {
		return nil, err
	}
	column := func(name string) (int, error) {
		if name == "" {
			return -1, nil
		}
		return g.Column(name)
	}
	wanted := ""
	if target {
		wanted = s.Target
	}
	y, err := column(wanted)
	if err != nil {
		return nil, err
	}
	key, err := column(s.Key)
	if err != nil {
		return nil, err
	}
	certain := -1
	if path == s.Features {
		if certain, err = column(s.Certain); err != nil {
			return nil, err
		}
	}
	several := func(names []string) (all []int, err error) {
		for _, name := range names {
			c, err := g.Column(name)
			if err != nil {
				return nil, err
			}
			all = append(all, c)
		}
		return all, nil
	}
	blocks, err := several(s.Blocks)
	if err != nil {
		return nil, err
	}
	compared, err := several(s.Compare)
	if err != nil {
		return nil, err
	}
	of := &side{}
	seen := map[string]int{}
	err = g.Rows(func(line int, cells []string) error {
		if lines != nil && (len(of.rows) >= len(lines) || lines[len(of.rows)] != line) {
			return nil
		}
		var block []string
		for _, c := range blocks {
			v := strings.TrimSpace(cells[c])
			if v == "" {
				return g.Errorf(line, c, "the row has no block; complete it, or take the row out")
			}
			block = append(block, strings.Clone(v))
		}
		var values []string
		for _, c := range compared {
			v := ""
			if _, kind := dataset.ReadCell(strings.TrimSpace(cells[c])); kind != dataset.Missing {
				v = linkage.Normal(cells[c])
			}
			values = append(values, v)
		}
		of.compare = append(of.compare, values)
		of.rows = append(of.rows, line)
		of.blocks = append(of.blocks, strings.Join(block, " / "))
		k := fmt.Sprint(len(of.rows))
		if key >= 0 {
			if k = strings.Clone(strings.TrimSpace(cells[key])); k == "" && lines == nil {
				return g.Errorf(line, key, "the key is missing; complete the row, or link by block")
			}
			if before, twice := seen[k]; twice && lines == nil {
				return g.Errorf(line, key, "key %.60q stands in line %d already; a key that is not unique can be a block", k, before)
			}
			seen[k] = line
		}
		of.keys = append(of.keys, k)
		if y >= 0 {
			of.target = append(of.target, strings.Clone(strings.TrimSpace(cells[y])))
		}
		if certain >= 0 {
			switch strings.ToLower(strings.TrimSpace(cells[certain])) {
			case "1", "true", "yes":
				of.certain = append(of.certain, true)
			case "0", "false", "no", "":
				of.certain = append(of.certain, false)
			default:
				return g.Errorf(line, certain, "%.40q does not say whether the link is certain; expected 1, true, yes or 0, false, no", cells[certain])
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(of.rows) == 0 {
		return nil, fmt.Errorf("%s: the table has no rows", path)
	}
	return of, nil
}

// labels are the rows of the labels' side that have a target.
type labels struct {
	task    string
	classes []string
	at      []int // places in the side
	of      []int // by place in the side: place in at, −1 without target
	numbers []float64
	class   []int
}

func (s Spec) readLabels(of *side) (*labels, error) {
	l := &labels{task: s.Task, of: make([]int, len(of.rows))}
	words := 0
	for i, text := range of.target {
		_, kind := dataset.ReadCell(text)
		l.of[i] = -1
		if kind == dataset.Missing {
			continue
		}
		if kind == dataset.Word {
			words++
		}
		l.of[i] = len(l.at)
		l.at = append(l.at, i)
	}
	if l.task == "" {
		if l.task = table.Regression; words > 0 {
			l.task = table.Classification
		}
	}
	for _, i := range l.at {
		v, kind := dataset.ReadCell(of.target[i])
		if l.task == table.Regression {
			if kind == dataset.Word {
				return nil, fmt.Errorf("line %d: the target of a regression must be a number, not %.40q", of.rows[i], of.target[i])
			}
			l.numbers = append(l.numbers, v)
			continue
		}
		if !slices.Contains(l.classes, of.target[i]) {
			if l.classes = append(l.classes, of.target[i]); len(l.classes) > 1000 {
				return nil, fmt.Errorf("target %q has more than 1000 classes; is it a quantity? Then say that the task is regression", s.Target)
			}
		}
	}
	slices.Sort(l.classes)
	if l.task == table.Classification {
		for _, i := range l.at {
			c, _ := slices.BinarySearch(l.classes, of.target[i])
			l.class = append(l.class, c)
		}
	}
	return l, nil
}

// problem links rows and labels.
func (s Spec) problem(left, right *side, l *labels, o *Outcome) (mismatch.Problem, error) {
	p := mismatch.Problem{Classes: l.class, Count: len(l.classes), Certain: left.certain}
	if len(l.at) == 0 {
		return p, fmt.Errorf("column %q holds no value: there is nothing to match", s.Target)
	}
	if l.numbers != nil {
		p.Y = mat.NewDense(len(l.numbers), 1, l.numbers)
	}
	names := map[string]int{}
	number := func(block string) int {
		if _, ok := names[block]; !ok {
			names[block] = len(names)
		}
		return names[block]
	}
	for _, b := range left.blocks {
		p.Blocks = append(p.Blocks, number(b))
	}
	for _, i := range l.at {
		p.LabelBlocks = append(p.LabelBlocks, number(right.blocks[i]))
	}
	o.Blocks = len(names)
	byKey := map[string]int{}
	for i, k := range right.keys {
		byKey[k] = i
	}
	for i := range left.rows {
		own := -1
		switch from, found := byKey[left.keys[i]]; {
		case s.Labels == "":
			own = l.of[i]
		case s.Key == "" || !found || l.of[from] < 0:
		case right.blocks[from] != left.blocks[i]:
			o.Refused++
		default:
			own = l.of[from]
		}
		if own < 0 && left.certain != nil && left.certain[i] {
			return p, fmt.Errorf("line %d: the link is said to be certain, but the row has no label by its key", left.rows[i])
		}
		p.Own = append(p.Own, own)
	}
	return p, nil
}

// compare adds to the problem what the compared columns say of links.
func (s Spec) compare(left, right *side, l *labels, p *mismatch.Problem, o *Outcome) error {
	if len(s.Compare) == 0 {
		return nil
	}
	records := make([][]string, len(l.at))
	for j, at := range l.at {
		records[j] = right.compare[at]
	}
	pairs, err := linkage.Compare(linkage.Table{Records: left.compare, Blocks: p.Blocks}, linkage.Table{Records: records, Blocks: p.LabelBlocks})
	if err != nil {
		return fmt.Errorf("comparing %s: %w", strings.Join(s.Compare, ", "), err)
	}
	o.Linkage = pairs.Estimate()
	p.Evidence = pairs.Evidence(o.Linkage, p.Own)
	return nil
}

// describe fills the rows in.
func (o *Outcome) describe(left, right *side, l *labels, p mismatch.Problem) {
	mean, variance := 0.0, 0.0
	for _, v := range l.numbers {
		mean += v / float64(len(l.numbers))
	}
	for _, v := range l.numbers {
		variance += (v - mean) * (v - mean) / float64(len(l.numbers))
	}
	if l.numbers != nil {
		o.Explained = 1 - o.Noise/variance
	}
	for i, line := range left.rows {
		r := Row{Line: line, Key: left.keys[i], Block: left.blocks[i], Link: o.Linked[i], Mass: o.Weight[i]}
		if j := p.Own[i]; j >= 0 {
			r.Given = right.target[l.at[j]]
			if p.Evidence != nil {
				r.Bits = p.Evidence.Of(i, j) / math.Ln2
			}
			if r.Link < .5 {
				o.Doubted++
			}
		}
		if j := o.Pair[i]; j >= 0 {
			r.Pair, r.From = right.target[l.at[j]], right.rows[l.at[j]]
		}
		soft := o.Soft.RawRowView(i)
		r.Mean = soft[0]
		if l.classes != nil {
			best := 0
			for c, v := range soft {
				if v > soft[best] {
					best = c
				}
			}
			r.Best, r.Mean = l.classes[best], math.Min(1, soft[best])
		}
		o.Rows = append(o.Rows, r)
	}
}

// model makes what explains the target, with the rounds that suit it, and what frees it.
func (s Spec) model(raw *mat.Dense, l *labels, engine func() (*train.Engine, error)) (m mismatch.Model, o mismatch.Options, finish func(), err error) {
	o, finish = s.options(), func() {}
	n, _ := raw.Dims()
	folds := s.Folds
	if folds == 0 {
		folds = 5
	}
	stream := func(purpose string) *rng.Stream { return rng.New(s.Seed, 0, "", "match "+purpose) }
	classes := l.task == table.Classification
	switch {
	case s.Model == "mlp" || classes && (s.Model == "" || s.Model == "linear"):
		return s.network(raw, l, folds, o, stream, engine)
	case s.Model == "" || s.Model == "linear":
		m, err = mismatch.NewLinear(mismatch.Complete(raw, true), true, 1e-6)
		return m, o, finish, err
	case classes:
		return nil, o, finish, fmt.Errorf("classes are matched with the models linear and mlp, not %q", s.Model)
	}
	of, err := learner.Spec{Name: s.Model}.New()
	if err != nil {
		return nil, o, finish, err
	}
	o.Warm, o.Mixture, o.Rounds = mismatch.FlexibleWarm, mismatch.FlexibleMixture, mismatch.FlexibleRounds
	x := mismatch.Complete(raw, false)
	m, err = mismatch.NewCrossFit(n, folds, stream("folds"), func(f int) (mismatch.Model, error) {
		return mismatch.NewLearned(of, x, stream(fmt.Sprint("fold ", f))), nil
	})
	return m, o, finish, err
}

// network makes softmax regression, or perceptrons that are cross-fitted.
func (s Spec) network(raw *mat.Dense, l *labels, folds int, o mismatch.Options, stream func(string) *rng.Stream,
	engine func() (*train.Engine, error)) (mismatch.Model, mismatch.Options, func(), error) {
	nothing := func() {}
	e, err := engine()
	if err != nil {
		return nil, o, nothing, err
	}
	classes := l.task == table.Classification
	outputs := 1
	if classes {
		outputs = len(l.classes)
	}
	x := mismatch.Complete(raw, true)
	n, d := x.Dims()
	name, config := "linear", nn.Config{Input: []int{d}, Classes: outputs}
	learn := mismatch.Training{Epochs: 20, Rate: .02}
	o.Warm, o.Mixture, o.Rounds = 2, 10, 20
	if s.Model == "mlp" {
		name, config.Hidden = "mlp", []int{64, 64}
		learn = mismatch.Training{Epochs: 25, Rate: .005, Fresh: true}
		o.Warm, o.Mixture, o.Rounds = 1, 3, 8
	}
	build, err := nn.New(name, config)
	if err != nil {
		return nil, o, nothing, err
	}
	arch, err := build(1)
	if err != nil {
		return nil, o, nothing, err
	}
	var all []*mismatch.Neural
	one := func(f int) (mismatch.Model, error) {
		m, err := mismatch.NewNeural(e, arch, mismatch.Rows(s.Features, x), classes, learn, stream(fmt.Sprint("network ", f)))
		if err != nil {
			return nil, err
		}
		all = append(all, m)
		return m, nil
	}
	finish := func() {
		for _, m := range all {
			m.Close()
		}
	}
	var m mismatch.Model
	if s.Model == "mlp" {
		m, err = mismatch.NewCrossFit(n, folds, stream("folds"), one)
	} else {
		m, err = one(0)
	}
	return m, o, finish, err
}
