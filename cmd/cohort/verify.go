package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/simulation"
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
computed again from the recipe, against the recorded digests, bit for bit. On another engine or another kind of processor
than the run's the bits differ, and the metrics of every round are compared within a tolerance instead.`,
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
	Mode   string  `json:"mode"` // "bits", or "tolerance" if engine or kernels differ from the run's
	Rounds int     `json:"rounds"`
	Worst  float64 `json:"worst,omitempty"` // with a tolerance: the largest difference of a metric
	Same   bool    `json:"same"`
	Why    string  `json:"why,omitempty"` // what differs
	Engine string  `json:"engine"`
}

// errDiffers says that a run is not what its records say.
var errDiffers = errors.New("the run does not come out as recorded")

func (v *verification) String() string {
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
	r.Run.Engine = meta.Engine
	o.apply(r)
	plan, engine, info, err := o.prepare(ctx, r)
	if err != nil {
		return err
	}
	defer engine.Close()
	v.Engine = info.String()
	job, err := plan.Job(engine)
	if err != nil {
		return err
	}
	job.Config.Stop = stop
	p := newProgress(io, r.Rounds, quiet || !io.tty)
	defer p.wipe()
	job.Observer = p
	if info.Engine == meta.Engine && info.Path == meta.Kernels {
		v.Mode = "bits"
		v.Rounds, err = job.Verify(ctx, v.Run)
	} else {
		v.Mode = "tolerance"
		v.Rounds, v.Worst, err = recipe.VerifyMetrics(ctx, job, v.Run)
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
