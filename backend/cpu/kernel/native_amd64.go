package kernel

//go:generate go run ./gen -out kernel_amd64.s -stubs kernel_amd64.go -pkg kernel

import (
	"fmt"
	"unsafe"

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
	tile512 = tile{mr: 12, nr: 32, partialB: true, large: plainCut(12), run: panelAVX512, dot: dot512,
		runDots:  [maxDotColumns]func(*panel){runDot512n1, runDot512n2, runDot512n3, runDot512n4},
		copyRows: copyRowsAVX512, transpose: transposeAVX512, sumVectors: sumAVX512,
		pools: [...]func(*poolRow){maxPool: maxPool512, sumPool: sumPool512,
			maxPoolGrad: maxPoolGrad512, sumPoolGrad: sumPoolGrad512,
			maxPoolGradSet: maxPoolGradSet512, sumPoolGradSet: sumPoolGradSet512}}
	tile256 = tile{mr: 6, nr: 16, run: panelAVX2, wide: widePanelAVX2, dot: dot256,
		large:    largeCut{fewRows: 1, directB: 1 << 19, bigA: 1 << 17, stridedA: 1 << 13, minN: 96, columns: 1024, tasks: 24, minRows: 42},
		runDots:  [maxDotColumns]func(*panel){runDot256n1, runDot256n2, runDot256n3, runDot256n4},
		copyRows: copyRowsAVX2, tileRows: tileRowsAVX2, panelRows: panelRowsAVX2, transpose: transposeAVX2, sumVectors: sumAVX2,
		pools: [...]func(*poolRow){maxPool: maxPool256, sumPool: sumPool256,
			maxPoolGrad: maxPoolGrad256, sumPoolGrad: sumPoolGrad256,
			maxPoolGradSet: maxPoolGradSet256, sumPoolGradSet: sumPoolGradSet256}}
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

func widePanelAVX2(p *panel) { panel256r1v8(p, 0, 1) }

// runTiles covers the rows of p with tiles of the greatest height, and what is
// left together with the last of them, or the last two, with lower ones, since
// the lowest leave the multipliers waiting.
func runTiles(p *panel, byHeight []panelFunc) {
	const least = 4 // rows that keep the multipliers busy
	height := len(byHeight) - 1
	tiles, rest := p.rows/height, p.rows%height
	lower := ceilDiv(rest, height)
	for rest < least*lower && tiles > 0 {
		tiles--
		lower++
		rest += height
	}
	if tiles > 0 {
		byHeight[height](p, 0, tiles)
	}
	for first := tiles * height; rest > 0; lower-- {
		rows := ceilDiv(rest, lower)
		byHeight[rows](p, first, 1)
		first += rows
		rest -= rows
	}
}

func copyRowsAVX512(dst, src []float32, ko []int32, n, width, pitch int) {
	rows512(&dst[0], unsafe.SliceData(src), &ko[0], pitch, n, width, len(ko))
}

func copyRowsAVX2(dst, src []float32, ko []int32, n, width, pitch int) {
	rows256(&dst[0], unsafe.SliceData(src), &ko[0], pitch, n, width, len(ko))
}

func transposeAVX512(dst, src []float32, k, n, width, pitch, stride int) {
	_ = src[(n-1)*stride+k-1]
	transposeBy(16, transpose512, dst, src, k, n, width, pitch, stride)
}

func sumAVX512(dst, src []float32, pitch, parts int) int {
	n := len(dst) / 32
	if n > 0 {
		sum512(&dst[0], &src[0], pitch, n, parts)
	}
	return n * 32
}

func transposeAVX2(dst, src []float32, k, n, width, pitch, stride int) {
	_ = src[(n-1)*stride+k-1]
	if blocks := k / 8; n == 6 && width == 6 && pitch == 6 && blocks > 0 { // a tile of A
		tileTranspose256(&dst[0], &src[0], stride, blocks)
		if k -= 8 * blocks; k == 0 {
			return
		}
		dst, src = dst[48*blocks:], src[8*blocks:]
	}
	transposeBy(8, transpose256, dst, src, k, n, width, pitch, stride)
}

// transposeBy transposes so many rows of the source at a time.
func transposeBy(lanes int, block func(dst, src *float32, dstStride, srcStride, n, width, k int), dst, src []float32, k, n, width, pitch, stride int) {
	for j := 0; j < width; j += lanes {
		if j >= n {
			for i := range k {
				clear(dst[i*pitch+j:][:width-j])
			}
			return
		}
		block(&dst[j], &src[j*stride], pitch, stride, n-j, min(width-j, lanes), k)
	}
}

func tileRowsAVX2(dst, src []float32, ko []int32, tiles, pitch int) {
	_ = dst[(tiles-1)*pitch+6*len(ko)-1]
	tileRows256x6(&dst[0], &src[0], &ko[0], pitch, tiles, len(ko))
}

func panelRowsAVX2(dst, src []float32, ko []int32, panels, pitch int) {
	_ = dst[(panels-1)*pitch+16*len(ko)-1]
	tileRows256x16(&dst[0], &src[0], &ko[0], pitch, panels, len(ko))
}

func sumAVX2(dst, src []float32, pitch, parts int) int {
	n := len(dst) / 16
	if n > 0 {
		sum256(&dst[0], &src[0], pitch, n, parts)
	}
	return n * 16
}
