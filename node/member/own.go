package member

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/weights"
)

// ReadJoined reads what a member has of a run in its folder, which is only read: the terms that it agreed to, the final model, and
// its own memory. Without a name it is the run that the folder knows, if there is one.
func ReadJoined(ctx context.Context, dir, name string) (*recipe.Joined, error) {
	f, err := OpenFolder(dir)
	if err != nil {
		return nil, err
	}
	l := &ledger{runs: map[string]*run{}, spent: map[string]int64{}}
	for rec, err := range journal.Read(journal.OS(), dir) {
		if err == nil {
			err = l.replay(rec)
		}
		if err != nil {
			return nil, fmt.Errorf("journal of the member: %w", err)
		}
	}
	r, err := l.pick(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	j := &recipe.Joined{Run: r.id, Member: f.Card.Name, Data: f.Card.Data}
	if j.Schema, err = dataset.ParseSchema(r.consent.Schema); err != nil {
		return nil, fmt.Errorf("run %s: %w", r.id, err)
	}
	if j.Recipe, err = f.recipeOf(ctx, r); err != nil {
		return nil, fmt.Errorf("run %s: %w", r.id, err)
	}
	path := ModelPath(dir, r.id)
	switch j.Model, _, err = weights.ReadFile(path); {
	case errors.Is(err, fs.ErrNotExist) && r.last == nil:
		return nil, fmt.Errorf("run %s is not over, and only then does the final model come", r.id)
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("run %s: %s is not there: the coordinator sends the final model to members whose %s has \"model: true\"; join again to fetch it", r.id, path, PolicyName)
	case err != nil:
		return nil, err
	}
	if r.memory != nil {
		kept, err := readMemory(journal.OS(), memoryPath(dir, r.id, r.order), *r.memory)
		if err != nil {
			return nil, fmt.Errorf("run %s: what the member kept is lost: %w", r.id, err)
		}
		j.Kept = &kept
	}
	return j, nil
}

// pick finds a run that was agreed to, by name, or the only one.
func (l *ledger) pick(name string) (*run, error) {
	var names []string
	for id, r := range l.runs {
		if r.agreed() {
			names = append(names, id)
		}
	}
	slices.Sort(names)
	switch {
	case len(names) == 0:
		return nil, errors.New("this member has not agreed to any run")
	case name == "" && len(names) == 1:
		return l.runs[names[0]], nil
	case name == "":
		return nil, fmt.Errorf("this member took part in several runs; name one of %s", strings.Join(names, ", "))
	case !slices.Contains(names, name):
		return nil, fmt.Errorf("this member has not agreed to a run %q; it has to %s", name, strings.Join(names, ", "))
	}
	return l.runs[name], nil
}

// recipeOf reads the recipe of a run's terms, whose signature is checked again.
func (f *Folder) recipeOf(ctx context.Context, r *run) (*recipe.Recipe, error) {
	e, err := transport.Open(f.Card.Federation, []byte(r.consent.Terms))
	if err != nil {
		return nil, fmt.Errorf("its terms in the journal of the member: %w", err)
	}
	var terms transport.Terms
	if err := e.Decode(&terms); err != nil {
		return nil, err
	}
	text := []byte(terms.Recipe)
	if terms.Ref > 0 {
		store, err := blob.OpenDir(filepath.Join(f.Dir, StoreName), journal.OS())
		if err != nil {
			return nil, err
		}
		if text, err = readRecipe(ctx, store, e.Refs[terms.Ref-1]); err != nil {
			return nil, fmt.Errorf("its recipe: %w", err)
		}
	}
	return recipe.Parse("recipe of run "+oneLine(r.id, 60), text)
}

// readRecipe reads a recipe that is too long to be in a message.
func readRecipe(ctx context.Context, store blob.Store, ref transport.Ref) ([]byte, error) {
	if ref.Bytes > maxRecipe {
		return nil, fmt.Errorf("a recipe of %d bytes", ref.Bytes)
	}
	b, err := blob.Open(ctx, store, blob.Hash(ref.Hash))
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return io.ReadAll(b)
}
