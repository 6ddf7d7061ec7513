package dashboard

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Lengths to which texts of strangers are cut, in characters.
const (
	maxName    = 120
	maxMessage = 600
)

// clean makes a stranger's text fit to be shown: on one line, without characters that steer terminals or turn the direction of
// writing, and at most n characters long.
func clean(s string, n int) string {
	if len(s) <= n && !strings.ContainsFunc(s, odd) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if n--; n < 0 {
			b.WriteRune('…')
			break
		}
		switch {
		case r == '\n' || r == '\r' || r == '\t' || r == '\u2028' || r == '\u2029':
			r = ' '
		case odd(r):
			r = utf8.RuneError
		}
		b.WriteRune(r)
	}
	return b.String()
}

// odd reports whether r controls something instead of being seen.
func odd(r rune) bool {
	return unicode.IsControl(r) || r == '\u061c' || r == '\u200e' || r == '\u200f' || r == '\ufeff' ||
		r >= '\u2028' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069'
}

// stamp writes a time for the attribute datetime; empty if there is none.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// day and hour write times for people whose browser runs no script; the script writes them in the reader's own time zone.
func day(t time.Time) string  { return t.UTC().Format("2 Jan 2006, 15:04 UTC") }
func hour(t time.Time) string { return t.UTC().Format("15:04:05") }
