package recipe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/train"
)

// CheckFolder checks what lies in the folder of a run without computing anything: the chain of the journal, and every
// checkpoint against the digest that the journal or its own name gives.
func CheckFolder(dir string) error {
	type ended struct {
		Checkpoint string `json:"checkpoint"`
	}
	final := ""
	for r, err := range journal.Read(journal.OS(), dir) {
		if err != nil {
			return err
		}
		if r.Kind == simulation.KindEnded {
			var e ended
			if err := r.Decode(&e); err != nil {
				return err
			}
			final = e.Checkpoint
		}
	}
	c := record.Checkpoints{FS: journal.OS(), Dir: filepath.Join(dir, "checkpoints")}
	list, err := c.List()
	if err != nil {
		return err
	}
	found := final == ""
	for i := range list {
		if err := c.Load(&list[i], nil); err != nil {
			return err
		}
		found = found || list[i].Name == "final" && list[i].Digest.String() == final
	}
	if !found {
		return fmt.Errorf("%s: the final checkpoint is not the one that the journal names (%.16s…)", dir, final)
	}
	return nil
}

// Replay returns the job that computes a run over a network again ([simulation.Job.Replay]): the coordinator's half of the
// plan, and the data of the members that the run's roster names, in its order. The data of each lie below dir, in the folder
// that an export's manifest gives its name, or in one of that name.
func (p *ServerPlan) Replay(ctx context.Context, e *train.Engine, dir string, roster []string) (*simulation.Job, error) {
	folders, err := foldersOf(dir)
	if err != nil {
		return nil, err
	}
	fleet := &simulation.Fleet{Split: p.Split, Own: make([]simulation.Holder, 0, len(roster)), Engine: e, Seed: p.Recipe.Seed}
	for _, name := range roster {
		folder, ok := folders[name]
		if !ok {
			folder = name
		}
		if !filepath.IsLocal(folder) {
			return nil, fmt.Errorf("data of member %q: folder %q is outside %s", name, folder, dir)
		}
		mine, err := p.Recipe.LoadMember(ctx, filepath.Join(dir, folder), p.Schema)
		if err != nil {
			return nil, fmt.Errorf("member %s: %w", name, err)
		}
		h := simulation.Holder{Name: name, Train: mine.Train.All()}
		if mine.Test != nil {
			h.Test = mine.Test.All()
		}
		fleet.Own = append(fleet.Own, h)
	}
	a, err := p.Algorithm()
	if err != nil {
		return nil, err
	}
	return &simulation.Job{Algorithm: a, Fleet: fleet, Config: p.Config(), Workers: p.Recipe.Run.Workers}, nil
}

// foldersOf returns the folders of an export by the name of the member whose data they hold; none if dir is no export.
func foldersOf(dir string) (map[string]string, error) {
	b, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var m dataset.Manifest
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		return nil, fmt.Errorf("manifest of the members' data: %w", err)
	}
	folders := map[string]string{}
	for _, x := range m.Members {
		folders[x.Name] = x.Folder
	}
	return folders, nil
}

// How far metrics may lie from the recorded ones on another engine: float32 sums in another order differ in the last bits,
// and training amplifies that from round to round.
const (
	toleratedAccuracy = 0.05 // of accuracies, absolute
	toleratedLoss     = 0.1  // of everything else, relative to 1 + |recorded|
)

// ToleranceError tells that a metric came out further from the recorded one than another engine explains.
type ToleranceError struct {
	Round              int // from 1
	Metric             string
	Recorded, Computed float64
}

func (e *ToleranceError) Error() string {
	return fmt.Sprintf("round %d: %s is %.6g, recorded %.6g", e.Round, e.Metric, e.Computed, e.Recorded)
}

// VerifyMetrics runs a job in memory and compares the metrics of every round with those recorded in dir. It returns how
// many rounds agree within the tolerance and the largest difference.
func VerifyMetrics(ctx context.Context, job *simulation.Job, dir string) (rounds int, worst float64, err error) {
	return verifyMetrics(ctx, job, dir, func(ctx context.Context, rounds int) error {
		job.Config.Rounds = rounds
		_, err := job.Run(ctx)
		return err
	})
}

// VerifyReplayMetrics is VerifyMetrics for a run over a network, whose history and resets say who took part: see
// [simulation.Job.Replay].
func VerifyReplayMetrics(ctx context.Context, job *simulation.Job, dir string, h *simulation.History, resets []simulation.Reset) (rounds int, worst float64, err error) {
	return verifyMetrics(ctx, job, dir, func(ctx context.Context, _ int) error {
		_, err := job.Repeat(ctx, h, resets)
		return err
	})
}

func verifyMetrics(ctx context.Context, job *simulation.Job, dir string, run func(ctx context.Context, rounds int) error) (rounds int, worst float64, err error) {
	m, err := record.ReadMetrics(dir)
	if err != nil {
		return 0, 0, err
	}
	defer m.Close()
	w := &metricsWatcher{next: job.Observer, recorded: map[string]map[int]float64{}}
	for _, name := range []string{"loss.train", "loss", "accuracy", "loss.local", "accuracy.local", "loss.personal", "accuracy.personal"} {
		points, err := m.Series(name, "")
		if err != nil {
			return 0, 0, err
		}
		w.recorded[name] = map[int]float64{}
		for _, p := range points {
			w.recorded[name][p.Round] = p.Value
			rounds = max(rounds, p.Round+1)
		}
	}
	if rounds == 0 {
		return 0, 0, errors.New("the run has closed no round yet: there is nothing to verify")
	}
	ctx, w.cancel = context.WithCancelCause(ctx)
	defer w.cancel(nil)
	job.Observer = w
	err = run(ctx, rounds)
	if cause := context.Cause(ctx); w.found && cause != nil {
		return w.agreed, w.worst, cause
	}
	return w.agreed, w.worst, err
}

// metricsWatcher compares rounds as they come and ends the run at the first that differs.
type metricsWatcher struct {
	next     simulation.Observer
	recorded map[string]map[int]float64 // by metric and round
	cancel   context.CancelCauseFunc
	found    bool
	agreed   int
	worst    float64
}

// Progress implements [simulation.Observer].
func (w *metricsWatcher) Progress(round int, phase string, answered, asked int) {
	w.next.Progress(round, phase, answered, asked)
}

// Round implements [simulation.Observer].
func (w *metricsWatcher) Round(r simulation.Round) {
	w.next.Round(r)
	if w.found {
		return
	}
	for name, byRound := range w.recorded {
		want, ok := byRound[r.RoundClosed.Round]
		if !ok {
			continue
		}
		got := r.Metric(name, "")
		diff, bound := math.Abs(got-want), toleratedAccuracy
		if name[0] == 'l' {
			diff, bound = diff/(1+math.Abs(want)), toleratedLoss
		}
		w.worst = math.Max(w.worst, diff)
		if !(diff <= bound) {
			w.found = true
			w.cancel(&ToleranceError{r.RoundClosed.Round + 1, name, want, got})
			return
		}
	}
	w.agreed++
}
