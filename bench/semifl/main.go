// Command semifl times one round of SemiFL beside peer.py, the same round as a plain PyTorch loop that shares no code with this
// module: statistics of 20 clients and the server, labels, two epochs of five clients on strong and mixed views, five epochs of the
// server, on 28×28 images, with a CNN of 16, 32 and 64 channels. Both sides compute on one thread, and their rounds take turns, so
// that both see the same load.
//
//	go run ./bench/semifl -python PYTHON       # one with torch, numpy and pillow
//
// docs/results/semifl.md holds the result.
package main

import (
	"bufio"
	"context"
	_ "embed"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated/semifl"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/simulation"
)

//go:embed peer.py
var script string

func main() {
	python := flag.String("python", "python3", "Python with torch, numpy and pillow")
	rounds := flag.Int("rounds", 12, "rounds to time; two more come before")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *python, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "semifl:", err)
		os.Exit(1)
	}
}

// warm is how many rounds are not timed: programs are compiled in them.
const warm = 2

// peer is the Python program.
type peer struct {
	in  io.Writer
	out *bufio.Scanner
}

func newPeer(ctx context.Context, python string) (*peer, error) {
	cmd := exec.CommandContext(ctx, python, "-c", script)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &peer{in, bufio.NewScanner(out)}
	line, err := p.line()
	if err == nil {
		fmt.Println(line)
	}
	return p, err
}

func (p *peer) line() (string, error) {
	if p.out.Scan() {
		return p.out.Text(), nil
	}
	return "", fmt.Errorf("the peer has ended: %v", p.out.Err())
}

// round computes a round and returns its seconds.
func (p *peer) round() (float64, error) {
	if _, err := fmt.Fprintln(p.in); err != nil {
		return 0, err
	}
	line, err := p.line()
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(strings.TrimSpace(line), 64)
}

// turns is told of our rounds, and has the peer compute one after each.
type turns struct {
	peer         *peer
	began        time.Time
	ours, theirs []float64
	err          error
}

// Progress implements [simulation.Observer].
func (*turns) Progress(int, string, int, int) {}

// Round implements [simulation.Observer].
func (t *turns) Round(r simulation.Round) {
	ours := time.Since(t.began).Seconds()
	theirs, err := t.peer.round()
	if err != nil {
		t.err = err
	}
	if r.RoundClosed.Round >= warm {
		t.ours, t.theirs = append(t.ours, ours), append(t.theirs, theirs)
	}
	t.began = time.Now()
}

func run(ctx context.Context, python string, rounds int) error {
	p, err := newPeer(ctx, python)
	if err != nil {
		return err
	}
	o := semifl.DefaultOptions()
	o.Threshold = 0 // every label is accepted, so that both sides have the same work
	r := &recipe.Recipe{
		Version: recipe.Version, Method: "semifl", Rounds: rounds + warm,
		Data:      dataset.Spec{Name: "glyphs", Size: 28, Classes: 10, Train: 3100, Test: 10},
		Partition: dataset.Scheme{Name: "iid", Clients: 20, Server: 100},
		Model:     recipe.Model{Name: "cnn", Config: nn.Config{Widths: []int{16, 32, 64}}},
		Train: recipe.Train{Epochs: 2, Batch: 10, Clip: 1, Crop: 2,
			Optimizer: recipe.Optimizer{Name: "sgd", Rate: 0.03, Momentum: 0.9, Nesterov: true, Decay: 5e-4},
			Schedule:  recipe.Schedule{Kind: "constant"}},
		Round:    recipe.Round{Fraction: 0.25},
		Evaluate: recipe.Evaluate{Every: 1000, Batch: 250, Statistics: "clients"},
		Run:      recipe.Run{Checkpoint: 1000, Threads: 1, Workers: 1},
		Options:  o,
	}
	plan, err := r.Plan(ctx, "")
	if err != nil {
		return err
	}
	engine, info, err := r.Engine()
	if err != nil {
		return err
	}
	defer engine.Close()
	job, err := plan.Job(engine)
	if err != nil {
		return err
	}
	t := &turns{peer: p, began: time.Now()}
	job.Observer = t
	if _, err := job.Run(ctx); err != nil {
		return err
	}
	if t.err != nil {
		return t.err
	}
	ours, theirs := median(t.ours), median(t.theirs)
	fmt.Printf("%d rounds on one thread, median seconds: cohort (%s, %s) %.2f, PyTorch %.2f, ratio %.2f\n", rounds, info.Engine, info.Path, ours, theirs, theirs/ours)
	return nil
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}
