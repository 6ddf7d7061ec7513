package transport

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"unicode/utf8"

	"github.com/cohort-learning/cohort/identity"
)

// Version is the version of the messages that this program speaks.
const Version = 1

// MaxMessage is the greatest length of a message in bytes, signature included. Bodies keep below [MaxInline] what may grow.
const (
	MaxMessage = 64 << 10
	MaxInline  = 32 << 10
)

// Envelope is one message.
type Envelope struct {
	V       int             `json:"v"`
	Fed     string          `json:"fed"`            // public key of the federation
	Run     string          `json:"run,omitempty"`  // empty for what concerns no run
	Round   int             `json:"round"`          // from 0
	Step    string          `json:"step,omitempty"` // phase of the round: "train", "eval", …
	From    string          `json:"from"`           // name of a member; empty: the coordinator
	To      string          `json:"to"`             // name of a member; empty: the coordinator or, from it, everybody
	Kind    Kind            `json:"kind"`
	Attempt int             `json:"attempt"` // 0, and one more each time the same is said again in other words
	Body    json.RawMessage `json:"body"`
	Refs    []Ref           `json:"refs,omitempty"` // blobs that the body refers to by position
}

// Ref names a blob.
type Ref struct {
	Hash     Digest `json:"hash"` // of its manifest
	Bytes    int64  `json:"bytes"`
	Media    string `json:"media"`               // "safetensors", …
	SealedTo string `json:"sealed_to,omitempty"` // whose key it is encrypted to; empty: not encrypted
}

// The last member of every message is its signature, of fixed length.
const (
	sigBefore = `,"sig":"`
	sigAfter  = `"}`
	sigText   = 86 // 64 bytes in unpadded base64url
	sigTail   = len(sigBefore) + sigText + len(sigAfter)
)

// domain begins what is signed, so that a signature of a message is never one of anything else.
const domain = "cohort message 1\n"

// Errors of [Open] and [Peek].
var (
	ErrTooLarge  = errors.New("the message is too large")
	ErrMalformed = errors.New("the message is malformed")
	ErrVersion   = errors.New("the message is of another version of the protocol")
	ErrSignature = errors.New("the signature of the message is wrong")
)

// Seal returns the bytes of a message: one line of JSON whose members stand in the order of [Envelope], without white space,
// and whose last member "sig" is the Ed25519 signature of the bytes before it, after a fixed prefix. What Seal returns, [Open]
// accepts.
func Seal(k identity.Key, e Envelope) ([]byte, error) {
	e.V = Version
	if len(e.Body) == 0 {
		e.Body = json.RawMessage("{}")
	}
	if err := e.check(); err != nil {
		return nil, fmt.Errorf("message %s: %w", e.Kind, err)
	}
	if len(e.Body) > MaxMessage {
		return nil, fmt.Errorf("message %s with a body of %d bytes: %w, at most %d", e.Kind, len(e.Body), ErrTooLarge, MaxMessage)
	}
	b := bytes.NewBuffer(make([]byte, 0, len(domain)+len(e.Body)+512+256*len(e.Refs)))
	b.WriteString(domain)
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return nil, fmt.Errorf("message %s: %w", e.Kind, err)
	}
	text := bytes.TrimSuffix(b.Bytes(), []byte("}\n"))
	size := len(text) - len(domain) + sigTail
	if size > MaxMessage {
		return nil, fmt.Errorf("message %s of %d bytes: %w, at most %d", e.Kind, size, ErrTooLarge, MaxMessage)
	}
	if !utf8.Valid(text) {
		return nil, fmt.Errorf("message %s: the body is not UTF-8", e.Kind)
	}
	msg := slices.Grow(text, sigTail)[len(domain):]
	msg = append(msg, sigBefore...)
	msg = base64.RawURLEncoding.AppendEncode(msg, k.Sign(text))
	return append(msg, sigAfter...), nil
}

// Open verifies that a message was signed with the key, and only then reads and returns it.
func Open(p identity.Public, msg []byte) (Envelope, error) {
	text, sig, err := split(msg)
	if err != nil {
		return Envelope{}, err
	}
	if !verify(p, text, sig) {
		return Envelope{}, ErrSignature
	}
	return parse(text)
}

