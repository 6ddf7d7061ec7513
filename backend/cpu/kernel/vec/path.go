package vec

import (
	"fmt"
	"os"
	"strings"
	"sync"
)

// PathEnv names the environment variable that overrides the choice of the kernel path.
const PathEnv = "COHORT_CPU"

// Path names one implementation of the kernels.
type Path uint8

// The paths, from the one that runs everywhere to the widest vectors.
const (
	Portable Path = iota // plain Go
	NEON                 // arm64, 4 lanes
	AVX2                 // amd64 with AVX2, FMA and F16C, 8 lanes
	AVX512               // amd64 with AVX-512 F, BW, DQ and VL, 16 lanes
)

var pathNames = [...]string{"portable", "neon", "avx2", "avx512"}

// String returns the name that [ParsePath] accepts.
func (p Path) String() string {
	if int(p) < len(pathNames) {
		return pathNames[p]
	}
	return fmt.Sprintf("Path(%d)", uint8(p))
}

// ParsePath is the inverse of [Path.String]; it ignores case.
func ParsePath(name string) (Path, error) {
	for i, s := range pathNames {
		if strings.EqualFold(name, s) {
			return Path(i), nil
		}
	}
	return 0, fmt.Errorf("unknown kernel path %q: use one of %s", name, strings.Join(pathNames[:], ", "))
}

// Supported reports whether this processor and operating system can run path p.
func (p Path) Supported() bool { return table(p) != nil }

// Paths lists the paths that this machine can run, the portable one first and the fastest last.
func Paths() []Path {
	var ps []Path
	for p := Portable; int(p) < len(pathNames); p++ {
		if p.Supported() {
			ps = append(ps, p)
		}
	}
	return ps
}

// Default returns the path to use: the one that the environment variable COHORT_CPU names, else
// the fastest that this machine supports. The variable is read once. The error says that the
// variable names an unknown path or one that this machine cannot run.
func Default() (Path, error) { return defaultPath() }

var defaultPath = sync.OnceValues(func() (Path, error) { return choose(os.Getenv(PathEnv)) })

// choose is Default for the given value of the environment variable.
func choose(env string) (Path, error) {
	ps := Paths()
	if env == "" {
		return ps[len(ps)-1], nil
	}
	p, err := ParsePath(env)
	if err != nil {
		return 0, fmt.Errorf("environment variable %s: %w", PathEnv, err)
	}
	if !p.Supported() {
		return 0, fmt.Errorf("environment variable %s asks for kernel path %s, but this machine supports only %v: unset it or name one of those", PathEnv, p, ps)
	}
	return p, nil
}

// For returns the functions of path p. It panics if this machine does not support p.
func For(p Path) *Funcs {
	f := table(p)
	if f == nil {
		panic(fmt.Sprintf("vec: kernel path %s is not supported on this machine (supported: %v)", p, Paths()))
	}
	return f
}
