package learner

import (
	"bytes"
	"context"
	"testing"

	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"gonum.org/v1/gonum/mat"
)

// The bits of a fit do not depend on the engine's threads.
func TestNetworkThreads(t *testing.T) {
	r := rng.New(1, 0, "", "threads")
	x, y := mat.NewDense(150, 36, nil), mat.NewDense(150, 1, nil)
	for i := range 150 {
		for j := range 36 {
			x.Set(i, j, r.NormFloat64())
		}
		y.Set(i, 0, x.At(i, 3)*x.At(i, 20))
	}
	for _, s := range []Spec{
		{Name: "mlp", Epochs: 3, Hidden: []int{80, 70}, Batch: 150},
		{Name: "cnn", Shape: []int{6, 6, 1}, Hidden: []int{4, 8}, Batch: 64, Epochs: 2},
		{Name: "lstm", Shape: []int{6, 6}, Hidden: []int{20}, Batch: 64, Epochs: 2},
	} {
		var want []byte
		for _, threads := range []int{1, 5} {
			b, err := backend.New(backend.Default(), backend.Options{Threads: threads})
			if err != nil {
				t.Fatal(err)
			}
			e := train.NewEngine(b)
			defer e.Close()
			l, err := s.New()
			if err != nil {
				t.Fatal(err)
			}
			l = On(l, e)
			fitted, err := l.Fit(context.Background(), x, y, nil, rng.New(1, 0, "", "fit"))
			if err != nil {
				t.Fatal(err)
			}
			kept, err := fitted.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			m, err := DecodeBy(l, kept)
			if err != nil {
				t.Fatal(err)
			}
			before := e.Compiled()
			out, err := m.Predict(x)
			if err != nil {
				t.Fatal(err)
			}
			if before == 0 || e.Compiled() == before {
				t.Errorf("%s: fitted by %d programs of the engine that was given, predicts by %d", s.Name, before, e.Compiled()-before)
			}
			got, err := out.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			if want == nil {
				want = got
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s: %d threads give other bits", s.Name, threads)
			}
		}
	}
}

// A network sees all places alike: channels and features have one scale wherever they stand.
func TestStandardiseAlike(t *testing.T) {
	x := mat.NewDense(2, 4, []float64{1, 10, 3, 30, 5, 10, 7, 50}) // two places of two features
	s := standardiseAlike(x, []float64{1, 1}, 2)
	if s.center[0] != 4 || s.center[2] != 4 || s.center[1] != 25 || s.center[3] != 25 {
		t.Errorf("centers %v", s.center)
	}
	if s.scale[0] != s.scale[2] || s.scale[1] != s.scale[3] || s.scale[0]*s.scale[0]-5 > 1e-12 {
		t.Errorf("scales %v", s.scale)
	}
	if s.fill[0] != 3 || s.fill[3] != 40 {
		t.Errorf("missing values are filled with %v", s.fill)
	}
}
