package program_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/node/program"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// ownLearner is an organisation's program: its model is the targets of the fit, and its predictions are they, or nonsense.
func ownLearner(mode string) error {
	text, err := os.ReadFile(os.Getenv("COHORT_TASK"))
	if err != nil {
		return err
	}
	var t learner.ProgramTask
	if err := json.Unmarshal(text, &t); err != nil {
		return err
	}
	from, to := t.Targets, t.Model
	if t.Task == "predict" {
		from, to = t.Model, t.Predictions
	}
	switch mode {
	case "fails":
		return errors.New("no licence found")
	case "forgets":
		return nil
	case "links":
		return os.Symlink(from, to)
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

// learners returns a learner that runs a command.
func learners(t *testing.T, command ...string) learner.Learner {
	t.Helper()
	r, err := program.NewRunner(program.Options{Command: command, Dir: t.TempDir()})
	check(t, err)
	return learner.WithProgram(r)
}

func TestLearner(t *testing.T) {
	self, err := os.Executable()
	check(t, err)
	x, y := mat.NewDense(3, 1, []float64{1, math.NaN(), 3}), mat.NewDense(3, 2, []float64{1, 2, 3, 4, 5, 6})
	m, err := learners(t, self, "learner", "keeps").Fit(t.Context(), x, y, nil, rng.New(1, 0, "org", "fit"))
	check(t, err)
	out, err := m.Predict(x)
	check(t, err)
	if !mat.Equal(out, y) {
		t.Errorf("%v", out.RawMatrix().Data)
	}
	for mode, want := range map[string]string{
		"fails":   "no licence found",
		"forgets": "the program ended well, but wrote no model",
		"links":   "model is not an ordinary file",
	} {
		_, err := learners(t, self, "learner", mode).Fit(t.Context(), x, y, nil, rng.New(1, 0, "org", "fit"))
		var failure *program.Failure
		if !errors.As(err, &failure) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want …%s…", mode, err, want)
		}
	}
	if _, err := program.NewRunner(program.Options{Command: []string{"no-such-program"}}); err == nil {
		t.Error("a program that is not there")
	}
}

// The examples fit a curve with a value missing here and there, in one column and in two, and the same fit gives the same model.
func TestLearnersInPython(t *testing.T) {
	const n = 200
	x, y := mat.NewDense(n, 2, nil), mat.NewDense(n, 2, nil)
	r := rng.New(3, 0, "", "curve")
	for i := range n {
		a, b := r.Uniform(-2, 2), r.Float64()
		x.SetRow(i, []float64{a, b})
		y.SetRow(i, []float64{math.Sin(a), a * b})
		if i%20 == 0 {
			x.Set(i, 1, math.NaN())
		}
	}
	for _, name := range []string{"sklearn", "xgboost"} {
		for outputs := 1; outputs <= 2; outputs++ {
			t.Run(fmt.Sprintf("%s, %d", name, outputs), func(t *testing.T) {
				script, err := filepath.Abs(filepath.Join("..", "..", "examples", "learners", name, "learner.py"))
				check(t, err)
				l, target := learners(t, python(t), script), mat.DenseCopyOf(y.Slice(0, n, 0, outputs))
				w := make([]float64, n)
				for i := range w {
					w[i] = float64(1 + i%2)
				}
				m, err := l.Fit(t.Context(), x, target, w, rng.New(1, 0, "org", "fit"))
				check(t, err)
				out, err := m.Predict(x)
				check(t, err)
				out.Sub(out, target)
				if left := mat.Norm(out, 2) / mat.Norm(target, 2); left > 0.35 {
					t.Errorf("%.3f of the targets are left", left)
				}
				if outputs > 1 {
					return
				}
				again, err := l.Fit(t.Context(), x, target, w, rng.New(1, 0, "org", "fit"))
				check(t, err)
				out2, err := again.Predict(x)
				check(t, err)
				out2.Sub(out2, target)
				if !mat.Equal(out, out2) {
					t.Error("the same fit gives another model")
				}
			})
		}
	}
}
