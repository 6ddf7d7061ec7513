package learner_test

import (
	"testing"

	"github.com/cohort-learning/cohort/assisted/learner"
	"gonum.org/v1/gonum/mat"
)

// A line is best where the truth is one, and is the same as without a choice; elsewhere trees are.
func TestChoose(t *testing.T) {
	x, curved := weyl(300, 0)
	straight := mat.NewDense(300, 1, nil)
	for i := range 300 {
		straight.Set(i, 0, 3*x.At(i, 0)-x.At(i, 3))
	}
	choose, linear := learner.Spec{Name: "choose"}, learner.Spec{Name: "linear"}
	if !mat.Equal(fitted(t, choose, x, straight, nil), fitted(t, linear, x, straight, nil)) {
		t.Error("a line was not chosen where the truth is one")
	}
	if got, line := rmse(fitted(t, choose, x, curved, nil), curved), rmse(fitted(t, linear, x, curved, nil), curved); got > line/1.5 {
		t.Errorf("training error %.3f, of a line %.3f", got, line)
	}
	few, y := friedman(9, 1)
	between := learner.Spec{Name: "choose", Among: []string{"ridge", "tree"}}
	if !mat.Equal(fitted(t, between, few, y, nil), fitted(t, learner.Spec{Name: "ridge"}, few, y, nil)) {
		t.Error("nine rows are too few to choose by, and the first was not taken")
	}
}
