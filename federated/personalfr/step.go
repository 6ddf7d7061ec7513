package personalfr

import (
	"math"

	"github.com/cohort-learning/cohort/backend/cpu/kernel"
	"github.com/cohort-learning/cohort/recommend"
	"github.com/cohort-learning/cohort/rng"
)

// learner trains, or applies, a network on some of the items. It is one goroutine's.
//
// A step costs what the ratings of its users cost: 512 multiply-accumulate operations a rating for the two layers of items,
// where a dense one spends them on every item (for widths 256, 128), and the layers between.
type learner struct {
	*network
	w     params
	g     params      // gradients; rows of items that are not in the batch are stale
	cols  []int32     // rows of items with gradients in the batch, ascending
	start []int32     // ratings of cols[c] are entries start[c] to start[c+1]
	who   []int32     // user of the batch, by entry
	value []float32   // rating, by entry
	rated []bool      // by entry; nil: all. A dense step has entries for everything
	users int         // of the batch
	acts  [][]float32 // output of each block, [users, out]
	hats  [][]float32 // normalised input of each block's γ and β
	inv   [][]float32 // 1/√(σ² + ε)
	back  []float32   // gradients, two buffers of the widest block
	spare []float32
	drop  []float32 // mask of the code
	code  []float32 // the code before it was dropped
	tmp   []float32
	scr   kernel.Scratch
	call  kernel.GemmCall
	count []int32
}

// newLearner returns one for params of some items.
func (n *network) newLearner(w params) *learner {
	l := &learner{network: n, w: w, acts: make([][]float32, len(n.blocks)), hats: make([][]float32, len(n.blocks)), inv: make([][]float32, len(n.blocks))}
	l.count = make([]int32, len(w.outBias)+1)
	return l
}

// room returns x with n elements, keeping its memory if it is enough.
func room[T any](x []T, n int) []T {
	if cap(x) < n {
		return make([]T, n)
	}
	return x[:n]
}

// gather makes the batch of users k0 … of a table, whose items are given as rows of the params. With dense it has an entry for
// every user and item.
func (l *learner) gather(t recommend.Table, users []int, dense bool) {
	l.users = len(users)
	rows := len(l.w.outBias)
	if dense {
		l.gatherDense(t, users, rows)
		return
	}
	count := l.count[:rows+1]
	clear(count)
	total := 0
	for _, u := range users {
		items, _ := t.Row(u)
		for _, i := range items {
			count[i+1]++
		}
		total += len(items)
	}
	l.cols, l.start, l.rated = l.cols[:0], l.start[:0], nil
	l.who, l.value = room(l.who, total), room(l.value, total)
	at := int32(0)
	for i := range rows {
		c := count[i+1]
		if c > 0 {
			l.cols, l.start = append(l.cols, int32(i)), append(l.start, at)
		}
		count[i] = at // next entry of the item
		at += c
	}
	l.start = append(l.start, at)
	for b, u := range users {
		items, values := t.Row(u)
		for k, i := range items {
			e := count[i]
			count[i]++
			l.who[e], l.value[e] = int32(b), values[k]
		}
	}
}

func (l *learner) gatherDense(t recommend.Table, users []int, rows int) {
	n := rows * len(users)
	l.cols, l.start = room(l.cols, rows), room(l.start, rows+1)
	l.who, l.value, l.rated = room(l.who, n), room(l.value, n), room(l.rated, n)
	clear(l.value)
	clear(l.rated)
	for i := range rows {
		l.cols[i], l.start[i] = int32(i), int32(i*len(users))
		for b := range users {
			l.who[i*len(users)+b] = int32(b)
		}
	}
	l.start[rows] = int32(n)
	for b, u := range users {
		items, values := t.Row(u)
		for k, i := range items {
			e := int(i)*len(users) + b
			l.value[e], l.rated[e] = values[k], true
		}
	}
}

// multiply runs C = A·B by a plan of the network.
func (l *learner) multiply(kind byte, m, n, k int, a, b, c []float32) {
	g := l.gemm(kind, m, n, k)
	l.call.Plan, l.call.A, l.call.B, l.call.C = g, a, b, c
	if need := g.WorkspaceLen(); len(l.call.Work) < need {
		l.call.Work = make([]float32, need)
	}
	kernel.Run(&l.call, &l.scr)
}

