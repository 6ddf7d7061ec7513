package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/journal/faultfs"
)

// quiet returns options with a file system that does not wait for a disk, and a
// clock that ticks a second a call.
func quiet() journal.Options {
	t := epoch
	var mu sync.Mutex
	return journal.Options{FS: faultfs.New(journal.OS()), Now: func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		t = t.Add(time.Second)
		return t
	}}
}

func found(t testing.TB, dir string, k Key) *Roster {
	t.Helper()
	r, err := Found(dir, k, "clinics", quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

var later = epoch.Add(72 * time.Hour)

// join invites a name and admits it with a key.
func join1(t testing.TB, r *Roster, name string, secret Secret, k Key) Member {
	t.Helper()
	must(t, r.Invite(name, secret, later))
	m, err := r.Admit(name, secret, k.Public())
	must(t, err)
	return m
}

// text returns the bytes that a member gets.
func text(t testing.TB, r *Roster) []byte {
	t.Helper()
	var buf bytes.Buffer
	must(t, r.WriteFrom(&buf, 0))
	return buf.Bytes()
}

// story makes a roster with a record of every kind, the same every time.
func story(t testing.TB, dir string) *Roster {
	t.Helper()
	fed := fixedKey(1)
	r := found(t, dir, fed)
	join1(t, r, "north", Secret{1}, fixedKey(2))
	must(t, r.InviteAll([]Invitation{{"south", Secret{2}, later}, {"east", Secret{3}, later}, {"west", Secret{4}, later}}))
	_, err := r.Admit("south", Secret{2}, fixedKey(3).Public())
	must(t, err)
	must(t, r.Leave("south"), r.Revoke("east", `lost laptop, <"quoted"> & more`))
	_, err = r.Rotate(SignRotation(fed.Public(), "north", fixedKey(2), fixedKey(4)))
	must(t, err)
	must(t, r.Invite("south", Secret{5}, later))
	_, err = r.Admit("south", Secret{5}, fixedKey(3).Public())
	must(t, err)
	return r
}

func TestRosterGolden(t *testing.T) {
	dir := t.TempDir()
	r := story(t, dir)
	data, err := os.ReadFile(filepath.Join(dir, journal.FileName))
	must(t, err)
	golden(t, "roster.jsonl", data)
	if !bytes.Equal(data, text(t, r)) {
		t.Error("what members get is not what stands in the file")
	}

	var got strings.Builder
	v, err := ReadRoster(bytes.NewReader(data), fixedKey(1).Public(), journal.Head{})
	must(t, err)
	for _, m := range v.Members() {
		fmt.Fprintln(&got, m.Index, m.Name, m.State, !m.Key.IsZero(), m.Why)
	}
	want := `0 north admitted true 
1 south admitted true 
2 east revoked false lost laptop, <"quoted"> & more
3 west invited false 
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(r.Members(), v.Members()); diff != "" {
		t.Error("coordinator and member see different rosters:", diff)
	}
	if v.Name() != "clinics" || v.Head() != r.Head() || v.Len() != 4 || v.Federation() != r.Federation() {
		t.Errorf("view of %s at %v", v.Name(), v.Head())
	}
	if name, ok := v.Who(fixedKey(4).Public()); !ok || name != "north" {
		t.Errorf("new key: %q, %v", name, ok)
	}
	for _, k := range []Public{fixedKey(2).Public(), newKey(t).Public(), {}} {
		if name, ok := v.Who(k); ok {
			t.Errorf("key %v passes for %s", k, name)
		}
	}
}

func TestOpenRosterGoesOn(t *testing.T) {
	dir := t.TempDir()
	r := story(t, dir)
	members, head := r.Members(), r.Head()
	if _, err := OpenRoster(dir, fixedKey(1), quiet()); !errors.As(err, new(*journal.LockedError)) {
		t.Errorf("opened twice: %v", err)
	}
	must(t, r.Close())
	if _, err := OpenRoster(dir, fixedKey(9), quiet()); err == nil || !strings.Contains(err.Error(), "belongs to the run") {
		t.Errorf("opened with another federation's key: %v", err)
	}
	if _, err := Found(dir, fixedKey(1), "clinics", quiet()); !errors.Is(err, journal.ErrExists) {
		t.Errorf("founded again: %v", err)
	}
	r, err := OpenRoster(dir, fixedKey(1), quiet())
	must(t, err)
	defer r.Close()
	if diff := cmp.Diff(members, r.Members()); diff != "" || r.Head() != head {
		t.Error("after opening again:", diff)
	}
	if _, err := r.Admit("west", Secret{4}, newKey(t).Public()); err != nil {
		t.Errorf("a token from before: %v", err)
	}
	for _, m := range r.Members() {
		p, err := r.Proof(m.Name)
		if (err == nil) != (m.State == Admitted) {
			t.Errorf("proof of %s, %s: %v", m.Name, m.State, err)
		}
		if err == nil && m.Name != "north" { // north has changed its key since
			must(t, p.Admission(r.Federation(), m.Name, m.Key))
			for _, err := range []error{p.Admission(newKey(t).Public(), m.Name, m.Key), p.Admission(r.Federation(), "north", m.Key), p.Admission(r.Federation(), m.Name, newKey(t).Public())} {
				if err == nil {
					t.Errorf("proof of %s was taken for another's", m.Name)
				}
			}
		}
	}
}

// The table of what a holder of a token is told, and of what everybody else is.
func TestAdmit(t *testing.T) {
	now := epoch
	r, err := Found(t.TempDir(), newKey(t), "clinics", journal.Options{FS: faultfs.New(journal.OS()), Now: func() time.Time { return now }})
	must(t, err)
	defer r.Close()
	fed, a, b := r.key, newKey(t), newKey(t)
	must(t, r.Invite("north", Secret{1}, later), r.Invite("old", Secret{2}, epoch.Add(time.Hour)),
		r.Invite("gone", Secret{3}, later), r.Invite("twice", Secret{4}, later), r.Invite("twice", Secret{5}, later), r.Revoke("gone", ""))
	now = epoch.Add(time.Hour)
	m, err := r.Admit("north", Secret{1}, a.Public())
	if err != nil || m.Name != "north" || m.Key != a.Public() || m.State != Admitted || m.Index != 0 {
		t.Fatalf("%+v, %v", m, err)
	}
	head := r.Head()
	if again, err := r.Admit("north", Secret{1}, a.Public()); err != nil || again != m {
		t.Errorf("the same again: %+v, %v", again, err)
	}
	for _, c := range []struct {
		what, name string
		secret     Secret
		key        Public
		want       error
	}{
		{"used by another key", "north", Secret{1}, b.Public(), ErrTokenUsed},
		{"expired", "old", Secret{2}, b.Public(), ErrTokenExpired},
		{"revoked", "gone", Secret{3}, b.Public(), ErrNameRevoked},
		{"superseded", "twice", Secret{4}, b.Public(), ErrTokenSuperseded},
		{"another's key", "twice", Secret{5}, a.Public(), ErrKeyTaken},
		{"the federation's key", "twice", Secret{5}, fed.Public(), ErrKeyTaken},
		{"wrong secret", "twice", Secret{1}, b.Public(), ErrNotInvited},
		{"wrong secret of a member", "north", Secret{9}, a.Public(), ErrNotInvited},
		{"wrong secret of an expired", "old", Secret{9}, b.Public(), ErrNotInvited},
		{"wrong secret of a revoked", "gone", Secret{9}, b.Public(), ErrNotInvited},
		{"unknown name", "nobody", Secret{1}, b.Public(), ErrNotInvited},
		{"unknown name, zero secret", "nobody", Secret{}, b.Public(), ErrNotInvited},
		{"no name", "", Secret{}, b.Public(), ErrNotInvited},
	} {
		_, err := r.Admit(c.name, c.secret, c.key)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v; want %v", c.what, err, c.want)
		}
		if c.want == ErrNotInvited && err != ErrNotInvited {
			t.Errorf("%s: the text tells more: %v", c.what, err)
		}
	}
	for p := range weak {
		if _, err := r.Admit("twice", Secret{5}, p); err == nil {
			t.Errorf("the weak key %x was admitted", p)
		}
	}
	if r.Head() != head {
		t.Error("a refusal left a record")
	}
	if _, err := r.Admit("twice", Secret{5}, b.Public()); err != nil {
		t.Errorf("after all that, the valid token: %v", err)
	}
	data, err := os.ReadFile(r.j.Path())
	must(t, err)
	for i := byte(1); i < 6; i++ { // 0 is 64 zeros, as in the header
		s, _ := Secret{i}.MarshalText()
		if bytes.Contains(data, s) || bytes.Contains(data, fmt.Appendf(nil, "%x", [32]byte{i})) {
			t.Error("the roster holds a secret")
		}
	}
}

func TestMembersComeAndGo(t *testing.T) {
	r := found(t, t.TempDir(), newKey(t))
	a, b, c := newKey(t), newKey(t), newKey(t)
	join1(t, r, "north", Secret{1}, a)
	for what, err := range map[string]error{
		"invite a member":        r.Invite("north", Secret{2}, later),
		"invite for the past":    r.Invite("south", Secret{2}, epoch),
		"invite a bad name":      r.Invite("a.b", Secret{2}, later),
		"invite twice at once":   r.InviteAll([]Invitation{{"x", Secret{1}, later}, {"x", Secret{2}, later}}),
		"leave without being":    r.Leave("nobody"),
		"revoke without being":   r.Revoke("nobody", ""),
		"revoke with long words": r.Revoke("north", strings.Repeat("x", 201)),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if n := len(r.Members()); n != 1 {
		t.Errorf("%d members after refused invitations", n)
	}
	must(t, r.Leave("north"))
	if _, ok := r.Who(a.Public()); ok {
		t.Error("a member that left is still one")
	}
	if _, err := r.Admit("north", Secret{1}, a.Public()); !errors.Is(err, ErrTokenUsed) {
		t.Errorf("the old token after leaving: %v", err)
	}
	must(t, r.Invite("north", Secret{3}, later))
	if _, err := r.Admit("north", Secret{3}, b.Public()); !errors.Is(err, ErrOtherKey) {
		t.Errorf("the name with another key: %v", err)
	}
	if _, err := r.Admit("north", Secret{3}, a.Public()); err != nil {
		t.Errorf("back with its own key: %v", err)
	}

	fed := r.Federation()
	good := SignRotation(fed, "north", a, b)
	for what, rot := range map[string]Rotation{
		"signed by the new key only": func() Rotation { x := SignRotation(fed, "north", b, b); x.Old = a.Public(); return x }(),
		"signed by the old key only": func() Rotation { x := SignRotation(fed, "north", a, a); x.New = b.Public(); return x }(),
		"for another federation":     SignRotation(c.Public(), "north", a, b),
		"for another name":           func() Rotation { x := good; x.Name = "nobody"; return x }(),
		"to the same key":            SignRotation(fed, "north", a, a),
		"from another key":           SignRotation(fed, "north", c, b),
	} {
		if _, err := r.Rotate(rot); err == nil {
			t.Errorf("rotation %s was accepted", what)
		}
	}
	for range 2 { // the second time has no effect
		m, err := r.Rotate(good)
		if err != nil || m.Key != b.Public() || m.Index != 0 {
			t.Errorf("rotation: %+v, %v", m, err)
		}
	}
	if _, err := r.Rotate(SignRotation(fed, "north", b, a)); !errors.Is(err, ErrKeyTaken) {
		t.Errorf("back to the old key: %v", err)
	}
	if _, ok := r.Who(a.Public()); ok {
		t.Error("the old key is still good")
	}
	must(t, r.Revoke("north", "test"))
	for what, err := range map[string]error{"invite": r.Invite("north", Secret{4}, later), "leave": r.Leave("north"), "revoke": r.Revoke("north", "")} {
		if err == nil {
			t.Errorf("%s after revocation: no error", what)
		}
	}
	if _, ok := r.Who(b.Public()); ok {
		t.Error("a revoked member is still one")
	}
	if _, err := VerifyRoster(r.j.Records(), fed, journal.Head{}); err != nil {
		t.Error(err)
	}
}

// Many at once: every token is good once, whoever comes first.
func TestAdmitIsSingleUseUnderLoad(t *testing.T) {
	r := found(t, t.TempDir(), newKey(t))
	must(t, r.Invite("north", Secret{1}, later))
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 16 {
		k := newKey(t).Public()
		wg.Go(func() {
			_, err := r.Admit("north", Secret{1}, k)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errors.Is(err, ErrTokenUsed) {
				t.Error(err)
			}
			r.Who(k)
			r.Members()
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("the token was used %d times", won)
	}
}

func TestTokensOfThousands(t *testing.T) {
	r := found(t, t.TempDir(), newKey(t))
	names := make([]string, 10000)
	for i := range names {
		names[i] = fmt.Sprintf("m%05d", i)
	}
	tokens, err := r.Tokens("https://h", Fingerprint{}, later, names...)
	must(t, err)
	if seq := r.Head().Seq; seq != 4 { // founded, and three batches
		t.Errorf("the newest record is %d", seq)
	}
	for i := 0; i < len(names); i += 3333 {
		m, err := r.Admit(names[i], tokens[i].Secret, newKey(t).Public())
		if err != nil || m.Index != i {
			t.Errorf("%+v, %v", m, err)
		}
	}
	if _, err := r.Tokens("http://h", Fingerprint{}, later, "x"); err == nil {
		t.Error("tokens for an address without TLS")
	}
}

func TestRollback(t *testing.T) {
	dir := t.TempDir()
	r := story(t, dir)
	fed := r.Federation()
	all := text(t, r)
	known := r.Head()
	var back *RollbackError
	if _, err := ReadRoster(bytes.NewReader(all), fed, known); err != nil {
		t.Errorf("the same again: %v", err)
	}
	must(t, r.Revoke("west", ""))
	if v, err := ReadRoster(io.MultiReader(bytes.NewReader(all), tail(t, r, known.Seq+1)), fed, known); err != nil || v.Head() != r.Head() {
		t.Errorf("extended: %v", err)
	}
	shorter := all[:bytes.LastIndexByte(all[:len(all)-1], '\n')+1]
	if _, err := ReadRoster(bytes.NewReader(shorter), fed, known); !errors.As(err, &back) || back.Found.Seq != known.Seq-1 {
		t.Errorf("set back: %v", err)
	}
	// The coordinator writes another history of the same length.
	other := found(t, t.TempDir(), fixedKey(1))
	for i := uint64(1); i < known.Seq+3; i++ {
		must(t, other.Invite(fmt.Sprint("x", i), Secret{1}, later))
	}
	if _, err := ReadRoster(bytes.NewReader(text(t, other)), fed, known); !errors.As(err, &back) || back.Known != known {
		t.Errorf("another history: %v", err)
	}
}

func tail(t *testing.T, r *Roster, seq uint64) io.Reader {
	var buf bytes.Buffer
	must(t, r.WriteFrom(&buf, seq))
	return &buf
}

// Whatever operation of the disk fails or is the last before a crash, a change
// that was reported is there afterwards, and the roster verifies.
func TestRosterSurvivesCrashes(t *testing.T) {
	work := func(fsys *faultfs.FS, dir string) (done int) {
		o := quiet()
		o.FS = fsys
		r, err := Found(dir, fixedKey(1), "clinics", o)
		if err != nil {
			return 0
		}
		defer r.Close()
		for i := range 4 {
			if r.Invite(fmt.Sprint("m", i), Secret{byte(i)}, later) != nil {
				return done
			}
			done++
		}
		return done
	}
	for _, op := range []faultfs.Op{faultfs.Create, faultfs.Write, faultfs.Sync, faultfs.Truncate, faultfs.SyncDir} {
		for n := 1; n < 8; n++ {
			for _, crash := range []faultfs.Crash{faultfs.PowerLoss, faultfs.Kill} {
				dir := filepath.Join(t.TempDir(), "roster")
				f := faultfs.New(journal.OS())
				f.Add(faultfs.Rule{Op: op, N: n, Part: 40, Crash: crash})
				done := work(f, dir)
				r, err := OpenRoster(dir, fixedKey(1), quiet())
				if err != nil {
					r, err = Found(dir, fixedKey(1), "clinics", quiet())
				}
				if err != nil {
					t.Errorf("%s %d: %v", op, n, err)
					continue
				}
				if got := len(r.Members()); got < done {
					t.Errorf("%s %d: %d of %d members are there", op, n, got, done)
				}
				if _, err := ReadRoster(bytes.NewReader(text(t, r)), r.Federation(), journal.Head{}); err != nil {
					t.Errorf("%s %d: %v", op, n, err)
				}
				must(t, r.Close())
			}
		}
	}
}
