package identity

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/nats-io/nkeys"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/journal/faultfs"
)

func newKey(t testing.TB) Key {
	t.Helper()
	k, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// fixedKey returns the same key every time, for golden files.
func fixedKey(n byte) Key {
	seed := make([]byte, ed25519.SeedSize)
	for i := range seed {
		seed[i] = n
	}
	return Key{ed25519.NewKeyFromSeed(seed)}
}

// One key is the same to NATS, to TLS and to those who check signatures.
func TestOneKey(t *testing.T) {
	k := newKey(t)
	nk, err := k.NKey()
	if err != nil {
		t.Fatal(err)
	}
	public, err := nk.PublicKey()
	if err != nil || public != k.Public().String() || !nkeys.IsValidPublicUserKey(public) {
		t.Errorf("NKey %q (%v), our text form %q", public, err, k.Public())
	}
	msg := []byte("a message")
	sig, err := nk.Sign(msg)
	if err != nil || !k.Public().Verify(msg, sig) {
		t.Errorf("a signature by the NKey is not one of the key (%v)", err)
	}
	if err := nk.Verify(msg, k.Sign(msg)); err != nil {
		t.Errorf("a signature by the key is not one of the NKey: %v", err)
	}
	cert, err := k.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	p, err := FromCertificate(cert.Leaf)
	if err != nil || p != k.Public() || cert.Leaf.Subject.CommonName != public {
		t.Errorf("certificate of %v (%v), subject %v", p, err, cert.Leaf.Subject)
	}
	parsed, err := ParsePublic(public)
	if err != nil || parsed != k.Public() || !parsed.Equal(k.Public()) {
		t.Errorf("read back as %v (%v)", parsed, err)
	}
	if k.Public().Verify(msg, sig[:63]) || k.Public().Verify([]byte("another"), sig) || newKey(t).Public().Verify(msg, sig) {
		t.Error("a wrong signature was accepted")
	}
}

func TestKeysDoNotPrint(t *testing.T) {
	k := newKey(t)
	seed := string(k.Seed())
	s := Secret{1, 2, 3}
	secret, _ := s.MarshalText()
	for _, text := range []string{fmt.Sprint(k), fmt.Sprintf("%v %+v %#v %s", k, k, k, k), fmt.Sprintf("%v %+v %#v %s %q", s, s, s, s, s)} {
		if strings.Contains(text, seed) || strings.Contains(text, string(secret)) || strings.Contains(text, "1, 2, 3") {
			t.Errorf("a secret was printed: %s", text)
		}
	}
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	k := newKey(t)
	if _, err := LoadKey(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := k.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := LoadKey(path)
	if err != nil || got.Public() != k.Public() {
		t.Errorf("read back %v (%v)", got, err)
	}
	if err := k.Save(path); err != nil {
		t.Errorf("saving the same key again: %v", err)
	}
	if err := newKey(t).Save(path); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("saving over another key: %v", err)
	}
	if runtime.GOOS != "windows" {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v (%v)", info.Mode(), err)
		}
		for _, mode := range []fs.FileMode{0o640, 0o604, 0o602, 0o644} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			if _, err := LoadKey(path); err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
				t.Errorf("mode %#o: %v", mode, err)
			}
		}
	}
	for _, text := range []string{"", "SU", strings.Repeat("S", 58), k.Public().String(), "hello\nthere"} {
		if _, err := ParseKey(text); err == nil {
			t.Errorf("%q was read as a key", text)
		}
	}
}

// A crash at any operation leaves no key or the whole one, never a part.
func TestKeyFileSurvivesCrashes(t *testing.T) {
	k := newKey(t)
	for _, op := range []faultfs.Op{faultfs.Create, faultfs.Write, faultfs.Sync, faultfs.Rename, faultfs.SyncDir} {
		for _, crash := range []faultfs.Crash{faultfs.PowerLoss, faultfs.PowerLossAfterMetadata, faultfs.Kill} {
			path := filepath.Join(t.TempDir(), "key")
			f := faultfs.New(journal.OS())
			f.Add(faultfs.Rule{Op: op, N: 1, Crash: crash})
			if err := k.SaveTo(f, path); err == nil {
				t.Errorf("%s, crash %d: no error", op, crash)
			}
			got, err := LoadKey(path)
			if err == nil && got.Public() != k.Public() || err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s, crash %d: afterwards %v, %v", op, crash, got, err)
			}
			if err := k.Save(path); err != nil {
				t.Errorf("%s, crash %d: saving again: %v", op, crash, err)
			}
		}
	}
}

// For every key in the table somebody without any secret can make a signature,
// and such a signature is refused.
func TestWeakKeys(t *testing.T) {
	forged := make([]byte, ed25519.SignatureSize)
	forged[0] = 1 // R is the identity, S is 0: valid if the hash is a multiple of the key's order
	for p := range weak {
		for _, sign := range []byte{0, 0x80} {
			p := p
			p[31] |= sign
			works := false
			for i := range 200 {
				msg := fmt.Append(nil, "message ", i)
				if ed25519.Verify(p[:], msg, forged) {
					works = true
				}
				if p.Verify(msg, forged) {
					t.Errorf("%x: a forged signature was accepted", p)
				}
			}
			// Not every sign has a point; what is no point is refused by all.
			if !works && sign == 0 {
				t.Errorf("%x: no forgery works: it does not belong into the table", p)
			}
			if _, err := ParsePublic(p.String()); err == nil {
				t.Errorf("%x was read as a key", p)
			}
		}
	}
	if newKey(t).Public().Weak() {
		t.Error("a usual key counts as weak")
	}
}

func TestNames(t *testing.T) {
	for _, good := range []string{"a", "north", "clinic-7", "0", "site_a", strings.Repeat("x", 63)} {
		if err := CheckName(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "-a", "_a", "a.b", "a b", "a*", ">", "a>", "ä", "a/b", "..", "all", "coordinator", "a\n", strings.Repeat("x", 64), "\x00"} {
		if err := CheckName(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	if err := CheckName("North"); err == nil || !strings.Contains(err.Error(), `try "north"`) {
		t.Errorf("a capital: %v", err)
	}
}
