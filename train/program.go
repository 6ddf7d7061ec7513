package train

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
)

// kind is what a program does.
type kind uint8

const (
	stepKind      kind = iota // train on one batch
	gradientKind              // add the weighted gradient of one batch to a sum
	statsKind                 // batch statistics of one batch
	evaluateKind              // losses and predictions of one batch
	predictKind               // outputs of one batch
	curvatureKind             // add the weighted product of the Hessian of one batch and a direction to a sum
	descendKind               // a step along a gradient that is given
)

func (k kind) String() string {
	return [...]string{"step", "gradient", "statistics", "evaluation", "prediction", "curvature", "descent"}[k]
}

// shape is what a program is compiled for beside its spec.
type shape struct {
	kind   kind
	group  int  // the only group that a step trains; −1: all
	batch  int  // examples
	tokens int  // length of a row of token models
	masked bool // whether evaluation masks classes
	stats  bool // whether evaluation has statistics as inputs
}

// port is where an input of a program comes from, or where an output goes.
type port struct {
	table table
	index int
}

// table is one of the lists of buffers of a session, or the inputs that a program brings itself.
type table uint8

const (
	paramTable     table = iota // by parameter
	stateTable                  // by state tensor
	sumTable                    // by trained parameter: sum of raw gradients
	extraTable                  // by extra set and trained parameter
	statTable                   // by statistic
	accTable                    // by trained parameter: the gradient being summed
	directionTable              // by trained parameter: what the Hessian is multiplied with
	tables
	feedTable // by feed
)

// feed is an input that changes with every run and lives in memory of the host.
type feed struct {
	role  role
	index int
	shape shapes.Shape
}

type role uint8

const (
	inputFeed  role = iota // float32 or int32
	labelFeed              // int32
	valueFeed              // float32
	maskFeed               // bool
	noiseFeed              // float32, by noise of the model
	scalarFeed             // the spec's type, by place
)

// program is a compiled graph and how it is connected.
type program struct {
	exec    compute.Executable
	entry   *entry // of the engine that made it
	ins     []port
	donate  []bool
	outs    []port
	feeds   []feed
	rates   []int // place of the rate of each trained group in order of groups, −1 for others
	scalars []int // place of each of the spec's Scalars, −1 if the program does not need it
	special []int // place of the first number for each group's optimiser, −1 if it is not trained
	weight  int   // place of the weight of a gradient
	places  int   // number of scalar feeds
	output  shapes.Shape

	mu   sync.Mutex
	free []*lane
}

// assembler traces one program.
type assembler struct {
	g     *graph.Graph
	l     *layout
	s     *Spec
	at    shape
	dtype dtypes.DType
	p     *program
	outs  []*graph.Node
	input map[port]int // inputs by port

	params []*graph.Node
	adjust *Adjust
	pass   *nn.Pass
}

// assemble traces and compiles the program of one shape. Panics of graph functions become errors: they tell of a model,
// loss or adjustment that does not fit. Bugs (nil pointers and their like) still panic.
func assemble(b compute.Backend, l *layout, at shape) (p *program, err error) {
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		if bug, ok := r.(runtime.Error); ok {
			panic(bug)
		}
		err = fmt.Errorf("building the %v program of %s for a batch of %d: %v", at.kind, l.spec.Model.Name, at.batch, r)
	}()
	a := &assembler{l: l, s: l.spec, at: at, dtype: dtype(l.spec.DType), p: &program{}, input: map[port]int{}}
	a.g = graph.NewGraph(b, fmt.Sprintf("%s %v %d", l.spec.Model.Name, at.kind, at.batch))
	a.trace()
	if err := a.g.Compile(a.outs...); err != nil {
		return nil, fmt.Errorf("compiling the %v program of %s for a batch of %d: %w", at.kind, l.spec.Model.Name, at.batch, err)
	}
	a.p.exec = a.g.Executable()
	return a.p, nil
}

func dtype(d weights.DType) dtypes.DType {
	if d == weights.Float64 {
		return dtypes.Float64
	}
	return dtypes.Float32
}

