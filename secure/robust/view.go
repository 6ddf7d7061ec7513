package robust

import (
	"context"
	"errors"
	"math"
	"sync"
)

// view is the rows that a method works on: those of a spool, or averages of buckets of them.
type view struct {
	spool   *Spool
	buckets [][]int   // by row of the view, the rows of the spool; nil: the same
	weight  []float64 // what each row of the view weighs
	width   int       // coordinates of a block
	threads int
	desks   []desk
}

// blockFloats bounds how many numbers of a block a thread holds: 16 MiB.
const blockFloats = 1 << 22

// width returns the coordinates of a block of n rows. It must not depend on the number of threads: sums over blocks do on it.
func width(n int) int { return min(1<<16, max(64, blockFloats/max(1, n))) }

func (v *view) len() int { return len(v.weight) }

// plain returns a view of a spool's own rows that weigh alike.
func plain(s *Spool, threads int) *view {
	s.order()
	v := &view{spool: s, weight: make([]float64, len(s.rows)), width: width(len(s.rows)), threads: max(1, threads)}
	for i := range v.weight {
		v.weight[i] = 1
	}
	return v
}

// blocks calls do for every block of coordinates, for several at a time: with the first coordinate, the rows in order, and
// a partial result of so many zeros to add to. It returns the sum of the partial results, added in the order of the blocks.
func (v *view) blocks(ctx context.Context, partial int, do func(lo int, x [][]float32, sum []float64)) ([]float64, error) {
	total := make([]float64, partial)
	n := (v.spool.size + v.width - 1) / v.width
	threads := min(v.threads, n)
	if v.desks == nil {
		v.desks = make([]desk, threads)
	}
	desks := v.desks
	for first := 0; first < n; first += threads {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		wave := min(threads, n-first)
		errs := make([]error, wave)
		var wg sync.WaitGroup
		for k := range wave {
			wg.Go(func() {
				d, lo := &desks[k], (first+k)*v.width
				if errs[k] = d.read(v, lo, min(v.width, v.spool.size-lo)); errs[k] != nil {
					return
				}
				d.sum = zeros(d.sum, partial)
				do(lo, d.x, d.sum)
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return nil, err
		}
		for k := range wave {
			for i, s := range desks[k].sum {
				total[i] += s
			}
		}
	}
	return total, nil
}

// desk is the memory of one thread.
type desk struct {
	x       [][]float32
	bytes   []byte
	one     []float32
	sum     []float64
	mean    []float64
	holders []float64
}

func zeros(x []float64, n int) []float64 {
	if len(x) != n {
		return make([]float64, n)
	}
	clear(x)
	return x
}

// read fills the desk with n coordinates of every row.
func (d *desk) read(v *view, lo, n int) error {
	if d.x == nil {
		most := min(v.width, v.spool.size)
		d.x = make([][]float32, v.len())
		for i := range d.x {
			d.x[i] = make([]float32, most)
		}
		d.bytes, d.one = make([]byte, 4*most), make([]float32, most)
	}
	for i := range d.x {
		d.x[i] = d.x[i][:n]
		if v.buckets == nil {
			if err := v.spool.read(i, lo, d.x[i], d.bytes); err != nil {
				return err
			}
			continue
		}
		if err := d.average(v, v.buckets[i], lo, d.x[i]); err != nil {
			return err
		}
	}
	return nil
}

// average fills dst with the mean of a bucket over those who hold each coordinate.
func (d *desk) average(v *view, rows []int, lo int, dst []float32) error {
	d.mean, d.holders = zeros(d.mean, len(dst)), zeros(d.holders, len(dst))
	one := d.one[:len(dst)]
	for _, i := range rows {
		if err := v.spool.read(i, lo, one, d.bytes); err != nil {
			return err
		}
		for k, x := range one {
			if !missing(x) {
				d.mean[k] += float64(x)
				d.holders[k]++
			}
		}
	}
	for k := range dst {
		dst[k] = float32(d.mean[k] / d.holders[k]) // NaN if nobody holds it
	}
	return nil
}

// distances returns ‖x_i − centre‖ for every row, over the coordinates that it holds. A nil centre is 0.
func (v *view) distances(ctx context.Context, centre []float64) ([]float64, error) {
	d, err := v.blocks(ctx, v.len(), func(lo int, x [][]float32, sum []float64) {
		for i, r := range x {
			var s float64
			for k, a := range r {
				if missing(a) {
					continue
				}
				e := float64(a)
				if centre != nil {
					e -= centre[lo+k]
				}
				s += float64(e * e)
			}
			sum[i] = s
		}
	})
	for i := range d {
		d[i] = math.Sqrt(d[i])
	}
	return d, err
}

// combination returns Σ c_i (x_i − centre) / Σ w_i per coordinate, over those who hold it; 0 where nobody does. A nil centre
// is 0.
func (v *view) combination(ctx context.Context, centre, c, w []float64) ([]float64, error) {
	out := make([]float64, v.spool.size)
	_, err := v.blocks(ctx, 0, func(lo int, x [][]float32, _ []float64) {
		hi := lo + len(x[0])
		sum, base := out[lo:hi], []float64(nil)
		if centre != nil {
			base = centre[lo:hi]
		}
		weight := make([]float64, len(sum))
		for i, r := range x {
			for k, a := range r {
				if missing(a) {
					continue
				}
				e := float64(a)
				if base != nil {
					e -= base[k]
				}
				sum[k] += float64(c[i] * e)
				weight[k] += w[i]
			}
		}
		for k := range sum {
			if weight[k] != 0 {
				sum[k] /= weight[k]
			}
		}
	})
	return out, err
}

// columns calls do for every coordinate with the values of those who hold it, in the order of the rows, and their weights;
// what it returns is the centre there, 0 where nobody holds it. It may change what it is given.
func (v *view) columns(ctx context.Context, do func(x []float32, w []float64) float64) ([]float64, error) {
	const tile = 16 // a cache line
	out := make([]float64, v.spool.size)
	_, err := v.blocks(ctx, 0, func(lo int, x [][]float32, _ []float64) {
		n, length := len(x), len(x[0])
		var values [tile][]float32
		var weight [tile][]float64
		for t := range tile {
			values[t], weight[t] = make([]float32, 0, n), make([]float64, 0, n)
		}
		for at := 0; at < length; at += tile {
			m := min(tile, length-at)
			for t := range m {
				values[t], weight[t] = values[t][:0], weight[t][:0]
			}
			for i, r := range x {
				for t, a := range r[at : at+m] {
					if !missing(a) {
						values[t], weight[t] = append(values[t], a), append(weight[t], v.weight[i])
					}
				}
			}
			for t := range m {
				if len(values[t]) > 0 {
					out[lo+at+t] = do(values[t], weight[t])
				}
			}
		}
	})
	return out, err
}

// counts returns the sum of the weights of the spool's rows that hold each coordinate.
func (s *Spool) counts(ctx context.Context, threads int) ([]uint64, error) {
	out := make([]uint64, s.size)
	_, err := plain(s, threads).blocks(ctx, 0, func(lo int, x [][]float32, _ []float64) {
		for i, r := range x {
			for k, a := range r {
				if !missing(a) {
					out[lo+k] += s.rows[i].weight
				}
			}
		}
	})
	return out, err
}
