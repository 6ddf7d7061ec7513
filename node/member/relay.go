package member

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/transport"
)

// RelayPath is where a relay shows the coordinator's word for it.
const RelayPath = "/relay"

// ErrNoRelay says that nobody stands between a member and its coordinator.
var ErrNoRelay = errors.New("the coordinator itself")

// fetchDelegation asks the server at base whether it is a relay, and returns the delegation that it shows.
func fetchDelegation(ctx context.Context, client *http.Client, base string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+RelayPath, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return io.ReadAll(io.LimitReader(resp.Body, transport.MaxMessage+1))
	case http.StatusNotFound:
		return nil, ErrNoRelay
	}
	return nil, fmt.Errorf("%s%s: %s", base, RelayPath, resp.Status)
}

// between finds out, on a new connection, whether a relay stands between the member and the coordinator. Its word counts for
// permits and receipts only, and only if the coordinator has signed that it may speak with this member.
func (m *Member) between(ctx context.Context) error {
	if m.o.Relay == nil {
		return nil
	}
	msg, err := m.o.Relay(ctx)
	if errors.Is(err, ErrNoRelay) {
		m.setRelay(nil)
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: who stands between: %w", errNoAnswer, err)
	}
	var d transport.Delegation
	e, err := transport.Open(m.o.Folder.Card.Federation, msg)
	if err == nil {
		err = e.Decode(&d)
	}
	if err != nil {
		return fmt.Errorf("%w: the relay's delegation: %w", errAnswer, err)
	}
	m.mu.Lock()
	had := m.relay
	m.mu.Unlock()
	switch {
	case e.Fed != m.fed || !d.Has(m.name, m.o.Folder.Key.Public()):
		return fmt.Errorf("%w: the coordinator has not put %s behind the relay %.64q", errAnswer, m.name, d.Relay)
	case had != nil && had.Relay == d.Relay && d.Number < had.Number:
		return fmt.Errorf("%w: the relay shows an old delegation, %d after %d", errAnswer, d.Number, had.Number)
	}
	m.setRelay(&d)
	f := m.o.Folder
	if home := (Home{d.URL, identity.Fingerprint(d.CA)}); f.Card.Home != home {
		f.Card.Home = home
		if err := f.Save(); err != nil {
			return &localError{err}
		}
	}
	return nil
}

func (m *Member) setRelay(d *transport.Delegation) {
	m.mu.Lock()
	defer m.mu.Unlock()
	news := d != nil && (m.relay == nil || m.relay.Relay != d.Relay)
	m.relay = d
	if news {
		m.tell(Event{Kind: EventConnecting}, "behind the relay %s, as the coordinator has signed", d.Relay)
	}
}

// fromRelay opens an answer that the relay signed, not the coordinator. A relay can say nothing that ends the member.
func (m *Member) fromRelay(reply []byte) (e transport.Envelope, ok bool) {
	m.mu.Lock()
	d := m.relay
	m.mu.Unlock()
	if d == nil {
		return e, false
	}
	key, err := identity.ParsePublic(d.Key)
	if err != nil {
		return e, false
	}
	e, err = transport.Open(key, reply)
	if err != nil || e.Fed != m.fed || e.From != d.Relay || e.To != m.name {
		return e, false
	}
	switch e.Kind {
	case transport.KindPermit, transport.KindReceipt:
		return e, true
	case transport.KindError:
		var f transport.Failure
		ends := []transport.Code{transport.CodeRevoked, transport.CodeVersion, transport.CodeSignature, transport.CodeSender}
		return e, e.Decode(&f) == nil && !slices.Contains(ends, f.Code)
	}
	return e, false
}

// received notes a relay's receipt of a result: the result stays here, and is offered again now and then until the
// coordinator's own verdict or the end of the phase comes. It returns when that is.
func (m *Member) received(r *run, o *order, c *transport.Receipt, msg []byte) (time.Duration, error) {
	if c.Order != o.id || c.Result != transport.DigestOf(msg) {
		return 0, fmt.Errorf("%w: a receipt for another result", errAnswer)
	}
	m.mu.Lock()
	first := !o.receipt
	o.receipt = true
	m.mu.Unlock()
	if first {
		ev := o.of(EventSent, r)
		ev.Bytes = o.bytes
		m.tell(ev, "%s: sent %s to the relay", roundOf(r, o), inBytes(o.bytes))
	}
	return m.spread(interval), nil
}

// Home is where the coordinator itself is, for a member behind a relay.
type Home struct {
	URL string               `json:"url"`
	CA  identity.Fingerprint `json:"ca"`
}

// ErrNoHome says that a member was never behind a relay.
var ErrNoHome = errors.New("this member is not behind a relay, or has not connected to it once")

// GoHome makes a member that was behind a relay connect to the coordinator itself from now on. The coordinator takes its
// results wherever they come from, and counts each once.
func (f *Folder) GoHome() error {
	if f.Card.Home.URL == "" {
		return ErrNoHome
	}
	f.Card.URL, f.Card.CA, f.Card.Home = f.Card.Home.URL, f.Card.Home.CA, Home{}
	return f.Save()
}
