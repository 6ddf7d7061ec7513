//go:build amd64 || arm64

package vec

import "unsafe"

// Logic on bools in words of eight bytes: a Go bool is a byte 0 or 1.

func wordsOf(b []bool) []uint64 {
	if len(b) < 8 { // a pointer to a word must not reach beyond the bools
		return nil
	}
	return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/8)
}

func andWords(dst, a, b []bool) {
	a, b = a[:len(dst)], b[:len(dst)]
	d, x, y := wordsOf(dst), wordsOf(a), wordsOf(b)
	for i := range d {
		d[i] = x[i] & y[i]
	}
	n := 8 * len(d)
	andPortable(dst[n:], a[n:], b[n:])
}

func orWords(dst, a, b []bool) {
	a, b = a[:len(dst)], b[:len(dst)]
	d, x, y := wordsOf(dst), wordsOf(a), wordsOf(b)
	for i := range d {
		d[i] = x[i] | y[i]
	}
	n := 8 * len(d)
	orPortable(dst[n:], a[n:], b[n:])
}

func xorWords(dst, a, b []bool) {
	a, b = a[:len(dst)], b[:len(dst)]
	d, x, y := wordsOf(dst), wordsOf(a), wordsOf(b)
	for i := range d {
		d[i] = x[i] ^ y[i]
	}
	n := 8 * len(d)
	xorPortable(dst[n:], a[n:], b[n:])
}

func notWords(dst, a []bool) {
	a = a[:len(dst)]
	d, x := wordsOf(dst), wordsOf(a)
	for i := range d {
		d[i] = x[i] ^ 0x0101010101010101
	}
	n := 8 * len(d)
	notPortable(dst[n:], a[n:])
}
