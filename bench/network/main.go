// Command network measures what a coordinator costs: rounds in which nothing is computed, results that come all at once, and
// its memory.
//
//	go run ./bench/network            # every row: minutes, and some GiB of disk
//	go run ./bench/network -quick     # smaller: less than a minute or two
//	go run ./bench/network -json
//
// The coordinator is a process of its own with everything on: TLS 1.3 with certificates of both sides, signed messages, journal
// and results durable on the disk in -dir. The members are a second process on the same machine: light ones that keep to the
// protocol and compute nothing; their results are drawn from a seed, and they verify what they are told to do, not the answers to
// what they ask. What is broadcast, tasks and ends of phases, one member of the process verifies and reads for all: on machines of
// their own each does that for itself, at the same time. So the figures are those of both sides together on the same
// processors. A round is timed by the coordinator, from its opening to its end on record; the first three do not count, and
// connecting is told apart.
//
// Rows have the form of bench/compare: ratio is target/ours for times and memory and ours/target for rates, so that more than 1
// means that the target is met.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

type options struct {
	quick, json bool
	only        *regexp.Regexp
	dir         string
	profile     string
	crowd       int
	// of the processes that the command starts
	coordinate, members bool
	scenario            string
}

func main() {
	var o options
	var only string
	flag.BoolVar(&o.quick, "quick", false, "smaller")
	flag.BoolVar(&o.json, "json", false, "print JSON instead of a table")
	flag.StringVar(&only, "only", "", "only rows whose name matches this regular `pattern`")
	flag.StringVar(&o.dir, "dir", "", "folder for what is written (default a new one in the system's for temporary files)")
	flag.StringVar(&o.profile, "profile", "", "`folder` for profiles of both processes (default: none are made)")
	flag.IntVar(&o.crowd, "crowd", 10_000, "`members` of the largest empty round: each needs an open file of both processes")
	flag.BoolVar(&o.coordinate, "coordinate", false, "be the coordinator (used by the command itself)")
	flag.BoolVar(&o.members, "members", false, "be the members (used by the command itself)")
	flag.StringVar(&o.scenario, "scenario", "", "what is measured, as JSON (used by the command itself)")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	err := func() (err error) {
		if o.only, err = regexp.Compile(only); err != nil {
			return err
		}
		switch {
		case o.coordinate:
			return coordinate(ctx, o)
		case o.members:
			return beMembers(ctx, o)
		}
		return run(ctx, o)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "network:", err)
		os.Exit(1)
	}
}

// scenario is one run that is measured.
type scenario struct {
	Name    string `json:"name"`
	Members int    `json:"members"`
	Bytes   int64  `json:"bytes"` // of each result and of the model; 0: nothing is carried
	Rounds  int    `json:"rounds"`
	Pool    int    `json:"pool"` // members at work at a time; 0: all
	Down    bool   `json:"down"` // whether the model is sent to the members, too
	Secure  bool   `json:"secure"`
}

// outcome is what the coordinator tells of a scenario.
type outcome struct {
	Connected float64   `json:"connected"` // seconds until all members had agreed
	Rounds    []float64 `json:"rounds"`    // seconds of each
	PeakMiB   float64   `json:"peak_mib"`
	Refused   int64     `json:"refused"` // requests that were refused, for whatever reason
	Folded    int       `json:"folded"`  // results in the last round
	Up        int64     `json:"up"`      // bytes of attachments and tensors from all members in the last round
	Down      int64     `json:"down"`

	Phases map[string]float64 `json:"phases"` // seconds of each phase of the last round

	work [2]float64 // seconds of processor time of a round at the coordinator and at the members; 0: unknown
}

// counting is what the coordinator tells when the rounds begin that count, which are so many.
type counting struct {
	Rounds int `json:"rounds"`
}

// warm is how many rounds do not count.
const warm = 3

type row struct {
	Name  string  `json:"name"`
	Ours  float64 `json:"ours"`
	Peer  float64 `json:"peer"` // the target
	Unit  string  `json:"unit"`
	Ratio float64 `json:"ratio"`
	Note  string  `json:"note,omitempty"`
}

