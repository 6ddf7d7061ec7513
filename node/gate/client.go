package gate

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/identity"
)

// maxReply bounds what a client reads of an answer.
const maxReply = 64 << 10

// Proxy returns the HTTP proxy for a request; nil means the environment's. See
// [identity.HTTPClient].
type Proxy func(*http.Request) (*url.URL, error)

// Join takes the name of a token for a key and checks that the federation signed
// the admission. Doing it again with the same key has no further effect, so after
// an error of the network it is safe to repeat. A refusal is a *[Refusal].
func Join(ctx context.Context, t identity.Token, k identity.Key, proxy Proxy) (JoinReply, error) {
	if err := t.Check(time.Now()); err != nil {
		return JoinReply{}, fmt.Errorf("join: %w", err)
	}
	client, err := identity.HTTPClient(k, t.URL, identity.NewTrust(t.CA), proxy)
	if err != nil {
		return JoinReply{}, fmt.Errorf("join: %w", err)
	}
	defer client.CloseIdleConnections()

	// The proof is about the connection, which is known only when the request is
	// about to be written; so the body is made when it is first read.
	var mu sync.Mutex
	var conn *tls.Conn
	body := func() (io.ReadCloser, error) {
		return &lazy{make: func() ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			if conn == nil {
				return nil, errors.New("the connection is not TLS")
			}
			s := conn.ConnectionState()
			bind, err := binding(&s)
			if err != nil {
				return nil, err
			}
			return json.Marshal(JoinRequest{Name: t.Name, Secret: t.Secret, Key: k.Public(), Proof: ProveKey(k, t.Federation, t.Name, bind)})
		}}, nil
	}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		mu.Lock()
		defer mu.Unlock()
		conn, _ = i.Conn.(*tls.Conn)
	}})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address(t.URL, "/join"), nil)
	if err != nil {
		return JoinReply{}, fmt.Errorf("join: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.ContentLength = -1
	req.GetBody = body
	if req.Body, err = body(); err != nil {
		return JoinReply{}, err
	}
	var reply JoinReply
	if err := do(client, req, &reply); err != nil {
		return JoinReply{}, fmt.Errorf("join %s as %s: %w", t.URL, t.Name, err)
	}
	if err := reply.Admission.Admission(t.Federation, t.Name, k.Public()); err != nil {
		return JoinReply{}, fmt.Errorf("join %s as %s: %w", t.URL, t.Name, err)
	}
	return reply, nil
}

// Passing reports whether an error of [Join] may pass by itself: nobody answers, the connection breaks, or the server says
// itself that it cannot answer now. A refusal, another server than that of the invitation, and an end of the context do not.
func Passing(err error) bool {
	var no *Refusal
	var odd *statusError
	var u *url.Error
	var alert tls.AlertError
	var record tls.RecordHeaderError
	var cert *tls.CertificateVerificationError
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return false
	case errors.As(err, &no):
		return no.Code == TooOften || no.Code == Internal
	case errors.As(err, &odd):
		return odd.code >= 500 // of something between
	case errors.Is(err, identity.ErrUnknownServer), errors.Is(err, identity.ErrRedirected), errors.As(err, &alert), errors.As(err, &record), errors.As(err, &cert):
		return false
	}
	return errors.As(err, &u) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrDeadlineExceeded)
}

// statusError is an answer that is not one of a federation.
type statusError struct {
	code   int
	status string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("the server answered %s and no reason: is the address that of a federation?", e.status)
}

type lazy struct {
	make func() ([]byte, error)
	r    *bytes.Reader
}

func (l *lazy) Read(b []byte) (int, error) {
	if l.r == nil {
		data, err := l.make()
		if err != nil {
			return 0, err
		}
		l.r = bytes.NewReader(data)
	}
	return l.r.Read(b)
}

func (l *lazy) Close() error { return nil }

func address(base, path string) string { return strings.TrimSuffix(base, "/") + path }

// do sends a request and reads its answer, or the refusal.
func do(client *http.Client, req *http.Request, into any) error {
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	switch {
	case err != nil:
		return err
	case len(data) > maxReply:
		return fmt.Errorf("the answer is longer than %d bytes", maxReply)
	}
	if resp.StatusCode != http.StatusOK {
		no := Refusal{Status: resp.StatusCode}
		if json.Unmarshal(data, &no) != nil || no.Code == "" {
			return &statusError{resp.StatusCode, resp.Status}
		}
		if wait, err := time.ParseDuration(resp.Header.Get("Retry-After") + "s"); err == nil {
			no.After = wait
		}
		return &no
	}
	if raw, ok := into.(*[]byte); ok {
		*raw = data
		return nil
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("the answer cannot be read: %w", err)
	}
	return nil
}

// PinsHandler shows everybody the signed list of the server's fingerprints, which
// a member fetches that does not recognise the server any more.
func PinsHandler(signed func() []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write(signed())
	})
}

// FetchPins asks the server at base for its fingerprints (/pins), without
// recognising it: the federation's signature is what makes the list good. It
// shows no certificate and sends nothing else. Known is the number of the newest
// list that the caller has seen.
func FetchPins(ctx context.Context, base string, federation identity.Public, known uint64, proxy Proxy) (identity.Pins, error) {
	client, err := identity.HTTPClient(identity.Key{}, base, identity.NewTrust(), proxy)
	if err != nil {
		return identity.Pins{}, err
	}
	defer client.CloseIdleConnections()
	client.Transport.(*http.Transport).TLSClientConfig.VerifyConnection = nil
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address(base, "/pins"), nil)
	if err != nil {
		return identity.Pins{}, err
	}
	var data []byte
	if err := do(client, req, &data); err != nil {
		return identity.Pins{}, fmt.Errorf("fetch the fingerprints of %s: %w", base, err)
	}
	return identity.OpenPins(data, federation, known)
}
