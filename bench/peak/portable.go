//go:build !arm64

package peak

// portableFlops is what one turn of portableLoop does.
const portableFlops = 12 * 2

// portableLoop is the loop in plain Go, for processors without a loop of their own.
func portableLoop(n int) float32 {
	var a, b, c, d, e, f, g, h, i, j, k, l float32
	x := float32(n & 1)
	for range n {
		a, b, c, d = x*x+a, x*x+b, x*x+c, x*x+d
		e, f, g, h = x*x+e, x*x+f, x*x+g, x*x+h
		i, j, k, l = x*x+i, x*x+j, x*x+k, x*x+l
	}
	return a + b + c + d + e + f + g + h + i + j + k + l
}
