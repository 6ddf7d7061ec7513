package personalfr

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/recommend"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

type client struct{ *Algorithm }

// Run does a member's part.
func (c client) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	switch {
	case federated.Tastes(t.Phase):
		return c.test(at, t, keep)
	case at.Train.Len() == 0:
		return federated.Result{Status: federated.Abstained}, nil
	case t.Phase == askItems:
		_, n, err := c.network()
		if err != nil {
			return federated.Result{}, err
		}
		if err := federated.RatesItems(at.Train.Data, n.items); err != nil {
			return federated.Result{}, err
		}
		return federated.Result{Attached: packItems(recommend.Of(at.Train).Rated(), n.items)}, nil
	case t.Phase == trains:
		return c.train(ctx, at, t, keep)
	}
	return federated.Result{}, fmt.Errorf("phase %q is unknown to this client", t.Phase)
}

// tasting is how the method measures itself.
func (a *Algorithm) tasting() federated.Tasting {
	return federated.Tasting{Implicit: a.implicit(), Like: a.Like, Catalogue: a.Catalogue, Batch: a.Problem.Training.Batch}
}

// share is what a member learns from: its ratings, and its items as rows of its params.
type share struct {
	table recommend.Table // items are rows of the params
	items []int32         // of the rows
	held  []bool          // by row: whether it changes
	dense bool
}

// shareOf returns a member's share. With compression none its rows are all items.
func (a *Algorithm) shareOf(n *network, v dataset.View) share {
	t := recommend.Of(v)
	if a.implicit() {
		t = t.Like(a.tasting().LikedFrom(v.Data.Ratings))
	}
	own := t.Rated()
	s := share{table: t, items: own, dense: a.Compression == "none"}
	if s.dense {
		s.items, s.held = make([]int32, n.items), make([]bool, n.items)
		for i := range s.items {
			s.items[i] = int32(i)
			s.held[i] = a.ReferenceDecay
		}
		for _, i := range own {
			s.held[i] = true
		}
		return s
	}
	row := make([]int32, n.items)
	for k, i := range own {
		row[i] = int32(k)
	}
	rows := make([]int32, len(t.Items))
	for k, i := range t.Items {
		rows[k] = row[i]
	}
	s.table.Items = rows
	s.held = slices.Repeat([]bool{true}, len(own))
	return s
}

// What members keep: their own tensors, and the slots of their optimiser, in the shapes of their params.
const (
	keptWeights = "w/"
	keptSteps   = "steps" // that were made so far
)

func keptSlot(i int) string { return fmt.Sprintf("slot%d/", i) }

// put adds params to a set under a prefix, those that want says.
func (n *network) put(s *weights.Set, prefix string, m *nn.Model, p params, want func(name string) bool) {
	add := func(name string, x []float32, shape ...int) {
		if want(name) {
			s.Put(prefix+name, weights.Of32(x, shape...))
		}
	}
	add(input, p.in, len(p.in)/n.width, n.width)
	add(n.weightName(), p.out, len(p.out)/n.width, n.width)
	add(n.biasName(), p.outBias, len(p.outBias))
	for i, name := range n.denseNames(m) {
		add(name, p.dense[i], len(p.dense[i]))
	}
}

// take is the inverse: it copies what a set has under a prefix.
func (n *network) take(s weights.Set, prefix string, m *nn.Model, p params, want func(name string) bool) error {
	names, to := append([]string{input, n.weightName(), n.biasName()}, n.denseNames(m)...), append([][]float32{p.in, p.out, p.outBias}, p.dense...)
	for i, name := range names {
		if !want(name) {
			continue
		}
		t, ok := s.Get(prefix + name)
		if !ok || len(t.F32) != len(to[i]) {
			return fmt.Errorf("its memory of %s%s does not fit its data: has the data changed since it last took part?", prefix, name)
		}
		copy(to[i], t.F32)
	}
	return nil
}

func everything(string) bool { return true }

// mine returns the params of a member: what the task sends, and its own as it kept it or, at first, as all begin.
func (c client) mine(at federated.Local, m *nn.Model, n *network, items []int32, sent weights.Set, keep *weights.Set) (params, error) {
	w := n.zeros(m, len(items))
	own := func(name string) bool { return !c.shares(name) }
	if keep != nil {
		if err := n.take(*keep, keptWeights, m, w, own); err != nil {
			return w, err
		}
	} else {
		first, err := c.initial(at.Seed)
		if err != nil {
			return w, err
		}
		if err := n.load(&w, m, first.Filter(own), items, false); err != nil {
			return w, err
		}
	}
	return w, n.load(&w, m, sent, items, c.part(n, sent, items))
}

// part reports whether tensors that were sent have the given items only.
func (c client) part(n *network, sent weights.Set, items []int32) bool {
	if t, ok := sent.Get(n.biasName()); ok {
		return len(t.F32) != n.items
	}
	t, ok := sent.Get(input)
	return ok && t.Shape[1] != n.items
}

