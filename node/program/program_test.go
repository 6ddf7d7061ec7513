package program_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/node/program"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/train"
)

const small = `
rounds: 2
data: {name: glyphs, size: 8, train: 120, test: 60}
partition: {name: classes, clients: 5, per_client: 2}
model: {name: cnn, widths: [4, 8]}
round: {fraction: 1}
train: {batch: 5}
`

// bench is one member of a federation, with its data in a folder of its own.
type bench struct {
	dir    string // recipe.yaml, schema.json
	data   string
	plan   *recipe.MemberPlan
	engine *train.Engine
	method federated.Algorithm
	state  federated.State
	phase  federated.Phase
	member federated.Member
}

func newBench(t *testing.T, text string) *bench {
	t.Helper()
	ctx, b := t.Context(), &bench{dir: t.TempDir()}
	r, err := recipe.Parse("test", []byte(text))
	check(t, err)
	server, err := r.PlanServer(ctx, recipe.ServerData{})
	check(t, err)
	schema, err := json.Marshal(server.Schema)
	check(t, err)
	check(t, os.WriteFile(filepath.Join(b.dir, "recipe.yaml"), r.YAML(), 0o600))
	check(t, os.WriteFile(filepath.Join(b.dir, "schema.json"), schema, 0o600))
	split, dealt, err := r.Deal(ctx, "")
	check(t, err)
	m, err := dealt.Export(ctx, filepath.Join(b.dir, "shares"), split.Train, split.Test)
	check(t, err)
	b.member = federated.Member{Index: 2, Name: m.Members[2].Name, Samples: m.Members[2].Train}
	b.data = filepath.Join(b.dir, "shares", m.Members[2].Folder)
	mine, err := r.LoadMember(ctx, b.data, server.Schema)
	check(t, err)
	b.plan, err = r.PlanMember(server.Schema, mine, nil)
	check(t, err)
	b.engine, _, err = r.Engine()
	check(t, err)
	t.Cleanup(b.engine.Close)
	b.method, err = server.Algorithm()
	check(t, err)
	b.state, err = b.method.Init(ctx, server.Server(b.engine, five{}))
	check(t, err)
	b.phase, _ = b.method.Next(b.state)
	return b
}

// five members.
type five struct{}

func (five) Len() int                      { return 5 }
func (five) Member(i int) federated.Member { return federated.Member{Index: i} }

func (b *bench) task(t *testing.T) federated.Task {
	t.Helper()
	task, err := b.method.Task(b.state, b.phase, b.member)
	check(t, err)
	task.Phase = b.phase.Name
	return task
}

// options run this test binary in a mode.
func (b *bench) options(t *testing.T, mode string, args ...string) program.Options {
	t.Helper()
	self, err := os.Executable()
	check(t, err)
	return program.Options{Command: append([]string{self, "trainer", mode}, args...), Data: b.data, Dir: t.TempDir()}
}

func (b *bench) client(t *testing.T, o program.Options) *program.Client {
	t.Helper()
	c, err := program.New(b.plan, o)
	check(t, err)
	return c
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A program that does what our own client does gives the same result bit for bit.
func TestRoundTrip(t *testing.T) {
	for name, text := range map[string]string{
		"fedavg":   "method: fedavg" + small,
		"fedprox":  "method: fedprox" + small + "options: {mu: 0.5}\n",
		"fedadam":  "method: fedadam" + small,
		"heterofl": "method: heterofl" + small + "options: {mode: a1-c2, levels: fixed}\n",
		"fedrolex": "method: fedrolex" + small + "options: {mode: a1-c2, levels: fixed}\n",
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, text)
			task := b.task(t)
			at := b.plan.Local(b.engine, b.member)
			want, err := b.method.Client().Run(t.Context(), at, task, nil)
			check(t, err)
			o := b.options(t, "faithful", b.dir)
			got, err := b.client(t, o).Run(t.Context(), at, task, nil)
			check(t, err)
			if !got.Addends["w"].Equal(want.Addends["w"]) || got.Weight != want.Weight {
				t.Errorf("weight %d, want %d; or other deltas", got.Weight, want.Weight)
			}
			for k, v := range want.Scalars {
				if got.Scalars[k] != v {
					t.Errorf("%s is %v, want %v", k, got.Scalars[k], v)
				}
			}
			a, err := json.Marshal(got.Cover)
			check(t, err)
			c, err := json.Marshal(want.Cover)
			check(t, err)
			if string(a) != string(c) {
				t.Errorf("covers %s, want %s", a, c)
			}
			if left, err := os.ReadDir(o.Dir); err != nil || len(left) > 0 {
				t.Errorf("work folders are left: %v %v", left, err)
			}
		})
	}
}

