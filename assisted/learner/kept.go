package learner

import (
	"math"
	"slices"

	"github.com/cohort-learning/cohort/weights"
)

// MarshalBinary implements [Model].
func (m *network) MarshalBinary() ([]byte, error) {
	w := newWriter("network")
	w.text(m.kind)
	w.ints(m.shape)
	w.ints(m.widths)
	w.int(m.codes)
	w.int(m.embedded)
	w.flag(m.each)
	m.scaling.write(w)
	w.int(len(m.heads))
	for _, h := range m.heads {
		w.floats(h.bias)
		w.float(h.unit)
	}
	for _, t := range m.params.All() {
		w.singles(t.F32)
	}
	return w.b, nil
}

func readNetwork(r *reader) Model {
	m := &network{architecture: architecture{kind: r.text(), shape: r.ints(), widths: r.ints(), codes: r.int(), embedded: r.int(), each: r.flag()}}
	m.scaling = readScaling(r)
	m.heads = make([]head, r.length(9))
	for i := range m.heads {
		h := head{r.floats(), r.float()}
		r.check(len(h.bias) > 0 && len(h.bias) == len(m.heads[0].bias) || i == 0 && len(h.bias) > 0, "head %d has %d outputs, the first has %d", i, len(h.bias), len(m.heads[0].bias))
		m.heads[i] = h
	}
	r.check(len(m.heads) > 0, "a network without an output")
	r.check(slices.Contains([]string{"mlp", "cnn", "lstm"}, m.kind), "a network of kind %.20q", m.kind)
	r.check(m.kind == "lstm" || m.codes == 0 && m.embedded == 0 && !m.each, "a network of kind %.20q with codes or steps", m.kind)
	r.check((m.codes > 0) == (m.embedded > 0), "%d codes, embedded in %d", m.codes, m.embedded)
	if r.err != nil {
		return m
	}
	m.architecture.outputs, m.architecture.heads = len(m.heads[0].bias), len(m.heads)
	if err := m.check(); err != nil {
		r.fail(err)
		return m
	}
	columns := 1.0
	for _, s := range m.shape {
		columns *= float64(s)
	}
	if r.check(columns == float64(len(m.fill)), "%d columns, expected %g", len(m.fill), columns); r.err != nil {
		return m
	}
	m.readParams(r)
	return m
}

// readParams reads the parameters that the form has, one after the other.
func (m *network) readParams(r *reader) {
	model, err := m.model(0)
	if err != nil {
		r.fail(err)
		return
	}
	for _, p := range model.Params {
		shape, size := p.Shape(1), 1.0
		for _, d := range shape {
			size *= float64(d)
		}
		if size > float64(len(r.b)/4) || size > math.MaxInt32 {
			r.fail(errShort)
			return
		}
		m.params.Put(p.Name, weights.Of32(r.singles(int(size)), shape...))
	}
}
