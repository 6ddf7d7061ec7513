package systemtest

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/node/member"
	"github.com/cohort-learning/cohort/weights"
	"gonum.org/v1/gonum/mat"
)

func init() { roles["raver"] = raver }

// raver is an organisation, whose table has the key "customer", that answers nonsense in the second round, the third and the fourth.
func raver(args []string) error {
	f, study, o, err := costume(context.Background(), args)
	if err != nil {
		return err
	}
	defer study.Close()
	study.Table.Key = "customer"
	o.Prepare = func(ctx context.Context, p member.Proposal) (*member.Part, error) {
		part, err := study.Prepare(ctx, p)
		if err == nil {
			part.Client = raving{part.Client}
		}
		return part, err
	}
	m, err := member.New(o)
	if err != nil {
		return fmt.Errorf("%s: %w", f.Dir, err)
	}
	return m.Run(context.Background())
}

// raving is a client whose answers are good in some rounds only.
type raving struct{ federated.Client }

// Run implements [federated.Client].
func (r raving) Run(ctx context.Context, at federated.Local, task federated.Task, keep *weights.Set) (federated.Result, error) {
	out, err := r.Client.Run(ctx, at, task, keep)
	if err != nil {
		return out, err
	}
	var asked struct {
		Do   string
		Slot assisted.Slot
	}
	if err := json.Unmarshal(task.Params, &asked); err != nil || asked.Do != "fit" {
		return out, err
	}
	x, err := assisted.ReadMatrix(out.Attached)
	if err != nil {
		return out, err
	}
	rows, columns := x.Dims()
	switch asked.Slot.Round {
	case 1:
		for i := range rows { // half of each row that is there
			x.Set(i, 0, math.NaN())
		}
	case 2:
		x = mat.NewDense(rows-1, columns, nil)
	case 3:
		x.Set(0, 0, 1e200)
	}
	out.Attached = assisted.AppendMatrix(nil, x)
	return out, nil
}

// ask adds a line to the recipe.
func (f *federation) ask(line string) {
	f.t.Helper()
	text, err := os.ReadFile(f.recipe)
	if err == nil {
		err = os.WriteFile(f.recipe, append(text, line+"\n"...), 0o600)
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// An organisation that is killed for good has weight 0 from then on, one that answers nonsense in the rounds in which it does; both
// are named, the run goes on to its end, and says what it costs to be without the one that is gone.
func TestAssistLost(t *testing.T) {
	brief(t)
	f := alliance(t, "private")
	f.ask("deadline: 8s")
	f.members[2].role, f.members[2].args = "raver", nil
	f.open()
	f.joinAll()
	for f.round() < 3 {
		if !f.reach(f.length() + 1) {
			t.Fatal("the run was over")
		}
	}
	gone := f.members[1]
	gone.kill()
	gone.process = nil
	f.finish()
	rounds := func(metric, who string) (out []int) {
		for _, p := range series(t, f.run(), metric, who) {
			out = append(out, p.Round)
		}
		return out
	}
	if got := rounds("weight", "telephone"); len(got) < 2 || len(got) > 3 || got[0] != 0 {
		t.Errorf("telephone, killed after two rounds, has weights in the rounds %v", got)
	}
	if got := rounds("weight", "shop"); len(got) > 2 || slices.ContainsFunc(got, func(r int) bool { return r > 0 && r < 4 }) {
		t.Errorf("shop has weights in the rounds %v, of which 1 to 3 were nonsense", got)
	}
	cost := series(t, f.run(), "away", "telephone")
	if len(cost) < 2 || cost[len(cost)-1].Round != 4 || !(cost[len(cost)-1].Value > 0) {
		t.Errorf("what it costs to be without telephone: %v", cost)
	}
	log := f.coordOut.String()
	for _, want := range []string{
		"telephone has weight 0 in round 5", "away, with weight 0, and for how many rounds: telephone (", "On 90 rows set apart the loss is ",
		"shop is left out of round 2: its answer is not a number here and there in row 0", "shop is left out of round 3: its answer is 299×2 values, where 300×2 were asked for",
		"shop is left out of round 4: its answer is 1e+200 in row 0",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the coordinator does not say %q", want)
		}
	}
	if t.Failed() {
		t.Log(log)
	}
}
