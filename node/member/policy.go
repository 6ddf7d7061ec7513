package member

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/methods"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/secure/dp"
	dpledger "github.com/cohort-learning/cohort/secure/dp/ledger"
	"github.com/goccy/go-yaml"
)

// PolicyName is the file of the policy in a member's folder.
const PolicyName = "policy.yaml"

// Policy is what the owner of the data allows. A run whose terms go beyond it is declined, with all reasons.
type Policy struct {
	Methods     []string `yaml:"methods"`
	Rounds      int      `yaml:"rounds"`
	Epochs      int      `yaml:"epochs"`
	Steps       int      `yaml:"steps"`
	Batch       int      `yaml:"batch"`
	Hours       Hours    `yaml:"hours"`
	Metrics     bool     `yaml:"metrics"`
	Reasons     bool     `yaml:"reasons"`
	Upload      Size     `yaml:"upload"`
	Download    Size     `yaml:"download"`
	Exec        bool     `yaml:"exec"`
	Model       bool     `yaml:"model"`
	Noise       float64  `yaml:"noise"`
	Epsilon     float64  `yaml:"epsilon"`
	Delta       float64  `yaml:"delta"`
	Overrun     Overrun  `yaml:"overrun"`
	Secure      bool     `yaml:"secure"`
	Items       bool     `yaml:"items"`
	Vectors     int      `yaml:"vectors"`
	Answers     int      `yaml:"answers"`
	Mixtures    int      `yaml:"mixtures"`
	Activations bool     `yaml:"activations"`
	Blur        float64  `yaml:"blur"`
}

// Overrun says what becomes of a run all of whose rounds together would cost more than the budget.
type Overrun string

// The ways.
const (
	OverrunRefuse Overrun = "refuse" // it is declined
	OverrunStop   Overrun = "stop"   // it is taken part in until the budget is spent
)

// Budget is the limit that the policy sets to what the data may spend.
func (p Policy) Budget() dpledger.Budget {
	if p.Epsilon == 0 {
		return dpledger.Budget{}
	}
	return dpledger.Budget{Epsilon: p.Epsilon, Delta: p.Delta}
}

// policyText is the file that a member begins with; reading it gives [DefaultPolicy].
const policyText = `# What this member takes part in. Only you change this file; the coordinator never sees it.
# A run that asks for more is declined, and told why.

methods: []        # methods that may be run here, e.g. [fedavg, heterofl]; none named: all
rounds: 0          # most rounds of a run; 0: any number
epochs: 100        # most passes over your data in one round; 0: any number
steps: 100000      # most training steps in one round; 0: any number
batch: 0           # most examples of one step; 0: any number
hours: ""          # when this machine computes, in local time, e.g. "22:00-06:30" or "12-13, 19-7"; empty: always
metrics: true      # whether numbers beside the model may leave, such as the sum of training losses (the terms name them)
reasons: true      # whether the coordinator is told, in one line, why a task failed here
upload: 0          # most bytes that leave in a day, e.g. 500MB; 0: no limit
download: 16GB     # most bytes of one task; 0: no limit
exec: false        # whether "cohort join --exec" may start your own program for training
model: true        # whether the final model is fetched at the end of a run
secure: false      # true: only runs in which the coordinator learns nothing but sums of many members
items: false       # whether a coordinator may learn which items your users have rated (cohort join --disclose-items)
vectors: 1000      # most columns of residuals that are fitted, or of activations that are told, over all runs: what is known of your columns grows with each; 0: any number
activations: false # whether a network that organisations share may have what its first layer makes of your columns: who gets it knows them but for a linear map
answers: 1000000   # most rows that predictions are given for, over all runs, besides those of training; 0: any number
mixtures: 0        # most random mixtures of your columns that are told, once a run, to test whether your assistance is worth while; 0: none
blur: 0            # scale of Laplace noise on each number of these mixtures, of columns scaled to 0…1
noise: 0           # least noise multiplier of a run's differential privacy; 0: runs without noise too
epsilon: 0         # what all private runs on your data may cost together; 0: as the privacy ledger says
delta: 1e-5        # with which probability they may cost more than epsilon
overrun: refuse    # a run that may cost more than is left: refuse it, or stop when the budget is spent
`

// DefaultPolicy is the policy that a member begins with.
func DefaultPolicy() Policy {
	return Policy{Epochs: 100, Steps: 100_000, Metrics: true, Reasons: true, Download: 16e9, Model: true, Delta: dpledger.DefaultDelta, Overrun: OverrunRefuse,
		Vectors: 1000, Answers: 1_000_000}
}

