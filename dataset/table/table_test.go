package table

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/parquet-go/parquet-go"
)

func read(text string, s Spec, e *Encoding) (*Table, error) {
	g, err := dataset.ReadGrid("people.csv", []byte(text), s.Header)
	if err != nil {
		return nil, err
	}
	return Read(g, s, e)
}

const people = `id,height,job,since,score,part
p1,1.5,smith,2020-01-01,3.5,train
p2,NA,baker,2020-07-02,4.25,test
p3,1.75,smith,,5.125,
`

// A small table with everything in it, its features by hand.
func TestFeatures(t *testing.T) {
	s := Spec{Path: "people.csv", Key: "id", Target: "score", Test: "part"}
	x, err := read(people, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"height", "height is missing", "job=baker", "job=smith", "since", "since (year, cos)", "since (year, sin)",
		"since (week, cos)", "since (week, sin)", "since is missing"}
	if diff := cmp.Diff(want, x.Encoding.Features()); diff != "" {
		t.Fatal(diff)
	}
	nan := math.NaN()
	circle := func(part float64) (float64, float64) {
		return math.Cos(2 * math.Pi * part), math.Sin(2 * math.Pi * part)
	}
	wednesday, w := circle(3. / 7)
	thursday, th := circle(4. / 7)
	july, j := circle(183 / 365.25)
	rows := [][]float64{
		{1.5, 0, 0, 1, 18262, 1, 0, wednesday, w, 0},
		{nan, 1, 1, 0, 18445, july, j, thursday, th, 0},
		{1.75, 0, 0, 1, nan, nan, nan, nan, nan, 1},
	}
	for i, row := range rows {
		if diff := cmp.Diff(row, x.Features.RawRowView(i), cmpopts.EquateNaNs(), cmpopts.EquateApprox(0, 1e-12)); diff != "" {
			t.Errorf("row %d: %s", i, diff)
		}
	}
	if diff := cmp.Diff([]string{"p1", "p2", "p3"}, x.Keys); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]float64{3.5, 4.25, 5.125}, x.Target); diff != "" || x.Encoding.Task != Regression {
		t.Error(diff, x.Encoding.Task)
	}
	if diff := cmp.Diff([]bool{false, true, false}, x.Test); diff != "" {
		t.Error(diff)
	}
	if got, want := x.String(), "3 rows of 1 number, 1 category, 1 date: 10 features"; got != want {
		t.Errorf("%q, want %q", got, want)
	}

	// New rows are encoded alike, in another order of columns, without a target, with a word that is new.
	again, err := read("since,job,id,height\n2020-07-02,smith,q,\n,priest,r,2\n", Spec{Path: "x", Key: "id"}, x.Encoding)
	if err != nil {
		t.Fatal(err)
	}
	for i, row := range [][]float64{{nan, 1, 0, 1, 18445, july, j, thursday, th, 0}, {2, 0, 0, 0, nan, nan, nan, nan, nan, 1}} {
		if diff := cmp.Diff(row, again.Features.RawRowView(i), cmpopts.EquateNaNs(), cmpopts.EquateApprox(0, 1e-12)); diff != "" {
			t.Errorf("new row %d: %s", i, diff)
		}
	}
	if again.Target != nil || again.Encoding.Digest() != x.Encoding.Digest() {
		t.Error("new rows have a target, or another encoding")
	}
}

func TestRareWords(t *testing.T) {
	var b strings.Builder
	b.WriteString("x,word\n")
	for i := range 1000 {
		word := []string{"often", "too"}[i%2]
		if i%250 == 3 {
			word = fmt.Sprint("rare", i)
		}
		fmt.Fprintf(&b, "%d.5,%s\n", i, word)
	}
	x, err := read(b.String(), Spec{Path: "x", Header: "present"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"x", "word=often", "word=too", "word=other"}, x.Encoding.Features()); diff != "" {
		t.Error(diff)
	}
	if got := x.Features.RawRowView(3); got[3] != 1 || got[1] != 0 || got[2] != 0 {
		t.Errorf("a rare word is %v", got)
	}
	if x.Keys[0] != "1" || x.Keys[999] != "1000" {
		t.Errorf("rows without a key are called %s … %s", x.Keys[0], x.Keys[999])
	}
}

