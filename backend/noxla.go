//go:build !xla

package backend

// xlaEngine is empty without the build tag xla.
func xlaEngine() []engine { return nil }
