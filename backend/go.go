package backend

import (
	"fmt"
	"reflect"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/gobackend"
)

// goEngine is GoMLX's reference engine.
func goEngine() engine {
	return engine{name: "go", open: openGo, describe: describeGo}
}

// openGo makes the engine run one operation of a graph after the other, each on all threads. Its default, several
// operations at once, can stop for ever: a convolution that holds a worker waits for others, which wait as well.
func openGo(o Options) (compute.Backend, error) {
	b, err := gobackend.New("ops_sequential")
	if err != nil {
		return nil, err
	}
	w, ok := workers(b)
	if !ok {
		return nil, fmt.Errorf("this version of GoMLX's Go engine does not let threads be set")
	}
	w.SetMaxParallelism(o.threads())
	return b, nil
}

func describeGo(b compute.Backend) (Info, bool) {
	w, ok := workers(b)
	if !ok {
		return Info{}, false
	}
	return Info{Path: "portable Go", Threads: w.MaxParallelism()}, true
}

// pool is the part of the Go engine's worker pool that counts threads.
type pool interface {
	MaxParallelism() int
	SetMaxParallelism(int)
}

// workers returns the worker pool of the Go engine. Its type lies in an internal package, and the engine's own option
// for it, parallelism=N, prints to standard output, so the exported field is reached by reflection.
func workers(b compute.Backend) (pool, bool) {
	v := reflect.ValueOf(b)
	if b == nil || b.String() != gobackend.BackendName || v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return nil, false
	}
	f := v.Elem().FieldByName("Workers")
	if !f.IsValid() || !f.CanInterface() {
		return nil, false
	}
	w, ok := f.Interface().(pool)
	return w, ok
}
