package gal

import (
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/assisttest"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"gonum.org/v1/gonum/mat"
)

// trial is a run of some rounds that others are compared with.
type trial struct {
	sponsor *assisted.Sponsor
	world   *assisttest.World
	rounds  int
}

func newTrial(t *testing.T) *trial {
	y, x := blocks(9, 60, 2, 1, 1)
	s := sponsor(threeClass, y)
	s.Fit, s.Held, s.Test = 36, 12, 12
	return &trial{s, assisttest.NewWorld(assisttest.OLS(t), x...), 4}
}

// run runs the method among organisations with nothing in their stores, unless kept says that they keep what they have.
func (c *trial) run(t *testing.T, kept bool, change func(*fedtest.Run)) *fedtest.Trace {
	t.Helper()
	w := c.world
	if !kept {
		w = w.Fresh()
	}
	l, err := w.Do(algorithm(t, Defaults(), c.rounds, c.sponsor, w), c.rounds, change)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestNothingElseMatters checks that neither threads, nor the order of arrival, nor a resume after any round changes a bit.
func TestNothingElseMatters(t *testing.T) {
	c := newTrial(t)
	plain := c.run(t, true, nil)
	for threads := range 3 {
		got := c.run(t, false, func(r *fedtest.Run) { r.Members.Threads, r.Members.Shuffle = threads+1, uint64(threads) })
		if !slices.Equal(got.Digests(), plain.Digests()) {
			t.Errorf("%d threads come to another state", threads+1)
		}
	}
	for round := range c.rounds - 1 {
		got := c.run(t, true, func(r *fedtest.Run) { r.From, r.Kept = &plain.Snapshots[round], plain.Kept[round] })
		if want := plain.Digests()[round+1:]; !slices.Equal(got.Digests(), want) {
			t.Errorf("resumed after round %d, it comes to another state", round)
		}
	}
}

// TestLostAndNonsense checks that whoever fails or answers nonsense is named, has weight 0 in that round and not in the next, and
// that the outcome is what the ensemble says.
func TestLostAndNonsense(t *testing.T) {
	c := newTrial(t)
	nonsense := map[string]func(*federated.Answer){
		"fails":       func(a *federated.Answer) { a.Result, a.Err = federated.Result{}, errors.New("out of paper") },
		"no matrix":   func(a *federated.Answer) { a.Result.Attached = []byte("cmx1") },
		"nothing":     func(a *federated.Answer) { a.Result.Attached = nil },
		"too short":   func(a *federated.Answer) { a.Result.Attached = assisted.AppendMatrix(nil, mat.NewDense(59, 3, nil)) },
		"infinite":    func(a *federated.Answer) { a.Result.Attached = spoiled(a, 1e300) },
		"all missing": func(a *federated.Answer) { a.Result.Attached = blank(60, 3) },
	}
	for what, spoil := range nonsense {
		t.Run(what, func(t *testing.T) {
			w := c.world.Fresh()
			a := algorithm(t, Defaults(), c.rounds, c.sponsor, w)
			l, err := w.Do(a, c.rounds, func(r *fedtest.Run) {
				r.Members.Tamper = func(a *federated.Answer) {
					if a.Order.Member.Name == "org-2" && a.Order.Round == 1 && a.Order.Phase == assisted.Fits {
						spoil(a)
					}
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := l.Metric("weight", "org-2"); len(got) != c.rounds-1 {
				t.Errorf("weights of org-2: %v, want none in one of %d rounds", got, c.rounds)
			}
			notes := strings.Join(l.Phase(assisted.Fits)[1].Notes, "\n")
			if !strings.Contains(notes, "org-2") || !strings.Contains(notes, "round 2") {
				t.Errorf("the notes do not say who was left out when: %q", notes)
			}
			e, err := a.Ensemble(l.Final)
			if err != nil {
				t.Fatal(err)
			}
			for _, term := range e.Voice("org-2").Terms {
				if term.Slot.Round == 1 {
					t.Error("the model of the round in which org-2 was left out is in the ensemble")
				}
			}
			f, _ := w.Predict(t, e, c.sponsor.Keys)
			assisttest.Near(t, "prediction", f, assisttest.Matrix(t, l.Final, "F"), 1e-12)
		})
	}
}

func spoiled(a *federated.Answer, v float64) []byte {
	x, err := assisted.ReadMatrix(a.Result.Attached)
	if err != nil {
		return nil
	}
	x.Set(3, 1, v)
	return assisted.AppendMatrix(nil, x)
}

func blank(rows, columns int) []byte {
	x := mat.NewDense(rows, columns, nil)
	x.Apply(func(_, _ int, _ float64) float64 { return math.NaN() }, x)
	return assisted.AppendMatrix(nil, x)
}

// TestLateComer checks that an organisation that did not hear the rows at first is told them in the next round.
func TestLateComer(t *testing.T) {
	c := newTrial(t)
	l := c.run(t, false, func(r *fedtest.Run) {
		r.Members.Tamper = func(a *federated.Answer) {
			if a.Order.Member.Name == "org-3" && a.Order.Round == 0 {
				a.Result, a.Err = federated.Result{}, errors.New("asleep")
			}
		}
	})
	if got := l.Metric("weight", "org-3"); len(got) != c.rounds-1 {
		t.Errorf("weights of the late comer: %v, want %d", got, c.rounds-1)
	}
	if got := len(l.Phase(assisted.Rows)); got != 2 {
		t.Errorf("rows were told in %d phases, want 2", got)
	}
}

// TestAbsentEntities checks that entities that an organisation does not have are stood for by its mean, and that those it has are in any
// order of its own.
func TestAbsentEntities(t *testing.T) {
	c := newTrial(t)
	d := c.world.Desks["org-2"]
	n := len(d.Keys)
	_, columns := d.Features.Dims()
	reversed := mat.NewDense(n, columns, nil)
	keys := make([]string, n)
	for i := range n {
		reversed.SetRow(n-1-i, d.Features.RawRowView(i))
		keys[n-1-i] = d.Keys[i]
	}
	plain := c.run(t, false, nil)
	d.Keys, d.Features = keys, reversed
	if got := c.run(t, false, nil); !slices.Equal(got.Digests(), plain.Digests()) {
		t.Error("the order of an organisation's own rows matters")
	}
	d.Keys, d.Features = keys[5:], mat.DenseCopyOf(reversed.Slice(5, n, 0, columns)) // all but the last five
	w := c.world.Fresh()
	a := algorithm(t, Defaults(), c.rounds, c.sponsor, w)
	l := w.Must(t, a, c.rounds)
	if notes := strings.Join(l.Phase(assisted.Rows)[0].Notes, "\n"); !strings.Contains(notes, "org-2 does not have 5 of 60") {
		t.Errorf("that entities are missing is not said: %q", notes)
	}
	e, err := a.Ensemble(l.Final)
	if err != nil {
		t.Fatal(err)
	}
	f, told := w.Predict(t, e, c.sponsor.Keys)
	assisttest.Near(t, "prediction", f, assisttest.Matrix(t, l.Final, "F"), 1e-12)
	if got := told.Metric("degraded", "org-2"); len(got) != 1 || got[0] != 5 {
		t.Errorf("degraded: %v, want 5", got)
	}
}

// TestStops checks that the run ends when held-out rows say so, and that the ensemble is that of the best round.
func TestStops(t *testing.T) {
	c := newTrial(t)
	o := Defaults()
	o.Patience = 2
	w := c.world.Fresh()
	const rounds = 60
	a := algorithm(t, o, rounds, c.sponsor, w)
	l := w.Must(t, a, rounds)
	loss := l.Metric("loss.held", "")
	if len(loss) == rounds {
		t.Fatalf("it did not stop in %d rounds", rounds)
	}
	if n := len(l.Rounds); n != len(loss) || !l.Rounds[n-1].Last {
		t.Errorf("%d rounds were closed, %d of them with a phase; the last says so: %v", n, len(loss), l.Rounds[n-1].Last)
	}
	best := slices.Index(loss, slices.Min(loss)) + 1
	e, err := a.Ensemble(l.Final)
	if err != nil {
		t.Fatal(err)
	}
	last := 0
	for _, v := range e.Members {
		for _, term := range v.Terms {
			last = max(last, term.Slot.Round+1)
		}
	}
	if last > best || last < best-1 { // within 1e-4 the earlier one is as good
		t.Errorf("the ensemble has %d rounds, the best was %d of %v", last, best, loss)
	}
}

// TestBest checks that with best the run goes on to its last round, and the ensemble is that of the best one.
func TestBest(t *testing.T) {
	c := newTrial(t)
	outcome := func(best bool, rounds int) (assisted.Ensemble, int) {
		o := Defaults()
		o.Best = best
		w := c.world.Fresh()
		a := algorithm(t, o, rounds, c.sponsor, w)
		l := w.Must(t, a, rounds)
		e, err := a.Ensemble(l.Final)
		if err != nil {
			t.Fatal(err)
		}
		return e, assisted.MustCourse(l.Final).Stop.Best
	}
	const rounds = 40
	e, best := outcome(true, rounds)
	if best >= rounds {
		t.Fatalf("round %d of %d is the best one: this run says nothing", best, rounds)
	}
	if short, _ := outcome(false, best); !reflect.DeepEqual(e, short) {
		t.Errorf("of %d rounds, of which number %d was the best, remains another ensemble than that of %d rounds", rounds, best, best)
	}
}

// TestWhatIsSent checks what passes: residuals of the rows to fit downwards, keys once, fitted values upwards, and nothing with the
// shape of features; no label nor its class prior but through the residuals.
func TestWhatIsSent(t *testing.T) {
	c := newTrial(t)
	w := c.world.Fresh()
	a := algorithm(t, Defaults(), c.rounds, c.sponsor, w)
	seen := 0
	_, err := w.Do(a, c.rounds, func(r *fedtest.Run) {
		r.Members.Tamper = func(a *federated.Answer) {
			seen++
			down, up := a.Task, a.Result
			if a.Order.Phase == assisted.Rows {
				if len(down.Sets) != 0 || len(up.Attached) != 0 || len(up.Addends) != 0 {
					t.Errorf("telling rows moves matrices: %v, %d bytes", down.Sets, len(up.Attached))
				}
				return
			}
			r, ok := down.Sets["r"].Get("r")
			if len(down.Sets) != 1 || !ok || !slices.Equal(r.Shape, []int{36, 3}) || len(down.Attached) != 0 {
				t.Errorf("downwards go %v and %d bytes, want 36×3 residuals and nothing else", r.Shape, len(down.Attached))
			}
			g, err := assisted.ReadMatrix(up.Attached)
			if err != nil {
				t.Fatal(err)
			}
			if rows, columns := g.Dims(); rows != 60 || columns != 3 || len(up.Addends) != 0 || up.Keep != nil || len(up.Scalars) != 0 {
				t.Errorf("upwards go %d×%d values and %v, want 60×3 and nothing else", rows, columns, up)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := 3 * (c.rounds + 1); seen != want {
		t.Errorf("%d messages, want %d", seen, want)
	}
}
