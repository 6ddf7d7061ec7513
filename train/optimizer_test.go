package train_test

import (
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// The reference problem: softmax regression from 3 features to 2 classes, two batches of 3 in turn, float64.
var (
	referenceStart = func() weights.Set {
		s := weights.NewSet(2)
		s.Put("weight", weights.Of64([]float64{0.5, -0.25, 0.125, -0.75, 0.375, 0.25}, 2, 3))
		s.Put("bias", weights.Of64([]float64{0.1, -0.2}, 2))
		return s
	}
	referenceBatches = []train.Batch{
		{N: 3, X: []float32{1, 2, -1, 0.5, -1.5, 0.25, -2, 0.75, 1}, Labels: []int32{0, 1, 1}},
		{N: 3, X: []float32{0.25, 1, 1.5, -1, -0.5, 2, 3, -1, 0.5}, Labels: []int32{1, 0, 0}},
	}
)

// steps makes n steps at rate 0.1 and returns weight, bias and the loss of the last step.
func steps(t *testing.T, s *train.Session, from, n int) []float64 {
	t.Helper()
	var loss float64
	for i := range n {
		loss = must[float64](t)(s.Step(referenceBatches[(from+i)%2], 0.1))
	}
	w := must[weights.Set](t)(s.Params())
	return append(append(values(w.Must("weight")), values(w.Must("bias"))...), loss)
}

// TestOptimizers compares weights and loss after four steps with PyTorch 2.15.0 in float64 (torch.optim.SGD, Adam, AdamW,
// torch.nn.utils.clip_grad_norm_).
func TestOptimizers(t *testing.T) {
	for _, c := range []struct {
		name string
		opt  train.Optimizer
		clip float64
		want []float64
	}{
		{"SGD", train.SGD{}, 0, []float64{0.450718173968, -0.173397419886, 0.134167580907, -0.700718173968, 0.298397419886, 0.240832419093, 0.084217038879, -0.184217038879, 0.673733616526}},
		{"SGD default", nil, 0, []float64{0.450718173968, -0.173397419886, 0.134167580907, -0.700718173968, 0.298397419886, 0.240832419093, 0.084217038879, -0.184217038879, 0.673733616526}},
		{"SGD decay", train.SGD{Decay: 0.05}, 0, []float64{0.441438771472, -0.169578040022, 0.131535025570, -0.686476146628, 0.292096727600, 0.236021037164, 0.082447300609, -0.180462250672, 0.671120428962}},
		{"SGD momentum", train.SGD{Momentum: 0.9}, 0, []float64{0.409713868996, -0.008492931531, 0.111406959926, -0.659713868996, 0.133492931531, 0.263593040074, 0.041314199199, -0.141314199199, 0.722326105830}},
		{"SGD dampening", train.SGD{Momentum: 0.9, Dampening: 0.3, Decay: 0.05}, 0, []float64{0.421012651987, -0.005161696938, 0.089461311810, -0.661859260291, 0.125585001090, 0.271808600646, 0.037844815715, -0.134183459037, 0.729674216881}},
		{"SGD Nesterov", train.SGD{Momentum: 0.9, Decay: 5e-4, Nesterov: true}, 0, []float64{0.366181457003, 0.027421340697, 0.131561979115, -0.616029677202, 0.097502769402, 0.243210351184, 0.034029037073, -0.133968325153, 0.764665850813}},
		{"Adam", train.Adam{}, 0, []float64{0.405111918101, -0.026692697963, 0.086968087473, -0.655111918101, 0.151692697963, 0.288031912527, -0.041149962386, -0.058850037614, 0.784709564779}},
		{"Adam decay", train.Adam{Betas: [2]float64{0.5, 0.999}, Decay: 0.05, Eps: 1e-3}, 0, []float64{0.339217995370, -0.067095523076, 0.111011225878, -0.431159885326, 0.189114764182, 0.246525116201, 0.003894880049, -0.095435741829, 0.691803125408}},
		{"AdamW", train.AdamW{}, 0, []float64{0.405111918101, -0.026692697963, 0.086968087473, -0.655111918101, 0.151692697963, 0.288031912527, -0.041149962386, -0.058850037614, 0.784709564779}},
		{"AdamW decay", train.AdamW{Betas: [2]float64{0, 0.99}, Decay: 0.05}, 0, []float64{0.336788678510, -0.140301666768, 0.176638258202, -0.581826053666, 0.262820354347, 0.190917804533, 0.072481614504, -0.170496564567, 0.747225454419}},
		// The norms of the four gradients lie between 0.65 and 1.05, so the bounds clip all, all and none.
		{"clip 0.5", train.SGD{Momentum: 0.9}, 0.5, []float64{0.432285721492, -0.153337174088, 0.138882322437, -0.682285721492, 0.278337174088, 0.236117677563, 0.079841378760, -0.179841378760, 0.645756126486}},
		{"clip 0.05", train.SGD{Momentum: 0.9}, 0.05, []float64{0.493188415556, -0.240299002776, 0.126366491921, -0.743188415556, 0.365299002776, 0.248633508079, 0.098056181974, -0.198056181974, 0.616585415864}},
		{"clip 10", train.SGD{Momentum: 0.9}, 10, []float64{0.409713868996, -0.008492931531, 0.111406959926, -0.659713868996, 0.133492931531, 0.263593040074, 0.041314199199, -0.141314199199, 0.722326105830}},
	} {
		t.Run(c.name, func(t *testing.T) {
			engines(t, func(t *testing.T, e *train.Engine) {
				spec := &train.Spec{Model: linear(3, 2), DType: weights.Float64, Optimizer: c.opt, Clip: c.clip}
				s := must[*train.Session](t)(e.Begin(spec, referenceStart(), train.Options{}))
				defer s.Close()
				near(t, "weight, bias, loss", steps(t, s, 0, 4), c.want, 1e-11)

				// Two and two steps, with the state carried over, give the same bits.
				first := must[*train.Session](t)(e.Begin(spec, referenceStart(), train.Options{}))
				defer first.Close()
				steps(t, first, 0, 2)
				second := must[*train.Session](t)(e.Begin(spec, must[weights.Set](t)(first.Params()),
					train.Options{OptimizerState: must[weights.Set](t)(first.OptimizerState())}))
				defer second.Close()
				steps(t, second, 0, 2)
				if got, want := must[weights.Set](t)(second.Params()), must[weights.Set](t)(s.Params()); !got.Equal(want) {
					t.Errorf("resumed after two steps: %v, uninterrupted: %v", got, want)
				}
				if got, want := must[weights.Set](t)(second.OptimizerState()), must[weights.Set](t)(s.OptimizerState()); !got.Equal(want) {
					t.Errorf("state of the resumed: %v, of the uninterrupted: %v", got, want)
				}
			})
		})
	}
}

func TestOptimizerStateRefused(t *testing.T) {
	e := goEngine(t)
	spec := &train.Spec{Model: linear(3, 2), DType: weights.Float64, Optimizer: train.SGD{Momentum: 0.9}}
	s := must[*train.Session](t)(e.Begin(spec, referenceStart(), train.Options{}))
	defer s.Close()
	good := must[weights.Set](t)(s.OptimizerState())
	if got := strings.Join(good.Names(), " "); got != "steps weight/momentum bias/momentum" {
		t.Errorf("state holds %q", got)
	}
	for what, change := range map[string]func(*weights.Set){
		"steps":         func(s *weights.Set) { s.Put("steps", weights.Of64([]float64{1.5}, 1)) },
		"bias/momentum": func(s *weights.Set) { *s = s.Filter(func(n string) bool { return n != "bias/momentum" }) },
		"[3]":           func(s *weights.Set) { s.Put("bias/momentum", weights.NewTensor(weights.Float64, 3)) },
	} {
		bad := good.Clone()
		change(&bad)
		if _, err := e.Begin(spec, referenceStart(), train.Options{OptimizerState: bad}); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("state with bad %s: %v", what, err)
		}
	}
}

