package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// engine is what a side says about itself.
type engine struct {
	Name    string            `json:"name"`
	Details map[string]string `json:"details"`
}

// row is one line of the table.
type row struct {
	Name string  `json:"name"`
	Ours float64 `json:"ours"`
	Peer float64 `json:"peer"`
	Unit string  `json:"unit"`
	// Ratio is more than 1 if ours is better. For times it is the median of the ratios of the rounds.
	Ratio float64 `json:"ratio"`
	// Best is the ratio of the fastest single steps; 0 where there is none.
	Best float64 `json:"best_ratio,omitempty"`
	// GFLOPS is the rate of ours, in operations as [Case.Flops] counts them; 0 where that says nothing.
	GFLOPS float64 `json:"gflops,omitempty"`
	// Note tells how the peer ran.
	Note string `json:"note,omitempty"`
	// speed marks rows that tell how fast steady steps are; the others are memory and first steps.
	speed bool
}

// report is everything that was measured.
type report struct {
	Schema     int      `json:"schema"`
	CPU        string   `json:"cpu"`
	Load       string   `json:"load"` // of the last 1, 5 and 15 minutes before the start
	Busy       bool     `json:"busy"` // other processes ran before the start: do not trust the ratios
	PeakGFLOPS float64  `json:"peak_gflops"`
	Ours       engine   `json:"engine"`
	Peer       engine   `json:"peer"`
	Rows       []row    `json:"rows"`
	GeoMean    float64  `json:"geomean"` // of the ratios of speed
	Failed     []string `json:"failed,omitempty"`
	LeftOut    []string `json:"left_out,omitempty"` // rows of a quick comparison for which no time was left
}

// rowsOf turns the times of a case, in seconds a step, into rows, with what the sides replied to setup
// and, at the end, to memory. Index 0 is our side.
func rowsOf(c Case, times, best [2][]float64, start, end [2]reply) []row {
	var ratios []float64
	for i := range times[0] {
		ratios = append(ratios, times[1][i]/times[0][i])
	}
	r := row{Name: c.Name, Ours: median(times[0]), Peer: median(times[1]), Ratio: median(ratios),
		Best: slices.Min(best[1]) / slices.Min(best[0]), speed: true}
	if c.Kind == "conv" || c.Kind == "train" {
		r.Note = start[1].Note
	}
	f := c.Flops()
	r.GFLOPS = f / r.Ours / 1e9
	if c.Kind != "train" {
		r.Unit, r.Ours, r.Peer = "GFLOP/s", f/r.Ours/1e9, f/r.Peer/1e9
		return []row{r}
	}
	r.Unit, r.Ours, r.Peer = "ms/step", r.Ours*1e3, r.Peer*1e3
	return []row{r,
		less(c, "first step", "ms", start[0].FirstMS, start[1].FirstMS),
		less(c, "peak memory", "MiB", end[0].PeakMiB, end[1].PeakMiB)}
}

// less is a row of something of which less is better.
func less(c Case, what, unit string, ours, peer float64) row {
	return row{Name: c.Name + ": " + what, Ours: ours, Peer: peer, Unit: unit, Ratio: peer / ours}
}

func median(xs []float64) float64 {
	s := slices.Sorted(slices.Values(xs))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

// add appends rows and brings the geometric mean up to date.
func (r *report) add(rows []row) {
	r.Rows = append(r.Rows, rows...)
	var sum float64
	n := 0
	for _, w := range r.Rows {
		if w.speed {
			sum += math.Log(w.Ratio)
			n++
		}
	}
	if n > 0 {
		r.GeoMean = math.Exp(sum / float64(n))
	}
}

func (r *report) header(w io.Writer) {
	fmt.Fprintf(w, "machine  %s, load %s\n", r.CPU, r.Load)
	if r.Busy {
		fmt.Fprintf(w, "warning  other processes keep the machine busy: the ratios are not to be trusted\n")
	}
	fmt.Fprintf(w, "peak     %.0f GFLOP/s in a loop of multiply-adds\n", r.PeakGFLOPS)
	for _, e := range []engine{r.Ours, r.Peer} {
		var ds []string
		for k, v := range e.Details {
			ds = append(ds, k+" "+v)
		}
		slices.Sort(ds)
		fmt.Fprintf(w, "%-8s %s\n", map[bool]string{true: "ours", false: "peer"}[e.Name == r.Ours.Name], e.Name+": "+strings.Join(ds, ", "))
	}
	fmt.Fprintf(w, "\n%-44s %10s %10s %-8s %7s %7s %7s  %s\n", "row", "ours", "peer", "unit", "ratio", "best", "% peak", "peer ran")
}

func (r *report) print(w io.Writer, rows []row) {
	for _, x := range rows {
		share := ""
		if x.GFLOPS > 0 && r.PeakGFLOPS > 0 {
			share = fmt.Sprintf("%.0f", 100*x.GFLOPS/r.PeakGFLOPS)
		}
		best := ""
		if x.Best > 0 {
			best = fmt.Sprintf("%.2f×", x.Best)
		}
		fmt.Fprintf(w, "%-44s %10s %10s %-8s %6.2f× %7s %7s  %s\n", x.Name, digits(x.Ours), digits(x.Peer), x.Unit, x.Ratio, best, share, x.Note)
	}
}

// summary ends the table.
func (r *report) summary(w io.Writer) {
	slow := 0
	n := 0
	for _, x := range r.Rows {
		if x.speed {
			n++
			if x.Ratio < 1 {
				slow++
			}
		}
	}
	if n > 0 {
		fmt.Fprintf(w, "\ngeometric mean of %d speed ratios %.2f×; %d below 1\n", n, r.GeoMean, slow)
	}
	if len(r.LeftOut) > 0 {
		fmt.Fprintf(w, "no time was left for %d rows: %s\n", len(r.LeftOut), strings.Join(r.LeftOut, "; "))
	}
}

// digits formats x with three to four significant digits.
func digits(x float64) string {
	switch {
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	case x >= 1:
		return fmt.Sprintf("%.2f", x)
	}
	return fmt.Sprintf("%.3f", x)
}

// load returns the load averages of the system.
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	f := strings.Fields(string(b))
	return strings.Join(f[:min(3, len(f))], " ")
}

// busy reports whether more than half a processor was in use in the last minute.
func busy() bool {
	one, err := strconv.ParseFloat(strings.Fields(load())[0], 64)
	return err == nil && one > 0.5
}

// cpuModel names the processor.
func cpuModel() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return fmt.Sprintf("%s, %d processors", strings.TrimSpace(v), runtime.NumCPU())
		}
	}
	return fmt.Sprintf("%s, %d processors", runtime.GOARCH, runtime.NumCPU())
}