// in declares an input.
func (a *assembler) in(t table, index int, name string, s shapes.Shape) *graph.Node {
	at := port{t, index}
	a.input[at] = len(a.p.ins)
	a.p.ins = append(a.p.ins, at)
	a.p.donate = append(a.p.donate, false)
	return graph.Parameter(a.g, name, s)
}

// feed declares an input that the host writes before every run.
func (a *assembler) feed(r role, index int, name string, t dtypes.DType, dims ...int) *graph.Node {
	f := feed{role: r, index: index, shape: shapes.Make(t, dims...)}
	a.p.feeds = append(a.p.feeds, f)
	return a.in(feedTable, len(a.p.feeds)-1, name, f.shape)
}

// scalar declares a number and returns its place among the scalar feeds.
func (a *assembler) scalar(name string) (*graph.Node, int) {
	at := a.p.places
	a.p.places++
	return a.feed(scalarFeed, at, name, a.dtype), at
}

// out declares an output; one that goes where an input came from replaces it and takes its memory.
func (a *assembler) out(t table, index int, x *graph.Node) {
	at := port{t, index}
	a.p.outs = append(a.p.outs, at)
	a.outs = append(a.outs, x)
	if i, ok := a.input[at]; ok {
		a.p.donate[i] = true
	}
}

// result declares an output that the session reads at once.
func (a *assembler) result(x *graph.Node) { a.out(tables, 0, x) }

func (a *assembler) shapeOf(param int) shapes.Shape {
	return shapes.Make(a.dtype, a.l.shapes[param]...)
}

func (a *assembler) name(param int) string { return a.l.params[param].Name }

func (a *assembler) trace() {
	a.adjust = &Adjust{
		Graph:   a.g,
		Params:  make(map[string]*graph.Node, len(a.l.params)),
		Extras:  make(map[string]map[string]*graph.Node, len(a.s.Extras)),
		Scalars: make(map[string]*graph.Node, len(a.s.Scalars)),
	}
	for i := range a.l.params {
		n := a.in(paramTable, i, "w:"+a.name(i), a.shapeOf(i))
		a.params = append(a.params, n)
		a.adjust.Params[a.name(i)] = n
	}
	for _, i := range a.trainees() {
		a.adjust.Names = append(a.adjust.Names, a.name(i))
	}
	a.p.scalars = make([]int, len(a.s.Scalars))
	training := (a.at.kind == stepKind || a.at.kind == descendKind) && a.s.Adjust != nil
	for i := range a.p.scalars {
		a.p.scalars[i] = -1
	}
	if training || a.s.Derive != nil {
		for i, name := range a.s.Scalars {
			a.adjust.Scalars[name], a.p.scalars[i] = a.scalar("scalar:" + name)
		}
		for e, set := range a.s.Extras {
			byName := make(map[string]*graph.Node, len(a.l.trained))
			for j, i := range a.l.trained {
				byName[a.name(i)] = a.in(extraTable, e*len(a.l.trained)+j, "extra:"+set+":"+a.name(i), a.shapeOf(i))
			}
			a.adjust.Extras[set] = byName
		}
	}
	switch a.at.kind {
	case stepKind, descendKind:
		a.traceStep()
	case gradientKind, curvatureKind:
		a.traceGradient()
	case statsKind:
		a.traceStatistics()
	case evaluateKind, predictKind:
		a.traceEvaluation()
	}
}

// trainees returns the parameters that the program trains.
func (a *assembler) trainees() []int {
	if a.at.group >= 0 {
		return a.l.members[a.at.group]
	}
	return a.l.trained
}

