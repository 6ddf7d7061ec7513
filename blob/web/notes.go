package web

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/journal"
)

const (
	// noteEvery is after how many chunks of an upload the progress is noted;
	// shorter uploads are sent again after a restart.
	noteEvery = 16
	// noteLife is how long notes of uploads that nobody goes on with are kept.
	noteLife = 14 * 24 * time.Hour
	noteHead = "cohort-upload 1\n"
	noteExt  = ".upload"
)

// notes keep, in one file an upload, which chunks a member has sent, as bits in
// the order of the manifest. A lost note costs sending; a wrong one cannot be,
// since it is replaced whole.
type notes struct {
	dir string
	fs  journal.FS
	log *slog.Logger
}

// newNotes opens the notes in dir; an empty dir means none.
func newNotes(dir string, fsys journal.FS, log *slog.Logger) *notes {
	if dir == "" {
		return nil
	}
	if fsys == nil {
		fsys = journal.OS()
	}
	n := &notes{dir, fsys, log}
	if err := n.open(); err != nil {
		log.Warn("blob: long uploads will begin again after a restart: their progress cannot be noted", "folder", dir, "err", err)
		return nil
	}
	return n
}

// open makes the folder and drops old notes.
func (n *notes) open() error {
	if err := n.fs.MkdirAll(n.dir, 0o755); err != nil {
		return err
	}
	entries, err := n.fs.ReadDir(n.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && strings.Contains(e.Name(), noteExt) && time.Since(info.ModTime()) > noteLife {
			err = n.fs.Remove(filepath.Join(n.dir, e.Name()))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// file returns the note of an upload.
func (n *notes) file(k key) string {
	s := sha256.New()
	s.Write(k.blob[:])
	io.WriteString(s, k.who)
	return filepath.Join(n.dir, hex.EncodeToString(s.Sum(nil))+noteExt)
}

// load adds to u.have what was noted. The caller holds u.mu.
func (n *notes) load(u *upload) {
	if n == nil || len(u.list.Chunks) < noteEvery {
		return
	}
	name := n.file(u.key)
	u.forget = func() {
		if err := n.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			n.log.Warn("blob: remove a note", "err", err)
		}
	}
	f, err := n.fs.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	bits := make([]byte, (len(u.list.Chunks)+7)/8)
	b, err := io.ReadAll(io.LimitReader(f, int64(len(noteHead)+len(bits)+1)))
	if err != nil || len(b) != len(noteHead)+len(bits) || !bytes.HasPrefix(b, []byte(noteHead)) {
		return
	}
	bits = b[len(noteHead):]
	for i, c := range u.list.Chunks {
		if bits[i/8]&(1<<(i%8)) != 0 {
			u.have[c] = true
		}
	}
	u.noted = len(u.have)
}

// save notes what has arrived, now and then, or at the end. The caller holds u.mu.
func (n *notes) save(u *upload, last bool) {
	if n == nil || u.ended || len(u.list.Chunks) < noteEvery || !last && len(u.have) < u.noted+noteEvery || len(u.have) == u.noted {
		return
	}
	bits := make([]byte, (len(u.list.Chunks)+7)/8)
	for i, c := range u.list.Chunks {
		if u.have[c] {
			bits[i/8] |= 1 << (i % 8)
		}
	}
	err := journal.WriteFile(n.fs, n.file(u.key), func(w io.Writer) error {
		_, err := w.Write(append([]byte(noteHead), bits...))
		return err
	})
	if err != nil {
		n.log.Warn("blob: note the progress of an upload", "who", u.key.who, "err", err)
		return
	}
	u.noted = len(u.have)
}
