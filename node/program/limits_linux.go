package program

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// canBound says whether the memory of a process can be limited without a cgroup.
const canBound = true

// bound limits the address space of a process and of the children that it makes from now on, and switches its core dumps off.
func bound(pid int, memory int64) error {
	for what, limit := range map[int]uint64{unix.RLIMIT_AS: uint64(memory), unix.RLIMIT_CORE: 0} {
		if err := unix.Prlimit(pid, what, &unix.Rlimit{Cur: limit, Max: limit}, nil); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// memoryGroup returns a folder of cgroup v2 in which groups with a bound of memory can be made: beside or below our own.
func memoryGroup() string {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		own, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		here := filepath.Join("/sys/fs/cgroup", own)
		for _, dir := range []string{here, filepath.Dir(here)} {
			if g, err := newGroup(dir, 1<<30); err == nil {
				g.remove()
				return dir
			}
		}
	}
	return ""
}

// group is the cgroup of one task.
type group struct {
	dir string
	fd  *os.File
}

func newGroup(parent string, memory int64) (*group, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(parent, &st); err != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
		return nil, errors.Join(errors.New("not a cgroup of version 2"), err)
	}
	dir, err := os.MkdirTemp(parent, "cohort-train-")
	if err != nil {
		return nil, err
	}
	g := &group{dir: dir}
	for name, value := range map[string]string{"memory.max": strconv.FormatInt(memory, 10), "memory.swap.max": "0", "memory.oom.group": "1"} {
		// Without swap accounting there is no file for it.
		if err := g.write(name, value); err != nil && name == "memory.max" {
			g.remove()
			return nil, err
		}
	}
	if g.fd, err = os.Open(dir); err != nil {
		g.remove()
		return nil, err
	}
	return g, nil
}

// write writes to one of the files that the kernel puts into a cgroup.
func (g *group) write(name, value string) error {
	f, err := os.OpenFile(filepath.Join(g.dir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// confine makes the program start within its limits, and die with this process.
func (l limits) confine(a *syscall.SysProcAttr) (*group, error) {
	a.Pdeathsig = syscall.SIGKILL
	if l.group == "" {
		return nil, nil
	}
	g, err := newGroup(l.group, l.memory)
	if err != nil {
		return nil, fmt.Errorf("limiting its memory: %w", err)
	}
	a.UseCgroupFD, a.CgroupFD = true, int(g.fd.Fd())
	return g, nil
}

// kill ends everything in the group.
func (g *group) kill() {
	if g != nil {
		_ = g.write("cgroup.kill", "1")
	}
}

// exceeded reports whether the kernel has ended something in the group for its memory.
func (g *group) exceeded() bool {
	if g == nil {
		return false
	}
	text, err := os.ReadFile(filepath.Join(g.dir, "memory.events"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok && n != "0" {
			return true
		}
	}
	return false
}

// remove deletes the group. It is busy until the last process in it is gone.
func (g *group) remove() {
	if g == nil {
		return
	}
	if g.fd != nil {
		_ = g.fd.Close()
	}
	for range 50 {
		if err := os.Remove(g.dir); err == nil || os.IsNotExist(err) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}
