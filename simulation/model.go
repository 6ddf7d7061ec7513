package simulation

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

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
	if _, err := os.Stat(dir); err != nil {
		return Trained{}, err
	}
	c := record.Checkpoints{FS: journal.OS(), Dir: filepath.Join(dir, "checkpoints")}
	cp, ok, _, err := c.Named(which)
	if err == nil && !ok {
		cp, ok, _, err = c.Latest()
	}
	if err != nil {
		return Trained{}, err
	}
	if !ok {
		return Trained{}, fmt.Errorf("%s holds no checkpoint yet", dir)
	}
	var t Trained
	err = c.Load(&cp, func(r io.Reader) error {
		s, _, err := readSnapshot(r)
		if err != nil {
			return err
		}
		w, ok := s.State.Sets["w"]
		if !ok {
			return fmt.Errorf("the run's method has no global model")
		}
		t = Trained{Round: s.State.Round, Weights: w, Stats: s.State.Sets["stats"]}
		return nil
	})
	if err != nil {
		return Trained{}, fmt.Errorf("%s: %w", cp.Path, err)
	}
	return t, nil
}

// Export returns the model as one set with the names of PyTorch: weights, and the running statistics of static batch norm
// beside the weights of their layer.
func (t Trained) Export() weights.Set {
	out := t.Weights.Filter(func(string) bool { return true })
	out.Merge(t.Stats.Convert(weights.Float32))
	return out
}
