package vec

// table returns the functions of path p, or nil if this machine cannot run it.
func table(p Path) *Funcs {
	if p == Portable {
		return &portable
	}
	return nil
}
