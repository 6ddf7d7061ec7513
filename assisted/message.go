package assisted

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/weights"
	"gonum.org/v1/gonum/mat"
)

// What a desk is asked to do, by [order.Do].
const (
	doRows    = "rows"    // know the entities of a run by their keys, in their order; of which it has none, it says
	doFit     = "fit"     // fit a model to targets and answer with its values for all rows
	doUpdate  = "update"  // take a turn at a network that organisations share and answer with activations of all rows
	doVote    = "vote"    // fit a model to classes with weights and answer with its votes for all rows
	doGLM     = "glm"     // fit a generalised linear model with an offset to labels and answer with its part of the linear predictor for all rows
	doSketch  = "sketch"  // answer with a few random mixtures of features
	doPredict = "predict" // answer with values of models that were fitted before
	// doRecompute is to answer with the values that models of the run have by now, on its rows.
	doRecompute = "recompute"
)

// order is the parameters of a task for a desk.
type order struct {
	Do   string `json:"do"`
	Rows string `json:"rows,omitempty"` // digest of the ordered keys that the rows of all matrices stand for
	Fit  int    `json:"fit,omitempty"`  // of doRows: how many rows, the first ones, targets will come for
	Slot Slot   `json:"slot"`           // of doFit, doVote, doGLM and doUpdate: the name of the model
	// Of doUpdate: the turn that it goes on from, and how.
	From    *Slot    `json:"from,omitempty"`
	Descent *Descent `json:"descent,omitempty"`
	// Share is of doFit: how models of several rounds share what they can, [ShareWarm] or [ShareRestart]; empty: not at all.
	Share string `json:"share,omitempty"`
	// Classes is of doVote: how many there are.
	Classes int `json:"classes,omitempty"`
	// Family is of doGLM: one of [learner.Families].
	Family string `json:"family,omitempty"`
	// Mixtures is of doSketch: how many.
	Mixtures int `json:"mixtures,omitempty"`
	// Of doPredict and doRecompute: the models, and of the former what their values are multiplied with before they are added; without coefficients they
	// come one beside the other.
	Slots        []Slot    `json:"slots,omitempty"`
	Coefficients []float64 `json:"coefficients,omitempty"`
	// Shares multiply the coefficient of a model besides, by output; none, or null for a model: 1.
	Shares [][]float64 `json:"shares,omitempty"`
}

// Slot names a model that a desk has fitted in a run.
type Slot struct {
	Round int `json:"round"`
	Step  int `json:"step"`
}

func (s Slot) String() string { return fmt.Sprintf("%d.%d", s.Round, s.Step) }

func (o order) task(sets map[string]weights.Set, attached []byte) (federated.Task, error) {
	p, err := json.Marshal(o)
	return federated.Task{Params: p, Sets: sets, Attached: attached}, err
}

func orderOf(t federated.Task) (o order, err error) {
	d := json.NewDecoder(bytes.NewReader(t.Params))
	d.DisallowUnknownFields()
	if err := d.Decode(&o); err != nil {
		return o, fmt.Errorf("what is asked cannot be read: %w", err)
	}
	return o, nil
}

// mostClasses bounds how many classes are voted for.
const mostClasses = 1 << 16

// checkVotes returns an error unless every row is a class and a weight.
func (o order) checkVotes(r *mat.Dense) error {
	rows, columns := r.Dims()
	if columns != 2 || o.Classes < 2 || o.Classes > mostClasses {
		return fmt.Errorf("asked for votes for %d classes with %d columns of targets; a label and its weight are expected, and 2 to %d classes", o.Classes, columns, mostClasses)
	}
	for i := range rows {
		label, weight := r.At(i, 0), r.At(i, 1)
		if Masked(r, i) {
			continue
		}
		if !(label >= 0 && label < float64(o.Classes)) || label != math.Trunc(label) || !(weight >= 0) {
			return fmt.Errorf("row %d is to be of class %v with weight %v: expected a class of 0 to %d and a weight of at least 0", i, label, weight, o.Classes-1)
		}
	}
	return nil
}

// AppendKeys appends the binary form of a list of keys to b: how many as a 64-bit little-endian word, then for each its
// length as a 32-bit one and its bytes.
func AppendKeys(b []byte, keys []string) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(len(keys)))
	for _, k := range keys {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(k)))
		b = append(b, k...)
	}
	return b
}

// ReadKeys reads what [AppendKeys] wrote, and nothing else; no key may be there twice.
func ReadKeys(b []byte) ([]string, error) {
	if len(b) < 8 {
		return nil, errors.New("no list of keys: the header is missing")
	}
	n := binary.LittleEndian.Uint64(b)
	b = b[8:]
	if n > uint64(len(b)/4) {
		return nil, fmt.Errorf("%d keys in %d bytes", n, len(b))
	}
	keys, seen := make([]string, n), make(map[string]bool, n)
	for i := range keys {
		if len(b) < 4 {
			return nil, fmt.Errorf("the list of keys ends before key %d of %d", i, n)
		}
		size := uint64(binary.LittleEndian.Uint32(b))
		if b = b[4:]; size > uint64(len(b)) {
			return nil, fmt.Errorf("key %d has %d bytes, of which %d are there", i, size, len(b))
		}
		keys[i], b = string(b[:size]), b[size:]
		if seen[keys[i]] {
			return nil, fmt.Errorf("key %q is there twice", keys[i])
		}
		seen[keys[i]] = true
	}
	if len(b) > 0 {
		return nil, fmt.Errorf("%d bytes follow the last key", len(b))
	}
	return keys, nil
}

// digestOf names a list of keys in its order.
func digestOf(keys []byte) string {
	h := sha256.Sum256(keys)
	return hex.EncodeToString(h[:])
}
