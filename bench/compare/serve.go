package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/gomlx/compute"

	"github.com/cohort-learning/cohort/backend/cpu"
)

// runner is a case that is set up on our side.
type runner struct {
	step   func() error
	params int
	close  func()
	drawn  time.Duration // what drawing weights and data took
}

// server is our side of the protocol. Every case has a backend of its own, so that memory which one
// keeps for reuse does not count for the next.
type server struct {
	threads int
	backend compute.Backend
	current *runner
}

// serve answers requests until the input ends. With a profile it samples where the time goes.
func serve(in io.Reader, out io.Writer, profile string) error {
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return fmt.Errorf("profile: %w", err)
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return fmt.Errorf("profile: %w", err)
		}
		defer pprof.StopCPUProfile()
	}
	s := &server{}
	defer s.drop()
	enc := json.NewEncoder(out)
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var q request
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			return err
		}
		r, err := s.answer(q)
		if err != nil {
			r = reply{Error: err.Error()}
		}
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
	return lines.Err()
}

// answer does what one request asks for. GoMLX reports mistakes in graphs by panics.
func (s *server) answer(q request) (r reply, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	switch q.Op {
	case "hello":
		s.threads = q.Threads
		runtime.GOMAXPROCS(q.Threads)
		return reply{Name: "Cohort", Details: map[string]string{
			"go": runtime.Version(), "kernels": cpu.PathName(), "threads": strconv.Itoa(q.Threads),
		}}, nil
	case "setup":
		return s.setup(*q.Case, q.Seconds)
	case "run":
		return s.run(q.Seconds)
	case "memory":
		peak, now, err := resident()
		return reply{PeakMiB: peak, RSSMiB: now}, err
	case "drop":
		s.drop()
		return r, nil
	}
	return r, fmt.Errorf("unknown request %q", q.Op)
}

func (s *server) setup(c Case, seconds float64) (reply, error) {
	s.drop()
	start := time.Now()
	var err error
	if s.backend, err = cpu.New(cpu.Options{Threads: s.threads}); err != nil {
		return reply{}, err
	}
	x, err := newRunner(s.backend, c)
	if err != nil {
		return reply{}, err
	}
	s.current = x
	if err := x.step(); err != nil {
		return reply{}, err
	}
	first := time.Since(start) - x.drawn
	if _, err := s.run(seconds); err != nil {
		return reply{}, err
	}
	return reply{Params: x.params, FirstMS: first.Seconds() * 1e3}, nil
}

func (s *server) run(seconds float64) (reply, error) {
	if s.current == nil {
		return reply{}, fmt.Errorf("no case is set up")
	}
	var r reply
	start := time.Now()
	for {
		if err := s.current.step(); err != nil {
			return r, err
		}
		r.Steps++
		spent := time.Since(start).Seconds()
		if step := spent - r.Spent; r.Steps == 1 || step < r.Best {
			r.Best = step
		}
		r.Spent = spent
		if r.Spent >= seconds {
			return r, nil
		}
	}
}

func (s *server) drop() {
	if s.current != nil {
		s.current.close()
		s.current = nil
	}
	if s.backend != nil {
		s.backend.Finalize()
		s.backend = nil
	}
	debug.FreeOSMemory()
	// The peak of resident memory begins anew. Where that is not possible, the figure is too high.
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
}

// resident returns the peak and the present resident memory of this process in MiB.
func resident() (peak, now float64, err error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, 0, fmt.Errorf("resident memory: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		key, rest, _ := strings.Cut(line, ":")
		if key != "VmHWM" && key != "VmRSS" {
			continue
		}
		kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
		if err != nil {
			return 0, 0, fmt.Errorf("resident memory: %s: %w", strings.TrimSpace(line), err)
		}
		if key == "VmHWM" {
			peak = kib / 1024
		} else {
			now = kib / 1024
		}
	}
	return peak, now, nil
}
