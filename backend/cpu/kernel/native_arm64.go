package kernel

import "fmt"

// nativePaths lists the paths of this processor: every arm64 has Advanced SIMD.
func nativePaths() []Path { return []Path{NEON} }

var tileNEON = tile{mr: 8, nr: 8, packA: true, large: plainCut(8), run: panelNEON, gather: gatherNEON}

func nativeTile(p Path) *tile {
	if p == NEON {
		return &tileNEON
	}
	panic(fmt.Sprintf("kernel: this machine cannot run the %v kernels", p))
}

// neon8x8 computes c[co[i]+j] (+)= Σ a[8·l+i]·b[ldb·l+j] over l < k for 8×8 sums, k ≥ 1.
//
//go:noescape
func neon8x8(a, b *float32, k, ldb int, c *float32, co *int32, add int)

// neonGather sets dst[8·l+i] = src[ro[i]+ko[l]] for i < 8 and l < k, k ≥ 1.
//
//go:noescape
func neonGather(dst, src *float32, ro, ko *int32, k int)

func gatherNEON(dst, src []float32, ro, ko []int32) {
	neonGather(&dst[0], &src[0], &ro[0], &ko[0], len(ko))
}

// edgeRows are the rows of a tile of its own.
var edgeRows = [8]int32{0, 8, 16, 24, 32, 40, 48, 56}

// panelNEON expects A from packTiles, and whole rows of eight in B.
func panelNEON(p *panel) {
	var edge [64]float32 // neon8x8 writes whole tiles only: this one for the edge of C
	k := len(p.ko)
	for i := 0; i < p.rows; i += 8 {
		a := &p.a[p.ro[i]]
		if i+8 <= p.rows && p.n == 8 {
			add := 0
			if p.add {
				add = 1
			}
			neon8x8(a, &p.b[0], k, p.ldb, &p.c[0], &p.co[i], add)
			continue
		}
		neon8x8(a, &p.b[0], k, p.ldb, &edge[0], &edgeRows[0], 0)
		for r, o := range p.co[i:min(i+8, p.rows)] {
			c := p.c[o:][:p.n]
			for j, v := range edge[8*r:][:p.n] {
				if p.add {
					v += c[j]
				}
				c[j] = v
			}
		}
	}
}
