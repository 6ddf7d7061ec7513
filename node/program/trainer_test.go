package program_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/node/program"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/gomlx/core/graph"
)

// TestMain makes the test binary a program that trains, or misbehaves, when it is called so:
//
//	program.test trainer MODE [FOLDER]
//	program.test learner MODE
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "learner" {
		if err := ownLearner(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	if len(os.Args) > 2 && os.Args[1] == "trainer" {
		if err := trainer(os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func readTask() (t program.Task, w weights.Set, err error) {
	text, err := os.ReadFile(os.Getenv("COHORT_TASK"))
	if err == nil {
		err = json.Unmarshal(text, &t)
	}
	if err == nil {
		w, _, err = weights.ReadFile(t.Weights)
	}
	return t, w, err
}

func writeResult(t program.Task, w weights.Set, o program.Outcome) error {
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(t.Result, text, 0o600), weights.WriteFile(t.Update, w, nil))
}

// trainer is the program.
func trainer(mode string, args []string) error {
	t, w, err := readTask()
	if err != nil {
		return err
	}
	ok := program.Outcome{Examples: 3, Loss: 1.5}
	first := w.Names()[0]
	switch mode {
	case "faithful":
		return faithful(t, w, args[0])
	case "copy":
		return writeResult(t, w, ok)
	case "labels":
		ok.Labels = []int32{2, 0, 2}
		return writeResult(t, w, ok)
	case "strange labels":
		ok.Labels = []int32{99}
		return writeResult(t, w, ok)
	case "boasts":
		ok.Examples = 1000
		return writeResult(t, w, ok)
	case "abstain":
		return os.WriteFile(t.Result, []byte(`{"examples": 0}`), 0o600)
	case "silent":
		return nil
	case "no update":
		return os.WriteFile(t.Result, []byte(`{"examples": 1}`), 0o600)
	case "words":
		return os.WriteFile(t.Result, []byte(`{"examples": "many"}`), 0o600)
	case "not a number":
		return os.WriteFile(t.Result, []byte(`{"examples": 3, "loss": NaN}`), 0o600)
	case "diverged":
		w.Must(first).SetAt(0, math.NaN())
		return writeResult(t, w, ok)
	case "other shape":
		w.Put(first, weights.NewTensor(weights.Float32, 1, 1))
		return writeResult(t, w, ok)
	case "other type":
		return writeResult(t, w.Convert(weights.Float64), ok)
	case "one less":
		return writeResult(t, w.Filter(func(n string) bool { return n != first }), ok)
	case "one more":
		w.Put("extra", weights.NewTensor(weights.Float32, 1))
		return writeResult(t, w, ok)
	case "no tensors":
		return errors.Join(writeResult(t, w, ok), os.WriteFile(t.Update, []byte("PK\x03\x04"), 0o600))
	case "huge":
		return errors.Join(writeResult(t, w, ok), os.Truncate(t.Update, 1<<30))
	case "symbolic link", "hard link":
		link := os.Symlink
		if mode == "hard link" {
			link = os.Link
		}
		return errors.Join(writeResult(t, w, ok), os.Rename(t.Update, "elsewhere"), link("elsewhere", t.Update))
	case "folder":
		return errors.Join(writeResult(t, w, ok), os.Remove(t.Update), os.Mkdir(t.Update, 0o700))
	case "talks":
		fmt.Println("first line")
		fmt.Println(strings.Repeat("x", 3<<20))
		return errors.New("the GPU is on fire")
	case "sleep":
		return sleep(args[0])
	case "leaves a child":
		return errors.Join(writeResult(t, w, ok), child(args[0]))
	case "fills the disk":
		return os.WriteFile("big", make([]byte, 1<<20), 0o600)
	case "fills memory":
		hold := make([][]byte, 0, 64)
		for range 64 {
			b := make([]byte, 64<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			hold = append(hold, b)
		}
		return fmt.Errorf("got %d", len(hold))
	case "looks around":
		return look(t, w, args[0])
	}
	return fmt.Errorf("no such mode %q", mode)
}

// faithful trains as our own client does, from what the task says.
func faithful(t program.Task, w weights.Set, dir string) error {
	ctx := context.Background()
	r, err := recipe.Load(filepath.Join(dir, "recipe.yaml"))
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(dir, "schema.json"))
	if err != nil {
		return err
	}
	agreed, err := dataset.ParseSchema(text)
	if err != nil {
		return err
	}
	mine, err := r.LoadMember(ctx, t.Data, agreed)
	if err != nil {
		return err
	}
	plan, err := r.PlanMember(agreed, mine, nil)
	if err != nil {
		return err
	}
	e, _, err := r.Engine()
	if err != nil {
		return err
	}
	defer e.Close()
	at := plan.Local(e, federated.Member{Name: t.Member})
	model, err := plan.Problem.Build(t.Model.Rate)
	if err != nil {
		return err
	}
	spec := &train.Spec{Model: model, Clip: t.Clip, Scale: t.Model.Scale,
		Mask:      map[string]train.Mask{"none": train.NoMask, "zero": train.ZeroMask, "exclude": train.InfMask}[t.Mask],
		Optimizer: train.SGD{Momentum: t.Optimizer.Momentum, Nesterov: t.Optimizer.Nesterov, Decay: t.Optimizer.Decay}}
	var o train.Options
	if t.Proximal > 0 {
		spec.Extras, spec.Scalars = []string{"received"}, []string{"mu"}
		spec.Adjust = func(a *train.Adjust) {
			for _, n := range a.Names {
				a.Grads[n] = graph.Add(a.Grads[n], graph.Mul(graph.Sub(a.Params[n], a.Extras["received"][n]), a.Scalars["mu"]))
			}
		}
		o = train.Options{Extras: map[string]weights.Set{"received": w}, Scalars: map[string]float64{"mu": t.Proximal}}
	}
	if spec.Mask != train.NoMask {
		o.LabelMask = make([]float32, len(t.Classes))
		for _, l := range t.Labels {
			o.LabelMask[l] = 1
		}
	}
	s, err := e.Begin(spec, w, o)
	if err != nil {
		return err
	}
	defer s.Close()
	fit := plan.Problem.Fit(at, t.Round)
	fit.Epochs, fit.Steps, fit.Batch, fit.Rate = t.Epochs, t.Steps, t.Batch, train.Constant(t.Rate)
	report, err := s.Fit(ctx, fit)
	if err != nil {
		return err
	}
	trained, err := s.Params()
	if err != nil {
		return err
	}
	return writeResult(t, trained, program.Outcome{Examples: uint64(at.Train.Len()), Loss: report.Loss, Seen: uint64(report.Examples), Steps: uint64(report.Steps)})
}

// sleep touches a file and waits to be killed.
func sleep(file string) error {
	err := os.WriteFile(file, nil, 0o600)
	time.Sleep(time.Hour)
	return err
}

// child starts a process that would live on, and writes its number.
func child(file string) error {
	c := exec.Command("/bin/sleep", "3600")
	c.Stdout = os.Stdout // so that it holds the pipe, too
	if err := c.Start(); err != nil {
		return err
	}
	return os.WriteFile(file, fmt.Append(nil, c.Process.Pid), 0o600)
}

// look writes what the program sees of the world.
func look(t program.Task, w weights.Set, file string) error {
	seen := map[string]any{"environment": os.Environ(), "arguments": os.Args[1:]}
	wd, err := os.Getwd()
	if err != nil {
		return err
	}
	seen["folder"] = wd
	if open, err := os.ReadDir("/proc/self/fd"); err == nil {
		var files []string
		for _, d := range open {
			if to, err := os.Readlink("/proc/self/fd/" + d.Name()); err == nil {
				files = append(files, to)
			}
		}
		seen["open"] = files
	}
	var inside []string
	_ = filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		inside = append(inside, path)
		return nil
	})
	seen["inside"] = inside
	text, err := json.Marshal(seen)
	return errors.Join(err, os.WriteFile(file, text, 0o600), writeResult(t, w, program.Outcome{Examples: 1, Labels: []int32{0}}))
}
