package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/secure/dp"
	"github.com/cohort-learning/cohort/secure/dp/ledger"
	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"cohort": main})
}

// TestScripts runs testdata/script/*.txt: one file a concept, named <command>_<concept>.txt. One of them alone:
//
//	go test ./cmd/cohort -run TestScripts/run_resume -v
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           filepath.Join("testdata", "script"),
		Setup:         prepareScript,
		Cmds:          scriptCommands,
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
	})
}

// scriptCommands are the commands that scripts have beside those of testscript.
var scriptCommands = map[string]func(*testscript.TestScript, bool, []string){
	"exits": cmdExits, "json": cmdJSON, "samefield": cmdSameField, "better": cmdBetter, // of results
	"glyphs": cmdGlyphs, "pngsize": cmdPNGSize, // of pictures
	"await": cmdAwait, "capture": cmdCapture, "replace": cmdReplace, "spoil": cmdSpoil, // of files
	"charge": cmdCharge, // of privacy
}

// prepareScript gives every script the same small recipe and a surrounding that says nothing about this machine.
func prepareScript(e *testscript.Env) error {
	e.Setenv("COHORT_DATA", "")
	e.Setenv("COHORT_RUNS", "")
	e.Setenv("COHORT_LEDGER", filepath.Join(e.WorkDir, "ledger"))
	e.Setenv("LC_ALL", "C.UTF-8")
	return os.WriteFile(filepath.Join(e.WorkDir, "tiny.yaml"), []byte(tiny), 0o644)
}

// tiny is a run of a fraction of a second.
const tiny = `method: heterofl
rounds: 3
data: {name: glyphs, size: 8, train: 200, test: 100}
partition: {name: iid, clients: 10}
model: {name: cnn, widths: [4, 8]}
round: {fraction: 0.5}
options: {mode: a1-c1}
`

// cmdExits runs a command that must end with a status: exits STATUS COMMAND ARG...
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS COMMAND ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// cmdCharge charges rounds of a run with central noise of multiplier 4 to the ledger of data: charge DIR DATA COORDINATOR RUN ROUNDS.
func cmdCharge(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 5 || neg {
		ts.Fatalf("usage: charge DIR DATA COORDINATOR RUN ROUNDS")
	}
	rounds, err := strconv.Atoi(args[4])
	ts.Check(err)
	path := ts.MkAbs(args[1])
	digest, err := ledger.DigestOf(context.Background(), path)
	ts.Check(err)
	l, err := ledger.Open(ts.MkAbs(args[0]), digest, path, ledger.Options{})
	ts.Check(err)
	terms := dp.Terms{Mechanism: dp.CentralGaussian, Fraction: 1, Noise: 4, Clip: 1, Delta: 1e-5, Members: 10, Trusts: args[2]}
	for round := range rounds {
		_, err := l.ChargeWithin(context.Background(), ledger.Budget{}, ledger.Entry{Coordinator: ledger.Coordinator{Name: args[2], Key: "key-" + args[2]},
			Run: args[3], Round: round, Phase: "train", Member: "north", Terms: terms})
		ts.Check(err)
	}
}

// cmdJSON compares a value in a JSON text: json FILE PATH OP VALUE, where FILE may be stdout, PATH is such as
// runs/0/state, and OP is one of = != < > <= >= has len.
func cmdJSON(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 4 || neg {
		ts.Fatalf("usage: json FILE PATH OP VALUE")
	}
	compareJSON(ts, args[1], field(ts, args[0], args[1]), args[2], args[3])
}

// field returns a value in a JSON file.
func field(ts *testscript.TestScript, file, path string) any {
	var v any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(file)), &v))
	for part := range strings.SplitSeq(path, "/") {
		switch x := v.(type) {
		case map[string]any:
			next, ok := x[part]
			if !ok {
				ts.Fatalf("%s: there is no %q", path, part)
			}
			v = next
		case []any:
			i, err := strconv.Atoi(part)
			ts.Check(err)
			if i >= len(x) {
				ts.Fatalf("%s: there are %d elements", path, len(x))
			}
			v = x[i]
		default:
			ts.Fatalf("%s: nothing below %v", path, v)
		}
	}
	return v
}

