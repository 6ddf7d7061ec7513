package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

// The line protocol: one JSON request a line on the standard input of a side, one JSON reply a
// line on its standard output. Both sides are processes of their own, so that neither's threads
// and memory disturb the other's.
//
//	hello   {threads}         → {name, details}
//	setup   {case, seconds}   → {params, first_ms, note}   builds the case, runs and warms it up
//	run     {seconds}         → {steps, spent, best}       repeats it for that long, at least once
//	memory  {}                → {peak_mib, rss_mib}        resident memory: peak since setup, and now
//	drop    {}                → {}                         frees the case
//
// A reply with a field error means that the request failed; the next one may succeed.
type request struct {
	Op      string  `json:"op"`
	Threads int     `json:"threads,omitempty"`
	Case    *Case   `json:"case,omitempty"`
	Seconds float64 `json:"seconds"`
}

type reply struct {
	Error   string            `json:"error,omitempty"`
	Name    string            `json:"name,omitempty"`
	Details map[string]string `json:"details,omitempty"`
	Params  int               `json:"params,omitempty"`
	FirstMS float64           `json:"first_ms,omitempty"`
	Note    string            `json:"note,omitempty"`
	Steps   int               `json:"steps,omitempty"`
	Spent   float64           `json:"spent,omitempty"` // seconds of all steps
	Best    float64           `json:"best,omitempty"`  // seconds of the fastest step
	PeakMiB float64           `json:"peak_mib,omitempty"`
	RSSMiB  float64           `json:"rss_mib,omitempty"`
}

// side is a process that serves cases.
type side struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startSide starts the command; its standard error goes to ours.
func startSide(name string, args ...string) (*side, error) {
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return &side{cmd: cmd, in: in, out: bufio.NewReader(out)}, nil
}

// ask sends a request and waits for the reply.
func (s *side) ask(q request) (reply, error) {
	var r reply
	line, err := json.Marshal(q)
	if err != nil {
		return r, err
	}
	if _, err := s.in.Write(append(line, '\n')); err != nil {
		return r, fmt.Errorf("%s: send %s: %w", s.cmd.Path, q.Op, err)
	}
	answer, err := s.out.ReadBytes('\n')
	if err != nil {
		return r, fmt.Errorf("%s: no answer to %s: %w", s.cmd.Path, q.Op, err)
	}
	if err := json.Unmarshal(answer, &r); err != nil {
		return r, fmt.Errorf("%s: answer to %s: %w", s.cmd.Path, q.Op, err)
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}

// stop ends the process.
func (s *side) stop() {
	s.in.Close()
	_ = s.cmd.Wait()
}