// Where only the program can read the data, it says which classes there are; other phases are abstained from.
func TestUnreadableData(t *testing.T) {
	b := newBench(t, "method: heterofl"+small+"options: {mode: a1-c2, levels: fixed}\n")
	at := federated.Local{Member: b.member, Engine: b.engine}
	if _, err := b.client(t, b.options(t, "copy")).Run(t.Context(), at, b.task(t), nil); err == nil || !strings.Contains(err.Error(), `no "labels"`) {
		t.Errorf("without labels: %v", err)
	}
	c := b.client(t, b.options(t, "labels"))
	r, err := c.Run(t.Context(), at, b.task(t), nil)
	check(t, err)
	if got := r.Cover["linear.bias"][0].Positions(10); !slices.Equal(got, []int32{0, 2}) {
		t.Errorf("rows %v of the output layer count, want 0 and 2", got)
	}
	for _, phase := range []string{"eval", "stats"} {
		task := b.task(t)
		task.Phase = phase
		if r, err := c.Run(t.Context(), at, task, nil); err != nil || r.Status != federated.Abstained {
			t.Errorf("%s: status %v, error %v", phase, r.Status, err)
		}
	}
	// Data that can be read are evaluated by our own client.
	task, err := b.method.Task(b.state, federated.Phase{Name: "stats"}, b.member)
	check(t, err)
	task.Phase = "stats"
	if r, err := c.Run(t.Context(), b.plan.Local(b.engine, b.member), task, nil); err != nil || r.Scalars["batches"] == 0 {
		t.Errorf("statistics: %+v, error %v", r, err)
	}
}

// Whatever a program gets wrong is an error that says what.
func TestOutputIsChecked(t *testing.T) {
	b := newBench(t, "method: fedavg"+small)
	at := b.plan.Local(b.engine, b.member)
	for mode, want := range map[string]string{
		"boasts":         "counts 1000 examples, more than the 24",
		"silent":         "wrote no result.json",
		"no update":      "wrote no update.safetensors",
		"words":          "result.json cannot be understood",
		"not a number":   "result.json cannot be understood",
		"strange labels": "label 99, outside 0..9",
		"diverged":       "conv1.weight",
		"other shape":    `tensor "conv1.weight" is [1 1], [4 1 3 3] was sent`,
		"other type":     "update.safetensors",
		"one less":       `tensor "conv1.weight" is missing`,
		"one more":       `tensor "extra" was not sent`,
		"no tensors":     "update.safetensors",
		"huge":           "update.safetensors has 1073741824 bytes",
		"symbolic link":  "update.safetensors is not an ordinary file",
		"hard link":      "update.safetensors is a hard link",
		"folder":         "update.safetensors is not an ordinary file",
		"talks":          "exit status 3; it last printed:",
		"fills the disk": "work folder holds",
	} {
		t.Run(mode, func(t *testing.T) {
			if runtime.GOOS == "windows" && strings.Contains(mode, "link") {
				t.Skip("links need rights there")
			}
			o := b.options(t, mode)
			o.Disk, o.Log, o.LogBytes = 1<<20, filepath.Join(t.TempDir(), "log"), 1<<16
			if mode == "huge" {
				o.Disk = 1 << 32
			}
			r, err := b.client(t, o).Run(t.Context(), at, b.task(t), nil)
			var failure *program.Failure
			if !errors.As(err, &failure) || !strings.Contains(err.Error(), want) {
				t.Fatalf("%+v, error %v, want %s", r, err, want)
			}
			if left, _ := os.ReadDir(o.Dir); len(left) > 0 {
				t.Errorf("work folders are left: %v", left)
			}
			if mode == "talks" {
				st, err := os.Stat(o.Log)
				check(t, err)
				if st.Size() > 1<<16+100 || len(err2string(failure)) > 20<<10 || !strings.HasSuffix(failure.Error(), "the GPU is on fire") || strings.Contains(failure.Reason, "GPU") {
					t.Errorf("log of %d bytes, error of %d: …%.100s", st.Size(), len(failure.Error()), failure.Reason)
				}
			}
		})
	}
	r, err := b.client(t, b.options(t, "abstain")).Run(t.Context(), at, b.task(t), nil)
	if err != nil || r.Status != federated.Abstained {
		t.Errorf("no examples: %+v, error %v", r, err)
	}
}

