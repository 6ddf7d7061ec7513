package node

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/journal"
)

// Backup writes everything that the coordinator has as a tar archive, keys included. It may be at work meanwhile: every journal
// is copied up to its last whole record at that time, before the files that its records name; files that come later are of no
// harm, and results that were not folded yet are sent again by their members. Of the blobs only whole objects are copied.
func (b *Book) Backup(w io.Writer) error {
	t := tar.NewWriter(w)
	var journals, others []string
	err := filepath.WalkDir(b.Dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // gone since the folder was read
			return nil
		case err != nil:
			return err
		case d.IsDir() || !d.Type().IsRegular():
			return nil
		case d.Name() == journal.FileName:
			journals = append(journals, path)
		case transient(d.Name()):
		default:
			others = append(others, path)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	for _, path := range append(journals, others...) {
		if err := b.archive(t, path); err != nil {
			return fmt.Errorf("backup: %w", err)
		}
	}
	if err := t.Close(); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return nil
}

// transient files are made anew: locks, sockets, what is being written, and databases that follow from the journals.
func transient(name string) bool {
	return name == journal.LockName || name == socketName || strings.HasSuffix(name, ".tmp") || strings.HasSuffix(name, ".new") ||
		strings.Contains(name, ".sqlite")
}

func (b *Book) archive(t *tar.Writer, path string) error {
	if in, err := filepath.Rel(b.path(blobsName), path); err == nil && filepath.IsLocal(in) {
		return b.archiveBlob(t, path, in)
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	name, err := filepath.Rel(b.Dir, path)
	if err != nil {
		return err
	}
	size := info.Size()
	if filepath.Base(path) == journal.FileName {
		if size, err = wholeLines(f, size); err != nil {
			return err
		}
	}
	if err := t.WriteHeader(&tar.Header{Name: filepath.ToSlash(name), Mode: int64(info.Mode().Perm()), Size: size, ModTime: info.ModTime()}); err != nil {
		return err
	}
	_, err = io.CopyN(t, f, size)
	return err
}

// archiveBlob copies a file of the store if it is an object: other files, and objects that are deleted and written over just now, are of
// no use. Objects are small.
func (b *Book) archiveBlob(t *tar.Writer, path, in string) error {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || !blob.Lasting(in, content) {
		return err
	}
	name := filepath.ToSlash(filepath.Join(blobsName, in))
	if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: time.Now()}); err != nil {
		return err
	}
	_, err = t.Write(content)
	return err
}

// wholeLines returns the length of a file up to its last line feed.
func wholeLines(f *os.File, size int64) (int64, error) {
	buf := make([]byte, 64<<10)
	for size > 0 {
		n := min(size, int64(len(buf)))
		if _, err := f.ReadAt(buf[:n], size-n); err != nil {
			return 0, err
		}
		for i := n - 1; i >= 0; i-- {
			if buf[i] == '\n' {
				return size - n + i + 1, nil
			}
		}
		size -= n
	}
	return 0, nil
}

// Restore unpacks what Backup wrote into a folder that must not exist or be empty.
func Restore(r io.Reader, dir string) error {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("restore: %s is not empty", dir)
	}
	root, err := openRoot(dir)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	defer root.Close()
	t := tar.NewReader(r)
	found := false
	for {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("restore: the archive is damaged: %w", err)
		}
		if h.Typeflag != tar.TypeReg {
			return fmt.Errorf("restore: %s is no file", h.Name)
		}
		found = found || h.Name == settingsName
		if err := unpack(root, h, t); err != nil {
			return fmt.Errorf("restore: %s: %w", h.Name, err)
		}
	}
	if !found {
		return fmt.Errorf("restore: the archive holds no %s: it is no backup of a coordinator", settingsName)
	}
	return nil
}

func openRoot(dir string) (*os.Root, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return os.OpenRoot(dir)
}

// unpack writes one file; nothing outside of root can be reached.
func unpack(root *os.Root, h *tar.Header, r io.Reader) (err error) {
	name := filepath.FromSlash(h.Name)
	if err := root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fs.FileMode(h.Mode).Perm())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := io.Copy(f, r); err != nil {
		return err
	}
	return f.Sync()
}
