package program

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Runner runs one program, any number of times and at once, each time in a private folder of its own and within limits.
type Runner struct {
	o      Options
	path   string   // of the program
	args   []string // its arguments
	limits limits
}

// NewRunner returns what runs a program. It fails if there is no such program, or if a limit cannot be kept on this system.
func NewRunner(o Options) (*Runner, error) {
	r := &Runner{o: o}
	var err error
	if r.path, r.args, err = resolve(o.Command); err != nil {
		return nil, err
	}
	if abs, err := filepath.Abs(o.Data); err == nil && o.Data != "" {
		if _, err := os.Stat(abs); err == nil {
			r.o.Data = abs
		}
	}
	if o.Time < 0 || o.Memory < 0 || o.Disk < 0 || o.LogBytes < 0 {
		return nil, fmt.Errorf("limits of the program: time %v, memory %d, disk %d, log %d: none may be negative", o.Time, o.Memory, o.Disk, o.LogBytes)
	}
	if r.limits, err = newLimits(o); err != nil {
		return nil, err
	}
	return r, nil
}

// Run runs the program once: fill puts files, one of them task.json, into its folder, and read takes what it has written there.
// Open opens an ordinary file (no link) of at most limit bytes. What is wrong with the program, or with what it wrote, is a
// [Failure].
func (r *Runner) Run(ctx context.Context, fill func(dir string) error, read func(open func(name string, limit int64) (*os.File, int64, error)) error) (err error) {
	w, err := r.workspace(fill)
	if err != nil {
		return fmt.Errorf("preparing the work folder of the program: %w", err)
	}
	defer func() { err = errors.Join(err, w.remove()) }()
	lines, err := r.execute(ctx, w)
	if err != nil {
		return err
	}
	if err := read(w.open); err != nil {
		return blame(err, lines)
	}
	return nil
}

// blame tells that a program ended well and did not do what it should have.
func blame(err error, lines []string) error {
	return &Failure{"the program ended well, but " + err.Error(), lines}
}

// Limits says in words which limits are kept, and by what.
func (r *Runner) Limits() string {
	words := []string{"no limit of time but the round's"}
	if r.o.Time > 0 {
		words[0] = fmt.Sprintf("%v a task", r.o.Time)
	}
	words = append(words, r.limits.String())
	if r.o.User != "" {
		words = append(words, "as user "+r.o.User)
	}
	return strings.Join(words, ", ")
}

// resolve finds the program and makes paths independent of the folder that it runs in.
func resolve(command []string) (path string, args []string, err error) {
	if len(command) == 0 || command[0] == "" {
		return "", nil, errors.New("there is no program to run: give a command such as \"python train.py\"")
	}
	if path, err = exec.LookPath(command[0]); err == nil || errors.Is(err, exec.ErrDot) {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return "", nil, fmt.Errorf("the program %q cannot be run: %w", command[0], err)
	}
	for _, a := range command[1:] {
		if _, err := os.Stat(a); err == nil && a != "" && !filepath.IsAbs(a) {
			if a, err = filepath.Abs(a); err != nil {
				return "", nil, err
			}
		}
		args = append(args, a)
	}
	return path, args, nil
}
