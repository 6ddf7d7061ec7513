package recipe

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/methods"
	"github.com/cohort-learning/cohort/nn"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files anew")

// same reports the difference between two recipes; an empty list is as good as none.
func same(a, b *Recipe) string {
	functions := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().Type().Kind() == reflect.Func }, cmp.Ignore())
	return cmp.Diff(a, b, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(Recipe{}, "origin"), functions,
		cmp.Exporter(func(reflect.Type) bool { return true }))
}

// TestEveryFieldIsDocumented walks through all that a recipe can say, the options of every method included.
func TestEveryFieldIsDocumented(t *testing.T) {
	known := map[string]bool{}
	var walk func(v reflect.Value, path string)
	walk = func(v reflect.Value, path string) {
		for _, f := range yamlFields(v.Type()) {
			full := join(path, f.name)
			known[full] = true
			if doc := docOf(f, full); doc == "" || !strings.HasSuffix(doc, ".") {
				t.Errorf("%s: the field needs a sentence in its doc tag or in docs, got %q", full, doc)
			}
			if x := f.of(v); x.Kind() == reflect.Struct {
				walk(x, full)
			}
		}
	}
	for _, m := range methods.All() {
		r, err := Default(m.Name)
		if err != nil {
			t.Fatal(err)
		}
		walk(reflect.ValueOf(r).Elem(), "")
	}
	for path := range docs {
		if !known[path] {
			t.Errorf("docs tells of %s, which is no field", path)
		}
	}
}

func TestDefaultsAreReadBack(t *testing.T) {
	for _, m := range methods.All() {
		r, err := Default(m.Name)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Validate(); err != nil {
			t.Errorf("%s: the default is refused: %v", m.Name, err)
		}
		for _, text := range [][]byte{r.YAML(), r.Commented()} {
			back, err := Parse(m.Name, text)
			if err != nil {
				t.Errorf("%v\n%s", err, text)
				continue
			}
			if d := same(r, back); d != "" {
				t.Errorf("%s is read back otherwise:\n%s", m.Name, d)
			}
		}
	}
}

// TestCommentedFieldsWork takes the comment sign off every field that a commented recipe leaves out: that changes nothing,
// since they are shown at their zero values.
func TestCommentedFieldsWork(t *testing.T) {
	field := regexp.MustCompile(`(?m)^( *)# (\w+:)`)
	for _, m := range methods.All() {
		r, err := Default(m.Name)
		if err != nil {
			t.Fatal(err)
		}
		text := field.ReplaceAll(r.Commented(), []byte("$1$2"))
		back, err := Parse(m.Name, text)
		if err != nil {
			t.Errorf("%v\n%s", err, text)
			continue
		}
		if d := same(r, back); d != "" {
			t.Errorf("%s is read back otherwise:\n%s", m.Name, d)
		}
	}
}

