package member

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cohort-learning/cohort/node/gate"
)

// TestEnrolTries is about when enrolment is tried again, and for how long.
func TestEnrolTries(t *testing.T) {
	away := fmt.Errorf("join: %w", &url.Error{Op: "Post", URL: "https://x", Err: &net.OpError{Op: "dial", Err: errors.New("connection refused")}})
	used := fmt.Errorf("join: %w", &gate.Refusal{Code: gate.TokenUsed, Message: "used"})
	often := fmt.Errorf("join: %w", &gate.Refusal{Code: gate.TooOften, After: 40 * time.Second, Message: "too often"})
	for _, c := range []struct {
		name  string
		wait  time.Duration
		comes []error // one try after the other; the last again and again
		want  error
		tries int // exactly, or at least if negative
		least time.Duration
		most  time.Duration
	}{
		{"at once", time.Minute, []error{nil}, nil, 1, 0, 0},
		{"not patient", 0, []error{away, nil}, away, 1, 0, 0},
		{"up after a while", time.Minute, []error{away, away, away, nil}, nil, 4, 2 * time.Second, 5 * time.Second},
		{"never up", 10 * time.Minute, []error{away}, away, -30, 10 * time.Minute, 10 * time.Minute},
		{"used", time.Minute, []error{used}, used, 1, 0, 0},
		{"used after a restart", time.Minute, []error{away, used}, used, 2, 0, time.Second},
		{"too often", time.Minute, []error{often, nil}, nil, 2, 40 * time.Second, 40 * time.Second},
		{"too often for too long", 30 * time.Second, []error{often}, often, 2, 30 * time.Second, 30 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began, tries, told := time.Now(), 0, 0
				o := EnrolOptions{Wait: c.wait, Waiting: func(error, time.Time) { told++ }}
				err := o.try(t.Context(), func() error {
					tries++
					return c.comes[min(tries, len(c.comes))-1]
				})
				if !errors.Is(err, c.want) {
					t.Errorf("ended with %v, want %v", err, c.want)
				}
				if tries != c.tries && (c.tries > 0 || tries < -c.tries) {
					t.Errorf("%d tries, want %d", tries, c.tries)
				}
				if told != tries-1 {
					t.Errorf("told of %d pauses between %d tries", told, tries)
				}
				if took := time.Since(began); took < c.least || took > c.most {
					t.Errorf("took %v, want %v to %v", took, c.least, c.most)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("interrupted")
		time.AfterFunc(3*time.Second, func() { cancel(why) })
		began := time.Now()
		if err := (EnrolOptions{Wait: time.Hour}).try(ctx, func() error { return away }); err != why || time.Since(began) != 3*time.Second {
			t.Errorf("interrupted, it ended with %v after %v", err, time.Since(began))
		}
	})
}
