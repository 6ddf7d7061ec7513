package main

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"github.com/cohort-learning/cohort/node/member"
)

// memberProgress shows what happens to a member: on a terminal what is routine renews one line, elsewhere every event is a line.
type memberProgress struct {
	io          streams
	quiet, json bool
	shown       bool
	rounds      map[string]int
	counted     int
	late        int
	sent        int64
}

// event implements [member.Options.Events].
func (p *memberProgress) event(e member.Event) {
	if p.json {
		line, err := json.Marshal(e)
		if err == nil {
			p.io.say("%s", line)
		}
		return
	}
	routine := false
	switch e.Kind {
	case member.EventAgreed:
		if p.rounds == nil {
			p.rounds = map[string]int{}
		}
		p.rounds[e.Run] = e.Terms.Rounds
	case member.EventCounted:
		p.counted++
		p.sent += e.Bytes
		routine = true
	case member.EventSent:
		p.sent += e.Bytes
		routine = true
	case member.EventLate:
		p.late++
		routine = true
	case member.EventTraining, member.EventCharged:
		routine = true
	}
	loud := e.Kind == member.EventWarning || e.Kind == member.EventRefused || e.Kind == member.EventDeclined || e.Kind == member.EventFailed ||
		e.Kind == member.EventMemory || e.Kind == member.EventRollback || e.Kind == member.EventSpent
	if p.quiet && !loud {
		return
	}
	if routine && p.io.tty {
		p.draw(e)
		return
	}
	p.wipe()
	p.io.note("%s", e.Text)
}

// draw renews the line.
func (p *memberProgress) draw(e member.Event) {
	bar := ""
	if n := p.rounds[e.Run]; n > 0 {
		const width = 20
		full := min(width, int(math.Round(float64(e.Round-1)/float64(n)*width)))
		bar = strings.Repeat("━", full) + strings.Repeat("─", width-full) + " "
		if p.io.plot.ASCII {
			bar = "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "] "
		}
	}
	line := fmt.Sprintf("%s%s · %d counted", bar, e.Text, p.counted)
	if p.late > 0 {
		line += fmt.Sprintf(", %d late", p.late)
	}
	line += fmt.Sprintf(", %s sent", inBytes(float64(p.sent)))
	fmt.Fprintf(p.io.err, "\r\x1b[K%s", clip(line, p.io.width-1))
	p.shown = true
}

func (p *memberProgress) wipe() {
	if p.shown {
		fmt.Fprint(p.io.err, "\r\x1b[K")
		p.shown = false
	}
}
