package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/record"
	"github.com/spf13/cobra"
)

type sweepCommand struct {
	runOptions
	over  []string
	seeds string
	dir   string
}

func newSweep(io streams, stop <-chan struct{}) *cobra.Command {
	var o sweepCommand
	c := &cobra.Command{
		Annotations: map[string]string{finishesRounds: roundUnderWay},
		Use:         "sweep RECIPE --over FIELD=V1,V2...",
		Short:       "Run a recipe for every combination of values and seeds",
		Long: `Run a recipe once for every combination of the values that --over lists and every seed, one after the other, and compare:
mean and standard deviation over seeds for each combination. With --dir a sweep that was stopped goes on where it was:
finished runs are kept.`,
		Example: `  cohort sweep my.yaml --over method=fedavg,fedprox --over partition.alpha=0.1,1 --seeds 0-2
  cohort sweep my.yaml --over 'options.mode=a1-e1;a1-e4' --dir sweeps/modes`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeRecipes,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			return o.run(cmd.Context(), io, stop, args[0])
		},
	}
	o.flags(c)
	f := c.Flags()
	f.StringArrayVar(&o.over, "over", nil, "field and its values, separated by commas (or by semicolons if there is one); may be repeated")
	f.StringVar(&o.seeds, "seeds", "", "seeds such as 0-2 or 1,5,7 (default the recipe's)")
	f.StringVar(&o.dir, "dir", "", "folder for the runs; a sweep that was stopped there goes on (default a new one in the folder of runs)")
	return c
}

// sweepResult is what sweep prints with --json.
type sweepResult struct {
	Schema int    `json:"schema"`
	Dir    string `json:"dir"`
	*recipe.Comparison
	Report string `json:"report"`
}

func (o *sweepCommand) run(ctx context.Context, io streams, stop <-chan struct{}, file string) error {
	seeds, err := parseSeeds(o.seeds)
	if err != nil {
		return err
	}
	if seeds != nil && o.seed >= 0 {
		return usagef("give --seed or --seeds, not both")
	}
	grid, err := grid(o.over)
	if err != nil {
		return err
	}
	var all []*recipe.Recipe // every combination is checked before the first is run
	var dirs []string
	seen := map[string]bool{}
	for _, changes := range grid {
		r, err := loadRecipe(file, append(append([]string{}, o.set...), changes...))
		if err != nil {
			return err
		}
		if err := o.apply(r); err != nil {
			return err
		}
		for _, seed := range orOne(seeds, r.Seed) {
			one := *r
			one.Seed = seed
			one.Name = sweepName(changes, seed)
			if seen[one.Name] {
				return usagef("--over: %s comes twice", one.Name)
			}
			seen[one.Name] = true
			all = append(all, &one)
		}
	}
	if o.dir == "" {
		o.dir = newFolder("sweep", time.Now())
	}
	for i, r := range all {
		dir := filepath.Join(o.dir, slug(r.Name))
		if !o.quiet {
			io.note("%d/%d %s", i+1, len(all), r.Name)
		}
		if err := o.one(ctx, io, stop, r, dir); err != nil {
			if errors.Is(err, federated.ErrStopped) || errors.Is(err, context.Canceled) {
				io.note("go on with the same command and --dir %s", quote(o.dir))
			}
			return err
		}
		dirs = append(dirs, dir)
	}
	c, err := recipe.Compare(dirs)
	if err != nil {
		return err
	}
	path, err := c.WriteReport(o.dir)
	if err != nil {
		return err
	}
	if o.json {
		return io.json(sweepResult{schema, o.dir, c, path})
	}
	printComparison(io, c)
	io.say("\nruns    %s\nreport  %s", o.dir, path)
	return nil
}

// one runs, resumes or skips a run of the sweep.
func (o *sweepCommand) one(ctx context.Context, io streams, stop <-chan struct{}, r *recipe.Recipe, dir string) error {
	resume := isRun(dir)
	if resume {
		old, err := recipe.OfRun(dir)
		if err != nil {
			return err
		}
		if !old.SameRun(r) {
			return usagef("%s holds a run of another recipe; remove it or choose another --dir", dir)
		}
		meta, err := record.ReadMeta(dir)
		if err != nil {
			return err
		}
		if meta.State == record.Finished {
			return nil
		}
	}
	plan, engine, info, err := o.prepare(ctx, r)
	if err != nil {
		return err
	}
	defer engine.Close()
	x := &execution{io: io, stop: stop, plan: plan, engine: engine, info: info, dir: dir, quiet: o.quiet || !io.tty, data: o.data, resume: resume, brief: true}
	_, err = x.do(ctx)
	return err
}

func orOne(seeds []uint64, seed uint64) []uint64 {
	if seeds == nil {
		return []uint64{seed}
	}
	return seeds
}

// sweepName says what one run of a sweep is.
func sweepName(changes []string, seed uint64) string {
	words := []string{}
	for _, c := range changes {
		field, value, _ := strings.Cut(c, "=")
		words = append(words, field[strings.LastIndexByte(field, '.')+1:]+"="+value)
	}
	return cmp.Or(strings.Join(words, " "), "default") + fmt.Sprintf(" seed=%d", seed)
}

// grid returns every combination of the values of fields, as changes of a recipe; the last field changes fastest.
func grid(over []string) ([][]string, error) {
	out := [][]string{{}}
	for _, o := range over {
		field, list, ok := strings.Cut(o, "=")
		comma := ","
		if strings.Contains(list, ";") {
			comma = ";"
		}
		values := strings.Split(list, comma)
		if !ok || field == "" || list == "" {
			return nil, usagef("--over %s: expected FIELD=V1,V2 such as train.batch=10,20", o)
		}
		var next [][]string
		for _, before := range out {
			for _, v := range values {
				next = append(next, append(append([]string{}, before...), field+"="+strings.TrimSpace(v)))
			}
		}
		if out = next; len(out) > 10_000 {
			return nil, usagef("--over: more than 10,000 combinations")
		}
	}
	return out, nil
}

// parseSeeds reads "0-2" or "1,5,7".
func parseSeeds(s string) ([]uint64, error) {
	if s == "" {
		return nil, nil
	}
	var out []uint64
	for part := range strings.SplitSeq(s, ",") {
		from, to, span := strings.Cut(strings.TrimSpace(part), "-")
		a, err := strconv.ParseUint(from, 10, 64)
		b := a
		if span && err == nil {
			b, err = strconv.ParseUint(to, 10, 64)
		}
		if err != nil || b < a || b-a > 10_000 {
			return nil, usagef("--seeds %s: expected seeds such as 0-2 or 1,5,7", s)
		}
		for v := a; v <= b; v++ {
			out = append(out, v)
		}
	}
	return out, nil
}
