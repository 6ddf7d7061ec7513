// Command workers measures what lending machines to a simulation gains: the same run with one worker and with two, each a
// process of its own with one thread, and for comparison on one thread of the simulation itself.
//
//	go run ./bench/workers
//	go run ./bench/workers -repeat 5 -json
//
// The simulation computes no clients while it has workers; it has one thread, too, for its packing, its sums and its
// evaluations, on the same processors. The settings take turns, and the figure of each is the median of its runs, from the
// first task to the last round; starting the workers and loading the data do not count. The gain is the median of the ratios
// within a turn. Beside it stands the processor time of the busiest worker, which says what is gained where other work slows
// all of them. Every run must come to the same digest.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/simulation/worker"
	"github.com/cohort-learning/cohort/train"
)

// learned is the run: 20 clients with 100 pictures each, five passes a round, evaluated at its end.
const learned = `method: fedavg
rounds: %d
data: {name: glyphs, size: 16, train: 2000, test: 200}
partition: {name: iid, clients: 20}
model: {name: cnn, widths: [32, 64]}
train: {epochs: 5, batch: 10}
round: {fraction: 1}
evaluate: {every: 1000, clients: false}
`

type options struct {
	rounds, repeat int
	json           bool
	work           string
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 3, "rounds of a run")
	flag.IntVar(&o.repeat, "repeat", 3, "runs of each setting")
	flag.BoolVar(&o.json, "json", false, "print JSON instead of a table")
	flag.StringVar(&o.work, "work", "", "be a worker at this `URL` (used by the command itself)")
	flag.Parse()
	runtime.GOMAXPROCS(1)
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	do := func() error { return run(ctx, o) }
	if o.work != "" {
		do = func() error { return work(ctx, o.work) }
	}
	if o.rounds < 1 || o.repeat < 1 {
		do = func() error { return errors.New("-rounds and -repeat take 1 or more") }
	}
	if err := do(); err != nil {
		fmt.Fprintln(os.Stderr, "workers:", err)
		os.Exit(1)
	}
}

// machine is what all processes here have in common.
func machine(i backend.Info) worker.Machine {
	return worker.Machine{Version: "bench", Engine: i.Engine, Kernels: i.Path}
}

func engine() (*train.Engine, backend.Info, error) {
	b, err := backend.New("", backend.Options{Threads: 1})
	if err != nil {
		return nil, backend.Info{}, err
	}
	return train.NewEngine(b), backend.Describe(b), nil
}

// work is the worker's process.
func work(ctx context.Context, url string) error {
	a, err := worker.ParseAddress(url)
	if err != nil {
		return err
	}
	e, info, err := engine()
	if err != nil {
		return err
	}
	defer e.Close()
	return worker.Work(ctx, a, worker.Lent{Machine: machine(info), Name: "worker", Threads: 1, Engine: e, Build: recipe.LentClients,
		Tell: func(string) { fmt.Println("at work") }})
}

// outcome is one run.
type outcome struct {
	seconds float64
	busiest float64 // processor seconds
	digest  string
	tallies []worker.Tally
}

// setting is one row.
type setting struct {
	Name    string  `json:"name"`
	Workers int     `json:"workers"`
	Seconds float64 `json:"seconds"` // median
	Low     float64 `json:"low"`
	High    float64 `json:"high"`
	Gain    float64 `json:"gain"`    // time of one worker in the same turn / this; median
	Busiest float64 `json:"busiest"` // processor seconds of the busiest worker, with its start; median
	Sent    int64   `json:"sent"`    // bytes to all workers, of the last run
	Back    int64   `json:"received"`
	Shares  []int   `json:"shares"` // clients that each worker computed

	times, busy []float64
}

