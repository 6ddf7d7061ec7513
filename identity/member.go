package identity

import (
	"errors"
	"fmt"
	"time"
)

// A State is where a member stands.
type State string

// The states. An invited member becomes admitted, an admitted one may leave and
// be invited again (with the key that it had), and a revoked one stays revoked.
const (
	Invited  State = "invited"
	Admitted State = "admitted"
	Left     State = "left"
	Revoked  State = "revoked"
)

// A Member is one name of the roster.
type Member struct {
	Index int       `json:"index"` // in order of the first invitation, from 0; never changes
	Name  string    `json:"name"`
	Key   Public    `json:"key,omitzero"` // zero while invited for the first time
	State State     `json:"state"`
	Since time.Time `json:"since"`            // of the state, or of the newest key
	Until time.Time `json:"until,omitzero"`   // invited: when the token expires
	Why   string    `json:"reason,omitempty"` // revoked: the reason given
}

// Errors of [Roster.Admit]. Only [ErrNotInvited] is told to somebody who does not
// hold a token of the name, and it is the same for a wrong secret and for a name
// that nobody ever invited.
var (
	ErrNotInvited      = errors.New("there is no such invitation")
	ErrTokenUsed       = errors.New("the invitation has been used already, by another key")
	ErrTokenSuperseded = errors.New("the invitation has been replaced by a newer one")
	ErrNameRevoked     = errors.New("the name has been revoked")
	ErrKeyTaken        = errors.New("the key is, or was, that of another member: make a new one")
	ErrOtherKey        = errors.New("the name belongs to another key: it can come back with that key only")
)

// Errors of the other methods of [Roster].
var (
	ErrUnknownName = errors.New("nobody of that name was ever invited")
	ErrNameTaken   = errors.New("the name is taken")
	ErrState       = errors.New("that is not possible in the member's state")
)

// A ForeignError says that a record of a roster is not one that the federation
// made at this place, and which.
type ForeignError struct {
	Seq  uint64
	Kind string
	What string // a predicate: "has a signature that …"
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("roster: record %d (%s) %s", e.Seq, e.Kind, e.What)
}
