package identity

import (
	"fmt"
	"strings"
)

// MaxName is the greatest length of a member's name.
const MaxName = 63

// CheckName says what is wrong with the name of a member, or nil. A name has 1
// to [MaxName] of the characters a–z 0–9 - _, the first a letter or digit, so
// that it can stand in a NATS subject, a file name and a shell command on any
// system. The names all and coordinator are taken.
func CheckName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("a member's name is empty")
	case len(name) > MaxName:
		return fmt.Errorf("the name %.20q… has %d characters; at most %d are possible", name, len(name), MaxName)
	case name == "all" || name == "coordinator":
		return fmt.Errorf("the name %q is taken by the federation itself; choose another", name)
	}
	for i := range len(name) {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '-' && c != '_') {
			hint := ""
			if low := strings.ToLower(name); low != name && CheckName(low) == nil {
				hint = fmt.Sprintf(": try %q", low)
			}
			return fmt.Errorf("the name %.80q may only have the characters a–z 0–9 - _ and must begin with a letter or digit%s", name, hint)
		}
	}
	return nil
}
