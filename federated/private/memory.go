package private

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/weights"
)

// What a member keeps is committed when its masked vector has come. Whether that vector counts is known only two steps later, when
// the sum is opened or the session has failed. For most memories that makes no difference. But where members send what has changed
// in their memory, and the server adds it up (folds that are Undiscounted, such as SCAFFOLD's control variates, whose mean the
// server's own has to be), a change that was kept and never counted would be missing for ever. There a member keeps both, what it
// had and what it would have, under the name of the session, and the next task tells it of the last session that counted.

// countedKey is where the state has the last session that counted of each member: State.Attached["private/counted"]. It is not of
// one session and stays.
const countedKey = "private/counted"

// Names of tensors in a memory whose session was still open.
const (
	openPrefix   = "session/" // and the name of the session
	beforePrefix = "before/"
	afterPrefix  = "after/"
)

// sessionMark names the session of a phase within a run.
func sessionMark(round int, phase string) string { return fmt.Sprintf("%d %s", round, phase) }

// balanced reports whether the server adds up changes of what members keep in a phase of the method.
func balanced(p federated.Phase) bool {
	return slices.ContainsFunc(p.Folds, func(f federated.Fold) bool { return f.Undiscounted })
}

// counted returns the last session that counted of each member.
func counted(s federated.State) (map[string]string, error) {
	of := map[string]string{}
	b, ok := s.Attached[countedKey]
	if !ok {
		return of, nil
	}
	if err := json.Unmarshal(b, &of); err != nil {
		return nil, fmt.Errorf("sessions that counted: %w", err)
	}
	return of, nil
}

// count notes that a session counted, with the members in its sum.
func count(s federated.State, mark string, members []string) (federated.State, error) {
	of, err := counted(s)
	if err != nil {
		return s, err
	}
	for _, name := range members {
		of[name] = mark
	}
	b, err := json.Marshal(of)
	return s.Attach(countedKey, b), err
}

// settle returns what a member keeps, given the last session that counted of it; nil, if the task does not tell: the newest then.
func settle(keep *weights.Set, last *string) *weights.Set {
	if keep == nil {
		return nil
	}
	i := slices.IndexFunc(keep.Names(), func(n string) bool { return strings.HasPrefix(n, openPrefix) })
	if i < 0 {
		return keep
	}
	prefix := beforePrefix
	if last == nil || openPrefix+*last == keep.Names()[i] {
		prefix = afterPrefix
	}
	out := weights.NewSet(keep.Len() / 2)
	for name, t := range keep.All() {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			out.Put(rest, t)
		}
	}
	if out.Len() == 0 {
		return nil
	}
	return &out
}

// unsettled returns what a member keeps of a session that is not over: what it had, and what it will have if its vector counts.
func unsettled(mark string, before, after *weights.Set) *weights.Set {
	out := weights.NewSet(1)
	out.Put(openPrefix+mark, weights.Of32([]float32{0}, 1))
	for prefix, s := range map[string]*weights.Set{beforePrefix: before, afterPrefix: after} {
		if s == nil {
			continue
		}
		for name, t := range s.All() {
			out.Put(prefix+name, t)
		}
	}
	return &out
}
