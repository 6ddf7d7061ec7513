package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/node/member"
)

// explain says what a token is and what joining with it would do; nobody is asked.
func (o *joinOptions) explain(io streams, t identity.Token, dir string) error {
	if o.json {
		return io.json(map[string]any{"schema": schema, "name": t.Name, "url": t.URL, "ca": t.CA.String(), "federation": t.Federation.String(),
			"expires": t.Expires, "dir": dir, "leaves": []string{"name", "secret of the invitation", "public key"}})
	}
	fingerprint := t.CA.String()
	if t.CA.IsZero() {
		fingerprint = "none: recognised by the authorities that this system trusts"
	}
	tab := newTable("", "")
	tab.add("you would be", t.Name)
	tab.add("coordinator", t.URL)
	tab.add("its certificate", fingerprint)
	tab.add("its key", t.Federation.String())
	tab.add("valid until", t.Expires.Local().Format(time.RFC1123))
	tab.add("folder", dir)
	tab.body(io.out)
	io.say("")
	io.tell("Joining would make a key in that folder and send the name, the secret of the invitation and the public half of the key. " +
		"What a run asks, and what would leave for it, the coordinator says only to members: with --enrol, join stops there; " +
		"then say in policy.yaml what you allow, and \"cohort join --dry-run\" shows what would leave before anything is agreed to.")
	if err := t.Check(time.Now()); err != nil {
		return err
	}
	return nil
}

// preview shows what would leave.
func (o *joinOptions) preview(io streams, f *member.Folder, previews []member.Preview) error {
	if o.json {
		return io.json(map[string]any{"schema": schema, "name": f.Card.Name, "runs": previews})
	}
	if len(previews) == 0 {
		io.say("the coordinator offers no run at present")
	}
	for i, p := range previews {
		if i > 0 {
			io.say("")
		}
		io.say("run %s: %s with %s, %d rounds", p.Run, p.Terms.Method, p.Terms.Model, p.Terms.Rounds)
		for _, no := range p.Declined {
			io.say("your policy declines it: %s", no)
		}
		if p.Secure || p.Private {
			io.say("\nOnce, before the first round, leaves what the data are, but not how many examples there are (every member says 1):\n  %s", declared(p))
		} else {
			io.say("\nOnce, before the first round, leave: how many examples there are (%d to train on, %d to test on), and what they are:\n  %s",
				p.Terms.Samples, p.Terms.Tests, declared(p))
		}
		for _, ph := range p.Phases {
			printPhase(io, ph)
		}
		io.say("")
		io.tell("%s", learns(p))
	}
	return nil
}

// declared shortens the declaration of the data to a line.
func declared(p member.Preview) string {
	var s struct {
		Classes []string `json:"classes"`
	}
	text := p.Terms.Schema
	if count, rest, ok := strings.Cut(text, " examples, "); ok && (p.Secure || p.Private) && strings.Trim(count, "0123456789,") == "" {
		text = rest // how many there are stays here
	}
	if json.Unmarshal(p.Schema, &s) == nil && len(s.Classes) > 0 {
		text += "; classes " + strings.Join(s.Classes[:min(20, len(s.Classes))], ", ")
		if len(s.Classes) > 20 {
			text += ", …"
		}
	}
	return text
}

func printPhase(io streams, ph member.PhasePreview) {
	io.say("\nIn each phase %q that this member is asked in, leave %s:", ph.Phase, inBytes(float64(ph.Bytes)))
	if ph.Unknown != "" {
		io.say("  not known before the run: %s", ph.Unknown)
		return
	}
	t := newTable("", "", "", ">")
	for _, x := range ph.Tensors {
		shape := fmt.Sprint(x.Shape)
		t.add("  "+x.Set, x.Name, x.DType+" "+shape, inBytes(float64(x.Bytes)))
	}
	t.body(io.out)
	if ph.Attached > 0 {
		io.say("  %s of keys, sealed shares or masked integers", inBytes(float64(ph.Attached)))
	}
	if ph.Weight > 0 {
		io.say("  how much it weighs: %d", ph.Weight)
	}
	if len(ph.Scalars) > 0 {
		io.say("  numbers: %s", strings.Join(ph.Scalars, ", "))
	}
	if len(ph.Dropped) > 0 {
		io.say("  computed, but kept here: %s", strings.Join(ph.Dropped, ", "))
	}
	if ph.Keeps > 0 {
		io.say("  %s of memory stay on this machine", inBytes(float64(ph.Keeps)))
	}
}

// learns says what an honest but curious coordinator can learn from all that.
func learns(p member.Preview) string {
	switch {
	case p.Secure && p.Private:
		return "What a coordinator that keeps to the protocol, but looks, can learn: sums of many members' updates, with noise that hides each of them. " +
			"Nothing of this member alone leaves in the clear."
	case p.Secure:
		return "What a coordinator that keeps to the protocol, but looks, can learn: sums of many members' updates and weights, and what those tell. " +
			"Nothing of this member alone leaves in the clear; sums of the same members in many rounds tell more than one."
	case p.Private:
		return "What a coordinator that keeps to the protocol, but looks, can learn: it gets the clipped update of this member alone, and is trusted to add the noise. " +
			"What it publishes says little of any one member."
	}
	text := "What a coordinator that keeps to the protocol, but looks, can learn: it gets the update of this member alone, not only a sum. " +
		"An update of few steps can be turned back into examples that resemble the data; the last layer tells which classes there are and about how many of each; " +
		"whether a given example is among the data can be guessed better than by chance. The counts are exact."
	if slices.ContainsFunc(p.Phases, func(ph member.PhasePreview) bool { return slices.Contains(ph.Scalars, "correct") }) {
		text += " How well the model does on the test data of this member is told as it is."
	}
	return text + " A run with secure sums (secure: in its recipe) and noise (privacy:) would prevent that."
}
