package node

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// Names of sockets may be short only (some hundred bytes), so that one far down is reached through its folder.
const longestSocket = 90

// shorten returns a short path to a socket, and what removes it.
func shorten(path string) (string, func(), error) {
	if len(path) <= longestSocket {
		return path, func() {}, nil
	}
	dir, err := os.MkdirTemp("", "cohort")
	if err != nil {
		return "", nil, err
	}
	abs, err := filepath.Abs(filepath.Dir(path))
	if err == nil {
		err = os.Symlink(abs, filepath.Join(dir, "d"))
	}
	if err != nil {
		_ = os.RemoveAll(dir)
		return "", nil, err
	}
	return filepath.Join(dir, "d", filepath.Base(path)), func() { _ = os.RemoveAll(dir) }, nil
}

func listenUnix(path string) (net.Listener, error) {
	short, done, err := shorten(path)
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // the name may be another by then
	return l, os.Chmod(path, 0o600)
}

func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	short, done, err := shorten(path)
	if err != nil {
		return nil, err
	}
	defer done()
	var d net.Dialer
	return d.DialContext(ctx, "unix", short)
}

// refused reports that a socket is there and nobody listens.
func refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
