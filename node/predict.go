package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/node/coordinator"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/simulation"
	"gonum.org/v1/gonum/mat"
)

// sessionsName is the folder of the sessions in which organisations were asked for predictions, beside that of runs.
const sessionsName = "sessions"

// Question asks the organisations of a run that has ended about entities.
type Question struct {
	Run  string   `json:"run"`
	Keys []string `json:"keys"` // as the parties know them
	// Strata are those of the entities, where the run has any.
	Strata []int         `json:"strata,omitempty"`
	Wait   time.Duration `json:"wait"` // for organisations to agree, and again for their answers
}

// Reply is what they answered.
type Reply struct {
	Session string        `json:"session"` // the name of the folder that records it
	F       [][]float64   `json:"f"`       // by key
	Away    recipe.Away   `json:"away"`
	Took    time.Duration `json:"took"`
}

// Matrix returns F as a matrix.
func (r *Reply) Matrix() (*mat.Dense, error) {
	if len(r.F) == 0 || len(r.F[0]) == 0 {
		return nil, errors.New("a reply without values")
	}
	f := mat.NewDense(len(r.F), len(r.F[0]), nil)
	for i, row := range r.F {
		if len(row) != len(r.F[0]) {
			return nil, fmt.Errorf("a reply with %d values in row %d and %d in the first", len(row), i, len(r.F[0]))
		}
		f.SetRow(i, row)
	}
	return f, nil
}

// Predict asks the organisations of a run in a session of its own: a run of one round, signed as every other, with terms that each
// organisation holds against its policy. It begins when all that have a part in the outcome have agreed, or after the time to wait with those
// who have; the mean of whoever does not answer stands for it.
func (h *Host) Predict(ctx context.Context, q Question) (Reply, error) {
	began := time.Now()
	if err := checkRunName(q.Run); err != nil {
		return Reply{}, err
	}
	if q.Wait <= 0 {
		return Reply{}, fmt.Errorf("waiting %v for organisations: need more", q.Wait)
	}
	c, err := recipe.Consult(filepath.Join(h.Runs(), q.Run))
	if err != nil {
		return Reply{}, err
	}
	var away recipe.Away
	run, err := h.session(c, q, &away)
	if err != nil {
		return Reply{}, err
	}
	if err := begin(ctx, run, q.Wait); err != nil {
		run.Stop()
		<-run.Done()
		return Reply{}, err
	}
	if err := run.Err(); err != nil {
		return Reply{}, fmt.Errorf("session %s: %w", run.ID(), err)
	}
	s, err := simulation.Last(run.Dir())
	if err != nil {
		return Reply{}, err
	}
	f, err := assisted.Matrix(s, "F")
	if err != nil {
		return Reply{}, err
	}
	out := Reply{Session: run.ID(), Away: away, Took: time.Since(began)}
	rows, _ := f.Dims()
	for i := range rows {
		out.F = append(out.F, f.RawRowView(i))
	}
	return out, nil
}

// session starts the run of one round.
func (h *Host) session(c *recipe.Consulted, q Question, away *recipe.Away) (*coordinator.Run, error) {
	var await []string
	for _, name := range c.Voices() {
		if m, ok := h.Roster.ByName(name); ok && m.State == identity.Admitted {
			await = append(await, name)
		}
	}
	if len(await) == 0 {
		return nil, errors.New("no organisation that has a part in the run is a member any more")
	}
	id, dir, err := h.newSession(q.Run)
	if err != nil {
		return nil, err
	}
	terms := c.Terms()
	a := Assistance{ID: id, Method: terms.Method(), Recipe: c.Recipe.YAML(), Terms: terms, Members: 1, Algorithm: c.Algorithm(q.Keys, q.Strata),
		Config: federated.Config{Rounds: 1, Pace: federated.Pace{Deadline: q.Wait}}}
	rec, err := h.recordOf(dir, a, RunOptions{})
	if err != nil {
		return nil, err
	}
	return h.among(a, rec, func(s *coordinator.Spec) { s.Await, s.Observer = await, away })
}

// newSession finds a name that no session has had.
func (h *Host) newSession(run string) (id, dir string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := os.MkdirAll(h.path(sessionsName), 0o700); err != nil {
		return "", "", err
	}
	for n := 1; ; n++ {
		id = fmt.Sprintf("%s-predict-%d", run, n)
		dir = filepath.Join(h.path(sessionsName), id)
		if err := os.Mkdir(dir, 0o700); !errors.Is(err, fs.ErrExist) {
			return id, dir, err
		}
	}
}

// begin waits until a run is over, and begins it with those who are there when the time to wait is over.
func begin(ctx context.Context, run *coordinator.Run, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-run.Done():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	}
	if run.Stage() == coordinator.Waiting {
		if err := run.Begin(); err != nil {
			return fmt.Errorf("after %v: %w; organisations answer while \"cohort join --stay\" is at work", wait, err)
		}
	}
	select {
	case <-run.Done():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
