package main

import (
	"encoding/json"
	"io"
	"os"

	"golang.org/x/term"
)

// streams is where a command writes: results to out, progress and remarks to err.
type streams struct {
	out, err io.Writer
	tty      bool // err is a terminal that understands control sequences
	width    int
}

func stdio() streams {
	s := streams{out: os.Stdout, err: os.Stderr, width: 80}
	if fd := int(os.Stderr.Fd()); term.IsTerminal(fd) && os.Getenv("TERM") != "dumb" {
		s.tty = true
		if w, _, err := term.GetSize(fd); err == nil && w > 20 {
			s.width = w
		}
	}
	return s
}

// colour reports whether escape sequences for colour may be written.
func (s streams) colour() bool { return s.tty && os.Getenv("NO_COLOR") == "" }

// json writes v to out as indented JSON.
func (s streams) json(v any) error {
	e := json.NewEncoder(s.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
