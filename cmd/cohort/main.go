// Command cohort lets organisations and devices learn together without handing over their data.
//
// Run "cohort help" for the commands. Each is one file here; what they do lives in the packages they call.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Exit statuses; they stand in the help of every command.
const (
	exitOK          = 0
	exitFailed      = 1 // the command could not do what it was asked, or a gate of "reproduce" failed
	exitUsage       = 2 // a wrong flag, argument or recipe
	exitDataMissing = 3
	exitInterrupted = 130
)

const exitTable = `
Exit status:
  0    done
  1    failed, or a result that had to be reached was not
  2    wrong usage or recipe
  3    data not found
  130  interrupted; "cohort run --resume" goes on where it stopped
`

// usageError is a mistake in the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func main() { os.Exit(run(os.Args[1:], stdio())) }

// run executes one command line and returns its exit status.
func run(args []string, io streams) int {
	var closing atomic.Pointer[string]
	ctx, stop, cancel := interruptible(io, &closing)
	defer cancel()
	root := newRoot(io, stop)
	root.PersistentPreRun = func(cmd *cobra.Command, _ []string) {
		if first := cmd.Annotations[finishesRounds]; first != "" {
			closing.Store(&first)
		}
	}
	root.SetArgs(args)
	root.SetOut(io.out)
	root.SetErr(io.err)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	status := exitStatus(err)
	if status != exitInterrupted || !errors.Is(err, federated.ErrStopped) {
		fmt.Fprintln(io.err, "cohort:", describe(err))
	}
	var u usageError
	if errors.As(err, &u) && cmd != nil {
		fmt.Fprintf(io.err, "Run \"%s --help\" for usage.\n", cmd.CommandPath())
	}
	return status
}

func exitStatus(err error) int {
	var u usageError
	var r *recipe.Error
	var f *recipe.FieldError
	var missing *recipe.MissingDataError
	switch {
	case errors.Is(err, federated.ErrStopped), errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.As(err, &missing):
		return exitDataMissing
	case errors.As(err, &u), errors.As(err, &r), errors.As(err, &f):
		return exitUsage
	}
	return exitFailed
}

func describe(err error) string {
	if errors.Is(err, context.Canceled) {
		return "interrupted"
	}
	return err.Error()
}

// finishesRounds is the annotation of commands that finish what is under way when they are interrupted: what they say then.
const finishesRounds = "finishes rounds"

// roundUnderWay is what commands that go by rounds say.
const roundUnderWay = "finishing the round under way; interrupt again to abort"

// interruptible returns a context that an interrupt cancels. If the command finishes what is under way, only a second one
// does; the first says first, closes the channel, and what is in flight is finished and saved.
func interruptible(io streams, first *atomic.Pointer[string]) (ctx context.Context, stop <-chan struct{}, cancel func()) {
	ctx, cancelCtx := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	closing := make(chan struct{})
	done := make(chan struct{})
	go func() {
		select {
		case <-signals:
		case <-done:
			return
		}
		says := first.Load()
		if says == nil {
			cancelCtx()
			return
		}
		close(closing)
		fmt.Fprintf(io.err, "\n%s\n", *says)
		select {
		case <-signals:
			cancelCtx()
		case <-done:
		}
	}()
	return ctx, closing, func() {
		signal.Stop(signals)
		close(done)
		cancelCtx()
	}
}

// commands are in the order of the help, by group.
var commands = []struct {
	group string
	make  []func(streams, <-chan struct{}) *cobra.Command
}{
	{"Begin", []func(streams, <-chan struct{}) *cobra.Command{newDemo, newInit, newMethods, newDatasets, newPartition, newMatch}},
	{"Run", []func(streams, <-chan struct{}) *cobra.Command{newRun, newAssist, newWorker, newSweep, newReproduce}},
	{"Over the network", []func(streams, <-chan struct{}) *cobra.Command{newServe, newJoin, newRelay, newInvite, newSchema, newMembers, newRevoke, newStatus, newWait,
		newStop, newBackup, newRestore, newRotate}},
	{"Look", []func(streams, <-chan struct{}) *cobra.Command{newRuns, newReport, newCompare, newVerify}},
	{"Use a model", []func(streams, <-chan struct{}) *cobra.Command{newEvaluate, newPredict, newRecommend, newExport}},
	{"Privacy", []func(streams, <-chan struct{}) *cobra.Command{newPrivacy}},
	{"This program", []func(streams, <-chan struct{}) *cobra.Command{newDoctor, newVersion}},
}

// newRoot assembles the commands.
func newRoot(io streams, stop <-chan struct{}) *cobra.Command {
	cobra.EnableCommandSorting = false
	root := &cobra.Command{
		Use:   "cohort",
		Short: "Learn together without handing over data",
		Long: `Cohort lets organisations and devices learn together without handing over data.

Start with "cohort demo": a hundred clients of unequal strength learn one model on this machine.`,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetHelpTemplate(root.HelpTemplate() + exitTable)
	root.SetFlagErrorFunc(flagError)
	for _, g := range commands {
		root.AddGroup(&cobra.Group{ID: g.group, Title: g.group + ":"})
		for _, add := range g.make {
			c := add(io, stop)
			c.GroupID = g.group
			root.AddCommand(c)
		}
	}
	last := commands[len(commands)-1].group
	root.SetHelpCommandGroupID(last)
	root.SetCompletionCommandGroupID(last)
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), "FlagUsages", fmt.Sprintf("FlagUsagesWrapped %d", columns)))
	finish(root)
	return root
}

// finish folds the help of a command and of those below it, makes their wrong arguments usage errors, and lets wrong
// subcommands name the nearest.
func finish(c *cobra.Command) {
	c.Long = fold(c.Long, columns)
	check := c.Args
	if check == nil {
		check = cobra.NoArgs
	}
	c.Args = func(cmd *cobra.Command, args []string) error {
		if cmd.HasSubCommands() && len(args) > 0 {
			return unknownCommand(cmd, args[0])
		}
		if err := check(cmd, args); err != nil {
			return usagef("%w; usage: %s", err, cmd.UseLine())
		}
		return nil
	}
	for _, sub := range c.Commands() {
		finish(sub)
	}
}

func unknownCommand(parent *cobra.Command, name string) error {
	var names []string
	for _, c := range parent.Commands() {
		names = append(names, c.Name())
	}
	hint := ""
	if near := recipe.Nearest(name, names); near != "" {
		hint = fmt.Sprintf("; did you mean %q?", near)
	}
	return usagef("%s has no command %q%s", parent.CommandPath(), name, hint)
}

// flagError adds the nearest flag to the error of one that does not exist.
func flagError(cmd *cobra.Command, err error) error {
	_, name, ok := strings.Cut(err.Error(), "unknown flag: --")
	if !ok {
		return usageError{err}
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	if near := recipe.Nearest(name, names); near != "" {
		return usagef("there is no flag --%s; did you mean --%s?", name, near)
	}
	return usagef("there is no flag --%s", name)
}
