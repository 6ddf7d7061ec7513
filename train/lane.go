package train

import (
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/rng"
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
)

// lane is a program with the memory that one user at a time needs to run it: the inputs that the host writes, in buffers
// shared with the engine where it can share.
type lane struct {
	p      *program
	batch  int
	inputs []compute.Buffer
	fed    []compute.Buffer

	results []compute.Buffer // by output: spent buffers for those of the next run, if the engine can use them
	given   []compute.Buffer // those that the last run returned
	hosts   []any            // what the host writes, by feed
	shared  bool

	x      []float32
	tokens []int32
	labels []int32
	values []float32
	mask   []bool
	noise  [][]float32
	f32    [][]float32 // scalars by place
	f64    [][]float64
	whole  []int32 // scratch: rows with their targets, for next tokens
}

// intoExecutable is an executable that allocates nothing: it puts its results into a slice, and into those buffers of it
// that are spent (finalized or donated). The cpu engine's is one.
type intoExecutable interface {
	ExecuteInto(results, inputs []compute.Buffer, donate []bool) error
}

// lane takes a free lane or makes one.
func (p *program) lane(b compute.Backend, batch int) (*lane, error) {
	p.mu.Lock()
	if n := len(p.free); n > 0 {
		l := p.free[n-1]
		p.free = p.free[:n-1]
		p.mu.Unlock()
		return l, nil
	}
	p.mu.Unlock()

	l := &lane{
		p:      p,
		batch:  batch,
		inputs: make([]compute.Buffer, len(p.ins)),
		fed:    make([]compute.Buffer, len(p.feeds)),

		results: make([]compute.Buffer, len(p.outs)),

		hosts:  make([]any, len(p.feeds)),
		shared: b.HasSharedBuffers(),
		f32:    make([][]float32, p.places),
		f64:    make([][]float64, p.places),
	}
	for i, f := range p.feeds {
		if l.shared {
			var err error
			if l.fed[i], l.hosts[i], err = b.NewSharedBuffer(0, f.shape); err != nil {
				return nil, fmt.Errorf("memory for an input of shape %v: %w", f.shape, err)
			}
		} else {
			l.hosts[i] = dtypes.MakeAnySlice(f.shape.DType, f.shape.Size())
		}
		l.bind(f, l.hosts[i])
	}
	return l, nil
}

// bind remembers the memory of a feed by its role.
func (l *lane) bind(f feed, host any) {
	switch h := host.(type) {
	case []bool:
		l.mask = h
	case []int32:
		if f.role == inputFeed {
			l.tokens = h
		} else {
			l.labels = h
		}
	case []float64:
		l.f64[f.index] = h
	case []float32:
		switch f.role {
		case inputFeed:
			l.x = h
		case valueFeed:
			l.values = h
		case noiseFeed:
			l.noise = append(l.noise, h)
		case scalarFeed:
			l.f32[f.index] = h
		}
	}
}

// put keeps l for the next user.
func (p *program) put(l *lane) {
	clear(l.inputs)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, l)
}

// finalize frees the program and its lanes. Nobody may use it any more.
func (p *program) finalize() {
	for _, l := range p.free {
		release(l.fed)
	}
	p.free = nil
	p.exec.Finalize()
}

// release frees buffers. Freeing cannot fail in a way that anybody could act on.
func release(buffers []compute.Buffer) {
	for i, b := range buffers {
		if b != nil {
			_ = b.Finalize()
			buffers[i] = nil
		}
	}
}

func (l *lane) set(place int, v float64) {
	if l.f64[place] != nil {
		l.f64[place][0] = v
		return
	}
	l.f32[place][0] = float32(v)
}

// send copies what the host wrote to an engine that does not share memory.
func (l *lane) send(b compute.Backend) error {
	if l.shared {
		return nil
	}
	for i, f := range l.p.feeds {
		if l.fed[i] != nil {
			_ = l.fed[i].Finalize()
		}
		var err error
		if l.fed[i], err = b.BufferFromFlatData(0, l.hosts[i], f.shape); err != nil {
			return fmt.Errorf("sending an input of shape %v: %w", f.shape, err)
		}
	}
	return nil
}

// fill writes the rows as a batch. Draws come from r in the order augmentation, hidden tokens, dropout.
func (l *lane) fill(s *Spec, d *dataset.Examples, rows []int32, aug dataset.Augment, r *rng.Stream) {
	switch {
	case !s.Model.Tokens:
		d.Fill(l.x, rows, aug, r)
	case s.Target == NextToken:
		size := d.Size()
		if l.whole == nil {
			l.whole = make([]int32, len(rows)*size)
		}
		d.FillTokens(l.whole, rows)
		for i := range rows {
			row := l.whole[i*size : (i+1)*size]
			copy(l.tokens[i*(size-1):(i+1)*(size-1)], row)
			if l.labels != nil {
				copy(l.labels[i*(size-1):(i+1)*(size-1)], row[1:])
			}
		}
	default:
		d.FillTokens(l.tokens, rows)
	}
	switch {
	case s.Target == FromInput && s.Model.Tokens:
		copy(l.labels, l.tokens)
	case s.Target == FromInput:
		copy(l.values, l.x)
	case s.Target == NextToken:
	case l.labels != nil:
		d.FillLabels(l.labels, rows)
	case l.values != nil:
		d.FillTargets(l.values, rows)
	}
	l.hide(s.Hide, r)
	l.drop(s.Model, r)
}

// hide replaces tokens.
func (l *lane) hide(h Hide, r *rng.Stream) {
	if h.Prob == 0 {
		return
	}
	for i := range l.tokens {
		if r.Float64() < h.Prob {
			l.tokens[i] = h.ID
		}
	}
}

// drop draws the dropout masks: 0 with probability Drop, else 1/(1−Drop).
func (l *lane) drop(m *nn.Model, r *rng.Stream) {
	for i, mask := range l.noise {
		p := m.Noise[i].Drop
		keep := float32(1 / (1 - p))
		limit := uint64(p * math.MaxUint32)
		var bits uint64
		for j := range mask {
			if j&1 == 0 {
				bits = r.Uint64()
			}
			if bits&math.MaxUint32 < limit {
				mask[j] = 0
			} else {
				mask[j] = keep
			}
			bits >>= 32
		}
	}
}

// checkTargets returns an error unless the targets that the data can give fill the targets that the output wants.
func (l *lane) checkTargets(s *Spec, d *dataset.Examples) error {
	have := l.batch // one a row
	switch {
	case s.Target == FromInput && !s.Model.Tokens:
		have = len(l.x)
	case s.Target != FromData:
		have = len(l.tokens)
	}
	if want := len(l.labels) + len(l.values); want != have {
		return fmt.Errorf("data set %s gives %d targets for a batch of %d, the output %v of %s needs %d",
			d.Name, have, l.batch, l.p.output.Dimensions, s.Model.Name, want)
	}
	return nil
}

// checkLabels returns an error if a label is not a class of the output.
func (l *lane) checkLabels() error {
	dims := l.p.output.Dimensions
	for i, y := range l.labels {
		if y < 0 || int(y) >= dims[len(dims)-1] {
			return fmt.Errorf("label %d at position %d of the batch: the model has classes 0 to %d", y, i, dims[len(dims)-1]-1)
		}
	}
	return nil
}
