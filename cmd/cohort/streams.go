package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

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

// columns is how wide text for people is at most.
const columns = 79

// tell writes a text to out, folded.
func (s streams) tell(format string, args ...any) {
	s.say("%s", fold(fmt.Sprintf(format, args...), columns))
}

// fold breaks the lines of a text anew at a width, paragraph by paragraph. Lines that begin with a blank stay as they are.
func fold(text string, width int) string {
	var out []string
	open := false // whether the last line goes on
	for line := range strings.SplitSeq(text, "\n") {
		if line == "" || line[0] == ' ' {
			out, open = append(out, line), false
			continue
		}
		for word := range strings.FieldsSeq(line) {
			if n := len(out); open && utf8.RuneCountInString(out[n-1])+1+utf8.RuneCountInString(word) <= width {
				out[n-1] += " " + word
				continue
			}
			out, open = append(out, word), true
		}
	}
	return strings.Join(out, "\n")
}
