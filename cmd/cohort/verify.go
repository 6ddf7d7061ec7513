package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/node/coordinator"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/train"
	"github.com/spf13/cobra"
)

func newVerify(io streams, stop <-chan struct{}) *cobra.Command {
	var o engineOptions
	var asJSON, quiet bool
	c := &cobra.Command{
		Annotations: map[string]string{finishesRounds: roundUnderWay},
		Use:         "verify RUN",
		Short:       "Compute a run again and compare",
		Long: `Check that a run is what it says: the journal's chain of hashes, the checkpoints against the journal, and then every round,
computed again from the recipe, against the recorded digests, bit for bit. A run with differential privacy needs the key that lies in
its folder, secret.key, from which its noise was made. Of a run over a network, who took part in which
round is taken from the journal, and their data from the folders in --data DIR, one a member, as "cohort partition
--export" writes them. On another engine or another kind of processor
than the run's the bits differ, and the metrics of every round are compared within a tolerance instead. Where members add noise of
their own (privacy.distributed), only journal and checkpoints can be checked.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			dir, err := findRun(args[0])
			if err != nil {
				return err
			}
			v := &verification{Schema: schema, Run: dir}
			err = v.check(cmd.Context(), io, stop, &o, quiet || asJSON)
			if err == nil || v.Mode != "" && errors.Is(err, errDiffers) {
				if asJSON {
					return errors.Join(io.json(v), err)
				}
			}
			if err != nil {
				return err
			}
			io.say("%s", v)
			return nil
		},
	}
	o.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "show no progress")
	return c
}

// verification is what verify found.
type verification struct {
	Schema int     `json:"schema"`
	Run    string  `json:"run"`
	Mode   string  `json:"mode"` // "bits"; "tolerance" if engine or kernels differ from the run's; "records" if nothing can be computed again
	Rounds int     `json:"rounds"`
	Worst  float64 `json:"worst,omitempty"` // with a tolerance: the largest difference of a metric
	Same   bool    `json:"same"`
	Why    string  `json:"why,omitempty"` // what differs
	Engine string  `json:"engine"`
}

// errDiffers says that a run is not what its records say.
var errDiffers = errors.New("the run does not come out as recorded")

func (v *verification) String() string {
	if v.Mode == "records" {
		return fmt.Sprintf("%s: the records of all %d rounds are whole, and the checkpoints are those that they name; %s", v.Run, v.Rounds, v.Why)
	}
	if v.Mode == "bits" {
		return fmt.Sprintf("%s: all %d rounds come out to the same bits on %s", v.Run, v.Rounds, v.Engine)
	}
	return fmt.Sprintf("%s: the metrics of all %d rounds come out within %.3g on %s (the run was computed on another engine or kernels)", v.Run, v.Rounds, v.Worst, v.Engine)
}

func (v *verification) check(ctx context.Context, io streams, stop <-chan struct{}, o *engineOptions, quiet bool) error {
	if err := recipe.CheckFolder(v.Run); err != nil {
		return err
	}
	meta, err := record.ReadMeta(v.Run)
	if err != nil {
		return err
	}
	r, err := recipe.OfRun(v.Run)
	if err != nil {
		return err
	}
	if r.Privacy.Distributed {
		return v.records()
	}
	r.Run.Engine = meta.Engine
	o.apply(r)
	attendance, err := coordinator.ReadAttendance(v.Run)
	if err != nil {
		return err
	}
	engine, info, err := r.Engine()
	if err != nil {
		return err
	}
	defer engine.Close()
	v.Engine = info.String()
	p := newProgress(io, r.Rounds, quiet || !io.tty)
	defer p.wipe()
	same := info.Engine == meta.Engine && info.Path == meta.Kernels
	v.Mode = "tolerance"
	if same {
		v.Mode = "bits"
	}
	if len(attendance.Names) > 0 {
		err = v.repeat(ctx, stop, o, r, engine, attendance, p)
	} else {
		err = v.again(ctx, stop, o, r, engine, p)
	}
	p.wipe()
	var bits *simulation.MismatchError
	var metrics *recipe.ToleranceError
	if errors.As(err, &bits) || errors.As(err, &metrics) {
		v.Why = err.Error()
		return fmt.Errorf("%s: %w: %w", filepath.Clean(v.Run), errDiffers, err)
	}
	v.Same = err == nil
	return err
}

// records takes a run for what its records say, which [recipe.CheckFolder] has found whole.
func (v *verification) records() error {
	v.Mode = "records"
	v.Why = "the sums cannot be computed again: the members added noise to them that they keep to themselves"
	for _, err := range journal.Read(journal.OS(), v.Run, simulation.KindRoundClosed) {
		if err != nil {
			return err
		}
		v.Rounds++
	}
	if v.Rounds == 0 {
		return errors.New("the run has closed no round yet: there is nothing to verify")
	}
	return nil
}

// again computes a simulation again.
func (v *verification) again(ctx context.Context, stop <-chan struct{}, o *engineOptions, r *recipe.Recipe, engine *train.Engine, p *progress) error {
	plan, err := r.Plan(ctx, o.dataDir())
	if err != nil {
		return err
	}
	job, err := plan.Job(engine)
	if err != nil {
		return err
	}
	job.Config.Stop, job.Observer, job.Secret = stop, p, simulation.KeptSecrets(journal.OS(), v.Run)
	if v.Mode == "bits" {
		v.Rounds, err = job.Verify(ctx, v.Run)
	} else {
		v.Rounds, v.Worst, err = recipe.VerifyMetrics(ctx, job, v.Run)
	}
	return err
}

// repeat computes a run over a network again: who took part is on record, what they answered is computed from their data.
func (v *verification) repeat(ctx context.Context, stop <-chan struct{}, o *engineOptions, r *recipe.Recipe, engine *train.Engine, a coordinator.Attendance, p *progress) error {
	job, err := networked(ctx, o, r, engine, v.Run, a.Names)
	if err != nil {
		return err
	}
	job.Config.Stop, job.Observer = stop, p
	job.Secret = simulation.KeptSecrets(journal.OS(), v.Run)
	h, err := simulation.ReadHistory(record.Read(journal.OS(), v.Run))
	if err != nil {
		return err
	}
	if v.Mode == "bits" {
		v.Rounds, _, err = job.Replay(ctx, h, a.Resets)
	} else {
		v.Rounds, v.Worst, err = recipe.VerifyReplayMetrics(ctx, job, v.Run, h, a.Resets)
	}
	return err
}

// networked returns the job of a run over a network. The members' data lie in the folder of --data, each in a folder as "cohort
// partition --export" writes them; or they are the shares that the recipe itself deals, to clients of these names.
func networked(ctx context.Context, o *engineOptions, r *recipe.Recipe, engine *train.Engine, dir string, names []string) (*simulation.Job, error) {
	if data := o.dataDir(); holdsMembers(data, names) {
		from := recipe.ServerData{Dir: os.Getenv("COHORT_DATA")}
		plan, err := r.PlanServer(ctx, from)
		if err != nil { // the coordinator's own data are only for its own tests
			schema, bad := coordinator.ReadSchema(dir)
			if bad != nil {
				return nil, errors.Join(err, bad)
			}
			if plan, err = r.PlanServer(ctx, recipe.ServerData{Schema: &schema, None: true}); err != nil {
				return nil, err
			}
		}
		return plan.Replay(ctx, engine, data, names)
	}
	plan, err := r.Plan(ctx, o.dataDir())
	if err == nil {
		fleet := &simulation.Fleet{Split: plan.Split, Dealt: plan.Dealt, Engine: engine, Seed: r.Seed}
		for i, name := range names {
			if i >= fleet.Len() || fleet.Member(i).Name != name {
				err = fmt.Errorf("%s is no client of the recipe's partition", name)
				break
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the run needs the data of its members %s, each in a folder of its own in --data DIR: %w", strings.Join(first(names, 5), ", "), err)
	}
	return plan.Job(engine)
}

// holdsMembers reports whether a folder holds an export, or a folder for a member.
func holdsMembers(dir string, names []string) bool {
	if dir == "" {
		return false
	}
	for _, name := range append([]string{"manifest.json"}, names...) {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return true
		}
	}
	return false
}

// first returns at most n words, and dots if there are more.
func first(words []string, n int) []string {
	if len(words) <= n {
		return words
	}
	return append(append([]string{}, words[:n]...), "…")
}
