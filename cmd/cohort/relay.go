package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/node/member"
	"github.com/cohort-learning/cohort/node/relay"
	"github.com/spf13/cobra"
)

type relayOptions struct {
	relay.Options
	dir     string
	verbose bool
}

func newRelay(io streams, stop <-chan struct{}) *cobra.Command {
	var o relayOptions
	c := &cobra.Command{
		Annotations: map[string]string{finishesRounds: "stopping: what has come is kept, and goes on with the same command"},
		Use:         "relay TOKEN | relay --dir DIR",
		Short:       "Stand between the coordinator and the members of one place",
		Long: `Stand between the coordinator and the members of one place that share its line: models come down once for all of them, and
one sum goes up in place of their results. The token is what "cohort invite" printed for the relay at the coordinator.
Members behind it are invited there with "cohort invite --relay NAME", and join here.

Members keep their names and keys: what they and the coordinator say to one another is signed end to end. A relay is trusted
for the sum of its members' results, and for nothing else; docs/threat-model.md says what that means.

An interrupt (Ctrl-C) stops; the same command goes on where it was. Nothing received is lost.`,
		Example: `  cohort relay cohort1_… --url https://region.example.org:8443
  cohort relay --dir cohort-member/region`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.Linger < 0 {
				return usagef("--linger %v: expected a time", o.Linger)
			}
			return o.run(cmd.Context(), io, stop, args)
		},
	}
	f := c.Flags()
	f.StringVar(&o.dir, "dir", "", "folder of the relay (default "+membersRoot+"/NAME)")
	f.StringVar(&o.Listen, "listen", ":8443", "address of the port for members")
	f.StringVar(&o.URL, "url", "", "how members reach that port (default https://HOSTNAME:PORT)")
	f.StringSliceVar(&o.Hosts, "host", nil, "further names or addresses of this machine, for its certificate")
	f.DurationVar(&o.Linger, "linger", 2*time.Second, "how long results wait for those of other members before they are added")
	f.Int64Var(&o.Cap, "cap", 0, "bytes that models and results may take on the disk (default as much as there is)")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "show the program's own log")
	return c
}

func (o *relayOptions) run(ctx context.Context, io streams, stop <-chan struct{}, args []string) error {
	f, err := o.folder(ctx, args)
	if err != nil {
		return err
	}
	o.Folder, o.Program = f, version()
	level := slog.LevelWarn
	if o.verbose {
		level = slog.LevelInfo
	}
	o.Log = slog.New(slog.NewTextHandler(io.err, &slog.HandlerOptions{Level: level}))
	r, err := relay.Open(o.Options)
	if err != nil {
		return err
	}
	io.note("%s relays at %s; invite members at the coordinator with:\n  cohort invite --relay %[1]s NAME…", f.Card.Name, r.URL())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := r.Run(ctx); err != nil {
		return err
	}
	io.note("stopped; go on with:\n  cohort relay --dir %s", quote(f.Dir))
	return nil
}

// folder opens the relay's folder, or takes up its invitation.
func (o *relayOptions) folder(ctx context.Context, args []string) (*member.Folder, error) {
	if len(args) == 0 {
		if o.dir == "" {
			return nil, usagef("give the token that \"cohort invite\" printed, or with --dir the folder of the relay")
		}
		f, err := member.OpenFolder(o.dir)
		if errors.Is(err, member.ErrNoMember) || err == nil && !f.Card.Enrolled {
			return nil, usagef("no relay lives in %s yet: give the token that \"cohort invite\" printed", o.dir)
		}
		return f, err
	}
	t, err := identity.ParseToken(args[0])
	if err != nil {
		return nil, usageError{err}
	}
	if o.dir == "" {
		o.dir = filepath.Join(membersRoot, t.Name)
	}
	f, err := member.Enrol(ctx, o.dir, t, member.EnrolOptions{})
	if err != nil {
		return nil, fmt.Errorf("the relay cannot join: %w", err)
	}
	return f, nil
}
