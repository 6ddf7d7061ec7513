package identity

import (
	"errors"
	"fmt"
)

// A Rotation replaces a member's key. Both keys sign it: the old one that it
// wants to be replaced, the new one that it is somebody's who wants this. So
// neither the coordinator nor a thief of one of them can do it alone (but a
// thief of the old key can rotate to a key of its own: revoke a stolen key).
type Rotation struct {
	Name   string `json:"name"`
	Old    Public `json:"old"`
	New    Public `json:"new"`
	OldSig []byte `json:"oldSig"`
	NewSig []byte `json:"newSig"`
}

const rotationPurpose = "cohort/rotation/1"

func (r Rotation) message(federation Public) []byte {
	return message(rotationPurpose, federation[:], []byte(r.Name), r.Old[:], r.New[:])
}

// SignRotation makes the request to replace the key of the named member. It can
// be repeated without effect: no key is ever taken up twice.
func SignRotation(federation Public, name string, old, new Key) Rotation {
	r := Rotation{Name: name, Old: old.Public(), New: new.Public()}
	msg := r.message(federation)
	r.OldSig, r.NewSig = old.Sign(msg), new.Sign(msg)
	return r
}

// Verify checks both signatures.
func (r Rotation) Verify(federation Public) error {
	msg := r.message(federation)
	if r.Old == r.New {
		return errors.New("rotation of a key: the new key is the old one")
	}
	if !r.Old.Verify(msg, r.OldSig) {
		return fmt.Errorf("rotation of the key of %.80q: not signed by the old key %s", r.Name, r.Old)
	}
	if !r.New.Verify(msg, r.NewSig) {
		return fmt.Errorf("rotation of the key of %.80q: not signed by the new key %s", r.Name, r.New)
	}
	return nil
}
