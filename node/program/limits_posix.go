//go:build unix && !linux

package program

import (
	"errors"
	"syscall"
)

const canBound = false

func bound(int, int64) error { return errors.New("not possible on this system") }

func memoryGroup() string { return "" }

// group is a cgroup; there are none.
type group struct{}

func (l limits) confine(*syscall.SysProcAttr) (*group, error) { return nil, nil }

func (*group) kill()          {}
func (*group) exceeded() bool { return false }
func (*group) remove()        {}
