//go:build !unix

package program

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
)

// limits are what a system without process groups and users of unix's kind can keep: time and disk.
type limits struct{}

func newLimits(o Options) (limits, error) {
	switch {
	case o.User != "":
		return limits{}, errors.New("running the program as another user is not possible on this system")
	case o.Memory > 0:
		return limits{}, errors.New("limiting the memory of the program is not possible on this system")
	}
	return limits{}, nil
}

func (limits) String() string { return "memory not limited" }

// hand gives the work folder to the program's user.
func (limits) hand(*workspace) error { return nil }

// run starts the program and waits for its end. When it is not wanted any more, the process is killed, but not its children.
func (limits) run(cmd *exec.Cmd, started func()) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	started()
	return cmd.Wait()
}

func (limits) why(*workspace, *exec.ExitError) string { return "" }

func (limits) hint(error) string { return "" }

// systemEnv names variables without which programs do not run on this system.
func systemEnv() []string { return []string{"SystemRoot", "TEMP", "TMP"} }

func openPlain(path string) (*os.File, error) { return os.Open(path) }

func links(fs.FileInfo) uint64 { return 1 }
