package kernel

import "fmt"

func nativePaths() []Path { return nil }

func nativeTile(p Path) *tile {
	panic(fmt.Sprintf("kernel: this machine cannot run the %v kernels", p))
}
