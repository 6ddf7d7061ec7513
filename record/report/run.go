package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/record"
)

// Metrics is where a report takes its numbers from; a [record.Metrics] is one.
type Metrics interface {
	Names() ([]string, error)
	Keys(name string) ([]string, error)
	Series(name, key string) ([]record.Point, error)
	Failures() ([]record.Failure, error)
}

var _ Metrics = (*record.Metrics)(nil)

// A Run is what is known of a run. Everything but Meta and Metrics may be left
// out.
type Run struct {
	Meta     record.Meta
	Title    string // the run's ID if empty
	Subtitle string
	Metrics  Metrics
	Settings []Fact // in the recipe's words

	Levels    []Level     // of clients' models, largest first
	Partition []byte      // PNG of the client × class heat map
	Updates   []Histogram // how often coordinates were updated, per level
	Workers   []Worker    // machines that were lent to it
	Bounds    Table       // what the outcome is compared with
	Digest    string      // SHA-256 of the final model
	Among     bool        // the run is one of organisations with columns of their own: there is no global model, and there are no clients
}

// A Worker is a machine that was lent to the run.
type Worker struct {
	Name           string
	Threads        int
	Clients        int   // answers that came from it
	Given          int   // tasks that it was lost with
	Sent, Received int64 // bytes to it and from it
}

// A Level is a size of model.
type Level struct {
	Name    string
	Rate    float64 // width, as a fraction of the full model's
	Clients int
	Params  int64
	FLOPs   float64 // of a forward pass of one example
	Bytes   int64   // of its weights
}

// A Histogram counts the coordinates of a level's model by how often they were
// updated. Bin i reaches from Edges[i] to Edges[i+1].
type Histogram struct {
	Level  string
	Edges  []float64
	Counts []float64
}

// known are the metrics with a place of their own in the report.
var known = []struct {
	name, title, label string
	unit               Unit
}{
	{"accuracy", "Accuracy on the test set", "accuracy", Percent},
	{"accuracy.local", "Accuracy on the clients’ own test data", "accuracy", Percent},
	{"accuracy.local.mean", "Mean of the clients’ own accuracies", "accuracy", Percent},
	{"accuracy.local.worst", "Mean over the worst tenth of the clients", "accuracy", Percent},
	{"accuracy.personal", "Accuracy of the clients’ own models on their own test data", "accuracy", Percent},
	{"accuracy.personal.mean", "Mean of the accuracies of the clients’ own models", "accuracy", Percent},
	{"accuracy.personal.worst", "Mean over the worst tenth of the clients’ own models", "accuracy", Percent},
	{"auroc", "Area under the ROC curve on the test set", "AUROC", Plain},
	{"rmse", "Root mean square error on the test set", "RMSE", Plain},
	{"mad", "Mean absolute error on the test set", "MAD", Plain},
	{"loss", "Loss on the test set", "loss (nats)", Plain},
	{"loss.local", "Loss on the clients’ own test data", "loss (nats)", Plain},
	{"loss.personal", "Loss of the clients’ own models on their own test data", "loss (nats)", Plain},
	{"loss.train", "Training loss", "loss (nats)", Plain},
	{"perplexity", "Perplexity", "perplexity", Plain},
	{"loss.held", "Loss on held-out rows", "loss", Plain},
	{"weight", "Weight of each organisation", "weight", Plain},
	{"rate", "Learning rate", "rate", Plain},
	{"rate.capped", "Rounds whose rate stopped at its cap", "1 if it did", Plain},
	{"contribution", "Rise of the loss without an organisation", "loss", Plain},
	{"shapley", "What each organisation contributes (Shapley value)", "loss", Plain},
	{"away", "Rise of the loss where who is away predicts nothing, either", "loss", Plain},
	{"links.wrong", "Links by key that seem wrong", "of the links", Percent},
	{"label-recovery", "Labels that all that is planned to be sent would tell", "of the labels", Percent},
	{"pseudo.accepted", "Pseudo-labels that were accepted", "of the clients’ examples", Percent},
	{"pseudo.accepted.accuracy", "Accepted pseudo-labels that are right", "of the accepted", Percent},
	{"pseudo.accuracy", "Pseudo-labels that are right, accepted or not", "of all", Percent},
	{"epsilon", "Privacy spent", "ε so far", Plain},
	{"clip", "Bound of updates", "L2 norm", Plain},
	{"secure.members", "Clients in a secure sum", "clients", Plain},
	{"secure.sent", "Part of the model that enough clients held", "part", Percent},
	{"bytes.up", "Sent by clients", "bytes per round", Bytes},
	{"bytes.down", "Sent to clients", "bytes per round", Bytes},
	{"bytes.protocol", "Keys, shares and lists of secure sums", "bytes per round", Bytes},
	{"flops", "Computed by clients", "operations per round", FLOP},
}

