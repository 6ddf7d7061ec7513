//go:build race

package cpu_test

// raceEnabled tells that the race detector is on; with it, the go engine's
// matrix product fails its pointer checks.
const raceEnabled = true