// ParsePolicy reads a policy; file is its name in errors. Fields that it leaves out have their default. Every error is a
// [*recipe.Error] with line and column.
func ParsePolicy(file string, text []byte) (p Policy, err error) {
	p = DefaultPolicy()
	defer func() {
		if r := recover(); r != nil { // the YAML library panics on some malformed input
			p, err = Policy{}, &recipe.Error{File: file, Message: fmt.Sprintf("not valid YAML: %v", r)}
		}
	}()
	if len(text) > 1<<20 {
		return Policy{}, &recipe.Error{File: file, Message: fmt.Sprintf("%d bytes; a policy has a few hundred", len(text))}
	}
	if err := yaml.UnmarshalWithOptions(text, &p, yaml.Strict()); err != nil {
		return Policy{}, placed(file, err)
	}
	if err := p.validate(); err != nil {
		return Policy{}, &recipe.Error{File: file, Message: err.Error()}
	}
	return p, nil
}

// placed turns an error of the YAML library into one with a place.
func placed(file string, err error) error {
	e := &recipe.Error{File: file, Message: err.Error(), Err: err}
	var unknown *yaml.UnknownFieldError
	var y yaml.Error
	if errors.As(err, &y) {
		e.Message = y.GetMessage()
		if t := y.GetToken(); t != nil {
			e.Line, e.Column = t.Position.Line, t.Position.Column
		}
	}
	if errors.As(err, &unknown) {
		e.Field = unknown.GetToken().Value
		e.Message = "there is no such field"
		if near := recipe.Nearest(e.Field, policyFields); near != "" {
			e.Message += fmt.Sprintf(" (did you mean %q?)", near)
		}
		e.Message += "; the fields are " + strings.Join(policyFields, ", ")
	}
	return e
}

var policyFields = []string{"activations", "answers", "batch", "blur", "delta", "download", "epochs", "epsilon", "exec", "hours", "items", "methods", "metrics", "mixtures", "model", "noise", "overrun", "reasons", "rounds",
	"secure", "steps", "upload", "vectors"}

func (p Policy) validate() error {
	for _, m := range p.Methods {
		if _, err := methods.Find(m); err != nil && !slices.Contains(assisted.Methods(), m) {
			return fmt.Errorf("methods: %w", err)
		}
	}
	for _, n := range []struct {
		name  string
		value int
	}{{"rounds", p.Rounds}, {"epochs", p.Epochs}, {"steps", p.Steps}, {"batch", p.Batch}, {"vectors", p.Vectors}, {"answers", p.Answers}, {"mixtures", p.Mixtures}} {
		if n.value < 0 {
			return fmt.Errorf("%s: %d is negative", n.name, n.value)
		}
	}
	switch {
	case !(p.Blur >= 0) || math.IsInf(p.Blur, 1):
		return fmt.Errorf("blur: %v, expected a scale of noise, or 0 for none", p.Blur)
	case !(p.Noise >= 0) || math.IsInf(p.Noise, 1):
		return fmt.Errorf("noise: %v, expected a noise multiplier, or 0 for any", p.Noise)
	case !(p.Epsilon >= 0) || math.IsInf(p.Epsilon, 1):
		return fmt.Errorf("epsilon: %v, expected a positive number, or 0 for the budget of the ledger", p.Epsilon)
	case !(p.Delta > 0 && p.Delta < 1):
		return fmt.Errorf("delta: %v, expected a probability between 0 and 1", p.Delta)
	case p.Overrun != OverrunRefuse && p.Overrun != OverrunStop:
		return fmt.Errorf("overrun: %.40q, expected %s or %s", string(p.Overrun), OverrunRefuse, OverrunStop)
	}
	return nil
}

// LoadPolicy reads the policy in a member's folder, and writes the default one first if there is none.
func LoadPolicy(dir string) (Policy, error) {
	path := filepath.Join(dir, PolicyName)
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		text = []byte(policyText)
		err = writeNew(path, text)
	}
	if err != nil {
		return Policy{}, fmt.Errorf("policy of the member: %w", err)
	}
	return ParsePolicy(path, text)
}

