package identity

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/journal"
)

// A Roster is the coordinator's list of members: a journal in a folder of its
// own, whose every record the federation's key signs. Each change is durable when
// its method returns. Its methods may be called from many goroutines; questions
// do not wait for a change that is being written.
type Roster struct {
	key Key
	j   *journal.Journal
	now func() time.Time

	write sync.Mutex // one change at a time, since each signs the hash of the one before
	mu    sync.RWMutex
	view  *View             // guarded by mu; changed by the holder of write only
	proof map[string]uint64 // number of the record by which a name was admitted last
}

// Found makes the roster of a new federation in dir. The key is the federation's
// from then on. If dir holds the beginnings of the same roster, left by a crash,
// it goes on with them; otherwise a roster there is [journal.ErrExists].
func Found(dir string, k Key, name string, o journal.Options) (*Roster, error) {
	if err := checkFederationName(name); err != nil {
		return nil, fmt.Errorf("found a federation: %w", err)
	}
	o.Run = rosterRun(k.Public())
	j, err := journal.Create(dir, o)
	if errors.Is(err, journal.ErrExists) {
		exists := err
		if j, err = journal.Open(dir, o); err == nil && j.Head().Seq > 0 {
			err = errors.Join(exists, j.Close())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("found the federation %q: %w", name, err)
	}
	r, err := newRoster(j, k, o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("found the federation %q: %w", name, err), j.Close())
	}
	if err := r.change(kindFounded, founded{Version: rosterVersion, Federation: name, Key: k.Public(), At: r.time()}); err != nil {
		return nil, errors.Join(fmt.Errorf("found the federation %q: %w", name, err), j.Close())
	}
	return r, nil
}

// OpenRoster opens the roster in dir to read and change it, and checks every
// record. A damaged roster is refused: restore it from a backup.
// o.FromLastGood is ignored, for it could make a revoked member one again.
func OpenRoster(dir string, k Key, o journal.Options) (*Roster, error) {
	o.Run, o.FromLastGood = rosterRun(k.Public()), false
	j, err := journal.Open(dir, o)
	if err != nil {
		return nil, fmt.Errorf("open the roster: %w", err)
	}
	r, err := newRoster(j, k, o)
	if err == nil && r.view.name == "" {
		err = errors.New("the federation was not founded completely: run its founding again")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the roster %s: %w", j.Path(), err), j.Close())
	}
	return r, nil
}

func newRoster(j *journal.Journal, k Key, o journal.Options) (*Roster, error) {
	r := &Roster{key: k, j: j, now: o.Now, view: newView(k.Public()), proof: make(map[string]uint64)}
	if r.now == nil {
		r.now = time.Now
	}
	for rec, err := range j.Records() {
		if err == nil {
			err = r.take(rec)
		}
		if err != nil {
			return nil, err
		}
	}
	return r, nil
}

// time is now in the form in which records keep it.
func (r *Roster) time() time.Time { return r.now().UTC().Truncate(time.Second) }

// take brings a record of the journal into the view.
func (r *Roster) take(rec journal.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.view.add(rec); err != nil {
		return err
	}
	if rec.Kind == kindAdmitted {
		of, _, _ := unseal(rec.Body)
		var a admitted
		if err := strict(of, &a); err != nil {
			return err
		}
		r.proof[a.Name] = rec.Seq
	}
	return nil
}

// change signs and writes a record and takes it in. The caller holds write, or
// nobody else knows r yet.
func (r *Roster) change(kind string, c any) error {
	head := r.j.Head()
	if err := r.view.check(head.Seq+1, c); err != nil {
		return err
	}
	of, err := json.Marshal(c)
	if err != nil {
		return err
	}
	sig := r.key.Sign(signedRecord(r.key.Public(), head.Seq+1, head.Hash, kind, of))
	rec, err := r.j.Append(kind, json.RawMessage(sealed(of, sig)))
	if err != nil {
		return fmt.Errorf("write to the roster: %w", err)
	}
	return r.take(rec)
}

