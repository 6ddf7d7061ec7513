package journal

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"sync"
)

// Values is a folder of values by name, a file each, for what must still be there after a restart and is no log: the models of an
// organisation, say. Its methods are safe for concurrent use. A folder is opened once in a process: whoever puts writes beside the old value.
type Values struct {
	fsys FS
	dir  string
	put  sync.Mutex // held while a value is written
}

// OpenValues returns the values in a folder, which nobody but the owner may read, and makes it if it is not there; nil means [OS].
func OpenValues(fsys FS, dir string) (*Values, error) {
	if fsys == nil {
		fsys = OS()
	}
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("a folder of values: %w", err)
	}
	return &Values{fsys: fsys, dir: dir}, nil
}

// file puts every name into one file name, so that none leads out of the folder.
func (v *Values) file(name string) string { return filepath.Join(v.dir, "m-"+url.PathEscape(name)) }

// Put makes the value under a name durable, in place of what was there; a crash leaves one or the other.
func (v *Values) Put(name string, value []byte) error {
	v.put.Lock()
	defer v.put.Unlock()
	return WritePrivateFile(v.fsys, v.file(name), func(w io.Writer) error {
		_, err := w.Write(value)
		return err
	})
}

// Get returns the value under a name, or an error that is [fs.ErrNotExist].
func (v *Values) Get(name string) ([]byte, error) {
	f, err := v.fsys.OpenFile(v.file(name), os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}
