package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// release is the version of the program, set by the linker for releases.
var release = ""

// version returns the version of this program, such as "0.1.0" or "devel 1a2b3c4".
func version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 7 {
			return "devel " + s.Value[:7]
		}
	}
	return "devel"
}

// commandLine is how the program was called, without the folder it lies in.
func commandLine() []string {
	args := append([]string{"cohort"}, os.Args[1:]...)
	return args
}

func newVersion(io streams, _ <-chan struct{}) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return io.json(map[string]any{"schema": schema, "version": version(), "go": strings.TrimPrefix(runtime.Version(), "go"),
					"os": runtime.GOOS, "arch": runtime.GOARCH})
			}
			_, err := fmt.Fprintf(io.out, "cohort %s (%s, %s/%s)\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	return c
}
