package recipe

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/dataset/table"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/secure/psi"
	"gonum.org/v1/gonum/mat"
)

// sponsorName is the folder, within that of a run over a network, with what the sponsor keeps: how its columns became labels.
const sponsorName = "sponsor"

// Keep keeps in the folder of a run over a network how the sponsor's table was read, so that answers can be read alike later. If it was
// kept before, the table must still be read so.
func (p *AssistPlan) Keep(dir string) error {
	kept, err := journal.OpenValues(nil, filepath.Join(dir, sponsorName))
	if err != nil {
		return err
	}
	return keepEncoding(kept, p.Table)
}

// Consulted is a run over a network that has ended, whose organisations can be asked about new rows: the models are with them, and what
// their answers are multiplied with is here.
type Consulted struct {
	Run      string // its name
	Recipe   *Assist
	Ensemble assisted.Ensemble
	dir      string
}

// Networked reports whether a run among organisations was one over a network.
func Networked(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, sponsorName))
	return err == nil && AmongOrganisations(dir)
}

// Consult opens the run in dir.
func Consult(dir string) (*Consulted, error) {
	r, err := AssistOfRun(dir)
	if err != nil {
		return nil, err
	}
	meta, err := record.ReadMeta(dir)
	if err != nil {
		return nil, err
	}
	if meta.State != record.Finished {
		return nil, fmt.Errorf("run %s is %s: organisations predict when it has ended", filepath.Base(dir), meta.State)
	}
	e, err := r.outcome(dir)
	if err == nil && e.Last() < 0 {
		err = errors.New("nothing was learned")
	}
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", filepath.Base(dir), err)
	}
	return &Consulted{filepath.Base(dir), r, e, dir}, nil
}

// Voices are the organisations that have a part in the outcome.
func (c *Consulted) Voices() (names []string) {
	for _, v := range c.Ensemble.Members {
		names = append(names, v.Name)
	}
	return names
}

// Rows reads the sponsor's new rows from a file with the columns of its table; the target may be missing.
func (c *Consulted) Rows(path string) (*table.Table, error) {
	kept, err := journal.OpenValues(nil, filepath.Join(c.dir, sponsorName))
	if err != nil {
		return nil, err
	}
	b, err := kept.Get(encodingName)
	if err != nil {
		return nil, err
	}
	e, err := table.ParseEncoding(b)
	if err != nil {
		return nil, err
	}
	s := c.Recipe.sheet()
	s.Path, s.Test = path, ""
	return openTable(s, e)
}

// Keys are the rows of a table as the parties know them; secret is what they share, for hashed keys.
func (c *Consulted) Keys(t *table.Table, secret []byte) ([]string, error) {
	if c.Recipe.Keys == assisted.HashedKeys {
		return psi.Hash(secret, c.Recipe.Study, t.Keys)
	}
	return t.Keys, nil
}

// Terms is what organisations are told of a session in which they are asked.
func (c *Consulted) Terms() assisted.Terms {
	r := c.Recipe
	t := assisted.Terms{Version: assisted.TermsVersion, Assist: assisted.Predicting, Of: c.Run, Seed: r.Seed, Rounds: 1, Outputs: len(c.Ensemble.Start),
		Keys: r.Keys, Study: r.Study}
	if s := c.Ensemble.Strata; s != nil {
		t.Strata = s.Count
	}
	return t
}

// Strata says in which strata the rows of a table are; nil if the run has none.
func (c *Consulted) Strata(t *table.Table) []int { return c.Ensemble.Strata.Of(t.Strata) }

// Algorithm asks about entities by their keys, and their strata if the run has any.
func (c *Consulted) Algorithm(keys []string, strata []int) federated.Algorithm {
	p := &assisted.Prediction{Ensemble: c.Ensemble, Keys: keys, Strata: strata}
	if c.Recipe.Keys == assisted.PrivateKeys {
		return &assisted.Matched{Algorithm: p, Keys: keys, Study: c.Recipe.Study}
	}
	return p
}

// Read says what F, a row for each of the table, predicts, and what it costs to have done without some organisations.
func (c *Consulted) Read(t *table.Table, f *mat.Dense, away Away) (*Asked, error) {
	if err := away.price(c.dir, c.Ensemble); err != nil {
		return nil, err
	}
	return c.Recipe.read(t, f, away)
}