// The first learned of them tell what was learned; those up to guarded tell how clients were protected, the rest what it cost.
var learned, guarded = rank("epsilon"), rank("bytes.up")

// among are the words for metrics of runs among organisations, where they are others.
var among = map[string]struct{ title, label string }{
	"accuracy":   {"Accuracy on the rows to test on", "accuracy"},
	"auroc":      {"Area under the ROC curve on the rows to test on", "AUROC"},
	"rmse":       {"Root mean square error on the rows to test on", "RMSE"},
	"mad":        {"Mean absolute error on the rows to test on", "MAD"},
	"loss":       {"Loss on the rows to test on", "loss"},
	"loss.train": {"Loss on the rows to fit", "loss"},
	"bytes.up":   {"Sent by organisations", "bytes per round"},
	"bytes.down": {"Sent to organisations", "bytes per round"},
	"flops":      {"Computed by organisations", "operations per round"},
	"clients":    {"Organisations that answered", "organisations"},
}

// who is what whoever takes part is called.
func (r Run) who() (one, many, capital string) {
	if r.Among {
		return "organisation", "organisations", "Organisations"
	}
	return "client", "clients", "Clients"
}

// Report lays the run out on a page.
func (r Run) Report() (Report, error) {
	names, err := r.Metrics.Names()
	if err != nil {
		return Report{}, fmt.Errorf("report of %s: %w", r.Meta.ID, err)
	}
	failures, err := r.Metrics.Failures()
	if err != nil {
		return Report{}, fmt.Errorf("report of %s: %w", r.Meta.ID, err)
	}
	if r.Among { // of phases in which rows are told and the like
		names = slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, "clients.") })
	}
	charts := make(map[string]Chart)
	for _, name := range names {
		if charts[name], err = r.chart(name); err != nil {
			return Report{}, fmt.Errorf("report of %s: %w", r.Meta.ID, err)
		}
	}
	rep := Report{
		Title:      r.Title,
		Subtitle:   r.Subtitle,
		Highlights: r.highlights(charts, failures),
		Settings:   r.Settings,
		Provenance: r.provenance(),
	}
	if rep.Title == "" {
		rep.Title = r.Meta.ID
	}
	if rep.Subtitle == "" {
		rep.Subtitle = strings.TrimSpace(fmt.Sprintf("%s, seed %d, %s", r.Meta.Method, r.Meta.Seed, r.Meta.State))
	}
	var curves, guards, costs, others []Chart
	for i, k := range known {
		c, ok := charts[k.name]
		switch {
		case !ok:
		case i < learned:
			curves = append(curves, c)
		case i < guarded:
			guards = append(guards, c)
		default:
			costs = append(costs, c)
		}
		delete(charts, k.name)
	}
	for _, name := range names {
		if c, ok := charts[name]; ok && !c.idle() {
			others = append(others, c)
		}
	}
	add := func(s Section, some bool) {
		if some {
			rep.Sections = append(rep.Sections, s)
		}
	}
	add(Section{Title: "What was learned", Charts: curves}, len(curves) > 0)
	add(Section{Title: "What it is compared with", Tables: []Table{r.Bounds}}, len(r.Bounds.Rows) > 0)
	add(r.levels(curves), len(r.Levels) > 0)
	add(Section{Title: "Who holds what", Images: []Image{{Name: "partition", Title: "Examples of each class at each client", PNG: r.Partition}}}, r.Partition != nil)
	_, many, _ := r.who()
	add(Section{Title: "What protected the " + many, Charts: guards}, len(guards) > 0)
	add(Section{Title: "What it cost", Charts: costs}, len(costs) > 0)
	add(lent(r.Workers), len(r.Workers) > 0)
	add(r.failed(failures), len(failures) > 0)
	notes, err := r.notes()
	if err != nil {
		return Report{}, fmt.Errorf("report of %s: %w", r.Meta.ID, err)
	}
	add(notes, len(notes.Tables) > 0)
	add(Section{Title: "Other metrics", Charts: others}, len(others) > 0)
	return rep, nil
}

// idle reports whether every value of c is 0: there is nothing to see.
func (c Chart) idle() bool {
	for _, s := range c.Series {
		for _, y := range s.Y {
			if y != 0 {
				return false
			}
		}
	}
	return true
}

