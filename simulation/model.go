package simulation

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/weights"
)

// Trained is the global model that a run has come to.
type Trained struct {
	Round   int         // rounds that it has been trained for
	Weights weights.Set // the set "w" of the state
	Stats   weights.Set // evaluation statistics of static batch norm, if the run collected any
}

// Model reads the global model of the run in dir: that of the checkpoint named which ("final" or "best"), or if there is
// none with that name, of the newest checkpoint.
func Model(dir, which string) (Trained, error) {
	s, err := load(dir, which)
	if err != nil {
		return Trained{}, err
	}
	w := s.Sets["w"]
	if w.Len() == 0 {
		return Trained{}, fmt.Errorf("the method of the run in %s has no global model", dir)
	}
	return Trained{Round: s.Round, Weights: w, Stats: s.Sets["stats"]}, nil
}

// Personal reads the newest state of the run in dir, and what one of its clients kept then; nil if nothing.
func Personal(dir string, client int) (federated.State, *weights.Set, error) {
	s, keeps, err := loadAll(dir, "")
	if err != nil {
		return s, nil, err
	}
	round, ok := keeps[client]
	if !ok {
		return s, nil, nil
	}
	m := NewRecall()
	if err := m.load(journal.OS(), filepath.Join(dir, keepsName), map[int]int{client: round}); err != nil {
		return s, nil, err
	}
	kept, err := m.Load(client)
	return s, kept, err
}

// Last reads the newest state of the run in dir.
func Last(dir string) (federated.State, error) { return load(dir, "") }

// load reads the state in the checkpoint of that name, or if there is none, in the newest checkpoint.
func load(dir, which string) (federated.State, error) {
	s, _, err := loadAll(dir, which)
	return s, err
}

// loadAll is load, and returns the rounds whose files hold what clients kept. With no name it is that of the newest round, which
// alone has such files.
func loadAll(dir, which string) (federated.State, map[int]int, error) {
	if _, err := os.Stat(dir); err != nil {
		return federated.State{}, nil, err
	}
	c := record.Checkpoints{FS: journal.OS(), Dir: filepath.Join(dir, "checkpoints")}
	cp, ok, _, err := c.Named(which)
	if err == nil && !ok && which != "" {
		cp, ok, _, err = c.Latest()
	}
	if err != nil {
		return federated.State{}, nil, err
	}
	if !ok {
		return federated.State{}, nil, fmt.Errorf("%s holds no checkpoint yet", dir)
	}
	var s federated.State
	var keeps map[int]int
	err = c.Load(&cp, func(r io.Reader) error {
		snap, kept, err := readSnapshot(r)
		s, keeps = snap.State, kept
		return err
	})
	if err != nil {
		return s, nil, fmt.Errorf("%s: %w", cp.Path, err)
	}
	return s, keeps, nil
}

// Export returns the model as one set with the names of PyTorch: weights, and the running statistics of static batch norm
// beside the weights of their layer.
func (t Trained) Export() weights.Set {
	out := t.Weights.Filter(func(string) bool { return true })
	out.Merge(t.Stats.Convert(weights.Float32))
	return out
}
