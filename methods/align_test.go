package methods

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/assisttest"
	"github.com/cohort-learning/cohort/assisted/mismatch"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/rng"
)

// doubtful is a sponsor and an assistor with four columns each of 500 entities, of which 300 are to fit. The links of 30 % of these
// are wrong; entities of a block of five stand together.
type doubtful struct {
	world   *assisttest.World
	sponsor *assisted.Sponsor
}

func newDoubtful(t *testing.T, wrong float64) doubtful {
	t.Helper()
	const n, fit = 500, 300
	r := rng.New(9, 0, "", "doubtful")
	own, y, _ := mismatch.LinearTable(n, 4, .1, r)
	other, z, _ := mismatch.LinearTable(n, 4, .1, r)
	y.Add(y, z)
	w := assisttest.NewWorld(assisttest.OLS(t), own, other)
	keys := assisttest.Keys(n)
	links := mismatch.Shuffle(fit, wrong, r)
	d := w.Desks["org-2"]
	d.Keys = slices.Clone(keys)
	for i, j := range links {
		d.Keys[i] = keys[j]
	}
	for i := range n {
		d.Blocks = append(d.Blocks, fmt.Sprint("block ", i/5))
	}
	s := &assisted.Sponsor{Objective: assisted.Objective{Loss: assisted.Squared}, Keys: keys, Labels: y, Fit: fit, Held: 50, Test: n - fit - 50, Own: "org-1"}
	return doubtful{w, s}
}

// learn lets the two assist each other by a method, and returns the loss on the rows for testing.
func (d doubtful) learn(t *testing.T, method string) (float64, *fedtest.Trace) {
	t.Helper()
	m, err := FindAssisted(method)
	if err != nil {
		t.Fatal(err)
	}
	w := d.world.Fresh()
	options := m.Options()
	if o, ok := options.(*galOptions); ok {
		o.Lead = true
	}
	a, err := options.New(6, d.sponsor, w.Desks)
	if err != nil {
		t.Fatal(err)
	}
	trace := w.Must(t, a, 6)
	f := assisttest.Matrix(t, trace.Final, "F")
	return d.sponsor.Objective.Value(d.sponsor.Tested().Of(d.sponsor.Labels), d.sponsor.Tested().Of(f)), trace
}

// told returns a metric of an organisation in a run.
func told(trace *fedtest.Trace, name, key string) (values []float64) {
	for _, p := range trace.Phases {
		for _, m := range p.Metrics {
			if m.Name == name && m.Key == key {
				values = append(values, m.Value)
			}
		}
	}
	return values
}

// TestAlignedRun: a run whose assistor aligns its rows first makes good most of what wrong links cost, and tells how sure it is.
func TestAlignedRun(t *testing.T) {
	linear, err := NewAligner("linear")
	if err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{"gal", "al"} {
		right, _ := newDoubtful(t, 0).learn(t, method)
		d := newDoubtful(t, .3)
		wrong, trace := d.learn(t, method)
		if told(trace, "links.wrong", "org-2") != nil {
			t.Errorf("%s: an organisation that does not align tells of its links", method)
		}
		d.world.Desks["org-2"].Aligner = linear
		aligned, trace := d.learn(t, method)
		again, same := d.learn(t, method)
		if aligned != again || trace.Final.Digest() != same.Final.Digest() {
			t.Errorf("%s: the same run comes to %v and %v", method, aligned, again)
		}
		if gain := (wrong - aligned) / (wrong - right); !(gain > .5) {
			t.Errorf("%s: right links %v, wrong ones %v, aligned %v: %.0f %% of the loss is made good", method, right, wrong, aligned, 100*gain)
		}
		if v := told(trace, "links.wrong", "org-2"); len(v) != 1 || v[0] < .2 || v[0] > .4 {
			t.Errorf("%s: α̂ is %v of 0.3", method, v)
		}
		if v := told(trace, "links.explained", "org-2"); len(v) != 1 || v[0] < .5 {
			t.Errorf("%s: explained is %v", method, v)
		}
	}
}

// TestAlignedByBlocks: nothing but blocks of five is known, and the assistor is still of use; without blocks at the sponsor it says
// that nothing can be aligned.
func TestAlignedByBlocks(t *testing.T) {
	d := newDoubtful(t, 0)
	o := d.world.Desks["org-2"]
	alone := d
	alone.world = &assisttest.World{Names: d.world.Names[:1], Desks: assisted.Desks{"org-1": d.world.Desks["org-1"]}}
	without, _ := alone.learn(t, "gal")
	o.Keys = slices.Clone(o.Keys)
	for i := range o.Keys {
		o.Keys[i] = fmt.Sprint("row ", i)
	}
	o.Aligner, _ = NewAligner("linear")
	d.sponsor.Blocks = o.Blocks
	with, trace := d.learn(t, "gal")
	if !(with < .9*without) {
		t.Errorf("the loss is %v with the assistor, %v without", with, without)
	}
	if v := told(trace, "links.wrong", "org-2"); len(v) != 1 || v[0] != 1 {
		t.Errorf("without keys the share of wrong links is told as %v", v)
	}
	d.sponsor.Blocks = nil
	w := d.world.Fresh()
	a, err := AllAssisted()[0].Options().New(1, d.sponsor, w.Desks)
	if err != nil {
		t.Fatal(err)
	}
	trace, err = w.Do(a, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	for _, p := range trace.Phases {
		for _, f := range p.Failed {
			fmt.Fprintln(&said, f.Member, f.Reason)
		}
	}
	if !strings.Contains(said.String(), "org-2") || !strings.Contains(said.String(), "keys written alike") {
		t.Errorf("neither keys nor blocks: %q", said.String())
	}
}

func TestNewAligner(t *testing.T) {
	if a, err := NewAligner(""); a != nil || err != nil {
		t.Errorf("no name is %v, %v", a, err)
	}
	if _, err := NewAligner("oracle"); err == nil || !strings.Contains(err.Error(), "oracle") {
		t.Errorf("an unknown learner: %v", err)
	}
	a, err := NewAligner("forest")
	if err != nil {
		t.Fatal(err)
	}
	if m := a.(mismatch.Aligner); m.Learner == nil {
		t.Error("a forest is no learner")
	}
}
