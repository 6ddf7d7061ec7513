package al

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/federated"
)

// Learnt is a method of assistance, of which an ensemble comes.
type Learnt interface {
	federated.Algorithm
	Ensemble(federated.State) (assisted.Ensemble, error)
}

// Pretested is a method that asks first, when organisations know the rows and before any residual is sent, whether their assistance is
// worth while ([Useful]).
type Pretested struct {
	Learnt
	Test *Useful
	// Require leaves out who does not pass: whose mixtures tell nothing that the sponsor does not know, or who tells none. Otherwise the test
	// only says.
	Require bool
	// Only ends the run after the test: nothing is fitted.
	Only bool
}

// pretestName is where a run keeps, in State.Attached, that the test has been made.
const pretestName = "pretest"

// pretest is where the test stands.
type pretest struct {
	Round  int      `json:"round"` // in which it was made
	Passed []string `json:"passed"`
}

func made(s federated.State) (p pretest, ok bool) {
	b, ok := s.Attached[pretestName]
	if ok {
		if err := json.Unmarshal(b, &p); err != nil {
			panic(fmt.Sprintf("al: where the pre-test stands: %v", err)) // it was written here
		}
	}
	return p, ok
}

// inner is the state as the method knows it.
func inner(s federated.State) federated.State {
	if p, ok := made(s); ok && p.Round == s.Round && s.Step > 0 {
		s.Step--
	}
	return s.Detached(pretestName)
}

// Check implements [federated.Algorithm].
func (a *Pretested) Check(srv federated.Server) error {
	if err := a.Test.Check(srv); err != nil {
		return fmt.Errorf("pretest: %w", err)
	}
	if a.Only {
		return nil
	}
	return a.Learnt.Check(srv)
}

// Next implements [federated.Algorithm].
func (a *Pretested) Next(s federated.State) (federated.Phase, bool) {
	if _, ok := made(s); ok {
		if a.Only {
			return federated.Phase{}, false
		}
		return a.Learnt.Next(inner(s))
	}
	if p, ok := a.Learnt.Next(s); !ok || p.Name == assisted.Rows {
		return p, ok
	}
	return a.Test.SketchPhase(assisted.MustCourse(s), a.Test.asked), true
}

// Task implements [federated.Algorithm].
func (a *Pretested) Task(s federated.State, p federated.Phase, m federated.Member) (federated.Task, error) {
	if p.Name == assisted.Sketches {
		return a.Test.SketchTask(a.Test.Mixtures)
	}
	return a.Learnt.Task(inner(s), p, m)
}

// Finish implements [federated.Algorithm].
func (a *Pretested) Finish(ctx context.Context, srv federated.Server, s federated.State, p federated.Phase, sums map[string]*federated.Sum, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	if p.Name != assisted.Sketches {
		kept, had := s.Attached[pretestName]
		next, d, err := a.Learnt.Finish(ctx, srv, inner(s), p, sums, roll)
		if err != nil || !had {
			return next, d, err
		}
		was, _ := made(s)
		next, err = a.leaveOut(next.Attach(pretestName, kept), was.Passed, &d) // who came late was not tested
		return next, d, err
	}
	c, err := assisted.CourseOf(s)
	if err != nil {
		return s, federated.Diagnostics{}, err
	}
	d, passed, err := a.Test.test(srv, c, roll)
	if err != nil {
		return s, d, err
	}
	if s, err = a.leaveOut(s, passed, &d); err != nil {
		return s, d, err
	}
	b, err := json.Marshal(pretest{s.Round, passed})
	return s.Attach(pretestName, b), d, err
}

// leaveOut leaves out all who have not passed, where that is required.
func (a *Pretested) leaveOut(s federated.State, passed []string, d *federated.Diagnostics) (federated.State, error) {
	c, err := assisted.CourseOf(s)
	if err != nil || !a.Require {
		return s, err
	}
	for _, name := range c.Members {
		if name != a.Test.Sponsor.Own && !slices.Contains(passed, name) && !slices.Contains(c.Out, name) {
			c.Out = append(slices.Clip(c.Out), name)
			d.Notes = append(d.Notes, fmt.Sprintf("%s is left out of the run: it has not passed the test that the run requires (p < %g)", name, Level))
		}
	}
	return c.Into(s)
}

var _ federated.Algorithm = (*Pretested)(nil)
