package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cohort-learning/cohort/federated"
)

// A client's vault stays with the simulation, whoever computes the client: a worker may be lost, and what was done once must
// stay done. So a worker asks for it, step by step.

// op is what is asked of a vault.
type op byte

const (
	opLook  op = iota // the value under a name, if there is one
	opKeep            // the same, or else this one
	opErase           // those with a prefix
	opNames           // all names
)

// ask is the head of a question about the vault of a task's client; a value follows it.
type ask struct {
	Task uint64 `json:"task"`
	Seq  uint64 `json:"seq"` // of the worker's questions
	Op   op     `json:"op"`
	Name []byte `json:"name,omitempty"`
}

// tell is the head of the answer; a value follows it.
type tell struct {
	Seq    uint64   `json:"seq"`
	Absent bool     `json:"absent,omitempty"`
	Erased bool     `json:"erased,omitempty"`
	Failed string   `json:"failed,omitempty"`
	Names  [][]byte `json:"names,omitempty"`
}

// errAbsent is what stands for a value that is still to be made.
var errAbsent = errors.New("there is no such value")

// headed puts a head before other bytes.
func headed(head any) []byte {
	b, err := json.Marshal(head)
	if err != nil {
		panic(err) // numbers, bytes and texts
	}
	return append(encodeNumber(uint64(len(b))), b...)
}

// parted reads a head, and returns what follows it.
func parted(b []byte, head any) ([]byte, error) {
	if len(b) < 8 {
		return nil, errors.New("a message without a head")
	}
	n, err := decodeNumber(b[:8])
	if b = b[8:]; err != nil || n > uint64(len(b)) {
		return nil, fmt.Errorf("a message of %d bytes with a head of %d", len(b), n)
	}
	return b[n:], json.Unmarshal(b[:n], head)
}

// answer does what is asked of a vault.
func (q ask) answer(v federated.Vault, value []byte) (t tell, out []byte) {
	t.Seq = q.Seq
	if v == nil {
		t.Failed = "this client has no vault"
		return t, nil
	}
	var err error
	switch q.Op {
	case opLook:
		out, err = v.Once(string(q.Name), func() ([]byte, error) { return nil, errAbsent })
	case opKeep:
		out, err = v.Once(string(q.Name), func() ([]byte, error) { return value, nil })
	case opErase:
		err = v.Erase(string(q.Name))
	case opNames:
		var names []string
		names, err = v.Names()
		for _, n := range names {
			t.Names = append(t.Names, []byte(n))
		}
	default:
		err = fmt.Errorf("%d is nothing that a vault does", q.Op)
	}
	switch {
	case errors.Is(err, errAbsent):
		t.Absent = true
	case errors.Is(err, federated.ErrErased):
		t.Erased, t.Failed = true, err.Error()
	case err != nil:
		t.Failed = err.Error()
	}
	return t, out
}

// told is an answer as it came.
type told struct {
	tell
	value []byte
}

// far is the vault of a task's client, at the simulation: a [federated.Vault].
type far struct {
	v    *visit
	ctx  context.Context // of the visit: a step that was begun is finished
	task uint64
}

// erasedError is [federated.ErrErased] in the words of the simulation.
type erasedError struct{ text string }

func (e *erasedError) Error() string { return e.text }
func (e *erasedError) Unwrap() error { return federated.ErrErased }

func (f far) ask(o op, name string, value []byte) (told, error) {
	c := make(chan told, 1)
	f.v.mu.Lock()
	f.v.asked++
	seq := f.v.asked
	f.v.questions[seq] = c
	f.v.mu.Unlock()
	defer func() {
		f.v.mu.Lock()
		delete(f.v.questions, seq)
		f.v.mu.Unlock()
	}()
	if err := f.v.link.send(kindAsk, headed(ask{f.task, seq, o, []byte(name)}), value); err != nil {
		return told{}, errLost
	}
	select {
	case t := <-c:
		switch {
		case t.Erased:
			return t, &erasedError{t.Failed}
		case t.Failed != "":
			return t, errors.New(t.Failed)
		}
		return t, nil
	case <-f.ctx.Done():
		return told{}, errLost
	}
}

// Once implements [federated.Vault].
func (f far) Once(name string, make func() ([]byte, error)) ([]byte, error) {
	t, err := f.ask(opLook, name, nil)
	if err != nil || !t.Absent {
		return t.value, err
	}
	b, err := make()
	if err != nil {
		return nil, err
	}
	t, err = f.ask(opKeep, name, b)
	return t.value, err
}

// Erase implements [federated.Vault].
func (f far) Erase(prefix string) error {
	_, err := f.ask(opErase, prefix, nil)
	return err
}

// Names implements [federated.Vault].
func (f far) Names() ([]string, error) {
	t, err := f.ask(opNames, "", nil)
	var names []string
	for _, n := range t.Names {
		names = append(names, string(n))
	}
	return names, err
}

// hear hands an answer to the task that waits for it.
func (v *visit) hear(b []byte) error {
	var t told
	var err error
	if t.value, err = parted(b, &t.tell); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if c := v.questions[t.Seq]; c != nil {
		delete(v.questions, t.Seq)
		c <- t
	}
	return nil
}
