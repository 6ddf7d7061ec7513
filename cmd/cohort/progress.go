package main

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/simulation"
)

// progress shows a run while it happens: on a terminal one line that renews itself, elsewhere a plain line a round.
type progress struct {
	io     streams
	rounds int
	quiet  bool
	began  time.Time
	drawn  time.Time
	first  int     // round that this process began with
	within float64 // part of the round under way that is over, as training goes
	under  int     // that round
	shown  bool    // whether there is a line to wipe
	last   string  // what the last round came to
}

func newProgress(io streams, rounds int, quiet bool) *progress {
	return &progress{io: io, rounds: rounds, quiet: quiet, began: time.Now(), first: -1}
}

// Progress implements [simulation.Observer].
func (p *progress) Progress(round int, phase string, answered, asked int) {
	if p.first < 0 {
		p.first = round
	}
	if round != p.under {
		p.under, p.within = round, 0
	}
	if federated.Learns(phase) {
		p.within = max(p.within, float64(answered)/float64(max(1, asked)))
	}
	if p.quiet || !p.io.tty || time.Since(p.drawn) < 80*time.Millisecond {
		return
	}
	p.drawn = time.Now()
	if p.rounds == 0 { // nobody knows how many there are
		fmt.Fprintf(p.io.err, "\r\x1b[Kround %d, %s %d/%d", round+1, federated.PhaseWord(phase), answered, asked)
		p.shown = true
		return
	}
	const width = 20
	part := (float64(round) + p.within) / float64(max(1, p.rounds))
	full := int(math.Round(part * width))
	bar := strings.Repeat("━", min(width, full)) + strings.Repeat("─", max(0, width-full))
	if p.io.plot.ASCII {
		bar = "[" + strings.Repeat("#", min(width, full)) + strings.Repeat(".", max(0, width-full)) + "]"
	}
	line := fmt.Sprintf("%s round %d/%d, %s %d/%d%s%s", bar, round+1, p.rounds, federated.PhaseWord(phase), answered, asked, p.last, p.left(round, part))
	fmt.Fprintf(p.io.err, "\r\x1b[K%s", clip(line, p.io.width-1))
	p.shown = true
}

// left is the time that the rest will take at the pace so far.
func (p *progress) left(round int, part float64) string {
	spent := time.Since(p.began)
	done := part - float64(p.first)/float64(max(1, p.rounds))
	if done <= 0 || spent < 3*time.Second {
		return ""
	}
	rest := time.Duration(float64(spent) * (1 - part) / done)
	return ", " + rest.Round(time.Second).String() + " left"
}

// wipe takes the line that renews itself off the terminal.
func (p *progress) wipe() {
	if p.shown {
		fmt.Fprint(p.io.err, "\r\x1b[K")
		p.shown = false
	}
}

// Round implements [simulation.Observer].
func (p *progress) Round(r simulation.Round) {
	var parts []string
	for _, m := range shown {
		if v := r.Metric(m.name, ""); m.short != "" && !math.IsNaN(v) {
			parts = append(parts, m.short+" "+m.format(v))
		}
	}
	failed := map[int]bool{} // once a round, in however many phases
	for _, ph := range r.Phases {
		for _, i := range ph.Lost {
			failed[i] = true
		}
	}
	if len(failed) > 0 {
		parts = append(parts, fmt.Sprintf("%d failed", len(failed)))
	}
	if r.Again {
		parts = append(parts, "again, as recorded")
	}
	if v := r.Metric("accuracy", ""); !math.IsNaN(v) {
		p.last = ", accuracy " + inPercent(v)
	}
	if !p.quiet && !p.io.tty {
		p.io.note("round %*d/%d  %s", len(fmt.Sprint(p.rounds)), r.RoundClosed.Round+1, p.rounds, strings.Join(parts, "  "))
	}
}

// shown are the metrics that are told at the end of a run, in order; those with a short name also every round.
var shown = []struct {
	name, short, words string
	format             func(float64) string
}{
	{"loss.train", "loss", "training loss", nats},
	{"accuracy", "accuracy", "accuracy of the global model", inPercent},
	{"perplexity", "perplexity", "perplexity", nats},
	{"mse", "mse", "mean squared error", nats},
	{"mae", "", "mean absolute error", nats},
	{"r2", "", "R²", nats},
	{"loss", "", "loss of the global model", nats},
	{"accuracy.local", "at clients", "accuracy of the global model on the clients' own tests", inPercent},
	{"accuracy.local.mean", "", "  mean over clients", inPercent},
	{"accuracy.local.worst", "", "  mean over the worst tenth of the clients", inPercent},
	{"loss.local", "", "loss of the global model on the clients' own tests", nats},
	{"accuracy.personal", "own models", "accuracy of the clients' own models on their tests", inPercent},
	{"accuracy.personal.mean", "", "  mean over clients", inPercent},
	{"accuracy.personal.worst", "", "  mean over the worst tenth of the clients", inPercent},
	{"loss.personal", "", "loss of the clients' own models on their tests", nats},
	{"personal.begun", "", "own models that began in the last round", digits},
	{"pseudo.accepted", "labels", "pseudo-labels that were accepted in the last round", inPercent},
	{"pseudo.accepted.accuracy", "", "  accepted ones that are right", inPercent},
	{"pseudo.accuracy", "", "  all that are right", inPercent},
	{"rmse", "rmse", "RMSE of held-out ratings, all together", nats},
	{"rmse.batched", "", "  mean over batches of users", nats},
	{"rmse.known", "", "  of items that the client has", nats},
	{"ndcg", "ndcg", "NDCG@10 of held-out items, mean over users", nats},
	{"ndcg.rating", "", "  mean over ratings", nats},
	{"map", "", "MAP@10 of held-out items, mean over users", nats},
	{"map.rating", "", "  mean over ratings", nats},
	{"catalogue.ndcg", "", "NDCG@10 of the whole catalogue", nats},
	{"catalogue.recall", "", "recall@10 of the whole catalogue", nats},
	{"compression", "", "times less traffic than FedAvg's", nats},
	{"compression.reference", "", "  as the authors count", nats},
	{"epsilon", "spent", "privacy spent", spent},
	{"clip", "", "bound of an update's norm", digits},
	{"secure.members", "", "clients in the last secure sum", digits},
	{"secure.sent", "", "part of the model that enough clients held", inPercent},
}

// spent writes an ε.
func spent(v float64) string { return fmt.Sprintf("ε %.2f", v) }

func nats(v float64) string { return fmt.Sprintf("%.4f", v) }

func clip(s string, n int) string {
	if r := []rune(s); len(r) > n && n > 1 {
		return string(r[:n-1]) + "…"
	}
	return s
}
