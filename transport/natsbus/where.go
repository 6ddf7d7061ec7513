package natsbus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// WherePath is where a member asks the coordinator where the bus is. The answer is the JSON of a [Where].
const WherePath = "/where"

// Where tells members where the bus is.
type Where struct {
	Bus string `json:"bus,omitempty"` // URLs of NATS servers that somebody else runs; empty: the coordinator's port
	CA  string `json:"ca,omitempty"`  // their authority's certificate (PEM); empty: the system's authorities
}

// Ask asks the coordinator at base where the bus is.
func Ask(ctx context.Context, client *http.Client, base string) (w Where, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+WherePath, nil)
	if err != nil {
		return w, err
	}
	res, err := client.Do(req)
	if err != nil {
		return w, err
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound: // an older coordinator: its own port
		return w, nil
	default:
		return w, fmt.Errorf("%s%s: %s", base, WherePath, res.Status)
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&w); err != nil {
		return w, fmt.Errorf("%s%s: %w", base, WherePath, err)
	}
	return w, nil
}

// TLS is how members recognise the servers.
func (w Where) TLS() (*tls.Config, error) {
	if w.CA == "" {
		return nil, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(w.CA)) {
		return nil, errors.New("the authority of the bus is no PEM certificate")
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}
