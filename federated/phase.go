package federated

import (
	"strconv"
	"strings"
)

// SplitPhase splits the name of a phase into the phase of the method and the step of a session of secure sums that is part of it:
//
//	"train"            "train", ""
//	"train.masked"     "train", "masked"
//	"stats.rows.keys"  "stats", "rows.keys"
//	"train.3"          "train", "3": see [Turn]
//
// Packages whose phases are many for one of the method (see federated/private) name them so. The phases of a round have different names:
// that is what members know them by.
func SplitPhase(name string) (method, step string) {
	method, step, _ = strings.Cut(name, ".")
	return method, step
}

// Turn returns the name of a phase in a round in which members take turns: phase, phase.2, phase.3 and so on, for i from 0.
func Turn(phase string, i int) string {
	if i == 0 {
		return phase
	}
	return phase + "." + strconv.Itoa(i+1)
}

// turn returns the number of a step that [Turn] named; false if it is a step of something else.
func turn(step string) (n int, ok bool) {
	n, err := strconv.Atoi(step)
	return n, err == nil
}

// Works reports whether members do the method's own task in a step and send what came of it. The other steps of a session only
// prepare the sum or open it: keys, shares, lists.
func Works(step string) bool {
	_, turns := turn(step)
	return turns || step == "" || step == "masked" || step == "sum"
}

// Learns reports whether members train in the phase of that name, and send what they have learned.
func Learns(phase string) bool {
	method, step := SplitPhase(phase)
	return method == "train" && Works(step)
}

// PhaseWord says for people what is going on in the phase of that name, such as "training" or "exchanging keys for training".
func PhaseWord(name string) string {
	method, step := SplitPhase(name)
	word, ok := phaseWords[method]
	if !ok {
		word = method
	}
	if n, turns := turn(step); turns {
		return word + ", turn " + strconv.Itoa(n)
	}
	if Works(step) {
		return word
	}
	step, rows := strings.CutPrefix(step, "rows.") // the session that counts who has which labels
	if rows {
		word = "counting labels before " + word
		if Works(step) {
			return word
		}
	}
	does, ok := stepWords[step]
	if !ok {
		does = step
	}
	return does + " for " + word
}

var phaseWords = map[string]string{"train": "training", "eval": "evaluation", "stats": "statistics", "test": "the test"}

var stepWords = map[string]string{
	"session": "setting terms",
	"keys":    "exchanging keys",
	"shares":  "sharing secrets",
	"confirm": "agreeing who is in the sum",
	"unmask":  "opening the sum",
}
