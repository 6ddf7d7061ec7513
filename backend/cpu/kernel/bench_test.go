package kernel

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// pool runs calls on a fixed number of goroutines, as an engine does.
type workers struct {
	scratch []*Scratch
	wake    []chan struct{}
	next    atomic.Int64
	job     Job
	busy    sync.WaitGroup
}

func newWorkers(n int) *workers {
	p := &workers{}
	for i := range n {
		p.scratch = append(p.scratch, new(Scratch))
		if i > 0 {
			wake := make(chan struct{})
			p.wake = append(p.wake, wake)
			go func() {
				for range wake {
					p.work(p.scratch[i])
					p.busy.Done()
				}
			}()
		}
	}
	return p
}

func (p *workers) close() {
	for _, w := range p.wake {
		close(w)
	}
}

func (p *workers) work(s *Scratch) {
	for n := int64(p.job.Tasks()); ; {
		t := p.next.Add(1) - 1
		if t >= n {
			return
		}
		p.job.Do(int(t), s)
	}
}

func (p *workers) run(c Call) {
	for i := range c.Phases() {
		p.job = c.Phase(i)
		p.next.Store(0)
		helpers := min(len(p.wake), p.job.Tasks()-1)
		for _, w := range p.wake[:max(helpers, 0)] {
			p.busy.Add(1)
			w <- struct{}{}
		}
		p.work(p.scratch[0])
		p.busy.Wait()
	}
}

// benchmark times c, which makes the given number of multiplications, on all processors.
func benchmark(b *testing.B, c Call, multiplications int) {
	giveWork(c)
	p := newWorkers(runtime.GOMAXPROCS(0))
	defer p.close()
	p.run(c)
	b.ReportAllocs()
	for b.Loop() {
		p.run(c)
	}
	b.ReportMetric(2*float64(multiplications)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
}

// benchPath is the path that benchmarks run on.
func benchPath(b *testing.B) Path {
	p, err := Default()
	if err != nil {
		b.Fatal(err)
	}
	return p
}

func BenchmarkGemm(b *testing.B) {
	rnd := newRandom(1)
	for _, s := range []struct {
		name    string
		m, n, k int
		ta, tb  bool
	}{
		{name: "64", m: 64, n: 64, k: 64}, {name: "128", m: 128, n: 128, k: 128}, {name: "256", m: 256, n: 256, k: 256},
		{name: "512", m: 512, n: 512, k: 512}, {name: "1024", m: 1024, n: 1024, k: 1024}, {name: "2048", m: 2048, n: 2048, k: 2048},
		{name: "512TN", m: 512, n: 512, k: 512, ta: true}, {name: "512NT", m: 512, n: 512, k: 512, tb: true},
		{name: "1024TN", m: 1024, n: 1024, k: 1024, ta: true}, {name: "1024NT", m: 1024, n: 1024, k: 1024, tb: true},
		{name: "mlp10x784x200", m: 10, n: 200, k: 784}, {name: "mlp10x784x200T", m: 10, n: 200, k: 784, tb: true},
		{name: "mlpDW", m: 784, n: 200, k: 10, ta: true}, {name: "mlpDX", m: 10, n: 784, k: 200, tb: true},
		{name: "lstm20x650x2600", m: 20, n: 2600, k: 650}, {name: "lstm20x650x2600T", m: 20, n: 2600, k: 650, tb: true},
		{name: "lstmDW", m: 650, n: 2600, k: 20, ta: true}, {name: "lstmDX", m: 20, n: 650, k: 2600, tb: true},
		{name: "gemv", m: 1, n: 1024, k: 1024}, {name: "gemvT", m: 1, n: 1024, k: 1024, tb: true}, {name: "col", m: 1024, n: 1, k: 1024},
	} {
		b.Run(s.name, func(b *testing.B) {
			shape := GemmShape{M: s.m, N: s.n, K: s.k, A: RowMajor(nil, s.m, s.k), B: RowMajor(nil, s.k, s.n), C: RowMajor(nil, s.m, s.n)}
			if s.ta {
				shape.A = RowMajor(nil, s.k, s.m).T()
			}
			if s.tb {
				shape.B = RowMajor(nil, s.n, s.k).T()
			}
			c := &GemmCall{Plan: NewGemm(benchPath(b), shape), A: rnd.slice(s.m * s.k), B: rnd.slice(s.k * s.n), C: make([]float32, s.m*s.n)}
			benchmark(b, c, s.m*s.n*s.k)
		})
	}
}

// convBenches are the layers of the CNN and the ResNet of HeteroFL at several widths.
func convBenches() []ConvShape {
	var list []ConvShape
	conv := func(n, h, in, out, k, stride int) {
		s := ConvShape{N: n, H: h, W: h, Cin: in, Cout: out, KH: k, KW: k, StrideH: stride, StrideW: stride}
		if k == 3 {
			s.PadT, s.PadB, s.PadL, s.PadR = 1, 1, 1, 1
		}
		list = append(list, s)
	}
	for _, n := range []int{10, 128} {
		for _, d := range []int{1, 2, 4, 8, 16} {
			if n == 128 && d > 1 && d < 16 {
				continue
			}
			conv(n, 28, 1, 64/d, 3, 1)
			conv(n, 14, 64/d, 128/d, 3, 1)
			conv(n, 7, 128/d, 256/d, 3, 1)
			conv(n, 3, 256/d, 512/d, 3, 1)
		}
		conv(n, 32, 64, 64, 3, 1)
		conv(n, 32, 64, 128, 3, 2)
		conv(n, 32, 64, 128, 1, 2)
		conv(n, 16, 128, 128, 3, 1)
		conv(n, 8, 256, 256, 3, 1)
		conv(n, 8, 256, 512, 3, 2)
		conv(n, 4, 512, 512, 3, 1)
	}
	return list
}

func BenchmarkConv(b *testing.B) {
	rnd := newRandom(1)
	for _, s := range convBenches() {
		for _, layout := range []string{"hwio", "oihw"} {
			s := s
			if layout == "oihw" {
				s.Kernel = s.OIHW()
			}
			n := s.normal()
			x, w, y := rnd.slice(n.xLen()), rnd.slice(n.wLen()), rnd.slice(n.yLen())
			for _, kind := range []struct {
				name string
				plan func(Path, ConvShape) *Conv
			}{{"fwd", NewConvForward}, {"dx", NewConvInputGrad}, {"dw", NewConvWeightGrad}} {
				b.Run(fmt.Sprintf("n%d_%dx%d_%d_%d_k%d_s%d/%s/%s", s.N, s.H, s.W, s.Cin, s.Cout, s.KH, s.StrideH, layout, kind.name), func(b *testing.B) {
					benchmark(b, &ConvCall{X: x, W: w, Y: y, Plan: kind.plan(benchPath(b), s)}, n.yLen()*s.KH*s.KW*s.Cin)
				})
			}
		}
	}
}