// drawRecipe returns a random valid recipe.
func drawRecipe(t *rapid.T) *Recipe {
	r, err := Default(rapid.SampledFrom(methods.Names()).Draw(t, "method"))
	if err != nil {
		t.Fatal(err)
	}
	word := rapid.StringMatching(`[a-zA-Z0-9 :#'"{}\[\],&*!|>%@~\\/é-]{0,12}`)
	r.Name = word.Draw(t, "name")
	r.Seed = rapid.Uint64().Draw(t, "seed")
	r.Rounds = rapid.IntRange(1, 1000).Draw(t, "rounds")
	switch rapid.IntRange(0, 3).Draw(t, "data") {
	case 0:
		r.Data = dataset.Spec{Name: "mnist", Train: rapid.IntRange(0, 100).Draw(t, "train")}
	case 1:
		r.Data = dataset.Spec{Name: "csv", Path: "p" + word.Draw(t, "path"), Target: word.Draw(t, "target"), Drop: rapid.SliceOfN(word, 0, 3).Draw(t, "drop"),
			TestFraction: rapid.Float64Range(-1, 0.9).Draw(t, "fraction")}
	case 2:
		r.Data = dataset.Spec{Name: "glyphs", Size: rapid.SampledFrom([]int{0, 8, 16}).Draw(t, "size"), Seed: rapid.Uint64().Draw(t, "data seed")}
	}
	switch rapid.IntRange(0, 3).Draw(t, "partition") {
	case 0:
		r.Partition = dataset.Scheme{Name: "natural", Clients: rapid.IntRange(0, 10).Draw(t, "clients")}
	case 1:
		r.Partition = dataset.Scheme{Name: "dirichlet", Clients: rapid.IntRange(1, 10).Draw(t, "clients"), Alpha: rapid.Float64Range(0.01, 100).Draw(t, "alpha"),
			Balance: rapid.Bool().Draw(t, "balance")}
	case 2:
		r.Partition = dataset.Scheme{Name: "classes", Clients: 7, PerClient: rapid.IntRange(1, 5).Draw(t, "per client")}
	}
	switch rapid.IntRange(0, 3).Draw(t, "model") {
	case 0:
		r.Model = Model{Name: "mlp", Config: nn.Config{Hidden: rapid.SliceOfN(rapid.IntRange(1, 9), 0, 3).Draw(t, "hidden"), Activation: "tanh"}}
	case 1:
		drop := rapid.Float64Range(0, 0.9).Draw(t, "dropout")
		r.Model = Model{Name: "transformer", Config: nn.Config{Heads: 2, Dropout: &drop}, From: word.Draw(t, "from")}
	case 2:
		r.Model.Widths = nil // of the default's name, but with none of its widths
	}
	if rapid.Bool().Draw(t, "by steps") {
		r.Train.Epochs, r.Train.Steps = 0, rapid.IntRange(1, 99).Draw(t, "steps")
	}
	r.Train.Batch = rapid.IntRange(0, 99).Draw(t, "batch")
	r.Train.Clip = rapid.SampledFrom([]float64{0, 1, 0.5}).Draw(t, "clip")
	r.Train.Optimizer.Rate = rapid.Float64Range(1e-12, 1e12).Draw(t, "rate")
	r.Train.Optimizer.Momentum = rapid.SampledFrom([]float64{0, 0.5}).Draw(t, "momentum")
	if rapid.Bool().Draw(t, "multistep") {
		r.Train.Schedule = Schedule{Kind: "multistep", At: []int{1, 5}, Factor: 0.1}
	}
	r.Round.Deadline = time.Duration(rapid.Int64Range(0, 1e15).Draw(t, "deadline"))
	r.Clients.Latency = time.Duration(rapid.Int64Range(0, 1e15).Draw(t, "latency"))
	if rapid.Bool().Draw(t, "robust") {
		r.Robust = rapid.SampledFrom([]Robust{{Rule: "median", Weighted: true, Bucket: 2}, {Rule: "multi-krum", Liars: 3, Keep: 5, Spool: 1 << 40},
			{Rule: "centred", Norm: 0.5, Iterations: 2}, {Rule: "trimmed", Trim: 0.3}}).Draw(t, "rule")
		r.Clients.Liars, r.Clients.Attack, r.Clients.Strength = 0.25, "alie", 1.5
	}
	if rapid.Bool().Draw(t, "secure") {
		r.Robust, r.Secure = Robust{}, rapid.SampledFrom([]Secure{{Sums: "masked"}, {Sums: "plain", Bits: 32, Levels: 1 << 16, MaxWeight: 9},
			{Sums: "masked", Sparse: true, Corrupt: 0.2, Curious: true, Holders: 3}}).Draw(t, "sums")
	}
	if rapid.Bool().Draw(t, "private") {
		r.Robust, r.Privacy = Robust{}, rapid.SampledFrom([]Privacy{{Noise: 1, Clip: 0.5}, {Epsilon: 3, Delta: 1e-6, Quantile: 0.5}}).Draw(t, "privacy")
	}
	r.Evaluate.Clients = rapid.Bool().Draw(t, "evaluate")
	r.Run.Checkpoint = rapid.IntRange(1, 9).Draw(t, "checkpoint")
	return r
}

