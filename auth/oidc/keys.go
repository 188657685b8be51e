package oidc

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

const (
	// An unknown key is looked for this long after the last look at the earliest (trap 47).
	keysPause = 10 * time.Second
	// While there are none at all nobody comes in, so they are asked for again sooner.
	keysNone = time.Second
	// Keys are fetched anew when they are so old, since one may have been withdrawn.
	keysAge = time.Hour
	// While they can't be, the last good ones serve: by then no token is left that they signed.
	keysLast = 24 * time.Hour
	maxKeys  = 100
	minRSA   = 2048 // bits: RFC 7518 section 3.3
)

// A keySet knows the provider's keys. go-oidc's own would fetch them at each unknown key, and hide a provider that is
// down behind a signature that is bad; it serves for discovery.
type keySet struct {
	issuer     string
	algorithms []jose.SignatureAlgorithm
	client     *http.Client
	timeout    time.Duration

	mu      sync.Mutex
	keys    []jose.JSONWebKey
	fetched time.Time     // when keys were
	tried   time.Time     // when that ended that was tried last
	err     error         // of that
	running chan struct{} // closed when a fetch ends; nil if there is none
}

func newKeySet(c Config, client *http.Client) *keySet {
	s := &keySet{issuer: c.Issuer, client: client, timeout: 2 * c.Timeout}
	for _, a := range c.Algorithms {
		s.algorithms = append(s.algorithms, jose.SignatureAlgorithm(a))
	}
	return s
}

// claims verifies a JWT's signature. RFC 7515 section 5.2, RFC 8725 section 3.
func (s *keySet) claims(ctx context.Context, token string) (claims, error) {
	jws, err := jose.ParseSignedCompact(token, s.algorithms)
	if err != nil || strings.ContainsAny(token, " \t\r\n") { // which the library skips
		return claims{}, refusal("it is no JWT, or its signature is of a kind that is not taken")
	}
	header := jws.Signatures[0].Protected
	kind, _ := header.ExtraHeaders[jose.HeaderType].(string)
	// RFC 9068 section 2.1: what was signed for another purpose is no access token.
	switch strings.TrimPrefix(strings.ToLower(kind), "application/") {
	case "", "jwt", "at+jwt":
	default:
		return claims{}, refusal("it is a JWT of another type")
	}
	keys, err := s.current(ctx, keysAge, keysAge/60)
	if err != nil {
		return claims{}, err
	}
	payload, known := verify(jws, header, keys)
	if payload == nil && !known {
		if keys, err = s.current(ctx, keysPause, keysPause); err != nil {
			return claims{}, err
		}
		payload, known = verify(jws, header, keys)
	}
	if payload == nil && !known && s.failing() {
		return claims{}, errors.New("a token with an unknown key, while the provider's keys can't be had")
	}
	about, ok := parseClaims(payload, true)
	switch {
	case payload == nil:
		return claims{}, refusal("its signature is by none of the provider's keys")
	case !ok:
		return claims{}, refusal("its claims are no JSON")
	}
	return about, nil
}

// verify returns what was signed, or nil; known says that there is a key of the name that the token gives.
func verify(jws *jose.JSONWebSignature, header jose.Header, keys []jose.JSONWebKey) (payload []byte, known bool) {
	for _, k := range keys {
		if header.KeyID != "" && k.KeyID != header.KeyID || k.Algorithm != "" && k.Algorithm != header.Algorithm {
			continue
		}
		known = known || header.KeyID != ""
		if payload, err := jws.Verify(k.Key); err == nil {
			return payload, true
		}
	}
	return nil, known
}

func (s *keySet) failing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err != nil
}

// current returns keys that are no older than age, or, while no such can be had, the last good ones; what failed is tried
// again after pause. One fetch serves all who wait, and goes on when they have gone.
func (s *keySet) current(ctx context.Context, age, pause time.Duration) ([]jose.JSONWebKey, error) {
	s.mu.Lock()
	now := time.Now()
	if now.Sub(s.fetched) >= age && (s.err == nil || now.Sub(s.tried) >= pause || now.Sub(s.fetched) >= keysLast && now.Sub(s.tried) >= keysNone) {
		if s.running == nil {
			s.running = make(chan struct{})
			go s.fetch(context.WithoutCancel(ctx))
		}
		done := s.running
		s.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the provider's keys: %w", context.Cause(ctx))
		}
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	if s.err != nil && time.Since(s.fetched) >= keysLast {
		return nil, s.err
	}
	return s.keys, nil
}

// fetch gets the keys: by discovery each time, since the provider may move them.
func (s *keySet) fetch(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	keys, err := s.discover(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tried = time.Now(); err == nil {
		s.keys, s.fetched = keys, s.tried
	}
	s.err = err
	close(s.running)
	s.running = nil
}

func (s *keySet) discover(ctx context.Context) ([]jose.JSONWebKey, error) {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, s.client), s.issuer)
	if err != nil {
		return nil, brief("the provider's OpenID configuration", err)
	}
	var about struct {
		URL string `json:"jwks_uri"`
	}
	if err := provider.Claims(&about); err != nil {
		return nil, brief("the provider's OpenID configuration", err)
	}
	if err := checkURL(about.URL); err != nil {
		return nil, fmt.Errorf("the provider's OpenID configuration: jwks_uri %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, about.URL, nil)
	if err != nil {
		return nil, brief("the provider's keys", err)
	}
	response, err := s.client.Do(request)
	if err != nil {
		return nil, brief("the provider's keys", err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, brief("the provider's keys", err)
	}
	return parseKeys(data)
}

// parseKeys reads a JWK Set. A key of a kind that is not known, or too weak, is not there for us. RFC 7517 section 5.
func parseKeys(data []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, errors.New("the provider's keys: not a JWK Set")
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("the provider's keys: %d, and at most %d are taken", len(set.Keys), maxKeys)
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var k jose.JSONWebKey
		if err := k.UnmarshalJSON(raw); err != nil || !k.Valid() || !k.IsPublic() || k.Use != "" && k.Use != "sig" {
			continue
		}
		if r, ok := k.Key.(*rsa.PublicKey); ok && r.N.BitLen() < minRSA {
			continue
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("the provider's keys: none with which tokens could be verified")
	}
	return slices.Clip(keys), nil
}

// brief keeps what a provider said from filling the log.
func brief(what string, err error) error {
	const most = 300
	text := err.Error()
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return fmt.Errorf("%s: %s", what, text)
}
