// Package simulation runs a federation on one machine: virtual clients on a worker pool under a virtual clock, with the
// same driver, algorithm and client code as everywhere else.
//
//   - [Fleet]: the clients. One costs the rows of its data and, if the method keeps any, its state.
//   - [Pool]: carries tasks to them, in virtual time.
//   - [Job]: a run: algorithm, fleet, pace and conditions. [Job.Run] runs it in memory; with a folder it can be killed at any
//     instant, resumed to the same bits, and verified.
package simulation

import (
	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/train"
)

// Fleet is a population of virtual clients: a data set and how it is dealt, or clients with data of their own.
type Fleet struct {
	Split  *dataset.Split // the server's data; nil: it has none
	Dealt  *dataset.Dealt // who has which rows of Split
	Own    []Holder       // if there are any, the clients, in place of Dealt
	Engine *train.Engine
	Seed   uint64

	vaults federated.Vaults
}

// Holder is a client with data of its own, such as a member of a network whose data lie here to verify its run.
type Holder struct {
	Name        string
	Train, Test dataset.View // Test may be empty
}

// scope names a simulation to its members, who have only the one.
const scope = "simulation"

// Len implements [federated.Population].
func (f *Fleet) Len() int {
	if f.Own != nil {
		return len(f.Own)
	}
	return f.Dealt.Train.Clients()
}

// Member implements [federated.Population].
func (f *Fleet) Member(i int) federated.Member {
	if f.Own != nil {
		return federated.Member{Index: i, Name: f.Own[i].Name, Samples: f.Own[i].Train.Len()}
	}
	return federated.Member{Index: i, Name: f.Dealt.Train.Name(i), Samples: f.Dealt.Train.Size(i)}
}

// Local returns what a client sees.
func (f *Fleet) Local(m federated.Member) federated.Local {
	l := federated.Local{Member: m, Engine: f.Engine, Seed: f.Seed, Scope: scope, Vault: f.vaults.Of(m.Index), Peers: federated.Acquainted(m.Name)}
	if f.Own != nil {
		l.Train, l.Test = f.Own[m.Index].Train, f.Own[m.Index].Test
		return l
	}
	l.Train, l.Skew = f.Dealt.Train.View(f.Split.Train, m.Index), f.Dealt.Train.Skew(m.Index)
	if f.Dealt.Test != nil {
		l.Test = f.Dealt.Test.View(f.Split.Test, m.Index)
	}
	return l
}

// Server returns the coordinator's side. In a simulation it may see all data, which only methods that say so use: test data
// to evaluate the global model, pooled training data for centralised learning and pooled statistics; of training data only its own,
// if some were set apart for it.
func (f *Fleet) Server() federated.Server {
	s := federated.Server{Engine: f.Engine, Seed: f.Seed, Scope: scope, Population: f, Secret: passing()}
	if f.Split == nil {
		return s
	}
	s.Train = f.Split.Train.All()
	if f.Dealt != nil && f.Dealt.Server != nil {
		s.Train.Rows = f.Dealt.Server
	}
	if f.Split.Test != nil {
		s.Test = f.Split.Test.All()
	}
	return s
}
