package member_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/cohort-learning/cohort/federated/fedtest"
)

// A member over the twin of a network computes what the simulation computes, bit for bit, and what it keeps is what the
// simulated client keeps.
func TestLikeSimulation(t *testing.T) {
	e := fedtest.Engine(t, "go")
	for _, method := range []string{"fedavg", "scaffold"} {
		t.Run(method, func(t *testing.T) {
			s := newStudy(t, e, method)
			want := s.simulate(t)
			c := newCoordinator(t, s, theFederation)
			p := newPerson(c)
			synctest.Test(t, func(t *testing.T) {
				c.open()
				done := make(chan error, 1)
				go func() { done <- p.run(t.Context(), nil, nil) }()
				got, err := c.run(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				if got.Digest() != want.Final.Digest() {
					t.Error("the final state is not that of the simulation")
				}
				for _, e := range p.events {
					t.Log(e.Kind, e.Text)
				}
			})
		})
	}
}
