package backend_test

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/backend"
	"github.com/gomlx/gomlx/core/graph"
)

func TestNames(t *testing.T) {
	names := backend.Names()
	if !slices.IsSorted(names) || !slices.Contains(names, "go") {
		t.Errorf("Names() = %q, want a sorted list with go", names)
	}
	if !slices.Contains(names, backend.Default()) {
		t.Errorf("the default %q is not among %q", backend.Default(), names)
	}
}

// TestEveryEngineRuns makes every engine that is compiled in and computes with it.
func TestEveryEngineRuns(t *testing.T) {
	for _, name := range append(backend.Names(), "") {
		b, err := backend.New(name, backend.Options{})
		if err != nil && name == "xla" {
			t.Logf("xla left out: %v", err)
			continue
		}
		if err != nil {
			t.Fatalf("New(%q): %v", name, err)
		}
		out := graph.MustExecOnce(b, func(x *graph.Node) *graph.Node { return graph.Add(x, x) }, []float32{1, 2})
		if got := out.Value().([]float32); !slices.Equal(got, []float32{2, 4}) {
			t.Errorf("%s: x+x = %v, want [2 4]", name, got)
		}
		if want := name; want != "" && backend.Describe(b).Engine != want {
			t.Errorf("Describe(%s) = %v", name, backend.Describe(b))
		}
	}
}

func TestUnknownEngine(t *testing.T) {
	t.Setenv("GOMLX_BACKEND", "go")
	for name, want := range map[string]string{"gpu": "this binary has", "xla": "-tags xla"} {
		if slices.Contains(backend.Names(), name) {
			continue
		}
		_, err := backend.New(name, backend.Options{})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "go") {
			t.Errorf("New(%q): %v, want an error with %q and the known names", name, err, want)
		}
	}
	if _, err := backend.New("go", backend.Options{Threads: -1}); err == nil || !strings.Contains(err.Error(), "-1") {
		t.Errorf("negative threads: %v", err)
	}
}

// TestQuiet checks that nothing reaches standard output and that the environment decides nothing.
func TestQuiet(t *testing.T) {
	t.Setenv("GOMLX_BACKEND", "no-such-engine:parallelism=7")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	old := os.Stdout
	os.Stdout = w
	b, err := backend.New("go", backend.Options{Threads: 3})
	os.Stdout = old
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if out, _ := io.ReadAll(r); len(out) > 0 {
		t.Errorf("standard output got %q", out)
	}
	if got := backend.Describe(b); got != (backend.Info{Engine: "go", Path: "portable Go", Threads: 3}) {
		t.Errorf("Describe = %+v", got)
	}
	if got := os.Getenv(graph.FusionEnv); got != "0" {
		t.Errorf("%s = %q, want 0", graph.FusionEnv, got)
	}
	b, err = backend.New("go", backend.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := backend.Describe(b).Threads; got != runtime.GOMAXPROCS(0) {
		t.Errorf("default threads %d, want GOMAXPROCS", got)
	}
}

func Example() {
	b, err := backend.New("go", backend.Options{Threads: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(backend.Describe(b))
	// Output: go (portable Go), 2 threads
}