func err2string(err error) string { return err.Error() }

// The program sees its folder, a handful of variables, its own arguments, and nothing else.
func TestIsolation(t *testing.T) {
	t.Setenv("COHORT_SECRET", "x")
	t.Setenv("PASSED_ON", "y")
	t.Setenv("LANG", "C.UTF-8")
	b := newBench(t, "method: fedavg"+small)
	file := filepath.Join(t.TempDir(), "seen")
	o := b.options(t, "looks around", file)
	o.Env = []string{"PASSED_ON"}
	secret, err := os.Open(filepath.Join(b.dir, "schema.json"))
	check(t, err)
	defer secret.Close()
	_, err = b.client(t, o).Run(t.Context(), b.plan.Local(b.engine, b.member), b.task(t), nil)
	check(t, err)
	text, err := os.ReadFile(file)
	check(t, err)
	var seen struct {
		Environment, Arguments, Open, Inside []string
		Folder                               string
	}
	check(t, json.Unmarshal(text, &seen))
	names := []string{"COHORT_TASK", "HOME", "LANG", "PASSED_ON", "PATH", "TMPDIR", "SystemRoot", "TEMP", "TMP", "PWD"}
	for _, v := range seen.Environment {
		if name, _, _ := strings.Cut(v, "="); !slices.Contains(names, name) {
			t.Errorf("the program sees %s", v)
		}
	}
	if !slices.Equal(seen.Arguments, []string{"trainer", "looks around", file}) || !strings.HasPrefix(seen.Folder, o.Dir) {
		t.Errorf("started as %q in %s", seen.Arguments, seen.Folder)
	}
	if !slices.Equal(seen.Inside, []string{".", "task.json", "weights.safetensors"}) {
		t.Errorf("its folder holds %v", seen.Inside)
	}
	for _, f := range seen.Open {
		if strings.Contains(f, "schema.json") || strings.Contains(f, "socket") {
			t.Errorf("it has inherited %s", f)
		}
	}
}

