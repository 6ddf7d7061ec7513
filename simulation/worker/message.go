package worker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/weights"
)

// Protocol is the version of the messages. Hosts and workers of different ones do not work together.
const Protocol = 1

// Machine is what two machines must have in common to compute the same bits.
type Machine struct {
	Version string `json:"version"` // of the program
	Arch    string `json:"arch"`    // of the processor; empty: this process's
	Engine  string `json:"engine"`
	Kernels string `json:"kernels"`
}

func (m Machine) here() Machine {
	if m.Arch == "" {
		m.Arch = runtime.GOARCH
	}
	return m
}

// differs says in words what keeps a worker from computing the bits of the host, or "".
func (m Machine) differs(worker Machine) string {
	switch {
	case m.Version != worker.Version:
		return fmt.Sprintf("the simulation runs cohort %s, the worker %s: use the same on both", m.Version, worker.Version)
	case m.Engine != worker.Engine:
		return fmt.Sprintf("the simulation computes with engine %s (%s), the worker with %s (%s), which gives other bits: start the worker with --backend %s",
			m.Engine, m.Kernels, worker.Engine, worker.Kernels, m.Engine)
	case m.Kernels != worker.Kernels || m.Arch != worker.Arch:
		return fmt.Sprintf("the simulation computes with the kernels %s on %s, the worker with %s on %s, which gives other bits: use the same kind of processor, or set COHORT_CPU on both to kernels that both have",
			m.Kernels, m.Arch, worker.Kernels, worker.Arch)
	}
	return ""
}

// proofLen is the length of a proof, which begins a hello.
const proofLen = 32

// hello is what a worker says of itself.
type hello struct {
	Protocol int     `json:"protocol"`
	Machine  Machine `json:"machine"`
	Name     string  `json:"name"`
	ID       string  `json:"id"` // drawn once a process, so that a worker that comes back is known
	Threads  int     `json:"threads"`
}

// maxThreads bounds what a worker may claim.
const maxThreads = 4096

func decodeHello(b []byte) (proof []byte, h hello, err error) {
	if len(b) < proofLen {
		return nil, h, errors.New("a hello without a proof")
	}
	if err := json.Unmarshal(b[proofLen:], &h); err != nil {
		return nil, h, fmt.Errorf("hello: %w", err)
	}
	if h.Threads < 1 || h.Threads > maxThreads {
		return nil, h, fmt.Errorf("hello: %d threads", h.Threads)
	}
	return b[:proofLen], h, nil
}

// welcome is what a host says of its run.
type welcome struct {
	Seed   uint64     `json:"seed"`
	Recipe string     `json:"recipe"`
	Like   form       `json:"like"`
	Start  *blob.Hash `json:"start,omitempty"` // initial weights that the recipe takes from elsewhere
}

func decodeWelcome(b []byte) (w welcome, err error) {
	if err := json.Unmarshal(b, &w); err != nil {
		return w, fmt.Errorf("welcome: %w", err)
	}
	if err := w.Like.check(); err != nil {
		return w, fmt.Errorf("welcome: %w", err)
	}
	return w, nil
}

// task is one client's work. Contents are named by their hashes.
type task struct {
	ID     uint64               `json:"id"`
	Member member               `json:"member"`
	Round  int                  `json:"round"`
	Phase  string               `json:"phase"`
	Base   int                  `json:"base"`
	Group  string               `json:"group,omitempty"`
	Tag    string               `json:"tag,omitempty"`
	Params json.RawMessage      `json:"params,omitempty"`
	Sets   map[string]blob.Hash `json:"sets"`
	Index  *blob.Hash           `json:"index,omitempty"`
	Keep   *blob.Hash           `json:"keep,omitempty"`
	// Attached is whatever else the task carries.
	Attached *blob.Hash `json:"attached,omitempty"`
	Scope    string     `json:"scope,omitempty"`
	Vault    bool       `json:"vault,omitempty"` // the client has one, at the simulation
	Peers    bool       `json:"peers,omitempty"` // it knows the other members
	Train    *share     `json:"train,omitempty"`
	Test     *share     `json:"test,omitempty"`
}

// member is a [federated.Member]. Its name keys random streams, so it travels as bytes: JSON would repair what is not UTF-8.
type member struct {
	Index   int    `json:"index"`
	Name    []byte `json:"name"`
	Samples int    `json:"samples"`
}

// share names a client's examples: what they are like, and the rows themselves.
type share struct {
	Form blob.Hash `json:"form"`
	Rows blob.Hash `json:"rows"`
}

func decodeTask(b []byte) (t task, err error) {
	if err := json.Unmarshal(b, &t); err != nil {
		return t, fmt.Errorf("task: %w", err)
	}
	return t, nil
}

// want asks for contents of a task.
type want struct {
	Task   uint64      `json:"task"`
	Hashes []blob.Hash `json:"hashes"`
}

func encodeWant(w want) []byte {
	b, err := json.Marshal(w)
	if err != nil {
		panic(err) // numbers and hashes
	}
	return b
}

func decodeWant(b []byte) (w want, err error) {
	if err := json.Unmarshal(b, &w); err != nil {
		return w, fmt.Errorf("want: %w", err)
	}
	return w, nil
}

