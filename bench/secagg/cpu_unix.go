//go:build unix

package main

import (
	"syscall"
	"time"
)

// processor returns the processor time that this process has used.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // only for arguments that are not these
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