func compareJSON(ts *testscript.TestScript, path string, v any, op, want string) {
	got := fmt.Sprint(v)
	if f, ok := v.(float64); ok {
		got = strconv.FormatFloat(f, 'g', -1, 64)
	}
	ok := false
	switch op {
	case "=":
		ok = got == want
	case "!=":
		ok = got != want
	case "has":
		ok = strings.Contains(got, want)
	case "len":
		list, is := v.([]any)
		ok = is && strconv.Itoa(len(list)) == want
	case "<", ">", "<=", ">=":
		f, is := v.(float64)
		bound, err := strconv.ParseFloat(want, 64)
		ts.Check(err)
		ok = is && (op[0] == '<' && f < bound || op[0] == '>' && f > bound || len(op) == 2 && f == bound)
	default:
		ts.Fatalf("unknown operator %s", op)
	}
	if !ok {
		ts.Fatalf("%s is %s, want %s %s", path, got, op, want)
	}
}

// cmdGlyphs draws a folder of pictures of digits, a sub-folder a class: glyphs DIR CLASSES PER_CLASS [NAME OF CLASS...].
func cmdGlyphs(ts *testscript.TestScript, _ bool, args []string) {
	classes, err := strconv.Atoi(args[1])
	ts.Check(err)
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	split, err := dataset.Glyphs{Size: 12, Classes: 10, Train: 10 * n, Test: 10, Seed: 5}.Load(context.Background())
	ts.Check(err)
	for i := range split.Train.Len() {
		label := int(split.Train.Labels[i])
		if label >= classes {
			continue
		}
		name := split.Train.Classes[label]
		if len(args) > 3 {
			name = args[3+label]
		}
		dir := filepath.Join(ts.MkAbs(args[0]), name)
		ts.Check(os.MkdirAll(dir, 0o755))
		img := image.NewGray(image.Rect(0, 0, 12, 12))
		copy(img.Pix, split.Train.U8[i*144:(i+1)*144])
		var b bytes.Buffer
		ts.Check(png.Encode(&b, img))
		ts.Check(os.WriteFile(filepath.Join(dir, fmt.Sprintf("%03d.png", i)), b.Bytes(), 0o644))
	}
}

// cmdAwait waits until a file has a number of lines: await FILE LINES.
func cmdAwait(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	for range 20_000 {
		b, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && bytes.Count(b, []byte("\n")) >= want {
			return
		}
		time.Sleep(3 * time.Millisecond)
	}
	ts.Fatalf("%s never had %d lines", args[0], want)
}

// cmdCapture sets a variable to what a pattern first matches in a file, for which it waits: capture VARIABLE FILE PATTERN.
func cmdCapture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: capture VARIABLE FILE PATTERN")
	}
	pattern, err := regexp.Compile(args[2])
	ts.Check(err)
	for range 20_000 {
		if b, err := os.ReadFile(ts.MkAbs(args[1])); err == nil {
			if found := pattern.Find(b); found != nil {
				ts.Setenv(args[0], string(found))
				return
			}
		}
		time.Sleep(3 * time.Millisecond)
	}
	ts.Fatalf("%s never had %s", args[1], args[2])
}

// cmdReplace replaces text in a file: replace FILE OLD NEW.
func cmdReplace(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[1]) {
		ts.Fatalf("%s does not contain %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(text, args[1], args[2], 1)), 0o644))
}

// cmdPNGSize checks that a file is a PNG picture of more than one colour: pngsize FILE.
func cmdPNGSize(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	defer f.Close()
	img, err := png.Decode(f)
	ts.Check(err)
	seen := map[color.Color]bool{}
	b := img.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			seen[img.At(x, y)] = true
		}
	}
	if len(seen) < 2 {
		ts.Fatalf("%s: %v of one colour", args[0], b)
	}
}

// cmdSameField checks that two JSON files have the same value: samefield FILE FILE PATH [PATH in the second].
func cmdSameField(ts *testscript.TestScript, _ bool, args []string) {
	a, b := field(ts, args[0], args[2]), field(ts, args[1], args[len(args)-1])
	if fmt.Sprint(a) != fmt.Sprint(b) {
		ts.Fatalf("%s: %v and %v", args[2], a, b)
	}
}

// cmdSpoil flips a bit in the middle of every file of a folder: spoil DIR.
func cmdSpoil(ts *testscript.TestScript, _ bool, args []string) {
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	for _, e := range entries {
		path := filepath.Join(ts.MkAbs(args[0]), e.Name())
		b, err := os.ReadFile(path)
		ts.Check(err)
		b[len(b)/2] ^= 1
		ts.Check(os.WriteFile(path, b, 0o644))
	}
}

// cmdBetter checks that a number in a JSON file is less than in another: better FILE FILE PATH.
func cmdBetter(ts *testscript.TestScript, _ bool, args []string) {
	a, b := field(ts, args[0], args[2]), field(ts, args[1], args[2])
	x, y := a.(float64), b.(float64)
	if !(x < y) {
		ts.Fatalf("%s: %v is not less than %v", args[2], x, y)
	}
}
