// Command personalfr times a round of PersonalFR on MovieLens 100K beside peer.py, the same round as a plain PyTorch loop that
// shares no code with this module: ten of a hundred clients, five epochs, batches of ten users. Both sides compute on one thread,
// with partial compression and without, and their rounds take turns, so that both see the same load.
//
//	go run ./bench/personalfr -python PYTHON       # one with torch; MovieLens 100K in $COHORT_DATA
//
// docs/results/personalfr.md holds the result.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/cohort-learning/cohort/bench/turns"
	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated/personalfr"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/recommend"
)

//go:embed peer.py
var script string

func main() {
	python := flag.String("python", "python3", "Python with torch")
	rounds := flag.Int("rounds", 40, "rounds to time of each kind; two more come before")
	data := flag.String("data", os.Getenv("COHORT_DATA"), "folder of real data sets")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *python, *data, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "personalfr:", err)
		os.Exit(1)
	}
}

// setting is the recipe of docs/results/personalfr.md, with a compression, measured at its end alone.
func setting(compression string, rounds int) (*recipe.Recipe, error) {
	r, err := recipe.Default("personalfr")
	if err != nil {
		return nil, err
	}
	o := personalfr.Defaults()
	o.Compression, o.ReferenceDecay, o.Catalogue = compression, compression == "none", false
	r.Options, r.Rounds, r.Evaluate.Every, r.Run = o, rounds+turns.Warm, 1000, recipe.Run{Checkpoint: 1000, Threads: 1, Workers: 1}
	r.Data, r.Partition = dataset.Spec{Name: "movielens-100k"}, dataset.Scheme{Name: "users", Clients: 100}
	return r, nil
}

// ratings are those of all clients, for the peer: by client and user, items and ratings.
func ratings(ctx context.Context, r *recipe.Recipe, data string) (string, error) {
	split, dealt, err := r.Deal(ctx, data)
	if err != nil {
		return "", err
	}
	var out struct {
		Items   int        `json:"items"`
		Clients [][][2]any `json:"clients"`
	}
	out.Items = len(split.Train.Ratings.Items)
	for k := range dealt.Train.Clients() {
		t := recommend.Of(dealt.Train.View(split.Train, k))
		users := make([][2]any, t.Len())
		for u := range users {
			items, values := t.Row(u)
			users[u] = [2]any{items, values}
		}
		out.Clients = append(out.Clients, users)
	}
	b, err := json.Marshal(out)
	return string(b), err
}

func run(ctx context.Context, python, data string, rounds int) error {
	r, err := setting("active", rounds)
	if err != nil {
		return err
	}
	given, err := ratings(ctx, r, data)
	if err != nil {
		return err
	}
	p, err := turns.Start(ctx, python, script, given)
	if err != nil {
		return err
	}
	for _, compression := range []string{"active", "none"} {
		if r, err = setting(compression, rounds); err != nil {
			return err
		}
		t, err := p.Run(ctx, r, data, "active", "dense")
		if err != nil {
			return err
		}
		fmt.Printf("compression %s, %d rounds on one thread, median seconds: cohort (%s) %.4f, PyTorch compressed %.4f, ratio %.2f, dense %.4f, ratio %.2f\n",
			compression, rounds, t.Engine, t.Ours, t.Theirs[0], t.Theirs[0]/t.Ours, t.Theirs[1], t.Theirs[1]/t.Ours)
	}
	return nil
}
