package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/heterofl"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/weights"
)

// draws are what the peer drew: draws.json, and beside it the initial weights.
type draws struct {
	TrainRows []int32    `json:"train_rows"` // rows of the files; the others count from 0 in these
	TestRows  []int32    `json:"test_rows"`
	Train     [][]int32  `json:"train"` // by client
	Test      [][]int32  `json:"test"`
	Selected  [][]int    `json:"selected"` // clients, by round
	Levels    [][]string `json:"levels"`   // theirs

	start weights.Set
	mode  heterofl.Mode
}

func readDraws(dir string) (*draws, error) {
	text, err := os.ReadFile(filepath.Join(dir, "draws.json"))
	if err != nil {
		return nil, err
	}
	d := new(draws)
	if err := json.Unmarshal(text, d); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	d.start, _, err = weights.ReadFile(filepath.Join(dir, "weights.safetensors"))
	return d, err
}

// deal makes the plan's data, partition and initial weights those of the peer.
func (d *draws) deal(ctx context.Context, plan *recipe.Plan, data string) error {
	r := plan.Recipe
	h, ok := r.Options.(*heterofl.Options)
	if !ok || h.Levels != "fixed" || r.Rounds > len(d.Selected) {
		return errors.New("draws of the peer need a recipe of heterofl with -levels fixed and no more rounds than were drawn")
	}
	var err error
	if d.mode, err = heterofl.ParseMode(h.Mode, h.Rates); err != nil {
		return err
	}
	spec := r.Data
	spec.Root, spec.Train, spec.Test = data, 0, 0
	whole, err := dataset.Load(ctx, spec)
	if err != nil {
		return err
	}
	plan.Split = &dataset.Split{Train: whole.Train.Subset(d.TrainRows), Test: whole.Test.Subset(d.TestRows)}
	plan.Dealt = new(dataset.Dealt)
	if plan.Dealt.Train, err = dataset.NewPartition(d.Train, len(d.TrainRows), nil); err != nil {
		return err
	}
	if plan.Dealt.Test, err = dataset.NewPartition(d.Test, len(d.TestRows), nil); err != nil {
		return err
	}
	plan.Problem.Start = &d.start
	return nil
}

// directed is HeteroFL with members and levels as they were drawn elsewhere.
type directed struct {
	federated.Algorithm
	*draws
}

// Next implements [federated.Algorithm].
func (a *directed) Next(s federated.State) (federated.Phase, bool) {
	p, ok := a.Algorithm.Next(s)
	if ok && p.Name == "train" {
		p.Who = federated.Selection{Everyone: true, Eligible: func(m federated.Member) bool {
			return slices.Contains(a.Selected[s.Round], m.Index)
		}}
	}
	return p, ok
}

// Task asks for what a member would be asked whose fixed level is the one that was drawn.
func (a *directed) Task(s federated.State, p federated.Phase, m federated.Member) (federated.Task, error) {
	if p.Name == "train" {
		level := a.Levels[s.Round][slices.Index(a.Selected[s.Round], m.Index)]
		n := len(a.Train)
		for m.Index = 0; m.Index < n && a.mode[a.mode.Fixed(m.Index, n)].Name != level; m.Index++ {
		}
		if m.Index == n {
			return federated.Task{}, fmt.Errorf("mode %s gives none of %d members the level %s", a.mode, n, level)
		}
	}
	return a.Algorithm.Task(s, p, m)
}
