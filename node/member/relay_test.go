package member

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/transport"
)

// leafOf returns a member behind a relay, and the keys of the federation and the relay.
func leafOf(t *testing.T, show func(fed, relay identity.Key, d *transport.Delegation) ([]byte, error)) (m *Member, fed, relay identity.Key) {
	t.Helper()
	var own identity.Key
	for _, k := range []*identity.Key{&fed, &relay, &own} {
		var err error
		if *k, err = identity.NewKey(); err != nil {
			t.Fatal(err)
		}
	}
	f := &Folder{Dir: t.TempDir(), Key: own, Card: Card{Version: cardVersion, Name: "leaf", URL: "https://region.example.org", Federation: fed.Public()}}
	d := &transport.Delegation{Number: 3, Relay: "region", Key: relay.Public().String(), URL: "https://home.example.org",
		Leaves: []transport.Leaf{{Name: "leaf", Key: own.Public().String()}}}
	m, err := New(Options{Folder: f, Dial: func(context.Context) (transport.Link, error) { return nil, nil },
		Prepare: func(context.Context, Proposal) (*Part, error) { return nil, nil },
		Relay:   func(context.Context) ([]byte, error) { return show(fed, relay, d) }})
	if err != nil {
		t.Fatal(err)
	}
	return m, fed, relay
}

func sealed(t testing.TB, k identity.Key, fed identity.Key, from, to string, body transport.Body) []byte {
	t.Helper()
	e := transport.Envelope{Fed: fed.Public().String(), From: from, To: to}
	if err := e.Put(body); err != nil {
		t.Fatal(err)
	}
	msg, err := transport.Seal(k, e)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

// TestDelegation: a relay is believed only if the coordinator has signed that this member, with this key, is behind it, and no
// older word than was seen before.
func TestDelegation(t *testing.T) {
	other, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		show func(fed, relay identity.Key, d *transport.Delegation) ([]byte, error)
		good bool
	}{
		{"signed", func(fed, _ identity.Key, d *transport.Delegation) ([]byte, error) {
			return sealed(t, fed, fed, "", d.Relay, d), nil
		}, true},
		{"none", func(_, _ identity.Key, _ *transport.Delegation) ([]byte, error) { return nil, ErrNoRelay }, true},
		{"signed by the relay", func(fed, relay identity.Key, d *transport.Delegation) ([]byte, error) {
			return sealed(t, relay, fed, "", d.Relay, d), nil
		}, false},
		{"of others", func(fed, _ identity.Key, d *transport.Delegation) ([]byte, error) {
			d.Leaves[0].Name = "another"
			return sealed(t, fed, fed, "", d.Relay, d), nil
		}, false},
		{"of another key", func(fed, _ identity.Key, d *transport.Delegation) ([]byte, error) {
			d.Leaves[0].Key = other.Public().String()
			return sealed(t, fed, fed, "", d.Relay, d), nil
		}, false},
		{"another message", func(fed, _ identity.Key, d *transport.Delegation) ([]byte, error) {
			return sealed(t, fed, fed, "", d.Relay, &transport.Welcome{Version: 1}), nil
		}, false},
		{"not to be had", func(_, _ identity.Key, _ *transport.Delegation) ([]byte, error) { return nil, errors.New("503") }, false},
	} {
		m, _, _ := leafOf(t, c.show)
		if err := m.between(t.Context()); (err == nil) != c.good {
			t.Errorf("%s: %v", c.name, err)
		} else if err != nil && !retriable(err) {
			t.Errorf("%s ends the member: %v", c.name, err)
		}
		if home := m.o.Folder.Card.Home.URL; (home != "") != (c.name == "signed") {
			t.Errorf("%s: home is %q", c.name, home)
		}
	}
	number := 3
	m, _, _ := leafOf(t, func(fed, _ identity.Key, d *transport.Delegation) ([]byte, error) {
		d.Number = number
		return sealed(t, fed, fed, "", d.Relay, d), nil
	})
	for _, n := range []int{3, 5} {
		number = n
		if err := m.between(t.Context()); err != nil {
			t.Errorf("number %d: %v", n, err)
		}
	}
	if number = 4; m.between(t.Context()) == nil {
		t.Error("an old delegation was taken")
	}
}

// TestRelayWord: a relay may permit, give receipts and say that it cannot, over its own name; what ends a member or counts as the
// coordinator's word it cannot say.
func TestRelayWord(t *testing.T) {
	m, fed, relay := leafOf(t, func(fed, _ identity.Key, d *transport.Delegation) ([]byte, error) {
		return sealed(t, fed, fed, "", d.Relay, d), nil
	})
	if _, ok := m.fromRelay(sealed(t, relay, fed, "region", "leaf", &transport.Permit{Granted: true})); ok {
		t.Error("believed before the delegation was seen")
	}
	if err := m.between(t.Context()); err != nil {
		t.Fatal(err)
	}
	stranger, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what string
		msg  []byte
		good bool
	}{
		{"a permit", sealed(t, relay, fed, "region", "leaf", &transport.Permit{Granted: true, Expires: time.Minute}), true},
		{"a receipt", sealed(t, relay, fed, "region", "leaf", &transport.Receipt{Order: 1}), true},
		{"busy", sealed(t, relay, fed, "region", "leaf", &transport.Failure{Code: transport.CodeBusy}), true},
		{"a verdict", sealed(t, relay, fed, "region", "leaf", &transport.Verdict{Outcome: transport.Accepted}), false},
		{"a close", sealed(t, relay, fed, "region", "leaf", &transport.Close{Folded: "1"}), false},
		{"a task", sealed(t, relay, fed, "region", "leaf", &transport.Task{}), false},
		{"duties", sealed(t, relay, fed, "region", "leaf", &transport.Duties{}), false},
		{"revoked", sealed(t, relay, fed, "region", "leaf", &transport.Failure{Code: transport.CodeRevoked}), false},
		{"a wrong version", sealed(t, relay, fed, "region", "leaf", &transport.Failure{Code: transport.CodeVersion}), false},
		{"in the coordinator's name", sealed(t, relay, fed, "", "leaf", &transport.Permit{}), false},
		{"to another", sealed(t, relay, fed, "region", "other", &transport.Permit{}), false},
		{"of somebody else", sealed(t, stranger, fed, "region", "leaf", &transport.Permit{}), false},
		{"of another federation", sealed(t, relay, stranger, "region", "leaf", &transport.Permit{}), false},
	} {
		if _, ok := m.fromRelay(c.msg); ok != c.good {
			t.Errorf("%s: believed: %v", c.what, ok)
		}
	}
}
