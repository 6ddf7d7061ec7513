package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"time"
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
	stop := greatest()
	return func() error {
		pprof.StopCPUProfile()
		text := fmt.Sprintf("peak of the process %.1f MiB\n", peakMiB())
		for _, m := range []runtime.MemStats{stop(), read()} {
			text += fmt.Sprintf("%.1f MiB from the system, live or garbage %.1f, heap in use %.1f, idle %.1f, stacks %.1f, other %.1f; %d collections\n",
				mib(held(m)), mib(m.HeapAlloc), mib(m.HeapInuse), mib(m.HeapIdle-m.HeapReleased), mib(m.StackInuse),
				mib(m.MSpanSys+m.MCacheSys+m.BuckHashSys+m.GCSys+m.OtherSys), m.NumGC)
		}
		errs := []error{cpu.Close(), os.WriteFile(filepath.Join(dir, part+".memory"), []byte(text), 0o644)}
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

// held is the memory that Go has from the system.
func held(m runtime.MemStats) uint64 { return m.Sys - m.HeapReleased }

func read() (m runtime.MemStats) {
	runtime.ReadMemStats(&m)
	return m
}

// greatest looks at the memory often, and returns that at its peak when it is stopped.
func greatest() (stop func() runtime.MemStats) {
	end, peak := make(chan struct{}), make(chan runtime.MemStats, 1)
	go func() {
		var most runtime.MemStats
		for {
			if m := read(); held(m) > held(most) {
				most = m
			}
			select {
			case <-time.After(10 * time.Millisecond):
			case <-end:
				peak <- most
				return
			}
		}
	}()
	return func() runtime.MemStats {
		close(end)
		return <-peak
	}
}

func mib(n uint64) float64 { return float64(n) / (1 << 20) }
