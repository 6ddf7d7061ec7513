package journal

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
)

// Read returns the records of the journal in dir, in order; only those of the
// given kinds, if any are given. It takes no lock, so a run may be at work on
// it: an incomplete last record is passed over in silence. Every record is
// checked, those of other kinds as well. An error ends the iteration; it is a
// *[DamageError] if a record is wrong.
func Read(fsys FS, dir string, kinds ...string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		path := filepath.Join(dir, FileName)
		f, err := fsys.OpenFile(path, os.O_RDONLY, 0)
		if err != nil {
			yield(Record{}, fmt.Errorf("read journal: %w", err))
			return
		}
		defer f.Close()
		records(NewScanner(f, path), kinds, yield)
	}
}

func records(s *Scanner, kinds []string, yield func(Record, error) bool) {
	for {
		r, err := s.Next()
		if err == nil && r.Seq == 0 {
			_, err = readHeader(r)
		}
		switch {
		case err == io.EOF, errors.Is(err, ErrIncomplete):
			return
		case err != nil:
			yield(Record{}, err)
			return
		case len(kinds) > 0 && !slices.Contains(kinds, r.Kind):
		case !yield(r, nil):
			return
		}
	}
}

// A Typed is a record with its body decoded; Body hides the raw one, which is
// still there as Record.Body.
type Typed[T any] struct {
	Record
	Body T
}

// Decode returns the records of seq, each with its body decoded as a T. A body
// that is no T is an error that names the record, and ends the iteration.
func Decode[T any](seq iter.Seq2[Record, error]) iter.Seq2[Typed[T], error] {
	return func(yield func(Typed[T], error) bool) {
		for r, err := range seq {
			t := Typed[T]{Record: r}
			if err == nil {
				err = r.Decode(&t.Body)
			}
			if err != nil {
				yield(Typed[T]{}, err)
				return
			}
			if !yield(t, nil) {
				return
			}
		}
	}
}

// Locked reports whether a writer is at work in dir, and who, as far as known.
func Locked(fsys FS, dir string) (holder string, locked bool, err error) {
	return fsys.Locked(filepath.Join(dir, LockName))
}
