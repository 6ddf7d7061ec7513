package member

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
)

// vaultName is the folder of what a member must not do twice: RUN/a/b.value for a value called "a/b" of a run, RUN/a.erased where
// the values that begin with "a/" have been. A value is durable before anything is made with it.
const (
	vaultName  = "vault"
	valueExt   = ".value"
	erasedExt  = ".erased"
	mostValues = 1 << 16
)

// vault implements [federated.Vault] in a folder.
type vault struct {
	fs  journal.FS
	dir string

	mu     sync.Mutex
	synced map[string]bool // folders whose entries were made durable by this process
}

var _ federated.Vault = (*vault)(nil)

// split returns the folders and the last part of a name, which is checked.
func (v *vault) split(name string) (dirs []string, last string, err error) {
	parts := strings.Split(name, "/")
	for _, p := range parts {
		if p == "" || p[0] == '.' || len(p) > 200 || strings.ContainsFunc(p, func(c rune) bool {
			return !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_')
		}) {
			return nil, "", fmt.Errorf("vault: a value cannot be called %.80q", name)
		}
		switch filepath.Ext(p) { // those of the files
		case valueExt, erasedExt, ".tmp":
			return nil, "", fmt.Errorf("vault: a value cannot be called %.80q: %q ends as a file of the vault does", name, p)
		}
	}
	return parts[:len(parts)-1], parts[len(parts)-1], nil
}

// Once implements [federated.Vault].
func (v *vault) Once(name string, make func() ([]byte, error)) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	dirs, last, err := v.split(name)
	if err != nil {
		return nil, err
	}
	at := v.dir
	for _, d := range dirs {
		at = filepath.Join(at, d)
		switch _, err := v.fs.Stat(at + erasedExt); {
		case err == nil:
			return nil, fmt.Errorf("%s: %w", name, federated.ErrErased)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, &localError{fmt.Errorf("vault: %w", err)}
		}
	}
	path := filepath.Join(at, last+valueExt)
	switch b, err := v.read(path); {
	case err == nil:
		// It may be of a process that ended before it was durable, and must be before anybody hears of it.
		if err := v.folders(dirs); err != nil {
			return nil, &localError{fmt.Errorf("vault: %w", err)}
		}
		if err := v.sync(filepath.Dir(path)); err != nil {
			return nil, &localError{fmt.Errorf("vault: %w", err)}
		}
		return b, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, &localError{fmt.Errorf("vault: %w", err)}
	}
	b, err := make()
	if err != nil {
		return nil, err
	}
	if err := v.folders(dirs); err != nil {
		return nil, &localError{fmt.Errorf("vault: %w", err)}
	}
	if err := v.write(path, b); err != nil {
		return nil, &localError{fmt.Errorf("vault: %w", err)}
	}
	return b, nil
}

// write makes a file durable.
func (v *vault) write(path string, b []byte) error {
	delete(v.synced, filepath.Dir(path)) // until it is
	if err := journal.WritePrivateFile(v.fs, path, func(w io.Writer) error { _, err := w.Write(b); return err }); err != nil {
		return err
	}
	v.durable(filepath.Dir(path))
	return nil
}

func (v *vault) read(path string) ([]byte, error) {
	f, err := v.fs.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// folders makes the folders of a value durable.
func (v *vault) folders(dirs []string) error {
	at := v.dir
	for _, d := range append([]string{""}, dirs...) {
		next := filepath.Join(at, d)
		if _, err := v.fs.Stat(next); err != nil {
			if err := v.fs.MkdirAll(next, 0o700); err != nil {
				return err
			}
			delete(v.synced, filepath.Dir(next))
		}
		if err := v.sync(filepath.Dir(next)); err != nil {
			return err
		}
		at = next
	}
	return nil
}

// sync makes the entries of a folder durable, once: whoever makes a new one sees to it.
func (v *vault) sync(dir string) error {
	if v.synced[dir] {
		return nil
	}
	if err := v.fs.SyncDir(dir); err != nil {
		return err
	}
	v.durable(dir)
	return nil
}

func (v *vault) durable(dir string) {
	if v.synced == nil {
		v.synced = map[string]bool{}
	}
	v.synced[dir] = true
}

// Erase implements [federated.Vault]. That values are taken is durable before they are gone.
func (v *vault) Erase(prefix string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	name := strings.TrimSuffix(prefix, "/")
	dirs, last, err := v.split(name)
	if err != nil || name == prefix {
		return fmt.Errorf("vault: %.80q is no prefix of names", prefix)
	}
	if err := v.folders(dirs); err != nil {
		return &localError{fmt.Errorf("vault: %w", err)}
	}
	at := filepath.Join(append([]string{v.dir}, append(dirs, last)...)...)
	if err := v.write(at+erasedExt, nil); err != nil {
		return &localError{fmt.Errorf("vault: %w", err)}
	}
	if err := v.remove(at); err != nil {
		return &localError{fmt.Errorf("vault: %w", err)}
	}
	return nil
}

// remove removes a folder for good: after a loss of power its values must not be back.
func (v *vault) remove(dir string) error {
	entries, err := v.fs.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.IsDir() {
			err = v.remove(path)
		} else {
			err = v.fs.Remove(path)
		}
		if err != nil {
			return err
		}
	}
	if err := v.fs.SyncDir(dir); err != nil {
		return err
	}
	delete(v.synced, dir)
	if err := v.fs.Remove(dir); err != nil {
		return err
	}
	return v.fs.SyncDir(filepath.Dir(dir))
}

// clear erases everything: the run is over.
func (v *vault) clear() error {
	names, err := v.Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := v.Erase(n[:strings.LastIndex(n, "/")+1]); err != nil {
			return err
		}
	}
	return nil
}

// Names implements [federated.Vault]. It completes what an interrupted Erase has left.
func (v *vault) Names() ([]string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var names []string
	var walk func(dir, prefix string) error
	walk = func(dir, prefix string) error {
		entries, err := v.fs.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.IsDir() {
				at := filepath.Join(dir, e.Name())
				if slices.ContainsFunc(entries, func(x fs.DirEntry) bool { return x.Name() == e.Name()+erasedExt }) {
					if err := v.sync(dir); err != nil { // not before it is durable that they are taken
						return err
					}
					if err := v.remove(at); err != nil {
						return err
					}
					continue
				}
				if err := walk(at, prefix+e.Name()+"/"); err != nil {
					return err
				}
			} else if n, ok := strings.CutSuffix(e.Name(), valueExt); ok && len(names) < mostValues {
				names = append(names, prefix+n)
			}
		}
		return nil
	}
	if err := walk(v.dir, ""); err != nil {
		return nil, &localError{fmt.Errorf("vault: %w", err)}
	}
	slices.Sort(names)
	return names, nil
}
