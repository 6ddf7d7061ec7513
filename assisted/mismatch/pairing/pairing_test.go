package pairing

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted/mismatch"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func none() (*train.Engine, error) { return nil, errors.New("no engine was expected") }

// files are two tables of n rows of which a share of the keys links to somebody else. Some features are missing, some targets too.
func files(t *testing.T, n int, alpha float64) (features, labels string, own []int) {
	r := rng.New(1, 0, "", "files")
	x, y, _ := mismatch.LinearTable(n, 3, .1, r)
	own = mismatch.Shuffle(n, alpha, r)
	var a, b strings.Builder
	a.WriteString("id;p;q;r;same\n")
	b.WriteString("id;value\n")
	for i := range n {
		p := fmt.Sprint(x.At(i, 0))
		if i%25 == 7 {
			p = ""
		}
		fmt.Fprintf(&a, "k%d;%s;%v;%v;1\n", i, p, x.At(i, 1), x.At(i, 2))
	}
	for i := n - 1; i >= 0; i-- { // in another order
		v := fmt.Sprint(10 + 5*y.At(own[i], 0))
		if i == 3 {
			v = "NA"
		}
		fmt.Fprintf(&b, "k%d;%s\n", i, v)
	}
	return write(t, "features.csv", a.String()), write(t, "labels.csv", b.String()), own
}

func TestMatchByKey(t *testing.T) {
	features, labels, own := files(t, 200, .25)
	o, err := Match(context.Background(), Spec{Features: features, Labels: labels, Target: "value", Key: "id"}, none)
	if err != nil {
		t.Fatal(err)
	}
	if o.Alpha < .15 || o.Alpha > .35 || o.Left != 1 || o.Labels != 199 || o.Explained < .7 {
		t.Errorf("α̂ = %v, %d labels, %d without a value, explained %v", o.Alpha, o.Labels, o.Left, o.Explained)
	}
	right, wrong, n := 0.0, 0.0, 0
	for i, r := range o.Rows {
		if r.Key != fmt.Sprintf("k%d", i) || r.Line != i+2 {
			t.Fatalf("row %d is %+v", i, r)
		}
		if own[i] == i {
			right += r.Link
			n++
		} else {
			wrong += r.Link
		}
	}
	if right/float64(n) < .8 || wrong/float64(200-n) > .25 {
		t.Errorf("right links have probability %.2f, wrong ones %.2f", right/float64(n), wrong/float64(200-n))
	}
	if o.Rows[3].Given != "" || o.Rows[3].Link != 0 {
		t.Errorf("a row whose label has no value: %+v", o.Rows[3])
	}
	var b strings.Builder
	if err := o.Write(&b); err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(strings.NewReader(b.String())).ReadAll()
	if err != nil || len(lines) != 201 || len(lines[0]) != 9 {
		t.Fatalf("%d lines, %v", len(lines), err)
	}
	if v, err := strconv.ParseFloat(lines[1][4], 64); err != nil || v < 0 || v > 1 {
		t.Errorf("a link's probability is written as %q", lines[1][4])
	}
}

func TestMatchWithALearner(t *testing.T) {
	features, labels, _ := files(t, 200, .25)
	o, err := Match(context.Background(), Spec{Features: features, Labels: labels, Target: "value", Key: "id", Model: "ridge", Folds: 3}, none)
	if err != nil {
		t.Fatal(err)
	}
	if o.Alpha < .15 || o.Alpha > .4 {
		t.Errorf("α̂ = %v", o.Alpha)
	}
}

func TestSpecsThatCannotBe(t *testing.T) {
	features, labels, _ := files(t, 30, 0)
	good := Spec{Features: features, Labels: labels, Target: "value", Key: "id"}
	for what, change := range map[string]func(s *Spec){
		"which file":             func(s *Spec) { s.Features = "" },
		"which column":           func(s *Spec) { s.Target = "" },
		"could belong together":  func(s *Spec) { s.Key = "" },
		"task \"guess\"":         func(s *Spec) { s.Task = "guess" },
		"there is no model":      func(s *Spec) { s.Model = "oracle" },
		"1 folds":                func(s *Spec) { s.Folds = 1 },
		"share of rows":          func(s *Spec) { s.Unmatched = 2 },
		"column \"nothing\"":     func(s *Spec) { s.Blocks = []string{"nothing"} },
		"linear and mlp":         func(s *Spec) { s.Task, s.Model = "classification", "knn" },
		"whether the link is ce": func(s *Spec) { s.Certain = "r" },
	} {
		s := good
		change(&s)
		if _, err := Match(context.Background(), s, none); err == nil || !strings.Contains(strings.ToLower(err.Error()), what) {
			t.Errorf("the error about %q is %v", what, err)
		}
	}
	var missing MissingLinkError
	if err := (Spec{Features: "a", Labels: "b", Target: "c"}).Validate(); !errors.As(err, &missing) {
		t.Errorf("neither key nor block: %v", err)
	}
	s := good
	s.Certain = "same" // the row whose label has no value is said to be certain
	if _, err := Match(context.Background(), s, none); err == nil || !strings.Contains(err.Error(), "line 5") {
		t.Errorf("a certain link without a label: %v", err)
	}
}
