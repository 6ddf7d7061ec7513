package cpu

// Path returns the name of the kernels that b runs: portable, neon, avx2 or avx512. Results agree to the bit between
// backends of the same path, whatever their threads.
func (b *Backend) Path() string { return b.path.String() }

// Threads returns how many threads all executions together may use.
func (b *Backend) Threads() int { return b.pool.Threads() }
