package cpu

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gomlx/compute"
	"github.com/pkg/errors"

	"github.com/cohort-learning/cohort/backend/cpu/kernel"
	"github.com/cohort-learning/cohort/backend/cpu/workers"
)

// Name is the name under which the backend is registered.
const Name = "cpu"

func init() { compute.Register(Name, newFromConfig) }

// Options of a backend. The zero value uses every processor that Go may use
// and the fastest kernels of the machine.
type Options struct {
	// Threads is the number of threads that all executions together may use;
	// 0 means GOMAXPROCS at the time of New.
	Threads int
	// Path names the kernels: portable, neon, avx2 or avx512. Empty means the
	// one that the environment variable COHORT_CPU names, or the best one.
	Path string
}

// PathName returns the name of the kernels that a backend with zero Options
// uses on this machine.
func PathName() string {
	p, _ := kernel.Default()
	return p.String()
}

// Backend implements compute.Backend.
type Backend struct {
	path      kernel.Path
	pool      *workers.Pool
	memory    memory
	finalized atomic.Bool
	once      sync.Once
}

var _ compute.Backend = (*Backend)(nil)

// New returns a backend, or an error if the options name kernels that do not
// exist or that this machine cannot run.
func New(o Options) (compute.Backend, error) {
	if o.Threads < 0 {
		return nil, fmt.Errorf("cpu backend: threads is %d, want 0 (automatic) or more", o.Threads)
	}
	if o.Threads == 0 {
		o.Threads = runtime.GOMAXPROCS(0)
	}
	path, err := kernel.Default()
	if o.Path != "" {
		path, err = kernel.ParsePath(o.Path)
		if err == nil && !available(path) {
			err = fmt.Errorf("this machine cannot run the %v kernels, only %v", path, kernel.Available())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cpu backend: %w", err)
	}
	return &Backend{path: path, pool: workers.New(o.Threads)}, nil
}

func available(p kernel.Path) bool {
	for _, have := range kernel.Available() {
		if have == p {
			return true
		}
	}
	return false
}

// newFromConfig reads "threads=N,path=NAME", each part optional.
func newFromConfig(config string) (compute.Backend, error) {
	var o Options
	for part := range strings.SplitSeq(config, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		key, value, _ := strings.Cut(part, "=")
		switch key {
		case "threads":
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 {
				return nil, errors.Errorf("cpu backend: threads=%q in the configuration %q, want a positive number", value, config)
			}
			o.Threads = n
		case "path":
			o.Path = value
		default:
			return nil, errors.Errorf("cpu backend: unknown option %q in the configuration %q, want threads=N or path=NAME", key, config)
		}
	}
	return New(o)
}

// Name returns "cpu".
func (b *Backend) Name() string { return Name }

// String returns "cpu".
func (b *Backend) String() string { return Name }

// Description tells the kernels and the number of threads, for example
// "Cohort CPU backend (avx512 kernels, 2 threads)".
func (b *Backend) Description() string {
	return fmt.Sprintf("Cohort CPU backend (%v kernels, %d threads)", b.path, b.pool.Threads())
}

// NumDevices is 1.
func (b *Backend) NumDevices() int { return 1 }

// DeviceDescription describes the only device.
func (b *Backend) DeviceDescription(compute.DeviceNum) string { return b.Description() }

// Capabilities returns what the backend implements.
func (b *Backend) Capabilities() compute.Capabilities { return capabilities.Clone() }

// Builder starts the record of a new computation.
func (b *Backend) Builder(name string) compute.Builder { return newBuilder(b, name) }

// Finalize ends the helper threads and drops pooled memory.
func (b *Backend) Finalize() {
	b.once.Do(func() {
		b.finalized.Store(true)
		b.pool.Close()
		b.memory.drop()
	})
}

// IsFinalized tells whether Finalize was called.
func (b *Backend) IsFinalized() bool { return b.finalized.Load() }
