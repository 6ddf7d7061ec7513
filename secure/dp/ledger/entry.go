package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/secure/dp"
)

// Digest stands for the content of a data set, see [DigestOf].
type Digest [sha256.Size]byte

// String returns d as 64 lower-case hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText returns what String returns.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads 64 lower-case hexadecimal digits.
func (d *Digest) UnmarshalText(text []byte) error {
	v, err := ParseDigest(string(text))
	if err == nil {
		*d = v
	}
	return err
}

// ParseDigest reads 64 lower-case hexadecimal digits.
func ParseDigest(text string) (d Digest, err error) {
	if b, err := hex.DecodeString(text); err == nil && len(b) == len(d) && hex.EncodeToString(b) == text {
		return Digest(b), nil
	}
	return d, fmt.Errorf("%.80q is no digest of data: expected 64 lower-case hexadecimal digits", text)
}

// Coordinator is who asked.
type Coordinator struct {
	Name string `json:"name"` // what it calls itself, for people
	Key  string `json:"key"`  // of its federation
}

// Key says which release an entry is for. An entry whose key is charged already is the same entry.
type Key struct {
	Coordinator string `json:"coordinator"` // key of the federation
	Run         string `json:"run"`
	Round       int    `json:"round"` // from 0
	Phase       string `json:"phase"`
	Attempt     int    `json:"attempt,omitempty"` // 0 for the first answer that a round gets, 1 for a second one, …
}

// Entry is a charge for one round.
type Entry struct {
	Coordinator Coordinator `json:"coordinator"`
	Run         string      `json:"run"`
	Round       int         `json:"round"` // from 0
	Phase       string      `json:"phase"`
	Attempt     int         `json:"attempt,omitempty"`
	Member      string      `json:"member"` // in whose name the data took part
	Terms       dp.Terms    `json:"terms"`
	// Amplified says that the round is charged by the chance of being asked, which is right only if every round is charged, asked
	// or not.
	Amplified bool `json:"amplified"`

	Time time.Time `json:"-"` // when it was charged, by the record
}

// Key returns what the entry is for.
func (e Entry) Key() Key { return Key{e.Coordinator.Key, e.Run, e.Round, e.Phase, e.Attempt} }

// longest is the greatest length of a name in an entry, in bytes.
const longest = 512

// Validate returns an error that names what an entry lacks.
func (e Entry) Validate() error {
	for _, name := range []struct{ what, text string }{
		{"key of the coordinator", e.Coordinator.Key}, {"run", e.Run}, {"phase", e.Phase}, {"member", e.Member},
	} {
		if name.text == "" || len(name.text) > longest {
			return fmt.Errorf("%s %.40q: expected 1 to %d bytes", name.what, name.text, longest)
		}
	}
	switch {
	case len(e.Coordinator.Name) > longest:
		return fmt.Errorf("name of the coordinator %.40q: expected at most %d bytes", e.Coordinator.Name, longest)
	case e.Round < 0 || e.Attempt < 0:
		return fmt.Errorf("round %d, attempt %d: expected 0 or more", e.Round, e.Attempt)
	case e.Amplified && !e.Terms.Amplified():
		return errors.New("an amplified round under terms that do not charge every enrolled member")
	case e.Amplified && e.Attempt > 0:
		return errors.New("an amplified round that is answered again: only a first answer comes by a secret coin")
	}
	return e.Terms.Validate()
}

// release returns the round as the Gaussian accountants count it.
func (e Entry) release() dp.Release {
	t := e.Terms
	t.EveryEnrolledCharged = e.Amplified
	return t.Release()
}

// Budget is what may be spent. The zero value is no limit.
type Budget struct {
	Epsilon float64 `json:"epsilon"` // ε > 0
	Delta   float64 `json:"delta"`   // δ in (0, 1)
}

// DefaultDelta is the δ of a budget that names none.
const DefaultDelta = 1e-5

// None reports whether there is no limit.
func (b Budget) None() bool { return b == Budget{} }

// Validate returns an error that names what is out of range. No limit is in range.
func (b Budget) Validate() error {
	switch {
	case b.None():
		return nil
	case !(b.Epsilon > 0) || math.IsInf(b.Epsilon, 1):
		return fmt.Errorf("budget of epsilon %v: expected a positive number", b.Epsilon)
	case !(b.Delta > 0 && b.Delta < 1):
		return fmt.Errorf("budget at delta %v: expected a probability between 0 and 1", b.Delta)
	}
	return nil
}

// String returns "ε 4 at δ 1e-05".
func (b Budget) String() string {
	if b.None() {
		return "none"
	}
	return fmt.Sprintf("ε %.4g at δ %.3g", b.Epsilon, b.Delta)
}

// SpentError says that what is asked for does not fit into a budget. Nothing was charged.
type SpentError struct {
	Spent  float64 // ε so far, at the budget's δ
	After  float64 // ε with what is asked for
	Rounds int     // that were asked for and not charged yet
	Budget Budget
	Own    bool // whether it is the ledger's own budget rather than the caller's
}

func (e *SpentError) Error() string {
	rounds := "this round"
	if e.Rounds > 1 {
		rounds = fmt.Sprintf("%d rounds", e.Rounds)
	}
	raise := "raise the budget with --budget-epsilon or in the policy"
	if e.Own {
		raise = "raise the budget with \"cohort privacy ledger --set-budget\""
	}
	return fmt.Sprintf("the privacy budget of these data does not allow it: spent is ε %.4g of %v; %s would bring it to ε %.4g; "+
		"take part in fewer rounds or with more noise, or %s", e.Spent, e.Budget, rounds, e.After, raise)
}

// DamageError names a record of a ledger that is wrong.
type DamageError struct {
	Path string
	Line int // from 1
	Err  error
}

func (e *DamageError) Error() string {
	var d *journal.DamageError
	if errors.As(e.Err, &d) {
		return fmt.Sprintf("%s:%d: the ledger is damaged: this line %s; put back a copy of the file that is whole", e.Path, e.Line, d.What)
	}
	return fmt.Sprintf("%s:%d: this is no ledger that can be counted: %v", e.Path, e.Line, e.Err)
}

func (e *DamageError) Unwrap() error { return e.Err }

// RewrittenError says that a ledger does not hold a record any more that it held before.
type RewrittenError struct {
	Path string
	Seen journal.Head
}

func (e *RewrittenError) Error() string {
	return fmt.Sprintf("%s:%d: the ledger was put back to an earlier state or written anew: the record that was seen here, %.16s…, is gone; "+
		"bring the newer file back", e.Path, e.Seen.Seq+1, e.Seen.Hash)
}
