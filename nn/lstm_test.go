package nn

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/weights"
)

// recurrent is an lstm with gaps: step 1 of the second sequence and the last two of the third are not there, and single numbers are
// missing. With a vocabulary some codes are none.
func recurrent(t *testing.T, c Config) job {
	m := build(t, "lstm", c, 1)
	jb := jobFor(m, weights.Float64, 5, 4)
	steps, features := c.Input[0], c.Input[1]
	at := func(i, s, f int) int { return (i*steps+s)*features + f }
	for f := range features {
		for _, s := range [][2]int{{1, 1}, {2, steps - 1}, {2, steps - 2}} {
			jb.x.SetAt(at(s[0], s[1], f), math.NaN())
		}
	}
	if features > 1 {
		jb.x.SetAt(at(0, 0, 0), math.NaN())
	}
	if c.Vocabulary > 0 {
		for i := range 4 {
			for s := range steps {
				if j := at(i, s, features-1); !math.IsNaN(jb.x.At(j)) {
					jb.x.SetAt(j, float64((i+2*s)%(c.Vocabulary+2)-1)) // −1 and vocabulary are no codes
				}
			}
		}
	}
	if c.EachStep {
		jb.cotan = random(weights.Float64, rng.New(3, 0, "", "cotangent"), 4, steps, c.Classes)
	}
	return jb
}

// byHand runs the formulas of the doc comment, one sequence after the other.
func byHand(jb job, c Config, train bool) []float64 {
	steps, features, h := c.Input[0], c.Input[1], c.Hidden[0]
	p := func(name string, i int) float64 { return jb.params.Must(name).At(i) }
	sigmoid := func(v float64) float64 { return 1 / (1 + math.Exp(-v)) }
	var out []float64
	for i := range 4 {
		state, cell := make([]float64, h), make([]float64, h)
		answer := func(s int) {
			for k := range c.Classes {
				sum := p("linear.bias", k)
				for j, v := range state {
					if train && c.EachStep {
						v *= jb.noise.Must("state").At((i*steps+s)*h + j)
					} else if train {
						v *= jb.noise.Must("state").At(i*h + j)
					}
					sum += v * p("linear.weight", k*h+j)
				}
				out = append(out, sum)
			}
		}
		for s := range steps {
			var in []float64
			there := false
			for f := range features {
				v := jb.x.At((i*steps+s)*features + f)
				there = there || !math.IsNaN(v)
				if f == features-1 && c.Vocabulary > 0 {
					row := c.Vocabulary
					if v >= 0 && v < float64(c.Vocabulary) {
						row = int(v)
					}
					for j := range c.Embedding {
						in = append(in, p("embedding.weight", row*c.Embedding+j))
					}
					continue
				}
				if math.IsNaN(v) {
					v = 0
				}
				in = append(in, v)
			}
			if there {
				z := make([]float64, 4*h)
				for g := range z {
					z[g] = p("lstm.bias_ih_l0", g) + p("lstm.bias_hh_l0", g)
					for j, v := range in {
						z[g] += v * p("lstm.weight_ih_l0", g*len(in)+j)
					}
					for j, v := range state {
						z[g] += v * p("lstm.weight_hh_l0", g*h+j)
					}
				}
				for j := range h {
					cell[j] = sigmoid(z[h+j])*cell[j] + sigmoid(z[j])*math.Tanh(z[2*h+j])
					state[j] = sigmoid(z[3*h+j]) * math.Tanh(cell[j])
				}
			}
			if c.EachStep {
				answer(s)
			}
		}
		if !c.EachStep {
			answer(0)
		}
	}
	return out
}

