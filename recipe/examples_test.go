package recipe

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/methods"
)

// TestExamples reads every example, and plans those that need no files: data, partition and model fit together.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "examples", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	families := map[string]bool{"heterofl": false, "fedrolex": false, "fedavg": false, "fedprox": false, "fedadam": false, "scaffold": false,
		"fedbn": false, "local": false, "ditto": false, "per-fedavg": false, "pfedme": false, "apfl": false, "fedrep": false, "fedper": false, "finetune": false, "selffl": false}
	planned := 0
	for _, file := range files {
		r, err := Load(file)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		families[r.Method] = true
		if !dataset.Drawn(r.Data.Name) {
			continue
		}
		r.Data.Train, r.Data.Test = min(r.Data.Train, 1500), min(r.Data.Test, 300)
		p, err := r.Plan(t.Context(), "")
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		planned++
		if _, err := p.Card(); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	for name, found := range families {
		if !found {
			t.Errorf("no example of %s", name)
		}
	}
	if planned < 7 {
		t.Errorf("only %d of %s could be planned", planned, strings.Join(files, ", "))
	}
}

// TestDefaultsFit plans the default of every method on less data: data, partition, model and method fit together.
func TestDefaultsFit(t *testing.T) {
	for _, name := range methods.Names() {
		r, err := Default(name)
		if err != nil {
			t.Fatal(err)
		}
		r.Data.Train, r.Data.Test = 500, 100
		if _, err := r.Plan(t.Context(), ""); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