// awaitFile waits until a program has written a file.
func awaitFile(t *testing.T, path string) []byte {
	t.Helper()
	for range 1000 {
		if b, err := os.ReadFile(path); err == nil {
			return b
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("nothing has come to %s", path)
	return nil
}

func TestCancel(t *testing.T) {
	b := newBench(t, "method: fedavg"+small)
	at := b.plan.Local(b.engine, b.member)
	file := filepath.Join(t.TempDir(), "started")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for ctx.Err() == nil {
			if _, err := os.Stat(file); err == nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	if _, err := b.client(t, b.options(t, "sleep", file)).Run(ctx, at, b.task(t), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	o := b.options(t, "sleep", file)
	o.Time = 50 * time.Millisecond
	var failure *program.Failure
	if _, err := b.client(t, o).Run(t.Context(), at, b.task(t), nil); !errors.As(err, &failure) || !strings.Contains(err.Error(), "had not ended after 50ms") {
		t.Errorf("out of time: %v", err)
	}
}

// What a program leaves behind is killed, and does not hold up the answer.
func TestChildrenAreKilled(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("looks into /proc")
	}
	b := newBench(t, "method: fedavg"+small)
	file := filepath.Join(t.TempDir(), "child")
	_, err := b.client(t, b.options(t, "leaves a child", file)).Run(t.Context(), b.plan.Local(b.engine, b.member), b.task(t), nil)
	check(t, err)
	pid := string(awaitFile(t, file))
	if _, err := strconv.Atoi(pid); err != nil {
		t.Fatal(err)
	}
	for range 500 {
		status, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil || strings.Contains(string(status), ") Z ") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %s lives on", pid)
}

func TestMemory(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("memory is limited on Linux only")
	}
	b := newBench(t, "method: fedavg"+small)
	o := b.options(t, "fills memory")
	o.Memory = 2 << 30
	c := b.client(t, o)
	t.Log(c.Limits())
	var failure *program.Failure
	if _, err := c.Run(t.Context(), b.plan.Local(b.engine, b.member), b.task(t), nil); !errors.As(err, &failure) || !strings.Contains(err.Error(), "memory") {
		t.Errorf("too much memory: %v", err)
	}
}

func TestUser(t *testing.T) {
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("only root can run programs as another user")
	}
	b := newBench(t, "method: fedavg"+small)
	log := filepath.Join(t.TempDir(), "log")
	dir, err := os.MkdirTemp("", "cohort-test-") // t.TempDir is closed to others
	check(t, err)
	defer os.RemoveAll(dir)
	check(t, os.Chmod(dir, 0o711))
	o := program.Options{Data: b.data, User: "nobody", Log: log, Dir: dir, Command: []string{"/bin/sh", "-c",
		`id -u; cat ` + filepath.Join(b.dir, "recipe.yaml") + `; cp weights.safetensors update.safetensors; echo '{"examples":1}' >result.json`}}
	_, err = b.client(t, o).Run(t.Context(), b.plan.Local(b.engine, b.member), b.task(t), nil)
	check(t, err)
	text, err := os.ReadFile(log)
	check(t, err)
	if !strings.HasPrefix(string(text), "65534\n") || strings.Contains(string(text), "fedavg") {
		t.Errorf("the program printed %q: it ran as another user than nobody, or read a file of root's", text)
	}
	o.User = "no such user"
	if _, err := program.New(b.plan, o); err == nil {
		t.Error("an unknown user was accepted")
	}
}

// Methods whose members do more than train are refused at once, and so is what cannot be run.
func TestRefusals(t *testing.T) {
	for method, why := range map[string]string{
		"scaffold": "keep something of their own", "fedbn": "keep something of their own", "fjord": "redraws the width",
	} {
		text := "method: " + method + strings.ReplaceAll(small, "train: {batch: 5}", "train: {batch: 5, optimizer: {name: sgd, rate: 0.1}}")
		r, err := recipe.Parse("test", []byte(text))
		check(t, err)
		server, err := r.PlanServer(t.Context(), recipe.ServerData{})
		check(t, err)
		plan, err := r.PlanMember(server.Schema, nil, nil)
		check(t, err)
		var unfit *program.UnfitError
		if _, err := program.New(plan, program.Options{Command: []string{os.Args[0]}}); !errors.As(err, &unfit) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want %s", method, err, why)
		}
	}
	b := newBench(t, "method: fedavg"+small)
	for want, o := range map[string]program.Options{
		"no program to run": {}, `the program "no-such-program-here" cannot be run`: {Command: []string{"no-such-program-here"}},
		"none may be negative": {Command: []string{os.Args[0]}, Disk: -1},
	} {
		if _, err := program.New(b.plan, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestSplit(t *testing.T) {
	for line, want := range map[string][]string{
		"python train.py":            {"python", "train.py"},
		`  a "b c"  'd "e' f\ g `:    {"a", "b c", `d "e`, "f g"},
		`a '' "" "x\"y" 'p\q' a"b"c`: {"a", "", "", `x"y`, `p\q`, "abc"},
		"a $HOME `ls` *;b":           {"a", "$HOME", "`ls`", "*;b"},
	} {
		if got, err := program.Split(line); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q is %q, error %v", line, got, err)
		}
	}
	for _, line := range []string{"", "  ", `a "b`, `a \`} {
		if got, err := program.Split(line); err == nil {
			t.Errorf("%q is %q", line, got)
		}
	}
}
