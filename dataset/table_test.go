package dataset

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const people = `name,age,job,city,income
Ann,31,cook,Ulm,high
Ben,,smith,,low
Cid,52,cook,Bonn,low
Dot,44,?,Ulm,high
`

func encodeText(t testing.TB, text string, s Spec) (*Examples, *Encoding, error) {
	t.Helper()
	tab, err := newTable("people.csv", []byte(text), s.Header)
	if err != nil {
		return nil, nil, err
	}
	enc, err := infer(tab, s)
	if err != nil {
		return nil, nil, err
	}
	e, err := enc.encode(tab, "people")
	if err != nil {
		return nil, nil, err
	}
	enc.fit(e)
	enc.fill(e)
	return e, enc, nil
}

// TestTableEncoding: numbers stay, gaps become the mean, words become one feature each, the target its classes.
func TestTableEncoding(t *testing.T) {
	e, _, err := encodeText(t, people, Spec{Drop: []string{"name"}, Key: "city"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"age", "job=cook", "job=smith"}, e.Features); diff != "" {
		t.Error(diff)
	}
	mean := float32((31 + 52 + 44) / 3.0)
	if diff := cmp.Diff([]float32{31, 1, 0, mean, 0, 1, 52, 1, 0, 44, 0, 0}, e.F32); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"high", "low"}, e.Classes) + cmp.Diff([]int32{0, 1, 1, 0}, e.Labels); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"Ulm", "", "Bonn", "Ulm"}, e.Keys); diff != "" {
		t.Error(diff)
	}
}

