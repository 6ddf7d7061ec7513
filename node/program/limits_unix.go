//go:build unix

package program

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
)

// limits are the user that the program runs as and the bound of its memory.
type limits struct {
	memory     int64
	credential *syscall.Credential // nil: this user
	group      string              // parent of a cgroup for every task, or ""
}

func newLimits(o Options) (limits, error) {
	l := limits{memory: o.Memory}
	if o.User != "" {
		var err error
		if l.credential, err = credential(o.User); err != nil {
			return l, err
		}
	}
	if o.Memory == 0 {
		return l, nil
	}
	if l.group = memoryGroup(); l.group == "" && !canBound {
		return l, errors.New("limiting the memory of the program is not possible on this system")
	}
	return l, nil
}

// credential looks up a user and the groups that the user is in.
func credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("user of the program: %w", err)
	}
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("only root can run the program as user %s", name)
	}
	number := func(s string) uint32 {
		n, e := strconv.ParseUint(s, 10, 32)
		err = errors.Join(err, e)
		return uint32(n)
	}
	c := &syscall.Credential{Uid: number(u.Uid), Gid: number(u.Gid)}
	groups, e := u.GroupIds()
	if err = errors.Join(err, e); err != nil {
		return nil, fmt.Errorf("user %s of the program: %w", name, err)
	}
	for _, g := range groups {
		c.Groups = append(c.Groups, number(g))
	}
	return c, err
}

func (l limits) String() string {
	switch {
	case l.memory == 0:
		return "memory not limited"
	case l.group != "":
		return fmt.Sprintf("%d bytes of memory by cgroup", l.memory)
	}
	return fmt.Sprintf("%d bytes of address space of each process by RLIMIT_AS", l.memory)
}

// hand gives the work folder to the program's user. The folder around it stays this process's, so that its name cannot be
// taken by something else.
func (l limits) hand(s *workspace) error {
	if l.credential == nil {
		return nil
	}
	uid, gid := int(l.credential.Uid), int(l.credential.Gid)
	if err := os.Chmod(s.dir, 0o711); err != nil {
		return err
	}
	for _, path := range []string{s.work, filepath.Join(s.work, taskFile), filepath.Join(s.work, weightsFile)} {
		if err := os.Chown(path, uid, gid); err != nil {
			return err
		}
	}
	return nil
}

// run starts the program in a process group of its own and waits for its end. When it is not wanted any more, the group is
// killed; and so is what it leaves behind when it ends.
func (l limits) run(cmd *exec.Cmd, started func()) error {
	// The kernel ends the program when the thread that started it ends: with this process, and not before.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	a := &syscall.SysProcAttr{Setpgid: true, Credential: l.credential}
	g, err := l.confine(a)
	if err != nil {
		return err
	}
	defer g.remove()
	cmd.SysProcAttr = a
	cmd.Cancel = func() error { return killGroup(cmd.Process.Pid) }
	if err := cmd.Start(); err != nil {
		return err
	}
	if g == nil && l.memory > 0 {
		if err := bound(cmd.Process.Pid, l.memory); err != nil {
			return errors.Join(fmt.Errorf("limiting its memory: %w", err), killGroup(cmd.Process.Pid), cmd.Wait())
		}
	}
	started()
	err = cmd.Wait()
	_ = killGroup(cmd.Process.Pid)
	g.kill()
	if g.exceeded() {
		return &memoryError{l.memory, err}
	}
	return err
}

func killGroup(pid int) error {
	err := syscall.Kill(-pid, syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// why explains a status where the limits may be the reason.
func (l limits) why(w *workspace, exit *exec.ExitError) string {
	if l.memory > 0 && l.group == "" {
		return fmt.Sprintf(" (its memory is limited to %d bytes of address space)", l.memory)
	}
	if st, ok := exit.Sys().(syscall.WaitStatus); ok && st.Signaled() && st.Signal() == syscall.SIGKILL {
		return " (the kernel kills when memory is short)"
	}
	return ""
}

// hint tells what to do about a program that could not be started.
func (l limits) hint(err error) string {
	if l.credential != nil && errors.Is(err, fs.ErrPermission) {
		return "; its user must be able to run it and to reach the work folder"
	}
	return ""
}

func systemEnv() []string { return nil }

// openPlain opens a file but no link, and does not wait for the other end of a pipe.
func openPlain(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
}

func links(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Nlink)
	}
	return 1
}
