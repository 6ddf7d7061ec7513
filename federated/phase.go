package federated

import "strings"

// SplitPhase splits the name of a phase into the phase of the method and the step of a session of secure sums that is part of it:
//
//	"train"            "train", ""
//	"train.masked"     "train", "masked"
//	"stats.rows.keys"  "stats", "rows.keys"
//
// Packages whose phases are many for one of the method (see federated/private) name them so.
func SplitPhase(name string) (method, step string) {
	method, step, _ = strings.Cut(name, ".")
	return method, step
}

// Works reports whether members do the method's own task in a step and send what came of it. The other steps of a session only
// prepare the sum or open it: keys, shares, lists.
func Works(step string) bool { return step == "" || step == "masked" || step == "sum" }

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
