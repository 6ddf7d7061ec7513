package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	keptBytes = 8 << 10 // of what the program prints last
	keptLines = 20
	// linger is how long output of children is waited for that the program has left behind.
	linger = 2 * time.Second
	// glance is the time between two looks at the work folder.
	glance = 250 * time.Millisecond
)

// environment is the whole environment of the program: PATH, HOME and TMPDIR (the work folder), LANG, COHORT_TASK (the path of
// task.json), and what the user names.
func (r *Runner) environment(w *workspace) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.work, "TMPDIR=" + w.work, "COHORT_TASK=" + filepath.Join(w.work, taskFile)}
	for _, name := range append([]string{"LANG"}, append(systemEnv(), r.o.Env...)...) {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// execute runs the program and returns the last lines that it printed. Its error is a [Failure], or that it could not be run.
func (r *Runner) execute(ctx context.Context, w *workspace) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if r.o.Time > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, r.o.Time, fmt.Errorf("it had not ended after %v", r.o.Time))
		defer cancel()
	}
	out, err := newOutput(r.o)
	if err != nil {
		return nil, err
	}
	defer out.close()
	cmd := exec.CommandContext(ctx, r.path, r.args...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = w.work, r.environment(w), linger
	cmd.Stdout, cmd.Stderr = out, out // of one writer there is one pipe, and lines keep their order
	started := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		<-started
		w.watch(ctx, stop)
	}()
	err = r.limits.run(cmd, func() { close(started) })
	cause := context.Cause(ctx)
	stop(nil)
	select {
	case <-started:
	default:
		close(started)
	}
	<-watched
	lines := out.last()
	if errors.Is(err, exec.ErrWaitDelay) && cmd.ProcessState.Success() {
		err = nil // it ended well, but left something behind that held its output; that has been killed
	}
	var exit *exec.ExitError
	var memory *memoryError
	switch size, files := w.used(); {
	case cause != nil && err != nil:
		return lines, &Failure{"the program was killed: " + cause.Error(), lines}
	case errors.As(err, &memory):
		return lines, &Failure{"the program was killed: " + memory.Error(), lines}
	case errors.As(err, &exit):
		return lines, &Failure{"the program failed: " + exit.ProcessState.String() + r.limits.why(w, exit), lines}
	case err != nil:
		return lines, fmt.Errorf("running the program %s: %w%s", r.path, err, r.limits.hint(err))
	case size > w.disk || files > maxFiles:
		return lines, &Failure{w.overflow(size, files).Error(), lines}
	}
	return lines, nil
}

// memoryError tells that the kernel ended a program for its memory.
type memoryError struct {
	limit int64
	err   error
}

func (e *memoryError) Error() string {
	return fmt.Sprintf("it used more than %d bytes of memory", e.limit)
}
func (e *memoryError) Unwrap() error { return e.err }

// watch stops the program when its work folder grows too large.
func (s *workspace) watch(ctx context.Context, stop context.CancelCauseFunc) {
	tick := time.NewTicker(glance)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if size, files := s.used(); size > s.disk || files > maxFiles {
				stop(s.overflow(size, files))
				return
			}
		}
	}
}

func (s *workspace) overflow(size int64, files int) error {
	if files > maxFiles {
		return fmt.Errorf("its work folder holds more than %d files", maxFiles)
	}
	return fmt.Errorf("its work folder holds %d bytes, %d are allowed", size, s.disk)
}

// output takes what the program prints: to a log file of bounded size, and the last of it for errors.
type output struct {
	mu   sync.Mutex
	file *os.File // nil: no log
	left int64
	tail []byte
}

// newOutput opens the log file. One that is full makes room: it becomes log.1.
func newOutput(o Options) (*output, error) {
	out := &output{left: o.LogBytes}
	if out.left == 0 {
		out.left = defaultLog
	}
	if o.Log == "" {
		return out, nil
	}
	if st, err := os.Stat(o.Log); err == nil && st.Size() >= out.left/2 {
		if err := os.Rename(o.Log, o.Log+".1"); err != nil {
			return nil, fmt.Errorf("log of the program: %w", err)
		}
	} else if err == nil {
		out.left -= st.Size()
	}
	f, err := os.OpenFile(o.Log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log of the program: %w", err)
	}
	out.file = f
	return out, nil
}

// Write never fails, so that a full disk here does not stop the program.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.file != nil && o.left > 0 {
		n, _ := o.file.Write(p[:min(int64(len(p)), o.left)])
		if o.left -= int64(n); o.left <= 0 {
			_, _ = io.WriteString(o.file, "\n… more was printed than the log takes\n")
		}
	}
	o.tail = append(o.tail, p[max(0, len(p)-keptBytes):]...)
	if len(o.tail) > 2*keptBytes {
		o.tail = append([]byte(nil), o.tail[len(o.tail)-keptBytes:]...)
	}
	return len(p), nil
}

func (o *output) close() {
	if o.file != nil {
		_ = o.file.Close()
	}
}

// last returns the last lines, without control characters.
func (o *output) last() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	text := bytes.TrimSpace(o.tail[max(0, len(o.tail)-keptBytes):])
	if len(text) == 0 {
		return nil
	}
	clean := strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r >= ' ' && r != 0x7f && r != '\ufffd' {
			return r
		}
		return -1
	}, string(text))
	lines := strings.Split(clean, "\n")
	return lines[max(0, len(lines)-keptLines):]
}
