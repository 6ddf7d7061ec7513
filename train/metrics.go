package train

import "math"

// Metrics is how well a model does on some data.
type Metrics struct {
	N    int     `json:"n"`    // predictions: examples, or positions of sequences
	Loss float64 `json:"loss"` // mean over predictions

	// Of classifiers:
	Correct    int     `json:"correct,omitempty"`
	Accuracy   float64 `json:"accuracy,omitempty"`   // Correct/N
	Perplexity float64 `json:"perplexity,omitempty"` // exp(Loss)
	// Confusion counts examples by [true class][predicted class], if it was asked for.
	Confusion [][]int `json:"confusion,omitempty"`

	// Of regressions (MeanSquares):
	MSE float64 `json:"mse,omitempty"` // mean (z − y)²
	MAE float64 `json:"mae,omitempty"` // mean |z − y|
	R2  float64 `json:"r2,omitempty"`  // 1 − Σ(z − y)²/Σ(y − ȳ)²; 0 if all targets are the same
}

// Class is how well a classifier does on one class.
type Class struct {
	N         int     // examples of the class
	Predicted int     // examples that were taken for it
	Correct   int     // both
	Recall    float64 // Correct/N; NaN without examples
	Precision float64 // Correct/Predicted; NaN if nothing was taken for it
	F1        float64 // 2·Correct/(N + Predicted); NaN if both are 0
}

// Classes returns the figures of every class from the confusion matrix; nil without one.
func (m Metrics) Classes() []Class {
	if m.Confusion == nil {
		return nil
	}
	classes := make([]Class, len(m.Confusion))
	for y, row := range m.Confusion {
		for z, n := range row {
			classes[y].N += n
			classes[z].Predicted += n
			if y == z {
				classes[y].Correct = n
			}
		}
	}
	for i := range classes {
		c := &classes[i]
		c.Recall = float64(c.Correct) / float64(c.N)
		c.Precision = float64(c.Correct) / float64(c.Predicted)
		c.F1 = 2 * float64(c.Correct) / float64(c.N+c.Predicted)
	}
	return classes
}

// tally adds up predictions in the order of the rows, in float64.
type tally struct {
	m                    Metrics
	loss                 float64
	squares, abs         float64
	targets, targetTotal float64
	targetSquares        float64
}

func (t *tally) class(loss float64, label, predicted int32) {
	t.m.N++
	t.loss += loss
	if label == predicted {
		t.m.Correct++
	}
	if t.m.Confusion != nil {
		t.m.Confusion[label][predicted]++
	}
}

func (t *tally) value(z, y float64) {
	d := z - y
	t.squares += float64(d * d)
	t.abs += math.Abs(d)
	t.targets++
	t.targetTotal += y
	t.targetSquares += float64(y * y)
}

// metrics finishes the count.
func (t *tally) metrics(l Loss) Metrics {
	m := t.m
	if m.N == 0 {
		return m
	}
	m.Loss = t.loss / float64(m.N)
	if l == CrossEntropy {
		m.Accuracy = float64(m.Correct) / float64(m.N)
		m.Perplexity = math.Exp(m.Loss)
		return m
	}
	m.MSE, m.MAE = t.squares/t.targets, t.abs/t.targets
	spread := t.targetSquares - t.targetTotal*t.targetTotal/t.targets
	if spread > 1e-12*t.targetSquares {
		m.R2 = 1 - t.squares/spread
	}
	return m
}
