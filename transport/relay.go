package transport

import (
	"errors"
	"fmt"

	"github.com/cohort-learning/cohort/identity"
)

// Relay is what a relay says of itself: where its leaves reach it, and which of them are connected to it. It says so after
// every connection and whenever it changes.
type Relay struct {
	URL  string   `json:"url"`
	CA   Digest   `json:"ca"` // fingerprint of its certificate authority
	Here []string `json:"here"`
}

// Delegation says, signed by the coordinator, whose results a relay may add, and whose messages it brings. The newest, by its
// number, counts. Leaves see it before they trust a relay's word.
type Delegation struct {
	Number int    `json:"number"`
	Relay  string `json:"relay"`
	Key    string `json:"key"`
	URL    string `json:"url"` // of the coordinator itself, for leaves whose relay is gone
	CA     Digest `json:"ca"`  // fingerprint of the coordinator's certificate authority; zero: the system's
	Leaves []Leaf `json:"leaves"`
}

// Leaf is a member behind a relay.
type Leaf struct {
	Name string `json:"name"`
	Key  string `json:"key,omitempty"` // absent: invited and not admitted yet
}

// Layout asks what the results of the phase of an order are added to.
type Layout struct {
	Order int    `json:"order"`
	Task  Digest `json:"task"`
	Again bool   `json:"again,omitempty"` // push the task again: the relay does not have it
}

// Folds are the sums of a phase.
type Folds struct {
	Folds []Fold `json:"folds"`
	Ref   int    `json:"ref,omitempty"` // 1 + position of a blob with the JSON of the folds, if they are not here
}

// Fold is one sum: names and shapes of the whole, whether addends may be a part of it, and whether the weights that cover each
// coordinate are counted.
type Fold struct {
	Name    string  `json:"name"`
	Like    []Shape `json:"like"`
	Indexed bool    `json:"indexed,omitempty"`
	Counts  bool    `json:"counts,omitempty"`
}

// Shape is a tensor's name and shape.
type Shape struct {
	Name  string `json:"name"`
	Shape []int  `json:"shape"`
}

// Partial hands in the exact sum of results of one phase. The blob has the sums and the results' own messages, each signed by
// its leaf; see docs/wire.md.
type Partial struct {
	Sums   int    `json:"sums"`   // 1 + position of the blob
	Orders string `json:"orders"` // that are inside, as ranges
}

// Inclusion answers Partial. Accepted, it is durable, and all that is inside has been handed in. Refused with orders in Counted
// or Out, it may be handed in anew without these.
type Inclusion struct {
	Outcome Outcome `json:"outcome"`
	Code    Code    `json:"code,omitempty"`
	Reason  string  `json:"reason,omitempty"`
	Counted string  `json:"counted,omitempty"` // orders whose same results the coordinator has already
	Out     string  `json:"out,omitempty"`     // orders that nobody waits for, or that have another result
}

// Receipt is a relay's word that it has a result and will hand it in. The coordinator's verdict takes its place when there is
// one: until then, and until the end of the phase, the leaf asks again now and then.
type Receipt struct {
	Order  int    `json:"order"`
	Result Digest `json:"result"` // of the message
}

// Kind implements [Body].
func (*Relay) Kind() Kind      { return KindRelay }
func (*Delegation) Kind() Kind { return KindDelegation }
func (*Layout) Kind() Kind     { return KindLayout }
func (*Folds) Kind() Kind      { return KindFolds }
func (*Partial) Kind() Kind    { return KindPartial }
func (*Inclusion) Kind() Kind  { return KindInclusion }
func (*Receipt) Kind() Kind    { return KindReceipt }

// Validate implements [Body].
func (b *Relay) Validate(int) error {
	_, err := identity.ParseURL(b.URL)
	return err
}

// Validate implements [Body].
func (b *Delegation) Validate(int) error {
	if _, err := identity.ParsePublic(b.Key); err != nil {
		return fmt.Errorf("key of the relay: %w", err)
	}
	seen := map[string]bool{b.Relay: true}
	for _, l := range b.Leaves {
		if seen[l.Name] {
			return fmt.Errorf("leaf %q twice, or the relay itself", l.Name)
		}
		seen[l.Name] = true
		if l.Key == "" {
			continue
		}
		if _, err := identity.ParsePublic(l.Key); err != nil {
			return fmt.Errorf("key of leaf %q: %w", l.Name, err)
		}
	}
	return nil
}

// Has reports whether the delegation lists a leaf with a key.
func (b *Delegation) Has(name string, key identity.Public) bool {
	for _, l := range b.Leaves {
		if l.Name == name {
			return l.Key == key.String()
		}
	}
	return false
}

// Validate implements [Body].
func (b *Layout) Validate(int) error {
	if b.Order < 0 {
		return fmt.Errorf("order %d", b.Order)
	}
	return nil
}

// Validate implements [Body].
func (b *Folds) Validate(refs int) error {
	if len(b.Folds) > 0 && b.Ref != 0 {
		return errors.New("the folds stand here and in a blob")
	}
	if err := position(b.Ref, refs); err != nil {
		return err
	}
	return CheckFolds(b.Folds)
}

// CheckFolds returns what is wrong with folds that stand in a blob.
func CheckFolds(folds []Fold) error {
	seen := map[string]bool{}
	for _, f := range folds {
		if seen[f.Name] {
			return fmt.Errorf("fold %q twice", f.Name)
		}
		seen[f.Name] = true
		in, total := map[string]bool{}, 0
		for _, s := range f.Like {
			if in[s.Name] {
				return fmt.Errorf("fold %q: tensor %q twice", f.Name, s.Name)
			}
			in[s.Name] = true
			n := 1
			for _, d := range s.Shape {
				if d < 0 || d > 0 && n > maxCoordinates/d {
					return fmt.Errorf("fold %q: tensor %q of shape %v", f.Name, s.Name, s.Shape)
				}
				n *= d
			}
			if total += n; total > maxCoordinates || len(s.Shape) > 8 {
				return fmt.Errorf("fold %q: tensor %q of shape %v", f.Name, s.Name, s.Shape)
			}
		}
	}
	return nil
}

// maxCoordinates bounds a fold: sums of so many take 16 GiB.
const maxCoordinates = 1 << 30

// Validate implements [Body].
func (b *Partial) Validate(refs int) error {
	if b.Sums < 1 {
		return errors.New("no sums")
	}
	return position(b.Sums, refs)
}

// Validate implements [Body].
func (b *Inclusion) Validate(int) error { return (&Verdict{Outcome: b.Outcome}).Validate(0) }

// Validate implements [Body].
func (b *Receipt) Validate(int) error {
	if b.Order < 0 {
		return fmt.Errorf("order %d", b.Order)
	}
	return nil
}
