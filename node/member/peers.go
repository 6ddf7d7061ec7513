package member

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/secure/secagg"
)

// rosterName is the file of the roster's head that the member has seen last.
const rosterName = "roster.head"

// maxRoster bounds a roster that is read.
const maxRoster = 256 << 20

// peers are the other members as this one knows them: by keys that were exchanged without the coordinator, and by the roster,
// whose every record the federation has signed and which only ever goes on from what was seen before.
type peers struct {
	key    identity.Key
	own    string
	pins   map[string]identity.Public
	fetch  func(context.Context) (*identity.View, error) // tries again until the context ends or it is in vain
	insist bool

	mu   sync.Mutex
	view *identity.View
}

// during are peers while one task is computed: the roster is fetched when it is needed, and that ends with the task.
type during struct {
	*peers
	ctx context.Context
}

var _ federated.Peers = during{}

// Verify implements [federated.Peers].
func (d during) Verify(name string, msg, sig []byte) error { return d.verify(d.ctx, name, msg, sig) }

// Sign implements [federated.Peers].
func (p *peers) Sign(msg []byte) []byte { return p.key.Sign(msg) }

// Pinned implements [federated.Peers].
func (p *peers) Pinned(name string) bool {
	_, ok := p.pins[name]
	return ok
}

// Insists implements [federated.Peers]: who was given keys wants them used.
func (p *peers) Insists() bool { return p.insist }

func (p *peers) verify(ctx context.Context, name string, msg, sig []byte) error {
	if key, ok := p.pins[name]; ok {
		if !key.Verify(msg, sig) {
			return errors.New("the signature is not that of the key in the list of peers")
		}
		return nil
	}
	if name == p.own {
		if !p.key.Public().Verify(msg, sig) {
			return errors.New("the signature is not this member's")
		}
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for fresh := false; ; fresh = true {
		if p.view != nil {
			m, ok := p.view.ByName(name)
			if ok && m.State == identity.Admitted && m.Key.Verify(msg, sig) {
				return nil
			}
			if fresh && !ok {
				return fmt.Errorf("%w: the roster has no such member", secagg.ErrUnknown)
			}
			if fresh && m.State != identity.Admitted {
				return fmt.Errorf("%w: the roster does not admit it", secagg.ErrUnknown)
			}
			if fresh {
				return errors.New("the signature is not that of the key in the roster")
			}
		}
		if p.fetch == nil {
			return fmt.Errorf("%w: this member has no roster to look it up in", secagg.ErrUnknown)
		}
		view, err := p.fetch(ctx)
		if err != nil {
			return fmt.Errorf("fetching the roster: %w", err)
		}
		p.view = view
	}
}

// ReadPeers reads a list of members' public keys, exchanged without the coordinator: a name and a key a line, as "cohort members
// --keys" prints them; # begins a comment.
func ReadPeers(path string) (map[string]identity.Public, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]identity.Public{}
	s := bufio.NewScanner(f)
	for n := 1; s.Scan(); n++ {
		text, _, _ := strings.Cut(s.Text(), "#")
		words := strings.Fields(text)
		if len(words) == 0 {
			continue
		}
		if len(words) != 2 {
			return nil, fmt.Errorf("%s:%d: expected a name and a key", path, n)
		}
		if err := identity.CheckName(words[0]); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		key, err := identity.ParsePublic(words[1])
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		if old, ok := out[words[0]]; ok && old != key {
			return nil, fmt.Errorf("%s:%d: another key of %s stands above", path, n, words[0])
		}
		out[words[0]] = key
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s names no peer", path)
	}
	return out, nil
}

// readRoster verifies a roster against the head that was seen last, unless a person has said that it need not go on from there, and
// keeps the new one.
func readRoster(fsys journal.FS, dir string, federation identity.Public, r io.Reader, anew bool) (*identity.View, error) {
	path := filepath.Join(dir, rosterName)
	var known journal.Head
	f, err := fsys.OpenFile(path, os.O_RDONLY, 0)
	switch {
	case err == nil:
		b, err := io.ReadAll(io.LimitReader(f, 4096))
		_ = f.Close()
		if err == nil {
			_, err = fmt.Sscanf(string(b), "%d %s", &known.Seq, (*hashText)(&known.Hash))
		}
		if err == nil && string(b) != headLine(known) {
			err = errors.New("it is longer than was written, or written otherwise")
		}
		if err != nil {
			return nil, fmt.Errorf("%s is damaged: remove it to begin anew with the coordinator's roster: %w", path, err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	from := known
	if anew {
		from = journal.Head{}
	}
	view, err := identity.ReadRoster(io.LimitReader(r, maxRoster), federation, from)
	if err != nil {
		return nil, err
	}
	if head := view.Head(); head != known {
		err = journal.WriteFile(fsys, path, func(w io.Writer) error { _, err := io.WriteString(w, headLine(head)); return err })
	}
	return view, err
}

func headLine(h journal.Head) string { return fmt.Sprintf("%d %s\n", h.Seq, h.Hash) }

// hashText scans a hash.
type hashText journal.Hash

// Scan implements [fmt.Scanner].
func (h *hashText) Scan(s fmt.ScanState, _ rune) error {
	token, err := s.Token(true, nil)
	if err != nil {
		return err
	}
	return (*journal.Hash)(h).UnmarshalText(token)
}
