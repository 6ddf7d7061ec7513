package member

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/node/gate"
)

// EnrolOptions say how patient enrolment is. The zero value tries once.
type EnrolOptions struct {
	// Wait is for how long to try again while the coordinator cannot be reached, or says that it cannot answer now.
	Wait time.Duration
	// Waiting, if not nil, is told before every pause why there is one, and until when there will be another try.
	Waiting func(cause error, until time.Time)
}

// Enrol makes a member's folder for an invitation and has its key admitted. It may be repeated with the same folder and
// invitation until it succeeds, so a coordinator that is not up yet, or is started again meanwhile, is waited for as o says; a
// folder that is enrolled already is opened. An invitation that is refused, as it is used, expired or replaced, is at once.
func Enrol(ctx context.Context, dir string, t identity.Token, o EnrolOptions) (*Folder, error) {
	f, err := NewFolder(dir, t)
	if err != nil || f.Card.Enrolled {
		return f, err
	}
	if err := o.try(ctx, func() error { _, err := gate.Join(ctx, t, f.Key, nil); return err }); err != nil {
		return nil, err
	}
	f.Card.Enrolled = true
	return f, f.Save()
}

// Pauses between two attempts to enrol.
const (
	firstPause = 500 * time.Millisecond
	lastPause  = 15 * time.Second
)

// try calls join until it succeeds, fails for good, or the time is over.
func (o EnrolOptions) try(ctx context.Context, join func() error) error {
	end := time.Now().Add(o.Wait)
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := join()
		switch {
		case err == nil, ctx.Err() != nil, !gate.Passing(err):
			return err
		case o.Wait <= 0:
			return err
		case !time.Now().Before(end):
			return fmt.Errorf("%w (tried again and again for %v)", err, o.Wait)
		}
		if o.Waiting != nil {
			o.Waiting(err, end)
		}
		wait := time.Duration(float64(pause) * (0.75 + 0.5*rand.Float64())) // a thousand members do not come at once
		var no *gate.Refusal
		if errors.As(err, &no) {
			wait = max(wait, no.After)
		}
		timer := time.NewTimer(min(wait, time.Until(end)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}
