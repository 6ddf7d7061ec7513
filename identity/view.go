package identity

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/cohort-learning/cohort/journal"
)

// The kinds of a roster's records.
const (
	kindFounded  = "roster.founded"
	kindInvited  = "member.invited"
	kindAdmitted = "member.admitted"
	kindLeft     = "member.left"
	kindRevoked  = "member.revoked"
	kindRotated  = "member.rotated"
)

// What the records say. The body of a record is one of these and a signature,
// in the form of [Pins.Sign].
type (
	founded struct {
		Version    int       `json:"v"`
		Federation string    `json:"federation"`
		Key        Public    `json:"key"`
		At         time.Time `json:"at"`
	}
	invited struct {
		At      time.Time    `json:"at"`
		Invited []invitation `json:"invited"`
	}
	invitation struct {
		Name    string       `json:"name"`
		Token   journal.Hash `json:"token"` // of the secret
		Expires time.Time    `json:"expires"`
	}
	admitted struct {
		At   time.Time `json:"at"`
		Name string    `json:"name"`
		Key  Public    `json:"key"`
	}
	left struct {
		At   time.Time `json:"at"`
		Name string    `json:"name"`
	}
	revoked struct {
		At     time.Time `json:"at"`
		Name   string    `json:"name"`
		Reason string    `json:"reason"`
	}
	rotated struct {
		At time.Time `json:"at"`
		Rotation
	}
)

const (
	rosterPurpose = "cohort/roster/1"
	rosterVersion = 1
	// maxBatch is how many invitations stand in one record, so that its line stays
	// far below [journal.MaxLine].
	maxBatch  = 4096
	maxReason = 200
)

// signedRecord returns the bytes that the signature of a record covers.
func signedRecord(federation Public, seq uint64, prev journal.Hash, kind string, of []byte) []byte {
	return message(rosterPurpose, federation[:], binary.BigEndian.AppendUint64(nil, seq), prev[:], []byte(kind), of)
}

// A View is what a roster says up to some record: who is a member, and how to
// find them. A view is not safe for use while a record is added to it.
type View struct {
	federation Public
	name       string
	head       journal.Head
	some       bool // head is that of a record
	members    []seat
	byName     map[string]int
	byKey      map[Public]int // of every key that ever was: none is used twice
}

// A seat is a member and the hashes of the tokens that it was sent, the newest last.
type seat struct {
	Member
	tokens []invitation
}

func newView(federation Public) *View {
	return &View{federation: federation, byName: make(map[string]int), byKey: make(map[Public]int)}
}

// Federation returns the key that signs the roster.
func (v *View) Federation() Public { return v.federation }

// Name returns the name that the federation was founded with.
func (v *View) Name() string { return v.name }

// Head returns number and hash of the newest record. A member keeps it and gives
// it to [VerifyRoster] next time.
func (v *View) Head() journal.Head { return v.head }

// Members returns everybody who was ever invited, in the order of invitation.
func (v *View) Members() []Member {
	m := make([]Member, len(v.members))
	for i, s := range v.members {
		m[i] = s.Member
	}
	return m
}

// Len returns the number of names.
func (v *View) Len() int { return len(v.members) }

// ByName finds a member by name, in whatever state.
func (v *View) ByName(name string) (Member, bool) {
	i, ok := v.byName[name]
	if !ok {
		return Member{}, false
	}
	return v.members[i].Member, true
}

// ByKey finds a member by its present key, in whatever state.
func (v *View) ByKey(key Public) (Member, bool) {
	i, ok := v.byKey[key]
	if !ok || v.members[i].Key != key {
		return Member{}, false
	}
	return v.members[i].Member, true
}

// Who returns the name of the admitted member with this key.
func (v *View) Who(key Public) (name string, ok bool) {
	m, ok := v.ByKey(key)
	if !ok || m.State != Admitted {
		return "", false
	}
	return m.Name, true
}

// A RollbackError says that a roster does not extend the one that a member saw
// before: the coordinator was set back to a backup, or shows different members
// different rosters.
type RollbackError struct {
	Known journal.Head // newest record seen before
	Found journal.Head // record with that number now, or the newest if there are fewer
}

func (e *RollbackError) Error() string {
	if e.Found.Seq < e.Known.Seq {
		return fmt.Sprintf("roster: it ends with record %d, but record %d was seen before: it was set back; if the coordinator was restored from a backup, say so with --accept-rollback", e.Found.Seq, e.Known.Seq)
	}
	return fmt.Sprintf("roster: record %d has the hash %s, but %s was seen before: this is another roster; if the coordinator was restored from a backup, say so with --accept-rollback", e.Known.Seq, e.Found.Hash, e.Known.Hash)
}

