package secagg

import (
	"errors"
	"fmt"
)

// Why a message or a step was refused; test with errors.Is. The error itself is a [*Refusal], which names the peer.
var (
	// Any step.
	ErrMalformed = errors.New("malformed")                    // bytes that do not decode, a key or vector of the wrong size
	ErrOrder     = errors.New("step out of order")            // a step that came before the one it builds upon
	ErrConflict  = errors.New("contradicts what came before") // another request for a step that was answered, another message for one that came
	ErrTooFew    = errors.New("too few members")              // a set is below its threshold: the session fails, as it must
	ErrUnknown   = errors.New("unknown peer")                 // a name that nobody vouches for or that has no part in this step

	// Keys and shares.
	ErrAdvert = errors.New("advert refused")          // bad signature: forged, swapped, or of another session
	ErrPinned = errors.New("too few pinned peers")    // the member insists on keys that were exchanged outside
	ErrBox    = errors.New("box refused")             // does not open: garbled, or of another pair or session
	ErrShares = errors.New("shares do not fit")       // what they recover is not what was advertised
	ErrList   = errors.New("survivors' list refused") // not a subset, or its signatures are not of one list
)

// Refusal is an error of the protocol: whom it is about (empty: the coordinator or the session), of which kind, and why.
type Refusal struct {
	Peer   string
	Kind   error // one of the Err… of this package
	Reason string
}

// Error says kind, peer and reason.
func (r *Refusal) Error() string {
	if r.Peer == "" {
		return fmt.Sprintf("secure aggregation: %v: %s", r.Kind, r.Reason)
	}
	return fmt.Sprintf("secure aggregation: %v: %q: %s", r.Kind, r.Peer, r.Reason)
}

// Unwrap returns the kind.
func (r *Refusal) Unwrap() error { return r.Kind }

func refuse(kind error, peer, format string, args ...any) error {
	return &Refusal{Peer: peer, Kind: kind, Reason: fmt.Sprintf(format, args...)}
}
