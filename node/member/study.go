package member

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/dataset/table"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/methods"
	"github.com/cohort-learning/cohort/node/program"
	"github.com/cohort-learning/cohort/secure/psi"
	"github.com/cohort-learning/cohort/train"
)

// Study makes a member's part of runs out of its own files: [Options.Prepare]. Runs share one engine.
type Study struct {
	Data    string   // path of the data; see dataset.LoadMember
	Exec    []string // program and arguments that train instead of ours; nil: ours
	Limits  Limits   // of that program
	Samples int      // examples to declare where only that program can read the data
	Dir     string   // the member's folder
	Engine  string   // empty: the best of this binary
	Threads int      // 0: all
	// Table is how Data are read for runs of organisations with columns of their own, and Policy how much is answered.
	Table  Table
	Policy Policy
	// Federation is the key of the federation, which scopes of runs begin with.
	Federation string

	mu     sync.Mutex
	engine *train.Engine
	info   backend.Info
	kept   *journal.Values // what it keeps of runs of organisations; nil: not opened yet
}

// desk returns what the member keeps of runs of organisations, all of them: runs side by side count their answers in one place.
func (s *Study) desk() (*journal.Values, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept != nil {
		return s.kept, nil
	}
	var err error
	s.kept, err = journal.OpenValues(nil, filepath.Join(s.Dir, "desk"))
	return s.kept, err
}

// Open starts the engine and returns what it is.
func (s *Study) Open() (backend.Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engine != nil {
		return s.info, nil
	}
	b, err := backend.New(cmp.Or(s.Engine, backend.Default()), backend.Options{Threads: s.Threads})
	if err != nil {
		return s.info, err
	}
	s.engine, s.info = train.NewEngine(b), backend.Describe(b)
	return s.info, nil
}

// Close ends the engine.
func (s *Study) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engine != nil {
		s.engine.Close()
		s.engine = nil
	}
}

// Prepare implements [Options.Prepare]. What the recipe says of files at the coordinator is not looked at. Errors that name
// the path of the data are [*PrivateError].
func (s *Study) Prepare(ctx context.Context, p Proposal) (*Part, error) {
	part, err := s.prepare(ctx, p)
	if err != nil && s.Data != "" && strings.Contains(err.Error(), s.Data) {
		err = &PrivateError{err, strings.ReplaceAll(err.Error(), s.Data, "(the data)")}
	}
	return part, err
}

func (s *Study) prepare(ctx context.Context, p Proposal) (*Part, error) {
	if s.Data == "" {
		return nil, errors.New("which data? --data names them")
	}
	if p.Assist != nil {
		return s.assist(p)
	}
	if _, err := s.Open(); err != nil {
		return nil, err
	}
	r := p.Recipe
	var agreed *dataset.Schema
	if len(p.Terms.Schema) > 0 && string(p.Terms.Schema) != "null" {
		schema, err := dataset.ParseSchema(p.Terms.Schema)
		if err != nil {
			return nil, err
		}
		agreed = &schema
	}
	split, err := dataset.LoadMember(ctx, s.Data, r.MemberData(), agreed)
	switch {
	case err == nil && agreed == nil:
		schema := dataset.SchemaOf(split.Train)
		agreed = &schema
	case err != nil && s.Exec != nil && agreed != nil: // only the program can read them
		if s.Samples < 1 {
			return nil, fmt.Errorf("%w\nIf only your program can read these data, say with --examples how many there are", err)
		}
		split = nil
	case err != nil:
		return nil, err
	}
	plan, err := r.PlanMember(*agreed, split, nil)
	if err != nil {
		return nil, err
	}
	a, err := plan.Algorithm()
	if err != nil {
		return nil, err
	}
	part := &Part{Algorithm: a, Client: a.Client(), Data: plan.String(), Model: r.Model.Name, Samples: cmp.Or(plan.Samples(), s.Samples)}
	if s.Exec != nil {
		own, err := program.New(plan, s.program())
		if err != nil {
			return nil, err
		}
		if part.Client, err = plan.Around(own); err != nil {
			return nil, err
		}
	}
	part.Local = plan.Local(s.engine, federated.Member{Samples: part.Samples})
	if part.Schema, err = json.Marshal(plan.Schema); err != nil {
		return nil, err
	}
	return part, nil
}

// program is how the member's own program is run.
func (s *Study) program() program.Options {
	return program.Options{Command: s.Exec, Data: s.Data, Log: filepath.Join(s.Dir, "program.log"),
		Env: s.Limits.Env, User: s.Limits.User, Time: s.Limits.Time, Memory: s.Limits.Memory, Disk: s.Limits.Disk}
}