// forward computes the outputs of all blocks for the batch: for users b with ratings x_b
//
//	z = bias + Σ_i x_bi·column_i in the first block, W·(output before) + bias in the others
//	output = tanh(γ·(z − mean z)/√(var z + ε) + β)
//
// With random, elements of the code are dropped.
func (l *learner) forward(random *rng.Stream) {
	f := l.f
	for i := range l.blocks {
		b := &l.blocks[i]
		l.acts[i], l.hats[i], l.inv[i] = room(l.acts[i], l.users*b.out), room(l.hats[i], l.users*b.out), room(l.inv[i], l.users)
		z := l.acts[i]
		if i == 0 {
			for u := range l.users {
				copy(z[u*b.out:(u+1)*b.out], l.w.dense[b.bias])
			}
			for c, row := range l.cols {
				column := l.w.in[int(row)*b.out : (int(row)+1)*b.out]
				for e := l.start[c]; e < l.start[c+1]; e++ {
					to := z[int(l.who[e])*b.out : (int(l.who[e])+1)*b.out]
					f.FMAS(to, column, l.value[e], to)
				}
			}
		} else {
			l.multiply('f', l.users, b.out, b.in, l.acts[i-1], l.w.dense[b.weight], z)
			for u := range l.users {
				to := z[u*b.out : (u+1)*b.out]
				f.Add(to, to, l.w.dense[b.bias])
			}
		}
		for u := range l.users {
			to := z[u*b.out : (u+1)*b.out]
			if b.gamma >= 0 {
				mean := f.Sum(to) / float32(b.out)
				inv := float32(1 / math.Sqrt(float64(f.SumSqDiff(to, mean)/float32(b.out))+normEps))
				l.inv[i][u] = inv
				hat := l.hats[i][u*b.out : (u+1)*b.out]
				f.FMASS(hat, to, inv, -mean*inv)
				f.FMA(to, hat, l.w.dense[b.gamma], l.w.dense[b.beta])
			}
			f.Tanh(to, to)
		}
		if i == l.at && random != nil && l.network.drop > 0 {
			l.dropOut(random)
		}
	}
}

// dropOut multiplies the code by 0 with the probability of the network and by 1/(1 − p) else.
func (l *learner) dropOut(random *rng.Stream) {
	code := l.acts[l.at]
	l.drop = room(l.drop, len(code))
	keep := float32(1 / (1 - l.network.drop))
	for i := range l.drop {
		l.drop[i] = keep
		if random.Float64() < l.network.drop {
			l.drop[i] = 0
		}
	}
	l.code = room(l.code, len(code))
	copy(l.code, code)
	l.f.Mul(code, code, l.drop)
}

// last is the output of the last block for a user of the batch: what rows of items are multiplied with.
func (l *learner) last(u int) []float32 {
	h := l.acts[len(l.blocks)-1]
	return h[u*l.width : (u+1)*l.width]
}

// backward computes the gradients of the mean loss over the rated entries of the batch, after forward, and returns the sum of the
// losses and how many entries there are. Explicit feedback has the loss (s − r)², implicit the binary cross-entropy of the logit s.
func (l *learner) backward(implicit, dropped bool) (loss float64, n int) {
	for e := range l.who[:l.start[len(l.cols)]] {
		if l.rated == nil || l.rated[e] {
			n++
		}
	}
	if n == 0 {
		return 0, 0
	}
	f := l.f
	widest := l.width
	for _, b := range l.blocks {
		widest = max(widest, b.out)
	}
	l.back, l.spare = room(l.back, l.users*widest), room(l.spare, l.users*widest)
	dh := l.back[:l.users*l.width]
	clear(dh)
	for c, row := range l.cols {
		w, g := l.w.out[int(row)*l.width:(int(row)+1)*l.width], l.g.out[int(row)*l.width:(int(row)+1)*l.width]
		clear(g)
		var bias float32
		for e := l.start[c]; e < l.start[c+1]; e++ {
			u := int(l.who[e])
			h, d := l.last(u), dh[u*l.width:(u+1)*l.width]
			score := f.Dot(h, w) + l.w.outBias[row]
			var slope float32
			if l.rated == nil || l.rated[e] {
				s, y := float64(score), float64(l.value[e])
				if implicit {
					loss += recommend.Entropy(s, y)
					slope = float32((1/(1+math.Exp(-s)) - y) / float64(n))
				} else {
					loss += (s - y) * (s - y)
					slope = float32(2 * (s - y) / float64(n))
				}
			}
			f.FMAS(g, h, slope, g)
			f.FMAS(d, w, slope, d)
			bias += slope
		}
		l.g.outBias[row] = bias
	}
	l.blocksBackward(dropped)
	return loss, n
}