// chart draws all series of a metric.
func (r Run) chart(name string) (Chart, error) {
	c := Chart{Name: name, Title: name, X: Axis{Label: "round"}, Y: Axis{Label: name}}
	cost := false
	for i, k := range known {
		if k.name == name {
			c.Title, c.Y = k.title, Axis{k.label, k.unit}
			cost = i >= guarded
		}
	}
	if w, ok := among[name]; ok && r.Among {
		c.Title, c.Y.Label = w.title, w.label
	}
	keys, err := r.Metrics.Keys(name)
	if err != nil {
		return c, err
	}
	if cost && len(keys) > 1 {
		// The whole is the sum of its parts.
		keys = slices.DeleteFunc(keys, func(k string) bool { return k == "" })
		c.Kind = Stacked
	}
	for _, key := range keys {
		points, err := r.Metrics.Series(name, key)
		if err != nil {
			return c, err
		}
		c.Series = append(c.Series, line(key, points))
	}
	if c.Kind == Stacked {
		align(c.Series)
	}
	return c, nil
}

// line makes a series; steps within a round lie between it and the next.
func line(name string, points []record.Point) Series {
	most := 0
	for _, p := range points {
		most = max(most, p.Step)
	}
	s := Series{Name: name}
	for _, p := range points {
		s.X = append(s.X, float64(p.Round)+float64(p.Step)/float64(most+1))
		s.Y = append(s.Y, p.Value)
	}
	return s
}

// align gives all series the same X, with 0 where one has no value: a level
// without a client in a round has sent nothing.
func align(series []Series) {
	var xs []float64
	for _, s := range series {
		xs = append(xs, s.X...)
	}
	slices.Sort(xs)
	xs = slices.Compact(xs)
	for i, s := range series {
		ys := make([]float64, len(xs))
		for k, x := range s.X {
			at, _ := slices.BinarySearch(xs, x)
			ys[at] = s.Y[k]
		}
		series[i].X, series[i].Y = xs, ys
	}
}

// last returns the last value of a series of a chart.
func last(c Chart, name string) (v float64, ok bool) {
	for _, s := range c.Series {
		if s.Name == name && len(s.Y) > 0 {
			return s.Y[len(s.Y)-1], true
		}
	}
	return 0, false
}

func (r Run) highlights(charts map[string]Chart, failures []record.Failure) (facts []Fact) {
	add := func(label, name, note string) {
		if v, ok := last(charts[name], ""); ok {
			facts = append(facts, Fact{label, charts[name].Y.Unit.Format(v), note})
		}
	}
	if r.Among {
		add("Accuracy", "accuracy", "of all together, on the rows to test on")
		add("RMSE", "rmse", "on the rows to test on")
		add("MAD", "mad", "mean absolute error, on the rows to test on")
		add("Loss", "loss", "on the rows to test on")
	} else {
		addModel(add)
	}
	add("ε", "epsilon", "privacy spent")
	rounds, sum := 0.0, 0.0
	for _, c := range charts {
		for _, s := range c.Series {
			if len(s.X) > 0 {
				rounds = max(rounds, s.X[len(s.X)-1])
			}
		}
	}
	if rounds > 0 {
		facts = append(facts, Fact{Label: "Rounds", Value: group(strconv.Itoa(int(rounds)))})
	}
	for _, name := range []string{"bytes.up", "bytes.down", "bytes.protocol"} {
		for i := range longest(charts[name].Series) {
			sum += total(charts[name].Series, i)
		}
	}
	if sum > 0 {
		facts = append(facts, Fact{"Traffic", Bytes.Format(sum), "up and down, all rounds"})
	}
	if n := len(failures); n > 0 {
		_, _, capital := r.who()
		facts = append(facts, Fact{capital + " that failed", strconv.Itoa(n), "see below"})
	}
	return facts
}

// addModel adds how good the models are.
func addModel(add func(label, name, note string)) {
	add("Accuracy", "accuracy", "of the global model")
	add("Local accuracy", "accuracy.local", "of the global model, on the clients’ tests")
	add("Personal accuracy", "accuracy.personal", "of the clients’ own models, on their tests")
	add("Loss", "loss", "nats, on the test set")
	add("Perplexity", "perplexity", "")
}

