package vec

import "golang.org/x/sys/cpu"

// table returns the functions of path p, or nil if this machine cannot run it.
func table(p Path) *Funcs {
	x := &cpu.X86
	switch {
	case p == Portable:
		return &portable
	case p == AVX2 && x.HasAVX2 && x.HasFMA: // every such processor has F16C as well
		return &avx2
	case p == AVX512 && x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL && x.HasBMI2:
		return &avx512
	}
	return nil
}
