package private

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/secure/secagg"
)

// vectors is the sum of the masked vectors of members with one holding.
type vectors struct{ sum *secagg.Vector }

// Add implements [federated.Attachments].
func (v *vectors) Add(t federated.Task, attached []byte) error {
	var o order
	if err := json.Unmarshal(t.Params, &o); err != nil {
		return err
	}
	var x secagg.Vector
	if err := x.UnmarshalBinary(attached); err != nil {
		return err
	}
	if x.Len() != o.Words {
		return fmt.Errorf("a vector of %d words, expected %d", x.Len(), o.Words)
	}
	if v.sum == nil {
		v.sum = &x
		return nil
	}
	if len(x.Extra) != len(v.sum.Extra) || len(x.Body32) != len(v.sum.Body32) || len(x.Body64) != len(v.sum.Body64) {
		return fmt.Errorf("a vector of %d+%d words and %d extra, others have %d+%d and %d", len(x.Body32), len(x.Body64), len(x.Extra),
			len(v.sum.Body32), len(v.sum.Body64), len(v.sum.Extra))
	}
	v.sum.Add(&x)
	return nil
}

// MarshalBinary implements [federated.Attachments]; nothing is empty.
func (v *vectors) MarshalBinary() ([]byte, error) {
	if v.sum == nil {
		return nil, nil
	}
	return v.sum.MarshalBinary()
}

// UnmarshalBinary implements [federated.Attachments].
func (v *vectors) UnmarshalBinary(b []byte) error {
	if v.sum = nil; len(b) == 0 {
		return nil
	}
	v.sum = new(secagg.Vector)
	return v.sum.UnmarshalBinary(b)
}

// errNobody says that a session has no vectors.
var errNobody = errors.New("nobody's vector came")