// VerifyRoster checks records as a member does and returns what they say: that
// each follows the one before, is signed by the federation's key for its very
// place, and is possible in the state of its member. With known, the head of a
// view seen before (the zero head stands for none), it also checks that the
// records go on from there.
//
// The records must come from a [journal.Scanner], which has compared the hashes
// with the bytes; see [ReadRoster]. An error is a *[ForeignError], a
// *[RollbackError], or what records reports, such as a *[journal.DamageError].
func VerifyRoster(records iter.Seq2[journal.Record, error], federation Public, known journal.Head) (*View, error) {
	v := newView(federation)
	for r, err := range records {
		if err != nil {
			return nil, fmt.Errorf("verify the roster: %w", err)
		}
		if err := v.add(r); err != nil {
			return nil, err
		}
		if known != (journal.Head{}) && r.Seq == known.Seq && r.Hash != known.Hash {
			return nil, &RollbackError{Known: known, Found: v.head}
		}
	}
	switch {
	case v.name == "":
		return nil, errors.New("verify the roster: it is empty")
	case v.head.Seq < known.Seq:
		return nil, &RollbackError{Known: known, Found: v.head}
	}
	return v, nil
}

// ReadRoster is [VerifyRoster] on the bytes of a roster, from its first line. A
// last line that is incomplete is an error here.
func ReadRoster(r io.Reader, federation Public, known journal.Head) (*View, error) {
	return VerifyRoster(func(yield func(journal.Record, error) bool) {
		s := journal.NewScanner(r, "")
		for {
			rec, err := s.Next()
			if err == io.EOF || !yield(rec, err) || err != nil {
				return
			}
		}
	}, federation, known)
}

// add checks one record and takes it in. After an error the view is as before.
func (v *View) add(r journal.Record) error {
	foreign := func(format string, args ...any) error {
		return &ForeignError{Seq: r.Seq, Kind: r.Kind, What: fmt.Sprintf(format, args...)}
	}
	next := v.head.Seq + 1
	if !v.some {
		next = 0
	}
	if r.Seq != next || v.some && r.Prev != v.head.Hash {
		return foreign("does not follow record %d", v.head.Seq)
	}
	if r.Seq == 0 {
		// The header has no signature of its own; record 1 signs its hash.
		var h journal.Header
		if err := r.Decode(&h); err != nil || r.Kind != journal.KindOpened || h.Run != rosterRun(v.federation) {
			return foreign("is not the header of a roster of the federation %s", v.federation)
		}
	} else {
		of, sig, ok := unseal(r.Body)
		if !ok {
			return foreign("is not in the form of a signed record")
		}
		if !v.federation.Verify(signedRecord(v.federation, r.Seq, r.Prev, r.Kind, of), sig) {
			return foreign("has a signature that is not the federation's for this place")
		}
		change, err := decode(r.Kind, of)
		if err == nil {
			err = v.apply(r.Seq, change)
		}
		if err != nil {
			return foreign("is not possible: %v", err)
		}
	}
	v.head, v.some = journal.Head{Seq: r.Seq, Hash: r.Hash}, true
	return nil
}

// rosterRun is the identity in the journal's header.
func rosterRun(federation Public) string { return "roster-" + federation.String() }

func decode(kind string, of []byte) (any, error) {
	switch kind {
	case kindFounded:
		return decodeAs[founded](of)
	case kindInvited:
		return decodeAs[invited](of)
	case kindAdmitted:
		return decodeAs[admitted](of)
	case kindLeft:
		return decodeAs[left](of)
	case kindRevoked:
		return decodeAs[revoked](of)
	case kindRotated:
		return decodeAs[rotated](of)
	}
	// To skip it could be to overlook that somebody is no member any more.
	return nil, fmt.Errorf("this version knows no records of the kind %s: update it", kind)
}

func decodeAs[T any](of []byte) (any, error) {
	var t T
	err := strict(of, &t)
	return t, err
}

// check says whether a change is possible now, as an error for people.
func (v *View) check(seq uint64, change any) error {
	if f, ok := change.(founded); ok != (seq == 1) {
		return errors.New("a roster is founded once, by its first record")
	} else if ok {
		switch {
		case f.Version != rosterVersion:
			return fmt.Errorf("the roster has version %d; this program reads version %d", f.Version, rosterVersion)
		case f.Key != v.federation:
			return errors.New("it is of another federation")
		}
		return checkFederationName(f.Federation)
	}
	switch c := change.(type) {
	case invited:
		return v.checkInvited(c)
	case admitted:
		return v.checkAdmitted(c)
	case left:
		m, err := v.find(c.Name)
		if err == nil && m.State != Admitted {
			err = fmt.Errorf("%s is %s and cannot leave: %w", m.Name, m.State, ErrState)
		}
		return err
	case revoked:
		m, err := v.find(c.Name)
		switch {
		case err != nil:
			return err
		case m.State == Revoked:
			return fmt.Errorf("%s is revoked already: %w", m.Name, ErrState)
		case len(c.Reason) > maxReason || !utf8.ValidString(c.Reason):
			return fmt.Errorf("the reason has to be text of at most %d bytes", maxReason)
		}
		return nil
	case rotated:
		m, err := v.find(c.Name)
		switch {
		case err != nil:
			return err
		case m.State != Admitted:
			return fmt.Errorf("%s is %s and cannot change its key: %w", m.Name, m.State, ErrState)
		case m.Key != c.Old:
			return fmt.Errorf("%s has the key %s, not %s: %w", m.Name, m.Key, c.Old, ErrOtherKey)
		}
		if _, taken := v.byKey[c.New]; taken || c.New == v.federation {
			return ErrKeyTaken
		}
		return c.Verify(v.federation)
	}
	return fmt.Errorf("unknown change %T", change)
}

