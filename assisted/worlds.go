package assisted

import (
	"math"

	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// Friedman draws n rows of the first problem of Friedman (Annals of Statistics 19, 1991): five features from U[0, 1] and
//
//	y = 10 sin(π x₁x₂) + 20 (x₃ − ½)² + 10 x₄ + 5 x₅ + σ N(0, 1)
func Friedman(n int, sigma float64, r *rng.Stream) (x, y *mat.Dense) {
	x, y = mat.NewDense(n, 5, nil), mat.NewDense(n, 1, nil)
	for i := range n {
		u := x.RawRowView(i)
		for j := range u {
			u[j] = r.Float64()
		}
		y.Set(i, 0, float64(10*math.Sin(math.Pi*u[0]*u[1]))+float64(20*(u[2]-.5)*(u[2]-.5))+float64(10*u[3])+float64(5*u[4])+
			float64(sigma*r.NormFloat64()))
	}
	return x, y
}

// Blobs draws n rows around one centre a class, equally many a class up to one: centres are uniform in [−10, 10]^features, and rows
// are normal around them with deviation 1.
func Blobs(n, features, classes int, r *rng.Stream) (x, y *mat.Dense) {
	centres := mat.NewDense(classes, features, nil)
	centres.Apply(func(_, _ int, _ float64) float64 { return r.Uniform(-10, 10) }, centres)
	x, y = mat.NewDense(n, features, nil), mat.NewDense(n, 1, nil)
	for i := range n {
		class := i % classes
		y.Set(i, 0, float64(class))
		for j := range features {
			x.Set(i, j, centres.At(class, j)+r.NormFloat64())
		}
	}
	return x, y
}
