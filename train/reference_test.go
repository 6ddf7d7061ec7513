package train_test

import (
	"math"
	"testing"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// TestHeteroFLClient runs what a client of HeteroFL does, on a small CNN in float64, against PyTorch 2.15.0: two epochs
// of three batches with Scaler (ρ = 0.5), batch statistics, the zero mask (class 1 is absent), the mean cross-entropy,
// gradients clipped to norm 0.3 (four of six are longer) and SGD with momentum 0.9 and decay 5e-4; then static batch norm
// and an unmasked evaluation. The weights begin as 0.3·sin 1, 0.3·sin 2, …
func TestHeteroFLClient(t *testing.T) {
	m := must[*nn.Model](t)(must[nn.Builder](t)(nn.New("cnn", nn.Config{Input: []int{4, 4, 1}, Classes: 3, Widths: []int{2, 3}}))(1))
	start := m.Zeros(weights.Float64)
	k := 0.0
	for _, x := range start.All() {
		for i := range x.Len() {
			k++
			x.SetAt(i, 0.3*math.Sin(k))
		}
	}
	images := &dataset.Examples{Name: "images", Shape: []int{4, 4, 1}, Classes: make([]string, 3)}
	for i := range 12 * 16 {
		images.F32 = append(images.F32, float32(i*i%11-5)/4)
	}
	for range 4 {
		images.Labels = append(images.Labels, 0, 2, 2)
	}
	engines(t, func(t *testing.T, e *train.Engine) {
		spec := &train.Spec{Model: m, DType: weights.Float64, Scale: 0.5, Mask: train.ZeroMask, Clip: 0.3,
			Optimizer: train.SGD{Momentum: 0.9, Decay: 5e-4}}
		s := must[*train.Session](t)(e.Begin(spec, start, train.Options{LabelMask: []float32{1, 0, 1}}))
		defer s.Close()
		var losses, norms []float64
		must[train.Report](t)(s.Fit(t.Context(), train.Fit{Data: images.All(), Batch: 4, Epochs: 2, Rate: train.Constant(0.1),
			Progress: func(_ int, loss float64) { losses = append(losses, loss) }}))
		near(t, "losses", losses, []float64{1.141061169480, 1.234967492392, 1.211589191605, 1.106246459776, 1.135168209752, 1.088315335934}, 1e-10)
		w := must[weights.Set](t)(s.Params())
		for name := range w.All() {
			norms = append(norms, w.Filter(func(n string) bool { return n == name }).Norm())
		}
		near(t, "norms of the weights", norms, []float64{0.920991637238, 0.277302423175, 0.256100422785, 0.368035351556, 1.550009054360,
			0.376973727651, 0.412789424044, 0.347812255519, 0.646242596108, 0.265937278564}, 1e-10)

		stats := must[train.Statistics](t)(e.Statistics(t.Context(), spec, w, images.All(), train.Pass{Batch: 4})).Mean()
		for name, want := range map[string][]float64{
			"norm1.running_mean": {-0.019061834574, 0.341739311016},
			"norm1.running_var":  {0.219807410885, 0.223168262436},
			"norm2.running_mean": {-0.133502858340, -0.298962376595, -0.188922115553},
			"norm2.running_var":  {0.001916351523, 0.000994452645, 0.002131986200},
		} {
			near(t, name, values(stats.Must(name)), want, 1e-10)
		}
		met := must[train.Metrics](t)(e.Evaluate(t.Context(), spec, w, stats, images.All(), train.EvalOptions{Batch: 5}))
		near(t, "loss and hits", []float64{met.Loss, float64(met.Correct)}, []float64{0.988944374566, 8}, 1e-10)
		z := must[weights.Tensor](t)(e.Predict(t.Context(), spec, w, stats, images.All(), train.EvalOptions{}))
		near(t, "outputs of image 0", values(z)[:3], []float64{0.123414385621, -0.183753138252, 0.181619095104}, 1e-10)
	})
}