// result is the head of a client's answer; the tensors follow it, in safetensors format.
type result struct {
	Task    uint64            `json:"task"`
	Failed  string            `json:"failed,omitempty"` // why there is no answer
	Status  uint8             `json:"status"`
	Weight  uint64            `json:"weight"`
	Scalars map[string]uint64 `json:"scalars,omitempty"` // bits of float64, which may be no number
	Cover   weights.Index     `json:"cover,omitempty"`   // null: all
	Addends []part            `json:"addends,omitempty"`
	Keep    *part             `json:"keep,omitempty"`
	// Attached is how many bytes the client attached; they are the last.
	Attached uint64 `json:"attached,omitempty"`
}

// part is a set of tensors in a result.
type part struct {
	Name  string `json:"name,omitempty"`
	Bytes uint64 `json:"bytes"`
}

// encodeResult returns the parts of a frame, and the bytes of what the member keeps.
func encodeResult(id uint64, a *federated.Answer) (frame [][]byte, keep []byte, err error) {
	r := result{Task: id}
	if a.Err != nil {
		r.Failed = a.Err.Error()
		if r.Failed == "" {
			r.Failed = "failed without a word"
		}
	} else {
		r.Status, r.Weight, r.Cover = uint8(a.Result.Status), a.Result.Weight, a.Result.Cover
		for name, v := range a.Result.Scalars {
			if r.Scalars == nil {
				r.Scalars = map[string]uint64{}
			}
			r.Scalars[name] = math.Float64bits(v)
		}
		for name, s := range a.Result.Addends {
			b, err := encodeSet(s)
			if err != nil {
				return nil, nil, fmt.Errorf("%q of the result: %w", name, err)
			}
			frame = append(frame, b)
			r.Addends = append(r.Addends, part{name, uint64(len(b))})
		}
		if a.Result.Keep != nil {
			if keep, err = encodeSet(*a.Result.Keep); err != nil {
				return nil, nil, fmt.Errorf("what the member keeps: %w", err)
			}
			frame = append(frame, keep)
			r.Keep = &part{Bytes: uint64(len(keep))}
		}
		r.Attached = uint64(len(a.Result.Attached))
		frame = append(frame, a.Result.Attached)
	}
	return append([][]byte{headed(r)}, frame...), keep, nil
}

// decodeResultHead returns the head of a result and the tensors that follow it.
func decodeResultHead(b []byte) (r result, tensors []byte, err error) {
	if tensors, err = parted(b, &r); err != nil {
		return r, nil, fmt.Errorf("result: %w", err)
	}
	return r, tensors, nil
}

// decode returns the result of a head and the tensors that follow it.
func (r result) decode(tensors []byte) (federated.Result, error) {
	out := federated.Result{Status: federated.Status(r.Status), Weight: r.Weight, Cover: r.Cover}
	take := func(p part) (weights.Set, error) {
		if p.Bytes > uint64(len(tensors)) {
			return weights.Set{}, fmt.Errorf("%q has %d bytes, %d are left", p.Name, p.Bytes, len(tensors))
		}
		s, err := decodeSet(tensors[:p.Bytes])
		if err != nil {
			return s, fmt.Errorf("%q: %w", p.Name, err)
		}
		tensors = tensors[p.Bytes:]
		return s, nil
	}
	for name, bits := range r.Scalars {
		if out.Scalars == nil {
			out.Scalars = map[string]float64{}
		}
		out.Scalars[name] = math.Float64frombits(bits)
	}
	for _, p := range r.Addends {
		if _, twice := out.Addends[p.Name]; twice {
			return out, fmt.Errorf("%q twice", p.Name)
		}
		s, err := take(p)
		if err != nil {
			return out, err
		}
		if out.Addends == nil {
			out.Addends = map[string]weights.Set{}
		}
		out.Addends[p.Name] = s
	}
	if r.Keep != nil {
		s, err := take(*r.Keep)
		if err != nil {
			return out, err
		}
		out.Keep = &s
	}
	if n := r.Attached; n > 0 && n <= uint64(len(tensors)) {
		out.Attached, tensors = tensors[:n], tensors[n:]
	} else if n > 0 {
		return out, fmt.Errorf("%d attached bytes, %d are left", n, len(tensors))
	}
	if len(tensors) > 0 {
		return out, fmt.Errorf("%d bytes after its end", len(tensors))
	}
	return out, nil
}

func encodeSet(s weights.Set) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(int(s.Bytes()) + 1024)
	err := weights.Write(&b, s, nil)
	return b.Bytes(), err
}

func decodeSet(b []byte) (weights.Set, error) {
	s, _, err := weights.Read(bytes.NewReader(b))
	return s, err
}

func decodeIndex(b []byte) (weights.Index, error) {
	var x weights.Index
	if err := json.Unmarshal(b, &x); err != nil {
		return nil, fmt.Errorf("index set: %w", err)
	}
	if x == nil {
		return nil, errors.New("the index set is null")
	}
	return x, nil
}

// Run is what a worker has to know of a run to make the same clients.
type Run struct {
	Seed   uint64
	Recipe []byte            // as the builder of the clients understands it
	Like   *dataset.Examples // the training data without examples: shape, classes, what there is
	Start  *weights.Set      // initial weights that the recipe takes from elsewhere; nil: none
}
