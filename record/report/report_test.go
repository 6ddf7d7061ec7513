package report_test

import (
	"bytes"
	"encoding/csv"
	"encoding/xml"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/record/report"
)

var out = flag.String("out", "", "folder to keep the reports in, to look at")

// fake are metrics that look like those of a run.
type fake struct {
	series   map[[2]string][]record.Point
	failures []record.Failure
}

func (f fake) Names() (names []string, err error) {
	for k := range f.series {
		names = append(names, k[0])
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func (f fake) Keys(name string) (keys []string, err error) {
	for k := range f.series {
		if k[0] == name {
			keys = append(keys, k[1])
		}
	}
	slices.Sort(keys)
	return keys, nil
}

func (f fake) Series(name, key string) ([]record.Point, error) {
	return f.series[[2]string{name, key}], nil
}
func (f fake) Failures() ([]record.Failure, error) { return f.failures, nil }

// levelled makes metrics of a run with five levels.
func levelled(rounds int, seed uint64) fake {
	rng := rand.New(rand.NewPCG(seed, 1))
	f := fake{series: make(map[[2]string][]record.Point)}
	add := func(name, key string, round int, v float64) {
		k := [2]string{name, key}
		f.series[k] = append(f.series[k], record.Point{Round: round, Value: v})
	}
	for round := 1; round <= rounds; round++ {
		t := float64(round)
		for i, l := range []string{"", "a", "b", "c", "d", "e"} {
			best := 0.95 - 0.035*float64(i)
			acc := best - 0.7*math.Exp(-t/(6+3*float64(i))) + 0.012*rng.NormFloat64()
			add("accuracy", l, round, acc)
			if l != "" {
				add("accuracy.local", l, round, min(1, acc+0.04))
				add("bytes.up", l, round, math.Trunc(3e6/math.Pow(3.5, float64(i-1))*float64(1+rng.IntN(3))))
				add("bytes.down", l, round, math.Trunc(3e6/math.Pow(3.5, float64(i-1))*3))
				add("flops", l, round, 8e11/math.Pow(3.5, float64(i-1))*float64(1+rng.IntN(3)))
			} else {
				add("accuracy.local", l, round, min(1, acc+0.02))
				loss := 2.2*math.Exp(-t/7) + 0.2 + 0.03*rng.NormFloat64()
				if round == rounds/2 {
					loss = math.NaN()
				}
				add("loss", l, round, loss)
			}
		}
		add("staleness", "", round, float64(rng.IntN(5)))
	}
	f.failures = []record.Failure{{Client: "client-07", Count: 3, Last: 17, Message: "missed the deadline of 30 s"}, {Client: "client-41", Count: 1, Last: 4, Message: "weights hold NaN <script>alert(1)</script>"}}
	return f
}

func heatMap() []byte {
	rng := rand.New(rand.NewPCG(3, 3))
	m := image.NewRGBA(image.Rect(0, 0, 10*36, 40*8))
	for client := range 40 {
		for class := range 10 {
			v := uint8(255)
			if rng.IntN(5) == 0 {
				v = uint8(40 + rng.IntN(150))
			}
			for y := range 8 {
				for x := range 36 {
					m.Set(class*36+x, client*8+y, color.RGBA{v, v, 255, 255})
				}
			}
		}
	}
	var buf bytes.Buffer
	if err := png.Encode(&buf, m); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

func sampleRun(rounds int) report.Run {
	start := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	r := report.Run{
		Meta: record.Meta{ID: "glyphs-heterofl-1", Method: "heterofl", State: record.Finished, Created: start, Ended: start.Add(107 * time.Second),
			Seed: 1, Engine: "cpu", Kernels: "avx2+fma", Threads: 2, Cohort: "v0.1.0", Command: []string{"cohort", "run", "heterofl.yaml", "--seed", "1"}},
		Title:     "HeteroFL on glyphs",
		Subtitle:  "100 clients of five levels learn one model; each holds two of ten classes.",
		Metrics:   levelled(rounds, 1),
		Settings:  []report.Fact{{"clients", "100", ""}, {"cohort", "10", "per round"}, {"rounds", fmt.Sprint(rounds), ""}, {"local epochs", "5", ""}, {"batch", "10", ""}, {"optimiser", "SGD", "momentum 0.9"}, {"learning rate", "0.01", ""}, {"partition", "2 classes a client", ""}},
		Partition: heatMap(),
		Digest:    strings.Repeat("9f86d081884c7d65", 4),
	}
	for i, l := range []string{"a", "b", "c", "d", "e"} {
		rate := math.Pow(0.5, float64(i))
		r.Levels = append(r.Levels, report.Level{l, rate, 20, int64(1556874 * rate * rate), 80.5e6 * rate * rate, int64(6227496 * rate * rate)})
		h := report.Histogram{Level: l, Edges: []float64{0}}
		for b := range 20 {
			h.Edges = append(h.Edges, float64(10*(b+1)))
			h.Counts = append(h.Counts, 1e5*math.Exp(-math.Pow(float64(b)-4-3*float64(i), 2)/8))
		}
		r.Updates = append(r.Updates, h)
	}
	return r
}

func write(t *testing.T, r report.Report, name string) []string {
	t.Helper()
	dir := t.TempDir()
	if *out != "" {
		dir = filepath.Join(*out, name)
	}
	files, err := r.Write(journal.OS(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestRunReport(t *testing.T) {
	run := sampleRun(40)
	r, err := run.Report()
	if err != nil {
		t.Fatal(err)
	}
	files := write(t, r, "run")
	page := readFile(t, files[0])
	checkPage(t, page)
	for _, want := range []string{"HeteroFL on glyphs", "Clients that failed", "missed the deadline of 30 s", "&lt;script&gt;", // escaped
		"cohort run heterofl.yaml --seed 1", run.Digest, "avx2&#43;fma", "1\u202f556\u202f874", "80.50 MFLOP", "accuracy.local, last", "data:image/png;base64,",
		"prefers-color-scheme: dark", `name="viewport"`, "staleness"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if n := strings.Count(page, "<svg"); n != 8 {
		t.Errorf("%d charts, want 8", n)
	}
	var names []string
	for _, f := range files {
		names = append(names, filepath.Base(f))
	}
	want := "report.html accuracy.png accuracy.csv accuracy.local.png accuracy.local.csv loss.png loss.csv updates.png updates.csv levels.csv " +
		"partition.png bytes.up.png bytes.up.csv bytes.down.png bytes.down.csv flops.png flops.csv failures.csv staleness.png staleness.csv"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("files\n%s, want\n%s", got, want)
	}
	for _, f := range files {
		if strings.HasSuffix(f, ".png") {
			if _, err := png.Decode(strings.NewReader(readFile(t, f))); err != nil {
				t.Errorf("%s: %v", f, err)
			}
		}
	}

	again, err := sampleRun(40).Report()
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range write(t, again, "run") {
		if readFile(t, f) != readFile(t, files[i]) {
			t.Errorf("%s differs when written again", f)
		}
	}
}

// checkPage asserts what holds for every page: it loads nothing, its pictures
// are well-formed, and they take all colours from the style sheet.
func checkPage(t *testing.T, page string) {
	t.Helper()
	for _, bad := range []string{"<script", "<link", "@import", "src=\"http", "href=\"http", "url(http", "ZgotmplZ"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page contains %q", bad)
		}
	}
	for _, svg := range regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(page, -1) {
		d := xml.NewDecoder(strings.NewReader(svg))
		for {
			_, err := d.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("picture: %v", err)
			}
		}
		if m := regexp.MustCompile(`#[0-9A-Fa-f]{6}|font-family`).FindString(svg); m != "" {
			t.Errorf("a picture has %s of its own", m)
		}
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What stands in the CSV is what was measured, bit for bit.
func TestCSV(t *testing.T) {
	run := sampleRun(12)
	r, err := run.Report()
	if err != nil {
		t.Fatal(err)
	}
	c := r.Sections[0].Charts[0]
	var buf bytes.Buffer
	if err := c.CSV(&buf); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&buf).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 1+6*12 || strings.Join(rows[0], " ") != "series x y" || rows[1][0] != "global" || rows[13][0] != "a" {
		t.Fatalf("%d rows, %v, %v", len(rows), rows[0], rows[1])
	}
	points, _ := run.Metrics.Series("accuracy", "b")
	for i, p := range points {
		y, err := strconv.ParseFloat(rows[1+24+i][2], 64)
		if err != nil || y != p.Value || rows[1+24+i][1] != fmt.Sprint(p.Round) {
			t.Errorf("row %v, measured %+v: %v", rows[1+24+i], p, err)
		}
	}
}

// A line is where its values are, and in its colour.
func TestLineIsWhereItsValuesAre(t *testing.T) {
	c := report.Chart{Name: "x", Title: "x", X: report.Axis{Label: "x"}, Y: report.Axis{Label: "y"}, Series: []report.Series{
		{Name: "low", X: []float64{0, 10}, Y: []float64{0, 0}},
		{Name: "half", X: []float64{0, 10}, Y: []float64{50, 50}},
		{Name: "high", X: []float64{0, 10}, Y: []float64{100, 100}},
	}}
	b, err := c.PNG()
	if err != nil {
		t.Fatal(err)
	}
	m, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	rows := func(c color.RGBA) (top, bottom int) {
		top, bottom = -1, -1
		x := m.Bounds().Dx() / 2
		for y := range m.Bounds().Dy() {
			r, g, b, _ := m.At(x, y).RGBA()
			if uint8(r>>8) == c.R && uint8(g>>8) == c.G && uint8(b>>8) == c.B {
				if top < 0 {
					top = y
				}
				bottom = y
			}
		}
		return top, bottom
	}
	low, _ := rows(color.RGBA{0x25, 0x63, 0xc9, 255})
	half, halfEnd := rows(color.RGBA{0xd9, 0x73, 0x1a, 255})
	high, _ := rows(color.RGBA{0x1f, 0x92, 0x68, 255})
	if low < 0 || half < 0 || high < 0 || halfEnd-half > 8 || math.Abs(float64(low-half)-float64(half-high)) > 2 || low-high < 200 {
		t.Errorf("lines at rows %d, %d–%d, %d", low, half, halfEnd, high)
	}
}

// Charts of anything can be drawn.
func TestOddCharts(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	long := report.Series{Name: "long"}
	for i := range 100000 {
		long.X, long.Y = append(long.X, float64(i)), append(long.Y, math.Sin(float64(i)))
	}
	crowd := report.Chart{Name: "crowd", Title: `a "crowd" <of> & clients`, Series: make([]report.Series, 40)}
	for i := range crowd.Series {
		crowd.Series[i] = report.Series{Name: fmt.Sprint("client ", i), X: []float64{1, 2}, Y: []float64{float64(i), 1}}
	}
	r := report.Report{Title: "odd", Sections: []report.Section{{Title: "odd", Charts: []report.Chart{
		{Name: "none", Title: "none"},
		{Name: "nan", Title: "nan", Series: []report.Series{{X: []float64{1, 2}, Y: []float64{nan, inf}}}},
		{Name: "one", Title: "one", Series: []report.Series{{X: []float64{1}, Y: []float64{3}}}},
		{Name: "zero", Title: "zero", Series: []report.Series{{X: []float64{0, 1}, Y: []float64{0, 0}}}},
		{Name: "gaps", Title: "gaps", Series: []report.Series{{X: []float64{1, 2, 3, 4}, Y: []float64{1, nan, 2, -inf}, Lo: []float64{0, nan, 1, 1}, Hi: []float64{2, nan, 3, inf}}}},
		{Name: "tiny", Title: "tiny", Series: []report.Series{{X: []float64{1, 2}, Y: []float64{1e-300, 2e-300}}}},
		{Name: "huge", Title: "huge", Y: report.Axis{Unit: report.FLOP}, Series: []report.Series{{X: []float64{1, 2}, Y: []float64{-1e300, 1e300}}}},
		{Name: "flat", Title: "flat", Series: []report.Series{{X: []float64{1e6, 1e6 + 1}, Y: []float64{1e9, 1e9}}}},
		{Name: "stacked", Title: "stacked", Kind: report.Stacked, Series: []report.Series{{Name: "a"}, {Name: "b", X: []float64{3}, Y: []float64{nan}}, {Name: "c", X: []float64{3}, Y: []float64{1}}}},
		{Name: "steps", Title: "steps", Kind: report.Steps, Series: []report.Series{{Name: "a", X: []float64{0}}, {Name: "b", X: []float64{0, 1}, Y: []float64{1}}}},
		{Name: "long", Title: "long", Series: []report.Series{long}}, crowd,
	}}}}
	files := write(t, r, "odd")
	page := readFile(t, files[0])
	checkPage(t, page)
	if strings.Contains(page, "NaN") || strings.Contains(page, "Inf") {
		t.Error("a picture has a coordinate that is not finite")
	}
	if len(page) > 300e3 {
		t.Errorf("the page has %d bytes", len(page))
	}
	if len(files) != 1+2*10 {
		t.Errorf("%d files; charts without a value should have none", len(files))
	}

	defer func() {
		if recover() == nil {
			t.Error("no panic for a series of unequal lengths")
		}
	}()
	_, _ = report.Chart{Series: []report.Series{{X: []float64{1}}}}.PNG()
}

func TestEmptyRun(t *testing.T) {
	r, err := report.Run{Meta: record.Meta{ID: "empty", Method: "fedavg", State: record.Interrupted}, Metrics: fake{}}.Report()
	if err != nil {
		t.Fatal(err)
	}
	page := readFile(t, write(t, r, "empty")[0])
	checkPage(t, page)
	if !strings.Contains(page, "fedavg, seed 0, interrupted") {
		t.Error("the page does not say what the run is")
	}
}

func TestFormat(t *testing.T) {
	for _, tt := range []struct {
		unit report.Unit
		v    float64
		want string
	}{
		{report.Plain, 0, "0"}, {report.Plain, 1, "1"}, {report.Plain, 1234, "1234"}, {report.Plain, -12345, "-12\u202f345"},
		{report.Plain, 0.123456, "0.1235"}, {report.Plain, 12.3456, "12.35"}, {report.Plain, 0.000123456, "0.0001235"},
		{report.Plain, math.NaN(), "NaN"}, {report.Plain, 1e20, "1e+20"}, {report.Plain, 12345.678, "12\u202f346"},
		{report.Percent, 0.91234, "91.23 %"}, {report.Percent, 1, "100.00 %"},
		{report.Bytes, 999, "999 B"}, {report.Bytes, 1000, "1 kB"}, {report.Bytes, 6227496, "6.227 MB"}, {report.FLOP, 8e11, "800 GFLOP"},
		{report.Seconds, 1.5, "1.500 s"},
	} {
		if got := tt.unit.Format(tt.v); got != tt.want {
			t.Errorf("%v in %q: %q, want %q", tt.v, tt.unit, got, tt.want)
		}
	}
}

func TestCompare(t *testing.T) {
	var groups []report.Group
	for i, name := range []string{"HeteroFL", "FedAvg, e only"} {
		g := report.Group{Name: name}
		for seed := range uint64(4) {
			f := levelled(40, 100*uint64(i)+seed)
			for k, s := range f.series {
				if k[0] == "accuracy" {
					for n := range s {
						s[n].Value -= 0.12 * float64(i)
					}
				}
			}
			g.Runs = append(g.Runs, report.Run{Meta: record.Meta{ID: fmt.Sprintf("%d-%d", i, seed), Seed: seed, State: record.Finished, Engine: "cpu"}, Metrics: f})
		}
		groups = append(groups, g)
	}
	r, err := report.Compare("HeteroFL against the smallest model alone", groups)
	if err != nil {
		t.Fatal(err)
	}
	checkPage(t, readFile(t, write(t, r, "compare")[0]))
}

// Mean and deviation against values worked out by hand.
func TestCompareNumbers(t *testing.T) {
	run := func(id string, acc, up []float64) report.Run {
		f := fake{series: make(map[[2]string][]record.Point)}
		for i := range acc {
			f.series[[2]string{"accuracy", ""}] = append(f.series[[2]string{"accuracy", ""}], record.Point{Round: i + 1, Value: acc[i]})
		}
		for i, v := range up {
			for _, level := range []string{"a", "b"} { // the whole is their sum
				k := [2]string{"bytes.up", level}
				f.series[k] = append(f.series[k], record.Point{Round: i + 1, Value: v / 2})
			}
		}
		return report.Run{Meta: record.Meta{ID: id}, Metrics: f}
	}
	r, err := report.Compare("c", []report.Group{
		{"three", []report.Run{run("1", []float64{0.5, 0.7}, []float64{1000, 2000}), run("2", []float64{0.5, 0.8}, []float64{1000, 3000}), run("3", []float64{0.5, 0.9, 1}, []float64{1000, 4000})}},
		{"one", []report.Run{run("4", []float64{0.25}, nil)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := [][]string{
		{"three", "3", "2", "80.00 ± 10.00 %", "4.000 ± 1.000 kB"}, // rounds that all have; sums 3, 4, 5 kB
		{"one", "1", "1", "25.00 %", "–"},
	}
	if d := cmp.Diff(want, r.Sections[0].Tables[0].Rows); d != "" {
		t.Error(d)
	}
	s := r.Sections[1].Charts[0].Series[0]
	if d := cmp.Diff(report.Series{Name: "three", X: []float64{1, 2}, Y: []float64{0.5, 0.8}, Lo: []float64{0.5, 0.7}, Hi: []float64{0.5, 0.9}}, s, cmpopts.EquateApprox(0, 1e-12)); d != "" {
		t.Error(d)
	}
	if one := r.Sections[1].Charts[0].Series[1]; one.Lo != nil {
		t.Error("one run has a band")
	}
}

func Example() {
	dir, err := os.MkdirTemp("", "report")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	r := report.Report{
		Title:      "Two rounds",
		Highlights: []report.Fact{{Label: "Accuracy", Value: report.Percent.Format(0.84)}},
		Sections: []report.Section{{Title: "What was learned", Charts: []report.Chart{{
			Name: "accuracy", Title: "Accuracy", X: report.Axis{Label: "round"}, Y: report.Axis{Label: "accuracy", Unit: report.Percent},
			Series: []report.Series{{X: []float64{1, 2}, Y: []float64{0.71, 0.84}}},
		}}}},
	}
	files, err := r.Write(journal.OS(), dir)
	for _, f := range files {
		name, _ := filepath.Rel(dir, f)
		fmt.Println(filepath.ToSlash(name))
	}
	fmt.Println(err)
	// Output:
	// report.html
	// report/accuracy.png
	// report/accuracy.csv
	// <nil>
}
