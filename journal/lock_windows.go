package journal

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/windows"
)

// lockFile locks one byte far behind the file's content, so that others can
// still read who holds it. The system gives the lock back when the process ends.
func lockFile(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	// A probe holds the lock, shared, for a moment; it must not make us fail.
	for range 20 {
		err = lockByte(f, windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY)
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
	return lockByte(f, windows.LOCKFILE_FAIL_IMMEDIATELY)
}

func lockByte(f *os.File, flags uint32) error {
	at := windows.Overlapped{OffsetHigh: 1 << 20}
	err := windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, &at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return errHeld
	}
	return err
}