// forward runs the model and returns its output, masked if the program masks.
func (a *assembler) forward(train bool, scale float64) *graph.Node {
	m := a.s.Model
	a.pass = &nn.Pass{Params: a.adjust.Params, Train: train, Scale: scale}
	if a.s.Derive != nil {
		a.pass.Params = a.s.Derive(a.adjust)
	}
	var x *graph.Node
	if m.Tokens {
		x = a.feed(inputFeed, 0, "x", dtypes.Int32, a.at.batch, a.at.tokens)
	} else {
		x = a.feed(inputFeed, 0, "x", dtypes.Float32, append([]int{a.at.batch}, m.Input...)...)
		x = graph.ConvertDType(x, a.dtype)
	}
	if train && len(m.Noise) > 0 {
		a.pass.Noise = make(map[string]*graph.Node, len(m.Noise))
		for i, n := range m.Noise {
			mask := a.feed(noiseFeed, i, "noise:"+n.Name, dtypes.Float32, append([]int{a.at.batch}, n.Dims...)...)
			a.pass.Noise[n.Name] = graph.ConvertDType(mask, a.dtype)
		}
	}
	if a.at.stats {
		a.pass.Stats = make(map[string]*graph.Node, 2*len(m.Norms))
		for i, n := range m.Norms {
			c := n.Dim.At(m.Rate)
			for j, name := range m.StatNames()[2*i : 2*i+2] {
				a.pass.Stats[name] = a.in(statTable, 2*i+j, "stat:"+name, shapes.Make(a.dtype, c))
			}
		}
	}
	z := m.Forward(a.pass, x)
	a.p.output = z.Shape()
	if !a.at.masked {
		return z
	}
	classes := z.Shape().Dimensions[z.Rank()-1]
	return maskClasses(a.s.Mask, z, a.feed(maskFeed, 0, "mask", dtypes.Bool, classes))
}

// target declares the labels or target numbers that belong to the output z.
func (a *assembler) target(z *graph.Node) *graph.Node {
	dims := z.Shape().Dimensions
	if a.s.Loss == CrossEntropy {
		return a.feed(labelFeed, 0, "y", dtypes.Int32, dims[:len(dims)-1]...)
	}
	return graph.ConvertDType(a.feed(valueFeed, 0, "y", dtypes.Float32, dims...), a.dtype)
}

// gradients builds the loss and the raw gradients of all parameters that the program trains.
func (a *assembler) gradients() (loss *graph.Node, grads []*graph.Node) {
	z := a.forward(true, a.s.Scale)
	y := a.target(z)
	who := a.trainees()
	shared := true
	for j, g := range a.l.groups {
		shared = shared && (g.Loss == nil || a.at.group >= 0 && a.at.group != j)
	}
	if shared {
		loss = mean(a.s.each(nil, z, y))
		return loss, graph.Gradient(loss, a.nodes(who)...)
	}
	// Every group descends its own loss; what is reported is their sum.
	byParam := make(map[int]*graph.Node, len(who))
	for j, g := range a.l.groups {
		if a.at.group >= 0 && a.at.group != j {
			continue
		}
		part := mean(a.s.each(g.Loss, z, y))
		for k, d := range graph.Gradient(part, a.nodes(a.l.members[j])...) {
			byParam[a.l.members[j][k]] = d
		}
		if loss == nil {
			loss = part
		} else {
			loss = graph.Add(loss, part)
		}
	}
	for _, i := range who {
		grads = append(grads, byParam[i])
	}
	return loss, grads
}

func (a *assembler) nodes(params []int) []*graph.Node {
	list := make([]*graph.Node, len(params))
	for k, i := range params {
		list[k] = a.params[i]
	}
	return list
}