// assist makes a member's part of a run of organisations with columns of their own. Nothing of its table is declared but how many
// rows it has. How its columns become features is kept with the models, so that rows to predict for become features alike.
func (s *Study) assist(p Proposal) (*Part, error) {
	own := s.Table
	if own.Key == "" && !own.ByBlocks() {
		return nil, errors.New("the run is one of organisations with columns of their own: say with --key which column of the table names its rows")
	}
	own.Path = s.Data
	store, err := s.desk()
	if err != nil {
		return nil, err
	}
	scope := s.Federation + "/" + cmp.Or(p.Assist.Of, p.Run)
	t, err := encoded(own.Spec, store, scope+"/encoding", p.Assist.Of != "")
	if err != nil {
		return nil, err
	}
	l, name, err := s.learner()
	if err != nil {
		return nil, err
	}
	aligner, err := methods.NewAligner(own.Align)
	if err != nil {
		return nil, fmt.Errorf("--align: %w", err)
	}
	keys, blocks := t.Keys, t.Blocks
	if own.Key == "" { // the number of a row is no key of the sponsor's
		for i, k := range keys {
			keys[i] = "unlinked row " + k
		}
	}
	if p.Assist.Keys == assisted.HashedKeys {
		secret, err := os.ReadFile(own.Secret)
		if err != nil {
			return nil, fmt.Errorf("keys are hashed with a secret that the parties share (--key-secret): %w", err)
		}
		secret = bytes.TrimSpace(secret)
		if keys, err = psi.Hash(secret, p.Assist.Study, keys); err != nil {
			return nil, err
		}
		if blocks != nil {
			if blocks, err = psi.Hash(secret, p.Assist.Study, blocks); err != nil {
				return nil, err
			}
		}
	}
	c := &assisted.Clerk{Mode: p.Assist.Keys, Study: p.Assist.Study, Strata: p.Assist.Strata, Answers: s.Policy.Answers,
		Now: time.Now,
		Desk: &assisted.Desk{Keys: keys, Features: t.Features, Learner: l, Store: store, Limit: s.Policy.Vectors, Sketch: s.Policy.Mixtures, Blur: s.Policy.Blur,
			Aligner: aligner, Blocks: blocks, Compared: t.Compared}}
	if p.Assist.Assist == assisted.Sharing {
		name = "its part of a shared network"
	}
	if p.Assist.Of != "" {
		c.Of = scope
	}
	if c.Table, c.Digest, err = tableVersion(store, s.Data); err != nil {
		return nil, err
	}
	listen := func(tell func(string)) {
		c.Told = func(g assisted.Given, all int) {
			most := ""
			if s.Policy.Answers > 0 {
				most = fmt.Sprintf(" of at most %d", s.Policy.Answers)
			}
			tell(fmt.Sprintf("predictions for %d rows, from version %d of the table (sha256 %.12s…); %d rows%s so far", g.Rows, g.Table, g.Digest, all, most))
		}
	}
	return &Part{Client: c, Data: t.String(), Model: name, Samples: len(keys), Gaps: true, Local: federated.Local{Seed: p.Assist.Seed}, Listen: listen}, nil
}

// tableVersion returns the version of the table in a file, and its digest. Versions are numbered from 1 in the order in which they were seen; a
// table that comes back has its number again.
func tableVersion(store assisted.Store, path string) (int, string, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return 0, "", err
	}
	digest := hex.EncodeToString(h.Sum(nil))
	const name = "tables"
	var all []string
	switch b, err := store.Get(name); {
	case err == nil:
		if err := json.Unmarshal(b, &all); err != nil {
			return 0, "", fmt.Errorf("versions of the table: %w", err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return 0, "", err
	}
	if i := slices.Index(all, digest); i >= 0 {
		return i + 1, digest, nil
	}
	b, err := json.Marshal(append(all, digest))
	if err == nil {
		err = store.Put(name, b)
	}
	return len(all) + 1, digest, err
}

// encoded reads a table with the encoding that is kept, or finds it out and keeps it.
func encoded(spec table.Spec, store assisted.Store, name string, must bool) (*table.Table, error) {
	kept, err := store.Get(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && must:
		return nil, errors.New("this member has no models of that run")
	case errors.Is(err, fs.ErrNotExist):
		t, err := table.Open(spec, nil)
		if err != nil {
			return nil, err
		}
		b, err := json.Marshal(t.Encoding)
		if err == nil {
			err = store.Put(name, b)
		}
		return t, err
	case err != nil:
		return nil, err
	}
	e, err := table.ParseEncoding(kept)
	if err != nil {
		return nil, err
	}
	return table.Open(spec, e)
}

// learner returns the member's own kind of model: a program that it brings along, or one of ours.
func (s *Study) learner() (learner.Learner, string, error) {
	if s.Exec == nil {
		spec := s.Table.Learner
		spec.Name = cmp.Or(spec.Name, "ridge")
		l, err := spec.New()
		if err == nil {
			_, err = s.Open()
		}
		return learner.On(l, s.engine), spec.Name, err
	}
	r, err := program.NewRunner(s.program())
	if err != nil {
		return nil, "", err
	}
	return learner.WithProgram(r), "a program of its own", nil
}
