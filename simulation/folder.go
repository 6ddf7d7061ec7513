package simulation

import (
	"encoding/json"
	"io"

	"github.com/cohort-learning/cohort/federated"
)

// WriteSnapshot writes a snapshot as one safetensors file, as the checkpoints of runs are.
func WriteSnapshot(w io.Writer, s federated.Snapshot) error { return writeSnapshot(w, s, nil) }

// ReadSnapshot reads what WriteSnapshot wrote. States come back in the form in which their digests are taken.
func ReadSnapshot(r io.Reader) (federated.Snapshot, error) {
	s, _, err := readSnapshot(r)
	return s, err
}

// PhaseRecord returns the body of the record [KindPhaseClosed], with the phase's metrics, traffic and failures as records of
// runs take them.
func PhaseRecord(p federated.PhaseClosed) json.Marshaler { return newPhaseRecord(p) }
