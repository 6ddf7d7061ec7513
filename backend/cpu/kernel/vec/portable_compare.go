package vec

// Comparisons, selection and logic in plain Go.

func eqPortable(dst []bool, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = a[i] == b[i]
	}
}

func eqSPortable(dst []bool, a []float32, s float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = a[i] == s
	}
}

func nePortable(dst []bool, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = a[i] != b[i]
	}
}

func neSPortable(dst []bool, a []float32, s float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = a[i] != s
	}
}

func ltPortable(dst []bool, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = a[i] < b[i]
	}
}

func ltSPortable(dst []bool, a []float32, s float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = a[i] < s
	}
}

func lePortable(dst []bool, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = a[i] <= b[i]
	}
}

func leSPortable(dst []bool, a []float32, s float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = a[i] <= s
	}
}

func gtPortable(dst []bool, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = a[i] > b[i]
	}
}

func gtSPortable(dst []bool, a []float32, s float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = a[i] > s
	}
}

func gePortable(dst []bool, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = a[i] >= b[i]
	}
}

func geSPortable(dst []bool, a []float32, s float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = a[i] >= s
	}
}

func selectPortable(dst []float32, cond []bool, a, b []float32) {
	cond, a, b = cond[:len(dst)], a[:len(dst)], b[:len(dst)]
	for i := range dst {
		if cond[i] {
			dst[i] = a[i]
		} else {
			dst[i] = b[i]
		}
	}
}

func selectVSPortable(dst []float32, cond []bool, a []float32, s float32) {
	cond, a = cond[:len(dst)], a[:len(dst)]
	for i := range dst {
		if cond[i] {
			dst[i] = a[i]
		} else {
			dst[i] = s
		}
	}
}

func selectSVPortable(dst []float32, cond []bool, s float32, b []float32) {
	cond, b = cond[:len(dst)], b[:len(dst)]
	for i := range dst {
		if cond[i] {
			dst[i] = s
		} else {
			dst[i] = b[i]
		}
	}
}

func andPortable(dst, a, b []bool) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = a[i] && b[i]
	}
}

func orPortable(dst, a, b []bool) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = a[i] || b[i]
	}
}

func xorPortable(dst, a, b []bool) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = a[i] != b[i]
	}
}

func notPortable(dst, a []bool) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = !a[i]
	}
}
