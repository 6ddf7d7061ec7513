package assisted

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// Given is one answer to a request for predictions, as the organisation that gave it remembers it.
type Given struct {
	Time   time.Time `json:"time,omitzero"`
	Scope  string    `json:"scope"`        // who asked: the key of the federation, and the run or session
	Of     string    `json:"of,omitempty"` // the run whose models answered, where that is another one
	Rows   int       `json:"rows"`
	Keys   string    `json:"keys"`             // digest of the entities that were asked for
	Table  int       `json:"table,omitempty"`  // version of the table that was read
	Digest string    `json:"digest,omitempty"` // of that table
}

const givenName = "predicted"

// Predicted reads what an organisation has predicted so far, oldest first.
func Predicted(s Store) (all []Given, err error) {
	switch b, err := s.Get(givenName); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	default:
		if err := json.Unmarshal(b, &all); err != nil {
			return nil, fmt.Errorf("what this organisation has predicted so far: %w", err)
		}
		return all, nil
	}
}

// allow notes that predictions are given for entities, or refuses to where the limit is reached. A run that asks again for what it
// has asked for is not counted again.
func (c *Clerk) allow(scope string, keys []byte) error {
	list, err := ReadKeys(keys)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	all, err := Predicted(c.Desk.Store)
	if err != nil {
		return err
	}
	g := Given{Scope: scope, Of: c.Of, Rows: len(list), Keys: digestOf(keys), Table: c.Table, Digest: c.Digest}
	sum := g.Rows
	for _, before := range all {
		if before.Scope == g.Scope && before.Keys == g.Keys {
			return nil
		}
		sum += before.Rows
	}
	if c.Answers > 0 && sum > c.Answers {
		return fmt.Errorf("this organisation predicts for at most %d rows and has done so for %d: its owner must allow more", c.Answers, sum-g.Rows)
	}
	if c.Now != nil {
		g.Time = c.Now().UTC()
	}
	b, err := json.Marshal(append(all, g))
	if err == nil {
		err = c.Desk.Store.Put(givenName, b)
	}
	if err == nil && c.Told != nil {
		c.Told(g, sum)
	}
	return err
}