// TestTableLayouts: separator, header, order of classes and the kind of target are found out.
func TestTableLayouts(t *testing.T) {
	for _, c := range []struct {
		name, text       string
		spec             Spec
		features         []string
		classes          []string
		labels           []int32
		targets          []float32
		wantHeaderInText bool
	}{
		{name: "no header", text: "1,2,b\n3,4,a\n", features: []string{"column 1", "column 2"}, classes: []string{"a", "b"}, labels: []int32{1, 0}},
		{name: "numbers are classes", text: "x,y\n1.5,10\n2.5,9\n3.5,10\n", features: []string{"x"}, classes: []string{"9", "10"}, labels: []int32{1, 0, 1}},
		{name: "a quantity", text: "x,y\n1,0.5\n2,1.5\n", features: []string{"x"}, targets: []float32{0.5, 1.5}},
		{name: "a quantity by order", text: "x,y\n1,5\n2,6\n", spec: Spec{Task: "regression"}, features: []string{"x"}, targets: []float32{5, 6}},
		{name: "target by name", text: "y,x\n1.5,2\n2.5,3\n", spec: Spec{Target: "y"}, features: []string{"x"}, targets: []float32{1.5, 2.5}},
		{name: "target by number", text: "1.5,2\n2.5,3\n", spec: Spec{Target: "1"}, features: []string{"column 2"}, targets: []float32{1.5, 2.5}},
		{name: "tabs", text: "x\ty\n1\ta\n\tb\n", features: []string{"x"}, classes: []string{"a", "b"}, labels: []int32{0, 1}},
		{name: "semicolons and quotes", text: "\ufeff\"x;x\";y\n1; \"a;1\"\n2;b\n", features: []string{"x;x"}, classes: []string{"a;1", "b"}, labels: []int32{0, 1}},
		{name: "blanks", text: "  1 2.5   a\n 2  3.5 b\n", features: []string{"column 1", "column 2"}, classes: []string{"a", "b"}, labels: []int32{0, 1}},
		{name: "sizes and class names", text: "3,1,ripe,green\n5.5,1\n6.5,0\n7.5,1\n", features: []string{"column 1"}, classes: []string{"ripe", "green"}, labels: []int32{1, 0, 1}},
		{name: "sizes, then a header", text: "2,1,,\nrm,medv\n5.5,1.5\n6.5,0.5\n", features: []string{"rm"}, targets: []float32{1.5, 0.5}},
		{name: "words alone, header", text: "shape,edible\nflat,yes\nbell,no\nflat,no\n", features: []string{"shape=bell", "shape=flat"}, classes: []string{"no", "yes"}, labels: []int32{1, 0, 0}},
		{name: "words alone, no header", text: "flat,yes\nbell,no\nflat,no\n", features: []string{"column 1=bell", "column 1=flat"}, classes: []string{"no", "yes"}, labels: []int32{1, 0, 0}},
		{name: "header by order", text: "flat,yes\nbell,no\ncone,yes\nflat,no\n", spec: Spec{Header: "present"}, features: []string{"flat=bell", "flat=cone", "flat=flat"}, classes: []string{"no", "yes"}, labels: []int32{0, 1, 0}},
	} {
		e, _, err := encodeText(t, c.text, c.spec)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if diff := cmp.Diff(c.features, e.Features) + cmp.Diff(c.classes, e.Classes) + cmp.Diff(c.labels, e.Labels) + cmp.Diff(c.targets, e.Targets); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

// TestTableErrors: the message names file, line and column, and says what to do.
func TestTableErrors(t *testing.T) {
	numbers := func(bad string) string {
		var b strings.Builder
		b.WriteString("x,y\n")
		for i := range 30 {
			fmt.Fprintf(&b, "%d.5,%d\n", i, i%2)
		}
		return b.String() + bad
	}
	words := "w,y\n"
	for i := range 300 {
		words += fmt.Sprintf("word%d,%d\n", i, i%2)
	}
	for _, c := range []struct {
		text string
		spec Spec
		want string
	}{
		{"", Spec{}, "people.csv: the table is empty"},
		{"x,y\n", Spec{Header: "present"}, "a header but no rows"},
		{numbers("7\n"), Spec{}, "people.csv: line 32 has 1 fields, the table has 2 columns"},
		{numbers("l2,1\n"), Spec{}, `people.csv: line 32, column 1 ("x"): "l2" is not a number, while 30 of 31 values are`},
		{numbers("3,\n"), Spec{}, `people.csv: line 32, column 2 ("y"): the target is missing`},
		{numbers("\"a,1\n"), Spec{}, "line 32"},
		{numbers(""), Spec{Target: "z"}, `unknown column "z"`},
		{numbers(""), Spec{Target: "3"}, `unknown column "3"`},
		{numbers(""), Spec{Drop: []string{"y"}}, `column "y" cannot be both target and dropped`},
		{numbers(""), Spec{Drop: []string{"x"}}, "no column is left"},
		{numbers("1,maybe\n"), Spec{Task: "regression"}, `line 32, column 2 ("y"): the target of a regression must be a number, not "maybe"`},
		{"x,y\n1,2\n2,2\n", Spec{}, "two classes are needed"},
		{words, Spec{}, "an identifier or free text; drop the column"},
		{"x,y\n1e300,1\n2,2\n", Spec{}, `"1e300" is too large`},
	} {
		if _, _, err := encodeText(t, c.text, c.spec); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.30q %+v: %v, expected %q", c.text, c.spec, err, c.want)
		}
	}
}

// TestTableReuse: an encoding kept as JSON encodes another table alike: columns by name, unseen words 0, the training
// mean for gaps, and no target needed.
func TestTableReuse(t *testing.T) {
	_, enc, err := encodeText(t, people, Spec{Drop: []string{"name", "city"}})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(enc)
	if err != nil {
		t.Fatal(err)
	}
	var kept Encoding
	if err := json.Unmarshal(text, &kept); err != nil {
		t.Fatal(err)
	}
	other, err := newTable("other.csv", []byte("job,extra,age\nsmith,1,20\nbaker,2,\n"), "")
	if err != nil {
		t.Fatal(err)
	}
	e, err := kept.encode(other, "other")
	if err != nil {
		t.Fatal(err)
	}
	kept.fill(e)
	mean := float32((31 + 52 + 44) / 3.0)
	if diff := cmp.Diff([]float32{20, 0, 1, mean, 0, 0}, e.F32); diff != "" || e.Labels != nil {
		t.Error(diff, e.Labels)
	}
	lacking, err := newTable("lacking.csv", []byte("age\n1\n"), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kept.encode(lacking, "x"); err == nil || !strings.Contains(err.Error(), `column "job" is missing`) {
		t.Errorf("a missing column: %v", err)
	}
}

// TestTableTestPart: the test file is encoded and normalised as the training file.
func TestTableTestPart(t *testing.T) {
	dir := t.TempDir()
	train := write(t, dir, "a.csv.gz", []byte("x,c,y\n1,u,no\n3,v,yes\n"))
	test := write(t, dir, "b.csv", []byte("x,c,y\n5,w,yes\n"))
	s, err := Load(context.Background(), Spec{Name: "csv", Path: train, TestPath: test})
	if err != nil {
		t.Fatal(err)
	}
	dst := make([]float32, 3)
	s.Test.Fill(dst, []int32{0}, Augment{}, nil)
	if diff := cmp.Diff([]float32{3, -1, -1}, dst); diff != "" { // (5−2)/1, (0−½)/½ twice
		t.Error(diff)
	}
	if diff := cmp.Diff([]int32{1}, s.Test.Labels); diff != "" {
		t.Error(diff)
	}
}

// TestRealTables reads tables in the wild and checks rows, features and class counts.
func TestRealTables(t *testing.T) {
	root := realData(t)
	for _, c := range []struct {
		file           string
		rows, features int
		classes        []int
		first          string
	}{
		{"sklearn-tables/iris.csv", 150, 4, []int{50, 50, 50}, "setosa"},
		{"sklearn-tables/wine_data.csv", 178, 13, []int{59, 71, 48}, "class_0"},
		{"sklearn-tables/breast_cancer.csv", 569, 30, []int{212, 357}, "malignant"},
		{"sklearn-tables/boston_house_prices.csv", 506, 13, nil, ""},
		{"sklearn-tables/digits.csv.gz", 1797, 64, []int{178, 182, 177, 183, 181, 182, 181, 179, 174, 180}, "0"},
		{"sklearn-tables/diabetes_data.csv.gz", 442, 9, nil, ""},
		{"uci-tables/biodeg.csv", 1055, 41, []int{699, 356}, "NRB"},
		{"uci-tables/ionosphere.csv", 351, 34, []int{126, 225}, "b"},
		{"uci-tables/german.csv", 1000, 61, []int{700, 300}, "1"},
		{"uci-tables/abalone.csv", 4177, 10, nil, ""},
		{"uci-tables/pima-indians-diabetes.csv", 768, 8, []int{500, 268}, "0"},
		{"uci-tables/banknote_authentication.csv", 1372, 4, []int{762, 610}, "0"},
	} {
		s, err := Load(context.Background(), Spec{Name: "csv", Path: filepath.Join(root, c.file)})
		if err != nil {
			t.Errorf("%s: %v", c.file, err)
			continue
		}
		if rows := s.Train.Len() + s.Test.Len(); rows != c.rows || s.Train.Size() != c.features {
			t.Errorf("%s: %d rows of %d features, expected %d of %d", c.file, rows, s.Train.Size(), c.rows, c.features)
		}
		if c.classes == nil {
			if s.Train.Targets == nil {
				t.Errorf("%s: not a regression", c.file)
			}
			continue
		}
		counts := s.Train.All().Histogram()
		for i, n := range s.Test.All().Histogram() {
			counts[i] += n
		}
		if !slices.Equal(counts, c.classes) || s.Train.Classes[0] != c.first {
			t.Errorf("%s: classes %q %v, expected %v", c.file, s.Train.Classes, counts, c.classes)
		}
	}
}

// FuzzCSV looks for a table that crashes; what is accepted must be consistent.
func FuzzCSV(f *testing.F) {
	f.Add([]byte(people), "income")
	f.Add([]byte("3,1,ripe,green\n5.5,1\n6.5,0\n7.5,1\n"), "")
	f.Add([]byte("1 2\n3 4\n"), "1")
	f.Add([]byte("a;b\n\"x\";\"y\n\";1\n"), "b")
	f.Add([]byte("x\ty\n1\ta\n\tb\n"), "")
	f.Fuzz(func(t *testing.T, text []byte, target string) {
		e, _, err := encodeText(t, string(text), Spec{Target: target})
		if err != nil {
			return
		}
		if err := e.Validate(); err != nil {
			t.Fatal(err)
		}
		if e.Len() == 0 {
			t.Fatal("no rows")
		}
	})
}
