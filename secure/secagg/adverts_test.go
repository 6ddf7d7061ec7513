package secagg_test

import (
	"testing"

	"github.com/cohort-learning/cohort/secure/secagg"
)

// TestServerKeepsAdvertsApart checks that a server without a verifier refuses, by name, keys that the other members would refuse
// the session for.
func TestServerKeepsAdvertsApart(t *testing.T) {
	for what, change := range map[string]func(a *secagg.Advert, other secagg.Advert){
		"another's channel key":   func(a *secagg.Advert, other secagg.Advert) { a.Channel = other.Channel },
		"another's mask key":      func(a *secagg.Advert, other secagg.Advert) { a.Mask = other.Mask },
		"another's key elsewhere": func(a *secagg.Advert, other secagg.Advert) { a.Mask = other.Channel },
		"one key for both":        func(a *secagg.Advert, _ secagg.Advert) { a.Mask = a.Channel },
		"a key of small order":    func(a *secagg.Advert, _ secagg.Advert) { a.Channel = [32]byte{} },
		"another of small order":  func(a *secagg.Advert, _ secagg.Advert) { a.Mask = [32]byte{1} },
	} {
		t.Run(what, func(t *testing.T) {
			s := five(t, "today")
			list := s.adverts()
			server, err := secagg.NewServer(s.p, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range list[:4] {
				if err := server.Advert(a); err != nil {
					t.Fatal(err)
				}
			}
			bad := list[4]
			change(&bad, list[1])
			refused(t, server.Advert(bad), secagg.ErrAdvert, name(4))
			if got, err := server.Adverts(); err != nil || len(got) != 4 {
				t.Errorf("the others go on with %d adverts, %v; want 4", len(got), err)
			}
			for _, a := range list[:4] {
				if _, err := s.members[a.Name].Share(list[:4]); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
