package peak

import (
	"runtime"

	"golang.org/x/sys/cpu"
)

//go:generate go run ./gen -out fma_amd64.s -stubs fma_amd64.go -pkg peak

// flopsPerTurn is what one turn of the loop does: 12 instructions of two operations on each lane.
var flopsPerTurn = func() float64 {
	switch {
	case cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ:
		return 12 * 2 * 16
	case cpu.X86.HasAVX2 && cpu.X86.HasFMA:
		return 12 * 2 * 8
	}
	return portableFlops
}()

func fmaLoop(n int) {
	switch flopsPerTurn {
	case 12 * 2 * 16:
		fmaAVX512(n)
	case 12 * 2 * 8:
		fmaAVX2(n)
	default:
		runtime.KeepAlive(portableLoop(n))
	}
}
