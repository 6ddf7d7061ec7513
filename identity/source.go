package identity

import (
	"crypto/tls"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/journal"
)

// A Source hands the server its certificate at every handshake and sees to it
// that it is fresh: issued anew when a third of its life is left, or read again
// when its files have changed. It works when it is asked, without a goroutine of
// its own. Its methods may be called from many goroutines.
type Source struct {
	now   func() time.Time
	renew func(now time.Time, old *tls.Certificate) (*tls.Certificate, error)

	mu      sync.Mutex
	current *tls.Certificate
	problem error
}

// NewSource returns a source of certificates that a issues for the given hosts.
// The keys live in memory only. A nil clock means [time.Now].
func NewSource(a *Authority, hosts []string, now func() time.Time) (*Source, error) {
	var next time.Time
	return newSource(now, func(t time.Time, old *tls.Certificate) (*tls.Certificate, error) {
		if old != nil && t.Before(next) {
			return old, nil
		}
		c, err := a.Issue(hosts, t)
		if err != nil {
			return nil, err
		}
		life := c.Leaf.NotAfter.Sub(t)
		next = t.Add(life * 2 / 3)
		return &c, nil
	})
}

// checkFiles is how often a [FileSource] looks whether its files have changed.
const checkFiles = 10 * time.Second

// FileSource returns a source that reads a certificate and its chain from one PEM
// file and the key from another, as ACME clients write them, and reads them again
// when they change. If that fails, the certificate before stays in use and
// [Source.Problem] says why. The file of the key must not be readable by
// everybody. A nil fsys means the operating system's, a nil clock [time.Now].
func FileSource(fsys journal.FS, cert, key string, now func() time.Time) (*Source, error) {
	if fsys == nil {
		fsys = journal.OS()
	}
	var seen [2]stamp
	var next time.Time
	var failed error
	return newSource(now, func(t time.Time, old *tls.Certificate) (_ *tls.Certificate, err error) {
		if old != nil && t.Before(next) {
			return old, failed
		}
		next = t.Add(checkFiles)
		defer func() { failed = err }()
		var stamps [2]stamp
		for i, name := range []string{cert, key} {
			info, err := fsys.Stat(name)
			if err != nil {
				return nil, fmt.Errorf("read the server's certificate: %w", err)
			}
			stamps[i] = stampOf(info)
		}
		if old != nil && stamps == seen {
			return old, nil
		}
		c, err := loadPair(fsys, cert, key)
		if err != nil {
			return nil, err
		}
		seen = stamps // only now: a pair that was caught half-written is tried again
		return c, nil
	})
}

type stamp struct {
	modified time.Time
	size     int64
}

func stampOf(info fs.FileInfo) stamp { return stamp{info.ModTime(), info.Size()} }

func loadPair(fsys journal.FS, cert, key string) (*tls.Certificate, error) {
	certPEM, err := readSecret(fsys, cert, 0)
	if err != nil {
		return nil, fmt.Errorf("read the server's certificate: %w", err)
	}
	// A group may read it: that is how servers share the files of an ACME client.
	keyPEM, err := readSecret(fsys, key, 0o007)
	if err != nil {
		return nil, fmt.Errorf("read the key of the server's certificate: %w", err)
	}
	c, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("the server's certificate %s and its key %s: %w", cert, key, err)
	}
	return &c, nil
}

func newSource(now func() time.Time, renew func(time.Time, *tls.Certificate) (*tls.Certificate, error)) (*Source, error) {
	if now == nil {
		now = time.Now
	}
	s := &Source{now: now, renew: renew}
	c, err := renew(now(), nil)
	if err != nil {
		return nil, err
	}
	s.current = c
	return s, nil
}

// Certificate returns the certificate to show now; it is what [ServerTLS] takes.
// It never returns nil.
func (s *Source) Certificate() *tls.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.renew(s.now(), s.current)
	if s.problem = err; err == nil {
		s.current = c
	}
	return s.current
}

// Problem returns why the newest attempt to renew the certificate failed, or
// that it has expired, or nil. A dashboard should show it.
func (s *Source) Problem() error {
	c := s.Certificate()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.problem != nil {
		return s.problem
	}
	if c.Leaf != nil && s.now().After(c.Leaf.NotAfter) {
		return fmt.Errorf("the server's certificate expired on %s: renew it", c.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}
