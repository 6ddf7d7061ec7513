package transport

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
// and whose last member "sig" is the Ed25519 signature of the bytes before it, after a fixed prefix.
func Seal(k identity.Key, e Envelope) ([]byte, error) {
	e.V = Version
	if len(e.Body) == 0 {
		e.Body = json.RawMessage("{}")
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return nil, fmt.Errorf("message %s: %w", e.Kind, err)
	}
	msg := bytes.TrimSuffix(b.Bytes(), []byte("}\n"))
	if len(msg)+sigTail > MaxMessage {
		return nil, fmt.Errorf("message %s of %d bytes: %w, at most %d", e.Kind, len(msg)+sigTail, ErrTooLarge, MaxMessage)
	}
	sig := k.Sign(signed(msg))
	msg = append(msg, sigBefore...)
	msg = base64.RawURLEncoding.AppendEncode(msg, sig)
	return append(msg, sigAfter...), nil
}

func signed(msg []byte) []byte { return append([]byte(domain), msg...) }

// Open verifies that a message was signed with the key and returns it.
func Open(p identity.Public, msg []byte) (Envelope, error) {
	e, text, sig, err := parse(msg)
	if err != nil {
		return Envelope{}, err
	}
	if !p.Verify(signed(text), sig) {
		return Envelope{}, fmt.Errorf("%s from %q: %w", e.Kind, e.From, ErrSignature)
	}
	return e, nil
}

// Peek returns a message without verifying who signed it: to find out whose key to verify it with.
func Peek(msg []byte) (Envelope, error) {
	e, _, _, err := parse(msg)
	return e, err
}

func parse(msg []byte) (e Envelope, text, sig []byte, err error) {
	if len(msg) > MaxMessage {
		return e, nil, nil, fmt.Errorf("%d bytes: %w, at most %d", len(msg), ErrTooLarge, MaxMessage)
	}
	at := len(msg) - sigTail
	if at < 2 || !bytes.HasPrefix(msg[at:], []byte(sigBefore)) || !bytes.HasSuffix(msg, []byte(sigAfter)) {
		return e, nil, nil, fmt.Errorf("%w: it does not end in a signature", ErrMalformed)
	}
	if !utf8.Valid(msg) {
		return e, nil, nil, fmt.Errorf("%w: it is not UTF-8", ErrMalformed)
	}
	text = msg[:at:at]
	sig = make([]byte, 0, 64)
	if sig, err = base64.RawURLEncoding.Strict().AppendDecode(sig, msg[at+len(sigBefore):at+len(sigBefore)+sigText]); err != nil {
		return e, nil, nil, fmt.Errorf("%w: signature: %v", ErrMalformed, err)
	}
	var v struct {
		V int `json:"v"`
	}
	whole := append(text, '}') // copies, as text has no room
	if err := json.Unmarshal(whole, &v); err != nil {
		return e, nil, nil, fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	if v.V != Version {
		return e, nil, nil, fmt.Errorf("%w: %d, this program speaks %d", ErrVersion, v.V, Version)
	}
	if err := strict(whole, &e); err != nil {
		return e, nil, nil, fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	if err := e.check(); err != nil {
		return e, nil, nil, fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	return e, text, sig, nil
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

// strict decodes one JSON value into v and refuses members that v does not have.
func strict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the value")
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
