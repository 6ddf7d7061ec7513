package systemtest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long a process may take for anything that it is waited for. It is no measure of speed.
const patience = 3 * time.Minute

// roleName is the variable that makes a copy of the test program play a part; see [roles].
const roleName = "COHORT_SYSTEMTEST_ROLE"

// roles are the parts that a copy of the test program can play in a process of its own: those who do what they should not.
var roles = map[string]func(args []string) error{}

func TestMain(m *testing.M) {
	if name := os.Getenv(roleName); name != "" {
		if err := roles[name](os.Args[1:]); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 2 && os.Args[1] == "trainer" { // its environment says nothing of roles
		if err := trainer(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// built is the program under test.
var built struct {
	once sync.Once
	dir  string
	err  error
}

// binary builds the program, once for all tests, and returns its path.
func binary(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "cohort-systemtest"); built.err != nil {
			return
		}
		out, err := exec.Command("go", "build", "-o", filepath.Join(built.dir, "cohort"), "../../cmd/cohort").CombinedOutput()
		if err != nil {
			built.err = fmt.Errorf("building the program: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "cohort")
}

// process is a process of a federation.
type process struct {
	name string
	cmd  *exec.Cmd
	out  *transcript
	done chan struct{}
	err  error // once done is closed
}

// start starts a process. All that it writes goes to the transcript.
func start(t *testing.T, name string, out *transcript, env []string, command ...string) *process {
	t.Helper()
	p := &process{name: name, cmd: exec.Command(command[0], command[1:]...), out: out, done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.WaitDelay = time.Second
	dieWithParent(p.cmd)
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(p.kill)
	return p
}

// kill ends the process at once (SIGKILL) and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may be gone
	<-p.done
}

// running reports whether the process has not ended.
func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// succeed waits for the process to end and fails the test unless it did so well.
func (p *process) succeed(t *testing.T) {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("%s has not ended\n%s", p.name, p.out.tail(40))
	}
	if p.err != nil {
		t.Fatalf("%s: %v\n%s", p.name, p.err, p.out.tail(40))
	}
}

// transcript is what a process, started perhaps several times, has written: in memory for the test, in a file for people.
type transcript struct {
	mu      sync.Mutex
	text    bytes.Buffer
	file    io.WriteCloser
	changed chan struct{}
}

func newTranscript(t *testing.T, path string) *transcript {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &transcript{file: f, changed: make(chan struct{})}
}

// Write implements [io.Writer].
func (s *transcript) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = s.file.Write(b) // for people only
	s.text.Write(b)
	close(s.changed)
	s.changed = make(chan struct{})
	return len(b), nil
}

func (s *transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// tail returns the last lines.
func (s *transcript) tail(n int) string {
	lines := strings.Split(strings.TrimSpace(s.String()), "\n")
	return "  " + strings.Join(lines[max(0, len(lines)-n):], "\n  ")
}

// lines returns the lines that match.
func (s *transcript) lines(pattern string) (out []string) {
	re := regexp.MustCompile(pattern)
	lines := bufio.NewScanner(strings.NewReader(s.String()))
	for lines.Scan() {
		if re.MatchString(lines.Text()) {
			out = append(out, lines.Text())
		}
	}
	return out
}

// await waits until a pattern matches so many times, and returns the matches.
func (p *process) await(t *testing.T, pattern string, n int) [][]string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	timeout := time.After(patience)
	for {
		p.out.mu.Lock()
		found := re.FindAllStringSubmatch(p.out.text.String(), -1)
		changed := p.out.changed
		p.out.mu.Unlock()
		if len(found) >= n {
			return found
		}
		select {
		case <-changed:
		case <-p.done:
			if found = re.FindAllStringSubmatch(p.out.String(), -1); len(found) >= n {
				return found
			}
			t.Fatalf("%s ended (%v) before %q came %d times\n%s", p.name, p.err, pattern, n, p.out.tail(40))
		case <-timeout:
			t.Fatalf("%s: %q has not come %d times\n%s", p.name, pattern, n, p.out.tail(40))
		}
	}
}

// run runs a command to its end and returns what it wrote.
func run(t *testing.T, command ...string) string {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
		}
		t.Fatal(err)
	}
	return string(out)
}