func (r Run) levels(curves []Chart) Section {
	s := Section{Title: "Levels"}
	t := Table{Name: "levels", Columns: []Column{{"level", false}, {"width", true}, {"clients", true},
		{"parameters", true}, {"FLOPs per example", true}, {"weights", true}}}
	var shown []Chart
	for _, c := range curves {
		for _, l := range r.Levels {
			if _, ok := last(c, l.Name); ok {
				shown = append(shown, c)
				t.Columns = append(t.Columns, Column{strings.TrimPrefix(c.Name, "loss.") + ", last", true})
				break
			}
		}
	}
	for _, l := range r.Levels {
		row := []string{l.Name, strconv.FormatFloat(l.Rate, 'g', 6, 64), Plain.Format(float64(l.Clients)), Plain.Format(float64(l.Params)),
			FLOP.Format(l.FLOPs), Bytes.Format(float64(l.Bytes))}
		for _, c := range shown {
			cell := "–"
			if v, ok := last(c, l.Name); ok {
				cell = c.Y.Unit.Format(v)
			}
			row = append(row, cell)
		}
		t.Rows = append(t.Rows, row)
	}
	s.Tables = []Table{t}
	if len(r.Updates) > 0 {
		c := Chart{Name: "updates", Title: "How often each coordinate was updated", Kind: Steps,
			X: Axis{Label: "updates"}, Y: Axis{Label: "coordinates"}}
		for _, h := range r.Updates {
			c.Series = append(c.Series, Series{Name: h.Level, X: h.Edges, Y: h.Counts})
		}
		s.Charts = []Chart{c}
	}
	return s
}

func (r Run) failed(failures []record.Failure) Section {
	one, _, capital := r.who()
	t := Table{Name: "failures", Columns: []Column{{one, false}, {"times", true}, {"last in round", true}, {"what it was", false}}}
	for _, f := range failures {
		t.Rows = append(t.Rows, []string{f.Client, strconv.Itoa(f.Count), strconv.Itoa(f.Last), f.Message})
	}
	return Section{Title: capital + " that failed", Tables: []Table{t}}
}

// mostNotes is how many notes a report shows, the newest ones.
const mostNotes = 20

// notes are what the method remarked on by itself, such as that pseudo-labels may be collapsing; no client is to blame.
func (r Run) notes() (Section, error) {
	s := Section{Title: "What the method remarked"}
	m, ok := r.Metrics.(interface {
		Events(...record.Level) ([]record.Event, error)
	})
	if !ok {
		return s, nil
	}
	events, err := m.Events()
	if err != nil {
		return s, err
	}
	events = slices.DeleteFunc(events, func(e record.Event) bool { return e.Client != "" })
	events = events[max(0, len(events)-mostNotes):]
	if len(events) == 0 {
		return s, nil
	}
	t := Table{Name: "notes", Columns: []Column{{"round", true}, {"what", false}}}
	for _, e := range events {
		t.Rows = append(t.Rows, []string{strconv.Itoa(e.Round + 1), e.Message})
	}
	s.Tables = []Table{t}
	return s, nil
}

func lent(workers []Worker) Section {
	t := Table{Name: "workers", Columns: []Column{{"worker", false}, {"threads", true}, {"clients computed", true}, {"given to others", true},
		{"sent to it", true}, {"received from it", true}}}
	for _, w := range workers {
		t.Rows = append(t.Rows, []string{w.Name, strconv.Itoa(w.Threads), group(strconv.Itoa(w.Clients)), group(strconv.Itoa(w.Given)),
			Bytes.Format(float64(w.Sent)), Bytes.Format(float64(w.Received))})
	}
	return Section{Title: "Machines lent to the run", Tables: []Table{t}}
}

func (r Run) provenance() (facts []Fact) {
	add := func(label, value string) {
		if value != "" {
			facts = append(facts, Fact{Label: label, Value: value})
		}
	}
	m := r.Meta
	add("command", strings.Join(m.Command, " "))
	add("run", m.ID)
	add("method", m.Method)
	add("seed", strconv.FormatUint(m.Seed, 10))
	add("engine", m.Engine)
	add("kernels", m.Kernels)
	if m.Threads > 0 {
		add("threads", strconv.Itoa(m.Threads))
	}
	add("version", m.Cohort)
	add("state", string(m.State))
	add("error", m.Error)
	if !m.Created.IsZero() {
		add("begun", m.Created.UTC().Format(time.RFC3339))
	}
	if !m.Ended.IsZero() {
		add("ended", m.Ended.UTC().Format(time.RFC3339))
	}
	if r.Among {
		add("outcome SHA-256", r.Digest)
	} else {
		add("model SHA-256", r.Digest)
	}
	return facts
}