func TestParseInvertsYAML(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawRecipe(t)
		if err := r.Validate(); err != nil {
			t.Skip(err)
		}
		for _, text := range [][]byte{r.YAML(), r.Commented()} {
			back, err := Parse("drawn", text)
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			if d := same(r, back); d != "" {
				t.Fatalf("read back otherwise (-want +got):\n%s\n%s", d, text)
			}
		}
	})
}

// TestSetIsAsWritten compares a change with the same field written into the file.
func TestSetIsAsWritten(t *testing.T) {
	for _, c := range []struct{ file, set, want string }{
		{"method: fedavg", "train.batch=20", "method: fedavg\ntrain: {batch: 20}"},
		{"method: fedavg\ntrain: {steps: 5}", "train.steps=7", "method: fedavg\ntrain: {steps: 7}"},
		{"method: fedavg", "train.steps=7", "method: fedavg\ntrain: {steps: 7}"},
		{"method: fedavg", "model.widths=[1, 2]", "method: fedavg\nmodel: {name: cnn, widths: [1, 2]}"},
		{"method: fedavg\nmodel: {name: cnn, widths: [3]}", "model.name=mlp", "method: fedavg\nmodel: {name: mlp}"},
		{"method: fedavg\nmodel: {name: cnn, widths: [3]}", "model.name=cnn", "method: fedavg\nmodel: {name: cnn, widths: [3]}"},
		{"method: fedavg\npartition: {name: iid, clients: 7}", "partition.name=shards", "method: fedavg\npartition: {name: shards, clients: 7}"},
		{"method: fedavg", "partition.name=natural", "method: fedavg\npartition: {name: natural}"},
		{"method: heterofl\noptions: {mode: a1-e1}", "method=fedavg", "method: fedavg"},
		{"method: heterofl\noptions: {mode: a1-e1}", "method=heterofl", "method: heterofl\noptions: {mode: a1-e1}"},
		{"method: heterofl", "options.mode=a1-e4", "method: heterofl\noptions: {mode: a1-e4}"},
		{"method: fedavg", "round.deadline=90s", "method: fedavg\nround: {deadline: 1m30s}"},
		{"method: fedavg\nmodel: {name: cnn, norm: gn}", "model.norm=", "method: fedavg\nmodel: {name: cnn}"},
		{"method: fedavg", "name=a: b # c", "method: fedavg\nname: 'a: b # c'"},
	} {
		got, err := Parse("file", []byte(c.file), c.set)
		if strings.HasPrefix(c.set, "name=") {
			if err == nil {
				t.Errorf("%s: a value that is no single word was taken", c.set)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.set, err)
			continue
		}
		want, err := Parse("want", []byte(c.want))
		if err != nil {
			t.Fatal(err)
		}
		if d := same(want, got); d != "" {
			t.Errorf("%s --set %s (-want +got):\n%s", c.file, c.set, d)
		}
	}
}

