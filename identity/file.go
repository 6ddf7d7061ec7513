package identity

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/cohort-learning/cohort/journal"
)

// maxSecret bounds what is read from a key or certificate file.
const maxSecret = 1 << 20

// writeSecret replaces the named file by data, readable by its owner only:
// whole or not at all, and durable when it returns.
func writeSecret(fsys journal.FS, name string, data []byte) (err error) {
	tmp := name + ".tmp"
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write %s: remove what an earlier attempt left: %w", name, err)
	}
	// O_EXCL: a file that somebody else has put there is not written into.
	f, err := fsys.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = fsys.Rename(tmp, name)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, errors.Join(err, fsys.Remove(tmp)))
	}
	if err := fsys.SyncDir(filepath.Dir(name)); err != nil {
		return fmt.Errorf("write %s: sync its folder: %w", name, err)
	}
	return nil
}

// readSecret reads a file and refuses one whose permissions have any of the
// forbidden bits. It asks the open file, so that the answer is about what is read.
func readSecret(fsys journal.FS, name string, forbidden fs.FileMode) ([]byte, error) {
	f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&forbidden != 0 {
		return nil, fmt.Errorf("%s is secret, but others may read or write it (mode %#o): run chmod 600 %s, and make a new key if somebody might have read this one", name, mode, name)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > maxSecret {
		return nil, fmt.Errorf("%s is longer than %d bytes: this is no key", name, maxSecret)
	}
	return data, nil
}
