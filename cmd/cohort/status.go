package main

import (
	"fmt"
	"time"

	"github.com/cohort-learning/cohort/node"
	"github.com/cohort-learning/cohort/node/coordinator"
	"github.com/spf13/cobra"
)

func newStatus(io streams, _ <-chan struct{}) *cobra.Command {
	var o serverDir
	var asJSON, link, token bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Say how a coordinator's runs stand, or open its page",
		Long: `Say how the runs of the coordinator at work stand. With --link a link to its page is printed: it signs in whoever opens it
first, and works once, within ten minutes. With --metrics-token the token is printed with which a program such as
Prometheus reads /metrics of the same address (Authorization: Bearer TOKEN).`,
		Example: `  cohort status
  cohort status --link
  curl --cacert cohort-server/ca.crt -H "Authorization: Bearer $(cohort status --metrics-token)" https://HOST:8443/metrics`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case link && token:
				return usagef("--link and --metrics-token: one at a time")
			case (link || token) && asJSON:
				return usagef("--json goes with the status, not with --link or --metrics-token")
			case token:
				text, err := node.MetricsToken(o.path())
				if err != nil {
					return noFederation(err)
				}
				io.say("%s", text)
				return nil
			case link:
				url, err := node.NewAdmin(o.path()).Link(cmd.Context())
				if err != nil {
					return err
				}
				io.say("%s", url)
				return nil
			}
			s, err := node.NewAdmin(o.path()).Status(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return io.json(s)
			}
			printStatus(io, s)
			return nil
		},
	}
	o.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	c.Flags().BoolVar(&link, "link", false, "print a link to the page; it works once")
	c.Flags().BoolVar(&token, "metrics-token", false, "print the token for /metrics")
	return c
}

func printStatus(io streams, s node.Status) {
	here, admitted := 0, 0
	for _, m := range s.Members {
		if m.State == "admitted" {
			admitted++
		}
		if m.Here {
			here++
		}
	}
	io.say("federation %q at %s, serving since %s; %d of %d members are here", s.Federation, s.URL, s.Started.Local().Format(time.DateTime), here, admitted)
	t := newTable("run", "stage", ">round", "phase", ">answered", "")
	for _, r := range s.Runs {
		t.add(r.ID, string(r.Stage), roundOf(r), r.Phase, fmt.Sprintf("%d/%d", r.Answered, r.Asked), remark(r))
	}
	if len(s.Runs) > 0 {
		t.write(io.out)
	}
}

func roundOf(r coordinator.Now) string { return fmt.Sprintf("%d/%d", r.Round, r.Rounds) }

func remark(r coordinator.Now) string {
	if r.Stage == coordinator.Waiting {
		return fmt.Sprintf("%d of %d members have agreed", r.Agreed, r.Members)
	}
	return r.Error
}

func newWait(io streams, _ <-chan struct{}) *cobra.Command {
	var o serverDir
	var asJSON bool
	c := &cobra.Command{
		Use:   "wait [RUN]",
		Short: "Wait until a coordinator's runs are over",
		Long:  "Wait until a run of the coordinator, or all of them, have ended, were stopped or have failed. It fails if one did.",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			run := ""
			if len(args) == 1 {
				run = args[0]
			}
			s, err := node.NewAdmin(o.path()).Wait(cmd.Context(), run)
			if err != nil {
				return err
			}
			if asJSON {
				err = io.json(s)
			} else {
				printStatus(io, s)
			}
			for _, r := range s.Runs {
				if r.Stage != coordinator.Ended && (run == "" || run == r.ID) && err == nil {
					err = fmt.Errorf("run %s: %s", r.ID, r.Stage)
				}
			}
			return err
		},
	}
	o.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return c
}

func newStop(io streams, _ <-chan struct{}) *cobra.Command {
	var o serverDir
	c := &cobra.Command{
		Use:   "stop [RUN]",
		Short: "Stop a coordinator's runs after the round under way",
		Long:  "Stop a run of the coordinator, or all of them, after the round under way. \"cohort serve\" goes on with them.",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			run := ""
			if len(args) == 1 {
				run = args[0]
			}
			if err := node.NewAdmin(o.path()).Stop(cmd.Context(), run); err != nil {
				return err
			}
			io.note("the round under way is finished, then it stops")
			return nil
		},
	}
	o.flags(c)
	return c
}
