package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/dataset"
	"github.com/spf13/cobra"
)

func newDoctor(io streams, _ <-chan struct{}) *cobra.Command {
	var o engineOptions
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this machine and installation can do",
		Long: `Say what this program finds: engines and their kernels, processors, memory, the folder of runs, and which data sets are
there. Every data set that is found is read in full.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			d := examine(cmd.Context(), &o)
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			if asJSON {
				if err := io.json(d); err != nil {
					return err
				}
			} else {
				d.print(io)
			}
			if d.Trouble != "" {
				return errors.New(d.Trouble)
			}
			return nil
		},
	}
	o.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return c
}

// diagnosis is what doctor found.
type diagnosis struct {
	Schema  int            `json:"schema"`
	Version string         `json:"version"`
	Go      string         `json:"go"`
	System  string         `json:"system"`
	CPUs    int            `json:"cpus"`
	Memory  int64          `json:"memory"`    // bytes of the machine; 0 if unknown
	Free    int64          `json:"available"` // that could be used now
	Limit   int64          `json:"memory_limit,omitempty"`
	Engine  string         `json:"engine"` // that is used by default
	Engines []engineResult `json:"engines"`
	Runs    string         `json:"runs"`
	Write   bool           `json:"runs_writable"`
	Data    string         `json:"data"`
	Sets    []setResult    `json:"datasets"`
	Trouble string         `json:"trouble,omitempty"`
}

type engineResult struct {
	backend.Info
	OK  bool   `json:"ok"`
	Why string `json:"why,omitempty"`
}

type setResult struct {
	Name  string `json:"name"`
	State string `json:"state"` // "ok", "missing", "damaged" or "built in"
	Train int    `json:"train,omitempty"`
	Test  int    `json:"test,omitempty"`
	Why   string `json:"why,omitempty"`
}

func examine(ctx context.Context, o *engineOptions) *diagnosis {
	d := &diagnosis{Schema: schema, Version: version(), Go: strings.TrimPrefix(runtime.Version(), "go"), System: runtime.GOOS + "/" + runtime.GOARCH,
		CPUs: runtime.NumCPU(), Engine: backend.Default(), Runs: runsRoot(), Data: o.dataDir()}
	d.Memory, d.Free = memory()
	if limit := debug.SetMemoryLimit(-1); limit < 1<<62 {
		d.Limit = limit
	}
	for _, name := range backend.Names() {
		e := engineResult{Info: backend.Info{Engine: name}}
		b, err := backend.New(name, backend.Options{Threads: o.threads})
		if err != nil {
			e.Why = err.Error()
		} else {
			e.Info, e.OK = backend.Describe(b), true
			b.Finalize()
		}
		if name == d.Engine && !e.OK {
			d.Trouble = "the default engine does not work: " + e.Why
		}
		d.Engines = append(d.Engines, e)
	}
	if err := writable(d.Runs); err != nil {
		d.Trouble = fmt.Sprintf("the folder of runs cannot be written: %v; choose another with $COHORT_RUNS", err)
	} else {
		d.Write = true
	}
	for _, info := range dataset.Catalogue() {
		if slices.Contains([]string{"idx", "csv", "images", "text", "export"}, info.Name) {
			continue
		}
		d.Sets = append(d.Sets, findSet(ctx, info.Name, d.Data))
	}
	return d
}

// findSet reads a data set and says what it found.
func findSet(ctx context.Context, name, root string) setResult {
	s := setResult{Name: name}
	if dataset.Drawn(name) {
		s.State = "built in"
		return s
	}
	split, err := dataset.Load(ctx, dataset.Spec{Name: name, Root: root})
	switch {
	case root == "" || errors.Is(err, fs.ErrNotExist):
		s.State = "missing"
	case err != nil:
		s.State, s.Why = "damaged", err.Error()
	default:
		s.State, s.Train = "ok", split.Train.Len()
		if split.Test != nil {
			s.Test = split.Test.Len()
		}
	}
	return s
}

// writable tries to write into a folder, or into the nearest one above it that exists.
func writable(dir string) error {
	for {
		st, err := os.Stat(dir)
		if err == nil && !st.IsDir() {
			return fmt.Errorf("%s is a file", dir)
		}
		if err == nil {
			break
		}
		parent := filepath.Dir(dir)
		if !errors.Is(err, fs.ErrNotExist) || parent == dir {
			return err
		}
		dir = parent
	}
	f, err := os.CreateTemp(dir, ".cohort-doctor-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// memory returns the bytes of the machine's memory and those that are available, where the system tells.
func memory() (total, available int64) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kib, err := strconv.ParseInt(f[1], 10, 64)
		switch {
		case err != nil:
		case f[0] == "MemTotal:":
			total = kib << 10
		case f[0] == "MemAvailable:":
			available = kib << 10
		}
	}
	return total, available
}

func (d *diagnosis) print(io streams) {
	t := newTable("", "", "")
	t.add("program", "cohort "+d.Version, "Go "+d.Go+", "+d.System)
	t.add("processors", strconv.Itoa(d.CPUs), "")
	if d.Memory > 0 {
		t.add("memory", inBytes(float64(d.Memory)), inBytes(float64(d.Free))+" available")
	}
	if d.Limit > 0 {
		t.add("limit", inBytes(float64(d.Limit)), "GOMEMLIMIT")
	}
	for _, e := range d.Engines {
		remark := e.Why
		if e.Engine == d.Engine {
			remark = strings.TrimSpace("default " + remark)
		}
		t.add("engine", e.Info.String(), remark)
	}
	state := "writable"
	if !d.Write {
		state = "NOT WRITABLE"
	}
	t.add("runs", d.Runs, state)
	if d.Data == "" {
		t.add("data", "–", "set $COHORT_DATA or --data to the folder of real data sets")
	} else {
		t.add("data", d.Data, "")
	}
	t.body(io.out)
	io.say("")
	sets := newTable("data set", "", ">training", ">test", "")
	for _, s := range d.Sets {
		train, test := "–", "–"
		if s.Train > 0 {
			train, test = count(s.Train), count(s.Test)
		}
		sets.add(s.Name, s.State, train, test, s.Why)
	}
	sets.write(io.out)
}
