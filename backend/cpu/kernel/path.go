package kernel

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
)

// A Path names a set of kernels: the instructions they are made of.
type Path uint8

// The paths, from the one that runs everywhere to the fastest.
const (
	Portable Path = iota // plain Go
	NEON                 // arm64 Advanced SIMD
	AVX2                 // amd64 with AVX2 and FMA
	AVX512               // amd64 with AVX-512 F, BW, DQ and VL
)

// PathVariable is the environment variable that overrides the choice of [Default].
// Its values are those of [Path.String].
const PathVariable = "COHORT_CPU"

var pathNames = [...]string{Portable: "portable", NEON: "neon", AVX2: "avx2", AVX512: "avx512"}

// String returns the name of the path: portable, neon, avx2 or avx512.
func (p Path) String() string {
	if int(p) < len(pathNames) {
		return pathNames[p]
	}
	return fmt.Sprintf("Path(%d)", uint8(p))
}

// ParsePath is the inverse of [Path.String].
func ParsePath(name string) (Path, error) {
	for p, n := range pathNames {
		if n == name {
			return Path(p), nil
		}
	}
	return Portable, fmt.Errorf("unknown kernel path %q: want one of %s", name, strings.Join(pathNames[:], ", "))
}

// Available returns the paths that this machine can run, the best one last.
// The first is always Portable.
func Available() []Path { return append([]Path{Portable}, nativePaths()...) }

// Best returns the fastest path of this machine.
func Best() Path {
	paths := Available()
	return paths[len(paths)-1]
}

// Default returns the path that the environment variable COHORT_CPU names, or
// Best if it is empty. The variable is read once. A name that is unknown, or that
// this machine cannot run, is an error; the path returned with it is Best.
func Default() (Path, error) { return fromEnvironment() }

var fromEnvironment = sync.OnceValues(func() (Path, error) {
	return choose(os.Getenv(PathVariable), Available())
})

// choose picks the path called name from paths, or the last one if name is empty.
func choose(name string, paths []Path) (Path, error) {
	fastest := paths[len(paths)-1]
	if name == "" {
		return fastest, nil
	}
	want, err := ParsePath(name)
	if err != nil {
		return fastest, fmt.Errorf("reading %s: %w", PathVariable, err)
	}
	if !slices.Contains(paths, want) {
		return fastest, fmt.Errorf("reading %s: this machine cannot run the %v kernels, its best are %v", PathVariable, want, fastest)
	}
	return want, nil
}
