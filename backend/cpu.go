package backend

import (
	"github.com/gomlx/compute"

	"github.com/cohort-learning/cohort/backend/cpu"
)

// cpuEngine is this project's own engine.
func cpuEngine() engine {
	return engine{name: cpu.Name, open: openCPU, describe: describeCPU}
}

func openCPU(o Options) (compute.Backend, error) { return cpu.New(cpu.Options{Threads: o.threads()}) }

func describeCPU(b compute.Backend) (Info, bool) {
	c, ok := b.(*cpu.Backend)
	if !ok {
		return Info{}, false
	}
	return Info{Path: c.Path(), Threads: c.Threads()}, true
}
