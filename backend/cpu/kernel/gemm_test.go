package kernel

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestTmp(t *testing.T) {
	for it := range 200 {
		r := rand.New(rand.NewPCG(uint64(it), 1))
		m, n, k := 1+r.IntN(300), 1+r.IntN(100), r.IntN(400)
		if it%2 == 0 {
			m = 1 + r.IntN(20)
		}
		s := GemmShape{Batch: []int{1 + r.IntN(3)}, M: m, N: n, K: k}
		s.A = RowMajor(s.Batch, m, k)
		if r.IntN(2) == 0 {
			s.A = RowMajor(s.Batch, k, m).T()
		}
		s.B = RowMajor(s.Batch, k, n)
		if r.IntN(2) == 0 {
			s.B = RowMajor(s.Batch, n, k).T()
		}
		s.C = RowMajor(s.Batch, m, n)
		if r.IntN(2) == 0 {
			s.C = RowMajor(s.Batch, n, m).T()
		}
		a, b, c := make([]float32, s.Batch[0]*m*k), make([]float32, s.Batch[0]*k*n), make([]float32, s.Batch[0]*m*n)
		for i := range a {
			a[i] = r.Float32() - 0.5
		}
		for i := range b {
			b[i] = r.Float32() - 0.5
		}
		for _, path := range Available() {
			g := NewGemm(path, s)
			call := GemmCall{Plan: g, A: a, B: b, C: c, Work: make([]float32, g.WorkspaceLen())}
			Run(&call, new(Scratch))
			for bb := range s.Batch[0] {
				for i := range m {
					for j := range n {
						var want float64
						for kk := range k {
							want += float64(a[bb*s.A.Batch[0]+i*s.A.Row+kk*s.A.Col]) * float64(b[bb*s.B.Batch[0]+kk*s.B.Row+j*s.B.Col])
						}
						got := c[bb*s.C.Batch[0]+i*s.C.Row+j*s.C.Col]
						if math.Abs(float64(got)-want) > 1e-4 {
							t.Fatal(path, m, n, k, i, j, got, want, g.source)
						}
					}
				}
			}
		}
	}
}
