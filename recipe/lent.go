package recipe

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/record/report"
	"github.com/cohort-learning/cohort/simulation/worker"
)

// Lent says what a worker must know of the plan's run to make the same clients.
func (p *Plan) Lent() worker.Run {
	return worker.Run{Seed: p.Recipe.Seed, Recipe: p.Recipe.YAML(), Like: p.Split.Train, Start: p.Problem.Start}
}

// LentClients makes the clients of a run on a machine that is lent to it. The files that the recipe names lie with the
// simulation and are not read.
func LentClients(run worker.Run) (federated.Client, error) {
	r, err := Parse("the simulation's recipe", run.Recipe)
	if err != nil {
		return nil, err
	}
	if _, err := r.method(); err != nil {
		return nil, err
	}
	r.Seed, r.Model.From = run.Seed, ""
	p, err := r.problem(run.Like)
	if err != nil {
		return nil, r.place(err)
	}
	p.Start = run.Start
	a, err := r.algorithm(p)
	if err != nil {
		return nil, r.place(err)
	}
	return a.Client(), nil
}

// WorkersName is the file of a run that says which workers took part. Nothing in the run depends on it.
const WorkersName = "workers.json"

// workersFile is its content.
type workersFile struct {
	Schema  int            `json:"schema"` // 1
	Workers []worker.Tally `json:"workers"`
}

// Workers reads which workers took part in the run in dir, in the order of their coming.
func Workers(dir string) ([]worker.Tally, error) {
	path := filepath.Join(dir, WorkersName)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var f workersFile
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if f.Schema != 1 {
		return nil, fmt.Errorf("%s: schema %d, this program knows 1", path, f.Schema)
	}
	return f.Workers, nil
}

// AddWorkers adds those to what the file of the run in dir says of earlier parts of the run. Workers of one name are one.
func AddWorkers(dir string, more []worker.Tally) error {
	if len(more) == 0 {
		return nil
	}
	all, err := Workers(dir)
	if err != nil {
		return err
	}
	at := map[string]int{}
	for i, w := range all {
		at[w.Name] = i
	}
	for _, w := range more {
		i, known := at[w.Name]
		if !known {
			at[w.Name] = len(all)
			all = append(all, w)
			continue
		}
		was := &all[i]
		was.Threads = w.Threads
		was.Clients += w.Clients
		was.Given += w.Given
		was.Sent += w.Sent
		was.Received += w.Received
	}
	return journal.WriteFile(journal.OS(), filepath.Join(dir, WorkersName), func(out io.Writer) error {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(workersFile{1, all})
	})
}

// addWorkers tells a report of the workers.
func addWorkers(out *report.Run, dir string) error {
	all, err := Workers(dir)
	for _, w := range all {
		out.Workers = append(out.Workers, report.Worker{Name: w.Name, Threads: w.Threads, Clients: w.Clients, Given: w.Given,
			Sent: w.Sent, Received: w.Received})
	}
	return err
}
