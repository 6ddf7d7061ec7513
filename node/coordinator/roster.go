package coordinator

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/transport"
)

// Attendance is who took part in a run, as its journal tells: what is needed to compute the run again.
type Attendance struct {
	Names  []string           // in the order in which the run counts members; none for a simulation
	Resets []simulation.Reset // members that had lost what they kept
}

// ReadAttendance reads it from the journal in the folder of a run.
func ReadAttendance(dir string) (a Attendance, err error) {
	index := map[string]int{}
	for rec, err := range record.Read(journal.OS(), dir, KindAdmitted, KindReceived, KindPartial) {
		if err != nil {
			return a, err
		}
		if rec.Kind == KindAdmitted {
			var m admitted
			if err := rec.Decode(&m); err != nil {
				return a, err
			}
			if m.Index != len(a.Names) {
				return a, fmt.Errorf("journal record %d: member %s is number %d, not %d", rec.Seq, m.Name, len(a.Names), m.Index)
			}
			index[m.Name] = m.Index
			a.Names = append(a.Names, m.Name)
			continue
		}
		if rec.Kind == KindPartial {
			var c combined
			if err := rec.Decode(&c); err != nil {
				return a, err
			}
			for _, l := range c.Leaves {
				if l.Memory == memoryLost {
					a.Resets = append(a.Resets, simulation.Reset{Round: c.Round, Phase: c.Phase, Member: index[l.Member]})
				}
			}
			continue
		}
		var r received
		if err := rec.Decode(&r); err != nil {
			return a, err
		}
		if r.Memory == memoryLost {
			a.Resets = append(a.Resets, simulation.Reset{Round: r.Round, Phase: r.Phase, Member: index[r.Member]})
		}
	}
	return a, nil
}

// memoryLost is what a result says that was computed without the memory that its member should have had.
const memoryLost = "lost"

// ReadSchema returns the schema of the data that the members of the run in dir agreed on.
func ReadSchema(dir string) (s dataset.Schema, err error) {
	msg, err := os.ReadFile(filepath.Join(dir, termsName))
	if err != nil {
		return s, err
	}
	e, err := transport.Peek(msg)
	var t transport.Terms
	if err == nil {
		err = e.Decode(&t)
	}
	if err != nil {
		return s, fmt.Errorf("%s: %w", filepath.Join(dir, termsName), err)
	}
	return dataset.ParseSchema(t.Schema)
}
