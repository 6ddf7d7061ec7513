//go:build !amd64 && !arm64

package peak

import "runtime"

const flopsPerTurn = portableFlops

func fmaLoop(n int) { runtime.KeepAlive(portableLoop(n)) }
