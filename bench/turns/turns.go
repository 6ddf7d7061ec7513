// Package turns times rounds of a simulation beside a peer: a program that computes the like and shares no code with this module.
// Rounds of both take turns, so that both see the same load.
//
// The peer says a line, is given what it needs, and then answers to every line with the seconds of a round.
package turns

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/simulation"
)

// Peer is a Python program.
type Peer struct {
	in  io.Writer
	out *bufio.Scanner
}

// Start runs a script, prints what it says of itself, and gives it the lines.
func Start(ctx context.Context, python, script string, lines ...string) (*Peer, error) {
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
	p := &Peer{in, bufio.NewScanner(out)}
	line, err := p.line()
	if err != nil {
		return nil, err
	}
	fmt.Println(line)
	for _, l := range lines {
		if _, err := fmt.Fprintln(p.in, l); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *Peer) line() (string, error) {
	if p.out.Scan() {
		return p.out.Text(), nil
	}
	return "", fmt.Errorf("the peer has ended: %v", p.out.Err())
}

// Round computes a round, in a way that the peer knows by name, and returns its seconds.
func (p *Peer) Round(way string) (float64, error) {
	if _, err := fmt.Fprintln(p.in, way); err != nil {
		return 0, err
	}
	line, err := p.line()
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(strings.TrimSpace(line), 64)
}

// Warm is how many rounds are not timed: programs are compiled in them.
const Warm = 2

// turns is told of our rounds, and has the peer compute one after each.
type turns struct {
	peer         *Peer
	ways         []string
	began        time.Time
	ours, theirs []float64 // theirs: way by way
	err          error
}

// Progress implements [simulation.Observer].
func (*turns) Progress(int, string, int, int) {}

// Round implements [simulation.Observer].
func (t *turns) Round(r simulation.Round) {
	ours := time.Since(t.began).Seconds()
	if r.RoundClosed.Round >= Warm {
		t.ours = append(t.ours, ours)
	}
	for _, way := range t.ways {
		theirs, err := t.peer.Round(way)
		if err != nil {
			t.err = err
		}
		if r.RoundClosed.Round >= Warm {
			t.theirs = append(t.theirs, theirs)
		}
	}
	t.began = time.Now()
}

// Times are median seconds.
type Times struct {
	Engine string
	Ours   float64
	Theirs []float64 // by way
}

// Run runs a recipe on data in a folder, and after each of its rounds one of the peer in each of the ways.
func (p *Peer) Run(ctx context.Context, r *recipe.Recipe, data string, ways ...string) (Times, error) {
	plan, err := r.Plan(ctx, data)
	if err != nil {
		return Times{}, err
	}
	engine, info, err := r.Engine()
	if err != nil {
		return Times{}, err
	}
	defer engine.Close()
	job, err := plan.Job(engine)
	if err != nil {
		return Times{}, err
	}
	t := &turns{peer: p, ways: ways, began: time.Now()}
	job.Observer = t
	if _, err := job.Run(ctx); err != nil {
		return Times{}, err
	}
	if t.err != nil {
		return Times{}, t.err
	}
	out := Times{Engine: fmt.Sprintf("%s, %s", info.Engine, info.Path), Ours: median(t.ours)}
	for w := range ways {
		var one []float64
		for k := w; k < len(t.theirs); k += len(ways) {
			one = append(one, t.theirs[k])
		}
		out.Theirs = append(out.Theirs, median(one))
	}
	return out, nil
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}
