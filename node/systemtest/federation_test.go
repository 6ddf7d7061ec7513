package systemtest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/transport/transporttest"
)

// federation is a coordinator and its members, each a process of the real program.
type federation struct {
	t       *testing.T
	program string
	dir     string // of everything
	recipe  string
	export  string // the members' data
	url     string
	listen  string
	serve   []string                  // further arguments of the coordinator
	wrap    func(who string) []string // what the command of a process begins with, such as a namespace; nil: nothing
	env     []string                  // of all processes
	began   time.Time
	story   []string // what happened, for people

	coordinator *process
	coordOut    *transcript
	members     []*party
}

// party is a member.
type party struct {
	*process
	name   string
	dir    string
	data   string
	out    *transcript
	token  string
	role   string   // of this test program, instead of the real one
	args   []string // further arguments of join
	joined bool
}

// newFederation makes folders for a run of the recipe and deals its data. The run has the name "run".
func newFederation(t *testing.T, recipe string, members int) *federation {
	t.Helper()
	f := &federation{t: t, program: binary(t), dir: t.TempDir(), began: time.Now()}
	if keep := os.Getenv("COHORT_KEEP"); keep != "" {
		f.dir = filepath.Join(keep, strings.ReplaceAll(t.Name(), "/", "-"))
		if err := os.MkdirAll(f.dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f.recipe, f.export = filepath.Join(f.dir, "run.yaml"), filepath.Join(f.dir, "shares")
	if err := os.WriteFile(f.recipe, []byte("name: run\n"+recipe), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, f.program, "partition", f.recipe, "--export", f.export)
	f.listen = "127.0.0.1:" + strconv.Itoa(freePort(t))
	f.url = "https://" + f.listen
	for i := range members {
		name := fmt.Sprintf("client-%03d", i)
		f.members = append(f.members, &party{name: name, dir: filepath.Join(f.dir, name), data: filepath.Join(f.export, fmt.Sprintf("member-%03d", i))})
	}
	return f
}

// freePort is [transporttest.FreePort].
func freePort(t *testing.T) int {
	t.Helper()
	port, err := transporttest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// say notes what happens.
func (f *federation) say(format string, args ...any) {
	line := fmt.Sprintf("%6.1f s  %s", time.Since(f.began).Seconds(), fmt.Sprintf(format, args...))
	f.story = append(f.story, line)
	f.t.Log(line)
}

func (f *federation) command(who string, args ...string) []string {
	if f.wrap == nil {
		return args
	}
	return append(f.wrap(who), args...)
}

// open starts the coordinator for the first time and invites the members.
func (f *federation) open() {
	f.t.Helper()
	f.coordOut = newTranscript(f.t, filepath.Join(f.dir, "coordinator.log"))
	var names []string
	for _, m := range f.members {
		names = append(names, m.name)
	}
	f.launch("--invite", strings.Join(names, ","))
	for i, found := range f.coordinator.await(f.t, `(?m)cohort join (cohort1_\S+)`, len(names)) {
		f.members[i].token = found[1]
	}
}

// launch starts the coordinator.
func (f *federation) launch(more ...string) {
	f.t.Helper()
	args := []string{f.program, "serve", f.recipe, "--dir", filepath.Join(f.dir, "server"), "--listen", f.listen, "--url", f.url}
	args = append(append(args, f.serve...), more...)
	f.coordinator = start(f.t, "coordinator", f.coordOut, f.env, f.command("coordinator", args...)...)
}

// killCoordinator kills it and starts it again.
func (f *federation) killCoordinator(pause time.Duration) {
	f.t.Helper()
	f.coordinator.kill()
	time.Sleep(pause)
	f.launch()
}

// join starts a member, for the first time or again.
func (f *federation) join(m *party) {
	f.t.Helper()
	if m.out == nil {
		m.out = newTranscript(f.t, filepath.Join(f.dir, m.name+".log"))
	}
	env := slices.Clone(f.env)
	var args []string
	switch {
	case m.role != "":
		env = append(env, roleName+"="+m.role)
		self, err := os.Executable()
		if err != nil {
			f.t.Fatal(err)
		}
		args = []string{self, m.token, m.dir, m.data}
	case m.joined:
		args = []string{f.program, "join", "--dir", m.dir, "--threads", "1"}
	default:
		args = append([]string{f.program, "join", m.token, "--dir", m.dir, "--data", m.data, "--threads", "1"}, m.args...)
	}
	m.joined = true
	m.process = start(f.t, m.name, m.out, env, f.command(m.name, args...)...)
}

// joinAll starts all members.
func (f *federation) joinAll() {
	f.t.Helper()
	for _, m := range f.members {
		f.join(m)
	}
}

// finish waits until the coordinator and all members have ended well.
func (f *federation) finish() {
	f.t.Helper()
	for begin := time.Now(); f.coordinator.running() && time.Since(begin) < patience; time.Sleep(10 * time.Millisecond) {
		for _, m := range f.members {
			if m.process != nil && !m.running() && m.err != nil { // the run may wait for it for ever
				f.t.Fatalf("%s: %v\n%s", m.name, m.err, m.out.tail(40))
			}
		}
	}
	f.coordinator.succeed(f.t)
	for _, m := range f.members {
		if m.process != nil {
			m.succeed(f.t)
		}
	}
}

// run is the folder of the run.
func (f *federation) run() string { return filepath.Join(f.dir, "server", "runs", "run") }

// simulate computes the recipe in one process and returns the digest of its last state.
func (f *federation) simulate() string {
	f.t.Helper()
	dir := filepath.Join(f.dir, "simulation")
	run(f.t, f.program, "run", f.recipe, "--quiet", "--dir", dir)
	return digestOf(f.t, dir)
}

// verify computes the run again from its journal and the members' data.
func (f *federation) verify() string {
	f.t.Helper()
	out := run(f.t, f.program, "verify", f.run(), "--data", f.export)
	if !strings.Contains(out, "come out to the same bits") {
		f.t.Fatalf("verify says\n%s", out)
	}
	return strings.TrimSpace(out)
}

// record is a line of a journal.
type record struct {
	Seq  int             `json:"seq"`
	Kind string          `json:"kind"`
	Body json.RawMessage `json:"body"`
}

// journal reads the records of a run so far.
func journal(t *testing.T, dir string) (out []record) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "journal.jsonl"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // not yet
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var r record
		if json.Unmarshal(lines.Bytes(), &r) == nil {
			out = append(out, r)
		}
	}
	return out
}

// digestOf returns the digest of the last state of a run that has ended.
func digestOf(t *testing.T, dir string) string {
	t.Helper()
	all := journal(t, dir)
	if len(all) == 0 {
		t.Fatalf("%s has no journal", dir)
	}
	last := all[len(all)-1]
	var end struct {
		Digest string `json:"digest"`
	}
	if err := json.Unmarshal(last.Body, &end); err != nil || last.Kind != "run.ended" || end.Digest == "" {
		t.Fatalf("%s ends with %s %s", dir, last.Kind, last.Body)
	}
	return end.Digest
}

// length is how many records the journal of the run has.
func (f *federation) length() int {
	text, err := os.ReadFile(filepath.Join(f.run(), "journal.jsonl"))
	if err != nil {
		return 0
	}
	return bytes.Count(text, []byte("\n"))
}

// reach waits until the journal has so many records, or the coordinator has ended. It reports which.
func (f *federation) reach(n int) bool {
	f.t.Helper()
	for begin := time.Now(); f.length() < n; time.Sleep(2 * time.Millisecond) {
		if !f.coordinator.running() {
			if f.coordinator.err != nil {
				f.t.Fatalf("the coordinator ended: %v\n%s", f.coordinator.err, f.coordOut.tail(40))
			}
			return false
		}
		if time.Since(begin) > patience {
			f.t.Fatalf("the journal has come to record %d and not to %d\n%s", f.length(), n, f.coordOut.tail(40))
		}
	}
	return true
}

// round is the round under way, from 1.
func (f *federation) round() int {
	n := 1
	for _, r := range journal(f.t, f.run()) {
		if r.Kind == "round.closed" {
			n++
		}
	}
	return n
}

// brief skips a test that takes more than a few seconds if tests are to be short.
func brief(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes some seconds; left out by -short")
	}
}

// seed returns the seed of what is drawn at random.
func seed(t *testing.T) *rand.Rand {
	t.Helper()
	n := rand.Uint64N(1 << 32)
	if text := os.Getenv("COHORT_SEED"); text != "" {
		var err error
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("COHORT_SEED: %v", err)
		}
	}
	t.Logf("seed %d (COHORT_SEED=%d draws the same)", n, n)
	return rand.New(rand.NewPCG(n, 0))
}

// system skips a test that takes a minute or more unless such tests are asked for.
func system(t *testing.T) {
	t.Helper()
	if os.Getenv("COHORT_SYSTEM") == "" || testing.Short() {
		t.Skip("a minute or two: COHORT_SYSTEM=1 runs it")
	}
}
