//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd || windows)

package journal

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// lockFile knows no lock that ends with the process here: the existence of the
// file is the lock, and after a crash a person has to remove it.
func lockFile(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil, errHeld
	}
	if err != nil {
		return nil, err
	}
	if err := writeHolder(f); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(name))
	}
	return existLock{f}, nil
}

type existLock struct{ f *os.File }

func (l existLock) Close() error { return errors.Join(l.f.Close(), os.Remove(l.f.Name())) }

func probeLock(name string) error {
	if _, err := os.Stat(name); err != nil {
		return err
	}
	return errHeld
}
