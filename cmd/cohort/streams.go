package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/cohort-learning/cohort/record/termplot"
	"golang.org/x/term"
)

// schema is the version of what commands print with --json: the member "schema" of every object.
const schema = 1

// streams is where a command writes: results to out, progress and remarks to err.
type streams struct {
	out, err io.Writer
	tty      bool             // err is a terminal that understands control sequences
	width    int              // of the terminal
	plot     termplot.Options // how curves are drawn on out
}

func stdio() streams {
	s := streams{out: os.Stdout, err: os.Stderr, width: 80, plot: termplot.Auto(os.Stdout, os.Getenv)}
	if fd := int(os.Stderr.Fd()); term.IsTerminal(fd) && os.Getenv("TERM") != "dumb" {
		s.tty = true
		if w, _, err := term.GetSize(fd); err == nil && w > 20 {
			s.width = w
		}
	}
	return s
}

// say writes a line for people to out.
func (s streams) say(format string, args ...any) {
	fmt.Fprintf(s.out, format+"\n", args...)
}

// note writes a remark to err.
func (s streams) note(format string, args ...any) {
	fmt.Fprintf(s.err, format+"\n", args...)
}

// json writes v to out as indented JSON.
func (s streams) json(v any) error {
	e := json.NewEncoder(s.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
