package transport

import (
	"context"
	"errors"
)

// Hub is the coordinator's end of a transport. Its methods are safe for concurrent use.
type Hub interface {
	// Push sends a message to a member if it is here: best effort, without waiting for a slow one.
	Push(member string, msg []byte) error
	// Broadcast sends a message to every member that is here.
	Broadcast(msg []byte) error
	// Handle sets who answers requests; it is called once, before members can connect. The function is called by any
	// number of goroutines and must not block for long: it may keep the request and reply later.
	Handle(func(Request))
	// Present returns the members that are here, sorted.
	Present() []string
	// Watch calls the function whenever a member comes or goes, one call at a time; several may watch.
	Watch(func(member string, here bool))
	// Cut ends a member's live connections. Whether it may come back is for whoever admits it.
	Cut(member string)
	Close() error
}

// Request is a member's message that wants an answer.
type Request struct {
	From  string       // the member's name; the transport vouches for it
	Msg   []byte       // at most MaxMessage bytes; not to be changed
	Reply func([]byte) // called at most once, from any goroutine; nothing happens if the member is gone
}

// Link is a member's end of a transport. It reconnects by itself until it is closed or the member is not admitted any more.
// Its methods are safe for concurrent use.
type Link interface {
	// Request sends a message and waits for the answer. Errors are [ErrDisconnected], [ErrDenied], [ErrTooLarge], or ctx's.
	// A request whose answer did not come may have been handled: asking again must be safe.
	Request(ctx context.Context, msg []byte) ([]byte, error)
	// Send sends a message that wants no answer, and may be lost.
	Send(msg []byte) error
	// Receive sets who handles what the coordinator pushes; calls come one at a time, in the order of arrival.
	Receive(func(msg []byte))
	// OnState sets who is told when the connection is made (true) or lost (false), beginning with the present state.
	OnState(func(connected bool))
	Close() error
}

// Errors of a Link.
var (
	ErrDisconnected = errors.New("not connected to the coordinator")
	ErrDenied       = errors.New("the coordinator does not admit this member")
	ErrClosed       = errors.New("the connection is closed")
)