func checkFederationName(name string) error {
	if name == "" || len(name) > 100 || !utf8.ValidString(name) || slices.ContainsFunc([]byte(name), func(c byte) bool { return c < ' ' || c == 0x7f }) {
		return fmt.Errorf("the federation's name %.100q has to be 1 to 100 bytes of text on one line", name)
	}
	return nil
}

func (v *View) find(name string) (*seat, error) {
	i, ok := v.byName[name]
	if !ok {
		return nil, fmt.Errorf("%.80q: %w", name, ErrUnknownName)
	}
	return &v.members[i], nil
}

func (v *View) checkInvited(c invited) error {
	if len(c.Invited) == 0 || len(c.Invited) > maxBatch {
		return fmt.Errorf("%d invitations in one record; 1 to %d are possible", len(c.Invited), maxBatch)
	}
	names := make(map[string]bool)
	for _, inv := range c.Invited {
		if err := CheckName(inv.Name); err != nil {
			return err
		}
		if names[inv.Name] {
			return fmt.Errorf("%q stands twice in the list: %w", inv.Name, ErrNameTaken)
		}
		names[inv.Name] = true
		if i, ok := v.byName[inv.Name]; ok {
			switch m := v.members[i]; m.State {
			case Admitted:
				return fmt.Errorf("%q is a member already: %w; cohort revoke ends that, and a name is never given to another", inv.Name, ErrNameTaken)
			case Revoked:
				return fmt.Errorf("%q: %w; choose another", inv.Name, ErrNameRevoked)
			}
		}
	}
	return nil
}

func (v *View) checkAdmitted(c admitted) error {
	s, err := v.find(c.Name)
	switch {
	case err != nil:
		return err
	case s.State == Revoked:
		return fmt.Errorf("%q: %w", c.Name, ErrNameRevoked)
	case s.State != Invited:
		return fmt.Errorf("%s is %s and not invited: %w", c.Name, s.State, ErrState)
	case c.Key.IsZero() || c.Key.Weak():
		return errors.New("the key is one for which anybody can make signatures")
	case c.Key == v.federation:
		return ErrKeyTaken
	case !s.Key.IsZero() && s.Key != c.Key:
		return ErrOtherKey
	}
	if _, taken := v.byKey[c.Key]; taken && s.Key != c.Key {
		return ErrKeyTaken
	}
	return nil
}

// apply takes a change in if it is possible.
func (v *View) apply(seq uint64, change any) error {
	if err := v.check(seq, change); err != nil {
		return err
	}
	switch c := change.(type) {
	case founded:
		v.name = c.Federation
	case invited:
		for _, inv := range c.Invited {
			i, ok := v.byName[inv.Name]
			if !ok {
				i = len(v.members)
				v.byName[inv.Name] = i
				v.members = append(v.members, seat{Member: Member{Index: i, Name: inv.Name}})
			}
			s := &v.members[i]
			s.State, s.Since, s.Until = Invited, c.At, inv.Expires
			s.tokens = append(s.tokens, inv)
		}
	case admitted:
		s := &v.members[v.byName[c.Name]]
		s.State, s.Since, s.Until, s.Key = Admitted, c.At, time.Time{}, c.Key
		v.byKey[c.Key] = s.Index
	case left:
		s := &v.members[v.byName[c.Name]]
		s.State, s.Since = Left, c.At
	case revoked:
		s := &v.members[v.byName[c.Name]]
		s.State, s.Since, s.Until, s.Why = Revoked, c.At, time.Time{}, cmp.Or(c.Reason, "no reason given")
	case rotated:
		s := &v.members[v.byName[c.Name]]
		s.Key, s.Since = c.New, c.At
		v.byKey[c.New] = s.Index
	}
	return nil
}

// A Proof shows one record of a roster by itself, so that a new member need not
// read the whole roster to know that it was admitted.
type Proof struct {
	Seq  uint64       `json:"seq"`
	Prev journal.Hash `json:"prev"`
	Kind string       `json:"kind"`
	Body string       `json:"body"` // of the record, exactly
}

func proofOf(r journal.Record) Proof {
	return Proof{Seq: r.Seq, Prev: r.Prev, Kind: r.Kind, Body: string(r.Body)}
}

// Admission checks that the federation signed the admission of this name with
// this key.
func (p Proof) Admission(federation Public, name string, key Public) error {
	of, sig, ok := unseal([]byte(p.Body))
	if !ok || p.Kind != kindAdmitted || !federation.Verify(signedRecord(federation, p.Seq, p.Prev, p.Kind, of), sig) {
		return fmt.Errorf("the admission is not signed by the federation %s", federation)
	}
	var a admitted
	if err := strict(of, &a); err != nil || a.Name != name || a.Key != key {
		return fmt.Errorf("the admission is not that of %s with the key %s", name, key)
	}
	return nil
}