// An Invitation is one name to be invited.
type Invitation struct {
	Name    string
	Secret  Secret
	Expires time.Time
}

// Invite makes a name known, so that whoever has the secret can take it until
// expires. Inviting a name that nobody has taken yet, or whose member has left,
// makes earlier tokens of the name invalid.
func (r *Roster) Invite(name string, secret Secret, expires time.Time) error {
	return r.InviteAll([]Invitation{{name, secret, expires}})
}

// InviteAll invites many names with one record for up to 4,096 of them. If it
// fails for a name that cannot be invited, nobody was invited.
func (r *Roster) InviteAll(all []Invitation) error {
	r.write.Lock()
	defer r.write.Unlock()
	at := r.time()
	var list []invitation
	seen := make(map[string]bool)
	for _, inv := range all {
		expires := inv.Expires.UTC().Truncate(time.Second)
		if !at.Before(expires) {
			return fmt.Errorf("invite %s: the invitation would have expired at once (%s)", inv.Name, expires.Format(time.RFC3339))
		}
		one := invitation{inv.Name, inv.Secret.hash(), expires}
		if err := r.view.checkInvited(invited{at, []invitation{one}}); err != nil {
			return fmt.Errorf("invite %s: %w", inv.Name, err)
		}
		if seen[inv.Name] {
			return fmt.Errorf("invite %s: it stands twice in the list: %w", inv.Name, ErrNameTaken)
		}
		seen[inv.Name] = true
		list = append(list, one)
	}
	for len(list) > 0 {
		n := min(len(list), maxBatch)
		if err := r.change(kindInvited, invited{at, list[:n]}); err != nil {
			return fmt.Errorf("invite %s and %d more: %w", list[0].Name, n-1, err)
		}
		list = list[n:]
	}
	return nil
}

// Tokens invites names and returns the token of each.
func (r *Roster) Tokens(url string, ca Fingerprint, expires time.Time, names ...string) ([]Token, error) {
	if _, err := ParseURL(url); err != nil {
		return nil, err
	}
	var all []Invitation
	var tokens []Token
	for _, name := range names {
		secret, err := NewSecret()
		if err != nil {
			return nil, err
		}
		all = append(all, Invitation{name, secret, expires})
		tokens = append(tokens, Token{URL: url, CA: ca, Federation: r.key.Public(), Name: name, Secret: secret, Expires: expires.UTC().Truncate(time.Second)})
	}
	if err := r.InviteAll(all); err != nil {
		return nil, err
	}
	return tokens, nil
}

// noToken is compared with where there is nothing to compare with.
var noToken = Secret{}.hash()

// Admit makes the holder of a valid secret a member with this key. The caller has
// made sure that the holder owns the key.
//
// Asking again with the same secret and key has no effect and no error, since
// the answer to the first time may have been lost. Somebody who does not hold a
// secret of the name learns nothing but [ErrNotInvited], by the same way whether
// the name is known or not.
func (r *Roster) Admit(name string, secret Secret, key Public) (Member, error) {
	r.write.Lock()
	defer r.write.Unlock()
	hash := secret.hash()
	newest, older := 0, 0
	var s seat
	tokens := []invitation{{Token: noToken}}
	if i, ok := r.view.byName[name]; ok {
		s = r.view.members[i]
		tokens = s.tokens
	}
	for i, t := range tokens {
		same := subtle.ConstantTimeCompare(t.Token[:], hash[:])
		if i == len(tokens)-1 {
			newest = same
		} else {
			older |= same
		}
	}
	switch {
	case s.Name == "" || newest|older == 0:
		return Member{}, ErrNotInvited
	case s.State == Revoked:
		return Member{}, ErrNameRevoked
	case newest == 0:
		return Member{}, ErrTokenSuperseded
	case s.State == Admitted && s.Key.Equal(key):
		return s.Member, nil
	case s.State != Invited:
		return Member{}, ErrTokenUsed
	case !r.time().Before(s.Until):
		return Member{}, fmt.Errorf("%w; it was valid until %s", ErrTokenExpired, s.Until.Format(time.RFC3339))
	}
	if err := r.change(kindAdmitted, admitted{At: r.time(), Name: name, Key: key}); err != nil {
		return Member{}, fmt.Errorf("admit %s: %w", name, err)
	}
	m, _ := r.view.ByName(name)
	return m, nil
}