func run(ctx context.Context, o options) error {
	r, err := recipe.Parse("bench", fmt.Appendf(nil, learned, o.rounds))
	if err != nil {
		return err
	}
	plan, err := r.Plan(ctx, "")
	if err != nil {
		return err
	}
	rows := []*setting{{Name: "this process, one thread"}, {Name: "one worker", Workers: 1}, {Name: "two workers", Workers: 2}}
	digest := ""
	for range o.repeat {
		for _, row := range rows {
			out, err := once(ctx, plan, row.Workers)
			if err != nil {
				return err
			}
			if digest == "" {
				digest = out.digest
			}
			if out.digest != digest {
				return fmt.Errorf("%s came to the digest %s, the first run to %s", row.Name, out.digest, digest)
			}
			row.times, row.busy = append(row.times, out.seconds), append(row.busy, out.busiest)
			row.Sent, row.Back, row.Shares = 0, 0, nil
			for _, t := range out.tallies {
				row.Sent, row.Back, row.Shares = row.Sent+t.Sent, row.Back+t.Received, append(row.Shares, t.Clients)
			}
		}
	}
	for _, row := range rows {
		var gains []float64
		for i, t := range row.times {
			gains = append(gains, rows[1].times[i]/t)
		}
		row.Gain, row.Busiest, row.Seconds = median(gains), median(row.busy), median(row.times)
		row.Low, row.High = slices.Min(row.times), slices.Max(row.times)
	}
	if o.json {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		return e.Encode(map[string]any{"cores": runtime.NumCPU(), "rounds": o.rounds, "repeat": o.repeat, "digest": digest, "rows": rows})
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\tseconds\tlow – high\tone worker / this\tbusiest worker\tsent\treceived\tclients")
	for _, row := range rows {
		fmt.Fprintf(t, "%s\t%.2f\t%.2f – %.2f\t%.2f\t%.2f s\t%.1f MB\t%.1f MB\t%v\n", row.Name, row.Seconds, row.Low, row.High, row.Gain, row.Busiest,
			float64(row.Sent)/1e6, float64(row.Back)/1e6, row.Shares)
	}
	fmt.Fprintf(t, "\n%d cores; all %d runs came to the digest %s\n", runtime.NumCPU(), len(rows)*o.repeat, digest)
	return t.Flush()
}

func median(x []float64) float64 {
	x = slices.Clone(x)
	slices.Sort(x)
	return x[len(x)/2]
}

// once runs the plan with so many workers.
func once(ctx context.Context, plan *recipe.Plan, workers int) (out outcome, err error) {
	e, info, err := engine()
	if err != nil {
		return out, err
	}
	defer e.Close()
	job, err := plan.Job(e)
	if err != nil {
		return out, err
	}
	job.Workers = 1
	if workers > 0 {
		h, err := worker.Listen(worker.Options{Listen: "127.0.0.1:0", Machine: machine(info), Run: plan.Lent()})
		if err != nil {
			return out, err
		}
		job.Workers, job.Elsewhere = -1, h.Lend
		var ended []func() (busy float64, err error)
		defer func() {
			err = errors.Join(err, h.Close())
			for _, wait := range ended {
				busy, e := wait()
				out.busiest, err = max(out.busiest, busy), errors.Join(err, e)
			}
			out.tallies = h.Tallies()
		}()
		for range workers {
			wait, err := lend(ctx, h.Address().String())
			if err != nil {
				return out, err
			}
			ended = append(ended, wait)
		}
	}
	began := time.Now()
	s, err := job.Run(ctx)
	out.seconds, out.digest = time.Since(began).Seconds(), s.Digest()
	return out, err
}

// lend starts a worker's process and waits until it is at work. The function waits for its end and returns the processor
// seconds that it took.
func lend(ctx context.Context, url string) (wait func() (float64, error), err error) {
	cmd := exec.CommandContext(ctx, os.Args[0], "-work", url)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.HasPrefix(line, "at work") {
		return nil, errors.Join(fmt.Errorf("a worker did not begin: %q", line), err, cmd.Wait())
	}
	return func() (float64, error) {
		err := cmd.Wait()
		return (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), err
	}, nil
}