func run(ctx context.Context, o options) error {
	if o.dir == "" {
		dir, err := os.MkdirTemp("", "cohort-network")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		o.dir = dir
	}
	report := struct {
		Schema int      `json:"schema"`
		Load   string   `json:"load"`
		Sync   float64  `json:"sync_ms"` // of one small write, median
		Rows   []row    `json:"rows"`
		Failed []string `json:"failed,omitempty"`
	}{Schema: 1, Load: load()}
	var err error
	if report.Sync, err = syncTime(o.dir); err != nil {
		return err
	}
	if !o.json {
		fmt.Printf("load %s; a write and its sync take %.2f ms here\n\n", report.Load, report.Sync)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, m := range measures(o.quick, o.crowd) {
		if !o.only.MatchString(m.name) {
			continue
		}
		rows, err := m.rows(ctx, o)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			report.Failed = append(report.Failed, fmt.Sprintf("%s: %v", m.name, err))
			fmt.Fprintln(os.Stderr, "network:", report.Failed[len(report.Failed)-1])
			continue
		}
		report.Rows = append(report.Rows, rows...)
		for _, r := range rows {
			if !o.json {
				fmt.Fprintf(w, "%s\t%.4g %s\ttarget %.4g\t%.2f×\t%s\n", r.Name, r.Ours, r.Unit, r.Peer, r.Ratio, r.Note)
				w.Flush()
			}
		}
	}
	if o.json {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		if err := e.Encode(report); err != nil {
			return err
		}
	}
	if len(report.Failed) > 0 {
		return fmt.Errorf("%d measurements failed", len(report.Failed))
	}
	return nil
}

// measure is some scenarios and what is made of them.
type measure struct {
	name string
	rows func(context.Context, options) ([]row, error)
}

func measures(quick bool, crowd int) []measure {
	rounds := warm + 20
	empty := func(name string, members int, target float64) measure {
		return measure{name, func(ctx context.Context, o options) ([]row, error) {
			r := rounds
			if quick && members > 1000 {
				r = warm + 5
			}
			out, err := play(ctx, o, scenario{Name: name, Members: members, Rounds: r})
			if err != nil {
				return nil, err
			}
			ms := 1e3 * median(out.Rounds[warm:])
			return []row{{Name: name, Ours: ms, Peer: target, Unit: "ms", Ratio: target / ms,
				Note: fmt.Sprintf("median of %d rounds; processor time of a round %.3g s at the coordinator, %.3g s at the members; all connected after %.1f s; coordinator %.0f MiB; %d refused",
					r-warm, out.work[0], out.work[1], out.Connected, out.PeakMiB, out.Refused)}}, nil
		}}
	}
	storm, size := 1000, int64(500_000)
	small, large, model := 10, 1000, int64(100_000_000)
	if quick {
		large, model = 200, 10_000_000
	}
	return []measure{
		empty("empty round, 100 members", 100, 50),
		{"empty round with secure sums, 100 members", secureRound},
		empty(fmt.Sprintf("empty round, %s members", thousands(crowd)), crowd, 2000*float64(crowd)/10_000),
		{"1,000 results of 0.5 MB at once", func(ctx context.Context, o options) (rows []row, err error) {
			for _, down := range []bool{false, true} {
				out, err := play(ctx, o, scenario{Name: "storm", Members: storm, Bytes: size, Rounds: warm + 3, Down: down})
				if err != nil {
					return nil, err
				}
				s := median(out.Rounds[warm:])
				name, bytes, target := "1,000 results of 0.5 MB at once", float64(storm)*float64(size), 100.
				if down {
					name, bytes = "the same, and the model to each first, both ways", 2*bytes
				}
				rate := bytes / s / (1 << 20)
				rows = append(rows, row{Name: name, Ours: rate, Peer: target, Unit: "MiB/s", Ratio: rate / target,
					Note: fmt.Sprintf("whole round %.2f s; %d folded; %d refused", s, out.Folded, out.Refused)})
			}
			return rows, nil
		}},
		{"memory", func(ctx context.Context, o options) ([]row, error) {
			var peak [2]float64
			for i, n := range []int{small, large} {
				out, err := play(ctx, o, scenario{Name: "memory", Members: n, Bytes: model, Rounds: 1, Pool: 8, Down: true})
				if err != nil {
					return nil, err
				}
				peak[i] = out.PeakMiB
			}
			limit := 2 * float64(model) / (1 << 20)
			more := max(peak[1]-peak[0], 0.01)
			return []row{{Name: fmt.Sprintf("memory of the coordinator, %d against %d members of %d MB", large, small, model/1e6),
				Ours: more, Peer: limit, Unit: "MiB more", Ratio: limit / more, Note: fmt.Sprintf("peaks %.0f and %.0f MiB", peak[0], peak[1])}}, nil
		}},
	}
}

