package termplot_test

import (
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/cohort-learning/cohort/record/termplot"
)

var update = flag.Bool("update", false, "write the golden files anew")

func Example() {
	fmt.Print(termplot.Plot(termplot.Options{Title: "loss", Width: 40, Height: 9, XLabel: "round"},
		termplot.Series{Y: []float64{2.3, 1.4, 0.9, 0.6, 0.45, 0.35, 0.3, 0.27}}))
	fmt.Print(termplot.Plot(termplot.Options{Width: 30, Height: 7, ASCII: true},
		termplot.Series{Name: "up", Y: []float64{0, 1, 2, 3}}, termplot.Series{Name: "down", Y: []float64{3, 2, 1, 0}}))
	// Output:
	// loss
	// 3 ┤
	//   │⠢⢄
	// 2 ┤  ⠑⠢⣀
	// 1 ┤     ⠉⠒⠢⢄⣀
	//   │          ⠉⠉⠒⠒⠢⠤⠤⣀⣀⣀
	// 0 ┤                    ⠉⠉⠉⠉⠉⠉⠉⠉⠉⠒⠒⠒⠒⠒⠒⠒⠒
	//   └─────────────────────────────────────
	//    1               round               8
	// 4 +
	//   |+++             **** * up
	// 2 +   +++++++******
	//   |   *******++++++
	// 0 +***             ++++ + down
	//   +--------------------
	//    1                  4
}

func rise(best, slow float64) (y []float64) {
	for i := range 40 {
		y = append(y, best-0.8*math.Exp(-float64(i+1)/slow)+0.015*math.Sin(float64(i*i)))
	}
	return y
}

func TestGolden(t *testing.T) {
	nan := math.NaN()
	curves := []termplot.Series{{Name: "global", Y: rise(0.95, 6)}, {Name: "a", Y: rise(0.9, 9)}, {Name: "c", Y: rise(0.8, 12)}, {Name: "e", Y: rise(0.78, 20)}}
	percent := func(v float64) string { return fmt.Sprintf("%.0f %%", 100*v) }
	for name, tt := range map[string]struct {
		o      termplot.Options
		series []termplot.Series
	}{
		"braille": {termplot.Options{Title: "accuracy", XLabel: "round", Format: percent}, curves},
		"colour":  {termplot.Options{Title: "accuracy", XLabel: "round", Format: percent, Color: true}, curves},
		"ascii":   {termplot.Options{Title: "accuracy", XLabel: "round", ASCII: true, Width: 60}, curves},
		"small":   {termplot.Options{Width: 1, Height: 1}, curves[:2]},
		"gaps":    {termplot.Options{Height: 8, ASCII: true}, []termplot.Series{{X: []float64{0, 2, 3, 4, 6, 8}, Y: []float64{1, 2, nan, 2, math.Inf(1), 0}}}},
		"flat":    {termplot.Options{Height: 8}, []termplot.Series{{Y: []float64{5, 5, 5}}}},
		"empty":   {termplot.Options{Title: "accuracy"}, []termplot.Series{{Y: []float64{nan}}, {}}},
	} {
		t.Run(name, func(t *testing.T) {
			got := termplot.Plot(tt.o, tt.series...)
			path := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(strings.ReplaceAll(string(want), "\r\n", "\n"), got); d != "" {
				t.Errorf("%s", d)
			}
		})
	}
}

var escape = regexp.MustCompile("\x1b\\[[0-9]*m")

// Whatever is drawn, it keeps to its size, and colours change nothing else.
func TestSize(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := termplot.Options{
			Title:  rapid.SampledFrom([]string{"", "accuracy", "a title that is longer than the line"}).Draw(t, "title"),
			Width:  rapid.IntRange(0, 120).Draw(t, "width"),
			Height: rapid.IntRange(0, 40).Draw(t, "height"),
			ASCII:  rapid.Bool().Draw(t, "ascii"),
			XLabel: "round",
		}
		value := rapid.OneOf(rapid.Float64(), rapid.Float64Range(0, 1), rapid.Just(math.NaN()), rapid.Just(math.Inf(1)))
		var series []termplot.Series
		for i := range rapid.IntRange(0, 12).Draw(t, "series") {
			series = append(series, termplot.Series{Name: fmt.Sprint("client ", i), Y: rapid.SliceOfN(value, 0, 50).Draw(t, "y")})
		}
		plain := termplot.Plot(o, series...)
		width, height := max(24, o.Width), max(6, o.Height)
		if o.Width == 0 {
			width = 72
		}
		if o.Height == 0 {
			height = 14
		}
		lines := strings.Split(strings.TrimSuffix(plain, "\n"), "\n")
		if len(lines) != height && len(lines) != 1 {
			t.Fatalf("%d lines, want %d:\n%s", len(lines), height, plain)
		}
		for _, l := range lines {
			if n := utf8.RuneCountInString(l); n > width {
				t.Fatalf("%d columns, want %d:\n%s", n, width, plain)
			}
			if o.ASCII && strings.ContainsFunc(l, func(r rune) bool { return r > '~' }) {
				t.Fatalf("not ASCII:\n%s", plain)
			}
		}
		o.Color = true
		if got := escape.ReplaceAllString(termplot.Plot(o, series...), ""); got != plain {
			t.Fatalf("in colour\n%s\nplain\n%s", got, plain)
		}
	})
}

func TestAuto(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, tt := range []struct {
		env   map[string]string
		ascii bool
	}{
		{nil, true},
		{map[string]string{"LANG": "de_DE.UTF-8"}, false},
		{map[string]string{"LANG": "de_DE.UTF-8", "LC_ALL": "C"}, true},
		{map[string]string{"LC_CTYPE": "C.utf8", "LANG": "C"}, false},
		{map[string]string{"OS": "Windows_NT"}, false},
	} {
		o := termplot.Auto(f, func(k string) string { return tt.env[k] })
		if o.ASCII != tt.ascii || o.Color || o.Width != 0 { // a file is no terminal
			t.Errorf("%v: %+v", tt.env, o)
		}
	}
}
