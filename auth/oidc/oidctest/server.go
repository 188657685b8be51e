// Package oidctest is an identity provider for tests: it has keys, says which, signs tokens, and tells of those that it
// knows. OpenID Connect Discovery 1.0, RFC 7517, RFC 7662.
package oidctest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// The paths under which a Server answers.
const (
	Discovery  = "/.well-known/openid-configuration"
	Keys       = "/keys"
	Introspect = "/introspect"
)

// Who may ask at Introspect, and for whom tokens are. The secret shows whether it was encoded: RFC 6749 section 2.3.1.
const (
	ClientID = "dewey"
	Secret   = "s3cret:%/ +"
	Audience = "mail"
)

// A Server is an identity provider on 127.0.0.1, over TLS. Many goroutines may use it.
type Server struct {
	server *httptest.Server

	mu       sync.Mutex
	kid      string
	key      crypto.Signer
	alg      jose.SignatureAlgorithm
	tokens   map[string]map[string]any
	requests map[string]int
	fault    http.HandlerFunc
}

// New starts a Server with one key, "first". It ends with the test.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{tokens: make(map[string]map[string]any), requests: make(map[string]int)}
	s.Rotate("first", jose.ES256, NewKey())
	s.server = httptest.NewTLSServer(s)
	t.Cleanup(s.server.Close)
	return s
}

// NewKey makes a key for ES256.
func NewKey() crypto.Signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // rand.Reader does not fail
	}
	return key
}

// Issuer is the provider's URL.
func (s *Server) Issuer() string { return s.server.URL }

// Roots has who signed its certificate.
func (s *Server) Roots() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(s.server.Certificate())
	return p
}

// Certificate is the PEM text of its certificate, which signs itself.
func (s *Server) Certificate() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.server.Certificate().Raw})
}

// Rotate replaces the key.
func (s *Server) Rotate(kid string, alg jose.SignatureAlgorithm, key crypto.Signer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kid, s.alg, s.key = kid, alg, key
}

// Fail has all requests answered by fault; nil ends that.
func (s *Server) Fail(fault http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

// Requests is how many there have been for a path.
func (s *Server) Requests(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[path]
}

// Claims are those of a good token of that user's, with changes: nil takes a claim away.
func (s *Server) Claims(user string, changes map[string]any) map[string]any {
	now := time.Now()
	c := map[string]any{
		"iss": s.server.URL, "aud": Audience, "sub": "248289761001", "email": user, "email_verified": true, "scope": "openid mail",
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// Token signs claims with the current key.
func (s *Server) Token(claims map[string]any) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Sign(s.alg, s.key, map[jose.HeaderKey]any{"kid": s.kid, "typ": "at+jwt"}, claims)
}

// Sign makes a JWT with any key and header.
func Sign(alg jose.SignatureAlgorithm, key any, header map[jose.HeaderKey]any, claims map[string]any) string {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, &jose.SignerOptions{ExtraHeaders: header})
	if err != nil {
		panic(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		panic(err)
	}
	token, err := jws.CompactSerialize()
	if err != nil {
		panic(err)
	}
	return token
}

// Issue makes a token known to Introspect; nil makes it unknown.
func (s *Server) Issue(token string, claims map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if delete(s.tokens, token); claims != nil {
		s.tokens[token] = maps.Clone(claims)
		s.tokens[token]["active"] = true
	}
}

// ServeHTTP answers as the provider.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests[r.URL.Path]++
	fault := s.fault
	s.mu.Unlock()
	if fault != nil {
		fault(w, r)
		return
	}
	s.Answer(w, r)
}

// Answer is what a Server says when nothing fails.
func (s *Server) Answer(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var answer any
	switch r.Method + " " + r.URL.Path {
	case "GET " + Discovery:
		answer = map[string]any{"issuer": s.server.URL, "jwks_uri": s.server.URL + Keys, "introspection_endpoint": s.server.URL + Introspect}
	case "GET " + Keys:
		answer = jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: s.key.Public(), KeyID: s.kid, Use: "sig", Algorithm: string(s.alg)}}}
	case "POST " + Introspect:
		id, secret, _ := r.BasicAuth()
		id, errID := url.QueryUnescape(id)
		secret, errSecret := url.QueryUnescape(secret)
		if errID != nil || errSecret != nil || id != ClientID || secret != Secret {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		answer = map[string]any{"active": false}
		if about, ok := s.tokens[r.PostFormValue("token")]; ok {
			answer = about
		}
	default:
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		panic(fmt.Sprint("oidctest: ", err))
	}
}
