package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/transport/natsbus"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// NATS describes a NATS system that somebody else runs, for federations that have outgrown one machine: the coordinator is its
// authorisation callout, and members connect to it instead of to the coordinator. Blobs, enrolment and the page stay on the
// coordinator's port. docs/network.md shows the servers' configuration.
type NATS struct {
	URLs    string `json:"urls"`              // of the servers, as the coordinator reaches them, separated by commas
	Members string `json:"members,omitempty"` // as members reach them; default the same
	CA      string `json:"ca,omitempty"`      // PEM file of the authority of the servers' certificates; default the system's
	Account string `json:"account"`           // in which members and coordinator are
	Issuer  string `json:"issuer"`            // file with the seed (SA…) of the callout's issuer
	User    string `json:"user"`              // file with the seed (SU…) of the coordinator's user in the account
	System  string `json:"system,omitempty"`  // file with the seed (SU…) of a user of the system account
}

// ReadNATS reads a description from a JSON file.
func ReadNATS(path string) (*NATS, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var n NATS
	if err := json.Unmarshal(text, &n); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if n.URLs == "" || n.Account == "" || n.Issuer == "" || n.User == "" {
		return nil, fmt.Errorf("%s: urls, account, issuer and user are needed", path)
	}
	return &n, nil
}

// seed reads a key from a file.
func seed(path string) (nkeys.KeyPair, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	k, err := nkeys.ParseDecoratedNKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// user returns the options with which the holder of a seed connects.
func (n *NATS) user(path string) ([]nats.Option, error) {
	k, err := seed(path)
	if err != nil {
		return nil, err
	}
	public, err := k.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	o := []nats.Option{nats.Nkey(public, k.Sign)}
	if n.CA != "" {
		o = append(o, nats.RootCAs(n.CA))
	}
	return o, nil
}

// hub connects to the servers.
func (n *NATS) hub(admit func(identity.Public) (string, bool), log *slog.Logger) (transport.Hub, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	issuer, err := seed(n.Issuer)
	if err != nil {
		return nil, err
	}
	o := natsbus.ExternalOptions{URLs: n.URLs, Account: n.Account, Issuer: issuer, Admit: admit, Log: log}
	if o.Connect, err = n.user(n.User); err != nil {
		return nil, err
	}
	if n.System != "" {
		if o.System, err = n.user(n.System); err != nil {
			return nil, err
		}
	}
	return natsbus.External(ctx, o)
}

// where is what members are told.
func (n *NATS) where() (w natsbus.Where, err error) {
	w.Bus = n.Members
	if w.Bus == "" {
		w.Bus = n.URLs
	}
	if n.CA != "" {
		text, err := os.ReadFile(n.CA)
		if err != nil {
			return w, err
		}
		w.CA = string(text)
	}
	return w, nil
}

// openBus makes the hub: on this port, or on servers elsewhere.
func (h *Host) openBus() (transport.Hub, error) {
	var w natsbus.Where
	if n := h.o.NATS; n != nil {
		var err error
		if w, err = n.where(); err != nil {
			return nil, err
		}
		hub, err := n.hub(h.Roster.Who, h.o.Log)
		if err != nil {
			return nil, errors.Join(err, errors.New("the NATS servers must run and have the coordinator as their authorisation callout: docs/network.md"))
		}
		h.serveWhere(w)
		return hub, nil
	}
	bus, err := natsbus.NewServer(natsbus.Options{Admit: h.Roster.Who, Who: h.Gate.Who, Log: h.o.Log})
	if err != nil {
		return nil, err
	}
	h.Gate.HandleMembers(natsbus.Path, bus.Handler())
	h.serveWhere(w)
	return bus.Hub(), nil
}

func (h *Host) serveWhere(w natsbus.Where) {
	h.Gate.HandleMembers("GET "+natsbus.WherePath, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(rw).Encode(w) // the member asks again
	}))
}
