package identity

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// ErrRedirected says that a federation's server pointed elsewhere, which none does.
var ErrRedirected = errors.New("the server answered with a redirection, which a federation's server never does: is the address that of something else?")

// HTTPClient returns a client for the one server at base (see [ParseURL]), for
// requests and for WebSockets: it shows k's certificate, recognises the server by
// trust, and goes through the HTTP proxy that proxy names. A nil proxy means the
// environment's ([http.ProxyFromEnvironment]: HTTPS_PROXY, NO_PROXY); proxies
// may be http:// (which CONNECT to the server, and see nothing but its name) or
// socks5://.
//
// It has no overall timeout, since transfers may be long: give each request a
// context.
func HTTPClient(k Key, base string, trust *Trust, proxy func(*http.Request) (*url.URL, error)) (*http.Client, error) {
	u, err := ParseURL(base)
	if err != nil {
		return nil, err
	}
	if proxy == nil {
		proxy = http.ProxyFromEnvironment
	}
	dialer := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}
	t := &http.Transport{
		Proxy: func(r *http.Request) (*url.URL, error) {
			p, err := proxy(r)
			if err == nil && p != nil && p.Scheme == "https" {
				return nil, fmt.Errorf("the proxy %s is spoken to by TLS, which is not supported: use its http:// address", p.Redacted())
			}
			return p, err
		},
		DialContext:           dialer.DialContext,
		TLSClientConfig:       trust.ClientTLS(k, u.Hostname()),
		TLSHandshakeTimeout:   30 * time.Second,
		ResponseHeaderTimeout: 2 * time.Minute,
		IdleConnTimeout:       90 * time.Second,
		ExpectContinueTimeout: time.Second,
		MaxIdleConnsPerHost:   8,
		ForceAttemptHTTP2:     true,
		HTTP2:                 &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: time.Minute}, // else a dead connection stays in use
		DisableCompression:    true,                                                                           // tensors do not compress, and sizes are checked
	}
	return &http.Client{
		Transport: t,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return ErrRedirected
		},
	}, nil
}
