package learner

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// Program runs a program of the organisation's own, once a call: in a fresh private folder that fill puts files into, and
// from which read then takes what the program has written. Open opens an ordinary file of the folder of at most limit
// bytes, and returns its size. It is safe for concurrent use.
type Program interface {
	Run(ctx context.Context, fill func(dir string) error, read func(open func(name string, limit int64) (*os.File, int64, error)) error) error
}

// The contract with a program stands in docs/bring-your-own-learner.md.
const (
	programVersion  = 1
	taskFile        = "task.json"
	featuresFile    = "features.npy"
	targetsFile     = "targets.npy"
	weightsFile     = "weights.npy"
	modelFile       = "model"
	predictionsFile = "predictions.npy"
	// mostModel bounds a program's model, which is kept as it is.
	mostModel = 1 << 30
)

// ProgramTask is the content of task.json.
type ProgramTask struct {
	Version int    `json:"version"`
	Task    string `json:"task"` // "fit" or "predict"
	Seed    uint64 `json:"seed"` // of every random choice of a fit, below 2⁵³
	Rows    int    `json:"rows"`
	Columns int    `json:"columns"` // of features
	Outputs int    `json:"outputs"` // columns of targets and predictions
	// Names of files in the folder; empty for what is not there or not wanted.
	Features    string `json:"features"`
	Targets     string `json:"targets,omitempty"`
	Weights     string `json:"weights,omitempty"`
	Model       string `json:"model"`
	Predictions string `json:"predictions,omitempty"`
}

// WithProgram returns a learner that fits and predicts with a program of the organisation's own; missing values reach it as
// NaN. Its models hold what the program has written, and can only be read back by [DecodeBy] with such a learner.
func WithProgram(p Program) Learner { return program{p} }

type program struct{ p Program }

func (l program) Fit(ctx context.Context, x, y *mat.Dense, w []float64, r *rng.Stream) (Model, error) {
	n, d, k, weights, err := checkFit(x, y, w)
	if err != nil {
		return nil, err
	}
	if d == 0 {
		return &Linear{Bias: columnMeans(y, weights)}, nil
	}
	t := ProgramTask{Version: programVersion, Task: "fit", Seed: r.Uint64() >> 11, Rows: n, Columns: d, Outputs: k,
		Features: featuresFile, Targets: targetsFile, Model: modelFile}
	if w != nil {
		t.Weights = weightsFile
	}
	m := &programModel{p: l.p, columns: d, outputs: k}
	fill := func(dir string) error {
		err := t.write(dir, x)
		if err == nil {
			err = writeArray(filepath.Join(dir, targetsFile), y)
		}
		if err == nil && w != nil {
			err = writeArray(filepath.Join(dir, weightsFile), mat.NewVecDense(n, weights))
		}
		return err
	}
	return m, l.p.Run(ctx, fill, func(open func(string, int64) (*os.File, int64, error)) error {
		f, _, err := open(modelFile, mostModel)
		if err != nil {
			return err
		}
		defer f.Close()
		m.bytes, err = io.ReadAll(io.LimitReader(f, mostModel))
		return err
	})
}

// write puts task.json and the features into the folder.
func (t ProgramTask) write(dir string, x *mat.Dense) error {
	text, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, taskFile), append(text, '\n'), 0o600); err != nil {
		return err
	}
	return writeArray(filepath.Join(dir, featuresFile), x)
}

// programModel is what a program has written, as it is.
type programModel struct {
	p                Program
	columns, outputs int
	bytes            []byte
}

// Predict implements [Model]: it runs the program, for as long as its own limits allow.
func (m *programModel) Predict(x *mat.Dense) (*mat.Dense, error) {
	if err := checkPredict(x, m.columns); err != nil {
		return nil, err
	}
	n, _ := x.Dims()
	if n == 0 {
		return new(mat.Dense), nil
	}
	t := ProgramTask{Version: programVersion, Task: "predict", Rows: n, Columns: m.columns, Outputs: m.outputs,
		Features: featuresFile, Model: modelFile, Predictions: predictionsFile}
	fill := func(dir string) error {
		return cmp.Or(t.write(dir, x), os.WriteFile(filepath.Join(dir, modelFile), m.bytes, 0o600))
	}
	var out *mat.Dense
	err := m.p.Run(context.Background(), fill, func(open func(string, int64) (*os.File, int64, error)) error {
		f, size, err := open(predictionsFile, int64(n)*int64(m.outputs)*8+maxArrayHead)
		if err != nil {
			return err
		}
		defer f.Close()
		if out, err = readArray(f, size, n, m.outputs); err == nil {
			out, err = finite(out)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", predictionsFile, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// MarshalBinary implements [Model].
func (m *programModel) MarshalBinary() ([]byte, error) {
	w := newWriter("program")
	w.int(m.columns)
	w.int(m.outputs)
	w.text(string(m.bytes))
	return w.b, nil
}

func readProgramModel(r *reader) Model {
	m := &programModel{p: noProgram{}, columns: r.int(), outputs: r.int(), bytes: []byte(r.text())}
	r.check(m.columns > 0 && m.outputs > 0, "%d features, %d outputs", m.columns, m.outputs)
	return m
}

// noProgram stands for a program that is not known.
type noProgram struct{}

func (noProgram) Run(context.Context, func(string) error, func(func(string, int64) (*os.File, int64, error)) error) error {
	return errors.New("this model is that of a program, which has to predict with it: give the organisation the program that it was fitted with")
}

// DecodeBy reads a model that l has fitted, as [Decode] does; a model of a program comes back with the program of l, and a network
// computes where those of l do.
func DecodeBy(l Learner, b []byte) (Model, error) {
	m, err := Decode(b)
	if err != nil {
		return nil, err
	}
	adopt(l, m)
	return m, nil
}

// adopt gives a model what of the learner its binary form does not hold.
func adopt(l Learner, m Model) {
	switch own := m.(type) {
	case *votes:
		adopt(l, own.scores)
	case *strata:
		for _, one := range own.models {
			adopt(l, one)
		}
	case *programModel:
		if l, ok := l.(program); ok {
			own.p = l.p
		}
	case *network:
		if l, ok := l.(networks); ok {
			own.engine = l.engine
		}
	}
}
