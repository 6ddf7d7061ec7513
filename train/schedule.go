package train

import (
	"fmt"
	"math"
)

// Schedule is a learning rate over time. Time is counted from 0 in whatever the caller repeats: steps of a fit, or rounds.
type Schedule interface {
	At(t int) float64
	Validate() error
}

// Constant is the same rate for ever.
type Constant float64

// StepDecay multiplies Rate by Factor after every Every ticks: Rate·Factor^⌊t/Every⌋.
type StepDecay struct {
	Rate, Factor float64
	Every        int
}

// MultiStep multiplies Rate by Factor from each tick of Milestones on.
type MultiStep struct {
	Rate, Factor float64
	Milestones   []int
}

// Cosine falls from Rate at tick 0 to Floor at tick Period along half a cosine and stays there (Loshchilov and Hutter
// 2017, without restarts): Floor + (Rate−Floor)·(1+cos(πt/Period))/2.
type Cosine struct {
	Rate, Floor float64
	Period      int
}

// At implements [Schedule].
func (c Constant) At(int) float64 { return float64(c) }

// At implements [Schedule].
func (s StepDecay) At(t int) float64 { return decay(s.Rate, s.Factor, t/s.Every) }

// At implements [Schedule].
func (s MultiStep) At(t int) float64 {
	passed := 0
	for _, m := range s.Milestones {
		if t >= m {
			passed++
		}
	}
	return decay(s.Rate, s.Factor, passed)
}

// At implements [Schedule].
func (s Cosine) At(t int) float64 {
	x := math.Pi * float64(min(t, s.Period)) / float64(s.Period)
	return s.Floor + float64((s.Rate-s.Floor)*(1+math.Cos(x))/2)
}

// decay multiplies one factor after the other, as PyTorch's schedulers do, so that their last bits are the same.
func decay(rate, factor float64, times int) float64 {
	for range times {
		rate *= factor
	}
	return rate
}

// Validate implements [Schedule].
func (c Constant) Validate() error { return validRate(float64(c)) }

// Validate implements [Schedule].
func (s StepDecay) Validate() error {
	if s.Every < 1 {
		return fmt.Errorf("step decay every %d ticks: need 1 or more", s.Every)
	}
	return validDecay(s.Rate, s.Factor)
}

// Validate implements [Schedule].
func (s MultiStep) Validate() error {
	for i, m := range s.Milestones {
		if m < 1 || i > 0 && m <= s.Milestones[i-1] {
			return fmt.Errorf("milestones %v: need increasing ticks of 1 or more", s.Milestones)
		}
	}
	return validDecay(s.Rate, s.Factor)
}

// Validate implements [Schedule].
func (s Cosine) Validate() error {
	if s.Period < 1 {
		return fmt.Errorf("cosine schedule over %d ticks: need 1 or more", s.Period)
	}
	if err := validRate(s.Floor); err != nil {
		return err
	}
	return validRate(s.Rate)
}

func validDecay(rate, factor float64) error {
	if !(factor > 0 && factor <= 1) {
		return fmt.Errorf("decay factor %v: need above 0 and at most 1", factor)
	}
	return validRate(rate)
}

func validRate(r float64) error {
	if !(r >= 0) || math.IsInf(r, 0) {
		return fmt.Errorf("learning rate %v: need a finite number of 0 or more", r)
	}
	return nil
}
