package vec

// table returns the functions of path p, or nil if this machine cannot run it.
func table(p Path) *Funcs {
	switch p {
	case Portable:
		return &portable
	case NEON: // part of every arm64 processor
		return &neon
	}
	return nil
}
