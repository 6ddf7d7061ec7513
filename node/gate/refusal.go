package gate

import (
	"encoding/json"
	"net/http"
	"time"
)

// Codes of refusals on the wire. They never change.
const (
	NotMember       = "not-a-member"
	BadRequest      = "bad-request"
	BadProof        = "bad-proof"
	NoInvitation    = "no-invitation"
	TokenUsed       = "token-used"
	TokenExpired    = "token-expired"
	TokenSuperseded = "token-superseded"
	NameRevoked     = "name-revoked"
	KeyTaken        = "key-taken"
	OtherKey        = "other-key"
	TooOften        = "too-often"
	Internal        = "internal"
)

// A Refusal is an answer that says no, as JSON with a stable code.
type Refusal struct {
	Code    string        `json:"code"`
	Message string        `json:"message"`
	Status  int           `json:"-"` // of HTTP
	After   time.Duration `json:"-"` // when to try again; 0: not by itself
}

func (e *Refusal) Error() string { return e.Message }

// Is makes [errors.Is] compare codes.
func (e *Refusal) Is(target error) bool {
	t, ok := target.(*Refusal)
	return ok && t.Code == e.Code
}

// Refuse writes a refusal as the answer to a request.
func Refuse(w http.ResponseWriter, e *Refusal) {
	if e.After > 0 {
		w.Header().Set("Retry-After", seconds(e.After))
	}
	writeJSON(w, e.Status, e)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // our own types
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(body, '\n')) // whoever has gone away does not read it
}
