package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/node/coordinator"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/transport"
)

// Assistance is a run of organisations with columns of their own, ready to be served by the sponsor's coordinator.
type Assistance struct {
	ID      string // of the run and its folder
	Method  string
	Recipe  []byte         // the sponsor's, as it is recorded; it is sent to nobody
	Terms   assisted.Terms // what organisations are told instead
	Members int            // organisations that must have agreed before the first round
	// Keep, if not nil, keeps in the folder of the run what predictions need later, or says why the run cannot go on.
	Keep func(dir string) error

	Algorithm federated.Algorithm
	Config    federated.Config
}

// Assist begins a run of organisations with columns of their own, or goes on with the one in the folder of that name, which must
// be of the same recipe. Of o, ID, Members and Data do not count.
func (h *Host) Assist(ctx context.Context, a Assistance, o RunOptions) (*coordinator.Run, error) {
	if err := checkRunName(a.ID); err != nil {
		return nil, err
	}
	if err := a.Terms.Validate(); err != nil {
		return nil, err
	}
	rec, err := h.recordOf(filepath.Join(h.Runs(), a.ID), a, o)
	if err != nil {
		return nil, err
	}
	if a.Keep != nil {
		if err := a.Keep(rec.Dir()); err != nil {
			return nil, errors.Join(err, rec.Close(record.Interrupted, err))
		}
	}
	shown := newLiving(true)
	run, err := h.among(a, rec, func(s *coordinator.Spec) { s.Observer, s.Changed = o.Observer, shown.poke })
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.plans[a.ID] = &hosted{Run: run, among: sponsoredBy(a.Recipe)}
	h.page.follow(shown, h.plans[a.ID])
	return run, nil
}

// among starts a run among organisations on a record; more fills in what else there is to say of it.
func (h *Host) among(a Assistance, rec *record.Run, more func(*coordinator.Spec)) (*coordinator.Run, error) {
	if h.relays.Leaves() > 0 {
		err := errors.New("there are members behind relays, and relays carry sums, which answers of single organisations are not: let these organisations connect to the coordinator itself")
		return nil, errors.Join(err, rec.Close(record.Interrupted, err))
	}
	s := coordinator.Spec{ID: a.ID, Recipe: []byte(a.Terms.Text()), Assist: true, Members: a.Members, Algorithm: a.Algorithm,
		Server: federated.Server{Seed: a.Terms.Seed}, Config: a.Config, Metrics: assisted.Scalars(), Check: checkTable}
	more(&s)
	return h.Server.Start(s, rec)
}

// checkRunName returns an error unless the name can be that of a folder.
func checkRunName(id string) error {
	if id != filepath.Base(id) || id == "." || id == ".." {
		return fmt.Errorf("a run cannot be called %q", id)
	}
	return nil
}

// recordOf makes the folder of a run, or opens the one that was begun with the same recipe.
func (h *Host) recordOf(dir string, a Assistance, o RunOptions) (*record.Run, error) {
	ro := record.Options{FromLastGood: o.FromLastGood}
	meta := record.Meta{ID: a.ID, Method: a.Method, Seed: a.Terms.Seed, Cohort: h.o.Program, Command: o.Command}
	if _, err := os.Stat(filepath.Join(dir, record.MetaName)); err != nil {
		return record.Create(dir, meta, a.Recipe, ro)
	}
	begun, err := record.ReadRecipe(dir)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(begun, a.Recipe) {
		return nil, fmt.Errorf("run %s was begun with another recipe; --name gives this one another name", a.ID)
	}
	rec, err := record.Resume(dir, ro)
	if errors.Is(err, journal.ErrEmpty) || errors.Is(err, fs.ErrNotExist) { // killed at the very beginning
		return record.Create(dir, meta, a.Recipe, ro)
	}
	return rec, err
}

// checkTable takes what an organisation says of its table: there is nothing to agree on.
func checkTable(agreed json.RawMessage, c *transport.Consent) (json.RawMessage, error) {
	if c.Samples < 2 {
		return agreed, fmt.Errorf("a table of %d rows: need 2 or more", c.Samples)
	}
	return agreed, nil
}
