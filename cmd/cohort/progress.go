package main

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/simulation"
)

// progress shows a run while it happens: on a terminal one line that renews itself, elsewhere a plain line a round.
type progress struct {
	io     streams
	rounds int
	quiet  bool
	began  time.Time
	drawn  time.Time
	done   int
	global []float64 // accuracy of the global model by evaluated round
	local  []float64
}

func newProgress(io streams, rounds int, quiet bool) *progress {
	return &progress{io: io, rounds: rounds, quiet: quiet, began: time.Now()}
}

// Progress implements [simulation.Observer].
func (p *progress) Progress(round int, phase string, answered, asked int) {
	if p.quiet || !p.io.tty || time.Since(p.drawn) < 80*time.Millisecond {
		return
	}
	p.drawn = time.Now()
	const width = 24
	part := (float64(round) + float64(answered)/float64(max(1, asked))) / float64(max(1, p.rounds))
	full := int(math.Round(part * width))
	bar := strings.Repeat("█", min(width, full)) + strings.Repeat("░", max(0, width-full))
	line := fmt.Sprintf("%s round %d/%d  %s %d/%d  %s", bar, round+1, p.rounds, phase, answered, asked, p.left(part))
	fmt.Fprintf(p.io.err, "\r\x1b[K%s", clip(line, p.io.width-1))
}

// left is the time that the rest will take at the pace so far.
func (p *progress) left(part float64) string {
	spent := time.Since(p.began)
	if part <= 0 || spent < 2*time.Second {
		return ""
	}
	rest := time.Duration(float64(spent) * (1 - part) / part)
	return "about " + rest.Round(time.Second).String() + " left"
}

// Round implements [simulation.Observer].
func (p *progress) Round(r simulation.Round) {
	p.done++
	global, local := r.Metric("global.accuracy", ""), r.Metric("local.accuracy", "")
	if !math.IsNaN(global) {
		p.global = append(p.global, global)
	}
	if !math.IsNaN(local) {
		p.local = append(p.local, local)
	}
	if p.quiet {
		return
	}
	if p.io.tty {
		fmt.Fprint(p.io.err, "\r\x1b[K")
	}
	line := fmt.Sprintf("round %*d/%d", len(fmt.Sprint(p.rounds)), r.RoundClosed.Round+1, p.rounds)
	for _, c := range []struct{ label, name, format string }{
		{"loss", "train.loss", "%.4f"}, {"global", "global.accuracy", "%5.2f %%"}, {"local", "local.accuracy", "%5.2f %%"},
		{"perplexity", "global.perplexity", "%.3f"},
	} {
		v := r.Metric(c.name, "")
		if math.IsNaN(v) {
			continue
		}
		if strings.HasSuffix(c.format, "%%") {
			v *= 100
		}
		line += fmt.Sprintf("  %s "+c.format, c.label, v)
	}
	failed := 0
	for _, ph := range r.Phases {
		failed += len(ph.Failed)
	}
	if failed > 0 {
		line += fmt.Sprintf("  %d failed", failed)
	}
	fmt.Fprintln(p.io.err, line)
}

func clip(s string, n int) string {
	if r := []rune(s); len(r) > n && n > 1 {
		return string(r[:n-1]) + "…"
	}
	return s
}