// Check holds the terms of a run against the policy and returns every reason to decline, none if it may be agreed to.
func (p Policy) Check(run Proposal) []string {
	var no []string
	refuse := func(format string, args ...any) { no = append(no, fmt.Sprintf(format, args...)) }
	if len(p.Methods) > 0 && !slices.Contains(p.Methods, run.Method()) {
		refuse("the method is %s; allowed are %s", run.Method(), strings.Join(p.Methods, ", "))
	}
	limit := func(what string, value, most int) {
		if most > 0 && value > most {
			refuse("%d %s; allowed are at most %d", value, what, most)
		}
	}
	limit("rounds", run.Rounds(), p.Rounds)
	if p.Secure && !run.masked() {
		what := "updates"
		if run.Assist != nil {
			what = "answers"
		}
		refuse("the run has no secure sums: the coordinator would see this member's %s", what)
	}
	if !p.Metrics && len(run.Terms.Metrics) > 0 {
		refuse("the run asks for %s; no numbers beside the model may leave", strings.Join(run.Terms.Metrics, ", "))
	}
	if run.Assist != nil {
		what := "columns of residuals to fit"
		if run.Assist.Assist == assisted.Sharing {
			what = "columns of activations to tell"
			if !p.Activations {
				refuse("the coordinator would get what the first layer of a shared network makes of this member's columns, which tells them but for a linear map; allow it with activations: true in " + PolicyName)
			}
		}
		limit(what, run.Assist.Vectors, p.Vectors)
		return no
	}
	r := run.Recipe
	limit("epochs a round", r.Train.Epochs, p.Epochs)
	limit("steps a round", r.Train.Steps, p.Steps)
	switch {
	case p.Batch > 0 && r.Train.Batch == 0:
		refuse("all examples in one step; allowed are at most %d", p.Batch)
	default:
		limit("examples a step", r.Train.Batch, p.Batch)
	}
	if r.DisclosesItems() && !p.Items {
		refuse("the coordinator would learn which items the users of this member have rated: rows of these items come back changed, and no others; allow it with --disclose-items, or ask for secure sums")
	}
	return no
}

// CheckPrivacy holds what a run announces about its privacy, nil for nothing, against the policy, like [Policy.Check].
func (p Policy) CheckPrivacy(t *dp.Terms) []string {
	switch {
	case p.Noise == 0:
		return nil
	case t == nil:
		return []string{fmt.Sprintf("the run has no differential privacy; allowed is a noise multiplier of %v or more", p.Noise)}
	case t.Noise < p.Noise:
		return []string{fmt.Sprintf("the noise multiplier is %v; allowed is %v or more", t.Noise, p.Noise)}
	}
	return nil
}

// Size is a number of bytes, written as 500MB or 2GiB in a file.
type Size int64

var units = []struct {
	name  string
	bytes float64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}}

// UnmarshalYAML implements [yaml.BytesUnmarshaler].
func (s *Size) UnmarshalYAML(b []byte) error {
	text := unquote(b)
	number, scale := text, 1.0
	for _, u := range units {
		if n, ok := strings.CutSuffix(text, u.name); ok {
			number, scale = strings.TrimSpace(n), u.bytes
			break
		}
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || !(v >= 0) || v*scale >= math.MaxInt64 {
		return fmt.Errorf("%q is no size; expected one such as 500MB, or 0 for no limit", text)
	}
	*s = Size(v * scale)
	return nil
}

func unquote(b []byte) string {
	text := strings.TrimSpace(string(b))
	if len(text) >= 2 && (text[0] == '"' || text[0] == '\'') && text[len(text)-1] == text[0] {
		text = text[1 : len(text)-1]
	}
	return strings.TrimSpace(text)
}

// Hours are times of the day; the zero value is all of it.
type Hours struct{ spans []span }

// span is from a minute of the day to before another; it goes over midnight if the first is later.
type span struct{ from, to int }

// UnmarshalYAML implements [yaml.BytesUnmarshaler].
func (h *Hours) UnmarshalYAML(b []byte) error {
	spans, err := parseHours(unquote(b))
	h.spans = spans
	return err
}

func parseHours(text string) ([]span, error) {
	if text == "" || text == "null" {
		return nil, nil
	}
	var spans []span
	for part := range strings.SplitSeq(text, ",") {
		a, b, ok := strings.Cut(part, "-")
		from, err1 := minute(a)
		to, err2 := minute(b)
		if !ok || err1 != nil || err2 != nil || from == to {
			return nil, fmt.Errorf("%q is no time of the day; expected one such as \"22:00-06:30\" or \"12-13, 19-7\"", strings.TrimSpace(part))
		}
		spans = append(spans, span{from, to})
	}
	return spans, nil
}

func minute(text string) (int, error) {
	hour, min, found := strings.Cut(strings.TrimSpace(text), ":")
	h, err := strconv.Atoi(hour)
	if err != nil {
		return 0, err
	}
	m := 0
	if found {
		if m, err = strconv.Atoi(min); err != nil || len(min) != 2 {
			return 0, errors.New("minutes")
		}
	}
	if h < 0 || m < 0 || m > 59 || h*60+m > 24*60 {
		return 0, errors.New("no time of the day")
	}
	return h*60 + m, nil
}

// Wait returns how long it is until the next moment within the hours: 0 within them.
func (h Hours) Wait(now time.Time) time.Duration {
	if len(h.spans) == 0 {
		return 0
	}
	at := now.Hour()*60 + now.Minute()
	best := 24 * 60
	for _, s := range h.spans {
		if inside := s.from <= at && at < s.to; inside || s.from > s.to && (at >= s.from || at < s.to) {
			return 0
		}
		best = min(best, (s.from-at+24*60)%(24*60))
	}
	return time.Duration(best)*time.Minute - time.Duration(now.Second())*time.Second - time.Duration(now.Nanosecond())
}
