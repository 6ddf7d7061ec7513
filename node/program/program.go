// Package program lets a member train with a program that it brings along: a [federated.Client] that runs it for the phase
// "train" and hands every other phase to our own client.
//
// The contract stands in docs/bring-your-own-trainer.md. In short: the program is started without a shell, with an almost
// empty environment, in a fresh private folder that holds task.json ([Task]) and weights.safetensors; it trains, writes
// update.safetensors (new weights of the same names and shapes) and result.json ([Outcome]), and exits with status 0.
//
// Nothing that comes from the coordinator stands in the program's arguments, paths or environment; it inherits no open file
// and no key. What it writes is checked like a stranger's. It may be given another user, and limits on time, memory and disk
// ([Options]); with all its children in its process group it is killed when it exceeds them or is not wanted any more.
//
// A limit is no prison: a program of the same user can read what this process can read. Give it a user of its own
// ([Options.User]) if it is not to be trusted with more than its data.
package program

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/weights"
)

// Options says what is run, and how far it may go. Command is needed; the rest has useful zero values.
type Options struct {
	// Command is the program and its arguments; see [Split] for a line that a user typed. The program is looked for in PATH,
	// and it and arguments that name existing files are made absolute, since it runs in a folder of its own.
	Command []string
	Data    string   // what the task calls "data": the path that the user gave, made absolute if it exists
	Dir     string   // where work folders are made; empty: the system's folder for temporary files
	User    string   // name of the user that the program runs as (unix; needs root); empty: this one
	Env     []string // names of variables of this process that the program gets besides

	Time     time.Duration // of one task; 0: no limit but the round's own
	Memory   int64         // bytes; 0: no limit
	Disk     int64         // bytes in the work folder; 0: 1 GiB and eight times what it finds there
	Log      string        // file that gets what the program prints; empty: none
	LogBytes int64         // bound of the log file, and of one more that is older; 0: 1 MiB
}

const (
	defaultDisk = 1 << 30
	defaultLog  = 1 << 20
	trainPhase  = "train"
)

// Client trains with a program. It is safe for concurrent use: every task has its own folder and process.
type Client struct {
	plan   *recipe.MemberPlan
	method federated.External
	inner  federated.Client
	card   *recipe.Card
	*Runner
}

// UnfitError tells that a method cannot be trained by a program brought along.
type UnfitError struct {
	Method string
	Reason string
}

func (e *UnfitError) Error() string {
	return fmt.Sprintf("%s cannot be trained by a program of the member's own: %s", e.Method, e.Reason)
}

// Failure tells what became of a program that did not give a usable result. Lines are the last that it printed: they may hold
// anything that the program saw and are for this machine only; what may be told others is Reason.
type Failure struct {
	Reason string
	Lines  []string
}

func (e *Failure) Error() string {
	if len(e.Lines) == 0 {
		return e.Reason
	}
	return e.Reason + "; it last printed:\n\t" + strings.Join(e.Lines, "\n\t")
}

// New returns the client of a member's plan. It fails if the method cannot be trained by a program, if there is no such
// program, or if a limit cannot be kept on this system.
func New(plan *recipe.MemberPlan, o Options) (*Client, error) {
	a, err := plan.Bare()
	if err != nil {
		return nil, err
	}
	method, ok := a.(federated.External)
	if !ok {
		return nil, &UnfitError{plan.Recipe.Method, "its members keep something of their own from round to round, or send more than new weights; leave the program out, or take a method of the fedavg or heterofl family"}
	}
	if err := method.External(); err != nil {
		return nil, &UnfitError{plan.Recipe.Method, err.Error()}
	}
	c := &Client{plan: plan, method: method, inner: a.Client()}
	if c.card, err = plan.Card(); err != nil {
		return nil, err
	}
	if c.Runner, err = NewRunner(o); err != nil {
		return nil, err
	}
	return c, nil
}

// Run implements [federated.Client].
func (c *Client) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	if t.Phase != trainPhase {
		if at.Train.Data == nil { // only the program reads the data, and it only trains
			return federated.Result{Status: federated.Abstained}, nil
		}
		return c.inner.Run(ctx, at, t, keep)
	}
	if at.Train.Data != nil && at.Train.Len() == 0 {
		return federated.Result{Status: federated.Abstained}, nil
	}
	r, err := c.train(ctx, at, t)
	if err != nil && ctx.Err() != nil {
		return federated.Result{}, ctx.Err()
	}
	return r, err
}

// train runs the program on one task and makes its answer what the method's own client would send.
func (c *Client) train(ctx context.Context, at federated.Local, t federated.Task) (_ federated.Result, err error) {
	task, err := c.task(at, t)
	if err != nil {
		return federated.Result{}, err
	}
	w, err := c.prepare(task, t.Sets["w"])
	if err != nil {
		return federated.Result{}, fmt.Errorf("preparing the work folder of the program: %w", err)
	}
	defer func() { err = errors.Join(err, w.remove()) }()
	lines, err := c.execute(ctx, w)
	if err != nil {
		return federated.Result{}, err
	}
	out, err := w.outcome(len(task.Classes), c.plan.Schema)
	if err != nil {
		return federated.Result{}, blame(err, lines)
	}
	if out.Examples == 0 {
		return federated.Result{Status: federated.Abstained}, nil
	}
	if n := at.Member.Samples; n > 0 && out.Examples > uint64(n) {
		return federated.Result{}, blame(fmt.Errorf("%s counts %d examples, more than the %d that this member has declared", resultFile, out.Examples, n), lines)
	}
	labels := out.Labels
	switch {
	case labels != nil:
	case at.Train.Data != nil:
		labels = task.Labels
	case t.Index != nil:
		return federated.Result{}, blame(fmt.Errorf("%s has no \"labels\", the classes of its examples, which %s needs and only the program knows",
			resultFile, c.plan.Recipe.Method), lines)
	}
	trained, err := w.update(t.Sets["w"])
	if err != nil {
		return federated.Result{}, blame(err, lines)
	}
	return c.method.Reply(t, federated.Trained{Weights: trained, Examples: out.Examples, Labels: labels, Report: out.report()})
}

// Split parts a line that a user typed into a program and its arguments, at blanks. Quotes of either kind keep blanks together,
// a backslash keeps the next character from being special (within '…' it is an ordinary one, as in a shell). Nothing else
// that shells do is done.
func Split(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	inside := false
	var quote rune
	escaped := false
	for _, r := range line {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inside = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, inside = r, true
		case r == ' ' || r == '\t' || r == '\n' || r == '\r':
			if inside {
				words = append(words, word.String())
				word.Reset()
			}
			inside = false
		default:
			word.WriteRune(r)
			inside = true
		}
	}
	if quote != 0 || escaped {
		return nil, fmt.Errorf("the command %q ends within quotes or after a backslash", line)
	}
	if inside {
		words = append(words, word.String())
	}
	if len(words) == 0 {
		return nil, errors.New("the command is empty")
	}
	return words, nil
}
