package member

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/journal/faultfs"
	"github.com/cohort-learning/cohort/secure/secagg"
)

// clinics is a roster with members, and their keys.
type clinics struct {
	t       *testing.T
	roster  *identity.Roster
	keys    map[string]identity.Key
	fetched int
}

func newKey(t *testing.T) identity.Key {
	t.Helper()
	k, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newClinics(t *testing.T, federation identity.Key, names ...string) *clinics {
	t.Helper()
	r, err := identity.Found(t.TempDir(), federation, "clinics", journal.Options{FS: faultfs.New(journal.OS())})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	c := &clinics{t: t, roster: r, keys: map[string]identity.Key{}}
	c.admit(names...)
	return c
}

func (c *clinics) admit(names ...string) {
	c.t.Helper()
	for _, name := range names {
		c.keys[name] = newKey(c.t)
		err := c.roster.Invite(name, identity.Secret{1}, time.Now().Add(time.Hour))
		if err == nil {
			_, err = c.roster.Admit(name, identity.Secret{1}, c.keys[name].Public())
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *clinics) text() []byte {
	c.t.Helper()
	var b bytes.Buffer
	if err := c.roster.WriteFrom(&b, 0); err != nil {
		c.t.Fatal(err)
	}
	return b.Bytes()
}

// peers are those of a member in a folder.
func (c *clinics) peers(dir string, pins map[string]identity.Public) *peers {
	p := &peers{key: c.keys["north"], own: "north", pins: pins, insist: len(pins) > 0}
	p.fetch = func(context.Context) (*identity.View, error) {
		c.fetched++
		return readRoster(journal.OS(), dir, c.roster.Federation(), bytes.NewReader(c.text()), false)
	}
	return p
}

func TestPeers(t *testing.T) {
	c := newClinics(t, newKey(t), "north", "south", "east")
	p := c.peers(t.TempDir(), nil)
	msg := []byte("keys for this session alone")
	sign := func(name string) []byte { return c.keys[name].Sign(msg) }
	good := func(name string, fetched int) {
		t.Helper()
		if err := p.verify(t.Context(), name, msg, sign(name)); err != nil || c.fetched != fetched {
			t.Errorf("%s: %v, the roster was fetched %d times, want %d", name, err, c.fetched, fetched)
		}
	}
	good("south", 1)
	good("east", 1)
	good("south", 1)
	good("north", 1) // oneself, by the own key
	if !bytes.Equal(p.Sign(msg), sign("north")) {
		t.Error("signed with another key")
	}
	c.admit("west")
	good("west", 2)
	good("east", 2)
	for what, tt := range map[string]struct {
		name string
		sig  []byte
		kind error
		says string
	}{
		"another's signature":     {"south", sign("east"), nil, "not that of the key in the roster"},
		"no signature":            {"south", nil, nil, "not that of the key in the roster"},
		"one of oneself":          {"north", sign("east"), nil, "not this member's"},
		"a name that nobody has":  {"nobody", sign("east"), secagg.ErrUnknown, "no such member"},
		"of an invented peer":     {"invented", newKey(t).Sign(msg), secagg.ErrUnknown, "no such member"},
		"of a name without bytes": {"", sign("east"), secagg.ErrUnknown, "no such member"},
	} {
		err := p.verify(t.Context(), tt.name, msg, tt.sig)
		if err == nil || !strings.Contains(err.Error(), tt.says) || errors.Is(err, secagg.ErrUnknown) != (tt.kind != nil) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Whoever was put out is none of them, once the roster is fetched again.
	if err := c.roster.Revoke("east", "lost its laptop"); err != nil {
		t.Fatal(err)
	}
	fresh := c.peers(t.TempDir(), nil)
	if err := fresh.verify(t.Context(), "east", msg, sign("east")); !errors.Is(err, secagg.ErrUnknown) || !strings.Contains(err.Error(), "does not admit") {
		t.Errorf("a revoked peer: %v", err)
	}
	// A roster that does not come is not a peer that does not exist.
	away := errors.New("no route to host")
	fresh = &peers{key: c.keys["north"], own: "north", fetch: func(context.Context) (*identity.View, error) { return nil, away }}
	if err := fresh.verify(t.Context(), "south", msg, sign("south")); !errors.Is(err, away) || errors.Is(err, secagg.ErrUnknown) {
		t.Errorf("no roster: %v", err)
	}
	fresh.fetch = nil
	if err := fresh.verify(t.Context(), "south", msg, sign("south")); !errors.Is(err, secagg.ErrUnknown) {
		t.Errorf("no roster at all: %v", err)
	}
}

// TestPeersPinned checks that a pinned key counts for more than the roster.
func TestPeersPinned(t *testing.T) {
	c := newClinics(t, newKey(t), "north", "south", "east")
	outside := newKey(t)
	p := c.peers(t.TempDir(), map[string]identity.Public{"south": outside.Public()})
	msg := []byte("keys")
	if err := p.verify(t.Context(), "south", msg, outside.Sign(msg)); err != nil || c.fetched != 0 {
		t.Errorf("by the pinned key: %v, the roster was fetched %d times", err, c.fetched)
	}
	if err := p.verify(t.Context(), "south", msg, c.keys["south"].Sign(msg)); err == nil || !strings.Contains(err.Error(), "list of peers") {
		t.Errorf("by the key of the roster, which is another one: %v", err)
	}
	if err := p.verify(t.Context(), "east", msg, c.keys["east"].Sign(msg)); err != nil {
		t.Errorf("who is not pinned, by the roster: %v", err)
	}
	if !p.Pinned("south") || p.Pinned("east") || p.Pinned("nobody") || !p.Insists() || c.peers(t.TempDir(), nil).Insists() {
		t.Error("who is pinned, and whether it matters, is not as was said")
	}
}

// TestRosterGoesOn checks that a roster that does not go on from what was seen, in this life or an earlier one, is refused.
func TestRosterGoesOn(t *testing.T) {
	federation := newKey(t)
	c := newClinics(t, federation, "north", "south")
	dir := t.TempDir()
	read := func(text []byte) (*identity.View, error) {
		return readRoster(journal.OS(), dir, federation.Public(), bytes.NewReader(text), false)
	}
	before := c.text()
	c.admit("east")
	seen := c.text()
	view, err := read(seen)
	if err != nil {
		t.Fatal(err)
	}
	head := func() string {
		b, err := os.ReadFile(filepath.Join(dir, rosterName))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if want := headLine(view.Head()); head() != want {
		t.Errorf("the head is kept as %q, want %q", head(), want)
	}
	kept := head()
	var back *identity.RollbackError
	var foreign *identity.ForeignError
	if _, err := read(before); !errors.As(err, &back) {
		t.Errorf("set back: %v", err)
	}
	other := newClinics(t, federation, "north", "south", "east", "west")
	if _, err := read(other.text()); !errors.As(err, &back) {
		t.Errorf("another history of the same federation: %v", err)
	}
	if _, err := read(newClinics(t, newKey(t), "north", "south", "east", "west").text()); !errors.As(err, &foreign) {
		t.Errorf("a foreign roster: %v", err)
	}
	if _, err := read(seen[:len(seen)-3]); err == nil {
		t.Error("half a line was read")
	}
	if _, err := read(nil); err == nil {
		t.Error("an empty roster was read")
	}
	if head() != kept {
		t.Errorf("what was refused has changed the head to %q", head())
	}
	if _, err := read(seen); err != nil {
		t.Errorf("the same again: %v", err)
	}
	c.admit("west")
	if view, err = read(c.text()); err != nil || head() != headLine(view.Head()) || head() == kept {
		t.Errorf("the roster goes on: %v, head %q", err, head())
	}
	// A person has said that the coordinator was set back.
	if view, err = readRoster(journal.OS(), dir, federation.Public(), bytes.NewReader(before), true); err != nil || head() != headLine(view.Head()) {
		t.Errorf("accepted: %v, head %q", err, head())
	}
	for _, damage := range []string{"", "3", "x y\n", "-1 " + strings.Repeat("0", 64) + "\n", "3 " + strings.Repeat("z", 64) + "\n", kept + "more", "0" + kept,
		kept[:len(kept)-2], strings.Repeat(kept, 3)} {
		if err := os.WriteFile(filepath.Join(dir, rosterName), []byte(damage), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := read(seen); err == nil || !strings.Contains(err.Error(), "is damaged: remove it") {
			t.Errorf("head file %.30q: %v", damage, err)
		}
	}
}

func TestReadPeers(t *testing.T) {
	a, b := newKey(t).Public(), newKey(t).Public()
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "peers")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	got, err := ReadPeers(write(fmt.Sprintf("# met in Bern\n\n  north\t%s # by phone\nsouth %s\nnorth %s\n", a, b, a)))
	if err != nil || len(got) != 2 || got["north"] != a || got["south"] != b {
		t.Errorf("%v, %v", got, err)
	}
	for text, want := range map[string]string{
		"":                                       "names no peer",
		"# nobody\n":                             "names no peer",
		"north\n":                                ":1: expected a name and a key",
		"\n\nnorth " + a.String() + " x\n":       ":3: expected a name and a key",
		"north " + a.String() + "\nNORTH! abc\n": ":2: ",
		"north abc\n":                            ":1: ",
		"north " + a.String()[:40] + "\n":        ":1: ",
		fmt.Sprintf("north %s\n#\nnorth %s", a, b): ":3: another key of north stands above",
		strings.Repeat("x", 1<<17):                 "token too long",
	} {
		path := write(text)
		if _, err := ReadPeers(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%.40q: got %v, want %q", text, err, want)
		}
	}
	if _, err := ReadPeers(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
