package nn

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/cohort-learning/cohort/weights"
)

// golden is one file of testdata.
type golden struct {
	weights.Set
	model *Model
	scale float64
}

func readGolden(t *testing.T, path string) golden {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	set, meta, err := weights.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	var c Config
	if err := yaml.Unmarshal([]byte(meta["config"]), &c); err != nil {
		t.Fatal(err)
	}
	rate, err1 := strconv.ParseFloat(meta["rate"], 64)
	scale, err2 := strconv.ParseFloat(meta["scale"], 64)
	if err1 != nil || err2 != nil || !strings.HasPrefix(meta["torch"], "2.") {
		t.Fatalf("metadata %v", meta)
	}
	return golden{set, build(t, meta["model"], c, rate), scale}
}

// part returns the tensors whose names start with prefix, without it.
func (g golden) part(prefix string, d weights.DType) weights.Set {
	var s weights.Set
	for name, v := range g.All() {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			s.Put(rest, v)
		}
	}
	return s.Convert(d)
}

func (g golden) tensor(name string, d weights.DType) weights.Tensor {
	var s weights.Set
	s.Put("", g.Must(name))
	return s.Convert(d).Must("")
}

// TestPyTorch compares outputs, gradients, statistics and running values with PyTorch's, in float32 and, much closer, in
// float64.
func TestPyTorch(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.safetensors")
	if err != nil || len(paths) < 14 {
		t.Fatalf("%d reference files (%v)", len(paths), err)
	}
	for _, path := range paths {
		for _, p := range []struct {
			d             weights.DType
			values, grads float64
		}{{weights.Float64, 1e-12, 1e-11}, {weights.Float32, 1e-5, 1e-4}} {
			t.Run(strings.TrimSuffix(filepath.Base(path), ".safetensors")+"-"+p.d.String(), func(t *testing.T) {
				checkGolden(t, readGolden(t, path), p.d, p.values, p.grads)
			})
		}
	}
}

func checkGolden(t *testing.T, g golden, d weights.DType, tolValue, tolGrad float64) {
	near := func(what string, got, want weights.Tensor, tol float64) {
		t.Helper()
		if e := worst(got, want); !(e <= tol) {
			t.Errorf("%s differs by %.2g of its largest value, tolerance %g", what, e, tol)
		}
	}
	params := g.part("param.", d)
	if err := params.Match(g.model.Zeros(d)); err != nil {
		t.Fatalf("the parameters of PyTorch's module: %v", err)
	}

	training := job{model: g.model, params: params, x: g.tensor("x", d), train: true, scale: g.scale,
		noise: g.part("noise.", d), cotan: g.tensor("cotangent", d)}
	o := training.run()
	near("training output", o.y, g.Must("y.train"), tolValue)
	wantGrads := g.part("grad.", weights.Float64)
	if wantGrads.Len() != o.grads.Len() {
		t.Errorf("%d gradients, want %d", o.grads.Len(), wantGrads.Len())
	}
	for name, got := range o.grads.All() {
		// A bias before a norm has no gradient: what is left is rounding error of terms of size 1.
		want := wantGrads.Must(name)
		if maxAbs(want) < 1e-12 {
			if maxAbs(got) > 100*tolValue {
				t.Errorf("gradient of %s is %g, want 0", name, maxAbs(got))
			}
			continue
		}
		near("gradient of "+name, got, want, tolGrad)
	}

	updated := g.part("updated.", weights.Float64)
	for name, got := range o.updated.All() {
		near("new "+name, got, updated.Must(name), tolValue)
	}
	if updated.Len() != o.updated.Len() {
		t.Errorf("%d running values, want %d", o.updated.Len(), updated.Len())
	}

	eval := job{model: g.model, params: params, x: training.x}
	eval.params.Merge(o.updated)
	if len(g.model.Norms) > 0 {
		// Cumulative averages over the two batches, each in a pass with batch statistics.
		second := eval
		second.x = g.tensor("x2", d)
		a, b := eval.run().batch, second.run().batch
		for _, n := range g.model.Norms {
			for kind, name := range map[string]string{".mean": n.Name + ".running_mean", ".var": n.Name + ".running_var"} {
				v := a.Must(n.Name + kind).Clone()
				for i := range v.Len() {
					v.SetAt(i, (v.At(i)+b.Must(n.Name+kind).At(i))/2)
				}
				near(name, v, g.Must("stats."+name), tolValue)
				eval.stats.Put(name, v)
			}
		}
	}
	near("evaluation output", eval.run().y, g.Must("y.eval"), tolValue)
}

func maxAbs(t weights.Tensor) float64 {
	return worst(t, weights.NewTensor(weights.Float64, t.Shape...))
}
