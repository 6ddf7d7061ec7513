package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
)

// profile begins to record what a process does, if a folder for that is given, under the name of its part. The function that it
// returns ends that, and writes what memory and goroutines there are.
func profile(dir, part string) (end func() error, err error) {
	if dir == "" {
		return func() error { return nil }, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	cpu, err := os.Create(filepath.Join(dir, part+".cpu"))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(cpu); err != nil {
		cpu.Close()
		return nil, err
	}
	return func() error {
		pprof.StopCPUProfile()
		errs := []error{cpu.Close()}
		runtime.GC()
		for _, name := range []string{"heap", "goroutine", "mutex"} {
			f, err := os.Create(filepath.Join(dir, part+"."+name))
			if err != nil {
				return err
			}
			errs = append(errs, pprof.Lookup(name).WriteTo(f, 0), f.Close())
		}
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("profile of %s: %w", part, err)
		}
		return nil
	}, nil
}
