package dataset

import (
	"bufio"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxBytes bounds what one file may unpack to.
const maxBytes = 4 << 30

// source reads one file, unpacked, and knows where it stands, so that every error names the file and the byte.
type source struct {
	r     io.Reader
	name  string
	off   int64
	close func() error
}

// open opens a file and unpacks it on the way if its name ends in .gz or .bz2.
func open(path string) (*source, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err == nil && st.IsDir() {
		f.Close()
		return nil, fmt.Errorf("%s is a folder, a file was expected", path)
	}
	s := &source{r: bufio.NewReaderSize(f, 1<<16), name: path, close: f.Close}
	switch filepath.Ext(path) {
	case ".gz":
		z, err := gzip.NewReader(s.r)
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("%s: not a gzip file: %w", path, err)
		}
		s.r = z
	case ".bz2":
		s.r = bzip2.NewReader(s.r)
	}
	return s, nil
}

// Close closes the file.
func (s *source) Close() error {
	if s.close == nil {
		return nil
	}
	return s.close()
}

// errf returns an error that names the file and the byte the reader stands at.
func (s *source) errf(format string, args ...any) error {
	return fmt.Errorf("%s: byte %d: %w", s.name, s.off, fmt.Errorf(format, args...))
}

// Read reads at most len(p) bytes and fails once the file has unpacked to more than maxBytes.
func (s *source) Read(p []byte) (int, error) {
	if s.off >= maxBytes {
		return 0, s.errf("the file unpacks to more than %d bytes", int64(maxBytes))
	}
	n, err := s.r.Read(p)
	s.off += int64(n)
	if err != nil && err != io.EOF {
		err = s.errf("unpacking: %w", err)
	}
	return n, err
}

// full fills buf or says that the file ends too early.
func (s *source) full(buf []byte, what string) error {
	n, err := io.ReadFull(s, buf)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return s.errf("the file ends inside %s: %d of %d bytes are there", what, n, len(buf))
	}
	return err
}

// bytes reads n bytes. The buffer grows with what really arrives, so that a false count costs nothing.
func (s *source) bytes(n int64, what string) ([]byte, error) {
	if n > maxBytes {
		return nil, s.errf("%s of %d bytes is more than the limit of %d", what, n, int64(maxBytes))
	}
	buf := make([]byte, 0, min(n, 1<<20))
	for int64(len(buf)) < n {
		if len(buf) == cap(buf) {
			grown := make([]byte, len(buf), min(n, 2*int64(cap(buf))))
			copy(grown, buf)
			buf = grown
		}
		k, err := s.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+k]
		if err == io.EOF && int64(len(buf)) < n {
			return nil, s.errf("the file ends inside %s: %d of %d bytes are there", what, len(buf), n)
		}
		if err != nil && err != io.EOF {
			return nil, err
		}
	}
	return buf, nil
}

// rest reads everything that is left, which must be less than limit bytes.
func (s *source) rest(limit int64) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(s, limit))
	if err == nil && int64(len(raw)) == limit {
		err = s.errf("the file is larger than the limit of %d bytes", limit)
	}
	return raw, err
}

// end fails if anything is left.
func (s *source) end() error {
	var b [1]byte
	n, err := io.ReadFull(s, b[:])
	if n > 0 {
		return s.errf("the file goes on after its last value; it is longer than its header says")
	}
	if err != io.EOF {
		return err
	}
	return nil
}

// find returns the first file of dir that has one of the names, as it is or packed with .gz or .bz2.
func find(dir string, names ...string) (string, error) {
	for _, name := range names {
		for _, ext := range []string{"", ".gz", ".bz2"} {
			p := filepath.Join(dir, name+ext)
			if st, err := os.Stat(p); err == nil && !st.IsDir() {
				return p, nil
			}
		}
	}
	return "", fmt.Errorf("%w: none of %s (or .gz, .bz2) in %s", fs.ErrNotExist, strings.Join(names, ", "), dir)
}
