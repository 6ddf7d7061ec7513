//go:build xla

package backend

import (
	"fmt"

	"github.com/gomlx/compute"
	"github.com/gomlx/go-xla/compute/xla"
)

// xlaEngine is GoMLX's XLA engine, for GPU, TPU and CPU plug-ins that are already on this machine.
func xlaEngine() []engine {
	return []engine{{name: "xla", open: openXLA, describe: describeXLA}}
}

func openXLA(Options) (compute.Backend, error) {
	xla.EnableAutoInstall(false)
	if len(xla.GetAvailablePlugins()) == 0 {
		return nil, fmt.Errorf("no PJRT plug-in is installed, and none is downloaded unasked: put one " +
			"where github.com/gomlx/go-xla looks for it, or set PJRT_PLUGIN_LIBRARY_PATH to its folder")
	}
	return xla.New("")
}

func describeXLA(b compute.Backend) (Info, bool) {
	x, ok := b.(*xla.Backend)
	if !ok {
		return Info{}, false
	}
	return Info{Path: x.Description()}, true
}
