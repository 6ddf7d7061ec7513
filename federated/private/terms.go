package private

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/secure/secagg"
	"github.com/cohort-learning/cohort/weights"
)

// terms are what the server says about a session, the same for all.
type terms struct {
	Session    string  `json:"session"`
	Members    int     `json:"members"`
	Threshold  int     `json:"threshold"`
	Neighbours int     `json:"neighbours,omitempty"`
	Survivors  int     `json:"survivors,omitempty"`
	Enrolled   int     `json:"enrolled,omitempty"` // members among whom noise is shared out
	Layout     *layout `json:"layout"`
	// Tasks are digests, by holding, of what members will be asked for. A server that asks one member for an update, and the
	// others for something that comes to zero, would see that update in the sum.
	Tasks []string `json:"tasks,omitempty"`
}

func (t *terms) marshal() ([]byte, error) { return json.Marshal(t) }

// name is what keys are signed for: the session under these terms, all of them.
func (t *terms) name() string {
	b, err := t.marshal()
	if err != nil {
		panic(fmt.Sprintf("private: terms of a session: %v", err)) // they are numbers and texts
	}
	return fmt.Sprintf("%s, terms %x", t.Session, sha256.Sum256(b))
}

// digest returns that of what members of one holding are asked for in the step that masks, in [terms].Tasks.
func (o order) digest(t federated.Task) (string, error) {
	b, err := json.Marshal(struct {
		Phase   string          `json:"phase"`
		Rows    bool            `json:"rows"`
		Holding int             `json:"holding"`
		Allowed []bool          `json:"allowed"`
		Params  json.RawMessage `json:"params"`
		Index   weights.Index   `json:"index"`
	}{o.Phase, o.Rows, o.Holding, o.Allowed, o.Params, t.Index})
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%d %s", len(b), b)
	for _, name := range slices.Sorted(maps.Keys(t.Sets)) {
		fmt.Fprintf(h, "%q %x\n", name, weights.Digest(t.Sets[name]))
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// agreed returns an error unless a task is the one that everybody in the session knows of.
func (t *terms) agreed(o order, holding int, task federated.Task) error {
	o.Holding = holding
	got, err := o.digest(task)
	if err != nil {
		return err
	}
	if holding >= len(t.Tasks) || t.Tasks[holding] != got {
		return fmt.Errorf("secure aggregation: %w: the task is not the one that was announced to everybody with the terms: another model, other rows, another part or other parameters",
			secagg.ErrConflict)
	}
	return nil
}

func readTerms(b []byte) (*terms, error) {
	var t terms
	if err := json.Unmarshal(b, &t); err != nil {
		return nil, fmt.Errorf("terms of the session: %w: %w", secagg.ErrMalformed, err)
	}
	if t.Layout == nil {
		return nil, fmt.Errorf("terms of the session: %w: they say nothing of its vectors", secagg.ErrMalformed)
	}
	if err := t.Layout.place(); err != nil {
		return nil, fmt.Errorf("terms of the session: %w: %w", secagg.ErrMalformed, err)
	}
	return &t, nil
}

// TermsBytes returns about how many bytes the terms of a session take, which every member of it is sent.
func TermsBytes(p federated.Phase) int {
	t := terms{Session: sessionName(scopeExample, 1, p.Name, false), Members: 10, Threshold: 7, Tasks: []string{scopeExample},
		Layout: &layout{Folds: foldsOf(p), Holdings: []weights.Index{nil}}}
	b, err := t.marshal()
	if err != nil {
		panic(fmt.Sprintf("private: terms of a session: %v", err)) // they are numbers and texts
	}
	return len(b)
}

// scopeExample is as long as what names a run, and as a digest.
const scopeExample = "0000000000000000000000000000000000000000000000000000000000000000"