// TestWrongRecipes compares the errors of wrong recipes with testdata/wrong.txt: blocks of a recipe, "----", and what is
// told. Run with -update to write it anew, and read the difference.
func TestWrongRecipes(t *testing.T) {
	path := filepath.Join("testdata", "wrong.txt")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	blocks := strings.Split(strings.TrimRight(string(text), "\n"), "\n\n")
	for i, block := range blocks {
		source, want, ok := strings.Cut(block, "\n----\n")
		if !ok {
			t.Fatalf("block %d has no line \"----\"", i+1)
		}
		var set []string
		lines := strings.Split(source, "\n")
		lines = slices.DeleteFunc(lines, func(l string) bool {
			change, is := strings.CutPrefix(l, "--set ")
			if is {
				set = append(set, change)
			}
			return is
		})
		_, err := Parse("r.yaml", []byte(strings.Join(lines, "\n")+"\n"), set...)
		var e *Error
		if err != nil && !errors.As(err, &e) {
			t.Errorf("%s: an error of type %T", source, err)
		}
		got := fmt.Sprint(err)
		if !*update && got != want {
			t.Errorf("%s\n got %s\nwant %s", source, got, want)
		}
		fmt.Fprintf(&out, "%s\n----\n%s\n\n", source, got)
	}
	if *update {
		if err := os.WriteFile(path, []byte(strings.TrimRight(out.String(), "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLoadRefusesOtherThanFiles(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "is a folder") {
		t.Errorf("a folder: %v", err)
	}
	if _, err := Load(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
	big := filepath.Join(dir, "big.yaml")
	if err := os.WriteFile(big, make([]byte, maxSize+1), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(big); err == nil || !strings.Contains(err.Error(), "a recipe has at most") {
		t.Errorf("a megabyte: %v", err)
	}
}

// TestLoadResolvesPaths: paths in a file begin at its folder, those of changes at the working directory.
func TestLoadResolvesPaths(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "r.yaml")
	text := "method: fedavg\ndata: {name: csv, path: t.csv, test_path: /abs/u.csv}\nmodel: {name: mlp, from: w.safetensors}\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(abs, "t.csv"); r.Data.Path != want {
		t.Errorf("path %s, want %s", r.Data.Path, want)
	}
	if want := filepath.Join(abs, "w.safetensors"); r.Model.From != want {
		t.Errorf("from %s, want %s", r.Model.From, want)
	}
	if r.Data.TestPath != "/abs/u.csv" {
		t.Errorf("an absolute path became %s", r.Data.TestPath)
	}
	if r, err = Load(file, "data.path=here.csv"); err != nil || r.Data.Path != "here.csv" {
		t.Errorf("changed: %s, %v", r.Data.Path, err)
	}
}

func TestNearest(t *testing.T) {
	known := []string{"heterofl", "fedavg", "fedprox", "scaffold", "batch", "seed"}
	for word, want := range map[string]string{
		"heterolf": "heterofl", "fedavgg": "fedavg", "fedav": "fedavg", "FEDAVG": "", "prox": "", "scaf": "scaffold", "bacth": "batch",
		"sed": "seed", "x": "", "": "", "zzzz": "",
	} {
		if got := Nearest(word, known); got != want {
			t.Errorf("nearest to %q is %q, want %q", word, got, want)
		}
	}
}

// FuzzParse: whatever the text, reading returns a recipe that is written and read back to itself, or an error with a place.
func FuzzParse(f *testing.F) {
	for _, m := range methods.All() {
		r, err := Default(m.Name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(r.YAML())
	}
	wrong, err := os.ReadFile(filepath.Join("testdata", "wrong.txt"))
	if err != nil {
		f.Fatal(err)
	}
	for block := range strings.SplitSeq(string(wrong), "\n\n") {
		source, _, _ := strings.Cut(block, "\n----\n")
		f.Add([]byte(source))
	}
	f.Add([]byte("method: fedavg\ndata: &d {name: glyphs}\nmodel: *d\n"))
	f.Add([]byte("method: fedavg\nx: &x [*x]\n<<: {a: b}\n? {a: b}\n: c\n"))
	f.Add([]byte("method: fedavg\ntrain: {optimizer: {rate: .inf}, clip: .nan}\nround: {deadline: -1s}\nseed: 0x10\n"))
	f.Add([]byte("method: !!str fedavg\nname: |\n  a\n  b\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Parse("fuzz", text)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Message == "" {
				t.Fatalf("an error of type %T: %v", err, err)
			}
			return
		}
		out := r.YAML()
		back, err := Parse("again", out)
		if err != nil {
			t.Fatalf("what was written is refused: %v\n%s", err, out)
		}
		if d := same(r, back); d != "" {
			t.Fatalf("read back otherwise:\n%s\n%s", d, out)
		}
	})
}