// train trains the member's model on its ratings and returns the change of the shared part.
func (c client) train(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	m, n, err := c.network()
	if err != nil {
		return federated.Result{}, err
	}
	if err := federated.RatesItems(at.Train.Data, n.items); err != nil {
		return federated.Result{}, err
	}
	s := c.shareOf(n, at.Train)
	sent := t.Sets["w"]
	if x, ok := sent.Get(n.biasName()); ok && len(x.F32) != n.items && len(x.F32) != len(s.items) {
		return federated.Result{}, fmt.Errorf("the server sends %d rows for %d items; have the data changed since their items were told?", len(x.F32), len(s.items))
	}
	w, err := c.mine(at, m, n, s.items, sent, keep)
	if err != nil {
		return federated.Result{}, err
	}
	opt, err := optimizerOf(c.Problem.Training.Optimizer)
	if err != nil {
		return federated.Result{}, err
	}
	slots := make([]params, opt.slots)
	for i := range slots {
		slots[i] = n.zeros(m, len(s.items))
		if keep != nil {
			if err := n.take(*keep, keptSlot(i), m, slots[i], everything); err != nil {
				return federated.Result{}, err
			}
		}
	}
	began := c.own(m, n, w).Clone()
	l := n.newLearner(w)
	l.g = n.zeros(m, len(s.items))
	fit := fitting{share: s, implicit: c.implicit(), opt: opt, slots: slots, plan: c.Problem.Training, rate: c.Problem.Training.Rate.At(t.Round),
		batches: at.Rand(t.Round, "batches"), dropout: at.Rand(t.Round, "dropout")}
	if keep != nil {
		if x, ok := keep.Get(keptSteps); ok {
			fit.before = int(x.At(0))
		}
	}
	r, err := l.fit(ctx, &fit)
	if err != nil {
		return federated.Result{}, err
	}
	if r.Steps == 0 {
		return federated.Result{Status: federated.Abstained}, nil
	}
	kept := c.own(m, n, l.w)
	asSummed(kept, began)
	for i := range slots {
		n.put(&kept, keptSlot(i), m, slots[i], everything)
	}
	kept.Put(keptSteps, weights.Of64([]float64{float64(fit.before + r.Steps)}, 1))
	out := federated.Result{Weight: 1, Scalars: federated.FitScalars(r), Keep: &kept,
		Addends: map[string]weights.Set{"w": c.change(m, n, l.w, sent, s.items)}}
	if c.Count && !c.active() {
		out.Cover = c.index(n, sent, recommend.Of(at.Train).Rated())
	}
	return out, nil
}

// own is what of params a member keeps, in their memory.
func (c client) own(m *nn.Model, n *network, w params) weights.Set {
	s := weights.NewSet(8)
	n.put(&s, keptWeights, m, w, func(name string) bool { return !c.shares(name) })
	return s
}

// asSummed rounds what a member keeps as the server rounds what members share, to before + (now − before), so that with a single
// member it makes no difference to any bit what is shared.
func asSummed(now, before weights.Set) {
	for name, t := range now.All() {
		b := before.Must(name).F32
		for i, v := range t.F32 {
			t.F32[i] = float32(float64(b[i]) + float64(v-b[i]))
		}
	}
}

// change is what the shared tensors have become, less what was sent. Of items that the params do not have it is 0.
func (c client) change(m *nn.Model, n *network, w params, sent weights.Set, items []int32) weights.Set {
	if c.part(n, sent, items) || len(items) == n.items {
		return n.store(w, m, sent).Sub(sent)
	}
	now := sent.Clone()
	part := c.index(n, sent, items)
	part.Scatter(now, n.store(w, m, part.Like(sent)))
	return now.Sub(sent)
}

// test measures the member's own model on its held-out ratings.
func (c client) test(at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	if at.Test.Len() == 0 {
		return federated.Result{Status: federated.Abstained}, nil
	}
	m, n, err := c.network()
	if err != nil {
		return federated.Result{}, err
	}
	if err := federated.RatesItems(at.Test.Data, n.items); err != nil {
		return federated.Result{}, err
	}
	p, err := c.predictor(at, m, n, t.Sets["w"], keep)
	if err != nil {
		return federated.Result{}, err
	}
	return c.tasting().Result(c.tasting().Measure(p, at.Train, at.Test, n.items)), nil
}

// Predictor scores items for a member's users.
type Predictor struct {
	l        *learner
	row      []int32 // of the first layer, by item; −1: none
	out      []float32
	bias     []float32
	implicit bool
	like     float32
	one      recommend.Table
}

// Try does a member's training of the first round, for its time; nothing comes of it.
func (a *Algorithm) Try(ctx context.Context, at federated.Local) error {
	w, err := a.initial(at.Seed)
	if err != nil {
		return err
	}
	_, err = client{a}.train(ctx, at, federated.Task{Phase: trains, Sets: map[string]weights.Set{"w": w.Filter(a.shares)}}, nil)
	return err
}

// Recommender scores items for the users of a member: with the shared part as a state has it and what the member keeps.
func (a *Algorithm) Recommender(at federated.Local, s federated.State, keep *weights.Set) (recommend.Scorer, error) {
	m, n, err := a.network()
	if err != nil {
		return nil, err
	}
	if err := federated.RatesItems(at.Train.Data, n.items); err != nil {
		return nil, err
	}
	return client{a}.predictor(at, m, n, s.Sets["w"], keep)
}

