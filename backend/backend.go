// Package backend chooses the engine that graphs run on.
//
// Three engines exist: "go", the reference engine of GoMLX, plain Go and slow; "cpu", this project's own; and "xla", which
// is compiled in with the build tag xla (it needs cgo) and uses plug-ins that the user has installed. [New] makes one by
// name, [Names] lists those in this binary, [Default] is the one that is used when nobody says otherwise, and [Describe]
// says what an engine is, for records and for people.
//
//	b, err := backend.New(backend.Default(), backend.Options{Threads: 2})
//
// No other package knows which engine runs. What an engine computes depends on its name and options alone: the environment
// variable GOMLX_BACKEND is not read, and GOMLX_FUSION, which changes bits, is fixed by New. Nothing is printed, and
// nothing is downloaded.
package backend

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"k8s.io/klog/v2"
)

// Options says how an engine runs. The zero value is good for most machines.
type Options struct {
	// Threads bounds the operating system threads that compute at once; 0 means GOMAXPROCS. XLA decides for itself.
	Threads int
}

// Validate reports options that no engine can follow.
func (o Options) Validate() error {
	if o.Threads < 0 {
		return fmt.Errorf("%d threads: need 1 or more, or 0 for one a processor", o.Threads)
	}
	return nil
}

// threads returns o.Threads with its default.
func (o Options) threads() int {
	if o.Threads == 0 {
		return runtime.GOMAXPROCS(0)
	}
	return o.Threads
}

// engine is one way of running graphs that is compiled in.
type engine struct {
	name     string
	open     func(Options) (compute.Backend, error)
	describe func(compute.Backend) (Info, bool) // false: the backend is another engine's
}

// engines returns what is compiled in, the best first.
func engines() []engine { return slices.Concat(xlaEngine(), []engine{cpuEngine(), goEngine()}) }

// Names returns the engines of this binary in alphabetical order.
func Names() []string {
	var names []string
	for _, e := range engines() {
		names = append(names, e.name)
	}
	slices.Sort(names)
	return names
}

// Default returns the name of the engine that is used when none is asked for.
func Default() string { return "cpu" }

// New returns the engine of that name; an empty name means [Default]. It sets the environment variable GOMLX_FUSION to 0
// for this process, so that graphs are traced into the same operations whatever the caller's environment says, and keeps
// the libraries' informative logging quiet (their errors still go to standard error).
//
// The error of an unknown name lists the known ones.
func New(name string, o Options) (compute.Backend, error) {
	if name == "" {
		name = Default()
	}
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("engine %s: %w", name, err)
	}
	if err := prepare(); err != nil {
		return nil, err
	}
	for _, e := range engines() {
		if e.name != name {
			continue
		}
		b, err := e.open(o)
		if err != nil {
			return nil, fmt.Errorf("engine %s: %w", name, err)
		}
		return b, nil
	}
	if name == "xla" {
		return nil, fmt.Errorf("engine xla is not in this binary: build it with cgo and -tags xla, or use one of %s",
			strings.Join(Names(), ", "))
	}
	return nil, fmt.Errorf("no engine is called %q: this binary has %s", name, strings.Join(Names(), ", "))
}

// prepare makes the libraries' process-wide switches independent of the environment, once.
var prepare = sync.OnceValue(func() error {
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)
	if err := os.Setenv(graph.FusionEnv, "0"); err != nil {
		return fmt.Errorf("fixing %s: %w", graph.FusionEnv, err)
	}
	return nil
})

// Info describes an engine.
type Info struct {
	Engine  string `json:"engine"`  // a name that New accepts, or the backend's own name if it is none of ours
	Path    string `json:"path"`    // which kernels compute: results are compared to the bit only on equal paths
	Threads int    `json:"threads"` // how many compute at once; 0 if the engine does not say
}

// String returns, for example, "go (portable Go), 2 threads".
func (i Info) String() string {
	s := i.Engine
	if i.Path != "" {
		s += " (" + i.Path + ")"
	}
	switch i.Threads {
	case 0:
	case 1:
		s += ", 1 thread"
	default:
		s += fmt.Sprintf(", %d threads", i.Threads)
	}
	return s
}

// Describe says what b is.
func Describe(b compute.Backend) Info {
	for _, e := range engines() {
		if i, ok := e.describe(b); ok {
			i.Engine = e.name
			return i
		}
	}
	return Info{Engine: b.Name(), Path: b.Description()}
}
