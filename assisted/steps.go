package assisted

import (
	"errors"
	"fmt"
)

// Steps are the settings that methods of this kind have in common: how far F goes at a time, when it goes no further, and what of the
// labels that may tell.
type Steps struct {
	Cap        float64 `yaml:"cap" doc:"largest rate that is searched for losses of classification, which may fall for ever"`
	Shrink     float64 `yaml:"shrink" doc:"what every step is multiplied with besides, in (0, 1]"`
	Patience   int     `yaml:"patience" doc:"stop when the loss on held-out rows has not improved for so many rounds, and keep the best; 0: never"`
	Best       bool    `yaml:"best,omitempty" doc:"keep the rounds up to the one after which held-out rows were predicted best, also where patience does not stop the run"`
	Disclosure `yaml:",inline"`
}

// DefaultSteps are those of the papers: whole steps, and no end before the last round.
func DefaultSteps() Steps { return Steps{Cap: 300, Shrink: 1} }

// Validate returns an error that says which setting cannot be.
func (s Steps) Validate() error {
	switch {
	case !(s.Cap > 0):
		return fmt.Errorf("cap: %g must be positive", s.Cap)
	case !(s.Shrink > 0 && s.Shrink <= 1):
		return fmt.Errorf("shrink: %g is outside (0, 1]", s.Shrink)
	case s.Patience < 0:
		return fmt.Errorf("patience: %d is negative", s.Patience)
	}
	return s.Disclosure.Validate()
}

// Fits returns an error unless a method can run for so many rounds with the settings.
func (s Steps) Fits(rounds int, sponsor *Sponsor) error {
	switch {
	case rounds < 1:
		return fmt.Errorf("%d rounds: need at least 1", rounds)
	case sponsor == nil || sponsor.Held > 0:
		return nil
	case s.Patience > 0:
		return errors.New("patience: to stop when held-out rows say so takes held-out rows: set some apart")
	case s.Best:
		return errors.New("best: which round is the best is for held-out rows to say: set some apart")
	}
	return nil
}
