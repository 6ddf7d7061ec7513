package assisted

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// TermsVersion is the version of [Terms]. Those of a later one are refused.
const TermsVersion = 1

// What organisations are asked for, by [Terms.Assist].
const (
	Fitting    = "fit"     // models of residuals, and their values
	Sharing    = "network" // turns at a network that organisations share, and activations of its first layer
	Predicting = "predict" // values of models that were fitted before
)

// How the parties know which rows are the same entity, by [Terms.Keys].
const (
	PlainKeys   = "plain"   // keys are sent as they are
	HashedKeys  = "hashed"  // hashed with a secret that the parties share and the coordinator's machine need not know
	PrivateKeys = "private" // private set intersection: nobody sees keys that the other does not have
)

// Terms is what an organisation is told of a run before it agrees, and all that it is told: what it is asked for, how often and
// how much. Of the sponsor's objective, labels and columns there is nothing in it.
type Terms struct {
	Version int    `json:"version"`
	Assist  string `json:"assist"`
	Of      string `json:"of,omitempty"` // of Predicting: the run whose models are asked
	Seed    uint64 `json:"seed"`         // of the organisations' random choices
	Rounds  int    `json:"rounds"`
	Outputs int    `json:"outputs"` // columns of a matrix of targets or values; of Sharing, of activations
	Vectors int    `json:"vectors"` // columns of targets that may be sent, or of activations that may be told, in the whole run
	// Mixtures is how many random mixtures of its columns an organisation is asked for before the first round; see [Desk.Sketch].
	Mixtures int `json:"mixtures,omitempty"`
	// Strata is in how many groups the rows come, each of which is fitted apart; 0: in none. Which rows are in the same one is told with
	// every request.
	Strata int    `json:"strata,omitempty"`
	Keys   string `json:"keys"`
	Study  string `json:"study,omitempty"` // what keys are hashed for: the same at all parties
}

// Method is how policies and logs call what is asked for.
func (t *Terms) Method() string {
	switch t.Assist {
	case Predicting:
		return "assist-predict"
	case Sharing:
		return "assist-network"
	}
	return "assist"
}

// Methods are the values of [Terms.Method].
func Methods() []string { return []string{"assist", "assist-network", "assist-predict"} }

// most bounds numbers in terms, so that those of a stranger cost nothing out of proportion.
const most = 1 << 24

// Validate returns an error that says what cannot be.
func (t *Terms) Validate() error {
	switch {
	case t.Version != TermsVersion:
		return fmt.Errorf("version %d of the terms; this program knows version %d", t.Version, TermsVersion)
	case t.Assist != Fitting && t.Assist != Sharing && t.Assist != Predicting:
		return fmt.Errorf("asked for %.40q; expected %s, %s or %s", t.Assist, Fitting, Sharing, Predicting)
	case (t.Assist == Predicting) != (t.Of != ""):
		return errors.New("a run that predicts names the run whose models it asks, and no other does")
	case t.Rounds < 1 || t.Rounds > most || t.Outputs < 1 || t.Outputs > most || t.Vectors < 0 || t.Vectors > most || t.Mixtures < 0 || t.Mixtures > most:
		return fmt.Errorf("%d rounds, %d outputs, %d vectors, %d mixtures: each must be between 1 and %d", t.Rounds, t.Outputs, t.Vectors, t.Mixtures, most)
	case t.Strata < 0 || t.Strata == 1 || t.Strata > mostStrata:
		return fmt.Errorf("%d strata: between 2 and %d, or none", t.Strata, mostStrata)
	case !slices.Contains([]string{PlainKeys, HashedKeys, PrivateKeys}, t.Keys):
		return fmt.Errorf("keys %.40q; expected %s, %s or %s", t.Keys, PlainKeys, HashedKeys, PrivateKeys)
	case len(t.Of) > 200 || len(t.Study) > 200 || strings.ContainsAny(t.Of+t.Study, "\n\r"):
		return errors.New("the name of a run or study has more than 200 bytes or a line break")
	}
	return nil
}

// Text returns the terms as they are sent.
func (t *Terms) Text() string {
	b, err := json.Marshal(t)
	if err != nil {
		panic("assisted: terms: " + err.Error()) // strings and numbers only
	}
	return string(b)
}

// ReadTerms reads and checks what [Terms.Text] wrote. A field that it does not know may change what is asked, and is refused.
func ReadTerms(text string) (*Terms, error) {
	var t Terms
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil {
		return nil, fmt.Errorf("terms of assistance: %w", err)
	}
	if d.More() {
		return nil, errors.New("terms of assistance: something follows them")
	}
	return &t, t.Validate()
}
