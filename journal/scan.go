package journal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// A DamageError names a complete record that is wrong: its bytes do not have
// the hash that it states, its number is out of order, or it does not follow
// the record before it.
type DamageError struct {
	Path   string // file, or "" when read from elsewhere
	Seq    uint64 // number that the record ought to have
	Offset int64  // byte at which its line begins
	What   string // what is wrong, as a predicate: "says its hash is …"
}

func (e *DamageError) Error() string {
	path := e.Path
	if path != "" {
		path = " " + path
	}
	return fmt.Sprintf("journal%s: record %d at byte %d %s", path, e.Seq, e.Offset, e.What)
}

// ErrIncomplete says that a journal ends within a line: the writer was stopped
// in the middle of a record that nobody was told about.
var ErrIncomplete = errors.New("the last record is incomplete")

// A Scanner reads and checks records from the beginning of a journal.
// It needs memory for one line.
type Scanner struct {
	r      *bufio.Reader
	path   string
	line   []byte
	next   uint64
	prev   Hash
	offset int64
	err    error
}

// NewScanner returns a scanner of the journal that r holds. The path is only
// used in errors and may be empty.
func NewScanner(r io.Reader, path string) *Scanner {
	return &Scanner{r: bufio.NewReaderSize(r, 64<<10), path: path}
}

// Next returns the next record. At the end it returns [io.EOF]; if the last
// line lacks its end, [ErrIncomplete]; if a record is wrong, a *[DamageError].
// An error repeats on every later call.
func (s *Scanner) Next() (Record, error) {
	if s.err != nil {
		return Record{}, s.err
	}
	r, err := s.scan()
	if err != nil {
		s.err = err
		return Record{}, err
	}
	s.next, s.prev, s.offset = r.Seq+1, r.Hash, s.offset+int64(len(s.line))
	return r, nil
}

// Offset returns the byte behind the last good record: where the next begins,
// or where damage or an incomplete record does.
func (s *Scanner) Offset() int64 { return s.offset }

// Head returns number and hash of the last good record; ok is false before the
// first.
func (s *Scanner) Head() (h Head, ok bool) {
	if s.next == 0 {
		return Head{}, false
	}
	return Head{Seq: s.next - 1, Hash: s.prev}, true
}

func (s *Scanner) scan() (Record, error) {
	s.line = s.line[:0]
	for {
		part, err := s.r.ReadSlice('\n')
		if len(s.line)+len(part) > MaxLine {
			return Record{}, s.damage(fmt.Sprintf("is longer than %d bytes", MaxLine))
		}
		s.line = append(s.line, part...)
		if err == nil {
			break
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(s.line) == 0:
			return Record{}, io.EOF
		case errors.Is(err, io.EOF):
			return Record{}, ErrIncomplete
		default:
			return Record{}, fmt.Errorf("read journal %s at byte %d: %w", s.path, s.offset+int64(len(s.line)), err)
		}
	}
	r, wrong := parseLine(s.line)
	switch {
	case wrong != "":
	case r.Seq != s.next:
		wrong = fmt.Sprintf("has the number %d", r.Seq)
	case r.Prev != s.prev:
		wrong = fmt.Sprintf("follows a record with hash %s, but the one before it has %s", r.Prev, s.prev)
	}
	if wrong != "" {
		return Record{}, s.damage(wrong)
	}
	r.Offset = s.offset
	return r, nil
}

func (s *Scanner) damage(what string) error {
	return &DamageError{Path: s.path, Seq: s.next, Offset: s.offset, What: what}
}
