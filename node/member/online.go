package member

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/cohort-learning/cohort/blob/web"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/node/gate"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/transport/natsbus"
)

// Network fills in how a member of this folder reaches its coordinator: everything over the one HTTPS port, which it
// recognises by the fingerprint of its invitation. HTTP proxies of the environment are respected.
func (f *Folder) Network(o *Options) error {
	u, err := identity.ParseURL(f.Card.URL)
	if err != nil {
		return err
	}
	trust := identity.NewTrust(f.Card.CA)
	client, err := identity.HTTPClient(f.Key, f.Card.URL, trust, nil)
	if err != nil {
		return err
	}
	o.Blobs = web.NewClient(client, f.Card.URL)
	o.Proof = func(ctx context.Context, run string, from uint64) (io.ReadCloser, error) {
		// It is asked for after a connection was lost: those that were made before may be dead as well, and nobody has said so.
		client.CloseIdleConnections()
		return fetchJournal(ctx, client, f.Card.URL, run, from)
	}
	o.Relay = func(ctx context.Context) ([]byte, error) { return fetchDelegation(ctx, client, f.Card.URL) }
	o.Roster = func(ctx context.Context) (io.ReadCloser, error) { return fetchLines(ctx, client, f.Card.URL+"/roster") }
	o.Probe = func(ctx context.Context) error {
		client.CloseIdleConnections()
		return probe(ctx, client, f.Card.URL)
	}
	o.Dial = func(ctx context.Context) (transport.Link, error) {
		within, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		_ = f.learn(within, trust) // else by what is known
		d := natsbus.DialOptions{URL: f.Card.URL, Name: f.Card.Name, Key: f.Key, TLS: trust.ClientTLS(f.Key, u.Hostname())}
		where, err := natsbus.Ask(within, client, f.Card.URL)
		if err == nil && where.Bus != "" { // servers that somebody else runs
			d.URL = where.Bus
			d.TLS, err = where.TLS()
		}
		if err != nil && within.Err() == nil && where.Bus != "" {
			return nil, err
		}
		link, err := natsbus.Dial(within, d)
		if err == nil || ctx.Err() != nil || errors.Is(err, transport.ErrDenied) {
			return link, err
		}
		if err := o.Probe(ctx); errors.Is(err, transport.ErrDenied) {
			return nil, err
		}
		return nil, fmt.Errorf("%s: %w", f.Card.URL, reason(ctx, f.Card.URL, trust.ClientTLS(f.Key, u.Hostname()), err))
	}
	return nil
}

// reason finds the cause behind an attempt to connect that ran out of time, which is what the user has to know.
func reason(ctx context.Context, base string, conf *tls.Config, err error) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: conf, Proxy: http.ProxyFromEnvironment}}
	defer client.CloseIdleConnections()
	req, bad := http.NewRequestWithContext(ctx, http.MethodGet, base, nil)
	if bad != nil {
		return err
	}
	resp, cause := client.Do(req)
	if cause != nil {
		var u *url.Error
		if errors.As(cause, &u) {
			cause = u.Err
		}
		return cause
	}
	resp.Body.Close()
	return err
}

// probe asks for something that only members get, and returns [transport.ErrDenied] if this one is none.
func probe(ctx context.Context, client *http.Client, base string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/journal/-", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	var no gate.Refusal
	if err == nil && json.Unmarshal(text, &no) == nil && no.Code == gate.NotMember {
		return transport.ErrDenied
	}
	return nil
}

func fetchJournal(ctx context.Context, client *http.Client, base, run string, from uint64) (io.ReadCloser, error) {
	return fetchLines(ctx, client, fmt.Sprintf("%s/journal/%s?from=%d", base, url.PathEscape(run), from))
}

func fetchLines(ctx context.Context, client *http.Client, at string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("%s: %s", at, resp.Status)
	}
	return resp.Body, nil
}
