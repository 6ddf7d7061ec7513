package natsbus

import (
	"fmt"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
)

// Subjects. NAME is a member's name in the form of token.
const (
	upAll   = "up.>"    // what members send: up.NAME.send, up.NAME.here.ID
	all     = "all"     // broadcasts
	down    = "down."   // down.NAME: pushes
	inbox   = "_INBOX." // _INBOX.NAME.…: answers
	sending = ".send"
	here    = ".here."
)

// MaxName is the greatest length of a name.
const MaxName = 64

// token returns a name as one token of a subject. Names have 1 to [MaxName] of a–z A–Z 0–9 - _ and the dot, which would
// separate tokens and is written ~.
func token(name string) (string, error) {
	if name == "" || len(name) > MaxName {
		return "", fmt.Errorf("a member's name has 1 to %d characters, not %d", MaxName, len(name))
	}
	for i := range len(name) {
		c := name[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.') {
			return "", fmt.Errorf("the name %q has the character %q; possible are the dot and a–z A–Z 0–9 - _", name, c)
		}
	}
	return strings.ReplaceAll(name, ".", "~"), nil
}

// sender splits a subject up.NAME.VERB….
func sender(subject string) (name, tok, verb string, ok bool) {
	rest, ok := strings.CutPrefix(subject, "up.")
	if !ok {
		return "", "", "", false
	}
	tok, verb, ok = strings.Cut(rest, ".")
	return strings.ReplaceAll(tok, "~", "."), tok, "." + verb, ok
}

// rights are what a member may do.
func rights(tok string) *server.Permissions {
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{"up." + tok + ".>"}},
		Subscribe: &server.SubjectPermission{Allow: []string{down + tok, all, inbox + tok + ".>"}},
	}
}
