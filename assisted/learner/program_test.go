package learner_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// inside is a program that is a function: it gets the task in its folder.
type inside func(dir string, t learner.ProgramTask) error

func (p inside) Run(_ context.Context, fill func(string) error, read func(func(string, int64) (*os.File, int64, error)) error) error {
	dir, err := os.MkdirTemp("", "learner-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := fill(dir); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(dir, "task.json"))
	if err != nil {
		return err
	}
	var t learner.ProgramTask
	if err := json.Unmarshal(text, &t); err != nil {
		return err
	}
	if err := p(dir, t); err != nil {
		return err
	}
	return read(func(name string, limit int64) (*os.File, int64, error) {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return nil, 0, err
		}
		st, err := f.Stat()
		if err == nil && st.Size() > limit {
			err = fmt.Errorf("%s is too long", name)
		}
		return f, st.Size(), err
	})
}

// array is a file as numpy.save writes it.
func array(descr, order, shape string, elements ...any) []byte {
	head := fmt.Sprintf("{'descr': '%s', 'fortran_order': %s, 'shape': %s, }\n", descr, order, shape)
	var b bytes.Buffer
	b.WriteString("\x93NUMPY\x01\x00")
	_ = binary.Write(&b, binary.LittleEndian, uint16(len(head)))
	b.WriteString(head)
	for _, e := range elements {
		_ = binary.Write(&b, binary.LittleEndian, e)
	}
	return b.Bytes()
}

// A program that keeps its targets as the model and answers with them, doubled.
func double(dir string, t learner.ProgramTask) error {
	if t.Task == "fit" {
		b, err := os.ReadFile(filepath.Join(dir, t.Targets))
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, t.Model), b, 0o600)
	}
	b, err := os.ReadFile(filepath.Join(dir, t.Model))
	if err != nil {
		return err
	}
	at := len(b) - t.Rows*t.Outputs*8
	for ; at < len(b); at += 8 {
		v := math.Float64frombits(binary.LittleEndian.Uint64(b[at:]))
		binary.LittleEndian.PutUint64(b[at:], math.Float64bits(2*v))
	}
	return os.WriteFile(filepath.Join(dir, t.Predictions), b, 0o600)
}

func TestProgram(t *testing.T) {
	x := mat.NewDense(2, 3, []float64{1, math.NaN(), 3, 4, 5, 6})
	y := mat.NewDense(2, 2, []float64{1, -2, 3, -4})
	l := learner.WithProgram(inside(double))
	m, err := l.Fit(context.Background(), x, y, nil, rng.New(1, 0, "org", "fit"))
	if err != nil {
		t.Fatal(err)
	}
	var want mat.Dense
	want.Scale(2, y)
	if got := predict(t, m, x); !mat.Equal(got, &want) {
		t.Errorf("%v", got.RawMatrix().Data)
	}
	b, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	back, err := learner.DecodeBy(l, b)
	if err != nil {
		t.Fatal(err)
	}
	if got := predict(t, back, x); !mat.Equal(got, &want) {
		t.Errorf("decoded: %v", got.RawMatrix().Data)
	}
	orphan, err := learner.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := orphan.Predict(x); err == nil || !strings.Contains(err.Error(), "give the organisation the program") {
		t.Errorf("without its program: %v", err)
	}
}

