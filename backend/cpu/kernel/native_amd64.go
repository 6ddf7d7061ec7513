package kernel

//go:generate go run ./gen -out panel_amd64.s -stubs panel_amd64.go -pkg kernel

import (
	"fmt"

	"golang.org/x/sys/cpu"
)

// nativePaths lists the paths of this processor, the best one last.
func nativePaths() []Path {
	var paths []Path
	x := &cpu.X86
	if x.HasAVX2 && x.HasFMA && x.HasBMI2 {
		paths = append(paths, AVX2)
		if x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL {
			paths = append(paths, AVX512)
		}
	}
	return paths
}

var (
	tile512 = tile{mr: 12, nr: 32, partialB: true, run: panelAVX512}
	tile256 = tile{mr: 6, nr: 16, run: panelAVX2}
)

func nativeTile(p Path) *tile {
	for _, have := range nativePaths() {
		if have != p {
			continue
		}
		switch p {
		case AVX2:
			return &tile256
		case AVX512:
			return &tile512
		}
	}
	panic(fmt.Sprintf("kernel: this machine cannot run the %v kernels", p))
}

// panelFunc computes tiles of one height, from row first on.
type panelFunc func(p *panel, first, tiles int)

// The kernels by vectors in a row of the tile (one or two) and by height.
var panels512 = [2][13]panelFunc{
	{1: panel512r1v1, panel512r2v1, panel512r3v1, panel512r4v1, panel512r5v1, panel512r6v1,
		panel512r7v1, panel512r8v1, panel512r9v1, panel512r10v1, panel512r11v1, panel512r12v1},
	{1: panel512r1v2, panel512r2v2, panel512r3v2, panel512r4v2, panel512r5v2, panel512r6v2,
		panel512r7v2, panel512r8v2, panel512r9v2, panel512r10v2, panel512r11v2, panel512r12v2},
}

var panels256 = [2][7]panelFunc{
	{1: panel256r1v1, panel256r2v1, panel256r3v1, panel256r4v1, panel256r5v1, panel256r6v1},
	{1: panel256r1v2, panel256r2v2, panel256r3v2, panel256r4v2, panel256r5v2, panel256r6v2},
}

func panelAVX512(p *panel) {
	v := (p.n - 1) / 16
	runTiles(p, panels512[v][:])
}

func panelAVX2(p *panel) {
	v := (p.n - 1) / 8
	runTiles(p, panels256[v][:])
}

// runTiles covers the rows of p with tiles of the greatest height and one lower tile.
func runTiles(p *panel, byHeight []panelFunc) {
	height := len(byHeight) - 1
	tiles := p.rows / height
	if tiles > 0 {
		byHeight[height](p, 0, tiles)
	}
	if rest := p.rows - tiles*height; rest > 0 {
		byHeight[rest](p, tiles*height, 1)
	}
}
