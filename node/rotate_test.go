package node

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/node/member"
)

// TestRotation: a coordinator whose authority is another than before is recognised by its members, with and without overlap, and
// a member with a new key is the same member.
func TestRotation(t *testing.T) {
	for name, overlap := range map[string]time.Duration{"overlap": time.Hour, "none": 0} {
		t.Run(name, func(t *testing.T) {
			o := Options{Dir: t.TempDir(), Listen: "127.0.0.1:0", URL: "https://127.0.0.1:1"}
			life := func(do func(h *Host)) {
				t.Helper()
				h, err := Open(o)
				if err != nil {
					t.Fatal(err)
				}
				h.URL = "https://" + h.Addr().String()
				o.Listen = h.Addr().String() // the same next time
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- h.Serve(ctx) }()
				do(h)
				cancel()
				if err := <-done; err != nil {
					t.Fatal(err)
				}
			}
			var f *member.Folder
			dial := func() {
				t.Helper()
				again, err := member.OpenFolder(f.Dir)
				if err != nil {
					t.Fatal(err)
				}
				var mo member.Options
				if err := again.Network(&mo); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				link, err := mo.Dial(ctx)
				if err != nil {
					t.Fatal(err)
				}
				_ = link.Close()
			}
			life(func(h *Host) {
				tokens, err := h.Tokens(time.Hour, "north")
				if err != nil {
					t.Fatal(err)
				}
				if f, err = member.Enrol(t.Context(), filepath.Join(t.TempDir(), "north"), tokens[0], member.EnrolOptions{}); err != nil {
					t.Fatal(err)
				}
				dial()
			})
			b, err := OpenBook(o.Dir)
			if err != nil {
				t.Fatal(err)
			}
			before := b.CA.Fingerprint()
			if err := b.RotateCA(overlap); err != nil {
				t.Fatal(err)
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			life(func(h *Host) {
				if h.CA.Fingerprint() == before {
					t.Fatal("the authority is still the old one")
				}
				dial()
				f, err := member.OpenFolder(f.Dir)
				if err != nil {
					t.Fatal(err)
				}
				if f.Card.CA != h.CA.Fingerprint() || f.Card.Pins != 1 {
					t.Errorf("the member has learned fingerprint %v, list %d", f.Card.CA, f.Card.Pins)
				}
				old := f.Key.Public()
				if err := f.RotateKey(t.Context()); err != nil {
					t.Fatal(err)
				}
				if m, ok := h.Roster.ByName("north"); !ok || m.Key == old || m.Key != f.Key.Public() || m.State != identity.Admitted {
					t.Errorf("the roster has %+v; the member's key is %v, it was %v", m, f.Key.Public(), old)
				}
				dial()
			})
		})
	}
}