func TestOptimizerValidate(t *testing.T) {
	for want, o := range map[string]train.Optimizer{
		"momentum -1":     train.SGD{Momentum: -1},
		"decay -1":        train.SGD{Decay: -1},
		"dampening":       train.SGD{Momentum: 0.9, Dampening: 0.1, Nesterov: true},
		"beta 2 is 1":     train.Adam{Betas: [2]float64{0, 1}},
		"eps -1":          train.AdamW{Eps: -1},
		"decay -0.5":      train.AdamW{Decay: -0.5},
		"must be above 0": train.SGD{Nesterov: true},
	} {
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%#v: %v, want an error with %q", o, err, want)
		}
	}
}

// TestSchedules compares with PyTorch 2.15.0: MultiStepLR([3, 5], 0.1), StepLR(2, 0.5) and CosineAnnealingLR(8, 0.01).
func TestSchedules(t *testing.T) {
	for _, c := range []struct {
		s    train.Schedule
		want []float64
	}{
		{train.Constant(0.1), []float64{0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1}},
		{train.MultiStep{Rate: 0.1, Factor: 0.1, Milestones: []int{3, 5}},
			[]float64{0.1, 0.1, 0.1, 0.010000000000000002, 0.010000000000000002, 0.0010000000000000002, 0.0010000000000000002, 0.0010000000000000002, 0.0010000000000000002}},
		{train.StepDecay{Rate: 0.1, Factor: 0.5, Every: 2}, []float64{0.1, 0.1, 0.05, 0.05, 0.025, 0.025, 0.0125, 0.0125, 0.00625}},
		{train.Cosine{Rate: 0.1, Floor: 0.01, Period: 8},
			[]float64{0.1, 0.0965745789630079, 0.08681980515339463, 0.07222075445642905, 0.055, 0.03777924554357096, 0.023180194846605363, 0.013425421036992097, 0.01}},
	} {
		if err := c.s.Validate(); err != nil {
			t.Errorf("%#v: %v", c.s, err)
		}
		for i, want := range c.want {
			near(t, "rate", []float64{c.s.At(i)}, []float64{want}, 1e-16)
		}
	}
	if got := (train.Cosine{Rate: 0.1, Floor: 0.01, Period: 8}).At(100); got != 0.01 {
		t.Errorf("after its period the cosine is at %v, want its floor", got)
	}
	for want, s := range map[string]train.Schedule{
		"learning rate -1":     train.Constant(-1),
		"factor 2":             train.StepDecay{Rate: 1, Factor: 2, Every: 1},
		"every 0":              train.StepDecay{Rate: 1, Factor: 0.5},
		"increasing":           train.MultiStep{Rate: 1, Factor: 0.5, Milestones: []int{5, 5}},
		"over 0 ticks":         train.Cosine{Rate: 1},
		"learning rate -0.125": train.Cosine{Rate: 1, Floor: -0.125, Period: 1},
	} {
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%#v: %v, want an error with %q", s, err, want)
		}
	}
}
