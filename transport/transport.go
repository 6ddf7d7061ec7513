package transport

import (
	"context"
	"errors"
)

// Hub is the coordinator's end of a transport. Its methods are safe for concurrent use.
type Hub interface {
	// Push sends a message to a member if it is here: best effort, without waiting for a slow one. That the member is not here
	// is no error. The bytes may be changed afterwards.
	Push(member string, msg []byte) error
	// Broadcast sends a message to every member that is here.
	Broadcast(msg []byte) error
	// Handle sets who answers requests; it is called once, before members can connect. The function is called for one
	// request of a member at a time, in the order in which it sent them, for any number of members at once. It must not block
	// for long: it may keep the request and reply later.
	Handle(func(Request))
	// Present returns the members that are here, sorted.
	Present() []string
	// Watch calls the function whenever a member comes or goes, one call at a time; several may watch. A member that is told
	// as here gets what is pushed from then on.
	Watch(func(member string, here bool))
	// Cut ends a member's live connections. Whether it may come back is for whoever admits it.
	Cut(member string)
	// Close disconnects everybody. It may be called again.
	Close() error
}

// Request is a member's message that wants an answer, or, from [Link.Send], none: its Reply then does nothing.
type Request struct {
	From  string       // the member's name; the transport vouches for it
	Msg   []byte       // at most MaxMessage bytes; not to be changed
	Reply func([]byte) // from any goroutine; only the first call counts, and nothing happens if the member is gone
}

// Link is a member's end of a transport. It reconnects by itself until it is closed or the member is not admitted any more.
// Its methods are safe for concurrent use.
type Link interface {
	// Request sends a message and waits for the answer. Errors are [ErrDisconnected], at once while there is no connection and
	// when it is lost before the answer; [ErrDenied], [ErrReplaced] and [ErrClosed], for good; [ErrTooLarge]; or ctx's.
	// A request whose answer did not come may have been handled: asking again must be safe.
	Request(ctx context.Context, msg []byte) ([]byte, error)
	// Send sends a message that wants no answer, and may be lost. Its errors are those of Request.
	Send(msg []byte) error
	// Receive sets who handles what the coordinator pushes; calls come one at a time, in the order of arrival. Handlers stay
	// over reconnections.
	Receive(func(msg []byte))
	// OnState sets who is told when the connection is made (true) or lost (false), beginning with the present state; calls come
	// one at a time. It is told false once more when the link gives up for good; Request says why.
	OnState(func(connected bool))
	Close() error
}

// Errors of a Hub and a Link.
var (
	ErrDisconnected = errors.New("not connected to the coordinator")
	ErrDenied       = errors.New("the coordinator does not admit this member")
	ErrReplaced     = errors.New("another connection with this member's key has taken the place of this one")
	ErrClosed       = errors.New("the connection is closed")
)