// Leave notes that a member has left. Its name can be invited again, for the
// same key.
func (r *Roster) Leave(name string) error {
	r.write.Lock()
	defer r.write.Unlock()
	return r.wrap("leave", name, r.change(kindLeft, left{At: r.time(), Name: name}))
}

// Revoke ends a membership, or an invitation, for good. The caller cuts live
// connections.
func (r *Roster) Revoke(name, reason string) error {
	r.write.Lock()
	defer r.write.Unlock()
	return r.wrap("revoke", name, r.change(kindRevoked, revoked{At: r.time(), Name: name, Reason: reason}))
}

// Rotate replaces a member's key as both keys have asked.
func (r *Roster) Rotate(rot Rotation) (Member, error) {
	r.write.Lock()
	defer r.write.Unlock()
	if m, ok := r.view.ByName(rot.Name); ok && m.Key == rot.New && m.State == Admitted && rot.Verify(r.key.Public()) == nil {
		return m, nil // the answer to the first time may have been lost
	}
	if err := r.wrap("rotate the key of", rot.Name, r.change(kindRotated, rotated{At: r.time(), Rotation: rot})); err != nil {
		return Member{}, err
	}
	m, _ := r.view.ByName(rot.Name)
	return m, nil
}

func (r *Roster) wrap(what, name string, err error) error {
	if err != nil {
		return fmt.Errorf("%s %.80s: %w", what, name, err)
	}
	return nil
}

// Federation returns the federation's key.
func (r *Roster) Federation() Public { return r.key.Public() }

// Name returns the name that the federation was founded with.
func (r *Roster) Name() string { return read(r, (*View).Name) }

// Head returns number and hash of the newest record.
func (r *Roster) Head() journal.Head { return read(r, (*View).Head) }

// Members returns everybody who was ever invited, in the order of invitation.
func (r *Roster) Members() []Member { return read(r, (*View).Members) }

func read[T any](r *Roster, ask func(*View) T) T {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return ask(r.view)
}

// ByName finds a member by name, in whatever state.
func (r *Roster) ByName(name string) (Member, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.view.ByName(name)
}

// ByKey finds a member by its present key, in whatever state.
func (r *Roster) ByKey(key Public) (Member, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.view.ByKey(key)
}

// Who returns the name of the admitted member with this key. This is the question
// that the public port asks at every request.
func (r *Roster) Who(key Public) (name string, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.view.Who(key)
}

// Proof returns the record by which a member was admitted last.
func (r *Roster) Proof(name string) (Proof, error) {
	r.mu.RLock()
	seq, ok := r.proof[name]
	r.mu.RUnlock()
	if !ok {
		return Proof{}, fmt.Errorf("proof of the admission of %.80s: it was never admitted", name)
	}
	for rec, err := range r.j.From(seq) {
		if err != nil {
			return Proof{}, fmt.Errorf("proof of the admission of %s: %w", name, err)
		}
		return proofOf(rec), nil
	}
	return Proof{}, fmt.Errorf("proof of the admission of %s: record %d is missing", name, seq)
}

// WriteFrom writes the lines of the roster from the record with the number seq
// on, exactly as they stand in its file. A member that has kept the lines before
// joins the two and gives them to [ReadRoster].
func (r *Roster) WriteFrom(w io.Writer, seq uint64) error {
	for rec, err := range r.j.From(seq) {
		if err != nil {
			return fmt.Errorf("send the roster: %w", err)
		}
		if _, err := w.Write(rec.Line()); err != nil {
			return fmt.Errorf("send the roster: %w", err)
		}
	}
	return nil
}

// Close gives the folder's lock back.
func (r *Roster) Close() error { return r.j.Close() }
