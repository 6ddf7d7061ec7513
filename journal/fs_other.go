//go:build !unix

package journal

import (
	"errors"
	"syscall"
)

// syncDir does nothing: the entries of a folder cannot be synced here, and
// NTFS keeps them in its own log.
func syncDir(string) error { return nil }

const (
	errorHandleDiskFull = syscall.Errno(39)
	errorDiskFull       = syscall.Errno(112)
)

// IsFull reports whether err says that the disk is full or the quota used up.
func IsFull(err error) bool {
	return errors.Is(err, errorDiskFull) || errors.Is(err, errorHandleDiskFull) || errors.Is(err, syscall.ENOSPC)
}
