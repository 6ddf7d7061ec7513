package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/spf13/cobra"
)

type partitionCommand struct {
	data   string
	set    []string
	seed   int64
	png    string
	export string
	all    bool
	json   bool
}

func newPartition(io streams, _ <-chan struct{}) *cobra.Command {
	var o partitionCommand
	c := &cobra.Command{
		Use:   "partition RECIPE",
		Short: "Show how a recipe deals its data to the clients, or write it out",
		Long: `Deal the data of a recipe to its clients and show who holds what: a table, and as a picture a heat map of clients and
classes. With --export every client's share is written to a folder of its own, which a recipe reads as data set "export".`,
		Example: `  cohort partition my.yaml --set partition.name=dirichlet --set partition.alpha=0.1
  cohort partition my.yaml --png map.png
  cohort partition my.yaml --export shares`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeRecipes,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.png != "" && filepath.Ext(o.png) != ".png" {
				return usagef("--png %s: expected a name that ends in .png", o.png)
			}
			return o.run(cmd.Context(), io, args[0])
		},
	}
	f := c.Flags()
	f.StringVar(&o.data, "data", "", "folder of real data sets (default $COHORT_DATA)")
	f.StringArrayVar(&o.set, "set", nil, "change a field of the recipe, such as partition.alpha=0.1; may be repeated")
	f.Int64Var(&o.seed, "seed", -1, "seed, instead of the recipe's")
	f.Lookup("seed").DefValue = "0" // shown as no default
	f.StringVar(&o.png, "png", "", "file to draw the heat map to")
	f.StringVar(&o.export, "export", "", "new folder to write every client's share to")
	f.BoolVar(&o.all, "all", false, "list all clients, not only the first ones")
	f.BoolVar(&o.json, "json", false, "print the result as JSON")
	return c
}

// listed is how many clients are listed without --all.
const listed = 20

func (o *partitionCommand) run(ctx context.Context, io streams, file string) error {
	r, err := loadRecipe(file, o.set)
	if err != nil {
		return err
	}
	if o.seed >= 0 {
		r.Seed = uint64(o.seed)
	}
	engine := engineOptions{data: o.data}
	split, dealt, err := r.Deal(ctx, engine.dataDir())
	if err != nil {
		return err
	}
	m := dealt.Manifest(split.Train, split.Test)
	if o.export != "" {
		if m, err = dealt.Export(ctx, o.export, split.Train, split.Test); err != nil {
			return err
		}
	}
	if o.png != "" {
		if err := writePNG(o.png, m); err != nil {
			return err
		}
	}
	if o.json {
		return io.json(m)
	}
	most := listed
	if o.all {
		most = 0
	}
	if err := m.WriteText(io.out, most); err != nil {
		return err
	}
	if m.Classes != nil {
		io.say("")
		drawHeatmap(io, m)
	}
	for _, made := range []struct{ path, words string }{{o.png, "heat map"}, {o.export, "shares"}} {
		if made.path != "" {
			io.say("\n%s: %s", made.words, made.path)
		}
	}
	return nil
}

func writePNG(path string, m *dataset.Manifest) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := m.WritePNG(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// loadRecipe reads a recipe file for a command.
func loadRecipe(file string, set []string) (*recipe.Recipe, error) {
	r, err := recipe.Load(file, set...)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usagef("there is no recipe %s; \"cohort init METHOD %s\" writes one to start from", file, quote(file))
	}
	return r, err
}
