package assisted_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/aeal"
	"github.com/cohort-learning/cohort/assisted/al"
	"github.com/cohort-learning/cohort/assisted/alnet"
	"github.com/cohort-learning/cohort/assisted/ascii"
	"github.com/cohort-learning/cohort/assisted/assisttest"
	"github.com/cohort-learning/cohort/assisted/gal"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/weights"
	"github.com/google/go-cmp/cmp"
	"gonum.org/v1/gonum/mat"
)

// modelMagic begins the binary form of every model.
const modelMagic = "CLM\x02"

// transcript is everything that passes between a sponsor and organisations.
type transcript struct {
	desks assisted.Desks

	mu       sync.Mutex
	messages []message
	fields   map[string]map[string]bool // what each kind of message carries
}

// message is a task for a member, or its answer.
type message struct {
	member string
	what   string // as docs/assist.md calls it
	sets   map[string]weights.Set
	blob   []byte
	text   []byte // all that it carries
}

// Run implements [federated.Client].
func (x *transcript) Run(ctx context.Context, at federated.Local, task federated.Task, keep *weights.Set) (federated.Result, error) {
	result, err := x.desks.Run(ctx, at, task, keep)
	if err != nil {
		return result, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	var params map[string]json.RawMessage
	if err := json.Unmarshal(task.Params, &params); err != nil {
		return result, err
	}
	name := strings.Trim(string(params["do"]), `"`)
	sent := message{member: at.Member.Name, what: name, sets: task.Sets, blob: task.Attached, text: slices.Clone(task.Params)}
	x.note(&sent, "keys", slices.Collect(maps.Keys(params)), nil)
	back := message{member: at.Member.Name, what: name + " answer", sets: result.Addends, blob: result.Attached}
	x.note(&back, "matrix", nil, result.Scalars)
	if result.Keep != nil || result.Weight != 0 || task.Index != nil || result.Cover != nil {
		return result, errors.New("a message carries something that nobody wrote down")
	}
	return result, nil
}

// note keeps a message and what it carries: fields and numbers by their names, and the blob by that given.
func (x *transcript) note(m *message, blob string, fields []string, numbers map[string]float64) {
	for name, v := range numbers {
		fields = append(fields, name)
		m.text = binary.LittleEndian.AppendUint64(m.text, math.Float64bits(v))
	}
	for name, set := range m.sets {
		fields = append(fields, name)
		for _, t := range set.All() {
			for _, v := range t.F64 {
				m.text = binary.LittleEndian.AppendUint64(m.text, math.Float64bits(v))
			}
		}
	}
	if len(m.blob) > 0 {
		fields = append(fields, blob)
		m.text = append(m.text, m.blob...)
	}
	if x.fields[m.what] == nil {
		x.fields[m.what] = map[string]bool{}
	}
	for _, f := range fields {
		x.fields[m.what][f] = true
	}
	x.messages = append(x.messages, *m)
}

// holds reports whether the number stands anywhere in the message as a word of 64 bits.
func (m message) holds(v float64) bool {
	return bytes.Contains(m.text, binary.LittleEndian.AppendUint64(nil, math.Float64bits(v)))
}

// method is one whose outcome can be asked.
type method interface {
	federated.Algorithm
	Ensemble(federated.State) (assisted.Ensemble, error)
}

// TestTranscript records all that passes in training and prediction, and checks that it is what the table of docs/assist.md says,
// that no number of anybody's features is in it, no label in what assistors get, and no model in what they answer.
func TestTranscript(t *testing.T) {
	r := rng.New(11, 0, "", "transcript")
	x := make([]*mat.Dense, 3)
	for m := range x {
		x[m] = mat.NewDense(40, 2, nil)
		x[m].Apply(func(_, _ int, _ float64) float64 { return r.NormFloat64() }, x[m])
	}
	y := mat.NewDense(40, 1, nil)
	for i := range 40 {
		y.Set(i, 0, x[0].At(i, 0)+2*x[1].At(i, 0)-x[2].At(i, 1)+r.NormFloat64())
	}
	if m, err := assisttest.OLS(t).Fit(t.Context(), x[0], y, nil, nil); err != nil {
		t.Fatal(err)
	} else if b, err := m.MarshalBinary(); err != nil || !bytes.HasPrefix(b, []byte(modelMagic)) {
		t.Fatalf("models begin with %.8q, %v", b, err)
	}
	classes := mat.NewDense(40, 1, nil)
	classes.Apply(func(i, _ int, _ float64) float64 { return math.Min(2, math.Abs(math.Trunc(y.At(i, 0)))) }, classes)
	for _, name := range []string{"gal", "al", "strata", "shared", "ascii", "ae-al", "al-network"} {
		w := assisttest.NewWorld(assisttest.OLS(t), x...)
		log := &transcript{desks: w.Desks, fields: map[string]map[string]bool{}}
		s := &assisted.Sponsor{Objective: assisted.Objective{Loss: assisted.Squared}, Keys: assisttest.Keys(40), Labels: y, Fit: 30, Test: 10, Own: "org-1"}
		tasks := []string{"rows", "fit", "predict"}
		shapes := []string{"fit answer 40×1", "fit r [30 1]", "predict answer 40×1"}
		if name == "shared" {
			tasks, shapes = append(tasks, "recompute"), append(shapes, "recompute answer 40×3")
		}
		if name == "strata" {
			s.Strata, s.Stratum = &assisted.Strata{Values: map[string]int{"secret": 0, "other": 1}, Count: 2}, slices.Repeat([]int{0, 1}, 20)
			shapes = []string{"fit answer 40×1", "fit r [30 1]", "fit strata [40 1]", "predict answer 40×1", "predict strata [40 1]"}
		}
		if name == "ascii" {
			s.Objective, s.Labels = assisted.Objective{Loss: assisted.CrossEntropy, Classes: 3}, classes
			tasks[1], shapes = "vote", []string{"predict answer 40×3", "vote answer 40×3", "vote r [30 2]"}
		}
		if name == "ae-al" {
			tasks[1], shapes = "glm", []string{"glm answer 40×1", "glm r [30 2]", "predict answer 40×1"}
		}
		rounds := 3
		if name == "al-network" {
			rounds, tasks[1] = 6, "update" // two turns of each
			shapes = []string{"predict answer 40×4", "update answer 3×9", "update answer 40×4", "update head [3 9]", "update y [30 1]", "update z [30 4]"}
		}
		with := func(disclose string) method {
			var m method
			var err error
			switch name {
			case "gal", "shared":
				o := gal.Defaults()
				if name == "shared" {
					o.DMS = assisted.ShareWarm
				}
				o.Disclosure.Disclose = disclose
				m, err = o.New(rounds, s, log)
			case "ae-al":
				m, err = aeal.Options{Disclosure: assisted.Disclosure{Disclose: disclose}}.New(rounds, s, log)
			case "ascii":
				o := ascii.Defaults()
				o.Stop, o.Disclosure.Disclose = "nobody", disclose
				m, err = o.New(rounds, s, log)
			case "al-network":
				o := alnet.Defaults()
				o.Hidden, o.Disclosure.Disclose = []int{4}, disclose
				m, err = o.New(rounds, s, log)
			default:
				o := al.Defaults()
				o.Disclosure.Disclose = disclose
				if name == "strata" {
					o.Strata = "column"
				}
				m, err = o.New(rounds, s, log)
			}
			if err != nil {
				t.Fatal(err)
			}
			return m
		}
		if _, err := w.Do(with(""), rounds, nil); err == nil || len(log.messages) > 0 {
			t.Errorf("%s: %d messages although nobody may learn what they tell of labels: %v", name, len(log.messages), err)
		}
		a := with("labels")
		final := w.Must(t, a, rounds).Final
		e, err := a.Ensemble(final)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Do(&assisted.Prediction{Ensemble: e, Keys: s.Keys, Strata: s.Stratum, Desks: log}, 1, nil); err != nil {
			t.Fatal(err)
		}
		want := documented(t, tasks)
		if name == "shared" {
			want["fit"] = slices.Sorted(slices.Values(append(want["fit"], "share")))
		}
		if name == "strata" {
			for _, task := range []string{"fit", "predict"} {
				want[task] = slices.Sorted(slices.Values(append(want[task], "strata")))
			}
		}
		if diff := cmp.Diff(want, log.said()); diff != "" {
			t.Errorf("%s: docs/assist.md says something else (-) than what passes (+):\n%s", name, diff)
		}
		log.check(t, name, s, x, shapes)
	}
}

// check looks for what must not be in any message.
func (x *transcript) check(t *testing.T, method string, s *assisted.Sponsor, features []*mat.Dense, want []string) {
	t.Helper()
	n := 2 * 3 * (1 + 3 + 1) // there and back with three organisations: rows, three rounds, prediction
	if method == "al-network" {
		n = 2 * 3 * (1 + 2 + 1) // two turns of each
	}
	if method == "shared" {
		n += 2 * 3
	}
	if len(x.messages) != n {
		t.Fatalf("%s: %d messages, want %d", method, len(x.messages), n)
	}
	shapes := map[string]bool{}
	for _, m := range x.messages {
		about := fmt.Sprintf("%s: %s, %s", method, m.what, m.member)
		for _, f := range features {
			for _, v := range f.RawMatrix().Data {
				if m.holds(v) {
					t.Fatalf("%s: the value %v of a feature", about, v)
				}
			}
		}
		if m.member != s.Own && !slices.Contains([]string{"ascii", "ae-al", "al-network"}, method) { // whose labels are told
			for _, v := range s.Labels.RawMatrix().Data {
				if m.holds(v) {
					t.Fatalf("%s: the label %v", about, v)
				}
			}
		}
		if _, told := m.sets["strata"]; told && m.member == s.Own || bytes.Contains(m.text, []byte("secret")) {
			t.Errorf("%s: strata for who has the column, or what they stand for", about)
		}
		if bytes.Contains(m.text, []byte(modelMagic)) {
			t.Errorf("%s: a model", about)
		}
		if all, err := assisted.ReadMatrices(m.blob); err == nil {
			for _, v := range all {
				rows, columns := v.Dims()
				shapes[fmt.Sprintf("%s %d×%d", m.what, rows, columns)] = true
			}
		}
		for name, set := range m.sets {
			shapes[fmt.Sprintf("%s %s %v", m.what, name, set.Must(name).Shape)] = true
		}
	}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(shapes))); diff != "" {
		t.Errorf("%s: shapes of matrices: %s", method, diff)
	}
}

// said are the fields of every message, sorted.
func (x *transcript) said() map[string][]string {
	out := map[string][]string{}
	for name, fields := range x.fields {
		out[name] = slices.Sorted(maps.Keys(fields))
	}
	return out
}

var (
	tableRow = regexp.MustCompile("^\\| `(rows|fit|update|vote|glm|predict|recompute)` \\|")
	quoted   = regexp.MustCompile("`([^`]+)`")
)

// documented is what the table of messages of docs/assist.md says of some tasks: what each carries, what is answered.
func documented(t *testing.T, tasks []string) map[string][]string {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "docs", "assist.md"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string][]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if !tableRow.MatchString(lines.Text()) {
			continue
		}
		cells := strings.Split(lines.Text(), "|")
		name := strings.Trim(cells[1], " `")
		if !slices.Contains(tasks, name) {
			continue
		}
		for k, suffix := range map[int]string{3: "", 4: " answer"} {
			for _, q := range quoted.FindAllStringSubmatch(cells[k], -1) {
				out[name+suffix] = append(out[name+suffix], q[1])
			}
			slices.Sort(out[name+suffix])
		}
	}
	return out
}
