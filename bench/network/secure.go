package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/blob/web"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/private"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/node/parcel"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/weights"
)

// secured is the method under secure sums, as a real run has them.
func secured(e *echo) *private.Secure {
	return private.NewSecure(e, private.SecureOptions{MaxWeight: 1})
}

// nothing is a client that computes nothing.
type nothing struct{ *echo }

// Run implements [federated.Client].
func (c nothing) Run(context.Context, federated.Local, federated.Task, *weights.Set) (federated.Result, error) {
	return federated.Result{Weight: 1, Addends: map[string]weights.Set{"w": c.model()}}, nil
}

// acquaintances are the public keys of the crowd.
type acquaintances struct {
	own  identity.Key
	keys map[string]identity.Public
}

func (a acquaintances) Sign(msg []byte) []byte { return a.own.Sign(msg) }
func (a acquaintances) Pinned(string) bool     { return true }
func (a acquaintances) Insists() bool          { return true }
func (a acquaintances) Verify(name string, msg, sig []byte) error {
	if k, ok := a.keys[name]; !ok || !k.Verify(msg, sig) {
		return fmt.Errorf("no signature of %s", name)
	}
	return nil
}

// step answers one step of a session: with the protocol's own code, keys checked, but with a vault in memory.
func (m *light) step(e transport.Envelope, t *transport.Task, r *transport.Result) error {
	ctx := context.Background()
	store := blob.NewMemory()
	client, err := m.courier()
	if err != nil {
		return err
	}
	for _, ref := range e.Refs {
		if err := client.Download(ctx, store, blob.Hash(ref.Hash)); err != nil {
			return fmt.Errorf("download: %w", err)
		}
	}
	task := federated.Task{Group: t.Group, Params: t.Params, Round: e.Round, Phase: e.Step, Base: t.Base}
	if task.Attached, err = parcel.Attached(ctx, store, t.Attached, e.Refs); err != nil {
		return err
	}
	at := federated.Local{Member: federated.Member{Index: m.i, Name: m.name, Samples: 1}, Scope: m.c.keys.Federation.String() + "/bench", Vault: m.vault,
		Peers: acquaintances{m.key, m.c.public}}
	res, err := m.c.client.Run(ctx, at, task, nil)
	if err != nil {
		return err
	}
	p := parcel.Packer{Store: store}
	if r.Attached, err = p.Attached(ctx, "attached", res.Attached); err != nil {
		return err
	}
	r.Weight = 0
	if len(p.Refs) > 0 {
		if err := m.upload(ctx, client, store, r, p.Refs); err != nil {
			return err
		}
	}
	sealed, err := m.seal(r, p.Refs, transport.Envelope{Round: e.Round, Step: e.Step})
	if err != nil {
		return err
	}
	return m.deliver(r.Order, sealed)
}

// courier is the member's way for blobs.
func (m *light) courier() (*web.Client, error) {
	if m.web != nil {
		return m.web, nil
	}
	hc, err := identity.HTTPClient(m.key, m.c.keys.URL, m.c.trust, nil)
	if err != nil {
		return nil, err
	}
	m.web = web.NewClient(hc, m.c.keys.URL)
	return m.web, nil
}

// acquaint reads everybody's public key.
func (c *crowd) acquaint() error {
	c.public = map[string]identity.Public{}
	for i, seed := range c.keys.Seeds {
		k, err := identity.ParseKey(seed)
		if err != nil {
			return err
		}
		c.public[memberName(i)] = k.Public()
	}
	if c.Bytes > 0 && c.Down {
		return errors.New("secure rounds are measured without a model")
	}
	e := &echo{bytes: c.Bytes}
	c.client = secured(e).Around(nothing{e})
	return nil
}
