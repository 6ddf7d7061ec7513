//go:build unix

package systemtest

import (
	"fmt"
	"io/fs"
	"syscall"
)

// identityOf names a file, whatever it is called.
func identityOf(info fs.FileInfo) string {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprint(s.Dev, s.Ino)
	}
	return info.ModTime().String()
}
