package systemtest

import (
	"os/exec"
	"syscall"
)

// dieWithParent has the system kill the process if the test is.
func dieWithParent(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
