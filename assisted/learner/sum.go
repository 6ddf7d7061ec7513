package learner

import "gonum.org/v1/gonum/mat"

// Sum returns Σ_t c_t m_t as one model, where that is the same function: of linear models that fill the same values in where some are
// missing, and of strata of such models. Otherwise it is not there.
func Sum(models []Model, c []float64) (sum Model, ok bool) {
	switch first := models[0].(type) {
	case *Linear:
		out := &Linear{Bias: make([]float64, len(first.Bias)), Fill: first.Fill, Center: first.Center}
		if first.Coefficients != nil {
			rows, columns := first.Coefficients.Dims()
			out.Coefficients = mat.NewDense(rows, columns, nil)
		}
		for i, m := range models {
			if l, linear := m.(*Linear); !linear || out.Add(c[i], l) != nil {
				return nil, false
			}
		}
		return out, true
	case *strata:
		return sumStrata(models, c, first)
	}
	return nil, false
}

// sumStrata adds up models of strata, each by itself.
func sumStrata(models []Model, c []float64, first *strata) (Model, bool) {
	out := &strata{first.outputs, make([]Model, len(first.models))}
	for s := range out.models {
		var of []Model
		var weights []float64
		for i, m := range models {
			one, alike := m.(*strata)
			if !alike || one.outputs != first.outputs || len(one.models) != len(first.models) {
				return nil, false
			}
			if one.models[s] != nil {
				of, weights = append(of, one.models[s]), append(weights, c[i])
			}
		}
		if len(of) == 0 {
			continue
		}
		var ok bool
		if out.models[s], ok = Sum(of, weights); !ok {
			return nil, false
		}
	}
	return out, true
}
