package coordinator

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/transport"
)

// spool keeps the messages of accepted results until their phase has closed: one after the other in files, a new one every
// phase, so that ten thousand small results cost one sync and no file each. A file goes when nobody needs a message in it.
type spool struct {
	fsys journal.FS
	dir  string

	mu     sync.Mutex
	file   journal.File
	name   string
	size   int64
	next   int
	held   map[string]int // messages needed, by file
	made   bool           // the folder is there
	broken bool           // the file may end in a torn message: take a new one

	reader  journal.File // of the file that was read last
	reading string
}

// place is where a message lies.
type place struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	Length int    `json:"length"`
}

const spoolExt = ".spool"

func newSpool(fsys journal.FS, dir string) *spool {
	return &spool{fsys: fsys, dir: dir, held: map[string]int{}}
}

// write makes the messages of a batch durable and notes where they lie.
func (s *spool) write(batch []pending) error {
	var buf []byte
	for _, p := range batch {
		buf = append(buf, p.msg...)
	}
	if len(buf) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.open(); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	if _, err := s.file.Write(buf); err != nil {
		s.broken = true
		return fmt.Errorf("spool: %w", err)
	}
	if err := s.file.Sync(); err != nil {
		s.broken = true
		return fmt.Errorf("spool: %w", err)
	}
	for _, p := range batch {
		if p.result != nil {
			p.result.Spool = place{s.name, s.size, len(p.msg)}
			s.size += int64(len(p.msg))
			s.held[s.name]++
		}
	}
	return nil
}

// open begins a new file if there is none to write to. The caller holds the lock.
func (s *spool) open() error {
	if s.file != nil && !s.broken {
		return nil
	}
	s.shut()
	if !s.made {
		if err := s.fsys.MkdirAll(s.dir, 0o700); err != nil {
			return err
		}
		if err := s.fsys.SyncDir(filepath.Dir(s.dir)); err != nil {
			return err
		}
		s.made = true
	}
	for {
		name := fmt.Sprintf("%08d%s", s.next, spoolExt)
		s.next++
		f, err := s.fsys.OpenFile(filepath.Join(s.dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		s.file, s.name, s.size, s.broken = f, name, 0, false
		return s.fsys.SyncDir(s.dir)
	}
}

// shut closes the file under way and removes it if nobody needs it. The caller holds the lock.
func (s *spool) shut() {
	if s.file == nil {
		return
	}
	_ = s.file.Close() // it was synced after every write
	name := s.name
	s.file, s.name = nil, ""
	s.drop(name)
}

func (s *spool) drop(name string) {
	if name == "" { // of a result that came inside a partial sum
		return
	}
	if s.held[name] <= 0 && name != s.name {
		delete(s.held, name)
		if s.reader != nil && s.reading == name {
			_ = s.reader.Close()
			s.reader = nil
		}
		_ = s.fsys.Remove(filepath.Join(s.dir, name)) // else it goes at the next start
	}
}

// turn ends the file under way: the next message begins a new one.
func (s *spool) turn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shut()
}

// hold notes that a message is needed.
func (s *spool) hold(p place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[p.File]++
}

// release gives a message up.
func (s *spool) release(p place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[p.File]--
	s.drop(p.File)
}

// sweep removes the files that hold nothing needed, as a crash may leave them.
func (s *spool) sweep() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries, err := s.fsys.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), spoolExt) && s.held[e.Name()] <= 0 && e.Name() != s.name {
			if err := s.fsys.Remove(filepath.Join(s.dir, e.Name())); err != nil {
				return fmt.Errorf("spool: %w", err)
			}
		}
	}
	return nil
}

// read returns a message and checks that it is the one that was accepted.
func (s *spool) read(p place, want transport.Digest) ([]byte, error) {
	if p.File != filepath.Base(p.File) || p.Length < 0 || p.Length > transport.MaxMessage {
		return nil, fmt.Errorf("spool: %v is no place", p)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reader == nil || s.reading != p.File {
		if s.reader != nil {
			_ = s.reader.Close()
		}
		var err error
		if s.reader, err = s.fsys.OpenFile(filepath.Join(s.dir, p.File), os.O_RDONLY, 0); err != nil {
			s.reader = nil
			return nil, fmt.Errorf("spool: %w", err)
		}
		s.reading = p.File
	}
	b := make([]byte, p.Length)
	if n, err := s.reader.ReadAt(b, p.Offset); n < len(b) {
		return nil, fmt.Errorf("spool: %s ends within a message: %w", p.File, err)
	}
	if transport.DigestOf(b) != want {
		return nil, fmt.Errorf("spool: the message at %d of %s is damaged", p.Offset, p.File)
	}
	return b, nil
}

// close gives the files back; what is needed stays.
func (s *spool) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shut()
	if s.reader != nil {
		_ = s.reader.Close()
		s.reader = nil
	}
}