// What a program is told.
func TestProgramTask(t *testing.T) {
	x, y := friedman(3, 1)
	var tasks []learner.ProgramTask
	var weights []byte
	l := learner.WithProgram(inside(func(dir string, task learner.ProgramTask) error {
		tasks = append(tasks, task)
		var err error
		if task.Weights != "" {
			weights, err = os.ReadFile(filepath.Join(dir, task.Weights))
		}
		return errors.Join(err, os.WriteFile(filepath.Join(dir, "model"), nil, 0o600))
	}))
	for _, w := range [][]float64{nil, {1, 2, 3}} {
		if _, err := l.Fit(context.Background(), x, y, w, rng.New(1, 0, "org", "fit")); err != nil {
			t.Fatal(err)
		}
	}
	seed := rng.New(1, 0, "org", "fit").Uint64() >> 11
	want := learner.ProgramTask{Version: 1, Task: "fit", Seed: seed, Rows: 3, Columns: 5, Outputs: 1, Features: "features.npy", Targets: "targets.npy", Model: "model"}
	if tasks[0] != want {
		t.Errorf("%+v, want %+v", tasks[0], want)
	}
	if want.Weights = "weights.npy"; tasks[1] != want {
		t.Errorf("%+v, want %+v", tasks[1], want)
	}
	if n := len(weights); n != 128+24 || !bytes.Contains(weights, []byte("'shape': (3,), }")) {
		t.Errorf("weights: %q", weights)
	}
}

func TestProgramPredictions(t *testing.T) {
	x, y := friedman(2, 1)
	for _, c := range []struct {
		answer []byte
		want   string // of the error; empty: predictions 1, 2
	}{
		{array("<f8", "False", "(2, 1)", 1.0, 2.0), ""},
		{array("<f8", "False", "(2,)", 1.0, 2.0), ""},
		{array("<f4", "True", "(2, 1)", float32(1), float32(2)), ""},
		{array("<f8", "False", "(1, 2)", 1.0, 2.0), "an array of shape (1, 2), expected (2, 1)"},
		{array("<f8", "False", "(2, 1)", 1.0), "too early"},
		{array("<f8", "False", "(2, 1)", 1.0, math.NaN()), "predictions: row 1, column 0"},
		{array("<i8", "False", "(2, 1)", int64(1), int64(2)), `type "<i8", expected float64`},
		{array("|O", "False", "(2, 1)"), `type "|O"`},
		{array("<f8", "Perhaps", "(2, 1)", 1.0, 2.0), "not understood"},
		{[]byte("1,2\n"), "not an array as numpy.save writes it"},
		{[]byte("\x93NUMPY\x09\x00"), "format 9"},
		{[]byte("\x93NUMPY\x02\x00\xff\xff\xff\xff{"), "too early"},
	} {
		l := learner.WithProgram(inside(func(dir string, task learner.ProgramTask) error {
			if task.Task == "fit" {
				return os.WriteFile(filepath.Join(dir, "model"), nil, 0o600)
			}
			return os.WriteFile(filepath.Join(dir, task.Predictions), c.answer, 0o600)
		}))
		m, err := l.Fit(context.Background(), x, y, nil, rng.New(1, 0, "org", "fit"))
		if err != nil {
			t.Fatal(err)
		}
		out, err := m.Predict(x)
		switch {
		case c.want == "" && (err != nil || out.At(0, 0) != 1 || out.At(1, 0) != 2):
			t.Errorf("%q: %v, %v", c.answer, out, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%q: %v, want …%s…", c.answer, err, c.want)
		}
	}
}

// An array of two outputs in either order.
func TestProgramOrder(t *testing.T) {
	x, _ := friedman(2, 1)
	y := mat.NewDense(2, 2, nil)
	for _, order := range []string{"False", "True"} {
		l := learner.WithProgram(inside(func(dir string, task learner.ProgramTask) error {
			return errors.Join(os.WriteFile(filepath.Join(dir, "model"), nil, 0o600),
				os.WriteFile(filepath.Join(dir, "predictions.npy"), array("<f8", order, "(2, 2)", 1.0, 2.0, 3.0, 4.0), 0o600))
		}))
		m, err := l.Fit(context.Background(), x, y, nil, rng.New(1, 0, "org", "fit"))
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]float64{"False": 2, "True": 3}[order]
		if got := predict(t, m, x).At(0, 1); got != want {
			t.Errorf("fortran_order %s: %v at row 0, column 1; want %v", order, got, want)
		}
	}
}