func TestErrors(t *testing.T) {
	many := "id,x\n"
	for i := range 300 {
		many += fmt.Sprintf("w%d,%d\n", i, i%7)
	}
	mostly := "x,y\n"
	for i := range 40 {
		mostly += fmt.Sprintf("%d,1.5\n", i)
	}
	for name, c := range map[string]struct {
		text string
		spec Spec
		want string
	}{
		"key twice":        {"id,x\na,1\nb,2\na,3\n", Spec{Key: "id"}, `people.csv: line 4, column 1 ("id"): key "a" stands in line 2 already`},
		"key missing":      {"id,x\na,1\n,2\n", Spec{Key: "id"}, `line 3, column 1 ("id"): the key is missing`},
		"no such key":      {"id,x\na,1\n", Spec{Key: "ID"}, `key: people.csv`},
		"identifier":       {many, Spec{}, `column 1 ("id"): more than 256 different words`},
		"one typing error": {mostly + "l2,1.5\n", Spec{}, `line 42, column 1 ("x"): "l2" is not a number, while 40 of 41 values are`},
		"doubtful date":    {"d,x\n01/02/2020,1\n03/04/2020,2\n", Spec{}, "day/month or month/day"},
		"one class":        {"x,y\n1,a\n2,a\n", Spec{Target: "y"}, "two classes are needed"},
		"words to regress": {"x,y\n1,a\n2,b\n", Spec{Target: "y", Task: Regression}, `line 2, column 2 ("y"): the target of a regression must be a number`},
		"nothing left":     {"id,y\n1,2\n", Spec{Key: "id", Target: "y"}, "no column is left"},
		"two uses":         {"id,y\n1,2\n", Spec{Key: "id", Target: "id"}, "and something else"},
		"uneven":           {"a,b\n1,2\n3\n", Spec{}, "line 3 has 1 fields"},
		"testing":          {"a,t\n1,maybe\n", Spec{Test: "t"}, "does not say whether the row is for testing"},
		"both":             {"a,t\n1,1\n", Spec{Columns: []string{"a"}, Drop: []string{"t"}}, "exclude each other"},
	} {
		c.spec.Path = "people.csv"
		err := c.spec.Validate()
		if err == nil {
			_, err = read(c.text, c.spec, nil)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v\nwant %q", name, err, c.want)
		}
	}
	x, err := read("id,x\na,1\nb,2\na,3\n", Spec{Key: "id", Duplicates: "first"}, nil)
	if err != nil || len(x.Keys) != 2 || x.Left != 1 || x.Features.At(0, 0) != 1 {
		t.Errorf("with the first of two rows: %v, %v", x, err)
	}
	e, err := read("x,d\n1,2020-01-01\n2,2021-01-01\n", Spec{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{"x\n1\n": `column "d" is missing`, "x,d\n1,yesterday\n": "is not a date written as 2006-01-02", "x,d\none,\n": "not a number"} {
		if _, err := read(text, Spec{Header: "present"}, e.Encoding); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// A Parquet file gives the same table as the CSV file of the same content.
func TestParquet(t *testing.T) {
	type row struct {
		ID     string   `parquet:"id"`
		Height *float64 `parquet:"height,optional"`
		Job    string   `parquet:"job"`
		Since  int32    `parquet:"since,date"`
		Score  float64  `parquet:"score"`
	}
	h := func(v float64) *float64 { return &v }
	path := filepath.Join(t.TempDir(), "people.parquet")
	if err := parquet.WriteFile(path, []row{{"p1", h(1.5), "smith", 18262, 3.5}, {"p2", nil, "baker", 18445, 4.25}}); err != nil {
		t.Fatal(err)
	}
	s := Spec{Path: path, Key: "id", Target: "score"}
	got, err := Open(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	want, err := read("id,height,job,since,score\np1,1.5,smith,2020-01-01,3.5\np2,,baker,2020-07-02,4.25\n", s, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.Features.RawMatrix(), got.Features.RawMatrix(), cmpopts.EquateNaNs()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want.Encoding, got.Encoding); diff != "" {
		t.Error(diff)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 3, 40, len(b) - 9} {
		bad := filepath.Join(t.TempDir(), "bad.parquet")
		if err := os.WriteFile(bad, b[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Spec{Path: bad}, nil); err == nil || !strings.Contains(err.Error(), "bad.parquet") {
			t.Errorf("%d of %d bytes: %v", n, len(b), err)
		}
	}
}

// The real tables, as they are.
func TestRealTables(t *testing.T) {
	dir := os.Getenv("COHORT_DATA")
	if dir == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("COHORT_DATA names no folder of real data sets")
		}
		t.Skip("COHORT_DATA names no folder of real data sets")
	}
	for _, c := range []struct {
		file, target, key string
		rows, width       int
		task              string
		classes           int
	}{
		{"sklearn-tables/boston_house_prices.csv", "MEDV", "", 506, 13, Regression, 0},
		{"sklearn-tables/breast_cancer.csv", "31", "", 569, 30, Classification, 2},
		{"sklearn-tables/iris.csv", "5", "", 150, 4, Classification, 3},
		{"sklearn-tables/wine_data.csv", "14", "", 178, 13, Classification, 3},
		{"sklearn-tables/digits.csv.gz", "65", "", 1797, 64, Classification, 10},
		{"sklearn-tables/diabetes_data.csv.gz", "", "", 442, 10, "", 0},
		{"uci-tables/abalone.csv", "9", "", 4177, 10, Regression, 0},
		{"uci-tables/banknote_authentication.csv", "5", "", 1372, 4, Classification, 2},
		{"uci-tables/biodeg.csv", "experimental_class", "", 1055, 41, Classification, 2},
		{"uci-tables/german.csv", "21", "", 1000, -1, Classification, 2},
		{"uci-tables/ionosphere.csv", "35", "", 351, 34, Classification, 2},
		{"uci-tables/pima-indians-diabetes.csv", "9", "", 768, 8, Classification, 2},
		{"timeseries/macrodata.csv", "infl", "", 203, 13, Regression, 0},
		{"timeseries/sp500-2000.csv", "close", "date", -1, 5, Regression, 0},
		{"timeseries/monthly-sunspots.csv", "Sunspots", "", -1, 5, Regression, 0},
		{"timeseries/ETTh1.csv.gz", "OT", "", 17420, 13, Regression, 0},
	} {
		x, err := Open(Spec{Path: filepath.Join(dir, c.file), Target: c.target, Key: c.key}, nil)
		if err != nil {
			t.Error(err)
			continue
		}
		n, d := x.Features.Dims()
		if c.rows >= 0 && n != c.rows || c.width >= 0 && d != c.width || x.Encoding.Task != c.task || len(x.Encoding.Classes) != c.classes {
			t.Errorf("%s: %d rows, %d features, %q with %d classes; want %d, %d, %q, %d", c.file, n, d, x.Encoding.Task, len(x.Encoding.Classes), c.rows, c.width, c.task, c.classes)
		}
	}
}

func FuzzTable(f *testing.F) {
	f.Add([]byte(people), "id", "score")
	f.Add([]byte("1;2\n3;4\n"), "", "")
	f.Add([]byte("a\tb\n2020-01-01 10:00\tx\n"), "b", "")
	f.Fuzz(func(t *testing.T, text []byte, key, target string) {
		x, err := read(string(text), Spec{Path: "f", Key: key, Target: target}, nil)
		if err != nil {
			return
		}
		if n, d := x.Features.Dims(); n != len(x.Keys) || d != len(x.Encoding.Features()) {
			t.Fatalf("%d×%d features for %d rows", n, d, len(x.Keys))
		}
		again, err := read(string(text), Spec{Path: "f", Key: key, Target: target}, x.Encoding)
		if err != nil {
			t.Fatalf("what was read cannot be read with its own encoding: %v", err)
		}
		if diff := cmp.Diff(x.Features.RawMatrix(), again.Features.RawMatrix(), cmpopts.EquateNaNs()); diff != "" {
			t.Fatal(diff)
		}
	})
}
