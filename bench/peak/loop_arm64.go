package peak

// flopsPerTurn is what one turn of the loop does: 16 instructions of two operations on four lanes.
const flopsPerTurn = 16 * 2 * 4

//go:noescape
func fmaLoop(n int)
