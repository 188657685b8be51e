package oidc

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"time"
)

// maxBody bounds what a provider may answer, in octets: a set of keys is the longest.
const maxBody = 512 << 10

// newClient makes what all requests go by.
func newClient(roots *x509.CertPool, timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout: timeout,
		Transport: guard{&http.Transport{
			DialContext:            (&net.Dialer{Timeout: timeout}).DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    timeout,
			ForceAttemptHTTP2:      true,
			MaxResponseHeaderBytes: 64 << 10,
			MaxConnsPerHost:        16,
			MaxIdleConnsPerHost:    4,
			IdleConnTimeout:        time.Minute,
			DisableCompression:     true,
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("a redirection, which is not followed") },
	}
}

// A guard lets pass only what can be an answer: JSON, not too long, over TLS. What else came is in no error: it might
// have what was sent.
type guard struct{ next http.RoundTripper }

func (g guard) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		return nil, errors.New("not https")
	}
	response, err := g.next.RoundTrip(r)
	if err != nil {
		return nil, err //nolint:wrapcheck // http.Client does
	}
	kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	switch {
	case response.StatusCode != http.StatusOK:
		err = fmt.Errorf("HTTP status %d where 200 belongs", response.StatusCode)
	case kind != "application/json" && (!strings.HasPrefix(kind, "application/") || !strings.HasSuffix(kind, "+json")):
		err = errors.New("the answer is no JSON")
	case response.ContentLength > maxBody:
		err = errTooLong
	default:
		response.Body = &bounded{response.Body, maxBody}
		return response, nil
	}
	_ = response.Body.Close()
	return nil, err
}

func (g guard) CloseIdleConnections() {
	if t, ok := g.next.(*http.Transport); ok {
		t.CloseIdleConnections()
	}
}

var errTooLong = fmt.Errorf("the answer is longer than %d octets", maxBody)

// bounded is a body that fails where it is too long.
type bounded struct {
	io.ReadCloser
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, errTooLong
	}
	return n, err //nolint:wrapcheck // io.EOF must stay what it is
}