// blocksBackward takes the gradient of the last block's output, in l.back, to all parameters before it.
func (l *learner) blocksBackward(dropped bool) {
	f := l.f
	for i := len(l.blocks) - 1; i >= 0; i-- {
		b := &l.blocks[i]
		d, act := l.back[:l.users*b.out], l.acts[i]
		if dropped && i == l.at {
			f.Mul(d, d, l.drop)
			act = l.code
		}
		l.tmp = room(l.tmp, b.out)
		bias := l.g.dense[b.bias]
		clear(bias)
		if b.gamma >= 0 {
			clear(l.g.dense[b.gamma])
			clear(l.g.dense[b.beta])
		}
		for u := range l.users {
			dy, a := d[u*b.out:(u+1)*b.out], act[u*b.out:(u+1)*b.out]
			f.Mul(l.tmp, a, a) // tanh' = 1 − tanh²
			f.RSubS(l.tmp, l.tmp, 1)
			f.Mul(dy, dy, l.tmp)
			if b.gamma >= 0 {
				l.normBackward(b, dy, l.hats[i][u*b.out:(u+1)*b.out], l.inv[i][u])
			}
			f.Add(bias, bias, dy)
		}
		if i == 0 {
			l.inputBackward(b, d)
			return
		}
		l.multiply('w', b.out, b.in, l.users, d, l.acts[i-1], l.g.dense[b.weight])
		l.multiply('b', l.users, b.in, b.out, d, l.w.dense[b.weight], l.spare[:l.users*b.in])
		l.back, l.spare = l.spare, l.back
	}
}

// normBackward takes dy to dz in place: with x̂ the normalised z and d̂ = γ·dy,
//
//	dz = (d̂ − mean d̂ − x̂·mean(d̂·x̂))/√(σ² + ε),   dγ += dy·x̂,   dβ += dy
func (l *learner) normBackward(b *block, dy, hat []float32, inv float32) {
	f := l.f
	gamma, beta := l.g.dense[b.gamma], l.g.dense[b.beta]
	f.Add(beta, beta, dy)
	f.FMA(gamma, dy, hat, gamma)
	f.Mul(dy, dy, l.w.dense[b.gamma])
	mean, along := f.Sum(dy)/float32(b.out), f.Dot(dy, hat)/float32(b.out)
	f.FMASS(l.tmp, hat, -along, -mean)
	f.Add(dy, dy, l.tmp)
	f.MulS(dy, dy, inv)
}

func (l *learner) inputBackward(b *block, d []float32) {
	for c, row := range l.cols {
		g := l.g.in[int(row)*b.out : (int(row)+1)*b.out]
		clear(g)
		for e := l.start[c]; e < l.start[c+1]; e++ {
			u := int(l.who[e])
			l.f.FMAS(g, d[u*b.out:(u+1)*b.out], l.value[e], g)
		}
	}
}

// norm returns the Euclidean norm of the gradients of the batch. Rows are added up one by one, so that rows without ratings
// change no bit of it.
func (l *learner) norm() float64 {
	var sum float64
	for _, g := range l.g.dense {
		sum += float64(l.f.SumSq(g))
	}
	for _, row := range l.cols {
		at := int(row) * l.width
		sum += float64(l.f.SumSq(l.g.in[at : at+l.width]))
		sum += float64(l.f.SumSq(l.g.out[at : at+l.width]))
		sum += float64(l.g.outBias[row]) * float64(l.g.outBias[row])
	}
	return math.Sqrt(sum)
}