// thousands writes a number with commas.
func thousands(n int) string {
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

// secureRound is an empty round in the open and one with secure sums beside it, which is what it is compared with: six phases of
// the driver, keys, signatures and shares of everybody for everybody.
func secureRound(ctx context.Context, o options) ([]row, error) {
	s := scenario{Name: "open", Members: 100, Rounds: warm + 5}
	open, err := play(ctx, o, s)
	if err != nil {
		return nil, err
	}
	s.Name, s.Secure = "secure", true
	secure, err := play(ctx, o, s)
	if err != nil {
		return nil, err
	}
	if secure.Folded != s.Members {
		return nil, fmt.Errorf("%d of %d members are in the last sum", secure.Folded, s.Members)
	}
	ms, peer := 1e3*median(secure.Rounds[warm:]), 1e3*median(open.Rounds[warm:])
	var phases []string
	for _, name := range []string{"session", "keys", "shares", "masked", "confirm", "unmask"} {
		phases = append(phases, fmt.Sprintf("%s %.0f", name, 1e3*secure.Phases["train."+name]))
	}
	n := int64(s.Members)
	return []row{{Name: "empty round with secure sums, 100 members", Ours: ms, Peer: peer, Unit: "ms", Ratio: peer / ms,
		Note: fmt.Sprintf("median of %d rounds; target: the open round beside it; a member sends %d B and gets %d B; last round, ms: %s", s.Rounds-warm,
			secure.Up/n, secure.Down/n, strings.Join(phases, ", "))}}, nil
}

// play runs one scenario in two processes.
func play(ctx context.Context, o options, s scenario) (out outcome, err error) {
	dir, err := os.MkdirTemp(o.dir, "scenario")
	if err != nil {
		return out, err
	}
	defer os.RemoveAll(dir)
	text, err := json.Marshal(s)
	if err != nil {
		return out, err
	}
	c, err := child(ctx, o, "-coordinate", dir, string(text))
	if err != nil {
		return out, err
	}
	defer c.stop()
	var ready struct{ URL string }
	if err := c.read(&ready); err != nil {
		return out, fmt.Errorf("coordinator: %w", err)
	}
	m, err := child(ctx, o, "-members", dir, string(text))
	if err != nil {
		return out, err
	}
	defer m.stop()
	traffic := 2 * time.Duration(s.Members*s.Rounds) * time.Duration(s.Bytes/1e6) * time.Second / 10 // at 10 MB/s
	timeout := time.AfterFunc(20*time.Minute+traffic, func() { c.stop(); m.stop() })
	defer timeout.Stop()
	var begins counting
	if err := c.read(&begins); err != nil {
		return out, fmt.Errorf("coordinator: %w", err)
	}
	spent := [2]float64{c.spent(), m.spent()}
	if err := c.read(&out); err != nil {
		return out, fmt.Errorf("coordinator: %w", err)
	}
	for i, p := range []*process{c, m} {
		out.work[i] = (p.spent() - spent[i]) / float64(begins.Rounds)
	}
	if len(out.Rounds) != s.Rounds {
		return out, fmt.Errorf("%d of %d rounds were closed", len(out.Rounds), s.Rounds)
	}
	return out, nil
}

// keysFile holds the members' keys, for both processes.
func keysFile(dir string) string { return filepath.Join(dir, "keys.json") }