// predictor joins the shared part, whole, with a member's own.
func (c client) predictor(at federated.Local, m *nn.Model, n *network, sent weights.Set, keep *weights.Set) (*Predictor, error) {
	s := c.shareOf(n, at.Train)
	if at.Train.Len() == 0 {
		s.items = nil
	}
	w, err := c.mine(at, m, n, s.items, sent, keep)
	if err != nil {
		return nil, err
	}
	p := &Predictor{l: n.newLearner(w), row: slices.Repeat([]int32{-1}, n.items), implicit: c.implicit()}
	for k, i := range s.items {
		p.row[i] = int32(k)
	}
	last, bias := sent, sent
	if !c.shares(n.weightName()) { // rows of other items are as all began
		first, err := c.initial(at.Seed)
		if err != nil {
			return nil, err
		}
		whole := first.Filter(func(name string) bool { return name == n.weightName() || name == n.biasName() }).Clone()
		for k, i := range s.items {
			copy(whole.Must(n.weightName()).F32[int(i)*n.width:(int(i)+1)*n.width], w.out[k*n.width:])
			whole.Must(n.biasName()).F32[i] = w.outBias[k]
		}
		last, bias = whole, whole
	}
	x, ok := last.Get(n.weightName())
	y, ok2 := bias.Get(n.biasName())
	if !ok || !ok2 {
		return nil, errors.New("the task has no last layer")
	}
	p.out, p.bias = x.F32, y.F32
	if at.Train.Data != nil && at.Train.Data.Rated() {
		p.like = c.tasting().LikedFrom(at.Train.Data.Ratings)
	}
	return p, nil
}

// Score implements [recommend.Scorer]: the decoder's outputs for a user with these ratings. Ratings of items that the member does
// not have for training are as if they were not there.
func (p *Predictor) Score(_ int, rated []int32, values []float32, items []int32, dst []float32) {
	t := &p.one
	t.Start, t.Items, t.Values = append(t.Start[:0], 0), t.Items[:0], t.Values[:0]
	for k, i := range rated {
		if p.row[i] < 0 {
			continue
		}
		v := values[k]
		if p.implicit {
			v = 0
			if values[k] >= p.like {
				v = 1
			}
		}
		t.Items, t.Values = append(t.Items, p.row[i]), append(t.Values, v)
	}
	t.Start = append(t.Start, int32(len(t.Items)))
	p.l.gather(*t, []int{0}, false)
	p.l.forward(nil)
	h := p.l.last(0)
	w := p.l.width
	for k, i := range items {
		dst[k] = p.l.f.Dot(h, p.out[int(i)*w:(int(i)+1)*w]) + p.bias[i]
	}
}

// fitting is one visit's training.
type fitting struct {
	share
	implicit bool
	opt      *optimizer
	slots    []params
	plan     federated.Training
	rate     float64
	before   int // steps before this visit
	batches  *rng.Stream
	dropout  *rng.Stream
}

// fit makes the steps of a visit: epochs of shuffled batches of users, or a number of steps.
func (l *learner) fit(ctx context.Context, f *fitting) (train.Report, error) {
	var r train.Report
	users := f.table.Len()
	size := f.plan.Batch
	if size == 0 || size > users {
		size = users
	}
	steps := f.plan.Steps
	if steps == 0 {
		steps = f.plan.Epochs * ((users + size - 1) / size)
	}
	var order []int
	for at, k := users, 0; k < steps; k++ {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		if at >= users {
			order, at = f.batches.Perm(users), 0
		}
		batch := order[at:min(at+size, users)]
		at += size
		loss, n, err := l.step(f, batch, r.Steps+1)
		if err != nil {
			return r, err
		}
		if n == 0 {
			r.Skipped++
			continue
		}
		r.Steps++
		r.Examples += n
		r.Loss += loss
		r.Last = loss / float64(n)
	}
	if r.Examples > 0 {
		r.Loss /= float64(r.Examples)
	}
	return r, nil
}

func (l *learner) step(f *fitting, users []int, step int) (loss float64, n int, err error) {
	l.gather(f.table, users, f.dense)
	dropping := l.network.drop > 0
	l.forward(f.dropout)
	if loss, n = l.backward(f.implicit, dropping); n == 0 {
		return 0, 0, nil
	}
	if loss-loss != 0 {
		return 0, 0, fmt.Errorf("the loss is %v: lower the learning rate", loss)
	}
	scale := 1.0
	if f.plan.Clip > 0 {
		scale = min(1, f.plan.Clip/(l.norm()+1e-6))
	}
	f.opt.begin(f.before + step)
	l.apply(f.opt, f.slots, f.held, float32(scale), float32(f.rate))
	return loss, n, nil
}

// String says in a line what is shared and learned.
func (a *Algorithm) String() string {
	words := []string{"personalfr, share", a.Share, "compression", a.Compression, a.Feedback, "feedback"}
	return strings.Join(words, " ")
}
