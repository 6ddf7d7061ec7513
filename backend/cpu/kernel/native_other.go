//go:build !amd64 && !arm64

package kernel

import "fmt"

func nativePaths() []Path { return nil }

func nativeTile(p Path) *tile {
	panic(fmt.Sprintf("kernel: no kernels for path %v on this architecture", p))
}
