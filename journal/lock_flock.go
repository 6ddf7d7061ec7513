//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package journal

import (
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lockFile takes flock(2), which the kernel gives back when the process ends.
// The file is never removed: whoever had opened it before would then lock
// something that nobody else sees.
func lockFile(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	// A probe holds the lock, shared, for a moment; it must not make us fail.
	for range 20 {
		err = flock(f, unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, errHeld) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err == nil {
		err = writeHolder(f)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func probeLock(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return flock(f, unix.LOCK_SH|unix.LOCK_NB)
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			return errHeld
		default:
			return err
		}
	}
}