func (a *assembler) traceStep() {
	who := a.trainees()
	slots := make(map[int]*graph.Node)
	for _, i := range who {
		for _, s := range a.l.slots[i] {
			slots[s] = a.in(stateTable, s, "state:"+a.l.states[s], a.shapeOf(i))
		}
	}
	var sums []*graph.Node
	if a.s.GradientSum {
		for _, i := range who {
			sums = append(sums, a.in(sumTable, a.l.place[i], "sum:"+a.name(i), a.shapeOf(i)))
		}
	}
	rates := make([]*graph.Node, len(a.l.groups))
	special := make([][]*graph.Node, len(a.l.groups))
	a.p.rates, a.p.special = make([]int, len(a.l.groups)), make([]int, len(a.l.groups))
	for j, g := range a.l.groups {
		a.p.rates[j], a.p.special[j] = -1, -1
		if a.at.group >= 0 && a.at.group != j {
			continue
		}
		rates[j], a.p.rates[j] = a.scalar("rate:" + g.Name)
		a.p.special[j] = a.p.places
		for k := range g.Optimizer.Scalars(nil, 1) {
			n, _ := a.scalar(fmt.Sprintf("optimizer:%s:%d", g.Name, k))
			special[j] = append(special[j], n)
		}
	}

	var grads []*graph.Node
	if a.at.kind == stepKind {
		var loss *graph.Node
		loss, grads = a.gradients()
		a.result(loss)
	} else {
		for _, i := range who {
			grads = append(grads, a.in(directionTable, a.l.place[i], "gradient:"+a.name(i), a.shapeOf(i)))
		}
	}
	for k := range sums {
		a.out(sumTable, a.l.place[who[k]], graph.Add(sums[k], grads[k]))
	}
	if a.s.Adjust != nil {
		a.adjust.Grads = make(map[string]*graph.Node, len(who))
		for k, i := range who {
			a.adjust.Grads[a.name(i)] = grads[k]
		}
		a.s.Adjust(a.adjust)
		for k, i := range who {
			grads[k] = a.adjust.Grads[a.name(i)]
			if grads[k] == nil || !grads[k].Shape().Equal(a.shapeOf(i)) {
				panic(fmt.Sprintf("Adjust left the gradient of %s without its shape %v", a.name(i), a.shapeOf(i)))
			}
		}
	}
	clip(grads, a.s.Clip)
	for k, i := range who {
		j := a.l.group[i]
		u := Update{Param: a.params[i], Grad: grads[k], Rate: rates[j], Scalars: special[j]}
		for _, s := range a.l.slots[i] {
			u.Slots = append(u.Slots, slots[s])
		}
		next, state := a.l.groups[j].Optimizer.Update(u)
		a.out(paramTable, i, next)
		for n, s := range a.l.slots[i] {
			a.out(stateTable, s, state[n])
		}
	}
	if a.pass == nil { // nothing has run through the model
		return
	}
	for i, p := range a.l.params {
		if v := a.pass.Updated[p.Name]; v != nil && p.Role == nn.Buffer {
			a.out(paramTable, i, v)
		}
	}
}

func (a *assembler) traceGradient() {
	weight, at := a.scalar("weight")
	a.p.weight = at
	loss, grads := a.gradients()
	a.result(loss)
	if a.at.kind == curvatureKind {
		grads = a.curvature(grads)
	}
	for k, i := range a.l.trained {
		sum := a.in(accTable, k, "acc:"+a.name(i), a.shapeOf(i))
		a.out(accTable, k, graph.Add(sum, graph.Mul(grads[k], weight)))
	}
}

// curvature returns the product of the Hessian and a direction d, the gradient of ⟨g, d⟩ at fixed d. The graph library gives
// wrong shapes, or where they happen to fit wrong values, for gradients of the gradient of windows that move over an image.
func (a *assembler) curvature(grads []*graph.Node) []*graph.Node {
	for _, n := range a.g.Nodes() {
		switch n.Type() {
		case graph.NodeTypeConvGeneral, graph.NodeTypeReduceWindow, graph.NodeTypeSelectAndScatterMax, graph.NodeTypeSelectAndScatterMin:
			panic("convolution and pooling cannot be differentiated twice; use the difference of two gradients")
		}
	}
	var along *graph.Node
	for k, i := range a.l.trained {
		d := a.in(directionTable, k, "direction:"+a.name(i), a.shapeOf(i))
		part := graph.ReduceAllSum(graph.Mul(grads[k], d))
		if along == nil {
			along = part
		} else {
			along = graph.Add(along, part)
		}
	}
	return graph.Gradient(along, a.nodes(a.l.trained)...)
}

func (a *assembler) traceStatistics() {
	a.forward(true, 0)
	if len(a.pass.Batch) != len(a.s.Model.Norms) {
		panic(fmt.Sprintf("%d of %d norm layers gave batch statistics", len(a.pass.Batch), len(a.s.Model.Norms)))
	}
	for _, b := range a.pass.Batch {
		a.result(b.Mean)
		a.result(b.Var)
	}
}

func (a *assembler) traceEvaluation() {
	z := a.forward(false, 0)
	if a.at.kind == predictKind {
		a.result(z)
		return
	}
	a.result(a.s.each(nil, z, a.target(z)))
	if a.s.Loss == CrossEntropy {
		a.result(graph.ArgMax(z, -1))
	} else {
		a.result(z)
	}
}