func TestLSTM(t *testing.T) {
	for _, c := range []Config{
		{Input: []int{5, 3}, Classes: 2, Hidden: []int{4}},
		{Input: []int{5, 3}, Classes: 2, Hidden: []int{4}, EachStep: true},
		{Input: []int{5, 3}, Classes: 2, Hidden: []int{4}, Vocabulary: 3, Embedding: 2},
		{Input: []int{4, 1}, Classes: 1, Hidden: []int{3}, Vocabulary: 3, Embedding: 2, EachStep: true, Dropout: new(0.)},
	} {
		t.Run(fmt.Sprintf("codes %d, each step %t", c.Vocabulary, c.EachStep), func(t *testing.T) {
			jb := recurrent(t, c)
			if n := len(jb.model.Noise); n > 1 || n == 0 && c.Dropout == nil {
				t.Fatalf("%d dropout masks", n)
			}
			for _, train := range []bool{false, true} {
				if jb.train = train; train && c.Dropout != nil {
					continue // there is none
				}
				forward := jb
				forward.cotan = weights.Tensor{}
				got := forward.run().y
				for i, want := range byHand(jb, c, train) {
					if math.Abs(got.At(i)-want) > 1e-12 {
						t.Fatalf("output %d in training %t is %v, by hand %v", i, train, got.At(i), want)
					}
				}
			}
			// Central differences of the input would leave codes.
			jb.train = true
			got := jb.run().grads
			forward := jb
			forward.cotan = weights.Tensor{}
			pass := forward.compile()
			loss := func() (sum float64) {
				y := pass.run().y
				for i := range y.Len() {
					sum += y.At(i) * jb.cotan.At(i)
				}
				return sum
			}
			for name, g := range got.All() {
				if name == "x" {
					continue
				}
				values := jb.params.Must(name)
				for i := range min(g.Len(), 16) {
					v := values.At(i)
					values.SetAt(i, v+1e-5)
					up := loss()
					values.SetAt(i, v-1e-5)
					down := loss()
					values.SetAt(i, v)
					if want := (up - down) / 2e-5; math.Abs(g.At(i)-want) > 1e-7*math.Max(1, math.Abs(want)) {
						t.Errorf("gradient of %s[%d] is %v, central difference %v", name, i, g.At(i), want)
					}
				}
			}
		})
	}
	for want, c := range map[string]Config{
		"[steps, features]": {Input: []int{5}, Classes: 2},
		"one width":         {Input: []int{5, 2}, Classes: 2, Hidden: []int{4, 4}},
		"vocabulary":        {Input: []int{5, 2}, Classes: 2, Embedding: 4},
	} {
		if _, err := New("lstm", c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want one with %q", c, err, want)
		}
	}
}

// GAL's network computes what HeteroFL's with batch norm does and starts otherwise: γ from N(1, 0.02²), all biases as PyTorch's.
func TestGALCNN(t *testing.T) {
	c := Config{Input: []int{6, 5, 2}, Classes: 3, Widths: []int{40, 60}}
	m := build(t, "galcnn", c, 1)
	c.Norm = BatchNorm
	jb, same := jobFor(m, weights.Float64, 1, 3), jobFor(build(t, "cnn", c, 1), weights.Float64, 1, 3)
	same.params = jb.params
	if got, want := jb.run().y, same.run().y; worst(got, want) != 0 {
		t.Error("galcnn computes something else than cnn with batch norm")
	}
	s := m.Initial(weights.Float64, rng.New(1, 0, "", "init"))
	gamma, mean, square := s.Must("norm2.weight"), 0., 0.
	for i := range gamma.Len() {
		mean += gamma.At(i) / 60
		square += (gamma.At(i) - 1) * (gamma.At(i) - 1) / 60
	}
	if sd := math.Sqrt(square); math.Abs(mean-1) > 0.01 || sd < 0.015 || sd > 0.025 {
		t.Errorf("γ starts with mean %v and deviation %v, want 1 and 0.02", mean, sd)
	}
	if maxAbs(s.Must("linear.bias")) == 0 || maxAbs(s.Must("norm2.bias")) != 0 {
		t.Error("the last bias must start at random, β at 0")
	}
}