// Peek returns a message without verifying who signed it: to find out whose key to verify it with.
func Peek(msg []byte) (Envelope, error) {
	text, _, err := split(msg)
	if err != nil {
		return Envelope{}, err
	}
	return parse(text)
}

// scratch holds the bytes that are signed, for as long as a signature is checked.
var scratch = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

func verify(p identity.Public, text, sig []byte) bool {
	b := scratch.Get().(*[]byte)
	defer scratch.Put(b)
	*b = append(append((*b)[:0], domain...), text...)
	return p.Verify(*b, sig)
}

// split checks the form of a message as far as it can be seen from outside, and returns what is signed and the signature.
func split(msg []byte) (text, sig []byte, err error) {
	if len(msg) > MaxMessage {
		return nil, nil, fmt.Errorf("%d bytes: %w, at most %d", len(msg), ErrTooLarge, MaxMessage)
	}
	if v, ok := version(msg); !ok {
		return nil, nil, fmt.Errorf("%w: it does not begin with its version", ErrMalformed)
	} else if v != Version {
		return nil, nil, fmt.Errorf("%w: %d, this program speaks %d", ErrVersion, v, Version)
	}
	at := len(msg) - sigTail
	if at < 2 || !bytes.HasPrefix(msg[at:], []byte(sigBefore)) || !bytes.HasSuffix(msg, []byte(sigAfter)) {
		return nil, nil, fmt.Errorf("%w: it does not end in a signature", ErrMalformed)
	}
	sig, err = base64.RawURLEncoding.Strict().DecodeString(string(msg[at+len(sigBefore) : at+len(sigBefore)+sigText]))
	if err != nil || len(sig) != 64 {
		return nil, nil, fmt.Errorf("%w: the signature is not 64 bytes in base64url", ErrMalformed)
	}
	return msg[:at:at], sig, nil
}

// version reads the first member of a message, which is the same in all versions.
func version(msg []byte) (v int, ok bool) {
	digits, ok := bytes.CutPrefix(msg, []byte(`{"v":`))
	if !ok {
		return 0, false
	}
	for i, c := range digits[:min(len(digits), 10)] {
		switch {
		case c >= '0' && c <= '9':
			v = 10*v + int(c-'0')
		case c == ',' && i > 0:
			return v, digits[0] != '0'
		default:
			return 0, false
		}
	}
	return 0, false
}

func parse(text []byte) (e Envelope, err error) {
	if !utf8.Valid(text) {
		return Envelope{}, fmt.Errorf("%w: it is not UTF-8", ErrMalformed)
	}
	// append copies, as text has no room.
	if err := strict(append(text, '}'), &e); err != nil {
		return Envelope{}, fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	if err := e.check(); err != nil {
		return Envelope{}, fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	return e, nil
}

// maxRefs bounds the blobs of a message.
const maxRefs = 256

func (e *Envelope) check() error {
	switch {
	case !kinds[e.Kind]:
		return fmt.Errorf("there is no kind %q", e.Kind)
	case e.Round < 0 || e.Attempt < 0:
		return fmt.Errorf("round %d, attempt %d", e.Round, e.Attempt)
	case len(e.Refs) > maxRefs:
		return fmt.Errorf("%d blobs, at most %d", len(e.Refs), maxRefs)
	case len(e.Body) == 0 || e.Body[0] != '{':
		return errors.New("the body is no object")
	}
	for _, r := range e.Refs {
		if r.Bytes < 0 {
			return fmt.Errorf("a blob of %d bytes", r.Bytes)
		}
	}
	return nil
}

// Decode reads the body of a message into the struct of its kind and checks it.
func (e Envelope) Decode(body Body) error {
	if body.Kind() != e.Kind {
		return fmt.Errorf("%w: a %s where a %s is due", ErrMalformed, e.Kind, body.Kind())
	}
	if err := strict(e.Body, body); err != nil {
		return fmt.Errorf("%w: %s: %v", ErrMalformed, e.Kind, err)
	}
	if err := body.Validate(len(e.Refs)); err != nil {
		return fmt.Errorf("%w: %s: %v", ErrMalformed, e.Kind, err)
	}
	return nil
}

// Put encodes a body into the envelope and sets its kind.
func (e *Envelope) Put(body Body) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(body); err != nil {
		return fmt.Errorf("body of a %s: %w", body.Kind(), err)
	}
	e.Kind, e.Body = body.Kind(), bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	return nil
}
